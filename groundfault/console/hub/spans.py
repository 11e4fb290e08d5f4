"""What ``/history.json`` is asked for: ``from`` and ``to`` in seconds since the epoch, and a ``service``."""

import math
from typing import Final
from urllib.parse import parse_qsl

from groundfault.console.answering import RefusedError
from groundfault.console.hub.history import Span

__all__ = ["span_of"]

USUAL_S: Final = 3600.0
_LATEST: Final = 253402300799.0  # the last second of the year 9999
_LONGEST_SERVICE: Final = 200
_SHOWN: Final = 60


def span_of(query: str, now: float) -> Span:
    """Return what is asked for: the last hour of all services, unless it says otherwise. Raises RefusedError."""
    given: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=10)
    except ValueError:
        raise RefusedError(400, "the query must have at most 10 fields") from None
    for name, value in pairs:
        if name not in {"from", "to", "service"} or name in given:
            raise RefusedError(400, f"the query may say from, to and service, each once, not {name[:_SHOWN]!r}")
        given[name] = value
    to_s = _moment("to", given.get("to"), now)
    from_s = _moment("from", given.get("from"), max(0.0, to_s - USUAL_S))
    if from_s > to_s:
        raise RefusedError(400, f"from must be at most to, {to_s:.15g}, not {from_s:.15g}")
    service = given.get("service")
    if service is not None and len(service) > _LONGEST_SERVICE:
        raise RefusedError(400, f"service must have at most {_LONGEST_SERVICE} characters, not {len(service)}")
    return Span(from_s, to_s, service)


def _moment(name: str, text: str | None, usual: float) -> float:
    if text is None:
        return usual
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= _LATEST:
        raise RefusedError(400, f"{name} must be seconds from 0 to {_LATEST:.0f}, not {text[:_SHOWN]!r}")
    return value
