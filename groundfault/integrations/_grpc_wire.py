"""The wire protocol over gRPC: which status means what, and what stands in metadata.

The table of docs/reference/grpc.md is this one.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import grpc

from groundfault import wire
from groundfault.refusals import Joined
from groundfault.vocabulary import Outcome, Reason

__all__ = [
    "HTTP_STATUS",
    "OUTCOMES",
    "PASSED_ON",
    "PUSHBACK",
    "Pairs",
    "read_refusal",
    "refusal",
    "without",
]

Pairs = tuple[tuple[str, Any], ...]

_CODE: Final = grpc.StatusCode

OUTCOMES: Final[Mapping[grpc.StatusCode, Outcome]] = {
    _CODE.OK: Outcome.SUCCESS,
    _CODE.CANCELLED: Outcome.FAILURE,  # by the callee: where the caller itself has canceled, this is not asked
    _CODE.UNKNOWN: Outcome.FAILURE,
    _CODE.INVALID_ARGUMENT: Outcome.SUCCESS,
    _CODE.DEADLINE_EXCEEDED: Outcome.TIMEOUT,
    _CODE.NOT_FOUND: Outcome.SUCCESS,
    _CODE.ALREADY_EXISTS: Outcome.SUCCESS,
    _CODE.PERMISSION_DENIED: Outcome.SUCCESS,
    _CODE.RESOURCE_EXHAUSTED: Outcome.IGNORED,  # a customer's quota or an overload; nothing tells them apart
    _CODE.FAILED_PRECONDITION: Outcome.SUCCESS,
    _CODE.ABORTED: Outcome.SUCCESS,
    _CODE.OUT_OF_RANGE: Outcome.SUCCESS,
    _CODE.UNIMPLEMENTED: Outcome.SUCCESS,  # another version of the callee, which works
    _CODE.INTERNAL: Outcome.FAILURE,
    _CODE.UNAVAILABLE: Outcome.FAILURE,  # unless it is annotated
    _CODE.DATA_LOSS: Outcome.FAILURE,
    _CODE.UNAUTHENTICATED: Outcome.SUCCESS,
}
"""What a status means for the callee."""

HTTP_STATUS: Final[Mapping[grpc.StatusCode, int]] = {
    code: 200 if code is _CODE.OK else 500 if outcome in {Outcome.FAILURE, Outcome.TIMEOUT} else 400
    for code, outcome in OUTCOMES.items()
}
"""What a server learns from its own answer: only 200 says how long the service takes, and 400 makes no route known."""

PASSED_ON: Final = frozenset({_CODE.UNAVAILABLE, _CODE.DEADLINE_EXCEEDED})
"""How applications say that something below them failed. The others speak about the application itself."""

PUSHBACK: Final = "grpc-retry-pushback-ms"
"""Forbids, with -1, the retries that a client's service configuration would make (gRFC A6)."""

_RPC_REFUSED: Final = 503  # what UNAVAILABLE is to HTTP; the predicate is the same in both


def read_refusal(code: object, trailing: Iterable[tuple[str, Any]] | None) -> wire.Refusal | None:
    """Return what an annotated UNAVAILABLE says; None for every other ending."""
    if code is not _CODE.UNAVAILABLE or not trailing:
        return None
    return wire.read_refusal(_RPC_REFUSED, Joined(trailing))


def without(pairs: Iterable[tuple[str, Any]] | None) -> Pairs:
    """Return metadata without what belongs to the protocol."""
    return tuple((name, value) for name, value in pairs or () if not wire.is_ours(name))


@lru_cache(maxsize=256)  # built once per reason and origin: a refusal must cost next to nothing
def refusal(reason: Reason, origin: str | None) -> tuple[str, Pairs]:
    """Return details and trailing metadata of an annotated UNAVAILABLE."""
    whole = wire.answer(reason, origin, accept="text/plain")
    ours = tuple((name.lower(), value) for name, value in whole.headers if wire.is_ours(name))
    return whole.body.decode("ascii").strip(), (*ours, (PUSHBACK, "-1"))
