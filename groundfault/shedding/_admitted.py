"""What was decided about one request."""

from typing import TYPE_CHECKING

from groundfault.shedding._law import Entry
from groundfault.shedding._routes import Route

if TYPE_CHECKING:
    from groundfault.vocabulary import Reason

__all__ = ["Admission"]


class Admission(Entry):
    """What was decided about one request; handed back to :meth:`Shedder.answered` and :meth:`Shedder.release`.

    ``reason`` is None for an admitted request. ``refused`` is false where shadow mode lets a refused one through.
    """

    __slots__ = ("generation", "reason", "refused", "released")
    generation: int

    def __init__(self, name: str, route: Route, on_loop: bool) -> None:  # noqa: FBT001  one call per request
        self.name = name
        self.route = route
        self.on_loop = on_loop
        self.queued_s = 0.0
        self.predicted_s: float | None = None
        self.open = False
        self.health = False
        self.reason: Reason | None = None
        self.refused = False
        self.released = False
