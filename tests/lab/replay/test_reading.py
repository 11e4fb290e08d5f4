"""Files: packed, broken, endless, of several kinds at once; and that the same log gives the same bytes."""

import gzip
import io
import json
import sys
import types

import pytest

from groundfault.lab.replay import reading as reading_module
from groundfault.lab.replay.plan import Plan, PlanError
from groundfault.lab.replay.reading import read_logs
from groundfault.logfiles import files
from groundfault.logfiles.files import SourceError
from groundfault.logfiles.progress import Progress


def read_files(*paths, **settings):
    return read_logs([str(path) for path in paths], progress=Progress(quiet=True), **{"jobs": 1, **settings})


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_places_name_file_and_line_in_plain_and_packed_files_with_lines_too_long_between(read, line, pack, tmp_path):
    reading = read([line(), "bad", b"x" * (9 * 2**20), line(1), "bad"], pack=pack)
    seen = reading.seen
    name = str(tmp_path / "access.log")
    assert [(path, number) for path, number, _ in seen.places] == [(name, 2), (name, 3), (name, 5)]
    assert (seen.lines, seen.parsed) == (5, 2)


def test_a_file_in_parts_gives_the_same_plan_and_places_as_in_one(read, line, monkeypatch):
    lines = [line(at // 5, f"GET /lineup/{at} HTTP/1.1") if at % 97 else "bad" for at in range(2000)]
    whole = read(lines)
    monkeypatch.setattr(files, "PART", 10_000)
    parts = read(lines)
    assert parts.plan == whole.plan
    assert parts.seen.places == whole.seen.places
    assert parts.notes == whole.notes


@pytest.mark.e2e
def test_two_processes_read_what_one_does(read, line, monkeypatch, tmp_path):
    monkeypatch.setattr(files, "PART", 20_000)
    lines = [line(at // 5, f"GET /club/{chr(97 + at % 26)}o{chr(97 + at % 19)}a HTTP/1.1") for at in range(3000)]
    written = []
    for jobs in (1, 2):
        path = tmp_path / f"plan-{jobs}.json"
        read(lines, jobs=jobs).plan.write(path)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_the_same_log_gives_the_same_bytes_and_they_are_read_back(read, line, tmp_path):
    lines = [line(at // 3, f"{'POST' if at % 4 else 'GET'} /x{'abc'[at % 3]}/{at} HTTP/1.1") for at in range(500)]
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        read(lines).plan.write(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert Plan.load(paths[0]) == read(lines).plan


def test_several_files_are_read_once_each_and_their_order_means_nothing(tmp_path, line):
    first, second = tmp_path / "access.log.1", tmp_path / "access.log"
    first.write_text(f"{line(0)}\n{line(1)}\n")
    second.write_text(f"{line(2)}\n")
    one, other = read_files(first, second, second), read_files(second, first)
    assert one.plan == other.plan
    assert one.plan.total == 3
    assert one.notes == other.notes == []


def test_standard_input_is_read(line, monkeypatch):
    raw = io.BufferedReader(io.BytesIO(f"{line()}\n{line(1)}\n".encode()))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))
    assert read_files("-").plan.total == 2


def test_a_gzip_file_that_ends_early_counts_as_far_as_it_goes(read, line, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 4096)
    lines = [line(at // 50, f"GET /lineup/{at * 7919} HTTP/1.1") for at in range(20_000)]
    reading = read(lines, pack=lambda data: gzip.compress(data)[:-20_000])
    assert 0 < reading.plan.total < 20_000
    assert any("ends early" in note and "what came before it counts" in note for note in reading.notes)


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path, line, monkeypatch):
    monkeypatch.setattr(files, "PART", 2000)
    path = tmp_path / "access.log"
    path.write_text(f"{line()}\n" * 200)
    counted = reading_module.counted

    def and_shrink(parts, *rest, **more):
        for number, part in enumerate(counted(parts, *rest, **more)):
            if number == 2:
                with path.open("r+") as file:
                    file.truncate(3000)
            yield part

    monkeypatch.setattr(reading_module, "counted", and_shrink)
    reading = read_files(path)
    assert 0 < reading.plan.total < 200
    assert any("became shorter while it was read" in note for note in reading.notes)


def test_zstd_is_read_where_a_library_is_there(tmp_path, line, monkeypatch):
    path = tmp_path / "access.log.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + f"{line()}\n".encode())

    class Unpacker:
        def stream_reader(self, file, *, read_across_frames):
            assert read_across_frames
            return types.SimpleNamespace(read=io.BytesIO(file.read()[4:]).read)

    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", types.SimpleNamespace(ZstdDecompressor=Unpacker))
    assert read_files(path).plan.total == 1
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(SourceError, match=r"zstd -dc FILE \| groundfault replay read -"):
        read_files(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "none of its 2 lines is a request"),
        (bytes(range(256)) * 40, "it is binary"),
        (b"\x7fELF\x02\x01\x01\0\0\0", "it is binary"),
        ("\ufeffGET / 200".encode("utf-16-le"), "is UTF-16; try: iconv -t UTF-8"),
        (b"BZh91AY", "bzip2 -dc"),
        (b"x" * 2**21, "longer than a log line can be"),
        (b'{"log": {"version": "1.2", "entries": 7}}', "log.entries must be a list"),
        (b'{"log": {"version": "1.2", "entries": [', "begins as a HAR, but is none"),
    ],
)
def test_what_is_no_log_is_named_with_the_reason(tmp_path, content, words):
    path = tmp_path / "access.log"
    path.write_bytes(content)
    with pytest.raises((SourceError, PlanError), match=words.replace(".", r"\.")) as caught:
        read_files(path)
    assert str(path) in str(caught.value) or "no request" in str(caught.value)


def test_gaps_jumps_strays_and_zones_are_warned_of(read, line):
    steady = [line(at // 2) for at in range(240)]
    after = [line(2000 + at // 2) for at in range(240)]
    stray = [line(0, day=10)]
    reading = read([*steady, *after, line(30, zone="-0500", day=22), *stray])
    words = "\n".join(reading.notes)
    assert "nothing came for 31 min from 2026-11-22 18:02:00 on" in words
    assert "the time goes back by" in words
    assert "2 distances from UTC (+0000, -0500)" in words
    assert "1 requests are more than 24 h away from the others and left out" in words
    assert reading.plan.total == 481


def test_a_log_of_which_only_a_little_is_requests_is_warned_of(read, line):
    assert any("only 25.0% of the lines are requests" in note for note in read([line(), "a", "b", "c"]).notes)


def test_a_log_of_too_many_days_is_refused_and_a_part_of_it_can_be_asked_for(read, line):
    lines = [line(0, day=day) for day in range(10, 20)]
    with pytest.raises(PlanError, match=r"covers 9\.0 days; a plan holds at most 7"):
        read(lines)
    noon = 1_795_370_400 - 5 * 86_400  # the 17th, 18:00
    part = read(lines, within=(noon, noon + 3600))
    assert part.plan.total == 1
    assert "9 requests lie outside of --from and --for" in part.notes


def test_hours_beyond_what_is_held_give_way_and_are_counted(read, line, monkeypatch):
    monkeypatch.setattr("groundfault.lab.replay.seen.MOST_HOURS", 3)
    reading = read([line(3600 * at) for at in range(5) for _ in range(at + 1)])
    assert reading.plan.total == 3 + 4 + 5
    assert reading.seen.gave_way == 3


# --- HAR and tables of rates ------------------------------------------------------------------------------------------


def har(*entries):
    return json.dumps({"log": {"version": "1.2", "creator": {"name": "a"}, "entries": list(entries)}})


def entry(at, url="https://x.example/lobby?q=secret", method="GET", status=200):
    when = f"2026-11-22T18:00:{at:02}.250Z"
    headers = [{"name": "Cookie", "value": "secret"}]
    return {
        "startedDateTime": when,
        "request": {"method": method, "url": url, "headers": headers},
        "response": {"status": status},
    }


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_har_is_read_entry_by_entry(routes, tmp_path, bom):
    text = bom + har(entry(1), entry(2, "https://x.example/lineup/7", "POST"), {}, 7, entry(3, method="BREW"))
    assert routes([text], name="a.har") == {"GET /lobby?q={v}": 1, "POST /lineup/{n}": 1}
    seen = read_files(tmp_path / "a.har").seen
    assert [number for _, number, _ in seen.places] == [3, 4, 5]
    assert seen.lines == 5


def test_a_table_of_rates_is_a_curve_with_straight_lines_and_weights_by_minute(read):
    plan = read(
        ["t,rps,weights", "0,10,GET /lobby=3;GET /lineup/{n}=1", "60,70", "", "120,70,POST /x/{id}=1", "180,0"]
    ).plan
    assert plan.seconds == 180
    assert plan.rps[:2] == [10.5, 11.5]
    assert plan.rps[60:120] == [70.0] * 60
    assert plan.total == pytest.approx(2400 + 4200 + 2100)
    kinds = [f"{each.method} {each.path}" for each in plan.templates]
    assert [{kinds[at]: weight for at, weight in minute.items()} for minute in plan.mix] == [
        {"GET /lineup/{n}": 1, "GET /lobby": 3},
        {"GET /lineup/{n}": 1, "GET /lobby": 3},
        {"POST /x/{id}": 1},
    ]


def test_a_table_of_rates_may_have_dates(read):
    plan = read(["T, RPS", "2026-11-22T18:00:00+01:00,5", "2026-11-22T18:00:10+01:00,5"]).plan
    assert plan.start.isoformat() == "2026-11-22T18:00:00+01:00"
    assert (plan.rps, plan.templates[0].path) == ([5.0] * 10, "/")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["0,1"], "at least two lines"),
        (["0,1", "soon,2"], ":3: t must be seconds or a date"),
        (["0,1", "9,-2"], ":3: rps must be a number from 0"),
        (["0,1", "9,nan"], ":3: rps must be a number from 0"),
        (["5,1", "2,1"], ":3: t must be at least 5"),
        (["0,1", "inf,1"], ":3: t must be a finite"),
        (["0,1", "9"], ":3: there must be a time and a rate"),
        (["0,1", "9999999,1"], "t must span at most 604800 s"),
        (["0,1,GET /x", "9,1"], ":2: weights must be as"),
        (["0,1,GET /x=-1", "9,1"], ":2: weights must be as"),
        (["0,1,BREW /x=1", "9,1"], ":2: weights must be as"),
        (["0,1,GET /x=0", "9,1"], ":2: one of the weights must be above 0"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_with_its_line(read, lines, words):
    with pytest.raises(SourceError) as caught:
        read(["t,rps,weights", *lines], name="rates.csv")
    assert words in str(caught.value)


def test_a_table_of_rates_is_read_alone(tmp_path, line):
    table, log = tmp_path / "rates.csv", tmp_path / "access.log"
    table.write_text("t,rps\n0,1\n9,1\n")
    log.write_text(f"{line()}\n")
    with pytest.raises(SourceError, match="read alone"):
        read_files(log, table)
