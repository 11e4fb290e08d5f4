"""Who is told what happens.

A sink is any callable that takes one event of :mod:`groundfault.events`. It is told in causing order, after the fact,
and never while a lock is held.
One that raises is counted and logged at most once a minute, and changes nothing else.

An unknown callable may wait: for a disk, a socket, another service. So it gets a queue and a thread of its own,
:class:`Background`. A sink whose attribute ``prompt`` is True promises not to wait, and is called where things happen.
With ``changes_only`` True it is never given calls or requests, with ``skips_requests`` True no requests:
then, if no other sink wants them, they are not even made.

A sink that makes calls through a command is told of them too: let it pass over what it causes itself.
"""

import atexit
import inspect
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic, Self, TypeVar

from groundfault._clock import monotonic
from groundfault._family import Family
from groundfault.events import CommandDone, Event, RequestSeen, is_warning, name_of, note_internal_error

__all__ = [
    "Background",
    "Sink",
    "Sinks",
    "default_sinks",
    "flush",
    "log_changes",
    "said_of",
    "shown",
    "sinks_of",
    "tamed",
]

_log = logging.getLogger("groundfault")

Sink = Callable[[Event], None]
T = TypeVar("T")

_CALLS: Final = (CommandDone, RequestSeen)


class _Mark:
    """Stands in a queue; ``told`` is set when all that was queued before it has been told."""

    __slots__ = ("told",)

    def __init__(self) -> None:
        self.told = threading.Event()


class Background(Generic[T]):
    """Gives a sink a queue and a thread of its own, so that it may wait as long as it likes.

    ``capacity``: events that may wait for it, 10,000; of those that come after, changes, which are rare, find
    a thousand places more. What finds none is lost, counted in ``lost``, and told in the log once a minute.

    The thread begins with the first event and ends when there has been none for five seconds; where none can be had
    the next event tries again. Whatever the sink raises is counted and logged, SystemExit too.
    What is queued when the process forks is the parent's to tell. When the process ends it gets a second to be told,
    but not if the process is killed or leaves by ``os._exit``, as children of ``multiprocessing`` do: :func:`flush`.

    The sink does not see the context variables of the place where a thing happened; only its event.
    """

    prompt: Final = True

    def __init__(self, sink: Callable[[T], None], *, capacity: int = 10_000) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.sink = sink
        self.changes_only = getattr(sink, "changes_only", False) is True
        self.skips_requests = getattr(sink, "skips_requests", False) is True
        self._capacity = capacity
        self._begin_anew()
        _backgrounds.add(self)

    def __repr__(self) -> str:
        return f"<Background {_name_of(self.sink)}>"

    def _begin_anew(self) -> None:
        """Start with nothing: in the child of a fork the thread is gone, and what is queued is the parent's to tell."""
        self.lost = 0
        # Appending and popping are atomic, so that a signal handler may cause an event while its thread is in here.
        self._waiting: deque[T | _Mark] = deque()
        # Wakes the thread that tells; None: there is none. Made anew for each thread, after the standard library was
        # patched, if ever it is: a greenlet that waits on a real queue would stop all others.
        self._wake: queue.SimpleQueue[None] | None = None
        # Guards `_wake` and `lost`. Re-entrant, for the same signal handler.
        self._lock = threading.RLock()

    def __call__(self, event: T) -> None:
        """Queue the event; takes less than a microsecond and never waits. Raises BufferError if there is no place."""
        waiting = self._waiting
        if len(waiting) >= self._capacity and (isinstance(event, _CALLS) or len(waiting) >= self._capacity + _SPARE):
            with self._lock:
                self.lost += 1
            raise BufferError(f"{self._capacity} events wait for it; {self.lost} more are lost")
        waiting.append(event)
        self._rouse()

    @property
    def is_pending(self) -> bool:
        """Whether something is queued, or has been told within the last five seconds."""
        return self._wake is not None or bool(self._waiting)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything queued so far has been told, for so long at most; return whether it has."""
        mark = self._mark()
        return mark is not None and mark.told.wait(max(0.0, timeout_s))

    def _mark(self) -> _Mark | None:
        mark = _Mark()
        self._waiting.append(mark)
        try:
            self._rouse()
        except RuntimeError:  # no thread is to be had, perhaps because the interpreter is ending
            return None
        return mark

    def _rouse(self) -> None:
        wake = self._wake
        if wake is None:
            self._start()
        elif not wake.qsize():  # else it has not yet looked at what it was woken for, and will see this too
            wake.put(None)

    def _start(self) -> None:
        with self._lock:
            if self._wake is not None:  # another thread was faster; its first look comes after this event
                return
            wake: queue.SimpleQueue[None] = queue.SimpleQueue()
            thread = threading.Thread(
                target=self._run, args=(self._waiting, wake), name=f"groundfault-{_name_of(self.sink)}", daemon=True
            )
            self._wake = wake
            try:
                thread.start()
            except BaseException:  # no thread is to be had, or a signal handler raised
                self._wake = None
                raise

    def _run(self, waiting: "deque[T | _Mark]", wake: "queue.SimpleQueue[None]") -> None:
        try:
            while True:
                self._tell(waiting)
                try:
                    wake.get(timeout=_IDLE_S)
                except queue.Empty:
                    if self._may_end(waiting, wake):
                        return
        finally:
            if self._wake is wake:  # whatever has ended it, the next event begins another
                self._wake = None

    def _tell(self, waiting: "deque[T | _Mark]") -> None:
        while waiting:
            try:
                event = waiting.popleft()
            except IndexError:  # that of a thread whose start was interrupted was faster
                return
            if isinstance(event, _Mark):
                event.told.set()
                continue
            try:
                self.sink(event)
            except BaseException as error:  # noqa: BLE001  one that ended its thread would be silent for good
                note_internal_error(f"sink {_name_of(self.sink)}", error)

    def _may_end(self, waiting: "deque[T | _Mark]", wake: "queue.SimpleQueue[None]") -> bool:
        with self._lock:
            if self._wake is not wake:
                return True
            self._wake = None
            if waiting:  # whoever has just queued it may have seen this thread
                self._wake = wake
            return self._wake is None


_IDLE_S: Final = 5.0
_SPARE: Final = 1000
_FAREWELL_S: Final = 1.0
_backgrounds: Final[Family[Background[Any]]] = Family(Background._begin_anew)  # noqa: SLF001  the child's end of the fork, for this class alone


@atexit.register
def _say_farewell() -> None:
    if not flush(_FAREWELL_S):
        # The rest is left: what ends after this, logging for one, would wait for each of them behind a sink's lock.
        for each in _backgrounds.members():
            each._waiting.clear()  # noqa: SLF001  this module's own class


def flush(timeout_s: float = 1.0) -> bool:
    """Wait until all that is queued for sinks with a thread has been told, for so long at most; return whether it has.

    At the end of a process this happens by itself, unless it ends by ``os._exit``.
    """
    until = monotonic() + timeout_s
    marks = [each._mark() for each in _backgrounds.members() if each.is_pending]  # noqa: SLF001  this module's own class
    return all(mark is not None and mark.told.wait(max(0.0, until - monotonic())) for mark in marks)


class Sinks:
    """Sinks sorted by what they take. Replace them as a whole with :meth:`use`; readers see the old set or the new.

    ``changes`` get what is rare, ``commands`` each finished call, ``requests`` each request seen.
    Raises TypeError for what cannot be a sink: no callable, or a coroutine function.
    """

    __slots__ = ("changes", "commands", "requests")

    def __init__(self, *sinks: Sink) -> None:
        self.changes: tuple[Sink, ...] = ()
        self.commands: tuple[Sink, ...] = ()
        self.requests: tuple[Sink, ...] = ()
        self.use(*sinks)

    @classmethod
    def direct(cls, *sinks: Sink) -> Self:
        """Return sinks that are all called where things happen, whatever they promise: none of them may wait."""
        made = cls()
        made._sort(sinks)
        return made

    def use(self, *sinks: Sink) -> None:
        """Replace all sinks."""
        self._sort(tuple(_at_home(sink) for sink in sinks))

    def add(self, sink: Sink) -> None:
        """Add one sink after those in use. Not for two threads at once."""
        self._sort((*self.changes, _at_home(sink)))

    def _sort(self, sinks: tuple[Sink, ...]) -> None:
        commands = tuple(sink for sink in sinks if getattr(sink, "changes_only", False) is not True)
        self.changes = sinks
        self.commands = commands
        self.requests = tuple(sink for sink in commands if getattr(sink, "skips_requests", False) is not True)

    def command(self, event: CommandDone) -> None:
        """Hand on that a call has ended."""
        for sink in self.commands:
            _hand(sink, event)

    def request(self, event: RequestSeen) -> None:
        """Hand on that a request was seen."""
        for sink in self.requests:
            _hand(sink, event)

    def change(self, event: Event) -> None:
        """Hand an event of the rare kind to every sink."""
        for sink in self.changes:
            _hand(sink, event)


def _at_home(sink: Sink) -> Sink:
    """Return what is called where things happen: the sink, or what gives it a thread."""
    if not callable(sink):
        raise TypeError(f"a sink must be callable, not {type(sink).__name__}")
    called = sink if inspect.isroutine(sink) or isinstance(sink, partial) else type(sink).__call__
    if inspect.iscoroutinefunction(called):
        raise TypeError(f"a sink must be a plain function, not a coroutine function: {_name_of(sink)}")
    return sink if getattr(sink, "prompt", False) is True else Background(sink)


def _hand(sink: Sink, event: Event) -> None:
    try:
        sink(event)
    except Exception as error:  # noqa: BLE001  a sink never changes the fate of a call or a request
        note_internal_error(f"sink {_name_of(sink)}", error)


def _name_of(sink: object) -> str:
    if isinstance(sink, Background):
        return _name_of(sink.sink)
    with suppress(Exception):  # an attribute of a stranger's object may raise
        return str(sink.__name__)  # type: ignore[attr-defined]  # functions have one, and asking costs nothing
    return type(sink).__name__


_MAX_SHOWN = 128


def log_changes(event: Event) -> None:
    """Write a change to the standard library's logger ``groundfault``; the sink in use unless others are chosen.

    The logger has no handler of its own on purpose:
    where an application configured no logging, Python's last resort still prints the warnings to stderr.
    The fields are in the record's attribute ``groundfault`` too, for those who write JSON.
    """
    values = said_of(event)
    level = logging.WARNING if is_warning(event) else logging.INFO
    text = " ".join(f"{name}={shown(value)}" for name, value in values.items() if value is not None)
    _log.log(level, "%s %s", name_of(event), text, extra={"groundfault": tamed(values)})


def said_of(event: Event) -> dict[str, Any]:
    """Return the event's fields by name."""
    # Not asdict(): it copies deeply, and settings hold callables whose objects may hold locks.
    return {name: getattr(event, name) for name in event.__slots__}


def tamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with text that could forge a line, such as a trace id taken from a request, as a literal."""
    return {name: _tamed(value) if isinstance(value, str) else value for name, value in values.items()}


def _tamed(text: str) -> str:
    return str(text) if _is_tame(text) else ascii(str(text)[:_MAX_SHOWN])  # a member of an enumeration is its word


def _is_tame(text: str) -> bool:
    return len(text) <= _MAX_SHOWN and text.isprintable()


def shown(value: object) -> str:
    """Return how a value stands behind a field's name: text that could forge a line or a field is a short literal."""
    text = str(round(value, 3) if isinstance(value, float) else value)
    if isinstance(value, str) and not (_is_tame(text) and " " not in text):
        return ascii(text[:_MAX_SHOWN])
    return text


log_changes.changes_only = True  # type: ignore[attr-defined]  # a function may carry attributes; mypy has no word for it
# As prompt as the application's logging is: whoever logs to a slow place has given it a queue, or feels it anyway.
log_changes.prompt = True  # type: ignore[attr-defined]  # as above

_defaults = Sinks(log_changes)


def sinks_of(sinks: "Sinks | Iterable[Sink] | None") -> Sinks:
    """Return what a component's ``sinks`` argument means: None for the process-wide ones, else sinks of its own."""
    if sinks is None:
        return _defaults
    return sinks if isinstance(sinks, Sinks) else Sinks(*sinks)


def default_sinks() -> Sinks:
    """Return the process-wide sinks: those of every component that was given none of its own."""
    return _defaults
