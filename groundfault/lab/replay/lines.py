"""Reads access log lines of the usual kinds into counts: a common line in about two microseconds.

Two quotes part such a line into what is before its request, the request and what is after. Times repeat within a
second and requests all the time, so both are looked up rather than understood again. What does not fit goes a slow
and careful way.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from math import floor
from typing import Any, Final

from groundfault.lab.replay.folding import METHODS
from groundfault.lab.replay.records import Told, plain_names, told_by
from groundfault.lab.replay.seen import Seen, Why
from groundfault.logfiles.times import moment_of

__all__ = ["LineReader"]

_STAMP: Final = 29
"""Bytes of ``[23/Nov/2026:17:00:00 +0000] ``."""
_MONTHS: Final = {
    name: number for number, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), start=1)
}
_TIME: Final = re.compile(rb"\[?(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)(?:\] ?)?\Z")
_COMMON: Final = re.compile(
    rb"\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}"
    rb"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d))\]"
    rb' "((?:[^"\\]|\\.)*)" ([1-5]\d\d)(?= |\Z)'
)
_DATED: Final = re.compile(
    rb"\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)\]? "
    rb'[^"]*"([A-Z]{3,7} [^"\\]* HTTP/[\d.]+)" ([1-5]\d\d)(?= |\Z)'
)
"""A time at the start, as Python's logging puts it before uvicorn's lines."""
_TIMELESS: Final = re.compile(rb'"[A-Z]{3,7} [^" ]+ HTTP/[\d.]+" [1-5]\d\d(?= |\Z)')
_STATUS: Final = re.compile(rb" [1-5]\d\d[ \r]?\Z")
_NUMBERS: Final = re.compile(rb"/\d+(?=[/?; ]|\Z)")
_NUMBERS_SAID: Final = re.compile(r"/[0-9]+(?=[/?;]|\Z)")
_ESCAPED: Final = re.compile(rb'\\(?:x([0-9A-Fa-f]{2})|(["\\]))')
_MOST_KNOWN: Final = 65_536
_LONGEST_KNOWN: Final = 512
_MOST_SHAPES: Final = 1_000
_MOST_NAMES: Final = 200
_LEAST_SAMPLE: Final = 1e-6


class LineReader:
    """Counts blocks of lines into ``seen``."""

    def __init__(self, within: tuple[float, float] | None = None) -> None:
        self.seen = Seen(within=within)
        self._routes: dict[bytes, str] = {}
        self._folded: dict[bytes, str] = {}
        self._said: dict[str, str] = {}
        self._shapes: dict[tuple[str, ...], tuple[str, str, str, str] | None] = {}
        self._moments: dict[bytes, tuple[int, int] | None] = {}
        self._stems: dict[str, tuple[int, int]] = {}
        self._seconds: dict[int, int] = defaultdict(int)
        self._minutes: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._loads = _loads()

    def too_long(self) -> None:
        """Count a line that is too long to be looked at."""
        self.seen.physical += 1
        self.seen.refuse(Why.TOO_LONG, self.seen.physical)

    def count(self, block: bytes) -> None:
        """Count every line of a block."""
        lines, seen = block.split(b"\n"), self.seen
        if block.lstrip()[:1] == b"{":
            for number, line in enumerate(lines, start=seen.physical + 1):
                self._read_slowly(line, number)
        else:
            self._read_fast(lines)
        self.flush(len(lines))

    def flush(self, lines: int) -> None:
        """Put into ``seen`` what was counted of so many lines."""
        self.seen.physical += lines
        self.seen.add(self._seconds, self._minutes)
        self._seconds.clear()
        self._minutes.clear()

    def _read_fast(self, lines: list[bytes]) -> None:  # noqa: C901  as below
        # One loop that calls nothing of ours for most lines: each call would cost as much as the line itself.
        seconds, routes, seen = self._seconds, self._routes, self.seen
        within, elsewhere = seen.within, dict[bytes, int]()
        wanted = dict[bytes, int]()
        statuses = wanted
        stamp, second, zone, run, parsed = b"", 0, 0, 0, 0
        counts: dict[str, int] = {}
        for at, line in enumerate(lines):
            try:
                head, request, rest = line.split(b'"', 2)
            except ValueError:
                self._read_slowly(line, seen.physical + at + 1)
                continue
            if head[-_STAMP:] != stamp:
                moment = self._moment(head[-_STAMP:])
                if moment is None:
                    self._read_slowly(line, seen.physical + at + 1)
                    continue
                seconds[second] += run
                parsed += run
                run = 0
                stamp = head[-_STAMP:]
                second, zone = moment
                seen.zones[zone] += 1
                seen.follow(second, seen.physical + at + 1)
                counts = self._minutes[second // 60]
                if within is not None:
                    statuses = wanted if within[0] <= second < within[1] else elsewhere
            status = rest[:5]
            if status in statuses:
                route = routes.get(request)
                if route is None:
                    route = self._route(request)
                if route is not None:
                    counts[route] += 1
                    statuses[status] += 1
                    run += 1
                    continue
            elif _STATUS.match(status):
                route = routes.get(request) or self._route(request)
                if route is not None:
                    counts[route] += 1
                    statuses[status] = 1
                    run += 1
                    continue
            self._read_slowly(line, seen.physical + at + 1)
        seconds[second] += run
        parsed += run
        seconds.pop(0, None)  # before the first time there was none to count for
        seen.parsed += parsed
        seen.lines += parsed
        for status, times in wanted.items():
            seen.statuses[status.strip().decode("ascii")] += times

    def _moment(self, stamp: bytes) -> tuple[int, int] | None:
        """Return the second that a common time names and the minutes of its zone; None for what is no such time."""
        if stamp in self._moments:
            return self._moments[stamp]
        if len(self._moments) >= _MOST_KNOWN:
            self._moments.clear()
        moment = None
        found = _TIME.match(stamp)
        if found is not None:
            day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = found.groups()
            zone = (int(zone_hours) * 60 + int(zone_minutes)) * (-1 if sign == b"-" else 1)
            try:
                # A leap second is one more of the second before it.
                local = datetime(
                    int(year), _MONTHS[month], int(day), int(hour), int(minute), min(int(second), 59), tzinfo=UTC
                )
            except (LookupError, ValueError):
                local = None
            if local is not None and 2000 < int(year) < 5000 and abs(zone) <= 840:  # noqa: PLR2004  as of other times; +1400
                moment = int(local.timestamp()) - zone * 60, zone
        self._moments[stamp] = moment
        return moment

    def _route(self, request: bytes) -> str | None:
        """Return method and template of a request line; None for what is none, or no common one."""
        parts = request.split(b" ")
        if len(parts) != 3 or not parts[2].startswith(b"HTTP/") or b"\\" in request:  # noqa: PLR2004  method, target, version
            return None
        # Most of what varies are numbers: without them, it is mostly known.
        bare = _NUMBERS.sub(b"/0", b" ".join(parts[:2]))
        route = self._folded.get(bare)
        if route is None:
            route = self.route_of(parts[0].decode("latin-1"), parts[1].decode("utf-8", "replace"))
            if route is None:
                return None
            if len(self._folded) >= _MOST_KNOWN:
                self._folded.clear()
            if len(bare) <= _LONGEST_KNOWN:
                self._folded[bare] = route
        elif bare != request[: len(bare)]:
            return route  # a number of its own may never come again; there is no use in remembering it
        if len(self._routes) >= _MOST_KNOWN:
            self._routes.clear()
        if len(request) <= _LONGEST_KNOWN:
            self._routes[request] = route
        return route

    def route_of(self, method: str, target: str) -> str | None:
        """Return method and template of a request; None for a method that is unusual, or what is no path."""
        template = self.seen.folder.fold(target) if method in METHODS else None
        return None if template is None else f"{method} {template}"

    def _route_said(self, method: str, target: str) -> str | None:
        """As :meth:`route_of`, and remember it, apart from its numbers."""
        bare = f"{method} {_NUMBERS_SAID.sub('/0', target)}"
        route = self._said.get(bare)
        if route is None:
            route = self.route_of(method, target)
            if route is not None and len(bare) <= _LONGEST_KNOWN:
                if len(self._said) >= _MOST_KNOWN:
                    self._said.clear()
                self._said[bare] = route
        return route

    def _read_slowly(self, line: bytes, number: int) -> None:
        line = line.strip()
        if not line:
            return
        if line.startswith(b"{"):
            self._read_json(line, number)
            return
        found = _COMMON.search(line) or _DATED.match(line)
        if found is not None:
            self._count_common(found, number)
            return
        start = line.find(b"{")
        if start > 0 and line.endswith(b"}"):
            self._read_json(line[start:], number)
        else:
            self.seen.refuse(Why.NO_TIME if _TIMELESS.search(line) else Why.UNKNOWN, number)

    def _count_common(self, found: re.Match[bytes], number: int) -> None:
        stamp, request, status = found.groups()
        text = _ESCAPED.sub(lambda each: bytes.fromhex(each[1].decode()) if each[1] else each[2], request)
        method, _, rest = text.decode("utf-8", "replace").partition(" ")
        target, _, version = rest.rpartition(" ")
        if not version.startswith("HTTP/"):
            target = rest
        if not target:
            self.seen.refuse(Why.NO_REQUEST, number)
        else:
            self.count_told(Told(stamp.decode("ascii"), method, target, status.decode("ascii")), number)

    def _read_json(self, line: bytes, number: int) -> None:
        try:
            held = self._loads(line)
        except (ValueError, RecursionError):
            self.seen.refuse(Why.NO_JSON, number)
            return
        told = self._told_by(held) if isinstance(held, dict) else None
        if told is None:
            self.seen.refuse(Why.NO_REQUEST, number)
        elif told.line is not None:
            found = _COMMON.search(told.line.encode("utf-8", "replace"))
            if found is None:
                self.seen.refuse(Why.NO_TIME, number)
            else:
                self._count_common(found, number)
        else:
            self.count_told(told, number)

    def _told_by(self, held: dict[str, Any]) -> Told | None:
        shape = tuple(held)
        if shape not in self._shapes:
            if len(self._shapes) >= _MOST_SHAPES or len(shape) > _MOST_NAMES:
                return told_by(held, self._loads)
            self._shapes[shape] = plain_names(held)
        names = self._shapes[shape]
        if names is not None:
            time, method, target = held[names[0]], held[names[1]], held[names[2]]
            if time is not None and isinstance(method, str) and isinstance(target, str):
                return Told(time, method, target, held.get(names[3]), held.get("sample"))
        return told_by(held, self._loads)

    def count_told(self, told: Told, number: int) -> None:
        """Count what line or entry ``number`` tells of; :meth:`flush` is to come after it."""
        seen = self.seen
        if told.method not in METHODS:
            seen.refuse(Why.METHOD, number)
            return
        moment = self._moment_said(told.time)
        if moment is None:
            seen.refuse(Why.NO_TIME, number)
            return
        route = self._route_said(str(told.method), str(told.target))
        if route is None:
            seen.refuse(Why.TARGET, number)
            return
        second, zone = moment
        times = _times_of(told.sample)
        seen.sampled += times > 1
        seen.lines += 1
        seen.parsed += 1
        if second != seen.last:
            seen.zones[zone] += 1
        seen.follow(second, number)
        status = str(told.status)
        is_status = len(status) == 3 and status.isascii() and status.isdecimal() and "100" <= status <= "599"  # noqa: PLR2004  as statuses are
        if is_status and (seen.within is None or seen.within[0] <= second < seen.within[1]):
            seen.statuses[status] += 1
        self._seconds[second] += times
        self._minutes[second // 60][route] += times

    def _moment_said(self, said: object) -> tuple[int, int] | None:
        """Return the second that a time names and the minutes of its zone."""
        if not isinstance(said, str):
            moment = moment_of(said)
            return None if moment is None else (floor(moment), 0)
        if said[2:3] == "/":
            return self._moment(said.encode("ascii", "replace"))
        # Lines of one second differ in what follows its point only.
        stem = said[:19] + said[19:].lstrip(".,0123456789")
        known = self._stems.get(stem)
        if known is None:
            moment = moment_of(said)
            if moment is None:
                return None
            known = floor(moment), _zone_of(said)
            if said[16:17] == ":":
                if len(self._stems) >= _MOST_KNOWN:
                    self._stems.clear()
                self._stems[stem] = known
        return known


def _zone_of(said: str) -> int:
    try:
        offset = datetime.fromisoformat(said).utcoffset()
    except ValueError:
        return 0
    return 0 if offset is None else int(offset.total_seconds() // 60)


def _times_of(sample: object) -> int:
    """Return for how many requests a line stands: more than one where it says that only a share is logged."""
    if isinstance(sample, bool) or not isinstance(sample, int | float) or not _LEAST_SAMPLE <= sample < 1:
        return 1
    return round(1.0 / sample)


def _loads() -> Callable[[Any], Any]:
    try:
        import msgspec  # noqa: PLC0415  part of an extra; without it, it only takes longer
    except ImportError:
        return json.loads
    loads: Callable[[Any], Any] = msgspec.json.decode
    return loads
