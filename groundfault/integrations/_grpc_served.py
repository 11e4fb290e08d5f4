"""A call being served: what was decided at the door, and what stands between its handler and gRPC's context."""

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import unquote

import grpc

from groundfault.integrations._grpc_wire import (
    HTTP_STATUS,
    PASSED_ON,
    PUSHBACK,
    Pairs,
    read_refusal,
    refusal,
    without,
)
from groundfault.refusals import Joined
from groundfault.shedding._propagation import Verdict
from groundfault.shedding._request import Visit
from groundfault.shedding._rpc import arrive
from groundfault.shedding.shedder import Shedder
from groundfault.vocabulary import Reason

__all__ = ["Door", "Served", "ServedContext", "address_of", "is_exempt"]

_EXEMPT: Final = ("/grpc.health.v1.Health/", "/grpc.reflection.")
_NEVER_S: Final = 1e8  # a deadline three years from now is how the blocking stack says that there is none
_OK: Final = 200
_SHED: Final = 503
_FAILED: Final = 500
_BY_NUMBER: Final = {code.value[0]: code for code in grpc.StatusCode}


def is_exempt(path: str) -> bool:
    """Return whether the method is of the health service or of reflection, which tell of the server, not by it."""
    return path.startswith(_EXEMPT)


def address_of(peer: str) -> str | None:
    """Return the address in what gRPC says of a peer, None for a unix socket, "" where there is none to be seen."""
    scheme, _, rest = peer.partition(":")
    if scheme in {"unix", "unix-abstract"}:
        return None
    if scheme not in {"ipv4", "ipv6"}:
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]


class Door:
    """Where the calls of one method come in. ``came_at``: when this call did, if it has to wait for a thread."""

    __slots__ = ("_came_at", "_exempt", "_path", "_shedder")

    def __init__(self, shedder: Shedder, path: str, came_at: float | None) -> None:
        self._shedder = shedder
        self._path = path
        self._came_at = came_at
        self._exempt = is_exempt(path)

    @property
    def path(self) -> str:
        """The whole name of the method."""
        return self._path

    def admit(self, context: Any) -> Visit | None:
        """Decide about a call; None if that failed, for then it is served as if nobody were here."""
        shedder = self._shedder
        try:
            came_at = self._came_at
            return arrive(
                shedder,
                self._path,
                Joined(context.invocation_metadata()),
                address_of(context.peer()),
                wait_s=None if came_at is None else max(shedder.clock() - came_at, 0.0),
                left_s=_left_s(context),
                gone=not getattr(context, "is_active", lambda: True)(),
                exempt=self._exempt,
            )
        except Exception as error:  # noqa: BLE001  an error of ours must not cost the call
            shedder.failed("grpc arrival", error)
            return None


def _left_s(context: Any) -> float | None:
    left_s = context.time_remaining()
    return float(left_s) if left_s is not None and left_s < _NEVER_S else None


class Served:
    """What a handler is given in the place of gRPC's context; the rest of it is that of either stack.

    Takes the protocol's metadata off what the application ends with, and adds ours. In shadow mode it only looks on.
    """

    def __init__(self, context: Any, visit: Visit) -> None:
        self._context = context
        self._visit = visit
        self._code: Any = None
        self._trailing: Pairs = ()
        self._aborted = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_context"], name)

    def set_code(self, code: Any) -> None:
        """Take the status that the application wants to end with."""
        self._code = code
        self._context.set_code(code)

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, Any]]) -> None:
        """Take the metadata that the application wants to end with."""
        if not self._visit.rules.enforced:
            self._context.set_trailing_metadata(trailing_metadata)
            return
        self._trailing = without(trailing_metadata)
        self._context.set_trailing_metadata(self._trailing)

    def begins(self) -> None:
        """Note that the answer begins. Only on an event loop does that say how fast the server is."""
        if self._visit.on_loop:
            self._visit.answered(_OK)

    def ended(self) -> None:
        """Note that the handler has returned: its status is what it has set, unless that is a dependency's fault."""
        verdict = self._verdict_on(self._code)
        if verdict is not None:
            details, trailing = self._annotated(verdict)
            self._context.set_trailing_metadata(trailing)
            self._context.set_code(grpc.StatusCode.UNAVAILABLE)
            self._context.set_details(details)
            self._visit.finish(_SHED)
        else:
            self._visit.finish(_status(self._code))

    def left(self) -> None:
        """Note that the call has ended without an answer: its client is gone, or the server."""
        self._visit.close()

    def _annotated(self, verdict: Verdict) -> tuple[str, Pairs]:
        details, ours = refusal(*verdict)
        return details, (*(pair for pair in self._trailing if pair[0] != PUSHBACK), *ours)

    def _verdict_on(self, code: Any) -> Verdict | None:
        """Return how to annotate what the application ends with by itself, or None to leave it alone."""
        visit = self._visit
        try:
            if _BY_NUMBER.get(code, code) in PASSED_ON and visit.context.faults:
                return visit.verdict_on_status(_SHED)
        except Exception as error:  # noqa: BLE001  an error of ours must not cost the answer
            visit.shedder.failed("grpc answer", error)
        return None

    def _verdict_on_error(self, error: BaseException) -> Verdict | None:
        """Return what to end with instead of ``error``, which has left the handler; None if it is not ours to change.

        Takes note of the end.
        """
        visit = self._visit
        if self._aborted:
            visit.finish(_status(self._code))
            return None
        if not isinstance(error, Exception) or not getattr(self._context, "is_active", lambda: True)():
            self.left()
            return None
        verdict = visit.verdict_on_error(error)
        if verdict is None and visit.rules.enforced:
            verdict = self._verdict_on_call(error)
        visit.finish(_FAILED if verdict is None else _SHED)
        return verdict

    def _verdict_on_call(self, error: BaseException) -> Verdict | None:
        """Do as above for gRPC's own errors, of calls that no command has made."""
        try:
            if isinstance(error, grpc.RpcError) and hasattr(error, "code"):
                said = read_refusal(error.code(), error.trailing_metadata())
                if said is not None:
                    return Verdict(Reason.DEPENDENCY, said.origin or self._visit.rules.settings.service)
        except Exception as mine:  # noqa: BLE001  a stranger's error may raise from any attribute
            self._visit.shedder.failed("grpc error", mine)
        return None


def _status(code: Any) -> int:
    return HTTP_STATUS.get(_BY_NUMBER.get(code, code), _FAILED) if code is not None else _OK


class ServedContext(Served):
    """The blocking stack's; also for handlers that ``grpc.aio`` runs in threads."""

    def abort(self, code: Any, details: str = "", trailing_metadata: Iterable[tuple[str, Any]] = ()) -> None:
        """End the call, as gRPC's does: this raises."""
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        verdict = self._verdict_on(code)
        self._aborted = True
        if verdict is not None:
            self._refuse(verdict)
        self._code = code
        self._context.abort(code, details)

    def abort_with_status(self, status: Any) -> None:
        """End the call, as :meth:`abort`."""
        self.abort(status.code, status.details, status.trailing_metadata or ())

    def refuse(self, reason: Reason) -> None:
        """End the call before it has begun: this raises."""
        self._refuse(Verdict(reason, self._visit.rules.settings.service))

    def failed(self, error: BaseException) -> None:
        """Note that ``error`` has left the handler; raises the end that takes its place, if any does."""
        verdict = self._verdict_on_error(error)
        if verdict is not None:
            self._refuse(verdict)

    def _refuse(self, verdict: Verdict) -> None:
        details, trailing = self._annotated(verdict)
        self._code = grpc.StatusCode.UNAVAILABLE
        self._context.set_trailing_metadata(trailing)
        self._context.abort(grpc.StatusCode.UNAVAILABLE, details)
        raise RuntimeError("the call is over")  # where grpc.aio lets a thread go on after that


grpc.ServicerContext.register(ServedContext)
