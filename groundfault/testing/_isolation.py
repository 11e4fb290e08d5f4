"""A process-wide registry as new, for the length of a block."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from weakref import WeakSet

from groundfault._clock import Clock
from groundfault.breaker import Command, Registry, Resource, registry
from groundfault.breaker._course import Course
from groundfault.testing._acting import LOCK, course_of, take_over

__all__ = ["isolated_registry"]


@contextmanager
def isolated_registry(*, clock: Clock | None = None, draw: Callable[[], float] | None = None) -> Iterator[Registry]:
    """Give the block the process-wide registry as new, and give back what was there when it ends.

    Commands made before, at import for instance, stay the same objects, and functions decorated with them stay
    protected: circuit closed, nothing counted, nothing in flight, and with the settings they have.
    When the block ends they are as they were before it: no state leaks in, none leaks out.
    What a Resource made inside the block asks for is forgotten at its end.
    What an older handle asks for, such as an adapter's of the application at its first request,
    is the application's: it stays, as new.

    ``clock``: default None, the one that commands have. With a :class:`~groundfault.testing.ManualClock`
    every command of the registry runs on that, and a test decides when windows and leases end.
    ``draw``: default None, random; a function that returns numbers in [0, 1) decides about sleep windows.
    Registries of one's own are not touched. Calls in flight end where they began.
    """
    process = registry()
    inside = vars(process)  # a registry never forgets, so there is no door for what happens here
    with ExitStack() as ends:
        with LOCK:
            known = set(inside["_made"])
            before = {name: inside[name] for name in ("_clock", "_draw", "_other")}
            ends.callback(inside.update, before)
            if clock is not None:
                inside["_clock"] = clock
            if draw is not None:
                inside["_draw"] = draw
            for command in process:
                ends.callback(_fill, command, _contents(command))
                _renew(command, course_of(command).clock if clock is None else clock, inside["_draw"])
            handles = _Handles(process)
            handles.watch()
        try:
            yield process
        finally:
            with LOCK:
                handles.leave()
                for key, made in list(inside["_made"].items()):
                    if key in handles.asked:
                        del inside["_made"][key]
                    elif key not in known:
                        _renew(made.command, before["_clock"], before["_draw"])


def _renew(command: Command, clock: Clock, draw: Callable[[], float]) -> None:
    """Give a command, in place, what one has that was just made with its settings."""
    course = course_of(command)
    new = Command(
        command.resource,
        command.name,
        command.declared,
        overlay=command.overlay_in_force,
        fallback=course.fallback,
        classify=course.classify,
        sinks=course.sinks,
        clock=clock,
        draw=draw,
    )
    take_over(course.gate, course_of(new).gate)
    _fill(command, _contents(new))


def _contents(command: Command) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a command holds, and what its course does: the course itself stays, for functions hold on to it."""
    course = course_of(command)
    held = {slot: getattr(command, slot) for slot in Command.__slots__ if getattr(command, slot) is not course}
    return held, {slot: getattr(course, slot) for slot in Course.__slots__}


def _fill(command: Command, contents: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for target, values in zip((command, course_of(command)), contents, strict=True):
        for slot, value in values.items():
            setattr(target, slot, value)


class _Handles:
    """The resources made inside a block, and the names that they were the first to ask the registry for."""

    def __init__(self, process: Registry) -> None:
        self._process = process
        self._made: WeakSet[Resource] = WeakSet()
        self.asked: set[tuple[str, str]] = set()

    def watch(self) -> None:
        """Look on from now on."""
        if not _watching:
            Resource.__init__ = _init  # type: ignore[method-assign]  # put back by the last to leave
            Resource.command = _command  # type: ignore[method-assign]  # as above
        _watching.append(self)

    def leave(self) -> None:
        """Look away."""
        _watching.remove(self)
        if not _watching:
            Resource.__init__ = _PLAIN_INIT  # type: ignore[method-assign]  # as it was
            Resource.command = _PLAIN_COMMAND  # type: ignore[method-assign]  # as it was

    def made(self, resource: Resource) -> None:
        """Take note of a new handle."""
        self._made.add(resource)

    def handed_out(self, resource: Resource, registry: Registry, command: Command, *, new: bool) -> None:
        """Take note of a command that a handle has got."""
        key = (command.resource, command.name)
        if registry is not self._process:
            return
        if resource not in self._made:
            self.asked.discard(key)
        elif new:
            self.asked.add(key)


_watching: Final[list[_Handles]] = []
_PLAIN_INIT: Final = Resource.__init__
_PLAIN_COMMAND: Final = Resource.command


def _init(self: Resource, *args: Any, **kwargs: Any) -> None:
    _PLAIN_INIT(self, *args, **kwargs)
    for handles in _watching:
        handles.made(self)


def _command(self: Resource, name: str, **kwargs: Any) -> Command:
    registry = self._registry
    known = len(registry)
    command = _PLAIN_COMMAND(self, name, **kwargs)
    for handles in _watching:
        handles.handed_out(self, registry, command, new=len(registry) > known)
    return command
