"""Lines: which are understood, which are refused and why, and that nothing is fatal."""

import json
import logging
import random
from contextvars import Context
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.call_log import Line
from groundfault.events import RequestSeen
from groundfault.lab.replay import lines as lines_module
from groundfault.lab.replay.lines import LineReader
from groundfault.lab.replay.making import plan_of
from groundfault.lab.replay.plan import PlanError
from groundfault.lab.replay.seen import Why
from groundfault.vocabulary import Criticality

AT = 1_795_370_400  # 2026-11-22T18:00:00Z


def read(*lines):
    reader = LineReader()
    reader.count(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return reader.seen


@pytest.mark.parametrize(
    "written",
    [
        '10.1.2.3 - - [22/Nov/2026:18:00:00 +0000] "GET /lobby HTTP/1.1" 200 12',
        '10.1.2.3 - - [22/Nov/2026:18:00:00 +0000] "GET /lobby HTTP/1.1" 200 -\r',
        '10.1.2.3 - - [22/Nov/2026:18:00:00 +0000] "GET /lobby HTTP/1.1" 200 12 "https://x/" "curl"',
        '10.1.2.3 - - [22/Nov/2026:18:00:00 +0000] "GET /lobby HTTP/1.1" 200 12 "https://x/" "curl" 0.003 "trace"',
        'shop.example:443 10.1.2.3 - - [22/Nov/2026:18:00:00 +0000] "GET /lobby HTTP/2.0" 200 12 "-" "-"',
        '::1 - a b [22/Nov/2026:18:00:00 +0000] "GET /lobby HTTP/1.1" 200 12 "-" "-"',
        'web-1 nginx[7]: 10.1.2.3 - ev"il [22/Nov/2026:18:00:00 +0000] "GET /lobby HTTP/1.1" 200 12 "-" "-"',
        '10.1.2.3 - - [22/Nov/2026:13:00:00 -0500] "GET /lobby HTTP/1.1" 200 12 "-" "-"',
        '10.1.2.3 - - [23/Nov/2026:03:45:00 +0945] "GET /lobby HTTP/1.1" 200 12 "-" "-"',
        '10.1.2.3 - - [2026-11-22T18:00:00+00:00] "GET /lobby HTTP/1.1" 200 12 "-" "-"',
        '10.1.2.3 - - [22/Nov/2026:18:00:00 +0000] "GET https://shop.example/lobby HTTP/1.1" 200 12 "-" "-"',
        '10.1.2.3 - - [22/Nov/2026:18:00:00 +0000] "GET //lobby#top HTTP/1.1" 200 12 "-" "-"',
        "\0" * 300 + '10.1.2.3 - - [22/Nov/2026:18:00:00 +0000] "GET /lobby HTTP/1.1" 200 12 "-" "-"',
        json.dumps({"ts": AT, "method": "GET", "path": "/lobby", "status": 200}),
        json.dumps({"timestamp": "2026-11-22T18:00:00.1Z", "method": "GET", "url": "http://x/lobby", "status": "200"}),
        json.dumps({"@timestamp": "2026-11-22T19:00:00+01:00", "http": {"request": {"method": "GET"}, "response": {
            "status_code": 200}}, "url": {"path": "/lobby"}}),
        json.dumps({"time_local": "22/Nov/2026:18:00:00 +0000", "request": "GET /lobby HTTP/1.1", "status": 200}),
        json.dumps({"event": "finished", "request": "GET /lobby", "timestamp": "2026-11-22T18:00:00", "code": 200}),
        json.dumps({"httpRequest": {"requestMethod": "GET", "requestUrl": "https://x/lobby", "status": 200},
                    "timestamp": "2026-11-22T18:00:00Z"}),
        json.dumps({"log": '1.2.3.4 - - [22/Nov/2026:18:00:00 +0000] "GET /lobby HTTP/1.1" 200 5\n', "stream": "out"}),
        json.dumps({"ts": AT * 1000, "message": '127.0.0.1:4711 - "GET /lobby HTTP/1.1" 200'}),
        json.dumps({"msg": json.dumps({"ts": AT, "method": "GET", "path": "/lobby", "status": 200})}),
        "2026-11-22 18:00:00 INFO " + json.dumps({"ts": AT, "method": "GET", "path": "/lobby", "status": 200}),
    ],
)  # fmt: skip
def test_a_line_of_any_usual_kind_tells_of_its_request(written):
    seen = read(written)
    assert seen.refused == {}
    assert (seen.lines, seen.parsed, seen.templates) == (1, 1, {"GET /lobby"})
    assert seen.statuses == {"200": 1}
    assert plan_of(seen)[0].start == datetime(2026, 11, 22, 18, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("garbage", Why.UNKNOWN),
        (b"\xff\xfe\x00\x80", Why.UNKNOWN),
        ('INFO:     127.0.0.1:4711 - "GET / HTTP/1.1" 200 OK', Why.NO_TIME),
        ('1.2.3.4 - - [22/Nov/2026:18:00:00 +0000] "GET /lobby HTTP/1.1" 999 12 "-" "-"', Why.UNKNOWN),
        ('1.2.3.4 - - [22/Nov/2026:18:00:00 +0000] "GET /lob', Why.UNKNOWN),
        ('1.2.3.4 - - [32/Nov/2026:18:00:00 +0000] "GET /lobby HTTP/1.1" 200 12', Why.NO_TIME),
        ('1.2.3.4 - - [22/Nov/2026:18:00:00 +9900] "GET /lobby HTTP/1.1" 200 12', Why.NO_TIME),
        ('1.2.3.4 - - [22/Nov/1970:18:00:00 +0000] "GET /lobby HTTP/1.1" 200 12', Why.NO_TIME),
        ('1.2.3.4 - - [22/Nov/2026:18:00:00 +0000] "-" 408 0 "-" "-"', Why.NO_REQUEST),
        (r'1.2.3.4 - - [22/Nov/2026:18:00:00 +0000] "\x16\x03\x01 x y" 400 0 "-" "-"', Why.METHOD),
        ('1.2.3.4 - - [22/Nov/2026:18:00:00 +0000] "BREW /pot HTTP/1.1" 418 0 "-" "-"', Why.METHOD),
        ('1.2.3.4 - - [22/Nov/2026:18:00:00 +0000] "OPTIONS * HTTP/1.1" 200 0 "-" "-"', Why.TARGET),
        ('{"ts": 1795370400, "method": "GET", ', Why.NO_JSON),
        ("[" * 5000 + "{}", Why.NO_REQUEST),
        ('{"a":' * 5000, Why.NO_JSON),
        ('{"ts": 1795370400, "event": "server started"}', Why.NO_REQUEST),
        ('{"ts": 1795370400, "method": ["GET"], "path": 7}', Why.NO_REQUEST),
        ('{"method": "GET", "path": "/"}', Why.NO_TIME),
        ('{"ts": "yesterday", "method": "GET", "path": "/"}', Why.NO_TIME),
        ('{"ts": 1' + "0" * 400 + ', "method": "GET", "path": "/"}', Why.NO_TIME),
        ('{"ts": "9999-12-31T23:59:59-14:00", "method": "GET", "path": "/"}', Why.NO_TIME),
        ('1.2.3.4 - - [31/Dec/9999:23:59:59 -1400] "GET /lobby HTTP/1.1" 200 12', Why.NO_TIME),
        ('{"ts": 12, "method": "GET", "path": "/"}', Why.NO_TIME),
        ('{"ts": 1795370400, "method": "GET", "path": "lobby"}', Why.TARGET),
        ('{"ts": 1795370400, "headers": {"method": "GET", "path": "/"}}', Why.NO_REQUEST),
    ],
)  # fmt: skip
def test_a_line_that_is_no_request_is_counted_with_its_place_and_reason(line, written, why):
    seen = read(line(), written, line())
    assert (seen.lines, seen.parsed, seen.requests) == (3, 2, 2)
    assert seen.refused == {why: 1}
    assert seen.places == [("", 2, why)]


def test_blank_lines_are_no_lines_but_count_for_the_numbers(line):
    seen = read("", line(), "  ", "garbage", line(), "")
    assert (seen.lines, seen.parsed, seen.places) == (3, 2, [("", 4, Why.UNKNOWN)])


@pytest.mark.parametrize("without_msgspec", [False, True])
def test_our_own_access_events_are_read_with_the_share_that_was_logged(monkeypatch, without_msgspec):
    if without_msgspec:
        monkeypatch.setattr(lines_module, "_loads", lambda: json.loads)
    event = RequestSeen("topps", "GET /lineup/*", None, next(iter(Criticality)), None, "none")
    fields = Line(logging.INFO, AT + 0.5, event, 0.1, None, Context()).fields()
    seen = read(json.dumps(fields), json.dumps({"level": "INFO", "groundfault": fields}))
    assert (seen.parsed, seen.requests, seen.sampled) == (2, 20, 2)
    assert seen.templates == {"GET /lineup/{id}"}


def test_zones_are_put_on_one_clock_and_the_plan_is_in_that_of_most(line):
    lines = [line(at, zone="+0200") for at in range(3)] + [line(at, zone="+0100") for at in range(-3600 + 3, -3590)]
    seen = read(*lines)
    assert seen.zones == {120: 3, 60: 7}
    assert seen.last - seen.first == 9
    assert plan_of(seen)[0].start.utcoffset() == timedelta(hours=1)


def test_lines_that_go_back_are_told_and_by_how_much(line):
    seen = read(line(100), line(99), line(100), line(7000), line(10), line(11))
    assert seen.backwards == 2
    assert seen.jumps == [("", 5, -6990)]
    assert seen.requests == 6


@given(st.binary(max_size=400))
def test_no_bytes_are_fatal_and_each_line_is_accounted_for(block):
    reader = LineReader()
    reader.count(block)
    seen = reader.seen
    assert seen.lines == seen.parsed + seen.refused.total() == sum(bool(line.strip()) for line in block.split(b"\n"))


PATHS = st.sampled_from(
    ["/", "/lobby", "/lineup/77", "/users/alice", "/a/b/c.html", "/x?page=2&sort=asc", "/%F0%9F%8F%88"]
)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3 * 86_400),
            st.sampled_from(["GET", "HEAD", "POST", "DELETE"]),
            PATHS,
            st.integers(100, 599),
            st.integers(-14 * 60, 14 * 60),
            st.sampled_from(["combined", "common", "json", "iso"]),
        ),
        min_size=1,
        max_size=40,
    ),
    st.data(),
)
def test_lines_as_servers_format_them_parse_back_and_the_curve_holds_each_of_them(rows, data):
    written, seconds = [], []
    for offset, method, path, status, zone, kind in rows:
        moment = datetime.fromtimestamp(AT + offset, timezone(timedelta(minutes=zone)))
        user = data.draw(st.text("ab[]\\ -", max_size=6))
        head = f"10.0.0.1 - {user} [{moment:%d/%b/%Y:%H:%M:%S %z}]"
        if kind == "iso":
            head = f"10.0.0.1 - - [{moment.isoformat()}]"
        request = f'{head} "{method} {path} HTTP/1.1" {status} 7'
        told = {"time": moment.isoformat(), "method": method, "path": path, "status": status}
        written.append(
            json.dumps(told) if kind == "json" else request if kind == "common" else f'{request} "-" "\\"x\\""'
        )
        seconds.append(AT + offset)
    seen = read(*written)
    assert seen.refused == {}
    assert seen.parsed == seen.requests == len(rows)
    assert seen.statuses.total() == len(rows)
    assert {second for hour, held in seen.hours.items() for second in _busy(hour, held)} == set(seconds)
    assert sum(sum(held) for held in seen.hours.values()) == len(rows)
    plan, strays = plan_of(seen)
    assert plan.total + strays == len(rows)
    assert sum(plan.weights()) + plan.other == plan.total


def _busy(hour, held):
    return [hour * 3600 + at for at, times in enumerate(held) if times]


@given(st.lists(st.integers(0, 200), min_size=1, max_size=60), st.lists(st.integers(1, 59), max_size=4))
def test_what_parts_count_is_merged_to_what_one_reader_counts(seconds, cuts):
    lines = [
        f'1.2.3.4 - - [22/Nov/2026:18:{at // 60:02}:{at % 60:02} +0000] "GET /u/{at} HTTP/1.1" 200 1'
        if at % 7
        else "bad"
        for at in seconds
    ]
    whole = read(*lines)
    merged, base = LineReader().seen, 0
    bounds = sorted({0, len(lines), *(cut for cut in cuts if cut < len(lines))})
    for start, end in pairwise(bounds):
        part = read(*lines[start:end])
        merged.merge(part, "", base)
        base += part.physical
    for name in ("lines", "parsed", "requests", "refused", "places", "statuses", "backwards", "first", "last"):
        assert getattr(merged, name) == getattr(whole, name), name
    try:
        expected = plan_of(whole)[0]
    except PlanError:
        return
    assert plan_of(merged)[0] == expected


def test_a_log_of_garbage_makes_no_plan():
    chance = random.Random(4)
    seen = read(*(chance.randbytes(60).replace(b"\n", b"") for _ in range(200)))
    with pytest.raises(PlanError, match="no request"):
        plan_of(seen)


@pytest.mark.parametrize(
    ("written", "route"),
    [
        ('2026-11-22 18:00:00,123 INFO 127.0.0.1:4711 - "GET /lobby HTTP/1.1" 200 OK', "GET /lobby"),
        ('[2026-11-22T19:00:00+01:00] uvicorn: 127.0.0.1:4711 - "GET /lobby HTTP/1.1" 200', "GET /lobby"),
        (
            '{"DownstreamStatus":200,"RequestMethod":"GET","RequestPath":"/lobby?x=1","StartUTC":"2026-11-22T18:00:00.1Z"}',
            "GET /lobby?x={v}",
        ),
    ],
)
def test_uvicorn_with_a_time_and_traefik_are_read(written, route):
    seen = read(written)
    assert (seen.parsed, seen.first, dict(seen.statuses)) == (1, 1795370400, {"200": 1})
    assert seen.templates == {route}


@pytest.mark.parametrize("json_lines", [False, True])
def test_only_answers_within_what_is_asked_for_are_counted(json_lines):
    lines = [
        f'{{"ts": {1795370400 + at}, "method": "GET", "path": "/", "status": {status}}}'
        if json_lines
        else f'1.2.3.4 - - [22/Nov/2026:18:00:{at:02} +0000] "GET / HTTP/1.1" {status} 12'
        for at, status in enumerate((500, 200, 200, 500, 404))
    ]
    reader = LineReader((1795370401, 1795370403))
    reader.count("\n".join(lines).encode())
    assert (reader.seen.requests, reader.seen.outside, dict(reader.seen.statuses)) == (2, 3, {"200": 2})
