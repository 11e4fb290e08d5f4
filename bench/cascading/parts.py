"""The chain's services and what protects them.

::

    users ──► a ──► b ──► c ──► d ──► e        (of three: a ──► b ──► c)

``/need`` goes all the way; the last service can do little and is where it hurts.
``/free``, the innocents', turns back one service before: nothing that it needs is scarce, and it crosses all edges but
the last, so whatever a circuit does there for the sake of the others is done to it too.
"""

import json
import os
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

__all__ = ["FREE", "NEED", "USER_S", "Last", "Part", "Variant", "names", "timeout_s"]

NEED, FREE = "/need", "/free"

ROOT_THREADS = 64
HOP_THREADS = 32
"""Threads of the services before the last: each holds one for as long as it waits for the next."""

FREE_S = 0.005
"""What ``/free`` takes where it turns back, mostly waiting, as a look into a near cache would."""

USER_S = 1.0
"""How long a user waits."""

_VARIABLE = "GF_CASCADE_PART"


class Variant(StrEnum):
    """What protects the chain.

    * ``groundfault``: load shedders and circuits with default settings.
    * ``plain``: the same, but a refusal is a plain 503 and no circuit honors an annotated one.
    * ``interlock``: interlock-cb's adapter and bulkheads, with its defaults but for the time a circuit stays open.
    * ``none``: circuits as in ``plain`` and no load shedder.
    """

    GROUNDFAULT = "groundfault"
    PLAIN = "plain"
    INTERLOCK = "interlock"
    NONE = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Last:
    """What the last service can do: ``instances`` of it, each with ``slots`` of which every request holds one.

    There is a thread more than there are slots, so that a refusal keeps no slot from working.
    """

    instances: int = 1
    slots: int = 2
    work_s: float = 0.1

    @property
    def capacity_rps(self) -> float:
        """Requests a second that all of them together can answer."""
        return self.instances * self.slots / self.work_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What one service process is told: its place in the chain, what protects it, whom it calls, where it writes.

    ``callees``: base URLs of the next service's instances, empty for the last. ``token``: repeated by the health check,
    so that a stranger on the port is not taken for this process.
    """

    service: str
    instance: int
    place: int
    length: int
    variant: Variant
    directory: str
    token: str
    callees: tuple[str, ...]
    last: Last

    @property
    def is_last(self) -> bool:
        """Whether this is the end of the chain."""
        return self.place == self.length - 1

    @property
    def turns(self) -> bool:
        """Whether ``/free`` turns back here."""
        return self.place == self.length - 2

    @property
    def callee(self) -> str:
        """The next service's name. IndexError for the last."""
        return names(self.length)[self.place + 1]

    @property
    def threads(self) -> int:
        """How many threads serve."""
        if self.is_last:
            # A bulkhead sees nothing of the queue in front of it, so its queue is inside: five wait for a slot at most,
            # a quarter of a second as with our shedder, or it would refuse without need; and one thread refuses.
            return self.last.slots + (6 if self.variant is Variant.INTERLOCK else 1)
        return HOP_THREADS if self.place else ROOT_THREADS

    def environment(self) -> dict[str, str]:
        """Return the environment variable that carries all this to the process."""
        return {_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Self:
        """Read the part this process plays. KeyError if it was not started by the benchmark."""
        fields = json.loads(os.environ[_VARIABLE])
        told = {"variant": Variant(fields["variant"]), "last": Last(**fields["last"])}
        return cls(**{**fields, **told, "callees": tuple(fields["callees"])})


def names(length: int) -> str:
    """Return the services' names, one letter each, first to last."""
    return "abcdefghijklmnopqrstuvwxyz"[:length]


def timeout_s(place: int) -> float:
    """Return how long the service at this place waits for the next: each a little less than the one before it."""
    return USER_S - 0.05 * (place + 1)
