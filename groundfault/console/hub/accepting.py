"""From the bytes that somebody sent to a report that can do no harm: limited in size, checked, and bounded in names.

A checksum says that bytes came as they were written. It says nothing of who wrote them, so here every number is looked
at, unlike where a process reads its own run directory.
"""

import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Any, Final, NamedTuple, TypeVar

from groundfault._histogram import BOUNDS_S, Histogram
from groundfault.breaker.registry import OTHER
from groundfault.metrics._bounds import bounded
from groundfault.metrics._coding import CodingError, decode, parse
from groundfault.metrics.report import UNKNOWN, CommandReport, Report

__all__ = ["LARGEST", "LARGEST_SENT", "Arrival", "UnreadableError", "accepted", "is_host", "unpacked"]

LARGEST_SENT: Final = 2 * 2**20
"""Bytes of a report, compressed. Two thousand busy commands take less than half of it."""

LARGEST: Final = 16 * 2**20
"""Bytes of a report when it is unpacked."""

LONGEST_NAME: Final = 200
"""Characters of a name; the rest is cut off."""

MAX_PROCESSES: Final = 2000
_MAX_KINDS: Final = 40  # outcomes, states, moves, modes: the vocabulary has fewer
_MOST_VERSIONS: Final = 100
_MOST_UNKNOWN: Final = 3
_MAX_NUMBER: Final = 2**63
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_BUCKETS: Final = frozenset(range(len(BOUNDS_S) + 1))
_INT: Final = frozenset({int})
_NUMBER: Final = frozenset({int, float})
_LATEST: Final = 253402300799.0  # the last second of the year 9999
_GZIP: Final = 31  # the window of zlib that means a gzip header

K = TypeVar("K")


class UnreadableError(ValueError):
    """What was sent is no report that this hub can read. ``host``: who says to have sent it, if that much is known."""

    def __init__(self, why: str, host: str | None = None) -> None:
        super().__init__(why)
        self.host = host


class Arrival(NamedTuple):
    """One report of one source. ``sent_at``: by the sender's clock, None if it does not say.

    ``unknown``: what its sender could not read or does not know, a few lines.
    """

    host: str
    service: str
    directory: str
    release: str | None
    sent_at: float | None
    report: Report
    unknown: tuple[str, ...] = ()


def is_host(name: object) -> bool:
    """Return whether a host may be called that."""
    return isinstance(name, str) and _HOST.fullmatch(name) is not None


def unpacked(data: bytes, largest: int = LARGEST) -> bytes:
    """Return what gzip has compressed; what is not compressed as it is. Raises UnreadableError."""
    if not data.startswith(b"\x1f\x8b"):
        if len(data) > largest:
            raise UnreadableError(f"a report must have at most {largest} bytes")
        return data
    unpacking = zlib.decompressobj(_GZIP)
    try:
        text = unpacking.decompress(data, largest)
    except zlib.error:
        raise UnreadableError("the body is damaged: gzip cannot unpack it") from None
    if unpacking.unconsumed_tail:
        raise UnreadableError(f"a report must have at most {largest} bytes when it is unpacked")
    if not unpacking.eof:
        raise UnreadableError("the body is damaged: it ends before it is whole")
    return text


def accepted(data: bytes) -> Arrival:
    """Return the report that was sent, compressed or not. Raises UnreadableError."""
    text = unpacked(data)
    try:
        said = parse(text)
    except (CodingError, ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, CodingError) else "it is no report"
        raise UnreadableError(why, _sender(text)) from None
    if not isinstance(said, dict):
        raise UnreadableError("it is no report")
    host = said.get("host")
    if not isinstance(host, str) or not is_host(host):
        raise UnreadableError(f"host must match {_HOST.pattern}, not {str(host)[:64]!r}")
    try:
        report = decode(said)
        check(report)
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise UnreadableError(str(error) if isinstance(error, CodingError) else "it is no report", host) from None
    named = _first_text(said.get("title"), *(process.service for process in report.processes))
    return Arrival(
        host,
        clean(named or UNKNOWN),
        clean(_first_text(said.get("directory")) or ""),
        clean(released) if (released := _first_text(said.get("release"))) else None,
        _moment(said.get("sent_at")),
        _named_well(bounded(report)),
        _unknown(said),
    )


def _unknown(said: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the sender says that it does not know. What makes no sense says nothing."""
    unread, unknown = said.get("unread"), said.get("unknown")
    lines = [f"{name} says nothing: {why}" for name, why in unread.items()] if isinstance(unread, dict) else []
    lines += [line for line in unknown if isinstance(line, str)] if isinstance(unknown, list) else []
    more = len(lines) - _MOST_UNKNOWN
    return (*map(clean, lines[:_MOST_UNKNOWN]), *([f"and {more} things more"] if more > 0 else []))


def _moment(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < _LATEST else None


def _first_text(*values: object) -> str | None:
    return next((value for value in values if isinstance(value, str) and value), None)


def _sender(text: bytes) -> str | None:
    """Return who sent a report in a format of another version, if it says so where this one would."""
    try:
        said = json.loads(text.partition(b"\n")[2])
    except (ValueError, RecursionError):
        return None
    host = said.get("host") if isinstance(said, dict) else None
    return host if isinstance(host, str) and is_host(host) else None


# --- numbers ----------------------------------------------------------------------------------------------------------


def check(report: Report) -> None:
    """Raise CodingError unless every value is of the kind that it must be, and none is beyond all reason."""
    counts: list[Any] = []
    buckets: list[Any] = []
    numbers: list[Any] = []
    for command in report.commands.values():
        _check_command(command, counts, numbers)
        for histogram in command.durations.values():
            _see(histogram, buckets, counts, numbers)
    for server in report.servers.values():
        counts += server.requests.values()
        counts += server.signals.values()
        counts += server.modes.values()
        counts += (server.abandoned, server.active, server.shedding, server.stepped_aside)
        counts += (each for each in (server.backlog, server.backlog_limit) if each is not None)
        numbers += (each for each in (server.threshold_s, server.deadline_s) if each is not None)
        for times, wait_s in server.callers.values():
            counts.append(times)
            numbers.append(wait_s)
        _see(server.waits, buckets, counts, numbers)
    for store in report.stores.values():
        counts += store.versions.values()
        counts += (store.unreachable, store.rejected)
        numbers += (each for each in (store.age_s,) if each is not None)
    counts += report.edges.values()
    counts += report.internal_errors.values()
    _check_processes(report, counts, numbers)
    if not set(map(type, counts)) <= _INT or min(counts, default=0) < 0 or max(counts, default=0) >= _MAX_NUMBER:
        raise CodingError("it is no report: a count must be a whole number from 0 to 2^63")
    if not set(map(type, numbers)) <= _NUMBER or not all(map(math.isfinite, numbers)):
        raise CodingError("it is no report: a number must be finite")
    if max(map(abs, numbers), default=0) >= _MAX_NUMBER:
        raise CodingError("it is no report: a number must be below 2^63")
    if not set(buckets) <= _BUCKETS:
        raise CodingError("it is no report: a histogram has buckets that there are not")


def _check_command(command: CommandReport, counts: list[Any], numbers: list[Any]) -> None:
    kinds: list[dict[str, Any]] = [command.calls, command.durations, command.fallbacks, command.moves]
    kinds += (command.states, command.modes)
    if max(map(len, kinds)) > _MAX_KINDS:
        raise CodingError(f"it is no report: a command must have at most {_MAX_KINDS} outcomes, states or modes")
    if max(map(len, chain.from_iterable(kinds)), default=0) > LONGEST_NAME:
        raise CodingError(f"it is no report: an outcome, state or mode must have at most {LONGEST_NAME} characters")
    counts += command.calls.values()
    counts += command.states.values()
    counts += command.fallbacks.values()
    counts += command.moves.values()
    counts += command.modes.values()
    counts += (command.active, command.saturated, command.unhealthy)
    if command.limit is not None:
        counts.append(command.limit)
    numbers.append(command.admitted_share)
    numbers += command.settings.values()


def _see(histogram: Histogram, buckets: list[Any], counts: list[Any], numbers: list[Any]) -> None:
    buckets += histogram.buckets
    counts += histogram.buckets.values()
    numbers.append(histogram.sum_s)


def _check_processes(report: Report, counts: list[Any], numbers: list[Any]) -> None:
    if len(report.processes) > MAX_PROCESSES:
        raise CodingError(f"a report must have at most {MAX_PROCESSES} processes, not {len(report.processes)}")
    for process in report.processes:
        counts.append(process.pid)
        numbers.append(process.written_at)
        named: Any = process.service  # nobody has looked at it yet, whatever its type says
        if not (named is None or isinstance(named, str)):
            raise CodingError("it is no report: a service must be a text")
        for store, version, age_s in process.settings:
            given: list[Any] = [store, "" if version is None else version]
            if not all(isinstance(each, str) for each in given):
                raise CodingError("it is no report: a store's version must be a text")
            numbers += (each for each in (age_s,) if each is not None)


# --- names ------------------------------------------------------------------------------------------------------------


def clean(name: object) -> str:
    """Return a name as it is kept and shown: of limited length, and without what a terminal might obey."""
    text = str(name)[:LONGEST_NAME]
    return text if text.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in text)


def _is_clean(names: Iterable[object]) -> bool:
    return all(isinstance(name, str) and len(name) <= LONGEST_NAME and name.isprintable() for name in names)


def _named_well(report: Report) -> Report:
    """Return the report with clean names, which nearly every one has anyway."""
    if not _is_clean(chain.from_iterable(report.commands)):
        commands, report.commands = report.commands, {}
        for command in commands.values():
            command.resource, command.command = clean(command.resource), clean(command.command)
            report.add_command(command)
    for server in list(report.servers.values()):
        server.callers = _cleaned(server.callers)
        server.requests = _cleaned(server.requests)
        server.signals, server.modes = _cut(server.signals), _cut(server.modes)
    if not _is_clean(report.servers):
        servers, report.servers = report.servers, {}
        for server in servers.values():
            server.service = clean(server.service)
            report.servers.setdefault(server.service, server)
    for store in report.stores.values():
        store.versions = _cut(store.versions)
    if not _is_clean(report.stores):
        stores, report.stores = report.stores, {}
        for store in stores.values():
            store.store = clean(store.store)
            report.stores.setdefault(store.store, store)
    report.edges = _cleaned(report.edges)
    report.internal_errors = {clean(where): times for where, times in report.internal_errors.items()}
    return report


def _cut(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the same under clean names, a hundred of them at most."""
    return {clean(name): times for name, times in islice(counts.items(), _MOST_VERSIONS)}


def _cleaned(counts: Mapping[K, Any]) -> dict[K, Any]:
    """Return the same under keys of clean names. Of two that become one, the last counts."""
    keys: Any = counts  # tuples of names, as long as they may be
    if _is_clean(chain.from_iterable(keys)):
        return dict(counts)
    return {tuple(map(clean, key)): counts[key] for key in keys}  # type: ignore[misc]  # as above


class Names:
    """The commands of one service that are told apart: the first ``most`` that were seen; others are ``_other``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[tuple[str, str], tuple[str, str]] = {}

    def fold(self, report: Report) -> bool:
        """Give every command the one key by which it is known here. Return whether some are counted together."""
        folded = False
        commands, report.commands = report.commands, {}
        for key, command in commands.items():
            known = self._known.get(key)
            if known is None:
                if len(self._known) >= self._most and key != (OTHER, OTHER):
                    known, folded = (OTHER, OTHER), True
                else:
                    known = self._known[key] = key
            # One text for all hosts: fifty times two hundred names would be kept fifty times.
            command.resource, command.command = known
            if known in report.commands:
                report.commands[known].add(command)
            else:
                report.commands[known] = command
        return folded
