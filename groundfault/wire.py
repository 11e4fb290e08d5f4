"""The wire protocol: header names, values, predicates and parsers. The only home of each of them.

docs/reference/wire-protocol.md is the specification for other languages; tests/test_wire.py pins the bytes.
Two rules hold throughout:

* A refusal is recognized by its status *and* its header, never by one alone.
* Nothing that arrives in a header raises.
  A value that does not fit its grammar is treated as absent,
  and no parser reads more than a fixed number of characters.

Nothing that a request carries is ever copied into a response (no header injection):
what a response says is put together from enums, and from names that :func:`valid_name` has let through.
The same holds for the headers of a hop: a label or key outside its grammar is left out.
"""

from collections.abc import Iterable
from functools import lru_cache
from math import isnan
from typing import Final, NamedTuple, Protocol

from groundfault.vocabulary import Criticality, Reason

__all__ = [
    "CALLER",
    "CRITICALITY",
    "ENVOY_OVERLOADED",
    "ENVOY_TIMEOUT_MS",
    "FINAGLE_NACK",
    "FINAGLE_NONRETRYABLE_NACK",
    "GRPC_TIMEOUT",
    "HANDLED",
    "HANDLED_VALUE",
    "KEY",
    "NAME_GRAMMAR",
    "ORIGIN",
    "QUEUE_START",
    "REASON",
    "REQUEST_START",
    "SHED_STATUS",
    "TIMEOUT_MS",
    "TOKEN",
    "Answer",
    "HeaderLookup",
    "Refusal",
    "annotations",
    "answer",
    "hop_headers",
    "is_ours",
    "is_superseded",
    "key_fraction",
    "parse_budget",
    "parse_caller",
    "parse_criticality",
    "parse_key",
    "parse_request_start",
    "read_refusal",
    "valid_name",
]

SHED_STATUS: Final = 503

HANDLED: Final = "X-GroundFault"
HANDLED_VALUE: Final = "handled"
REASON: Final = "X-GroundFault-Reason"
ORIGIN: Final = "X-GroundFault-Origin"

CALLER: Final = "X-GroundFault-Caller"
TIMEOUT_MS: Final = "X-GroundFault-Timeout-Ms"
CRITICALITY: Final = "X-GroundFault-Criticality"
KEY: Final = "X-GroundFault-Key"

TOKEN: Final = "X-GroundFault-Token"  # noqa: S105  a name, and no secret
"""To a console, from who may steer; a header that no form of another site's can send."""

ENVOY_TIMEOUT_MS: Final = "X-Envoy-Expected-Rq-Timeout-Ms"
GRPC_TIMEOUT: Final = "Grpc-Timeout"
REQUEST_START: Final = "X-Request-Start"
QUEUE_START: Final = "X-Queue-Start"

FINAGLE_NACK: Final = "Finagle-Http-Nack"
FINAGLE_NONRETRYABLE_NACK: Final = "Finagle-Http-Nonretryable-Nack"
ENVOY_OVERLOADED: Final = "X-Envoy-Overloaded"

_OUR_PREFIX: Final = "x-groundfault"
_MAX_VALUE: Final = 64
_MAX_ACCEPT: Final = 512
_MAX_BUDGET_S: Final = 3600.0
_MAX_BUDGET_DIGITS: Final = 9
_MAX_GRPC_DIGITS: Final = 8  # gRPC over HTTP/2: "positive integer as ASCII string of at most 8 digits"
_MAX_TIMESTAMP: Final = 32  # longer than any form in use
_MAX_KEY: Final = 16
_EXACT_HEX_DIGITS: Final = 13  # 52 bits: what a double holds without rounding up to the next key, or to 1.0

NAME_GRAMMAR: Final = "[a-z0-9][a-z0-9._-]{0,63}"
_NAME_FIRST: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_NAME_REST: Final = _NAME_FIRST | frozenset("._-")
_HEX: Final = frozenset("0123456789abcdef")
# Looked up rather than tried: most requests say nothing, and an exception costs more than all other parsing.
_REASONS: Final = {reason.value: reason for reason in Reason}
_CRITICALITIES: Final = {criticality.value: criticality for criticality in Criticality}


class HeaderLookup(Protocol):
    """A header collection that ignores case and shows a repeated header as one value joined by commas."""

    def get(self, name: str, /) -> str | None:
        """Return the value of the header ``name``, or None."""
        ...


class Refusal(NamedTuple):
    """What an annotated 503 says: ``reason`` is None where it gives none, ``origin`` where it names nobody."""

    reason: Reason | None = None
    origin: str | None = None

    @property
    def by_callee(self) -> bool:
        """True if the callee itself refused; false if it passes on a refusal or a counted failure from below."""
        return self.reason is None or self.reason.refused_here

    @property
    def retryable(self) -> bool:
        """True only if the callee said that it did nothing and that there is still time."""
        return self.reason is not None and self.reason.retryable


def read_refusal(status: int, headers: HeaderLookup, *, envoy_overloaded: bool = False) -> Refusal | None:
    """Return what an annotated 503 says, or None for every other response.

    Finagle's nacks are understood as well, and Envoy's ``x-envoy-overloaded`` if ``envoy_overloaded`` is true.
    Neither sender says whether it passes on a refusal from below, so both read as the callee's own;
    of the three only Finagle's retryable nack promises that no work was done.
    """
    if status != SHED_STATUS:
        return None
    handled = headers.get(HANDLED)
    if handled is None:
        return _read_alias(headers, envoy_overloaded=envoy_overloaded)
    if _text(handled, _MAX_VALUE) != HANDLED_VALUE:
        return None
    return Refusal(_parse_reason(headers.get(REASON)), _parse_name(headers.get(ORIGIN)))


def _read_alias(headers: HeaderLookup, *, envoy_overloaded: bool) -> Refusal | None:
    if headers.get(FINAGLE_NONRETRYABLE_NACK) is not None:
        return Refusal()
    if headers.get(FINAGLE_NACK) is not None:
        return Refusal(Reason.QUEUE_WAIT)
    if envoy_overloaded and headers.get(ENVOY_OVERLOADED) is not None:
        return Refusal()
    return None


def is_ours(name: str) -> bool:
    """Return whether ``name`` belongs to this protocol, so that an application may neither set nor copy it."""
    return name[: len(_OUR_PREFIX)].lower() == _OUR_PREFIX


_SUPERSEDED: Final = frozenset({"cache-control", "expires", "etag", "last-modified", "retry-after"})


def is_superseded(name: str) -> bool:
    """Return whether an application's header must not stay on its answer when that becomes an annotated 503.

    Such an answer is not to be cached, and not to be tried again.
    """
    return name.lower() in _SUPERSEDED


class Answer(NamedTuple):
    """A complete annotated 503. ``headers`` are in the order they are sent, Content-Length included."""

    headers: tuple[tuple[str, str], ...]
    body: bytes


_TITLES: Final = {
    Reason.QUEUE_WAIT: "shedding load on purpose: the request waited too long",
    Reason.DEADLINE: "shedding load on purpose: no answer is possible within the caller's deadline",
    Reason.CONCURRENCY: "shedding load on purpose: too many requests in progress",
    Reason.DRAINING: "shedding load on purpose: this instance is stopping",
    Reason.CIRCUIT_OPEN: "a dependency is failing and is not being called",
    Reason.THROTTLED: "a dependency is shedding load and is called less",
    Reason.DEPENDENCY: "a dependency did not answer",
}


def annotations(reason: Reason, origin: str | None) -> tuple[tuple[str, str], ...]:
    """Return the headers that turn a 503 into an annotated one.

    ``origin`` is dropped if it is not a valid name.
    """
    headers = [(HANDLED, HANDLED_VALUE), (REASON, reason.value)]
    if origin is not None and valid_name(origin):
        headers.append((ORIGIN, origin))
    headers.append(("Cache-Control", "no-store"))
    return tuple(headers)


def answer(reason: Reason, origin: str | None, *, accept: str | None = None, head: bool = False) -> Answer:
    """Build the annotated 503 for ``reason``.

    ``accept`` is the request's Accept header: an RFC 9457 problem document where it allows JSON, else a line of text.
    With ``head`` the headers are the same and the body is empty.
    """
    whole = _answer(reason, origin, _accepts_json(accept))
    return whole._replace(body=b"") if head else whole


@lru_cache(maxsize=256)  # built once per reason, origin and form: a refusal must cost next to nothing
def _answer(reason: Reason, origin: str | None, as_json: bool) -> Answer:  # noqa: FBT001  private, called once above
    title = _TITLES[reason]
    if as_json:
        content_type = "application/problem+json"
        body = f'{{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"{title}"}}'
    else:
        content_type = "text/plain; charset=utf-8"
        body = f"Ground Fault: {title}.\n"
    payload = body.encode("ascii")
    headers = (
        *annotations(reason, origin),
        ("Content-Type", content_type),
        ("Content-Length", str(len(payload))),
    )
    return Answer(headers, payload)


_JSON_RANGES: Final = ("application/problem+json", "application/json", "application/*", "*/*")


def _accepts_json(accept: str | None) -> bool:
    """Return what the most specific range that covers JSON says (RFC 9110, 12.5.1); true where there is no header."""
    if accept is None or not accept.strip():
        return True
    wanted: dict[str, bool] = {}
    for part in accept[:_MAX_ACCEPT].lower().split(","):
        media, *parameters = part.split(";")
        name = media.strip()
        wanted[name] = wanted.get(name, False) or not any(map(_is_zero_weight, parameters))
    return next((wanted[name] for name in _JSON_RANGES if name in wanted), False)


def _is_zero_weight(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip() in {"0", "0.", "0.0", "0.00", "0.000"}


def valid_name(name: str) -> bool:
    """Return whether ``name`` may stand for a service, a resource or a command: see :data:`NAME_GRAMMAR`."""
    return 0 < len(name) <= _MAX_VALUE and name[0] in _NAME_FIRST and _NAME_REST.issuperset(name)


def _text(value: str | None, longest: int) -> str:
    """Return the value in lower case without the blanks around it; "" if it is absent, too long or not ASCII."""
    if value is None or len(value) > longest or not value.isascii():
        return ""
    return value.strip(" \t").lower()


def _digits(text: str, longest: int) -> bool:
    return 0 < len(text) <= longest and text.isascii() and text.isdigit()


def _parse_name(value: str | None) -> str | None:
    name = _text(value, 2 * _MAX_VALUE)
    return name if valid_name(name) else None


def _parse_reason(value: str | None) -> Reason | None:
    return _REASONS.get(_text(value, _MAX_VALUE))


@lru_cache(maxsize=256)  # as many as are kept apart; asked of most requests inside a fleet
def parse_caller(value: str | None) -> str | None:
    """Return ``service`` or ``service/resource.command`` in lower case if the value is one of these, else None."""
    label = _text(value, 4 * _MAX_VALUE)
    service, slash, command = label.partition("/")
    if not valid_name(service) or (slash and not _valid_pair(command)):
        return None
    return label


def _valid_pair(path: str) -> bool:
    """Return whether some dot parts ``path`` into two names; names may hold dots themselves."""
    if not path or len(path) > 2 * _MAX_VALUE + 1 or path[0] not in _NAME_FIRST or not _NAME_REST.issuperset(path):
        return False
    return any(
        path[dot] == "." and path[dot + 1] in _NAME_FIRST and len(path) - dot - 1 <= _MAX_VALUE
        for dot in range(1, min(_MAX_VALUE, len(path) - 2) + 1)
    )


def parse_criticality(value: str | None) -> Criticality | None:
    """Return the criticality the value names, or None."""
    return _CRITICALITIES.get(value or "") or _CRITICALITIES.get(_text(value, _MAX_VALUE))


def parse_key(value: str | None) -> str | None:
    """Return the key in lower case if it is one of 1 to 16 hexadecimal digits, else None."""
    key = _text(value, _MAX_VALUE)
    return key if 0 < len(key) <= _MAX_KEY and _HEX.issuperset(key) else None


def key_fraction(key: str) -> float:
    """Place a key that :func:`parse_key` returned in [0, 1), the same everywhere: its digits as a binary fraction.

    Digits after the 13th do not count.
    """
    leading = key[:_EXACT_HEX_DIGITS]
    return int(leading, 16) / 16.0 ** len(leading)


def parse_budget(headers: HeaderLookup) -> float | None:
    """Return how many seconds the caller still waits, or None if no header says so.

    Our own header is read first, then Envoy's, then gRPC's. At most an hour; 0.0 means that the time is gone.
    """
    for name in (TIMEOUT_MS, ENVOY_TIMEOUT_MS):
        text = _text(headers.get(name), _MAX_VALUE)
        if _digits(text, _MAX_BUDGET_DIGITS):
            return min(int(text) / 1e3, _MAX_BUDGET_S)
    return _parse_grpc_timeout(headers.get(GRPC_TIMEOUT))


_GRPC_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def _parse_grpc_timeout(value: str | None) -> float | None:
    if value is None or len(value) > _MAX_VALUE:
        return None
    text = value.strip(" \t")  # not in lower case: M is a minute, m a millisecond
    digits, unit = text[:-1], _GRPC_UNITS.get(text[-1:])
    if unit is None or not _digits(digits, _MAX_GRPC_DIGITS):
        return None
    return min(int(digits) * unit, _MAX_BUDGET_S)


_UNITS_BY_DIGITS: Final = {10: 1.0, 13: 1e-3, 16: 1e-6, 19: 1e-9}


def parse_request_start(headers: HeaderLookup) -> float | None:
    """Return when a proxy in front received the request, in seconds since 1970 and at most 1e10, or None.

    ``t=`` is optional and the unit follows from the number of digits:
    nginx and Heroku write s and ms, Apache µs, Render ns.
    Anything else, a repeated header included, is no statement at all.
    """
    for name in (REQUEST_START, QUEUE_START):
        value = headers.get(name)
        started = None if value is None else _parse_timestamp(value)  # most requests say nothing
        if started is not None:
            return started
    return None


def _parse_timestamp(value: str) -> float | None:
    whole, dot, fraction = _text(value, _MAX_TIMESTAMP).removeprefix("t=").partition(".")
    unit = _UNITS_BY_DIGITS.get(len(whole))
    if unit is None or not _digits(whole, _MAX_TIMESTAMP) or (dot and not _digits(fraction, _MAX_TIMESTAMP)):
        return None
    return float(f"{whole}.{fraction or 0}") * unit


def hop_headers(
    *, caller: str | None, budget_s: float | None, criticality: Criticality | None, key: str | None
) -> Iterable[tuple[str, str]]:
    """Yield the request headers for one hop.

    ``budget_s`` is what is left now, in seconds: rounded down to milliseconds, at least 0 and at most an hour.
    A caller or a key outside its grammar is left out, and so is a budget that is not a number.
    """
    label = parse_caller(caller)
    if label is not None:
        yield CALLER, label
    if budget_s is not None and not isnan(budget_s):
        yield TIMEOUT_MS, str(int(max(0.0, min(budget_s, _MAX_BUDGET_S)) * 1000))
    if criticality is not None:
        yield CRITICALITY, criticality.value
    digits = parse_key(key)
    if digits is not None:
        yield KEY, digits
