"""A map as Graphviz' DOT, as SVG by way of its ``dot``, and as lines of text."""

import shutil
import subprocess
from collections.abc import Iterator
from math import log10
from typing import Final

from groundfault.servicemap.graph import OTHER, OUTSIDE, SHED, Edge, Node, ServiceMap

__all__ = ["DrawingError", "dot_of", "lines_of", "svg_of"]

_AGAINST: Final = ("failure", "timeout")
_NEVER_MADE: Final = ("circuit-open", "bulkhead-full", "throttled", "unhealthy")
_BAD_SHARE: Final = 0.05
_POOR_SHARE: Final = 0.01
_SVG_TIMEOUT_S: Final = 60.0
# Told apart by the color-blind, on light and dark ground; and the words on the edge say the same.
_INK: Final = "#44546a"
_BAD: Final = "#c0392b"
_SHEDDING: Final = "#b9770e"


class DrawingError(Exception):
    """Graphviz is missing, or has failed; the message says what to do."""


def dot_of(drawn: ServiceMap) -> str:
    """Return the map in Graphviz' language: services as boxes, silent resources dashed, edges by rate and outcome."""
    lines = [
        "digraph groundfault {",
        '  graph [rankdir=LR, bgcolor="white", nodesep=0.35, ranksep=1.1, fontname="Helvetica"];',
        f'  node [shape=box, style="rounded,filled", fillcolor="#eef2f7", color="{_INK}", fontcolor="#1b2631"];',
        '  node [fontname="Helvetica", fontsize=12, margin="0.16,0.08"];',
        f'  edge [color="{_INK}", fontcolor="{_INK}", fontname="Helvetica", fontsize=10, arrowsize=0.7];',
        *(f"  {_node(each)}" for each in drawn.nodes),
        *(f"  {_edge(each, drawn.span_s)}" for each in drawn.edges),
        "}",
    ]
    return "\n".join(lines) + "\n"


def svg_of(drawn: ServiceMap) -> str:
    """Return the map as SVG. Raises DrawingError without Graphviz' ``dot``, or if that takes more than a minute."""
    program = shutil.which("dot")
    if program is None:
        raise DrawingError("an SVG needs Graphviz' dot (Debian: apt-get install graphviz); --format dot does not")
    try:
        done = subprocess.run(  # noqa: S603  one program, found above, and no arguments of anybody's
            [program, "-Tsvg"], input=dot_of(drawn), capture_output=True, text=True, timeout=_SVG_TIMEOUT_S, check=True
        )
    except subprocess.TimeoutExpired:
        raise DrawingError(f"dot took longer than {_SVG_TIMEOUT_S:g} s; ask for fewer edges with --limit") from None
    except subprocess.CalledProcessError as failed:
        raise DrawingError(f"dot has failed: {str(failed.stderr).strip()[:300]}") from None
    return done.stdout


def _node(node: Node) -> str:
    look = ""
    if node.kind == "resource":
        look = ', shape=cylinder, style="filled,dashed", fillcolor="#f8f9fa"'
    elif node.name in {OUTSIDE, OTHER}:
        look = ', shape=plaintext, style="", fillcolor="transparent"'
    return f"{_quoted(node.name)} [tooltip={_quoted('. '.join(node.notes) or node.name)}{look}];"


def _edge(edge: Edge, span_s: float | None) -> str:
    rate = edge.volume / span_s if span_s else 0.0
    width = 1.0 + min(3.0, max(0.0, log10(rate + 1)))
    color = _INK
    if edge.share(*_AGAINST, "circuit-open") >= _BAD_SHARE:
        color = _BAD
    elif edge.share(SHED, "throttled", "bulkhead-full") >= _POOR_SHARE:
        color = _SHEDDING
    style = ", style=dashed" if not (edge.calls and edge.requests) and edge.caller != OUTSIDE else ""
    label = "\\n".join(_escaped(part) for part in _words(edge, span_s))
    tip = _quoted(". ".join(edge.notes) or f"{edge.caller} to {edge.callee}")
    ends = f"{_quoted(edge.caller)} -> {_quoted(edge.callee)}"
    look = f'penwidth={width:.1f}, color="{color}", fontcolor="{color}"{style}'
    return f'{ends} [label="{label}", tooltip={tip}, edgetooltip={tip}, {look}];'


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    """Make text harmless in a DOT string, where a backslash could name an escape and a line could end it."""
    return _clean(text).replace("\\", "\\\\").replace('"', '\\"')


def _clean(text: str) -> str:
    """Make text harmless on a terminal: a name that a page of metrics made up could hold its escapes."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _words(edge: Edge, span_s: float | None) -> Iterator[str]:
    """Yield what to write beside an edge: how many, what became of them, how long they had waited."""
    rate = f"{_short(edge.volume / span_s)}/s" if span_s else f"{_short(edge.volume)} so far"
    yield rate if edge.resource in {None, edge.callee} else f"{edge.resource}: {rate}"
    for name, outcomes in (
        ("failed", _AGAINST),
        ("shed", (SHED,)),
        ("not sent", _NEVER_MADE),
    ):
        share = edge.share(*outcomes)
        if share > 0:
            yield f"{_percent(share)} {name}"
    if edge.wait_s is not None:
        yield f"waited {edge.wait_s * 1e3:.3g} ms"


def _percent(share: float) -> str:
    return "< 0.1 %" if share < 0.001 else f"{share * 100:.3g} %"  # noqa: PLR2004  what is written so


def _short(number: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def lines_of(drawn: ServiceMap) -> Iterator[str]:
    """Yield the map as text: a line for each edge, then what is to be explained."""
    return map(_clean, _lines_of(drawn))


def _lines_of(drawn: ServiceMap) -> Iterator[str]:
    if not drawn.edges:
        yield "no calls and no requests have been seen"
        return
    rows = [(edge.caller, edge.callee, *_words(edge, drawn.span_s)) for edge in drawn.edges]
    left, right = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    for caller, callee, *words in rows:
        yield f"{caller:<{left}} -> {callee:<{right}}  {', '.join(words)}"
    notes = dict.fromkeys(
        [f"{node.name}: {note}" for node in drawn.nodes for note in node.notes]
        + [f"{edge.caller} -> {edge.callee}: {note}" for edge in drawn.edges for note in edge.notes]
        + list(drawn.notes)
    )
    if notes:
        yield ""
        yield from notes
