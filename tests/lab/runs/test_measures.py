"""Figures of a run, reckoned by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_runs import full_run, stream

from groundfault.lab.runs.measures import MEASURES, Bound, MeasureError, evaluate, judged
from groundfault.lab.runs.record import Edge, Run, Stream
from groundfault.lab.runs.tally import Fate, Tally


def run_of(*streams, seconds=4, **fields):
    return Run(name="n", title="t", source="locust", seconds=seconds, deadline_s=1.0, streams=list(streams), **fields)


def value(run, text):
    return evaluate(run, Bound.parse(text)).value


SPIKE = run_of(
    stream("fan", due=[10, 80, 80, 10], sent=[10, 80, 72, 18], arrived=[10, 9, 12, 10], good=[10, 10, 11, 10],
           late=[0, 10, 9, 0], shed=[0, 50, 60, 0], failed=[0, 10, 0, 0]),
    stream("lobby", innocent=True, due=[4, 4, 4, 4], sent=[4, 4, 4, 4], arrived=[4, 2, 4, 4], good=[4, 2, 4, 4],
           failed=[0, 2, 0, 0]),
    capacity_rps=12.0,
    spans={"spike": (1.0, 3.0), "beyond": (9.0, 12.0), "half": (1.5, 1.6)},
    edges=[Edge(caller="a", callee="b", trips=[0.5, 1.0, 2.99, 3.0])],
    lag_p99_ms=7.5,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("goodput@spike", 21 / 24),
        ("goodput", 41 / 44),  # of 10 due, 12, 12, 10 due
        ("goodput.lobby", 14 / 16),  # innocents need nothing scarce
        ("goodput_rps@spike", 10.5),
        ("success@spike", 21 / 160),
        ("success.innocent@spike", 6 / 8),
        ("success.lobby", 14 / 16),
        ("shed@spike", 110 / 160),
        ("failed", 10 / 180),
        ("late@half", 10 / 80),
        ("unsent", 0.0),
        ("trips@spike", 2.0),
        ("trips", 4.0),
        ("below_s", 1.0),
        ("sent_error", 0.1),
        ("lag_p99_ms", 7.5),
        ("p99_ms", None),
        ("goodput@beyond", None),  # the run was cut short before it
        ("below_s@beyond", None),
        ("recovery_s@spike", None),  # less than three seconds are left when all is well
    ],
)
def test_figures_of_a_spike(text, expected):
    assert value(SPIKE, text) == (None if expected is None else pytest.approx(expected, abs=1e-6))


def test_nothing_is_made_up_where_nothing_was_due_or_looked_at():
    nothing = run_of(stream())
    for text in ("goodput", "success", "shed", "p50_ms", "recovery_s", "trips", "lag_p99_ms"):
        assert value(nothing, text) is None
    assert value(run_of(), "goodput") is None


def test_a_bound_on_a_figure_that_could_not_be_had_is_missed():
    assert evaluate(run_of(stream()), Bound.parse("trips<=0")).met is False


def test_recovery_is_where_it_is_good_for_three_seconds_and_for_the_rest():
    due = [10] * 10
    run = run_of(
        stream(seconds=10, due=due, good=[10, 0, 0, 10, 10, 5, 10, 10, 10, 10]), seconds=10, spans={"spike": (1, 3)}
    )
    assert value(run, "recovery_s@spike") == 5.0
    assert value(run, "recovery_s") == 6.0


def test_recovery_of_a_whole_day_is_found_in_no_time():
    day = 86_400
    run = run_of(stream(seconds=day, due=[9] * day, good=[0] * day), seconds=day)
    assert value(run, "recovery_s") is None


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=1, max_size=12))
def test_recovery_agrees_with_its_own_definition(seconds):
    due = [max(pair) for pair in seconds]
    good = [min(pair) for pair in seconds]
    run = run_of(stream(seconds=len(due), due=due, good=good), seconds=len(due))
    spans = [(at, (slice(at, at + 3), slice(at, None))) for at in range(len(due) - 2)]
    well = (
        float(at)
        for at, both in spans
        if all(sum(due[span]) and sum(good[span]) >= 0.99 * sum(due[span]) for span in both)
    )
    assert value(run, "recovery_s") == next(well, None)


def test_percentiles_are_of_all_that_was_good_in_the_span():
    tally = Tally()
    for at in range(100):
        tally.send(1.5, 1.5)
        tally.settle(1.5, Fate.GOOD, 0.01 if at < 98 else 0.5)
    run = run_of(Stream.of("fan", tally, 4), spans={"spike": (1, 2)})
    assert value(run, "p50_ms@spike") == pytest.approx(10, rel=0.3)
    assert value(run, "p99_ms@spike") == pytest.approx(500, rel=0.3)


def test_the_title_says_whose_and_when():
    check = evaluate(SPIKE, Bound.parse("success.innocent@spike>=0.7"))
    assert check.title == "served in time, innocent, spike"
    assert check.measure == "success.innocent@spike"
    assert (check.at_least, check.at_most, check.met) == (0.7, None, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be measure[.stream][@span]>=bound"),
        ("goodput>0.5", "must be measure[.stream][@span]>=bound"),
        ("goodput>=", "must be measure[.stream][@span]>=bound"),
        ("speed>=1", "measure must be one of goodput, goodput_rps, "),
        ("goodput>=much", "the bound of 'goodput>=much' must be a number, not 'much'"),
        ("goodput>=nan", "must be a number, not 'nan'"),
        ("goodput<=inf", "must be a number, not 'inf'"),
        ("goodput>=0.5 or so", "must be measure[.stream][@span]>=bound"),
    ],
)
def test_an_expression_that_makes_no_sense(text, words):
    with pytest.raises(MeasureError) as caught:
        Bound.parse(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("goodput.bots", "stream must be one of fan, lobby, not bots"),
        ("goodput@overtime", "span must be one of spike, beyond, half, not overtime"),
    ],
)
def test_a_stream_or_span_that_the_run_has_not(text, words):
    with pytest.raises(MeasureError) as caught:
        evaluate(SPIKE, Bound.parse(text))
    assert str(caught.value) == words


names = st.text(st.characters(exclude_characters="@<>= \t\n\r\x0b\x0c", exclude_categories=("Z", "C")), min_size=1)


@given(st.sampled_from(sorted(MEASURES)), st.none() | names, st.none() | names, st.sampled_from([">=", "<="]))
def test_what_is_written_is_read(measure, stream, span, operator):
    bound = Bound(measure=measure, stream=stream, span=span)
    assert Bound.parse(str(bound)) == bound
    with_bound = Bound.parse(f"{bound}{operator}0.5")
    assert str(with_bound) == str(bound)
    assert (with_bound.at_least, with_bound.at_most) == ((0.5, None) if operator == ">=" else (None, 0.5))


def test_many_at_once_in_their_order():
    bounds = [Bound.parse("shed"), Bound.parse("goodput@spike>=0.5")]
    assert [check.measure for check in judged(full_run(), bounds)] == ["shed", "goodput@spike"]
