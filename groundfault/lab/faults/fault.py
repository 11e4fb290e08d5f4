"""What can be wrong with a connection. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from math import isfinite
from typing import Any, Final, Self

__all__ = ["NONE", "BodyCount", "Fault", "FaultError", "Kind"]


class FaultError(ValueError):
    """This is no fault. The message names the field, its bound and the value."""


class Kind(StrEnum):
    """The kinds of fault.

    * ``none``: bytes go through as they are.
    * ``latency``: what the callee answers arrives ``delay_s`` later, give or take ``jitter_s``.
    * ``reset``: the caller gets an RST in the place of the answer's byte after ``after_bytes``.
    * ``slow-close``: where one side closes, the other one hears of it ``delay_s`` later.
    * ``truncation``: an orderly end after ``after_bytes`` bytes of an answer's body.
    * ``bandwidth``: all connections of the route share ``bytes_per_s`` for what the callee answers.
    * ``blackhole``: connections are accepted, what is sent is swallowed, and nothing is ever answered. When the fault
      is over, those that have lost something are reset.
    * ``refuse``: nobody listens; what was open is reset.
    """

    NONE = "none"
    LATENCY = "latency"
    RESET = "reset"
    SLOW_CLOSE = "slow-close"
    TRUNCATION = "truncation"
    BANDWIDTH = "bandwidth"
    BLACKHOLE = "blackhole"
    REFUSE = "refuse"


_MAX_S: Final = 3600.0
_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "delay_s": (0.0, _MAX_S),
    "jitter_s": (0.0, _MAX_S),
    "after_bytes": (0, 2**40),
    "bytes_per_s": (1.0, 1e12),
    "share": (0.0, 1.0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One fault. ``share`` of the connections have it, drawn for each; all of them where nobody listens (``refuse``).

    ``delay_s`` (0.2 s) and ``jitter_s`` (0 s), ``after_bytes`` (0) and ``bytes_per_s`` (10,000) mean what
    :class:`Kind` says, and nothing to other kinds. Raises FaultError if one is out of bounds.
    """

    kind: Kind = Kind.NONE
    delay_s: float = 0.2
    jitter_s: float = 0.0
    after_bytes: int = 0
    bytes_per_s: float = 10_000.0
    share: float = 1.0

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
                raise FaultError(f"{name} must be a number, not {value!r:.40}")
            if not low <= value <= high:
                raise FaultError(f"{name} must be between {low:g} and {high:g}, not {value:g}")

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Self:
        """Return the fault that JSON describes. Raises FaultError for a field or a kind that there is not."""
        unknown = sorted(set(said) - {each.name for each in fields(cls)})
        if unknown:
            raise FaultError(f"a fault has no field {unknown[0]!r:.40}")
        try:
            kind = Kind(said.get("kind", Kind.NONE))
        except ValueError:
            kinds = ", ".join(each.value for each in Kind)
            raise FaultError(f"kind must be one of {kinds}, not {said.get('kind')!r:.40}") from None
        return cls(**{**said, "kind": kind})

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    def delay(self, draw: float) -> float:
        """Return how many seconds an answer waits. ``draw``: evenly from 0 to 1."""
        return max(0.0, self.delay_s + self.jitter_s * (2 * draw - 1))


NONE: Final = Fault()

_END_OF_HEAD: Final = b"\r\n\r\n"
_LONGEST_HEAD: Final = 65_536


class BodyCount:
    """Tells how much of the next bytes of an answer go through, if only ``after_bytes`` of its body may."""

    __slots__ = ("_head", "_left", "_tail")

    def __init__(self, after_bytes: int) -> None:
        self._left = after_bytes
        self._tail = b""
        self._head: int | None = 0

    def through(self, data: bytes) -> int:
        """Return how many of these bytes go through; fewer than there are: the answer ends there."""
        start = 0
        if self._head is not None:
            seen = self._tail + data
            at = seen.find(_END_OF_HEAD)
            self._head += len(data)
            if at < 0 and self._head < _LONGEST_HEAD:
                self._tail = seen[-3:]
                return len(data)
            start = max(0, at + len(_END_OF_HEAD) - len(self._tail)) if at >= 0 else 0
            self._head = None
        allowed = min(len(data) - start, self._left)
        self._left -= allowed
        return start + allowed
