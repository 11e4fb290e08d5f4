"""Logs: what is understood, what is counted and left out, and that nothing of it is fatal or without bound."""

import gzip
import json
import logging
import random
from contextvars import Context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.advise import logs, tally
from groundfault.advise.log_fields import fields_of, seconds_of, tens_of
from groundfault.advise.logs import count_part
from groundfault.advise.observed import RateTrack
from groundfault.advise.sources import SourceError
from groundfault.advise.tally import LineCounter, Tally
from groundfault.call_log import Line
from groundfault.events import CommandDone
from groundfault.logfiles import files
from groundfault.logfiles.files import Part, blocks_of_part, whole_lines
from groundfault.vocabulary import Outcome


@pytest.fixture(params=["msgspec", "json"])
def decoder(request, monkeypatch):
    """Read with msgspec, and as where it is not installed."""
    if request.param == "json":
        monkeypatch.setattr(tally, "_decoders", lambda _: (None, json.loads))


def call(**fields):
    return {"resource": "contest-db", "command": "entrants", "outcome": "success", "duration_s": 0.1, **fields}


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(
    "written",
    [
        json.dumps(call()),
        json.dumps(call(event="command.done", ts="2026-11-23T17:00:00Z")),
        json.dumps(call(duration_s="0.1")),
        json.dumps({"level": "info", "message": "command.done", "extra": call()}),
        json.dumps({"log": json.dumps(call()) + "\n", "stream": "stdout"}),
        json.dumps({"record": {"extra": call(), "level": {"name": "INFO"}}}),
        "2026-11-23 17:00:00,123 INFO " + json.dumps(call()),
        json.dumps(call(outcome="SUCCESS")),
        json.dumps(call(outcome="ok")),
        json.dumps(call(outcome=None)),
        json.dumps(call(duration_s=0.1, extra={"resource": 7})),
        "  " + json.dumps(call()) + "\r",
    ],
)
def test_a_call_is_understood_however_it_is_wrapped(read, written):
    reading = read([written.encode()])
    (seen,) = reading.commands
    assert seen.path == "contest-db/entrants"
    assert seen.calls == {"success": 1}
    assert seen.successes.quantile(1.0) == pytest.approx(0.1, rel=0.03)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(
    ("written", "words"),
    [
        (b"garbage", "no JSON, left out. The first: garbage"),
        (b'{"resource": "a", ', "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"\x1b[31mred\x07", "no JSON, left out. The first: \N{REPLACEMENT CHARACTER}[31mred"),
        (b"[" * 100_000, "no JSON"),
        (b"42", "nothing of a call"),
        (b'["resource"]', "nothing of a call"),
        (b'{"event": "server.started", "resource": null}', "nothing of a call"),
        (b'{"resource": "a", "command": 3, "duration_s": 1}', "nothing of a call"),
        (json.dumps(call(duration_s=True)).encode(), "no usable duration_s or outcome"),
        (json.dumps(call(duration_s=-1)).encode(), "no usable duration_s or outcome"),
        (json.dumps(call(duration_s="soon")).encode(), "no usable duration_s or outcome"),
        (json.dumps(call(duration_s=float("nan"))).encode(), None),  # msgspec: no JSON; json: no duration
        (json.dumps(call(duration_s=10**400)).encode(), None),
        (json.dumps(call(outcome="splendid")).encode(), "no usable duration_s or outcome"),
        (json.dumps(call(event="command.failing")).encode(), "nothing of a call"),  # said of a call that is told anyway
    ],
)
def test_a_line_that_tells_of_no_call_is_counted_and_shown(read, line, written, words):
    reading = read([line(), written, line()])
    (seen,) = reading.commands
    assert seen.calls == {"success": 2}
    (note,) = reading.notes
    assert note.startswith("1 of 3 lines: ")
    assert words is None or words in note


@pytest.mark.usefixtures("decoder")
def test_empty_lines_are_no_lines(read, line):
    assert read([b"", line(), b"  ", line(), b""]).notes == []


def test_a_log_of_garbage_is_not_fatal_and_says_what_a_line_should_look_like(read):
    reading = read([random.Random(at).randbytes(50).replace(b"\n", b"") for at in range(200)])
    assert reading.commands == []
    assert '"duration_s": …' in reading.hint


@given(st.binary(max_size=400))
def test_no_bytes_are_fatal(block):
    counter = LineCounter(fields_of(None, "plan"))
    counter.count(block)
    assert counter.tally.told <= counter.tally.lines


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ("duration_s=elapsed_ms:ms", call(elapsed_ms=100)),
        ("resource=service,command=route", {**call(), "service": "contest-db", "route": "entrants"}),
        ("duration_s=data.took:us", {**call(), "data": {"took": 100_000}}),
        ("duration_s=http.took", {**call(), "http.took": 0.1}),
        ("outcome=how", call(how="success", outcome="ignored by us")),
    ],
)
def test_other_names_and_units_can_be_said(read, fields, written):
    (seen,) = read([json.dumps(written).encode()], fields).commands
    assert seen.path == "contest-db/entrants"
    assert seen.calls == {"success": 1}
    assert seen.successes.quantile(1.0) == pytest.approx(0.1, rel=0.03)


def test_one_field_of_theirs_may_be_two_of_ours(read, line):
    (seen,) = read([line(service="mail")], "resource=service,command=service").commands
    assert seen.path == "mail/mail"


@pytest.mark.parametrize("text", ["duration_s", "duration_s=", "elapsed=ms", "duration_s=x:fortnights", "=a"])
def test_a_mapping_that_makes_no_sense_is_refused(text):
    with pytest.raises(ValueError, match=r"is no|is not"):
        fields_of(text, None)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(
    ("value", "name"),
    [("free", "free"), (7, "7"), (True, "true"), (None, "(none)"), (1.5, "1.5"), (["a"], '["a"]'), ("", "(none)")],
)
def test_a_segment_may_be_any_value(read, line, value, name):
    (seen,) = read([line(plan=value), line(plan=value), line(plan="pro")], segment="plan").commands
    assert {each: held.made for each, held in seen.segments.items()} == {name: 2, "pro": 1}
    assert seen.made == 3


def test_a_segment_may_lie_deeper_or_round_the_call(read):
    deeper = json.dumps(call(user={"plan": "pro"})).encode()
    around = json.dumps({"user": {"plan": "pro"}, "extra": call()}).encode()
    (seen,) = read([deeper, around], segment="user.plan").commands
    assert {name: held.made for name, held in seen.segments.items()} == {"pro": 2}


@pytest.mark.usefixtures("decoder")
def test_outcomes_are_counted_apart_and_calls_never_made_have_no_duration(read, line):
    lines = [
        line(),
        line(outcome="timeout", duration_s=0.5),
        line(outcome="failure"),
        line(outcome="circuit-open", duration_s=0.0),
        line(outcome="bulkhead_full"),
        line(outcome="circuit-open", duration_s=0.0),
    ]
    (seen,) = read(lines).commands
    assert seen.calls == {"success": 1, "timeout": 1, "failure": 1, "circuit-open": 2, "bulkhead-full": 1}
    assert (seen.made, seen.asked, seen.refused) == (3, 6, 3)
    assert seen.timed_out.quantile(0.5) == pytest.approx(0.5, rel=0.02)


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "time",
    [
        1_795_452_705,
        1_795_452_705.25,
        1_795_452_705_250,
        1_795_452_705_250_000,
        1_795_452_705_250_000_000,
        "1795452705.25",
        "2026-11-23T16:51:45Z",
        "2026-11-23T16:51:45.250+00:00",
        "2026-11-23 17:51:45,250+01:00",
        "2026-11-23T16:51:45",
        "20261123T165145Z",
    ],
)
def test_times_of_all_kinds_are_understood(read, line, time):
    assert tens_of(time) == 179_545_270
    reading = read([line(ts=time)] * 3)
    assert reading.notes == []
    assert reading.commands[0].rates.peak_per_s == 0.3


@pytest.mark.parametrize(
    "time", [None, "yesterday", "", 12.5, -1, True, {}, 10**300, float("nan"), "9999-99-99T00:00:00Z"]
)
def test_what_is_no_time_counts_for_no_rate(time):
    assert tens_of(time) is None


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("wrapped", [False, True], ids=["flat", "below the record's groundfault"])
def test_the_time_that_our_own_call_log_writes_is_one(read, wrapped):
    written = Line(
        logging.INFO, 1_795_452_705.5, CommandDone("contest-db", "entrants", Outcome.SUCCESS, 0.1), 1.0, None, Context()
    ).fields()
    line = json.dumps({"level": "INFO", "groundfault": written} if wrapped else written)
    (seen,) = read([line.encode()] * 3).commands
    assert seen.rates.peak_per_s == 0.3


def test_calls_without_a_time_are_counted_and_said(read, line):
    reading = read([line(), line(ts="yesterday"), line()])
    assert reading.commands[0].made == 3
    assert reading.notes == ["1 of 3 calls: without a time, so they do not count for the rates"]


def test_rates_are_the_usual_and_the_greatest_and_leave_out_the_cut_off_ends(read, line):
    per_ten = [1, 20, 20, 20, 90, 20, 2]
    lines = [line(ts=1_795_436_400 + 10 * at + 5) for at, times in enumerate(per_ten) for _ in range(times)]
    random.Random(1).shuffle(lines)
    rates = read(lines).commands[0].rates
    assert (rates.usual_per_s, rates.peak_per_s, rates.over_s) == (2.0, 9.0, 10.0)


def test_a_log_without_times_may_be_told_what_it_covers(read, line):
    lines = [line(ts=None)] * 50
    assert read(lines).commands[0].rates is None
    rates = read(lines, over_s=100.0).commands[0].rates
    assert (rates.usual_per_s, rates.peak_per_s) == (0.5, 0.5)
    assert "busiest time is not known" in rates.note


@pytest.mark.usefixtures("decoder")
def test_the_line_of_the_call_log_itself_has_a_time(read):
    (seen,) = read([json.dumps(call(event="command.done", at=1_795_436_405.25)).encode()] * 20).commands
    assert seen.rates.peak_per_s == 2.0


@pytest.mark.usefixtures("decoder")
def test_a_line_of_a_sample_counts_in_the_rates_for_those_that_were_not_logged(read, line):
    lines = [line(sample=0.1)] * 20 + [line(sample=share) for share in (1.0, 0, -1, "much", True, None, 1e-300)]
    reading = read(lines)
    assert reading.commands[0].rates.peak_per_s == pytest.approx(20.7)
    assert reading.commands[0].made == 27
    assert reading.notes == ["20 of 27 calls: each stands for others that were not logged; in the rates they all count"]


def test_a_sampled_log_without_times_may_be_told_what_it_covers(read, line):
    rates = read([line(ts=None, sample=0.1)] * 50, over_s=100.0).commands[0].rates
    assert rates.usual_per_s == pytest.approx(5.0)


@given(st.lists(st.lists(st.integers(0, 2**40), max_size=60), max_size=6), st.randoms(use_true_random=False))
def test_rates_of_any_times_are_bounded_and_the_order_of_merging_does_not_matter(parts, chance):
    class Small(RateTrack):
        MOST = 50

    whole, merged, made = Small(), Small(), []
    for part in parts:
        track = Small()
        for tens in part:
            track.add(tens)
            whole.add(tens)
        made.append(track)
    chance.shuffle(made)
    for track in made:
        merged.merge(track)
    assert (merged.cells, merged.doubled) == (whole.cells, whole.doubled)
    assert len(merged.cells) <= Small.MOST
    assert sum(merged.cells.values()) == sum(map(len, parts))


@pytest.mark.parametrize(
    ("value", "seconds"), [(1500, 1.5), ("1500", 1.5), (0, 0.0), (-1, None), (True, None), ("x", None), (10**400, None)]
)
def test_durations_are_numbers(value, seconds):
    assert seconds_of(value, 1e-3) == seconds


# --- files ------------------------------------------------------------------------------------------------------------


def test_gzip_is_told_by_its_first_bytes_and_not_by_its_name(read, line):
    assert read([line()] * 10, pack=gzip.compress, name="calls.log").commands[0].made == 10


def test_a_gzip_file_that_ends_early_counts_as_far_as_it_goes(read, line, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 4096)
    reading = read([line(n=at) for at in range(20_000)], pack=lambda data: gzip.compress(data)[:-20_000])
    assert 0 < reading.commands[0].made < 20_000
    assert any("ends early" in note and "what came before it counts" in note for note in reading.notes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x28\xb5\x2f\xfd....", "zstd -dc"),
        (b"BZh9....", "bzip2 -dc"),
        (None, "No such file"),
        (..., "Is a directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_cause(tmp_path, content, words):
    path = tmp_path / "calls.log"
    if content is ...:
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=words) as caught:
        files.open_source(str(path))
    assert str(path) in str(caught.value)


@given(
    content=st.lists(st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"")), max_size=40).map(b"\n".join),
    size=st.integers(1, 64),
    longest=st.sampled_from([8, 1000]),
)
def test_whatever_the_parts_each_line_is_in_one_of_them(tmp_path_factory, content, size, longest):
    path = tmp_path_factory.mktemp("parts") / "log"
    path.write_bytes(content)
    found, too_long = [], []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files, "BLOCK", 16)
        patched.setattr(files, "LONGEST_LINE", longest)
        patched.setattr(files, "_TAIL", 5)
        for start in range(0, len(content), size):
            part = Part(str(path), start, min(len(content), start + size))
            for block in blocks_of_part(part, lambda: too_long.append(1)):
                found += block.split(b"\n")
    lines = [text for text in content.split(b"\n") if text]
    found = [text for text in found if text]
    assert [text for text in found if text not in lines] == []
    if longest == 1000:
        assert found == lines
        assert not too_long
    else:  # how long a line may be is not exact, but none is told of twice, and a short one always
        assert len(found) + len(too_long) == len(lines)
        assert [text for text in found if len(text) <= longest] == [text for text in lines if len(text) <= longest]


def test_an_endless_line_is_skipped_without_being_kept():
    chunks = iter([b"a\n", *[b"x" * 2**20] * 20, b"x\nb\n", b""])
    too_long = []
    blocks = list(whole_lines(lambda _: next(chunks), lambda: too_long.append(1)))
    assert [text for block in blocks for text in block.split(b"\n") if text] == [b"a", b"b"]
    assert len(too_long) == 1


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_line_too_long_is_counted_once(read, line, pack):
    reading = read([line(), b"x" * (9 * 2**20), line()], pack=pack)
    assert reading.commands[0].made == 2
    assert reading.notes == ["1 of 3 lines: too long to be looked at"]


def test_several_files_are_read_once_each(tmp_path, line, read):
    read([line()] * 3)  # makes calls.log
    other = tmp_path / "more.log"
    other.write_bytes(line(command="lineups") + b"\n")
    names = [str(tmp_path / "calls.log"), str(other), str(other)]
    reading = logs.read_logs(names, fields_of(None, None), over_s=None, jobs=1, progress=logs.Progress(quiet=True))
    assert {seen.path: seen.made for seen in reading.commands} == {"contest-db/entrants": 3, "contest-db/lineups": 1}


@pytest.mark.e2e
def test_processes_count_what_one_would(read, line, monkeypatch):
    monkeypatch.setattr(files, "PART", 50_000)
    chance = random.Random(5)
    lines = [
        line(command=f"c{at % 3}", duration_s=chance.expovariate(10), ts=1_795_436_400 + at) for at in range(5_000)
    ]
    lines[77] = b"garbage"
    one, two = (read(lines, segment="command", jobs=jobs) for jobs in (1, 2))
    assert one.commands == two.commands
    assert one.notes == two.notes == ["1 of 5,000 lines: no JSON, left out. The first: garbage"]
    assert sum(seen.made for seen in one.commands) == 4_999


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("decoder")
def test_endless_names_are_counted_together_and_said(read, line):
    lines = [line(command=f"c{at}") for at in range(tally.MOST_COMMANDS + 300)]
    reading = read(lines)
    assert len(reading.commands) == tally.MOST_COMMANDS
    assert reading.notes == ["300 of 800 calls: of more commands than can be told apart; there is no advice on those"]


@pytest.mark.usefixtures("decoder")
def test_endless_segments_are_counted_as_other_and_said(read, line):
    reading = read([line(user=f"u{at}") for at in range(1_150)], segment="user")
    (seen,) = reading.commands
    assert len(seen.segments) == tally.MOST_SEGMENTS + 1
    assert seen.segments["other"].made == 150
    assert seen.made == 1_150
    assert reading.notes == ["150 of 1,150 calls: counted as of the segment 'other', for there are too many segments"]


def test_memory_is_bounded_whatever_the_names():
    counter = LineCounter(fields_of(None, "plan"))
    for at in range(60):
        block = "\n".join(
            json.dumps(call(command=f"c{at * 1000 + n}", plan=f"p{n}", outcome="success" if n % 2 else None))
            for n in range(1000)
        )
        counter.count(block.encode())
    held = counter.tally
    assert held.told == held.lines == 60_000
    assert len(held.cells) <= tally.MOST_CELLS + tally.MOST_COMMANDS + 1
    assert len(held.segments) <= tally.MOST_COMMANDS + 1
    assert len(held.tracks) + len(held.never) <= 2 * tally.MOST_COMMANDS
    assert len(counter._known) <= tally._MOST_KNOWN


def test_long_names_are_cut_and_what_steers_a_terminal_is_replaced(read, line):
    (seen,) = read([line(command="\x1b]0;evil\x07" + "x" * 300)]).commands
    assert len(seen.command) <= 101
    assert seen.command.isprintable()


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("pq"), st.floats(0.001, 9)))), st.randoms())
def test_the_order_in_which_parts_are_merged_does_not_matter(parts, chance):
    fields = fields_of(None, "plan")
    tallies = []
    for part in parts:
        block = "\n".join(json.dumps(call(command=c, plan=p, duration_s=d)) for c, p, d in part).encode()
        tallies.append(count_part(Part(block=block), fields))
    results = []
    for _ in range(2):
        whole = Tally()
        for each in tallies:
            whole.merge(each)
        results.append(sorted(whole.observed(None), key=lambda seen: seen.path))
        chance.shuffle(tallies)
    assert results[0] == results[1]
