"""How findings look on a terminal: one line each, the reason and the remedy below, and what matters most at the end."""

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Final

from groundfault.doctor.finding import Finding, Verdict, ok

__all__ = ["shown"]

_ORDER: Final[tuple[Verdict, ...]] = ("ok", "warning", "problem")
_COLORS: Final[dict[Verdict, str]] = {"ok": "32", "warning": "33", "problem": "1;31"}
_TAG: Final = 9
_CHECK: Final = 15
_INDENT: Final = _TAG + _CHECK
_LABEL: Final = 5
_PLURAL: Final = {"ok": "ok", "warning": "warnings", "problem": "problems"}


def shown(findings: Sequence[Finding], *, width: int = 120, color: bool = False) -> Iterator[str]:
    """Yield the lines: what is well, then warnings, then problems, then how many of each.

    What is well is one line for each thing looked at.
    ``width``: of the terminal, in characters. ``color``: whether verdicts have one.
    """
    fine: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        if finding.verdict == "ok":
            fine.setdefault((finding.check, finding.where), []).append(finding.seen)
    for (check, where), seen in fine.items():
        yield from _lines_of(ok(check, where, "; ".join(seen)), width, color=color)
    for verdict in _ORDER[1:]:
        for finding in findings:
            if finding.verdict == verdict:
                yield from _lines_of(finding, width, color=color)
    counts = [(verdict, sum(each.verdict == verdict for each in findings)) for verdict in reversed(_ORDER)]
    yield ""
    yield ", ".join(f"{count} {verdict if count == 1 else _PLURAL[verdict]}" for verdict, count in counts)


def _lines_of(finding: Finding, width: int, *, color: bool) -> Iterator[str]:
    tag = finding.verdict.upper()
    painted = f"\033[{_COLORS[finding.verdict]}m{tag}\033[0m" if color else tag
    head, *said = finding.seen.splitlines() or [""]
    first, *rest = _folded(f"{finding.where}: {head}" if finding.where else head, width)
    yield f"{painted}{' ' * (_TAG - len(tag))}{finding.check:{_CHECK}}{first}".rstrip()
    for line in rest:
        yield f"{'':{_INDENT}}{line}"
    for line in said:
        yield f"{'':{_INDENT}}{_printable(line)}"
    for label, text in (("why", finding.why), ("do", finding.advice)):
        for number, line in enumerate(_folded(text, width - _LABEL)):
            yield f"{'':{_INDENT}}{'' if number else label:{_LABEL}}{line}"


def _folded(text: str, width: int) -> list[str]:
    return wrap(_printable(text), max(width - _INDENT, 40), break_long_words=False, break_on_hyphens=False)


def _printable(text: str) -> str:
    """Return the text without what a terminal might obey: files, headers and processes are other people's."""
    return "".join(each if each.isprintable() else "?" for each in text)
