"""Says how far a long reading is: a bar on a terminal, a line now and then elsewhere."""

import sys
from collections.abc import Callable
from math import ceil
from typing import Any, Final, Self, TextIO

from groundfault._clock import Clock, monotonic

__all__ = ["Progress"]

_EVERY_S: Final = 5.0


class Progress:
    """Goes to ``file``, standard error by default. ``quiet``: says nothing. Without rich there are lines, not a bar.

    ``told``: what lines that were understood tell of.
    """

    def __init__(
        self, *, file: TextIO | None = None, quiet: bool = False, told: str = "calls", clock: Clock = monotonic
    ) -> None:
        self._file = sys.stderr if file is None else file
        self._quiet = quiet
        self._told = told
        self._clock = clock
        self._total: int | None = None
        self._bytes = 0
        self._began_at = self._said_at = clock()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def begin(self, total: int | None) -> None:
        """Start. ``total`` bytes are to be read; None if nobody knows."""
        self._total = total
        self._began_at = self._said_at = self._clock()
        if self._quiet or not self._file.isatty():
            return
        made = _bar(self._file)
        if made is not None:
            self._bar, start = made
            self._task = start(total)

    def advance(self, taken: int, lines: int, told: int) -> None:
        """Say that ``taken`` more bytes are done; ``lines`` and those ``told`` of are those so far."""
        self._bytes += taken
        if self._bar is not None:
            self._bar.update(self._task, completed=self._bytes, note=f"{lines:,} lines, {told:,} {self._told}")
            return
        now = self._clock()
        if self._quiet or now - self._said_at < _EVERY_S:
            return
        self._said_at = now
        print(self._line(now, lines, told), file=self._file, flush=True)

    def _line(self, now: float, lines: int, told: int) -> str:
        spent_s = max(now - self._began_at, 1e-9)
        done = f"{self._bytes / 1e6:,.0f} MB"
        left = ""
        if self._total:
            left_s = max(0.0, spent_s * (self._total / self._bytes - 1)) if self._bytes else 0.0
            done = f"{self._bytes / self._total:.0%} of {self._total / 1e6:,.0f} MB"
            left = f", {ceil(left_s):,} s left"
        return f"read {done}: {lines:,} lines, {told:,} {self._told}, {ceil(lines / spent_s):,} lines/s{left}"


def _bar(file: TextIO) -> tuple[Any, Callable[[int | None], Any]] | None:
    try:
        from rich import progress as rich  # noqa: PLC0415  part of an extra
        from rich.console import Console  # noqa: PLC0415  as above
    except ImportError:
        return None
    note = rich.TextColumn("{task.fields[note]}")
    columns = (rich.BarColumn(bar_width=None), rich.DownloadColumn(), note, rich.TimeRemainingColumn())
    bar = rich.Progress(*columns, console=Console(file=file), transient=True)
    bar.start()
    return bar, lambda total: bar.add_task("reading", total=total, note="")
