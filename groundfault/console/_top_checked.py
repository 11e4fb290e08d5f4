"""A view that came from elsewhere, made whole: every field there, and of its kind.

Whoever made it may be of another release, or be no console at all. A field that is missing or odd gets a value that
says nothing, and is counted; only what is no view in this format is refused.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from groundfault.console.view import FORMAT, View

__all__ = ["NoViewError", "checked"]

_MOST: Final = 5000
"""Rows of a kind that are looked at."""
_LARGEST: Final = 1e15

Check = Callable[[Any], Any]
Kind = tuple[Check, Any]
Kinds = Mapping[str, Kind]


class NoViewError(ValueError):
    """This is no view, or one in a format of another version. The message says which."""


class _OddError(ValueError):
    """A value that is not of its kind."""


def _number(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST:
        return value
    raise _OddError


def _amount(value: Any) -> float:
    if _number(value) < 0:
        raise _OddError
    return cast("float", value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _OddError


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _OddError


def _or_none(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _list_of(check: Check) -> Check:
    def listed(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _OddError
        return [check(each) for each in value[:_MOST]]

    return listed


def _dict_of(check: Check) -> Check:
    def mapped(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _OddError
        return {name: check(each) for name, each in value.items()}

    return mapped


def _level(value: Any) -> str:
    if value in ("ok", "warn", "bad"):
        return cast("str", value)
    raise _OddError


_TEXTS: Final[Kind] = _list_of(_text), []
_COUNTS: Final[Kind] = _dict_of(_amount), {}
_POINTS: Final[Kind] = _list_of(_or_none(_amount)), []
_LEVEL: Final[Kind] = _level, "warn"
_ZERO: Final[Kind] = _amount, 0
_TIME: Final[Kind] = _number, 0.0
_MAYBE: Final[Kind] = _or_none(_amount), None
_NAME: Final[Kind] = _text, "?"
_MAYBE_NAME: Final[Kind] = _or_none(_text), None
_NO: Final[Kind] = _flag, False
_VERSIONS: Final[Kind] = _dict_of(_or_none(_text)), {}


def _each(kind: Kind, *names: str) -> dict[str, Kind]:
    return dict.fromkeys(names, kind)


_CURVE: Final = _each(_POINTS, "spark", "bad")
_ROW: Final = {**_each(_LEVEL, "level"), **_each(_TEXTS, "why"), **_CURVE}

_COMMAND: Final[Kinds] = {
    **_each(_NAME, "id", "resource", "command", "state"),
    **_each(_MAYBE_NAME, "service"),
    **_ROW,
    **_each(_ZERO, "trouble", "rate_per_s", "error_share", "fallbacks", "in_flight", "saturated", "unhealthy"),
    **_each(_COUNTS, "counts", "states", "modes"),
    **_each(_MAYBE, "p50_s", "p90_s", "p99_s", "limit"),
    "settings": (_dict_of(_number), {}),
    "admitted_share": (_amount, 1.0),
    "processes": _ZERO,
}
_SERVER: Final[Kinds] = {
    **_each(_NAME, "service"),
    **_ROW,
    **_each(_ZERO, "rate_per_s", "goodput_per_s", "shed_share", "abandoned", "in_flight", "shedding", "stepped_aside"),
    **_each(_MAYBE, "wait_p50_s", "wait_p99_s", "threshold_s", "deadline_s", "backlog", "backlog_limit"),
    **_each(_COUNTS, "counts", "modes", "signals"),
    "processes": _ZERO,
}
_NODE: Final[Kinds] = {
    **_each(_NAME, "name", "kind"),
    **_each(_ZERO, "layer", "row"),
    **_each(_NO, "suffers", "sheds"),
    **_each(_LEVEL, "level"),
    **_each(_TEXTS, "notes"),
}
_EDGE: Final[Kinds] = {
    **_each(_NAME, "caller", "callee"),
    **_each(_ZERO, "rate_per_s", "failed_share", "shed_share", "not_sent_share"),
    **_each(_MAYBE, "wait_s"),
    **_each(_LEVEL, "level"),
    **_each(_TEXTS, "notes"),
}
_EPISODE: Final[Kinds] = {
    **_each(_NAME, "id", "kind", "subject", "what"),
    **_each(_LEVEL, "level"),
    **_each(_MAYBE_NAME, "service", "by", "reason"),
    "began_at": _TIME,
    "ended_at": (_or_none(_number), None),
    "numbers": (_dict_of(_number), {}),
}
_STORE: Final[Kinds] = {
    **_each(_NAME, "store"),
    **_each(_COUNTS, "versions"),
    **_each(_MAYBE_NAME, "newest"),
    **_each(_ZERO, "behind", "lag_s", "unreachable", "rejected"),
    **_each(_MAYBE, "age_s"),
}
_PROCESS: Final[Kinds] = {
    **_each(_ZERO, "pid", "age_s"),
    **_each(_MAYBE_NAME, "host", "service"),
    **_each(_NO, "stale"),
    "versions": _VERSIONS,
}
_HOST: Final[Kinds] = {
    **_each(_NAME, "host", "state"),
    "why": (_text, ""),
    "skew_s": (_or_none(_number), None),
    **_each(_MAYBE_NAME, "release"),
    **_each(_TEXTS, "services"),
    **_each(_ZERO, "age_s", "processes"),
}
_HEADLINE: Final[Kinds] = {
    **_each(_LEVEL, "level"),
    "words": (_text, ""),
    **_each(_ZERO, "rate_per_s", "goodput_per_s", "shed_share", "open_circuits", "saturated", "commands", "processes"),
    **_each(_ZERO, "stale", "hosts", "behind", "lag_s"),
    **_each(_MAYBE, "wait_p99_s", "threshold_s"),
    **_each(_MAYBE_NAME, "version"),
    **_CURVE,
}
_TOP: Final[Kinds] = {
    **_each(_NAME, "release", "kind", "title", "host"),
    **_each(_TIME, "made_at"),
    **_each(_ZERO, "sequence", "hidden"),
    "interval_s": (_amount, 1.0),
    "window_s": (_amount, 10.0),
    "point_s": (_amount, 2.0),
    **_each(_TEXTS, "unknown"),
    "internal_errors": _COUNTS,
}
_OPTIONAL: Final = {"by", "reason"}


def checked(said: Any) -> View:
    """Return what was said as a view that is whole; ``said`` stays as it is. Raises NoViewError."""
    if not isinstance(said, dict) or "format" not in said:
        raise NoViewError("this is not what a console says of itself: it has no format")
    if said["format"] != FORMAT:
        raise NoViewError(
            f"its format is {str(said['format'])[:20]!r}, and this release of groundfault reads {FORMAT}: "
            "use the release that the console runs"
        )
    odd: list[str] = []
    view = _whole(said, _TOP, odd, "")
    view["format"] = FORMAT
    view["headline"] = _whole(said.get("headline"), _HEADLINE, odd, "headline.")
    for name, kinds in (("servers", _SERVER), ("commands", _COMMAND), ("timeline", _EPISODE), ("stores", _STORE)):
        view[name] = _rows(said.get(name), kinds, odd, name)
    for name, kinds in (("processes", _PROCESS), ("hosts", _HOST)):
        view[name] = _rows(said.get(name), kinds, odd, name)
    drawn = said.get("map")
    drawn = drawn if isinstance(drawn, dict) else {}
    view["map"] = {
        "nodes": _rows(drawn.get("nodes"), _NODE, odd, "map.nodes"),
        "edges": _rows(drawn.get("edges"), _EDGE, odd, "map.edges"),
        "notes": drawn["notes"] if _is_texts(drawn.get("notes")) else [],
    }
    if odd:
        view["unknown"] = [*view["unknown"], f"{len(odd)} fields are missing or odd, {odd[0]} for one"]
    return cast("View", view)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _rows(said: Any, kinds: Kinds, odd: list[str], where: str) -> list[dict[str, Any]]:
    if not isinstance(said, list):
        odd.append(where)
        return []
    return [_whole(each, kinds, odd, f"{where}.") for each in said[:_MOST]]


def _whole(said: Any, kinds: Kinds, odd: list[str], where: str) -> dict[str, Any]:
    said = said if isinstance(said, dict) else {}
    made = {}
    for name, (check, usual) in kinds.items():
        try:
            made[name] = check(said[name])
        except (KeyError, _OddError):
            if name not in _OPTIONAL:
                made[name] = usual
                odd.append(where + name)
    return made
