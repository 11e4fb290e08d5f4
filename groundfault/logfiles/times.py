"""Moments as logs write them."""

from datetime import UTC, datetime
from typing import Final

__all__ = ["moment_of"]

_YEAR_2001_S: Final = 1e9
_LAST_S: Final = 1e11
_LAST_NS: Final = _LAST_S * 1e9


def moment_of(value: object) -> float | None:
    """Return the seconds since the epoch at which a time lies; None for what is no time.

    Numbers are s, ms, µs or ns, told apart by their magnitude. A time without a zone is taken for UTC.
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                return None
        else:
            try:
                moment_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            except (OverflowError, ValueError, OSError):
                return None
            return moment_s if 0 <= moment_s < _LAST_S else None  # beyond, no zone may have a date for it
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LAST_NS:
        return None
    for _ in range(3):
        if value < _LAST_S:
            break
        value /= 1000
    return float(value) if _YEAR_2001_S <= value < _LAST_S else None
