"""The report of a demo: one page that needs nothing else, and the headline plot for other pages to show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from groundfault.lab import look, plots
from groundfault.lab.demo import Recorded
from groundfault.lab.goals import judge
from groundfault.lab.series import Series, series

__all__ = ["page", "write"]


def write(out: Path, recorded: Recorded, summary: dict[str, Any]) -> None:
    """Write report.html, headline.svg, headline-dark.svg and headline.png into ``out``."""
    runs = _runs(recorded)

    def headline(scheme: look.Scheme) -> Figure:
        return plots.headline(runs, recorded.curve, recorded.capacity_rps, scheme)

    (out / "headline.svg").write_text(look.svg(headline(look.LIGHT), look.LIGHT), encoding="utf-8")
    (out / "headline-dark.svg").write_text(look.svg(headline(look.DARK), look.DARK), encoding="utf-8")
    (out / "headline.png").write_bytes(look.png(headline(look.LIGHT), look.LIGHT))
    (out / "report.html").write_text(page(recorded, summary), encoding="utf-8")


def page(recorded: Recorded, summary: dict[str, Any]) -> str:
    """Return the page. Every plot is in it twice, for light and for dark surroundings; the style sheet shows one."""
    runs, curve = _runs(recorded), recorded.curve
    figures: dict[str, Callable[[look.Scheme], Figure]] = {
        "headline": lambda scheme: plots.headline(runs, curve, recorded.capacity_rps, scheme),
        "innocents": lambda scheme: plots.innocents(runs, curve, scheme),
        "trips": lambda scheme: plots.trips(runs, curve, scheme),
        "queue_wait": lambda scheme: plots.queue_wait(runs, curve, scheme),
        "shed_share": lambda scheme: plots.shed_share(runs, curve, scheme),
    }
    environment = Environment(
        loader=PackageLoader("groundfault.lab", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        summary=summary,
        phases=summary["phases"],
        lines=judge(summary["phases"]),
        plots={name: _both(name, draw) for name, draw in figures.items()},
        curve=curve,
    )


def _runs(recorded: Recorded) -> dict[str, Series]:
    return {
        phase.value: series(measured.rows, measured.events, recorded.curve)
        for phase, measured in recorded.phases.items()
    }


def _both(name: str, draw: Callable[[look.Scheme], Figure]) -> Markup:
    drawings = []
    for scheme in (look.LIGHT, look.DARK):
        drawing = look.inline(look.svg(draw(scheme), scheme), f"{name}-{scheme.name}-")
        drawings.append(f'<div class="only-{scheme.name}">{drawing}</div>')
    return Markup("\n".join(drawings))  # noqa: S704  drawn here from numbers and fixed words, nothing a request brought
