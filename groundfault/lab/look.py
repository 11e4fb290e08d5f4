"""The look that all of the lab's plots share: colors in a light and a dark scheme, SVG with text as text, and PNG."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["DARK", "LIGHT", "Scheme", "darkened", "drawn_in", "inline", "png", "standing", "svg"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """Colors of one rendering. What must be told apart differs in dash or hatching, too, so that anybody can.

    ``runs``: the demo's three. ``several``: any other runs, by their place. ``fates``: what became of requests.
    Of the light ones no two are equal but where their dark ones are: see :func:`darkened`.
    """

    name: str
    paper: str
    ink: str
    faint: str
    band: str
    runs: Mapping[str, str]
    several: tuple[str, ...]
    fates: Mapping[str, str]
    bad: str


# The hues are from Okabe and Ito's palette, told apart with any color vision; lightened for the dark paper.
LIGHT = Scheme(
    "light", "#ffffff", "#1f2328", "#8b949e", "#f3f0e8",
    {"unprotected": "#c04a00", "plain-503": "#a06a00", "groundfault": "#0060a8"},
    ("#0060a8", "#c04a00", "#00775a", "#8a3c9b", "#a06a00", "#5b6470"),
    {"good": "#3d8bc9", "late": "#e69f00", "shed": "#b9c4cf", "failed": "#c8451b", "unsent": "#6b7178"},
    "#cf222e",
)  # fmt: skip
DARK = Scheme(
    "dark", "#0d1117", "#e6edf3", "#7d8590", "#1c2128",
    {"unprotected": "#ff8a50", "plain-503": "#e3b341", "groundfault": "#58a6ff"},
    ("#58a6ff", "#ff8a50", "#3fc197", "#c792ea", "#e3b341", "#a9b1ba"),
    {"good": "#3f8fd6", "late": "#e3b340", "shed": "#4b5763", "failed": "#f0703c", "unsent": "#a0a7ae"},
    "#f85149",
)  # fmt: skip


@contextmanager
def drawn_in(scheme: Scheme) -> Iterator[None]:
    """Give whatever is drawn meanwhile the look of a scheme. Texts are shown as they are, whatever is in them."""
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text: it can be searched, read aloud, and needs no embedded font
        "svg.hashsalt": f"groundfault-{scheme.name}",
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.size": 10.5,
        "figure.facecolor": scheme.paper,
        "axes.facecolor": scheme.paper,
        "axes.edgecolor": scheme.faint,
        "axes.labelcolor": scheme.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": scheme.ink,
        "xtick.color": scheme.ink,
        "ytick.color": scheme.ink,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a browser has other fonts to show it with
        yield


def png(figure: Figure, scheme: Scheme) -> bytes:
    """Render as PNG, twice as dense as a screen of 2010."""
    with drawn_in(scheme):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
        return buffer.getvalue()


def svg(figure: Figure, scheme: Scheme) -> str:
    """Render as a stand-alone SVG file; the same figure gives the same bytes."""
    with drawn_in(scheme):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        return buffer.getvalue()


_ID = re.compile(r'(\bid="|href="#|url\(#)')


def inline(document: str, prefix: str) -> str:
    """Return the ``<svg>`` element of an SVG file for use inside a page, with ids of its own among its siblings."""
    element = document[document.index("<svg") :]
    return _ID.sub(lambda match: match.group(1) + prefix, element)


_STYLE = re.compile(r' style="([^"]*)"')
_NOT_WANTED = re.compile(r" *<(style|metadata)\b.*?</\1>\n", re.DOTALL)
_PLACES = re.compile(r'( (?:d|x|y|points|transform)=")([^"]*)"')
_LONG = re.compile(r"\d+\.\d{3,}")
_LINES = re.compile(r"\n\s*")


def standing(document: str, prefix: str, label: str) -> str:
    """Return the ``<svg>`` element of a *light* SVG file for use inside a page that has the rules of :func:`darkened`.

    Its colors are attributes, which a style sheet overrules: one drawing serves light and dark, and a page whose
    policy forbids styles still shows it. Its font is the page's. ``label`` is what a screen reader says of it.
    """
    element = _NOT_WANTED.sub("", inline(document, prefix))
    element = _STYLE.sub(_as_attributes, element)
    element = _PLACES.sub(lambda found: f'{found[1]}{_LONG.sub(_shorter, _LINES.sub(" ", found[2])).strip()}"', element)
    spoken = f'<svg role="img" aria-label="{escape(label)}" stroke-linejoin="round" '
    return _LINES.sub("\n", element.replace("<svg ", spoken, 1))


def _as_attributes(found: re.Match[str]) -> str:
    pairs = (pair.split(":", 1) for pair in found[1].split(";") if ":" in pair)
    return "".join(f' {name.strip()}="{value.strip()}"' for name, value in pairs if name.strip() != "font-family")


def _shorter(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}"


def darkened(within: str) -> str:
    """Return the rules of a style sheet that turn the light scheme's colors into the dark one's."""
    pairs = dict(zip(_colors(LIGHT), _colors(DARK), strict=True))
    return "\n".join(
        f'{within} [{name}="{light}"] {{ {name}: {dark}; }}'
        for light, dark in pairs.items()
        for name in ("fill", "stroke")
    )


def _colors(scheme: Scheme) -> list[str]:
    return [scheme.paper, scheme.ink, scheme.faint, scheme.band, scheme.bad, *scheme.several, *scheme.fates.values()]
