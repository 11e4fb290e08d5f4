"""What a run of the cascade benchmark was worth, of rows small enough to reckon with on paper."""

from array import array
from dataclasses import replace

import pytest
from cascading import report
from cascading.judge import Recorded, judge, rows_of, seconds_of
from cascading.parts import Last, Variant
from cascading.scenarios import FREE_LANE, NEED_LANE, SCENARIOS
from openloop.generator import BROKEN, LATE, Outcome, Plan

from groundfault.lab.measure import Row

BASE = replace(SCENARIOS["brownout"], last=Last(slots=1, work_s=0.1), calm_s=2.0, event_s=4.0, after_s=6.0)
"""Ten a second, in the event a quarter of that, and twelve seconds in all."""


def row(due, *, innocent=False, status=200, latency=0.1, lag=0.001):
    kind = "innocent" if innocent else "fan"
    return Row(kind=kind, due=due, latency_s=latency, status=status, handled=False, lag_s=lag)


def every(step, start, end, **fields):
    return [row(start + step * number, **fields) for number in range(round((end - start) / step))]


def recorded(rows, *, event=(2.0, 6.0), events=(), cpu=(0.2,), died=()):
    rows = sorted(rows, key=lambda each: each.due)
    return Recorded(rows=rows, events=events, event=event, cpu=cpu, own_cpu=0.1, died=died)


def opened(t, by, resource, old="closed"):
    return {"t": t, "event": "circuit.open", "by": by, "resource": resource, "old": old, "new": "open"}


CALM = [*every(0.2, 0, 12, innocent=True), *every(0.25, 0, 12)]


def test_possible_is_what_the_capacity_of_each_second_allows_and_all_innocents():
    seconds = seconds_of(BASE, recorded(CALM))

    assert [second.start for second in seconds] == [float(at) for at in range(2, 12)]
    assert [second.possible for second in seconds] == [7.5] * 4 + [9.0] * 6  # 2.5 or all 4 who need it, and 5
    assert [second.good for second in seconds] == [9] * 10


def test_in_the_second_in_which_the_event_ends_the_capacity_is_in_between():
    rows = every(0.05, 0, 12)  # twenty a second
    seconds = seconds_of(BASE, recorded(rows, event=(2.0, 5.5)))

    assert seconds[3].possible == pytest.approx(0.5 * 2.5 + 0.5 * 10)


def test_a_callee_that_can_do_nothing_leaves_the_innocents():
    seconds = seconds_of(replace(BASE, left=0.0), recorded(CALM))

    assert [second.possible for second in seconds[:4]] == [5.0] * 4


@pytest.mark.parametrize(
    ("failing", "bad"),
    [
        ([], 0),
        (every(0.2, 3, 4, innocent=True, status=503), 1),
        (every(0.2, 3, 5, innocent=True, latency=1.01), 2),  # late is as bad as refused
        (every(0.2, 9, 10, innocent=True, status=0), 1),  # after the event it counts as well
        (every(0.2, 1, 2, innocent=True, status=503), 0),  # before it not
        ([row(3.0, innocent=True, status=503)], 0),  # 4 of 5, and those who need it make up for it
    ],
)
def test_a_bad_second_is_one_with_less_than_four_fifths_of_what_was_possible(failing, bad):
    fine = [each for each in CALM if not any(each.due == other.due and not each.needs_saber for other in failing)]

    assert judge(BASE, recorded([*fine, *failing])).bad_s == bad


def test_a_second_in_which_nothing_was_possible_is_not_bad():
    judged = judge(replace(BASE, left=0.0), recorded(every(0.25, 0, 12, status=503)))

    assert judged.bad_s == 6  # those after the event
    assert judged.looked_at_s == 10
    assert judged.goodput is None
    assert judged.innocents is None


def test_goodput_is_a_share_of_capacity_or_of_what_came_if_that_is_less():
    some = [row(each.due, status=200 if number % 4 == 0 else 503) for number, each in enumerate(every(0.1, 2, 6))]
    few = [row(2.5), row(3.5, status=503)]

    assert judge(BASE, recorded(some)).goodput == pytest.approx(1.0)  # ten of forty, and ten were possible
    assert judge(BASE, recorded(few)).goodput == pytest.approx(0.5)


def test_innocents_are_those_of_the_event():
    rows = [*CALM, row(1.9, innocent=True, status=503), row(2.05, innocent=True, status=503)]

    assert judge(BASE, recorded(rows)).innocents == pytest.approx(20 / 21)


@pytest.mark.parametrize(
    ("failing", "recovery"),
    [
        ([], 0.0),
        ([row(7.05, status=503)], 1.05),
        ([row(7.05, innocent=True, latency=1.2)], 1.05),
        ([row(9.5, status=503)], None),  # no three seconds of the run are left
        ([row(5.95, status=503)], 0.0),  # in the event
    ],
)
def test_recovery_is_from_when_on_nearly_all_are_good(failing, recovery):
    judged = judge(BASE, recorded([*CALM, *failing]))

    assert judged.recovery_s == (None if recovery is None else pytest.approx(recovery))


def test_recovery_counts_from_when_the_service_was_really_back():
    judged = judge(BASE, recorded([*CALM, row(7.05, status=503)], event=(2.0, 6.8)))

    assert judged.recovery_s == pytest.approx(0.25)


def test_a_service_that_was_not_back_within_the_run_has_not_recovered():
    judged = judge(BASE, recorded(CALM, event=(2.0, 12.5)))

    assert judged.recovery_s is None
    assert judged.after_s == 0.0


def test_a_trip_is_a_closed_circuit_that_opens_within_the_run():
    events = [
        opened(-0.5, "a", "b"),
        opened(3, "a", "b"),
        opened(4, "b", "c"),
        opened(5, "b", "c", old="half-open"),
        opened(6, "b", "c"),
        opened(12.5, "a", "b"),
        {"t": 7, "event": "command.saturated", "by": "b"},
    ]
    judged = judge(BASE, recorded(CALM, events=events))

    assert judged.trips_by_edge == {"a -> b": 1, "b -> c": 2}
    assert judged.trips == 3
    assert judged.saturated == ["b"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"cpu": [0.9, 0.9, 0.9, 0.1]}, "CPU"),
        ({"died": ["b0"]}, "b0 ended"),
        ({"rows": [*CALM, *every(0.1, 0, 1, lag=0.03)]}, "late"),
        ({}, None),
    ],
)
def test_a_run_that_says_nothing_is_void(changed, reason):
    judged = judge(BASE, recorded(**{"rows": CALM, **changed}))

    assert len(judged.void) == (reason is not None)
    assert all(reason in each for each in judged.void)


def test_a_row_is_an_attempt_and_who_got_no_answer_has_no_status():
    plan = Plan(80, 1.0, array("d", [0.0, 0.5]), [b"", b""], array("l", [NEED_LANE, FREE_LANE]))
    outcome = Outcome()
    for which, due, status in ((0, 0.0, LATE), (1, 0.5, 200), (0, 2.0, BROKEN), (0, 4.0, 503)):
        for name, value in {"which": which, "due": due, "latency": 0.1, "status": status, "lag": 0.0}.items():
            getattr(outcome, name).append(value)
    rows = rows_of(plan, outcome)

    assert [each.status for each in rows] == [0, 200, 0, 503]
    assert [each.needs_saber for each in rows] == [True, False, True, True]
    assert [each.good for each in rows] == [False, True, False, False]


# --- the table --------------------------------------------------------------------------------------------------------


def reported(**changed):
    events = [opened(3, "a", "b"), opened(4, "b", "c")]
    judged = judge(BASE, recorded(CALM, events=events))
    names = {"scenario": "brownout", "title": "slow", "services": 3, "variant": Variant.PLAIN.value, "seed": 1}
    return {**names, **judged.as_dict(), **changed}


def test_a_line_says_what_was_measured():
    text = report.line(reported())

    for expected in ("plain", "0 of 10", "1.000", "0.0 s", "a→b 1, b→c 1", "20% (10%)", "1 ms"):
        assert expected in text
    assert "VOID" not in text


def test_a_void_run_is_marked_and_says_why():
    text = report.line(reported(void=["the generator was late"]))

    assert "plain VOID" in text
    assert text.endswith("void: the generator was late")


def test_what_could_not_be_measured_is_not_a_number():
    text = report.line(reported(innocents=None, goodput=None, recovery_s=None))

    assert "> 3 s" in text  # six were watched, and three must be good
    assert "None" not in text


def test_markdown_has_a_table_for_each_scenario():
    text = report.markdown([reported(), reported(services=5), reported(title="down")], machine="2 cores.")

    assert text.startswith("2 cores.\n\n**Slow**\n\n| services | variant |")
    assert text.count("| services | variant |") == 2
    assert text.count("**Down**") == 1
    assert text.count("| plain |") == 3


def test_the_tables_go_between_the_markers_and_nothing_else_changes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n")

    for _ in range(2):
        report.write(page, "new\n")

        assert page.read_text() == f"before\n\n{report.BEGIN}\n\nnew\n\n{report.END}\n\nafter\n"


@pytest.mark.parametrize("text", ["", report.BEGIN, f"{report.END} {report.BEGIN}", (report.BEGIN + report.END) * 2])
def test_a_page_without_its_markers_is_left_alone(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)

    with pytest.raises(ValueError, match="must hold"):
        report.write(page, "new\n")

    assert page.read_text() == text
