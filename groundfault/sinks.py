"""Who is told what happens.

A sink is any callable that takes one event of :mod:`groundfault.events`. It is told in causing order, after the fact,
and never while a lock is held.
One that raises is counted and logged at most once a minute, and changes nothing else.

An unknown callable may wait: for a disk, a socket, another service. So it gets a queue and a thread of its own,
:class:`Background`. A sink with a true attribute ``prompt`` promises not to wait, and is called where things happen.
With a true attribute ``changes_only`` it is never given calls or requests, with ``skips_requests`` no requests:
then, if no other sink wants them, they are not even made.
"""

import atexit
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import fields
from queue import Empty, SimpleQueue
from typing import Any, Final, Self

from groundfault._clock import monotonic
from groundfault._family import Family
from groundfault.events import CommandDone, Event, RequestSeen, is_warning, name_of, note_internal_error

__all__ = ["Background", "Sink", "Sinks", "default_sinks", "log_changes", "sinks_of"]

_log = logging.getLogger("groundfault")

Sink = Callable[[Event], None]


class Background:
    """Gives a sink a queue and a thread of its own, so that it may wait as long as it likes.

    ``capacity``: events that may wait for it, 10,000; those that come after are lost, counted in ``lost``, and told in
    the log once a minute. The thread begins with the first event and ends when there has been none for five seconds.
    When the process ends, what is queued gets a second to be told.
    """

    prompt: Final = True

    def __init__(self, sink: Sink, *, capacity: int = 10_000) -> None:
        self.sink = sink
        self.lost = 0
        self.changes_only = bool(getattr(sink, "changes_only", False))
        self.skips_requests = bool(getattr(sink, "skips_requests", False))
        self._capacity = capacity
        self._begin_anew()
        _backgrounds.add(self)

    def __repr__(self) -> str:
        return f"<Background {_name_of(self.sink)}>"

    def _begin_anew(self) -> None:
        """Start with nothing: in the child of a fork the thread is gone, and what is queued is the parent's to tell."""
        self._queue: SimpleQueue[Event | threading.Event] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Guards `_thread`. Re-entrant, for a signal handler may cause an event while its thread is in here.
        self._lock = threading.RLock()

    def __call__(self, event: Event) -> None:
        """Queue the event; takes about a microsecond and never waits."""
        if self._queue.qsize() >= self._capacity:
            self.lost += 1
            raise BufferError(f"{self._capacity} events wait for it; {self.lost} more are lost")
        self._queue.put(event)
        if self._thread is None:
            self._start()

    @property
    def is_pending(self) -> bool:
        """Whether its thread has something to tell, or has had within the last five seconds."""
        return self._thread is not None

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything queued so far has been told, for so long at most; return whether it has."""
        told = threading.Event()
        self._queue.put(told)
        if self._thread is None:
            self._start()
        return told.wait(max(0.0, timeout_s))

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=f"groundfault-{_name_of(self.sink)}", daemon=True)
                thread.start()  # before it is remembered: where no thread can be had, the next event tries again
                self._thread = thread

    def _run(self) -> None:
        queue = self._queue
        while True:
            try:
                event = queue.get(timeout=_IDLE_S)
            except Empty:
                if self._may_end(queue):
                    return
                continue
            if isinstance(event, threading.Event):
                event.set()
                continue
            try:
                _hand(self.sink, event)
            except BaseException as error:  # noqa: BLE001  one that would end its thread would be silent for good
                note_internal_error(f"sink {_name_of(self.sink)}", error)

    def _may_end(self, queue: "SimpleQueue[Any]") -> bool:
        with self._lock:
            mine, self._thread = self._thread, None
            if not queue.empty():  # one came in between, and may have found this thread still there
                self._thread = mine
            return self._thread is None


_IDLE_S: Final = 5.0
_FAREWELL_S: Final = 1.0
_backgrounds: Final[Family[Background]] = Family(Background._begin_anew)  # noqa: SLF001  the child's end of the fork, for this class alone


@atexit.register
def _say_farewell() -> None:
    until = monotonic() + _FAREWELL_S
    for each in _backgrounds.members():
        if each.is_pending:
            each.flush(until - monotonic())


class Sinks:
    """Sinks sorted by what they take. Replace them as a whole with :meth:`use`; readers see the old set or the new.

    ``changes`` get what is rare, ``commands`` each finished call, ``requests`` each request seen.
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
        self._sort(tuple(sink if getattr(sink, "prompt", False) else Background(sink) for sink in sinks))

    def add(self, sink: Sink) -> None:
        """Add one sink after those in use."""
        self._sort((*self.changes, sink if getattr(sink, "prompt", False) else Background(sink)))

    def _sort(self, sinks: tuple[Sink, ...]) -> None:
        commands = tuple(sink for sink in sinks if not getattr(sink, "changes_only", False))
        self.changes = sinks
        self.commands = commands
        self.requests = tuple(sink for sink in commands if not getattr(sink, "skips_requests", False))

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


def _hand(sink: Sink, event: Event) -> None:
    try:
        sink(event)
    except Exception as error:  # noqa: BLE001  a sink never changes the fate of a call or a request
        note_internal_error(f"sink {_name_of(sink)}", error)


def _name_of(sink: Sink) -> str:
    if isinstance(sink, Background):
        return _name_of(sink.sink)
    return getattr(sink, "__name__", type(sink).__name__)


_MAX_SHOWN = 128


def log_changes(event: Event) -> None:
    """Write a change to the standard library's logger ``groundfault``; the sink in use unless others are chosen.

    The logger has no handler of its own on purpose:
    where an application configured no logging, Python's last resort still prints the warnings to stderr.
    """
    # Not asdict(): it copies deeply, and settings hold callables whose objects may hold locks.
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    level = logging.WARNING if is_warning(event) else logging.INFO
    text = " ".join(f"{name}={_shown(value)}" for name, value in values.items() if value is not None)
    _log.log(level, "%s %s", name_of(event), text, extra={"groundfault": values})


def _shown(value: object) -> str:
    """Write text that could forge a line or a field, such as a trace id taken from a request, as a short literal."""
    text = str(round(value, 3) if isinstance(value, float) else value)
    if isinstance(value, str) and not (len(text) <= _MAX_SHOWN and text.isprintable() and " " not in text):
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
