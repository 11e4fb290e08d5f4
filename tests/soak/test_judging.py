import pytest
from chaotic import judging
from chaotic.looking import Look, Seen

from groundfault.lab.runs.record import Stream
from groundfault.lab.runs.tally import Fate, Tally
from groundfault.metrics.report import CommandReport, ProcessInfo, Report, ServerReport, StoreReport

SPANS = judging.Spans(before=(0, 10), chaos=(10, 310), calm=(310, 320), quiet_s=3, window_s=3)
AT_REST = ((0, 10), (320, 320))


def look(t, *, role="saber worker", pid=1, uss=30.0, handles=20, threads=5, sockets=10):
    return Look(t, role, pid, uss + 10, uss, handles, threads, sockets)


def seen(*looks):
    result = Seen()
    for each in looks:
        first = result.lives.get(each.pid, (each.role, each.t, 0.0))[1]
        result.lives[each.pid] = each.role, first, each.t
        result.looks.append(each)
    return result


def missed(checks):
    return {check.measure for check in checks if check.met is False}


def everybody(t, **what):
    return [look(t, role=role, pid=number, **what) for number, role in enumerate(judging.GROWN)]


def test_processes_that_hold_what_they_held_meet_all_bounds():
    assert not missed(judging.of_processes(seen(*everybody(5), *everybody(320)), SPANS, AT_REST))


@pytest.mark.parametrize(
    ("what", "measure"), [("uss", "uss"), ("handles", "handles"), ("threads", "threads"), ("sockets", "sockets")]
)
def test_what_a_process_has_kept_is_found(what, measure):
    checks = judging.of_processes(seen(*everybody(5), *everybody(320, **{what: 130})), SPANS, AT_REST)
    assert missed(checks) == {f"{role.replace(' ', '_')}_{measure}_grown" for role in judging.GROWN}


def test_what_nobody_looked_at_meets_no_bound():
    assert len(missed(judging.of_processes(Seen(), SPANS, AT_REST))) == 4 * len(judging.GROWN)


@pytest.mark.parametrize(("mb_per_minute", "is_missed"), [(0.0, False), (1.9, False), (2.1, True), (10.0, True)])
def test_steady_growth_after_warming_up_is_found_in_one_process(mb_per_minute, is_missed):
    looks = [look(t, pid=7, uss=30 + 50 * (t < 70) + mb_per_minute * t / 60) for t in range(10, 310, 5)]
    checks = judging.of_processes(seen(*looks), SPANS, AT_REST)
    assert ("saber_worker_slope" in missed(checks)) is is_missed


def test_a_process_that_did_not_live_long_says_nothing_of_growth():
    looks = [look(t, uss=t) for t in range(200, 310, 5)]
    assert seen(*looks).slopes(10, 310, warm_s=60, least_s=90) == {}


def report(**changes):
    command = CommandReport("contest-db", "entrants", states={"closed": 2}, active=changes.pop("active", 0))
    command.states = changes.pop("states", command.states)
    server = ServerReport("saber", active=changes.pop("held", 0), shedding=changes.pop("shedding", 0))
    result = Report(
        commands={("contest-db", "entrants"): command},
        servers={"saber": server},
        stores={"file": StoreReport("file", versions=changes.pop("versions", {"a": 2}), rejected=3)},
        processes=[ProcessInfo(pid, "saber", 100.0) for pid in range(2)],
    )
    for name, value in changes.items():
        setattr(result, name, value)
    return result


@pytest.mark.parametrize(
    ("changes", "measure"),
    [
        ({"active": 1}, "permits_held"),
        ({"states": {"closed": 1, "half-open": 1}}, "circuits_not_closed"),
        ({"held": 1}, "requests_held"),
        ({"shedding": 1}, "still_shedding"),
        ({"internal_errors": {"metrics": 1}}, "internal_errors"),
        ({"processes": []}, "reports_missing"),
        ({"processes": [ProcessInfo(1, "saber", 100.0), ProcessInfo(2, "saber", 94.0)]}, "reports_missing"),
        ({"unread": {"a.json": "spoiled"}}, "reports_unread"),
        ({"versions": {"a": 1, "b": 1}}, "settings_versions"),
    ],
)
def test_what_a_process_says_of_itself_is_held_to_nothing(changes, measure):
    assert not missed(judging.of_reports({"saber": report()}, 101.0, 2, 1))
    assert missed(judging.of_reports({"saber": report(**changes)}, 101.0, 2, 1)) == {measure}


def streams(fate_of, seconds=320):
    tally = Tally()
    for second in range(seconds):
        for tenth in range(10):
            due = second + tenth / 10
            tally.send(due, due)
            fate = fate_of(due)
            if fate is not None:
                tally.settle(due, fate, 0.01)
    return [Stream.of("fan", tally, seconds)]


@pytest.mark.parametrize(
    ("fate_of", "expected"),
    [
        (lambda _: Fate.GOOD, set()),
        (lambda due: Fate.SHED if 10 <= due < 315 else Fate.GOOD, set()),
        (lambda due: Fate.SHED if 10 <= due < 318 else Fate.GOOD, {"shed_in_calm", "recovery"}),
        (lambda due: Fate.LATE if due >= 310 else Fate.GOOD, {"recovery"}),
        (lambda due: None if due == 100.0 else Fate.GOOD, {"without_fate"}),
    ],
)
def test_what_became_of_the_requests(fate_of, expected):
    assert missed(judging.of_traffic(streams(fate_of), SPANS)) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([(10, 10)] * 5, 0.0),
        ([(0, 10), (5, 10), *[(10, 10)] * 5], 2.0),
        ([*[(10, 10)] * 3, (0, 10), *[(10, 10)] * 3], 4.0),
        ([(10, 10)] * 2, None),
        ([*[(10, 10)] * 9, (0, 10)], None),
        ([(0, 0)] * 9, None),
    ],
)
def test_recovered_is_who_stays_so(seconds, expected):
    assert judging.recovery_s(seconds, 3) == expected


@pytest.mark.parametrize(
    ("counted", "kills", "expected"),
    [
        (1000, 0, set()),
        (950, 0, set()),
        (949, 0, {"counts_missing"}),
        (949, 1, set()),
        (700, 1, {"counts_missing"}),
        (1001, 3, {"counts_too_many"}),
    ],
)
def test_counts_may_miss_what_the_killed_took_with_them_and_no_more(counted, kills, expected):
    report = Report(servers={"topps": ServerReport("topps", requests={("admitted", "critical"): counted})})
    assert missed(judging.of_counts(report, 1000, 950, kills, 100.0)) == expected


def test_only_those_may_die_that_were_killed_or_relieved():
    watched = seen(look(1, pid=1), look(1, pid=2), look(1, pid=3), look(1, pid=4))
    assert not missed(judging.of_lives(watched, {1, 2}, {3}, {4}, [])[0])
    checks, names = judging.of_lives(watched, {1}, {3}, {4}, ["topps"])
    assert (missed(checks), names) == ({"died"}, ["saber worker 2", "topps"])


def test_a_traceback_in_a_log_is_found_and_said_where():
    checks = judging.of_logs({"saber": "well\n", "topps": "Traceback (most recent call last):\n"})
    assert missed(checks) == {"tracebacks"}
    assert "topps: 1" in checks[0].title


def test_a_trouble_that_never_came_makes_it_no_soak():
    assert missed(judging.of_troubles({"kill": 1}, ("kill", "freeze"))) == {"done_freeze"}
