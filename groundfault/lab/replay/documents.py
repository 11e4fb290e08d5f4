"""Reads what is one document rather than lines: a HAR of a browser, and a table of rates."""

import csv
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from io import StringIO
from itertools import pairwise
from math import floor, isfinite
from typing import Any, Final

from groundfault.lab.curves import Points
from groundfault.lab.replay.lines import LineReader
from groundfault.lab.replay.plan import MOST_RPS, MOST_SECONDS, Plan, Template
from groundfault.lab.replay.records import Told
from groundfault.lab.replay.seen import Seen, Why
from groundfault.logfiles.files import BROKEN, Source, SourceError

__all__ = ["MOST_BYTES", "count_har", "is_har", "is_rates", "plan_of_rates"]

MOST_BYTES: Final = 512 * 2**20
_MOST_RATES_BYTES: Final = 64 * 2**20
_FIRST: Final = "t"
_SECOND: Final = "rps"
_DEFAULT: Final = "GET /"


def is_har(head: bytes) -> bool:
    """Whether a file that begins so is a HAR: an object whose first field is a log with fields of its own."""
    packed = b"".join(head[:256].removeprefix(b"\xef\xbb\xbf").split())
    return packed.startswith(b'{"log":{"')


def is_rates(head: bytes) -> bool:
    """Whether a file that begins so is a table of rates."""
    line = head.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].decode("latin-1")
    return [cell.strip().strip('"').lower() for cell in line.split(",")][:2] == [_FIRST, _SECOND]


def _whole(source: Source, most: int, kind: str) -> bytes:
    held = bytearray()
    try:
        while len(held) <= most and (chunk := source.read(2**20)):
            held += chunk
    except BROKEN as error:
        raise SourceError(f"{source.name} ends early ({error}); a {kind} is of use only as a whole") from None
    if len(held) > most:
        raise SourceError(f"{source.name}: a {kind} may have at most {most >> 20} MiB")
    return bytes(held)


def count_har(source: Source, within: tuple[float, float] | None) -> Seen:
    """Count the entries of a HAR. An entry's place is its number. Raises SourceError if it is none."""
    raw = _whole(source, MOST_BYTES, "HAR").removeprefix(b"\xef\xbb\xbf")
    try:
        entries = _har_decoder()(raw)["log"]["entries"]
    except (ValueError, LookupError, TypeError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        raise SourceError(f"{source.name} begins as a HAR, but is none: log.entries must be a list")
    reader = LineReader(within)
    for number, entry in enumerate(entries, start=1):
        told = _told(entry)
        if told is None:
            reader.seen.refuse(Why.NO_REQUEST, number)
        else:
            reader.count_told(told, number)
    reader.flush(len(entries))
    return reader.seen


def _told(entry: Any) -> Told | None:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("request"), Mapping):
        return None
    request, response = entry["request"], entry.get("response")
    method, url = request.get("method"), request.get("url")
    if not isinstance(method, str) or not isinstance(url, str):
        return None
    return Told(
        entry.get("startedDateTime"), method, url, response.get("status") if isinstance(response, Mapping) else None
    )


def _har_decoder() -> Callable[[bytes], Any]:
    """Return msgspec's decoder of the few fields that are needed: bodies and headers are passed over unread."""
    try:
        import msgspec  # noqa: PLC0415  part of an extra; without it, it only takes more memory
    except ImportError:
        return json.loads
    request = msgspec.defstruct("Request", [("method", Any, None), ("url", Any, None)])
    response = msgspec.defstruct("Response", [("status", Any, None)])
    entry = msgspec.defstruct(
        "Entry",
        [("request", request | None, None), ("response", response | None, None), ("startedDateTime", Any, None)],
    )
    log = msgspec.defstruct("Log", [("entries", list[entry])])  # type: ignore[valid-type]  # made a line above
    decode = msgspec.json.Decoder(msgspec.defstruct("Har", [("log", log)])).decode

    def decoded(raw: bytes) -> Any:
        try:
            return msgspec.to_builtins(decode(raw))
        except msgspec.ValidationError:  # an entry that is none must not cost the others
            return json.loads(raw)

    return decoded


def plan_of_rates(source: Source) -> Plan:
    """Return the plan of a table ``t,rps[,weights]``. Raises SourceError, naming the line, for what makes no sense.

    ``t``: seconds, or dates with times, that ascend; a rate holds at its moment and goes straight to the next.
    ``weights``: ``GET /lobby=3;GET /lineup/{n}=1``, from that line on; else those before hold, at first ``GET /``.
    """
    text = _whole(source, _MOST_RATES_BYTES, "table of rates").removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    times: list[float] = []
    rates: list[float] = []
    changes: list[tuple[float, dict[str, float]]] = []
    start: datetime | None = None
    rows = csv.reader(StringIO(text))
    next(rows)
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        place = f"{source.name}:{rows.line_num}"
        if len(row) < 2:  # noqa: PLR2004  a time and a rate
            raise SourceError(f"{place}: there must be a time and a rate, not {row[0]!r:.60}")
        moment, dated = _moment(row[0].strip(), place)
        start = start or dated
        if times and moment < times[-1]:
            raise SourceError(f"{place}: t must be at least {times[-1]:g}, the one before it, not {moment:g}")
        times.append(moment)
        rates.append(_rate(row[1].strip(), place))
        if len(row) > 2 and row[2].strip():  # noqa: PLR2004  the weights come third
            changes.append((moment, _weights(row[2], place)))
    if len(times) < 2 or times[-1] - times[0] < 1:  # noqa: PLR2004  a line has two ends
        raise SourceError(f"{source.name}: there must be at least two lines of rates, a second apart")
    if times[-1] - times[0] > MOST_SECONDS:
        raise SourceError(f"{source.name}: t must span at most {MOST_SECONDS} s, not {times[-1] - times[0]:g}")
    return _plan(times, rates, changes, start)


def _moment(text: str, place: str) -> tuple[float, datetime | None]:
    try:
        value = float(text)
    except ValueError:
        try:
            dated = datetime.fromisoformat(text)
        except ValueError:
            raise SourceError(f"{place}: t must be seconds or a date with a time, not {text!r:.40}") from None
        dated = dated if dated.tzinfo else dated.replace(tzinfo=UTC)
        return dated.timestamp(), dated
    if not isfinite(value):
        raise SourceError(f"{place}: t must be a finite number of seconds, not {text!r:.40}")
    return value, None


def _rate(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= MOST_RPS:
        raise SourceError(f"{place}: rps must be a number from 0 to {MOST_RPS:g}, not {text!r:.40}")
    return value


def _weights(text: str, place: str) -> dict[str, float]:
    reader = LineReader()
    weights: dict[str, float] = {}
    for part in filter(None, (each.strip() for each in text.split(";"))):
        request, found, weight = part.rpartition("=")
        method, _, path = request.strip().rpartition(" ")
        # What was folded before, by a person or by us, stays as it is.
        route = reader.route_of(method or "GET", path.replace("{n}", "0").replace("{id}", "0-0")) if found else None
        try:
            value = float(weight)
        except ValueError:
            value = float("nan")
        if route is None or not 0 <= value <= MOST_RPS:
            raise SourceError(f"{place}: weights must be as GET /lobby=3;GET /lineup/{{n}}=1, not {part!r:.60}")
        weights[route] = weights.get(route, 0.0) + value
    if not any(weights.values()):
        raise SourceError(f"{place}: one of the weights must be above 0")
    return weights


def _plan(
    times: list[float], rates: list[float], changes: list[tuple[float, dict[str, float]]], start: datetime | None
) -> Plan:
    began = times[0]
    curve = Points(tuple(zip((at - began for at in times), rates, strict=True)))
    rps = _by_second(curve)
    names = sorted({name for _, weights in changes for name in weights} or {_DEFAULT})
    index = {name: at for at, name in enumerate(names)}
    mix, held, at = [], changes[0][1] if changes else {_DEFAULT: 1.0}, 0
    for minute in range(-(-len(rps) // 60)):
        while at < len(changes) and floor(changes[at][0] - began) <= 60 * minute:
            held, at = changes[at][1], at + 1
        mix.append({index[name]: weight for name, weight in held.items() if weight})
    templates = [Template(method=name.partition(" ")[0], path=name.partition(" ")[2]) for name in names]
    return Plan(start=start, rps=rps, templates=templates, mix=mix, read={"lines": len(times), "parsed": len(times)})


def _by_second(curve: Points) -> list[float]:
    """Return the mean rate of each second. One pass: a table may have as many lines as seconds."""
    seconds = max(1, floor(curve.total_s))
    totals = [0.0] * seconds
    for (t0, r0), (t1, r1) in pairwise(curve.points):
        for second in range(floor(t0), min(seconds, floor(t1) + 1)):
            a, b = max(t0, float(second)), min(t1, second + 1.0)
            if a < b:
                totals[second] += (r0 + (r1 - r0) * ((a + b) / 2 - t0) / (t1 - t0)) * (b - a)
    return [round(value, 4) for value in totals]
