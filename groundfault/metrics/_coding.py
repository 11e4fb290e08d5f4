"""How a report is written to a file: compact JSON, and nothing that could be run.

A first line holds the version of the format and a checksum of what follows.
Lists instead of objects where there are many of a kind; what is as usual at the end of a list is left out.
What the checksum fits was written as below, so it is not looked at value by value: that would take most of the time.
"""

import json
from functools import lru_cache
from itertools import chain
from typing import Any, Final, cast
from zlib import crc32

from groundfault._histogram import Histogram
from groundfault.metrics.report import SHOWN, CommandReport, ProcessInfo, Report, ServerReport, StoreReport

__all__ = ["VERSION", "CodingError", "decode", "encode", "encode_commands", "join", "parse", "plain"]

VERSION: Final = 1

_dump: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


class CodingError(ValueError):
    """This is no report, or one in a format of another version. The message says which."""


def encode(report: Report, **more: Any) -> bytes:
    """Return the bytes of a report. ``more``: fields beside it, of what JSON can hold."""
    commands = encode_commands([plain(command) for command in report.commands.values()])
    return join(report, commands, edges=[[*edge, times] for edge, times in report.edges.items()], **more)


def join(report: Report, commands: str, **more: Any) -> bytes:
    """Return the bytes of a report whose commands have been encoded."""
    head = {
        "processes": [
            [each.pid, each.service, round(each.written_at, 3), *([each.settings] if each.settings else [])]
            for each in report.processes
        ],
        "servers": [_server(server) for server in report.servers.values()],
        "stores": [
            [each.store, each.versions, each.age_s, each.unreachable, each.rejected] for each in report.stores.values()
        ],
        "errors": report.internal_errors,
        **more,
    }
    body = f'{_dump(head)[:-1]},"commands":[{commands}]}}\n'.encode()
    return f'{{"version":{VERSION},"crc32":{crc32(body)}}}\n'.encode() + body


_USUAL: Final = [1.0, 0, 0, {}, {}, {}]


def plain(command: CommandReport) -> list[Any]:
    """Return one command as JSON can hold it."""
    durations = {outcome: _histogram(taken) for outcome, taken in command.durations.items()}
    said = [command.resource, command.command, command.calls, durations, command.states, command.active, command.limit]
    said.append([command.settings.get(name) for name in SHOWN] if command.settings else 0)
    rare = [command.admitted_share, command.saturated, command.unhealthy, command.fallbacks, command.moves]
    rare.append(command.modes)
    return said if rare == _USUAL else said + rare


def encode_commands(commands: list[list[Any]]) -> str:
    """Return commands as text: many at once for the price of a few one by one."""
    return _dump(commands)[1:-1]


def _histogram(taken: Histogram) -> list[float]:
    return [taken.sum_s, *chain.from_iterable(taken.buckets.items())]


def _server(server: ServerReport) -> list[Any]:
    return [
        server.service,
        [[*key, times] for key, times in server.requests.items()],
        _histogram(server.waits),
        [[*edge, *sums] for edge, sums in server.callers.items()],
        *(server.abandoned, server.active, server.shedding, server.stepped_aside, server.signals),
        *(server.backlog, server.backlog_limit, server.threshold_s, server.deadline_s, server.modes),
    ]


def parse(data: bytes) -> dict[str, Any]:
    """Return what the bytes say. Raises CodingError."""
    head, _, body = data.partition(b"\n")
    try:
        first = json.loads(head[:_MAX_HEAD])
        version, checksum = first["version"], first["crc32"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CodingError("it is no report") from error
    if version != VERSION:
        raise CodingError(f"its format has version {str(version)[:_MAX_SHOWN]!r}, not {VERSION}")
    if crc32(body) != checksum:
        raise CodingError("it is damaged: its checksum is another")
    try:
        return cast("dict[str, Any]", json.loads(body))
    except RecursionError as error:
        raise CodingError("it is no report: it is nested too deeply") from error


_MAX_HEAD: Final = 1000
_MAX_SHOWN: Final = 20


def decode(said: dict[str, Any]) -> Report:
    """Return the report that was parsed. Raises CodingError."""
    try:
        return _decoded(said)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CodingError(f"it is no report: {type(error).__name__}") from error


def _decoded(said: dict[str, Any]) -> Report:
    report = Report(
        servers={each[0]: _decoded_server(*each) for each in said["servers"]},
        stores={each[0]: StoreReport(*each[:5]) for each in said["stores"]},
        internal_errors=dict(said["errors"]),
        processes=[ProcessInfo(*each[:4]) for each in said["processes"]],
    )
    for each in said["commands"]:
        report.add_command(_decoded_command(*each))
    if "edges" in said:
        report.edges = {(caller, resource, outcome): times for caller, resource, outcome, times in said["edges"]}
    else:
        report.draw_edges(report.processes[0].service)
    return report


def _decoded_command(  # noqa: PLR0917  in the order in which they are written
    resource: str,
    command: str,
    calls: dict[str, int],
    durations: dict[str, Any],
    states: dict[str, int],
    active: int,
    limit: int | None,
    settings: list[float | None] | int,
    admitted_share: float = 1.0,
    saturated: int = 0,
    unhealthy: int = 0,
    fallbacks: dict[str, int] | None = None,
    moves: dict[str, int] | None = None,
    modes: dict[str, int] | None = None,
    *_later: Any,
) -> CommandReport:
    for outcome, flat in durations.items():
        durations[outcome] = _decoded_histogram(flat)
    return CommandReport(
        *(resource, command, calls, durations, fallbacks or {}, moves or {}, states, active, limit),
        *(admitted_share, saturated, unhealthy, _decoded_settings(settings), modes or {}),
    )


def _decoded_settings(said: list[float | None] | int) -> dict[str, float]:
    return _named_settings(tuple(said)) if isinstance(said, list) else {}


@lru_cache(maxsize=1024)
def _named_settings(values: tuple[float | None, ...]) -> dict[str, float]:
    """Return settings by name: the same for all commands that have the same ones, for nobody changes it."""
    return {name: value for name, value in zip(SHOWN, values, strict=False) if value is not None}


def _decoded_histogram(flat: list[Any]) -> Histogram:
    made = Histogram.__new__(Histogram)  # thousands of these are made for a scrape
    made.sum_s = flat[0]
    made.buckets = dict(zip(flat[1::2], flat[2::2], strict=True))
    return made


_GAUGES: Final = 9  # what a later release adds behind them is passed over


def _decoded_server(
    service: str,
    requests: list[Any],
    waits: list[Any],
    callers: list[Any],
    abandoned: int,
    *gauges: Any,
) -> ServerReport:
    known = {(reason, criticality): times for reason, criticality, times in requests}
    sums = {(caller, reason): (times, wait_s) for caller, reason, times, wait_s in callers}
    return ServerReport(service, known, _decoded_histogram(waits), sums, abandoned, *gauges[:_GAUGES])
