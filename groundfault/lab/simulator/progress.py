"""How far a simulation is, on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

__all__ = ["shown"]


@contextmanager
def shown(name: str, total_s: float) -> Iterator[Callable[[float], None] | None]:
    """Show a bar on a terminal, if rich is there; what is yielded is told the seconds that are done, or None."""
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield None
        return
    from rich.console import Console  # noqa: PLC0415  needs what was just looked for
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: PLC0415  as above

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} s"),
    )
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(f"simulating {name}", total=total_s)
        yield lambda done: bar.update(task, completed=done)
