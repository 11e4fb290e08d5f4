"""Pages and pictures, of one run or of several. The same runs give the same bytes."""

from collections.abc import Mapping, Sequence

from groundfault.lab import look
from groundfault.lab.reports import figures, overlays
from groundfault.lab.reports.canvas import WIDE, Window
from groundfault.lab.reports.comparison import comparison
from groundfault.lab.reports.page import page
from groundfault.lab.runs.record import Run

__all__ = ["image_of", "page_of"]


def page_of(runs: Sequence[Run], labels: Sequence[str], mind: Mapping[str, Sequence[str]]) -> str:
    """Return the page of one run, or of several against the first; ``mind`` as in :func:`comparison`."""
    return page(runs[0]) if len(runs) == 1 else comparison(runs, labels, mind)


def image_of(runs: Sequence[Run], labels: Sequence[str], suffix: str, *, dark: bool = False) -> bytes:
    """Return the headline plot as a file with this suffix, ``.svg`` or ``.png``."""
    scheme = look.DARK if dark else look.LIGHT
    window = Window(runs[0], 0, runs[0].seconds, WIDE, scheme)
    figure = figures.headline(window) if len(runs) == 1 else overlays.headline(window, runs, labels)
    if suffix == ".png":
        return look.png(figure, scheme)
    return look.svg(figure, scheme).encode()
