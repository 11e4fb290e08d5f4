"""Times as people write and read them: ``30m``, ``2026-11-23T20:00:00Z``, ``4m 10s``."""

import argparse
import re
from datetime import UTC, datetime
from typing import Final

__all__ = ["LONGEST_S", "duration", "moment", "span", "stamp"]

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
LONGEST_S: Final = 366 * 86400.0
"""No override lasts longer, in seconds: a year."""


def duration(text: str) -> float:
    """Return seconds of ``90s``, ``30m``, ``1h30m`` or ``2d``. Raises ArgumentTypeError, also above a year."""
    if _DURATION.fullmatch(text):
        parts = re.findall(r"([\d.]+)([smhd])", text)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        if 0 < seconds <= LONGEST_S:
            return seconds
    raise argparse.ArgumentTypeError(f"must be above 0 and at most 366d, such as 90s, 30m, 1h30m or 2d, not {text!r}")


def moment(text: str) -> float:
    """Return seconds since the epoch of an ISO 8601 time with its offset. Raises ArgumentTypeError."""
    try:
        parsed = datetime.fromisoformat(text)
        # Without an offset, half of the readers take it for their own time and the other half for UTC.
        if parsed.tzinfo is not None:
            return parsed.timestamp()
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"must be a time with its offset, such as 2026-11-23T20:00:00Z, not {text!r}")


def stamp(at: float) -> str:
    """Return a time in UTC to the second, or the number itself where no calendar reaches."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"


def span(seconds: float) -> str:
    """Return a time span in its two greatest units: ``0s``, ``59s``, ``29m 59s``, ``2d 3h``."""
    left = max(0, round(seconds))
    parts: list[tuple[int, str]] = []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_UNITS[unit]))
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count}{unit}" for count, unit in parts[:2] if count) or "0s"
