"""Reads JSON log lines, by two processes where there is enough to read, and says how far it is."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Final

from groundfault.advise import wording
from groundfault.advise.log_fields import Fields
from groundfault.advise.sources import Reading
from groundfault.advise.tally import OTHER, LineCounter, Tally
from groundfault.logfiles.crew import counted, jobs_for
from groundfault.logfiles.files import Part, blocks_of_part, open_source
from groundfault.logfiles.progress import Progress

__all__ = ["count_part", "read_logs"]

_UNPACKED: Final = "groundfault advise --log -"


def count_part(part: Part, fields: Fields) -> Tally:
    """Count one piece of work. Raises OSError if its file cannot be read any more."""
    counter = LineCounter(fields)

    def too_long() -> None:
        counter.tally.unread += 1
        counter.tally.lines += 1

    for block in blocks_of_part(part, too_long):
        counter.count(block)
    return counter.tally


def read_logs(
    names: Sequence[str], fields: Fields, *, over_s: float | None, jobs: int | None, progress: Progress
) -> Reading:
    """Read files, or standard input for ``-``, and return what they say.

    ``over_s``: how long they cover, for logs without times. ``jobs``: processes that count, None for as many as there
    are processors, four at most. Raises SourceError if a file cannot be read.
    """
    total, notes = Tally(), []
    with ExitStack() as stack:
        sources = [open_source(name, _UNPACKED) for name in dict.fromkeys(names)]
        for source in sources:
            stack.callback(source.close)
        sizes = [source.size for source in sources]
        known = None if None in sizes else sum(size for size in sizes if size is not None)
        stack.enter_context(progress)
        progress.begin(known)

        def parts() -> Iterator[tuple[Part, int]]:
            for source in sources:
                for part, taken, unread in source.parts():
                    total.unread += unread
                    total.lines += unread
                    yield part, taken
                if source.trouble:
                    notes.append(source.trouble)

        made = counted(parts(), partial(count_part, fields=fields), jobs=jobs_for(jobs, known), known=known)
        for tally, taken in stack.enter_context(closing(made)):
            total.merge(tally)
            progress.advance(taken, total.lines, total.told)
    return Reading(total.observed(over_s), [*notes, *_notes(total, fields)], _hint(total, fields))


def _notes(total: Tally, fields: Fields) -> list[str]:
    """Say what became of lines and calls that are not in the advice."""
    other = total.lines - total.told - total.unparsed - total.unread - total.unclear
    resource, command, duration = fields.needed
    nameless = sum(sum(buckets.values()) for buckets in total.cells.get((OTHER, OTHER, None), {}).values())
    lines = f"of {wording.count(total.lines)} lines"
    calls = f"of {wording.count(total.told)} calls"
    said = (
        (total.unparsed, f"{lines}: no JSON, left out. The first: {'; '.join(total.samples)}"),
        (total.unread, f"{lines}: too long to be looked at"),
        (total.unclear, f"{lines}: a command, but no usable {duration} or outcome"),
        (other, f"{lines}: nothing of a call, for want of {resource}, {command} or {duration}"),
        (total.assumed, f"{calls}: without an outcome, counted as successes"),
        (nameless, f"{calls}: of more commands than can be told apart; there is no advice on those"),
        (total.folded - nameless, f"{calls}: counted as of the segment 'other', for there are too many segments"),
        (total.sampled, f"{calls}: each stands for others that were not logged; in the rates they all count"),
        (total.timeless if total.tracks else 0, f"{calls}: without a time, so they do not count for the rates"),
    )
    return [f"{wording.count(times)} {text}" for times, text in said if times > 0]


def _hint(total: Tally, fields: Fields) -> str:
    if total.told:
        return ""
    example = ", ".join(f'"{name}": …' for name in fields.needed)
    return f"a line should look like {{{example}}}; --fields maps other names"
