"""Reads access logs of all kinds and sizes into what was seen, or into a plan, and says how far it is."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from groundfault.lab.replay.documents import count_har, is_har, is_rates, plan_of_rates
from groundfault.lab.replay.lines import LineReader
from groundfault.lab.replay.making import plan_of, warnings_of
from groundfault.lab.replay.plan import Plan, PlanError
from groundfault.lab.replay.seen import Seen
from groundfault.logfiles.crew import counted, jobs_for
from groundfault.logfiles.files import Part, Source, SourceError, blocks_of_part, open_source
from groundfault.logfiles.progress import Progress

__all__ = ["Read", "count_part", "read_logs"]

INSTEAD: Final = "groundfault replay read -"
_WIDE: Final = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_FEW: Final = 0.5


@dataclass(slots=True)
class Read:
    """What came of reading: the plan, what was seen (None for a table of rates), and what a person should know."""

    plan: Plan
    seen: Seen | None
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Opened:
    source: Source
    head: bytes
    lines: int = 0
    parsed: int = 0


def count_part(part: Part, within: tuple[float, float] | None = None) -> Seen:
    """Count one piece of work. Raises OSError if its file cannot be read any more."""
    reader = LineReader(within)
    for block in blocks_of_part(part, reader.too_long):
        reader.count(block)
    return reader.seen


def read_logs(
    names: Sequence[str],
    *,
    within: tuple[float, float] | None = None,
    jobs: int | None = None,
    progress: Progress,
) -> Read:
    """Read files, or standard input for ``-``, once each.

    ``within``: seconds since the epoch that are asked for; None for all. ``jobs``: processes that count, None for as
    many as there are processors, four at most. Raises SourceError if a file cannot be read or nothing is in it, and
    PlanError if what is in it makes no plan.
    """
    with ExitStack() as stack:
        opened = []
        for name in dict.fromkeys(names):
            source = open_source(name, INSTEAD)
            stack.callback(source.close)
            opened.append(_Opened(source, source.peek()))
        for each in opened:
            if each.head[:2] in _WIDE:
                raise SourceError(f"{each.source.name} is {_WIDE[each.head[:2]]}; try: iconv -t UTF-8 FILE | {INSTEAD}")
        tables = [each for each in opened if is_rates(each.head)]
        if tables:
            if len(opened) > 1:
                raise SourceError(f"{tables[0].source.name} is a table of rates, which is read alone")
            return Read(plan_of_rates(tables[0].source), None)
        seen = Seen(within=within)
        _count_all(opened, seen, jobs=jobs, progress=progress, stack=stack)
    return _read_of(opened, seen)


def _count_all(opened: list[_Opened], total: Seen, *, jobs: int | None, progress: Progress, stack: ExitStack) -> None:
    within = total.within
    logs = [each for each in opened if not is_har(each.head)]
    for each in opened:
        if each not in logs:
            _merge(total, each, count_har(each.source, within))
            total.last = None  # the order of several files means nothing
    sizes = [each.source.size for each in logs]
    known = None if None in sizes else sum(size for size in sizes if size is not None)
    stack.enter_context(progress)
    progress.begin(known)
    whose: deque[tuple[_Opened, int]] = deque()

    def parts() -> Iterator[tuple[Part, int]]:
        for each in logs:
            for part, taken, unread in each.source.parts():
                whose.append((each, unread))
                yield part, taken

    before: _Opened | None = None
    made = counted(parts(), partial(count_part, within=within), jobs=jobs_for(jobs, known), known=known)
    for seen, taken in stack.enter_context(closing(made)):
        each, unread = whose.popleft()
        if each is not before:
            total.last, before = None, each
        for _ in range(unread):
            skipped = LineReader()
            skipped.too_long()
            _merge(total, each, skipped.seen)
        _merge(total, each, seen)
        progress.advance(taken, total.lines, total.parsed)


def _merge(total: Seen, each: _Opened, seen: Seen) -> None:
    total.merge(seen, each.source.name, each.lines)
    each.lines += seen.physical
    each.parsed += seen.parsed


def _read_of(opened: list[_Opened], seen: Seen) -> Read:
    notes = [each.source.trouble for each in opened if each.source.trouble]
    for each in opened:
        if not each.head and not each.lines:
            notes.append(f"{each.source.name} is empty")
        elif not each.parsed:
            binary = " (it is binary)" if b"\0" in each.head else ""
            notes.append(f"{each.source.name}: none of its {each.lines:,} lines is a request{binary}")
    try:
        plan, strays = plan_of(seen)
    except PlanError as error:
        places = [f"{name}:{number}: {why}" for name, number, why in seen.places]
        raise PlanError("; ".join([str(error), *notes, *places])) from None
    if seen.lines and seen.parsed < _FEW * seen.lines:
        notes.append(f"only {seen.parsed / seen.lines:.1%} of the lines are requests; is it an access log?")
    return Read(plan, seen, [*notes, *warnings_of(seen, plan, strays)])
