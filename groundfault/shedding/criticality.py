"""Which requests are worth how much: rules by path, method and header, in a few lines of configuration. Pure.

A rule on a path or a method is the operator's word. A rule on a header is not, because anybody can send a header:
of a peer that is not trusted it can only lower what the request would be worth without that header
(:meth:`~groundfault.shedding._rules.Rules.criticality_of`).

Patterns know two wildcards: ``*`` stands for any characters but ``/`` in a path, and ``/**`` at a path's end for
everything below. Each becomes one regular expression that never goes back over what a wildcard has taken,
so matching takes time in proportion to the path, whatever the path is.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from groundfault.errors import SettingsError
from groundfault.vocabulary import Criticality
from groundfault.wire import HeaderLookup

__all__ = ["Classifier", "CriticalityRule", "RequestInfo", "rules_of"]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110, 5.6.2; longer names are a mistake
_LONGEST: Final = 512
_MAX_RULES: Final = 200


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What the ``criticality`` and ``identity`` callables are given.

    ``path`` is decoded and without the query. ``headers.get(name)`` ignores case and joins a repeated header by commas.
    ``peer`` is the address the server names, or None where there is none (unix sockets).
    """

    method: str
    path: str
    headers: HeaderLookup
    peer: str | None


Classifier = Callable[[RequestInfo], Criticality | None]
"""Returns what a request is worth, or None for no opinion."""


@dataclass(frozen=True, slots=True)
class CriticalityRule:
    """Requests that fulfill all conditions given are of this criticality. At least one condition is needed.

    ``criticality``: one of the four, by enum or by value, such as ``"sheddable"``.
    ``path``: a pattern for the whole decoded path without the query: ``/suggest*``, ``/users/*/orders``,
    ``/checkout/**`` (which ``/checkout`` itself matches too). None, the default: any path.
    ``method``: one, such as ``POST``, or several; case does not matter. None: any.
    ``header``: the name of a header that must be there; case does not matter. None: none need be.
    ``value``: a pattern for that header's whole value without the blanks around it, in which ``*`` stands for
    anything; case matters. None: any value.

    Raises :class:`~groundfault.errors.SettingsError`, naming field, value and bound.
    """

    criticality: Criticality | Literal["critical-plus", "critical", "sheddable-plus", "sheddable"]
    path: str | None = None
    method: str | Iterable[str] | None = None
    header: str | None = None
    value: str | None = None
    _path: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)
    _value: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        made = {
            "criticality": _checked_criticality(self.criticality),
            "method": _checked_methods(self.method),
            "_path": None if self.path is None else _path_pattern(self.path),
            "_value": None if self.value is None else _value_pattern(self.value),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)
        _check_header(self.header)
        if self.value is not None and self.header is None:
            raise SettingsError(f"criticality: value {self.value!r} needs a header that it is the value of")
        if self.path is None and self.method is None and self.header is None:
            raise SettingsError("criticality: a rule needs a path, a method or a header to go by")

    def matches(self, method: str, path: str, headers: HeaderLookup) -> bool:
        """Return whether a request fulfills all conditions."""
        if self._path is not None and self._path.match(path) is None:
            return False
        if self.method is not None and method.upper() not in self.method:
            return False
        if self.header is None:
            return True
        carried = headers.get(self.header)
        return carried is not None and (self._value is None or self._value.match(carried.strip(" \t")) is not None)


def rules_of(given: object) -> tuple[CriticalityRule | Classifier, ...] | Classifier | None:
    """Return the ``criticality`` setting in its one form. Raises SettingsError.

    Mappings become rules, so that a file may hold them.
    """
    if given is None or callable(given):
        return given
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise _outside("setting", given, "None, a callable, or a sequence of rules and callables")
    rules = tuple(_rule_of(each) for each in given)
    if len(rules) > _MAX_RULES:
        raise _outside("setting", len(rules), f"at most {_MAX_RULES} rules: each is looked at for each request")
    return rules or None


def _rule_of(given: object) -> Any:
    if isinstance(given, CriticalityRule) or callable(given):
        return given
    if not isinstance(given, Mapping):
        raise _outside("rule", given, "a CriticalityRule, a mapping of its fields, or a callable")
    known = [each.name for each in fields(CriticalityRule) if each.init]
    for name in given:
        if name not in known:
            raise _outside("rule", name, f"made of {', '.join(known)}")
    if "criticality" not in given:
        raise _outside("rule", dict(given), "one that names a criticality")
    return CriticalityRule(**given)


def _outside(name: str, value: object, bound: str) -> SettingsError:
    return SettingsError(f"criticality: {name} must be {bound}, not {value!r}")


def _check_header(header: object) -> None:
    if header is not None and not (isinstance(header, str) and _TOKEN.fullmatch(header)):
        raise _outside("header", header, "the name of a header")


def _checked_criticality(value: object) -> Criticality:
    try:
        return Criticality(str(value))
    except ValueError:
        raise _outside("criticality", value, f"one of {', '.join(Criticality)}") from None


def _checked_methods(given: object) -> frozenset[str] | None:
    if given is None:
        return None
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise _outside("method", given, "a method or several, such as POST")
    methods = (given,) if isinstance(given, str) else tuple(given)
    for method in methods:
        if not (isinstance(method, str) and _TOKEN.fullmatch(method)):
            raise _outside("method", method, "a method, such as POST")
    if not methods:
        raise _outside("method", given, "a method or several, such as POST")
    return frozenset(method.upper() for method in methods)


def _path_pattern(path: object) -> re.Pattern[str]:
    if not isinstance(path, str) or not path.startswith("/") or len(path) > _LONGEST:
        raise _outside("path", path, f"a pattern that begins with /, of at most {_LONGEST} characters")
    body = path.removesuffix("/**")
    if "**" in body:
        raise _outside("path", path, "a pattern with ** as its last segment only")
    below = r"(?:/.*)?" if body != path else ""
    segments = "/".join(_linear(segment, r"[^/]", r"(?=/|\Z)") for segment in body.split("/"))
    return re.compile(segments + below + r"\Z", re.DOTALL)


def _value_pattern(value: object) -> re.Pattern[str]:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise _outside("value", value, f"a pattern of at most {_LONGEST} characters")
    return re.compile(_linear(value, ".", r"\Z") + r"\Z", re.DOTALL)


def _linear(glob: str, anything: str, end: str) -> str:
    """Return the regular expression of a pattern with ``*``. It tries no second way for any wildcard but the last.

    The first place where a piece is found leaves most room for those after it, so no other need be tried
    (``(?>...)`` keeps the engine from it); the last piece is looked for from the end.
    """
    first, *rest = re.sub(r"\*+", "*", glob).split("*")
    if not rest:
        return re.escape(first)
    *middle, last = rest
    found = "".join(f"(?>{anything}*?{re.escape(piece)})" for piece in middle)
    return f"{re.escape(first)}{found}{anything}*{re.escape(last)}{end}"
