"""From JSON to the classes of the run, by their annotations: every wrong value is named with its place. Pure.

A field that a later release added is passed over; one that is missing has its default, or is refused if it has none.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

__all__ = ["LARGEST", "PlaceError", "made", "shown"]

LARGEST: Final = 2**53
"""Beyond it a float, which is what JSON's numbers are elsewhere, does not know every whole number."""


class PlaceError(ValueError):
    """A value is not what it must be. The message names its place, what it must be, and what it is."""


def made(kind: Any, value: Any, place: str) -> Any:
    """Return ``value`` as the annotation ``kind`` wants it. Raises PlaceError."""
    if kind in _PLAIN:
        return _PLAIN[kind](value, place)
    if is_dataclass(kind):
        return _object(kind, value, place)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is list:
        return _list(parts[0], value, place)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong(place, "an object", value)
        of = parts[1]
        return {str(name): made(of, each, _within(place, str(name))) for name, each in value.items()}
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(parts):
            raise _wrong(place, f"a list of {len(parts)} values", value)
        return tuple(
            made(part, each, f"{place}[{at}]") for at, (part, each) in enumerate(zip(parts, value, strict=True))
        )
    if origin is UnionType and NoneType in parts:
        return None if value is None else made(next(part for part in parts if part is not NoneType), value, place)
    raise TypeError(f"{kind!r} has no way to be read")


def _within(place: str, name: str) -> str:
    return f"{place}.{name:.40}" if place else f"{name:.40}"


def _wrong(place: str, wanted: str, value: Any) -> PlaceError:
    return PlaceError(f"{place or 'the document'} must be {wanted}, not {shown(value)}")


def shown(value: Any) -> str:
    """Return a value as a message shows it: never long."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    try:
        return f"{value!r:.40}"
    except ValueError:  # a whole number of more digits than Python prints
        return "a number that long"


def _object(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(place, "an object", value)
    hints = get_type_hints(kind)
    found = {}
    for each in fields(kind):
        if each.name in value:
            found[each.name] = made(hints[each.name], value[each.name], _within(place, each.name))
        elif each.default is MISSING and each.default_factory is MISSING:
            raise PlaceError(f"{_within(place, each.name)} is missing")
    return kind(**found)


def _list(kind: Any, value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(place, "a list", value)
    if kind is int and all(type(each) is int and -LARGEST <= each <= LARGEST for each in value):
        return value  # a day has a million of these
    return [made(kind, each, f"{place}[{at}]") for at, each in enumerate(value)]


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise _wrong(place, "a text", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PlaceError(f"{place} must be a text that UTF-8 can write; it has half a surrogate pair") from None
    return value


def _flag(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(place, "true or false", value)
    return value


def _whole(value: Any, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -LARGEST <= value <= LARGEST:
        raise _wrong(place, "a whole number", value)
    return value


def _number(value: Any, place: str) -> float:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not -LARGEST <= value <= LARGEST:
        raise _wrong(place, "a number", value)
    return float(value)


def _anything(value: Any, _place: str) -> Any:
    return value


_PLAIN: Final[dict[Any, Callable[[Any, str], Any]]] = {
    str: _text,
    bool: _flag,
    int: _whole,
    float: _number,
    Any: _anything,
}
