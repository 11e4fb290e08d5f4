"""What a JSON record tells of a request, however its fields are called. Headers and cookies are never looked at."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["Told", "plain_names", "told_by"]

_TIMES: Final = (
    *("@timestamp", "timestamp", "ts", "time", "at", "time_iso8601", "time_local", "msec", "datetime", "date"),
    *("startedDateTime", "start_time", "asctime", "StartUTC"),
)
_METHODS: Final = (
    *("method", "request_method", "http_method", "requestMethod", "verb", "http.request.method", "http.method"),
    *("request.method", "RequestMethod"),
)
_TARGETS: Final = (
    *("path", "request_uri", "uri", "url", "target", "request_path", "requestUrl", "raw_path", "http.target"),
    *("url.original", "url.full", "url.path", "http.url", "request.path", "request.url", "request.uri", "RequestPath"),
)
_STATUSES: Final = (
    *("status", "status_code", "response_status", "response_code", "http_status", "http.response.status_code"),
    *("http.status_code", "response.status", "response.status_code", "code", "DownstreamStatus"),
)
_LINES: Final = ("request", "request_line", "http.request", "event", "message", "msg", "log")
_ROUTE: Final = "route"
_OWN: Final = "request.seen"
_DEEP: Final = 4
_MOST_FIELDS: Final = 200

_REQUEST: Final = re.compile(r'(?:\A|")([A-Z]{3,7}) (\S+)(?: HTTP/[\d.]+)?(?:"|\Z)(?: (\d{3})\b)?')


class Told(NamedTuple):
    """What a record tells, as it was found. ``line``: it holds a line of a log as text, which is to be read instead."""

    time: object = None
    method: object = None
    target: object = None
    status: object = None
    sample: object = None
    line: str | None = None


def told_by(held: Mapping[str, Any], loads: Callable[[str], Any]) -> Told | None:
    """Return what a record tells of a request; None if it tells of none."""
    flat = dict(_flattened(held, loads))
    time = _found(flat, _TIMES)
    sample = _found(flat, ("sample",))
    own = _own_route(flat)
    if own is not None:
        method, _, path = own.partition(" ")
        # Our own events name routes, in which a star stands for what varied.
        return Told(time, method, path.replace("**", "*").replace("*", "0-0"), None, sample)
    method, target = _found(flat, _METHODS), _found(flat, _TARGETS)
    status = _found(flat, _STATUSES)
    if isinstance(method, str) and isinstance(target, str):
        return Told(time, method, target, status, sample)
    for name in _LINES:
        text = _found(flat, (name,))
        if isinstance(text, str):
            request = _REQUEST.search(text[:8192])
            if request is not None and time is not None:
                return Told(time, request[1], request[2], status if status is not None else request[3], sample)
            if request is not None:
                return Told(line=text)
    return None


def plain_names(held: Mapping[str, Any]) -> tuple[str, str, str, str] | None:
    """Return where a flat record has its time, method, target and status; None for one that is to be looked into.

    What has the same fields in the same order, has them at the same places.
    """
    if _ROUTE in held:
        return None
    found = [next((name for name in names if name in held), "") for names in (_TIMES, _METHODS, _TARGETS, _STATUSES)]
    time, method, target, status = found
    return (time, method, target, status) if time and method and target else None


def _own_route(flat: Mapping[str, Any]) -> str | None:
    """Return the route of an access event of our own, at the top or in whatever wraps it."""
    for path, value in flat.items():
        if value == _OWN and (path == "event" or path.endswith(".event")):
            route = flat.get(f"{path[: -len('event')]}{_ROUTE}")
            return route if isinstance(route, str) else None
    return None


def _flattened(
    held: Mapping[str, Any], loads: Callable[[str], Any], prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Any]]:
    """Yield every value with its path, outer ones last, so that they count where a path is there twice."""
    if len(held) > _MOST_FIELDS:
        return
    for name, value in held.items():
        lower = name.lower()
        if "header" in lower or "cookie" in lower:
            continue
        if depth < _DEEP:
            inner = value
            if isinstance(value, str) and value.startswith("{") and value.rstrip().endswith("}"):
                try:
                    inner = loads(value)
                except (ValueError, RecursionError):
                    inner = None
            if isinstance(inner, Mapping):
                yield from _flattened(inner, loads, f"{prefix}{name}.", depth + 1)
    for name, value in held.items():
        if not isinstance(value, Mapping | list):
            yield f"{prefix}{name}", value


def _found(flat: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """Return the first of these that is there: by its whole path, else below whatever wraps it."""
    for name in names:
        value = flat.get(name)
        if value is not None:
            return value
    if any("." in path for path in flat):
        for name in names:
            ending = f".{name}"
            for path, value in flat.items():
                if path.endswith(ending) and value is not None:
                    return value
    return None
