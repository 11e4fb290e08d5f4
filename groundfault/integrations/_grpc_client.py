"""What the interceptors of both stacks decide alike: the permit, the deadline, the metadata, the end of a call."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextvars import copy_context
from threading import Event
from typing import Any, Final, NamedTuple

import grpc

from groundfault import errors
from groundfault._clock import monotonic
from groundfault.breaker import Attempt, Command, Resource
from groundfault.breaker.attempt import Fallback
from groundfault.events import note_internal_error
from groundfault.integrations._grpc_errors import REJECTIONS, CommandTimeoutError, Ended, ShedError
from groundfault.integrations._grpc_wire import OUTCOMES, Pairs, read_refusal, without
from groundfault.integrations._http import CommandNames, budget_is_gone, hop_headers
from groundfault.sinks import Sink
from groundfault.vocabulary import Outcome
from groundfault.wire import Refusal

__all__ = ["Ending", "Exchange", "Guard", "rejected"]

_PATIENCE_S: Final = 1.0
_NEARLY: Final = 0.9
"""A call that took so much of its timeout ran into it, whatever the clocks of C and Python differ by."""
_NOT_SERIALIZED: Final = "Exception serializing request!"


def rejected(rejection: errors.RejectedError) -> Ended:
    """Return the same rejection as an error, and call, of gRPC's."""
    error = REJECTIONS[type(rejection)](*rejection.args)
    error.__cause__ = rejection
    return error


class Ending(NamedTuple):
    """How gRPC says that a call ended. ``error``: what the application gets to see; None after a success."""

    code: object
    trailing: Iterable[tuple[str, Any]] | None = None
    error: Any = None
    details: str | None = None
    canceled: bool = False


class Guard:
    """The chokepoint of one channel: its commands, and what its calls have in common.

    Raises :class:`~groundfault.SettingsError` for settings that make no sense.
    """

    def __init__(
        self,
        resource: str | Resource,
        *,
        command: str | Callable[[str], str] | None,
        fallback: Callable[[str, Any], Any] | None,
        outcomes: Mapping[grpc.StatusCode, Outcome] | None,
        sinks: Iterable[Sink] | None,
        settings: dict[str, Any],
    ) -> None:
        if isinstance(resource, str):
            resource = Resource(resource, sinks=sinks, **settings)
        elif settings or sinks is not None:
            raise errors.SettingsError("settings and sinks belong to the Resource that was passed; set them there")
        if fallback is not None and not callable(fallback):
            raise errors.SettingsError(f"fallback must be a callable or None, not {fallback!r}")
        self.fallback = fallback
        self.outcomes = {**OUTCOMES, **_checked(outcomes or {})}
        self._names: CommandNames[str] = CommandNames(resource, command, _last_part)

    def command_for(self, method: str) -> Command:
        """Return the command of a method, given by its whole name."""
        return self._names.command_for(method)


def _last_part(method: str) -> str:
    return method.rpartition("/")[2]


def _checked(outcomes: Mapping[Any, Any]) -> dict[grpc.StatusCode, Outcome]:
    allowed = (Outcome.SUCCESS, Outcome.FAILURE, Outcome.TIMEOUT, Outcome.IGNORED)
    for code, outcome in outcomes.items():
        if not isinstance(code, grpc.StatusCode) or outcome not in allowed:
            raise errors.SettingsError(
                f"outcomes must map a grpc.StatusCode to one of {', '.join(allowed)}, not {code!r} to {outcome!r}"
            )
    return {code: Outcome(outcome) for code, outcome in outcomes.items()}


class Exchange:
    """One call from its permit to its end.

    Its end may come from gRPC's own thread, which knows nothing of the request being served: the context of the
    thread that made the call is kept for it. ``error``: what the application is to see of a failure, else None.
    ``shed``: the same, if it is an error of ours in the place of gRPC's.
    """

    def __init__(self, guard: Guard, command: Command, attempt: Attempt, *, streams: bool = False) -> None:
        self._guard = guard
        self._command = command
        self._attempt = attempt
        self.context = copy_context()
        self._started = monotonic()
        self._bound_s: float | None = None
        self._streams = streams
        self._asked_at: float | None = None  # since when the application has been asked for a request
        self._asked_s = 0.0
        self._heard_at: float | None = None  # since when the application has been waiting for a response
        self._heard_s = 0.0
        self._unsent = False  # the application's own requests have failed
        self._claim: list[None] = [None]
        self._settled = Event()
        self.error: Any = None
        self.shed: ShedError | None = None

    # On the way out.

    def bound(self, timeout_s: float | None) -> float | None:
        """Return how long the call may take: what the application says, or less.

        Raises CommandTimeoutError if the caller of the request being served has already given up.
        """
        if budget_is_gone():
            raise CommandTimeoutError(self._command.resource, self._command.name, 0.0)
        limits = [limit for limit in (timeout_s, self._attempt.timeout_s) if limit is not None]
        self._bound_s = min(limits, default=None)
        return self._bound_s

    def metadata(self, pairs: Iterable[tuple[str, Any]] | None) -> Pairs:
        """Return the application's metadata with that of this hop in the place of what it copied from another."""
        kept = without(pairs)
        hop = hop_headers(self._command, self._bound_s, [name for name, _ in kept])
        return (*kept, *((name.lower(), value) for name, value in hop))

    def sent(self, requests: Iterable[Any]) -> Iterator[Any]:
        """Yield the application's requests. The time that it takes for them is not the callee's."""
        requests = iter(requests)
        while True:
            self._asked_at = monotonic()
            try:
                request = next(requests)
            except StopIteration:
                return
            except BaseException:
                self._unsent = True
                raise
            finally:
                self._asked_s += monotonic() - self._asked_at
                self._asked_at = None
            yield request

    async def asent(self, requests: AsyncIterable[Any]) -> AsyncIterator[Any]:
        """Do as :meth:`sent`, awaiting."""
        requests = aiter(requests)
        while True:
            self._asked_at = monotonic()
            try:
                request = await anext(requests)
            except StopAsyncIteration:
                return
            except BaseException:
                self._unsent = True
                raise
            finally:
                self._asked_s += monotonic() - self._asked_at
                self._asked_at = None
            yield request

    # On the way back.

    def listen(self) -> None:
        """Note that the application waits for the callee from now on: for a stream only this time counts."""
        self._heard_at = monotonic()

    def heard(self) -> None:
        """Note that it does not any more."""
        if self._heard_at is not None:
            self._heard_s += monotonic() - self._heard_at
            self._heard_at = None

    def broke(self, error: BaseException, *, fallback: Fallback = False) -> None:
        """End a call that was not made, or of which gRPC itself has made an error."""
        with_it = isinstance(error, CommandTimeoutError | ValueError)  # the caller's own: late, or a closed channel
        if with_it or isinstance(error, self._command.settings.ignored_errors):
            self._attempt.settle(Outcome.IGNORED, carrier=error)
        else:
            self._attempt.fail_with(error, fallback=fallback)

    def complete(self, ending: Callable[[], Ending], *, fallback: Fallback = False) -> None:
        """Settle with how the call ended. The first to come does, all others wait until it is done. Never raises."""
        try:
            self._claim.pop()
        except IndexError:
            self._settled.wait(_PATIENCE_S)  # a sink that comes back here by itself must not wait for ever
            return
        try:
            self.context.run(self._settle, ending(), fallback)
        except Exception as error:  # noqa: BLE001  an error of ours must not become the call's
            note_internal_error("end of a gRPC call", error)
        finally:
            self._settled.set()

    def _settle(self, ending: Ending, fallback: Fallback) -> None:
        self.error = own = ending.error
        if own is not None and not isinstance(own, grpc.RpcError):  # of an interceptor further in, or of Python's
            self.broke(own, fallback=fallback)
            return
        if isinstance(own, errors.GroundFaultError):  # of a command further in, which has taken note
            self._attempt.fail_with(own)
            return
        settings = self._command.settings
        spent_s = self._spent_s()
        outcome, refusal = self._judge(ending, spent_s)
        if settings.ignored_errors and isinstance(own, settings.ignored_errors):
            outcome, refusal = Outcome.IGNORED, None
        if refusal is not None:
            self.shed = ShedError(self._command.resource, self._command.name, refusal.reason, refusal.origin, own)
        self.error = self.shed or own
        self._attempt.settle(outcome, duration_s=spent_s, refusal=refusal, carrier=self.error, fallback=fallback)

    def _judge(self, ending: Ending, spent_s: float) -> tuple[Outcome, Refusal | None]:
        code = ending.code
        if self._unsent or ending.canceled or ending.details == _NOT_SERIALIZED:
            return Outcome.IGNORED, None
        if self._command.settings.honor_handled is not False:
            refusal = read_refusal(code, ending.trailing)
            if refusal is not None:
                return Outcome.SHED, refusal
        outcome = self._guard.outcomes.get(code, Outcome.FAILURE) if isinstance(code, grpc.StatusCode) else None
        if outcome is Outcome.TIMEOUT and self._was_idle(spent_s):
            return Outcome.IGNORED, None
        return outcome or Outcome.FAILURE, None

    def _was_idle(self, spent_s: float) -> bool:
        """Return whether the callee was waited for during less than half of the time that ran out."""
        bound_s = self._bound_s
        ran_out = bound_s is not None and monotonic() - self._started >= bound_s * _NEARLY
        return ran_out and bound_s is not None and spent_s < bound_s / 2

    def _spent_s(self) -> float:
        """Return how long the callee was waited for."""
        now = monotonic()
        if self._streams:
            heard_at = self._heard_at  # another thread may be about to forget it
            return self._heard_s + (now - heard_at if heard_at is not None else 0.0)
        asked_at = self._asked_at
        asked_s = self._asked_s + (now - asked_at if asked_at is not None else 0.0)
        return max(now - self._started - asked_s, 0.0)
