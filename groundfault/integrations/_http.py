"""What every HTTP client adapter decides the same way."""

import os
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any, Final, Generic, TypeVar

from groundfault import _context, wire
from groundfault._clock import monotonic
from groundfault.breaker import Command, Resource
from groundfault.errors import SettingsError
from groundfault.events import Sink, note_internal_error
from groundfault.vocabulary import Outcome

__all__ = [
    "BODY_LIMIT",
    "CommandNames",
    "budget_is_gone",
    "honored_refusal",
    "hop_headers",
    "is_internal",
    "judge",
    "least_s",
    "resource_of",
]

Request = TypeVar("Request")

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
    return context is not None and context.deadline is not None and context.deadline <= monotonic()


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
    if settings or sinks is not None:
        raise SettingsError("settings and sinks belong to the Resource that was passed; set them there")
    return resource


def hop_headers(command: Command, budget_s: float | None) -> Iterable[tuple[str, str]]:
    """Yield what one hop tells its callee: who calls, how long it will wait, how much the request matters, for whom."""
    context = _context.current()
    service = context.service if context is not None else os.environ.get("GROUNDFAULT_SERVICE")
    return wire.hop_headers(
        caller=f"{service}/{command.resource}.{command.name}" if service else None,
        budget_s=budget_s,
        criticality=context.criticality if context is not None else None,
        key=context.key if context is not None else None,
    )


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
        if isinstance(choose, str):
            fixed = choose
            self._choose: Callable[[Request], str] = lambda _request: fixed
            resource.command(fixed)  # an invalid fixed name is the programmer's error and is told at once
        else:
            self._choose = choose or method

    def command_for(self, request: Request) -> Command:
        """Return the command; the same one for the same name."""
        try:
            name = self._choose(request).lower()
        except Exception as error:  # noqa: BLE001  a request is not to fail because nobody knows what to call it
            note_internal_error("naming of a command", error)
            name = ""
        command = self._commands.get(name)
        if command is None:
            if not wire.valid_name(name) or len(self._commands) >= _NAME_LIMIT:
                name = "other"
            command = self._commands[name] = self._resource.command(name)
        return command
