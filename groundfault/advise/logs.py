"""Reads JSON log lines, by two processes where there is enough to read, and says how far it is."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from itertools import chain, islice
from typing import Final

from groundfault.advise import wording
from groundfault.advise.log_fields import Fields
from groundfault.advise.log_files import BLOCK, Part, blocks_of_part, open_source
from groundfault.advise.progress import Progress
from groundfault.advise.sources import Reading, SourceError
from groundfault.advise.tally import OTHER, LineCounter, Tally

__all__ = ["count_part", "read_logs"]

SMALL: Final = 32 * 2**20
"""Less than this is counted sooner than other processes have begun."""
_AHEAD: Final = 2


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
        sources = [open_source(name) for name in dict.fromkeys(names)]
        for source in sources:
            stack.callback(source.close)
        sizes = [source.size for source in sources]
        known = None if None in sizes else sum(size for size in sizes if size is not None)
        processes = _jobs(jobs, known)
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

        work = parts()
        # Of a pipe nobody knows how much is coming; for a little, no other process is begun.
        first = _here(work if processes == 1 else islice(work, SMALL // BLOCK if known is None else 0), fields)
        rest = stack.enter_context(closing(_by_others(work, fields, processes)))
        try:
            for tally, taken in chain(first, rest):
                total.merge(tally)
                progress.advance(taken, total.lines, total.told)
        except OSError as error:
            raise SourceError(f"a log cannot be read any more: {error}") from None
        except BrokenProcessPool:
            raise SourceError("a process that counted was ended by the system, perhaps for want of memory") from None
    return Reading(total.observed(over_s), [*notes, *_notes(total, fields)], _hint(total, fields))


def _jobs(jobs: int | None, known: int | None) -> int:
    if jobs is not None:
        return jobs
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if known is not None and known < SMALL else min(4, processors)


def _here(parts: Iterator[tuple[Part, int]], fields: Fields) -> Iterator[tuple[Tally, int]]:
    for part, taken in parts:
        yield count_part(part, fields), taken


def _by_others(
    parts: Iterator[tuple[Part, int]], fields: Fields, jobs: int
) -> Generator[tuple[Tally, int], None, None]:
    """Hand out work, a little ahead of what is being done, so that a fast reader does not fill the memory."""
    # Spawned: this process may have threads, of which a fork would take locks but not their owners.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_begin)
    taken_by: dict[Future[Tally], int] = {}
    try:
        for part, taken in parts:
            with _no_interrupts():  # the first ones start processes
                taken_by[pool.submit(count_part, part, fields)] = taken
            if len(taken_by) >= jobs + _AHEAD:
                yield from _done(taken_by)
        while taken_by:
            yield from _done(taken_by)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # a part takes a fraction of a second


def _done(taken_by: dict[Future[Tally], int]) -> Iterator[tuple[Tally, int]]:
    done, _ = wait(taken_by, return_when=FIRST_COMPLETED)
    for each in done:
        yield each.result(), taken_by.pop(each)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back for a moment. Processes that begin meanwhile are never told of it: they end with this one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Begin to count in a process of one's own: leave Ctrl-C to the one that was asked, and end when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, name="groundfault-follow", daemon=True).start()


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
