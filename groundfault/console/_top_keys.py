"""The keyboard of a terminal, a key at a time, and the terminal as it was when we are done."""

import codecs
import os
import re
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, Self

__all__ = ["Decoder", "Keyboard"]

_NAMED: Final = {
    "[A": "up",
    "[B": "down",
    "OA": "up",
    "OB": "down",
    "[5~": "page-up",
    "[6~": "page-down",
    "[H": "home",
    "[F": "end",
    "OH": "home",
    "OF": "end",
    "[1~": "home",
    "[4~": "end",
}
_SINGLE: Final = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace"}
_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.)", re.DOTALL)
_BEGUN: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_REST_S: Final = 0.05
"""So long after an Escape its rest may still come; else it was the key."""


class Decoder:
    """Makes names of keys of what a terminal sends. A sequence that it does not know is no key at all."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""

    @property
    def is_amid(self) -> bool:
        """Whether an escape sequence has begun, and not ended."""
        return self._text != ""

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the keys that are complete."""
        self._text += self._decoder.decode(data)
        while self._text and not _BEGUN.fullmatch(self._text):
            sequence = _SEQUENCE.match(self._text)
            if sequence:
                self._text = self._text[sequence.end() :]
                name = _NAMED.get(sequence[0][1:])
                if name is not None:
                    yield name
                continue
            character, self._text = self._text[0], self._text[1:]
            yield from self._one(character)

    def end(self) -> Iterator[str]:
        """Yield what has begun and is not going on: the Escape key, for one."""
        begun, self._text = self._text, ""
        for character in begun:
            yield from self._one(character)

    @staticmethod
    def _one(character: str) -> Iterator[str]:
        if character == "\x1b":
            yield "escape"
        elif character in _SINGLE:
            yield _SINGLE[character]
        elif character.isprintable():
            yield character


class Keyboard:
    """A terminal that sends each key at once, until the ``with`` block ends, however it does.

    SIGTERM, SIGHUP and SIGINT end it: :attr:`ended_by`. SIGTSTP calls ``leave``, stops the process with the terminal as
    it was, and ``enter`` when it goes on. Only the main thread can have one.
    """

    def __init__(self, *, leave: Callable[[], None], enter: Callable[[], None]) -> None:
        self._fd = sys.stdin.fileno()
        self._leave = leave
        self._enter = enter
        self._decoder = Decoder()
        self._saved: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._stopping = False
        self.ended_by: int | None = None
        """The signal that ended it; None: none has."""
        self.is_gone = False
        """Whether the terminal itself has gone away."""

    def __enter__(self) -> Self:
        self._saved = termios.tcgetattr(self._fd)
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._end)
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._stop)
        self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda *_: None)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        tty.setcbreak(self._fd, termios.TCSADRAIN)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._restore()
        finally:
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            os.close(self._reader)
            os.close(self._writer)

    def wake(self) -> None:
        """Make :meth:`keys` return. Any thread may call this."""
        try:
            os.write(self._writer, b"\0")
        except OSError:
            return  # full: it wakes anyway; closed: it has ended

    def keys(self, timeout_s: float) -> list[str]:
        """Return the keys that were pressed: at once when there are some, or a signal or :meth:`wake` came."""
        readable, _, _ = select.select([self._fd, self._reader], [], [], timeout_s)
        if self._reader in readable:
            os.read(self._reader, 4096)
        found = self._read() if self._fd in readable else []
        if self._stopping:
            self._suspend()
        return found

    def _read(self) -> list[str]:
        try:
            data = os.read(self._fd, 4096)
        except OSError:
            data = b""
        if not data:
            self.is_gone = True
        found = list(self._decoder.feed(data))
        if self._decoder.is_amid and not select.select([self._fd], [], [], _REST_S)[0]:
            found += self._decoder.end()
        return found

    def _end(self, number: int, _: FrameType | None) -> None:
        self.ended_by = number

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _suspend(self) -> None:
        self._stopping = False
        self._leave()
        self._restore()
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)  # it returns when the process goes on
        signal.signal(signal.SIGTSTP, ours)
        tty.setcbreak(self._fd, termios.TCSADRAIN)
        self._enter()

    def _restore(self) -> None:
        try:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
        except termios.error:  # the terminal has gone away
            self.is_gone = True
