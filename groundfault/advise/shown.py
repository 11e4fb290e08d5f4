"""Proposals as a table, sentences, a settings diff and JSON."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from groundfault.advise import wording
from groundfault.advise.bars import bars
from groundfault.advise.proposal import Advice, Proposal
from groundfault.wire import valid_name

__all__ = ["as_json", "diff_lines", "entries", "explained", "print_table", "say", "write_entries"]

_HEADINGS: Final = (
    *("command", "successes", "p50", "p95", "p99", "timeout_s", "cuts off", "slow_call_s"),
    *("minimum_volume_per_s", "max_concurrent", "sure?"),
)
_PIPE_WIDTH: Final = 400
"""A pipe has no width of its own; no row is longer than it must be."""


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line; what the terminal's encoding does not have becomes a question mark."""
    out = sys.stdout if file is None else file
    encoding = getattr(out, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=out)


def is_fine(file: TextIO) -> bool:
    """Whether block characters can be shown."""
    try:
        "█◀→".encode(getattr(file, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _cell(advice: Advice | None, arrow: str) -> str:
    if advice is None:
        return ""
    current = "" if advice.current is None else f"{wording.setting(advice.current)}{'?' if advice.read else ''}"
    if advice.value is None:
        return current or "-"
    if not advice.changes:
        return f"{current} ok"
    return f"{current} {arrow} {wording.setting(advice.value)}".strip()


def _rows(proposals: Iterable[Proposal], arrow: str) -> Iterator[tuple[str, ...]]:
    for each in proposals:
        successes = each.seen.successes
        cut = "-" if each.timeout_s is None else wording.percent(each.cut_share)
        yield (
            each.path,
            wording.count(successes.count),
            *(wording.seconds(successes.quantile(share)) if successes.count else "-" for share in (0.5, 0.95, 0.99)),
            _cell(each.of("timeout_s"), arrow),
            cut,
            _cell(each.of("slow_call_s"), arrow),
            _cell(each.of("minimum_volume_per_s"), arrow),
            _cell(each.of("max_concurrent"), arrow),
            each.confidence,
        )


def print_table(proposals: Sequence[Proposal], file: TextIO | None = None) -> None:
    """Print a row for each command: by rich where it is installed, else in plain columns."""
    out = sys.stdout if file is None else file
    rows = list(_rows(proposals, "→" if is_fine(out) else "->"))
    filled = [at for at in range(len(_HEADINGS)) if any(row[at] not in {"", "-"} for row in rows) or at < 6]  # noqa: PLR2004  up to the timeout
    headings = [_HEADINGS[at] for at in filled]
    cells = [[row[at] for at in filled] for row in rows]
    if _print_rich(headings, cells, out):
        return
    widths = [max(len(line[at]) for line in [headings, *cells]) for at in range(len(headings))]
    for line in (headings, *cells):
        padded = (
            text.ljust(width) if at == 0 else text.rjust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        say("  ".join(padded).rstrip(), out)


def _print_rich(headings: Sequence[str], cells: Sequence[Sequence[str]], out: TextIO) -> bool:
    try:
        from rich import box  # noqa: PLC0415  part of an extra
        from rich.console import Console  # noqa: PLC0415  as above
        from rich.table import Table  # noqa: PLC0415  as above
        from rich.text import Text  # noqa: PLC0415  as above
    except ImportError:
        return False
    table = Table(box=box.SIMPLE_HEAD if is_fine(out) else box.ASCII, pad_edge=False)
    for at, heading in enumerate(headings):
        table.add_column(heading, justify="right" if at else "left", overflow="fold")
    for line in cells:
        table.add_row(*(Text(text, style="bold" if "→" in text else "") for text in line))
    Console(file=out, width=None if out.isatty() else _PIPE_WIDTH).print(table)
    return True


def explained(proposal: Proposal, key: str | None, *, fine: bool) -> Iterator[str]:
    """Yield the distribution, the reasons, and what became of segments, of one command."""
    successes = wording.count(proposal.seen.successes.count)
    yield f"{proposal.path}, {successes} successes, confidence: {proposal.confidence}"
    yield from (f"  {line}" for line in bars(proposal, fine=fine))
    for advice in proposal.advice:
        value = "no advice" if advice.value is None else wording.setting(advice.value)
        if advice.value is not None and not advice.changes and advice.current is not None:
            value = f"{wording.setting(advice.current)}, as it is"
        yield f"  {advice.name}: {value}. {advice.why}"
    for view in proposal.segments[:10]:
        yield (
            f"  {key} {view.name}: {wording.percent(view.share)} of the calls, p95 {wording.seconds(view.p95_s)}, "
            f"{wording.percent(view.cut_share)} of its successes cut off"
        )
    if len(proposal.segments) > 10:  # noqa: PLR2004  those that lose most come first
        yield f"  and {len(proposal.segments) - 10} more, that lose less"


def entries(proposals: Iterable[Proposal], scope: str) -> list[dict[str, Any]]:
    """Return the settings diff, of all commands that can have live settings: a name from a log may be anything."""
    return [entry for each in proposals if is_nameable(each) for entry in each.entries(scope)]


def is_nameable(proposal: Proposal) -> bool:
    """Whether a command may be called so."""
    return valid_name(proposal.seen.resource) and valid_name(proposal.seen.command)


def diff_lines(proposals: Iterable[Proposal], scope: str) -> Iterator[str]:
    """Yield the settings diff for people."""
    for each in proposals:
        if not each.changes or not is_nameable(each):
            continue
        yield f"{scope}/{each.path}"
        for advice in each.changes:
            if advice.current is not None and not advice.read:
                yield f"- {advice.name} {wording.setting(advice.current)}"
            if advice.value is not None:
                hurt = ", ".join(view.name for view in each.segments if view.sparing_s is not None)
                warned = f"  (mind {hurt}, above)" if hurt and advice.name == "timeout_s" else ""
                yield f"+ {advice.name} {wording.setting(advice.value)}{warned}"


def write_entries(path: Path, held: list[dict[str, Any]]) -> None:
    """Write the settings diff, whole or not at all. Raises OSError."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        half.write_text(json.dumps(held, indent=1) + "\n", "utf-8")
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def as_json(proposals: Iterable[Proposal], notes: Sequence[str], hint: str, scope: str) -> str:
    """Return everything as one JSON object."""
    told = list(proposals)
    return json.dumps(
        {
            "commands": [each.as_dict() for each in told],
            "diff": entries(told, scope),
            "notes": list(notes),
            "hint": hint,
        },
        indent=1,
        ensure_ascii=False,
        allow_nan=False,
    )
