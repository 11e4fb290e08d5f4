"""Finding what an annotated refusal says inside whatever a client library raised or returned.

By shape rather than by type, so that the core needs no library.
"""

from collections.abc import Iterable
from typing import Any

from groundfault.wire import SHED_STATUS, Refusal, read_refusal

__all__ = ["Joined", "refusal_in"]


class Joined:
    """Headers or metadata by name: ignores case, shows what is repeated as one value joined by commas."""

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, Any]] | None) -> None:
        self._values: dict[str, str] = {}
        for name, value in pairs or ():
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            folded = name.lower()
            known = self._values.get(folded)
            self._values[folded] = text if known is None else f"{known},{text}"

    def get(self, name: str, /) -> str | None:
        """Return the value of ``name``, or None."""
        return self._values.get(name.lower())


def refusal_in(thing: object) -> Refusal | None:
    """Return what the annotated 503 in an error or a response says, or None.

    Understands errors with a ``response`` (requests, httpx), errors and responses with ``status_code`` or ``status``
    and ``headers`` (requests, httpx, aiohttp, urllib3), and gRPC's errors: ``UNAVAILABLE`` with trailing metadata.
    Never raises an Exception, whatever the attributes of a stranger's object do.
    """
    try:
        carrier: Any = getattr(thing, "response", None)
        if carrier is None:
            carrier = thing
        status = getattr(carrier, "status_code", None)
        if status is None:
            status = getattr(carrier, "status", None)
        headers = getattr(carrier, "headers", None)
        if status == SHED_STATUS and headers is not None:
            # aiohttp's `get` shows the first of several values, and two are none.
            return read_refusal(SHED_STATUS, Joined(headers.items()) if hasattr(headers, "getall") else headers)
        if isinstance(thing, BaseException) and hasattr(thing, "trailing_metadata"):
            return _refusal_of_rpc(thing)
    except Exception:  # noqa: BLE001  it is not a refusal, then
        return None
    return None


def _refusal_of_rpc(error: Any) -> Refusal | None:
    # A stream of gRPC's is an error too, and to ask one that goes on how it ended would wait for that.
    if not getattr(error, "done", bool)() and getattr(error, "is_active", bool)():
        return None
    if getattr(error.code(), "name", None) != "UNAVAILABLE":
        return None
    return read_refusal(SHED_STATUS, Joined(error.trailing_metadata()))
