"""The living picture: one thread looks once a second, the main one draws and listens to keys."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event, Lock, Thread
from typing import Final

from rich.console import Console
from rich.live import Live

from groundfault._clock import monotonic
from groundfault.console._top_keys import Keyboard
from groundfault.console._top_lines import Cell, Drawing, Lines
from groundfault.console._top_sources import Looked, Source, SourceError
from groundfault.console._top_state import Looking, chosen, pressed
from groundfault.console._top_words import Signs
from groundfault.console.top import Situation, picture
from groundfault.console.view import View

__all__ = ["watch"]

INTERVAL_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """The newest look that went well, when that was, and what has gone wrong since."""

    looked: Looked | None = None
    at: float = 0.0
    trouble: str | None = None


class _Reader:
    """Looks once a second, on a thread of its own: a source that hangs must not hold the keys up."""

    def __init__(self, source: Source, wake: Callable[[], None]) -> None:
        self._source = source
        self._wake = wake
        self._lock = Lock()  # guards _seen
        self._seen = _Seen()
        self._ended = Event()
        self._thread = Thread(target=self._run, name="groundfault-top", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end, and wait for a moment; a look that hangs ends with the process."""
        self._ended.set()
        self._thread.join(0.2)

    @property
    def seen(self) -> _Seen:
        with self._lock:
            return self._seen

    def _run(self) -> None:
        while not self._ended.is_set():
            began = monotonic()
            try:
                new = _Seen(self._source.look(), monotonic())
            except SourceError as error:
                new = replace(self.seen, trouble=str(error))
            except Exception as error:  # noqa: BLE001  what is shown stays, and says so
                new = replace(self.seen, trouble=f"{type(error).__name__}: {error}")
            with self._lock:
                self._seen = new
            self._wake()
            self._ended.wait(max(0.1, INTERVAL_S - (monotonic() - began)))


def watch(source: Source, looking: Looking, signs: Signs) -> int:
    """Show what the source says until somebody wants to go. Return the exit code: 0, or 128 and the signal."""
    console = Console(highlight=False, markup=False, emoji=False)
    live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    keyboard = Keyboard(leave=live.stop, enter=lambda: live.start(refresh=False))
    with keyboard:
        reader = _Reader(source, keyboard.wake)
        reader.start()
        try:
            with live:
                _listen(_Screen(console, live, signs), keyboard, reader, looking)
        finally:
            reader.stop()
    return 0 if keyboard.ended_by is None else 128 + keyboard.ended_by


class _Screen:
    """Draws on the whole terminal, however wide it is at that moment."""

    def __init__(self, console: Console, live: Live, signs: Signs) -> None:
        self._console = console
        self._live = live
        self._signs = signs

    def draw(self, view: View | None, looking: Looking, situation: Situation) -> None:
        width, height = self._size()
        if view is None:
            text = situation.trouble or "looking for the first time"
            sign = self._signs.levels["warn"] if situation.trouble else self._signs.pointer
            lines = [Drawing(width, self._signs).line(Cell(f"{sign} {text}"))]
        else:
            lines = picture(view, looking, situation, width=width, height=height, signs=self._signs)
        self._live.update(Lines(lines), refresh=True)

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(sys.stdout.fileno())
        except (OSError, ValueError):
            size = os.terminal_size((0, 0))
        found = (size.columns or 80, size.lines or 24)  # a terminal that does not know is of the usual size
        self._console.size = found
        return found


def _listen(screen: _Screen, keyboard: Keyboard, reader: _Reader, looking: Looking) -> None:
    held: _Seen | None = None
    held_at = 0.0
    while not looking.left and keyboard.ended_by is None and not keyboard.is_gone:
        now = monotonic()
        if looking.paused and held is None:
            held, held_at = reader.seen, now
        elif not looking.paused:
            held = None
        seen = held or reader.seen
        view = seen.looked.view if seen.looked else None
        age_s = seen.looked.age_s + (held_at if held else now) - seen.at if seen.looked else 0.0
        screen.draw(view, looking, Situation(age_s, seen.trouble, now - held_at if held else None))
        for key in keyboard.keys(INTERVAL_S):
            looking = pressed(looking, key, chosen(view, looking) if view else [])
