"""Blocks in which a command's circuit is open, its callee sheds, fails or is slow."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final

from groundfault.breaker import Command, Registry, Resource
from groundfault.errors import ShedError
from groundfault.testing._acting import LOCK, Act, act
from groundfault.vocabulary import Mode, Reason

__all__ = ["Forced", "fail", "force_open", "force_shed", "slow"]

Target = Command | Resource


class Forced(AbstractContextManager[None]):
    """A block in which something is forced on a command, or on all commands of a resource, those made inside too.

    Everything is as before when the block is left, however it is left.
    Blocks nest, and may overlap; the one entered last counts. ``with`` is right in coroutines as well.
    """

    def __init__(self, target: Target, begin: Callable[[Command], Callable[[], None]]) -> None:
        if not isinstance(target, (Command, Resource)):
            raise TypeError(f"a Command or a Resource can be forced, not {target!r}")
        self._target = target
        self._begin = begin
        self._ends: dict[Command, Callable[[], None]] = {}

    def __enter__(self) -> None:
        with LOCK:
            if self in _entered:
                raise RuntimeError("this block has been entered already; ask for another one")
            if not _entered:
                Registry.get_or_create = _get_or_create  # type: ignore[method-assign]  # put back by the last to leave
            _entered.append(self)
            try:
                for command in self._commands():
                    self.take(command)
            except BaseException:
                self._leave()
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with LOCK:
            self._leave()

    def _commands(self) -> list[Command]:
        target = self._target
        if isinstance(target, Command):
            return [target]
        return [command for command in target._registry if command.resource == target.name]  # noqa: SLF001  no other way

    def covers(self, registry: Registry, command: Command) -> bool:
        """Whether a command that ``registry`` has handed out is one of the resource's."""
        target = self._target
        return (
            isinstance(target, Resource)
            and target._registry is registry  # noqa: SLF001  as above
            and command.resource == target.name
        )

    def take(self, command: Command) -> None:
        """Force it on a command, once."""
        if command not in self._ends:
            self._ends[command] = self._begin(command)

    def _leave(self) -> None:
        _entered.remove(self)
        if not _entered:
            Registry.get_or_create = _PLAIN_GET_OR_CREATE  # type: ignore[method-assign]  # nothing is watched any more
        while self._ends:
            _, end = self._ends.popitem()
            end()


_entered: Final[list[Forced]] = []
_PLAIN_GET_OR_CREATE: Final = Registry.get_or_create


def _get_or_create(self: Registry, *args: Any, **kwargs: Any) -> Command:
    """Hand out a command; if its resource is forced, so is the command, before anybody can call it."""
    command = _PLAIN_GET_OR_CREATE(self, *args, **kwargs)
    with LOCK:
        for block in _entered:
            if block.covers(self, command):
                block.take(command)
    return command


def force_open(target: Target) -> Forced:
    """Return a block in which every call of ``target``, a command or a resource, is refused: its circuit is open.

    Calls raise CircuitOpenError (an adapter's: its own kind), are never made, and have their fallback served.
    It is ``Command.tune(mode="force_open")`` and back, so sinks see SettingsChanged, and adapters are covered.
    The circuit itself and the windows stay as they are.
    """
    return Forced(target, _hold_open)


_held_open: Final[dict[Command, list[Mode]]] = {}  # the mode from before, once for each block


def _hold_open(command: Command) -> Callable[[], None]:
    held = _held_open.setdefault(command, [])
    held.append(held[0] if held else command.declared.mode)
    command.tune(mode=Mode.FORCE_OPEN)

    def end() -> None:
        mode = held.pop()
        if not held:
            del _held_open[command]
            command.tune(mode=mode)

    return end


def force_shed(target: Target, *, reason: Reason | None = Reason.QUEUE_WAIT, origin: str | None = None) -> Forced:
    """Return a block in which the callee of ``target``, a command or a resource, sheds every call.

    Nothing is called; calls end as shed: ShedError is raised with ``reason`` and ``origin``, the fallback is served,
    the circuit does not count it, and a ``reason`` by which the callee itself refuses slows the command down.
    ``reason``: default ``queue-wait``; None, the annotation names none. ``origin``: default None, the resource.
    An adapter's callee sheds with the answer that :func:`~groundfault.testing.shed_response` makes.
    """
    given = None if reason is None else Reason(reason)  # its word will do

    def error(resource: str, command: str) -> ShedError:
        return ShedError(resource, command, given, resource if origin is None else origin)

    return Forced(target, lambda command: act(command, Act(error=error)))


def fail(target: Target, error: BaseException | type[BaseException]) -> Forced:
    """Return a block in which every call of ``target``, a command or a resource, raises ``error``.

    Nothing is called; calls are judged and counted by that error, so enough of them trip the circuit:
    ``TimeoutError`` is a timeout, one of ``ignored_errors`` is neutral, one with an annotated 503 as its ``response``
    is shed. A class is called for each; an instance is raised again and again, which is itself each time.
    """
    if not issubclass(error if isinstance(error, type) else type(error), BaseException):
        raise TypeError(f"error must be an exception or a class of them, not {error!r}")

    def make(_resource: str, _command: str) -> BaseException:
        return error() if isinstance(error, type) else error.with_traceback(None)

    return Forced(target, lambda command: act(command, Act(error=make)))


def slow(target: Target, seconds: float) -> Forced:
    """Return a block in which every call of ``target``, a command or a resource, takes ``seconds`` longer.

    Nothing sleeps: calls are measured as if they had begun that much earlier, by whatever clock they have.
    So a plain function's late result is returned and counts as a timeout.
    Where ``timeout_s`` is enforced and shorter, by ``acall`` and ``isolation="thread"``,
    the function is not called and CommandTimeoutError is raised.
    An adapter measures for itself, so its calls are as fast as ever. Raises ValueError for a negative number.
    """
    if not 0.0 <= seconds < math.inf:
        raise ValueError(f"seconds must be finite and at least 0, not {seconds!r}")
    return Forced(target, lambda command: act(command, Act(takes_s=seconds)))
