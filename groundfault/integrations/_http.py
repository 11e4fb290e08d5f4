"""What every HTTP client adapter decides the same way."""

import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from typing import Any, Final, Generic, TypeVar

from groundfault import _context, wire
from groundfault._clock import monotonic
from groundfault.breaker import Attempt, Command, Resource
from groundfault.breaker.attempt import Fallback
from groundfault.errors import GroundFaultError, SettingsError
from groundfault.events import note_internal_error
from groundfault.sinks import Sink
from groundfault.vocabulary import Outcome

__all__ = [
    "BODY_LIMIT",
    "CommandNames",
    "Substitute",
    "budget_is_gone",
    "checked_fallback",
    "honored_refusal",
    "hop_headers",
    "is_internal",
    "judge",
    "least_s",
    "resource_of",
]

Request = TypeVar("Request")
Response = TypeVar("Response")

_TRACEPARENT: Final = "traceparent"

BODY_LIMIT: Final = 65536
"""Bytes of a refusal's body that are read so that its connection can be used again; a longer one is closed."""

_NAME_LIMIT: Final = 200
_SERVER_ERROR: Final = 500
_INTERNAL_SUFFIXES: Final = (".internal", ".local", ".localhost", ".lan", ".svc", ".cluster.local", ".test")


def judge(status: int, refusal: wire.Refusal | None) -> Outcome:
    """Judge a finished exchange by its status.

    Every 5xx speaks against the callee, an unannotated 503 among them: probably the balancer has no healthy host.
    A 4xx speaks for it: the callee works, the request was at fault (429 is "you", 503 is "me").
    """
    if refusal is not None:
        return Outcome.SHED
    return Outcome.FAILURE if status >= _SERVER_ERROR else Outcome.SUCCESS


def is_internal(host: str) -> bool:
    """Return whether only one's own network can name the host: a private address, a single label, an internal suffix.

    An annotated 503 from anywhere else is an ordinary failure unless the resource says ``honor_handled=True``:
    a stranger's server must not be able to keep a circuit closed.
    """
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        name = host.rstrip(".").lower()
        return "." not in name or name.endswith(_INTERNAL_SUFFIXES)
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_private or address.is_loopback


def honored_refusal(status: int, headers: wire.HeaderLookup, host: str, command: Command) -> wire.Refusal | None:
    """Return what an annotated 503 from ``host`` says, or None if it is none or is not to be believed."""
    honor = command.settings.honor_handled
    if is_internal(host) if honor is None else honor:
        return wire.read_refusal(status, headers)
    return None


def budget_is_gone() -> bool:
    """Return whether the caller of the request being served has already given up, so that nothing is to be sent."""
    context = _context.current()
    deadline = context.deadline if context is not None else None
    return deadline is not None and deadline <= monotonic()


def least_s(own: Any, limit_s: float) -> Any:
    """Return the smaller of a request's own timeout and ``limit_s``; what is no number is for the library to refuse."""
    if own is None:
        return limit_s
    return min(own, limit_s) if isinstance(own, int | float) else own


def resource_of(
    resource: str | Resource, *, on_shed: str, sinks: Iterable[Sink] | None, settings: dict[str, Any]
) -> Resource:
    """Return the resource that an adapter was given, by name with settings or whole; SettingsError for a mixture."""
    if on_shed not in {"return", "raise"}:
        raise SettingsError(f"on_shed must be 'return' or 'raise', not {on_shed!r}")
    if isinstance(resource, str):
        return Resource(resource, sinks=sinks, **settings)
    if not isinstance(resource, Resource):
        raise SettingsError(f"resource must be a name or a Resource, not {resource!r}")
    if settings or sinks is not None:
        raise SettingsError("settings and sinks belong to the Resource that was passed; set them there")
    return resource


def hop_headers(command: Command, budget_s: float | None, others: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield what one hop tells its callee: who calls, how long it will wait, how much the request matters, for whom.

    And of what it is a part: the ``traceparent`` of the request being served, unless there is one among the ``others``
    that are sent, for whoever traces spans writes its own.
    """
    context = _context.current()
    service = context.service if context is not None else os.environ.get("GROUNDFAULT_SERVICE")
    trace = context.traceparent if context is not None else None
    if trace is not None and all(name.lower() != _TRACEPARENT for name in others):
        yield _TRACEPARENT, trace
    yield from wire.hop_headers(
        caller=f"{service}/{command.resource}.{command.name}" if service else None,
        budget_s=budget_s,
        criticality=context.criticality if context is not None else None,
        key=context.key if context is not None else None,
    )


class Substitute(Generic[Request, Response]):
    """What an adapter's fallback made of a request: a response, or the error it raised; neither if it was not asked.

    ``kind`` is what it has to return, or None for nothing.
    """

    def __init__(
        self, fallback: Callable[[Request], Any] | None, request: Request, kind: type[Response], who: str
    ) -> None:
        self._fallback = fallback
        self._request = request
        self._kind = kind
        self._who = who
        self.response: Response | None = None
        self.error: Exception | None = None

    @property
    def offer(self) -> Fallback:
        """What to settle an attempt with: the fallback, or that there is none."""
        return self._serve if self._fallback is not None else False

    def collect(self, attempt: Attempt) -> None:
        """Take what ``attempt`` was served, after it was refused or settled with the offer."""
        self.response = attempt.served
        if attempt.fallback_error is not None:
            self._note(attempt.fallback_error)

    async def aserve(self, attempt: Attempt) -> None:
        """Ask it if ``attempt``, ended with ``LATER``, calls for one, awaiting if need be."""
        try:
            self.response = await attempt.serve(None if self._fallback is None else self._aserve)
        except Exception as error:  # noqa: BLE001  the original error is the caller's, whatever the fallback's was
            self._note(error)

    def _serve(self) -> Response | None:
        return self._checked(self._fallback(self._request) if self._fallback is not None else None)

    async def _aserve(self) -> Response | None:
        answer = self._fallback(self._request) if self._fallback is not None else None
        return self._checked(await answer if inspect.isawaitable(answer) else answer)

    def _checked(self, answer: Any) -> Response | None:
        if answer is None or isinstance(answer, self._kind):
            return answer
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError(f"a fallback must return a {self._kind.__name__} or None, not {type(answer).__name__}")

    def _note(self, error: Exception) -> None:
        self.error = error
        if not isinstance(error, GroundFaultError):  # one of those had no place or no time, or a cache nothing to serve
            note_internal_error(f"fallback of {self._who}", error)


def checked_fallback(fallback: Any, *, awaited: bool) -> Any:
    """Return an adapter's fallback, which may be a coroutine function if it is ``awaited``.

    Raises SettingsError for what is none.
    """
    if fallback is None or (callable(fallback) and (awaited or not inspect.iscoroutinefunction(fallback))):
        return fallback
    what = "a callable" if awaited else "a plain callable, for nobody here awaits it,"
    raise SettingsError(f"fallback must be {what} or None, not {fallback!r}")


class CommandNames(Generic[Request]):
    """Finds the command for a request, by a fixed name, by a callable, or by the HTTP method.

    At most 200 names; whatever comes after them, is not a valid name, or made the callable raise,
    is counted under ``other``, because a name made from a path would never end.
    """

    def __init__(
        self, resource: Resource, choose: str | Callable[[Request], str] | None, method: Callable[[Request], str]
    ) -> None:
        self._resource = resource
        self._commands: dict[str, Command] = {}
        if choose is not None and not isinstance(choose, str) and not callable(choose):
            raise SettingsError(f"command must be a name, a callable or None, not {choose!r}")
        self._choose = (lambda _request: choose) if isinstance(choose, str) else choose or method
        if isinstance(choose, str):
            resource.command(choose)  # an invalid fixed name is the programmer's error and is told at once

    def command_for(self, request: Request) -> Command:
        """Return the command; the same one for the same name."""
        try:
            name = self._choose(request).lower()
        except Exception as error:  # noqa: BLE001  a request is not to fail because nobody knows what to call it
            note_internal_error(f"naming of a command of {self._resource.name}", error)
            name = ""
        command = self._commands.get(name)
        if command is None:
            if not wire.valid_name(name) or len(self._commands) >= _NAME_LIMIT:
                name = "other"
            command = self._commands[name] = self._named(name)
        return command

    def _named(self, name: str) -> Command:
        try:
            return self._resource.command(name)
        except SettingsError as error:  # asked for with other settings elsewhere: the first to ask has decided
            existing = self._resource.existing(name)
            if existing is None:
                raise
            note_internal_error(f"settings of {self._resource.name}/{name}", error)
            return existing
