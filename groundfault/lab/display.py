"""What is seen on the terminal: a progress bar and a line for each change while the demo runs, a table at its end."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TextIO

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from groundfault.lab.goals import Judged

__all__ = ["Display", "results_table"]

_UNTOLD = frozenset({"t", "event", "warning", "by", "pid", "traceparent"})


class Display:
    """The terminal while the demo runs. Everything goes to ``console``, which should be standard error."""

    def __init__(self, console: Console) -> None:
        self.console = console
        renderer = structlog.dev.ConsoleRenderer(colors=console.is_terminal, pad_event_to=28, sort_keys=False)
        self.log = structlog.wrap_logger(_Lines(console), processors=[structlog.processors.add_log_level, renderer])
        self._progress = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextmanager
    def step(self, title: str, total_s: float) -> Iterator["Step"]:
        """Show a bar for one part of the demo."""
        task = self._progress.add_task(title, total=total_s, note="")
        yield Step(self._progress, task)
        self._progress.update(task, completed=total_s, note="")

    def change(self, at_s: float, row: Mapping[str, Any]) -> None:
        """Log a change that a service reported, ``at_s`` seconds into the run."""
        fields = {key: value for key, value in row.items() if key not in _UNTOLD and value is not None}
        write = self.log.warning if row["warning"] else self.log.info
        write(row["event"], t=f"{at_s:.1f}s", by=row["by"], **{key: _short(value) for key, value in fields.items()})


class Step:
    """One bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, elapsed_s: float, note: str) -> None:
        """Move the bar and change the words beside it."""
        self._progress.update(self._task, completed=elapsed_s, note=note)


class _Lines:
    """A structlog logger that prints above the progress bar."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def msg(self, message: str) -> None:
        self._console.print(Text.from_ansi(message), soft_wrap=True)

    info = warning = error = msg


def _short(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value


def results_table(phases: Mapping[str, Mapping[str, Any]], judged: list[Judged], file: TextIO) -> None:
    """Print what was measured, a row for each number and a column for each phase, and what was missed, loudly."""
    console = Console(file=file, width=None if file.isatty() else 110)  # a pipe has no width of its own
    table = Table(title="The Gronk spike, three times", title_justify="left")
    table.add_column("")
    for phase in phases:
        table.add_column(phase, justify="right")
    table.add_column("target", justify="right")
    for line in judged:
        style = "bold red" if line.met is False else "green" if line.met else ""
        cells = [Text(text, style=style if phase == "groundfault" else "") for phase, text in line.shown.items()]
        table.add_row(line.title, *cells, line.target or "")
    console.print(table)
    for phase, metrics in phases.items():
        for reason in metrics["void"]:
            console.print(Text(f"VOID: {phase}: {reason}", style="bold red"), soft_wrap=True)
    for line in judged:
        if line.met is False:
            missed = f"TARGET MISSED: {line.title}: {line.shown['groundfault']}, should be {line.target}"
            console.print(Text(missed, style="bold red"), soft_wrap=True)
