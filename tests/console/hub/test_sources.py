"""The sum over hosts: whatever they do, no total falls, and none grows by more than was really counted."""

import itertools
from types import SimpleNamespace

import pytest
from hub_reports import START, arrival_of, report_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from groundfault.console.hub.accepting import Names
from groundfault.console.hub.hosts import Troubles, rows_of
from groundfault.console.hub.sources import GONE_S, KEPT_S, FullError, Moment, Sources
from groundfault.console.hub.totals import add_totals, difference, has_fallen
from groundfault.metrics.report import Report


@pytest.fixture
def hub():
    return Clocked()


class Clocked:
    """Sources, with a clock that stands still until it is told to move."""

    def __init__(self):
        self.sources = Sources()
        self.at = 0.0

    @property
    def now(self):
        return Moment(1000.0 + self.at, START + self.at)

    def move(self, seconds):
        self.at += seconds
        self.sources.pass_time(self.now)

    def hear(self, calls, *, host="web-1", ahead_s=0.0, sent_ago_s=0.0, **more):
        arrival = arrival_of(calls, host=host, at=START + self.at + ahead_s - sent_ago_s, **more)
        self.sources.take(arrival, self.now, "10.0.0.1")

    def count(self, command="get", service="topps"):
        known = self.sources.services.get(service)
        found = None if known is None else known.merged().commands.get(("db", command))
        return 0 if found is None else found.calls.get("success", 0)

    def merged(self, service="topps"):
        return self.sources.services[service].merged()

    def rows(self, troubles=None):
        return {row["host"]: row for row in rows_of(self.sources.all(), troubles or Troubles(), self.now.at)}


def test_a_host_counts_from_when_it_is_first_heard_of(hub):
    hub.hear({"get": 1_000_000})
    assert hub.count() == 0
    hub.move(1.0)
    hub.hear({"get": 1_000_010})
    assert hub.count() == 10
    assert hub.merged().commands["db", "get"].durations["success"].count == 10
    assert hub.merged().servers["topps"].requests == {("admitted", "critical"): 10}


def test_hosts_of_a_service_are_one_sum_and_services_are_apart(hub):
    for each in (0, 5):
        hub.hear({"get": each}, host="web-1")
        hub.hear({"get": 2 * each}, host="web-2")
        hub.hear({"get": 3 * each}, host="web-2", title="saber", directory="/run/saber")
        hub.move(1.0)
    assert (hub.count(), hub.count(service="saber")) == (15, 15)
    assert hub.merged().commands["db", "get"].limit == 10
    assert hub.rows()["web-2"]["services"] == ["saber", "topps"]


def test_a_host_that_begins_anew_takes_nothing_away(hub):
    hub.hear({"get": 100})
    hub.move(1.0)
    hub.hear({"get": 150})
    hub.move(1.0)
    hub.hear({"get": 3})
    assert hub.count() == 50
    hub.move(1.0)
    hub.hear({"get": 10})
    assert hub.count() == 57


def test_processes_of_a_host_keep_its_name_when_another_of_its_services_comes_back(hub):
    for title in ("topps", "saber"):
        hub.hear({"get": 1}, title=title, directory=f"/run/{title}")
    before = [each.pid for source in hub.sources.all() for each in source.processes]
    for _ in range(70):
        hub.move(1.0)
        hub.hear({"get": 1}, title="saber", directory="/run/saber")
    hub.hear({"get": 1}, title="topps", directory="/run/topps")
    now = [each.pid for source in hub.sources.all() for each in source.processes]
    assert before[0] != now[0]
    assert {hub.sources.who(number) for number in (*before, *now)} == {("web-1", 7)}


def test_numbers_that_are_used_no_more_are_forgotten(hub):
    hub.hear({"get": 1}, host="steady")
    for _ in range(6000):
        hub.sources._number("web-1", is_new=True)
    assert len(hub.sources._hosts) <= 4 * 500
    assert {hub.sources.who(each.pid)[0] for source in hub.sources.all() for each in source.processes} == {"steady"}


def test_what_could_not_be_read_for_a_moment_does_not_count_again(hub):
    hub.hear({"get": 100, "put": 100})
    hub.move(1.0)
    hub.hear({"get": 110, "put": 110})
    hub.move(1.0)
    hub.hear({"put": 120})  # the file of the process that calls get
    assert (hub.count(), hub.count("put")) == (10, 10)
    hub.move(1.0)
    hub.hear({"get": 130, "put": 130})
    assert (hub.count(), hub.count("put")) == (30, 30)


def test_what_comes_back_after_a_minute_counts_from_there_on(hub):
    hub.hear({"get": 100, "put": 5})
    hub.move(1.0)
    hub.hear({"put": 6})
    for number in range(61):
        hub.move(1.0)
        hub.hear({"put": 7 + number})
    assert hub.count() == 0
    hub.move(1.0)
    hub.hear({"get": 20, "put": 100})
    assert hub.count() == 20  # as of a command that is new


def test_a_host_that_falls_silent_is_late_then_gone_and_its_totals_stay(hub):
    hub.hear({"get": 0})
    hub.move(1.0)
    hub.hear({"get": 7})
    hub.move(6.0)
    assert hub.rows()["web-1"]["state"] == "late"
    assert hub.merged().commands["db", "get"].limit == 5
    hub.move(GONE_S)
    row = hub.rows()["web-1"]
    assert (row["state"], row["why"], row["processes"]) == ("gone", "nothing heard for 66 s", 0)
    assert hub.count() == 7
    assert hub.merged().commands["db", "get"].limit == 0
    assert hub.merged().processes == []
    (episode,) = hub.sources.episodes.values()
    assert (episode["subject"], episode["began_at"], episode["ended_at"]) == ("web-1", START + 1.0, None)
    hub.move(KEPT_S)
    assert hub.rows() == {}
    assert hub.sources.services == {}
    assert episode["what"] == "gone, and forgotten after an hour"


def test_a_host_that_was_gone_and_comes_back_does_not_jump(hub):
    hub.hear({"get": 0})
    before = hub.merged().processes[0].pid
    hub.move(GONE_S + 1)
    hub.hear({"get": 100_000})
    assert hub.count() == 0
    hub.move(1.0)
    hub.hear({"get": 100_003})
    assert hub.count() == 3
    (episode,) = hub.sources.episodes.values()
    assert episode["ended_at"] == START + GONE_S + 1
    # Its processes have been seen to end, so they are told apart from those.
    assert hub.merged().processes[0].pid != before
    assert hub.sources.who(hub.merged().processes[0].pid) == ("web-1", 7)


def test_a_forgotten_host_leaves_its_totals_to_the_others(hub):
    for each in (0, 9):
        hub.hear({"get": each}, host="web-1")
        hub.hear({"get": each}, host="web-2")
        hub.move(1.0)
    for number in range(int(KEPT_S / 50) + 2):
        hub.move(50.0)
        hub.hear({"get": 10 + number}, host="web-2")
    assert list(hub.rows()) == ["web-2"]
    assert hub.count() == 9 + 10 + number  # of web-1, and all of web-2


def test_processes_of_different_hosts_stay_apart_though_their_ids_are_equal(hub):
    hub.hear({"get": 0}, host="web-1", pid=7)
    hub.hear({"get": 0}, host="web-2", pid=7)
    pids = [each.pid for each in hub.merged().processes]
    assert len(set(pids)) == 2
    assert [hub.sources.who(pid) for pid in pids] == [("web-1", 7), ("web-2", 7)]


@pytest.mark.parametrize(("ahead_s", "shown"), [(0.0, 0.0), (0.6, 0.0), (-0.9, 0.0), (3600.0, 3600.0), (-90.0, -90.0)])
def test_a_clock_that_is_wrong_is_shown_and_changes_no_age(hub, ahead_s, shown):
    hub.hear({"get": 0}, ahead_s=ahead_s)
    row = hub.rows()["web-1"]
    assert (row["skew_s"], row["age_s"]) == (pytest.approx(shown), 0.0)
    assert hub.merged().processes[0].written_at == pytest.approx(START, abs=1.0)


def test_processes_write_as_steadily_as_the_hosts_clock_goes_whatever_the_network_does(hub):
    written = []
    for delay_s in (0.0, 0.4, 0.1, 0.6, 0.0):
        hub.at = len(written) + delay_s
        hub.hear({"get": 0}, ahead_s=500.0, sent_ago_s=delay_s)
        written.append(hub.merged().processes[0].written_at)
    assert [after - before for before, after in itertools.pairwise(written)] == pytest.approx([1.0] * 4)


def test_a_clock_that_is_set_back_is_followed(hub):
    hub.hear({"get": 0})
    hub.move(1.0)
    hub.hear({"get": 3}, ahead_s=-3600.0)
    assert hub.count() == 3
    assert hub.merged().processes[0].written_at == pytest.approx(START + 1.0)


def test_the_same_report_again_is_no_news_and_one_that_was_overtaken_is_passed_over(hub):
    hub.hear({"get": 0})
    hub.move(1.0)
    hub.hear({"get": 5})
    hub.move(0.5)
    hub.hear({"get": 2}, sent_ago_s=1.0)
    assert hub.count() == 5
    hub.move(6.0)
    hub.hear({"get": 5}, sent_ago_s=6.5)  # a console whose recorder stands still
    assert hub.rows()["web-1"]["state"] == "late"


def test_two_hosts_of_one_name_are_noticed(hub):
    for number in range(16):
        hub.hear({"get": number + (1000 if number % 2 else 0)})
        hub.move(1.0)
    assert "have two hosts this name?" in hub.rows()["web-1"]["why"]
    assert hub.count() < 1100  # the higher of the two, once


def test_a_service_that_was_taken_off_a_host_does_not_make_the_host_gone(hub):
    hub.hear({"get": 0})
    hub.hear({"get": 0}, title="saber", directory="/run/saber")
    for number in range(1, 70):
        hub.move(1.0)
        hub.hear({"get": number})
    row = hub.rows()["web-1"]
    assert (row["state"], row["why"]) == ("live", "nothing heard of saber for 69 s")


def test_who_sends_too_often_is_told_so(hub):
    arrival = arrival_of({"get": 0})
    hub.hear({"get": 0})
    for _ in range(2):
        hub.sources.permit(arrival, hub.now.at)
    with pytest.raises(FullError, match="more than 2 reports a second") as caught:
        hub.sources.permit(arrival, hub.now.at)
    assert caught.value.status == 429
    hub.move(0.5)
    hub.sources.permit(arrival, hub.now.at)


def test_too_many_hosts_are_refused_unless_one_is_gone(hub, monkeypatch):
    monkeypatch.setattr("groundfault.console.hub.sources.MAX_HOSTS", 2)
    monkeypatch.setattr("groundfault.console.hub.sources.MAX_SERVICES", 2)
    hub.hear({"get": 0}, host="a", title="one")
    with pytest.raises(FullError, match="watches 2 hosts already"):
        [hub.hear({"get": 0}, host=host) for host in ("b", "c")]
    hub.move(GONE_S + 1)
    hub.hear({"get": 0}, host="c")
    assert len(list(hub.sources.all())) == 2


def test_too_many_commands_are_counted_together(hub):
    hub.hear({"get": 0})
    hub.sources.services["topps"].names = Names(3)
    for each in (0, 4):
        hub.move(1.0)
        hub.hear({f"c{number}": each for number in range(5)})
    commands = hub.merged().commands
    assert {key: commands[key].calls["success"] for key in (("db", "c2"), ("_other", "_other"))} == {
        ("db", "c2"): 4,
        ("_other", "_other"): 8,
    }
    assert hub.sources.services["topps"].is_folded


def test_what_is_taken_away_and_added_again_leaves_nothing():
    earlier, later = report_of({"get": 3, "put": 9}), report_of({"get": 5}, errors=2)
    change = difference(later, earlier)
    assert change.commands["db", "put"].calls == {"success": -9}
    add_totals(change, earlier)
    assert not has_fallen(change, later)
    assert not has_fallen(later, change)
    assert has_fallen(later, earlier)
    assert not has_fallen(Report(), Report())


# --- the model --------------------------------------------------------------------------------------------------------

HOSTS = st.sampled_from(["web-1", "web-2", "web-3"])
COMMANDS = ("get", "put")


class Fleet(RuleBasedStateMachine):
    """Hosts call, write, fall silent, return, reboot, lose a file for a moment; the hub only hears what arrives."""

    def __init__(self):
        super().__init__()
        self.hub = Clocked()
        self.truth = dict.fromkeys(COMMANDS, 0)  # all that was ever called anywhere
        self.hosts = {}
        self.last = dict.fromkeys(COMMANDS, 0)

    @rule(host=HOSTS, calls=st.integers(0, 1000), command=st.sampled_from(COMMANDS))
    def call(self, host, calls, command):
        self.truth[command] += calls
        self._of(host).counts[command] += calls

    def _of(self, host):
        return self.hosts.setdefault(host, SimpleNamespace(counts=dict.fromkeys(COMMANDS, 0), hidden=None))

    @rule(host=HOSTS)
    def reboot(self, host):
        self._of(host).counts = dict.fromkeys(COMMANDS, 0)

    @rule(host=HOSTS, command=st.sampled_from([*COMMANDS, None]))
    def lose_sight_of_a_file(self, host, command):
        self._of(host).hidden = command

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 30.0, 70.0, 3700.0]))
    def wait(self, seconds):
        self.hub.move(seconds)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), ahead_s=st.sampled_from([0.0, -40.0, 5000.0]))
    def tell(self, data, ahead_s):
        host = data.draw(st.sampled_from(sorted(self.hosts)))
        known = self.hosts[host]
        self.hub.at += 0.01
        self.hub.hear({n: c for n, c in known.counts.items() if n != known.hidden}, host=host, ahead_s=ahead_s)

    @invariant()
    def no_total_falls_while_its_service_is_known(self):
        known = bool(self.hub.sources.services)
        now = {command: self.hub.count(command) for command in COMMANDS}
        if known:
            assert all(now[command] >= self.last[command] for command in COMMANDS)
            durations = [each.durations["success"].count for each in self.hub.merged().commands.values()]
            assert sum(durations) == sum(now.values())
        self.last = now

    @invariant()
    def nothing_is_counted_that_was_not_called(self):
        # What nobody saw for more than a minute may come back as new, but each call at most as often as that happened.
        hidden = any(known.hidden for known in self.hosts.values())
        if not hidden and not getattr(self, "was_hidden", False):
            assert all(self.hub.count(command) <= self.truth[command] for command in COMMANDS)
        self.was_hidden = hidden or getattr(self, "was_hidden", False)


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
