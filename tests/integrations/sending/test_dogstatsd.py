"""A Datadog agent's view: real sockets, real forks, deltas that add up, and nobody who waits for an agent."""

import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from groundfault._histogram import BOUNDS_S
from groundfault.breaker import Registry, Resource
from groundfault.events import CircuitChanged, SheddingChanged, internal_errors
from groundfault.integrations import _trouble, dogstatsd
from groundfault.integrations._dogstatsd_wire import UDP_BYTES, Address, address_of, line, packed, tags_of
from groundfault.integrations._own_report import OF_FILES
from groundfault.integrations.dogstatsd import DogStatsD
from groundfault.metrics.catalogue import CATALOGUE
from groundfault.metrics.collecting import collect
from groundfault.metrics.report import Report
from groundfault.sinks import Sinks, flush
from groundfault.vocabulary import Reason, State

LONG_S = 20.0
LINE = re.compile(
    r"(?P<name>[\w.]+):(?P<value>[-+.\de]+)\|(?P<kind>[cgdh])(?:\|@(?P<rate>[.\de-]+))?(?:\|#(?P<tags>\S+))?"
)
ENVIRONMENT = (
    *("DD_DOGSTATSD_URL", "DD_AGENT_HOST", "DD_DOGSTATSD_PORT", "DD_TAGS", "DD_ENTITY_ID"),
    *("DD_ENV", "DD_SERVICE", "DD_VERSION", "GROUNDFAULT_SERVICE"),
)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


class Agent:
    """Listens as an agent does. ``lines`` are what has come until now, each as a dictionary."""

    def __init__(self, family, address):
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(LONG_S)

    @property
    def url(self):
        name = self.socket.getsockname()
        return f"unix://{name}" if isinstance(name, str) else f"udp://127.0.0.1:{name[1]}"

    def packets(self):
        found = []
        self.socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(1 << 16))
        return found

    def raw(self):
        return [each for packet in self.packets() for each in packet.decode().split("\n")]

    def lines(self):
        found = []
        for each in self.raw():
            match = LINE.fullmatch(each)
            assert match, each
            tags = dict(tag.split(":", 1) for tag in (match["tags"] or "").split(",") if tag)
            times = int(1 / float(match["rate"])) if match["rate"] else 1  # as the agent cuts it
            found.append((match["name"], float(match["value"]), match["kind"], times, tags))
        return found

    def sums(self, kind="c"):
        """Add counts up as the agent does, by name and the tags that are not of the process."""
        sums = {}
        for name, value, of_kind, times, tags in self.lines():
            if of_kind == kind:
                key = name, tuple(sorted(tags.items()))
                sums[key] = sums.get(key, 0) + (value if kind == "c" else times)
        return sums


@pytest.fixture(params=["udp", "unix"])
def agent(request, tmp_path):
    unix = request.param == "unix"
    made = Agent(socket.AF_UNIX, str(tmp_path / "dsd.socket")) if unix else Agent(socket.AF_INET, ("127.0.0.1", 0))
    yield made
    made.socket.close()


@pytest.fixture
def made():
    """Return a function that makes emitters of a report of the test's own."""
    emitters = []

    def make(agent, source=None, **settings):
        url = agent if isinstance(agent, str) else agent.url
        emitter = DogStatsD(url, source=source, **settings)
        emitters.append(emitter)
        return emitter

    yield make
    for each in emitters:
        each.stop()


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_everything_in_the_catalogue_is_sent_under_its_name_and_labels(agent, made, full_report):
    made(agent, lambda now: full_report()).flush()
    labels = {}
    for name, _, kind, _, tags in agent.lines():
        labels.setdefault(name, set()).add((kind, tuple(name for name in tags if name != "worker")))
    kinds = {"counter": "c", "gauge": "g", "histogram": "d"}
    assert labels == {
        metric.dotted: {(kinds[metric.kind], metric.labels)} for metric in CATALOGUE if metric.dotted not in OF_FILES
    }


def test_totals_are_told_as_what_is_new(agent, made, full_report):
    report = full_report()
    emitter = made(agent, lambda now: report)
    emitter.flush()
    key = ("groundfault.command.calls", (("command", "get"), ("outcome", "success"), ("resource", "saber")))
    assert agent.sums()[key] == 3
    report.commands["saber", "get"].calls["success"] = 10
    emitter.flush()
    assert agent.sums() == {key: 7}
    emitter.flush()
    assert agent.sums() == {}  # and nothing is sent of what stands still


@pytest.mark.parametrize(("seen", "told"), [([5, 4, 6], 6), ([5, 1, 3], 8)])
def test_a_total_that_shrinks_a_little_is_told_once_one_that_begins_anew_is_told_anew(agent, made, seen, told):
    numbers = iter(seen)

    def source(now):
        return Report(internal_errors={"here": next(numbers)})

    emitter, total = made(agent, source), 0
    for _ in seen:
        emitter.flush()
        total += sum(agent.sums().values())
    assert total == told


def test_durations_are_told_by_bucket_near_the_truth_and_with_the_right_mean(agent, made, full_report, histogram):
    values_s = [0.011, 0.0101, 0.0123, *[0.0202] * 50, 3.0, 150.0, 0.0]
    report = full_report()
    report.commands["saber", "get"].durations = {"success": histogram(*values_s)}
    emitter = made(agent, lambda now: report)
    emitter.flush()
    told = [(value, times) for name, value, _, times, _ in agent.lines() if name == "groundfault.command.duration"]
    each = sorted(value for value, times in told for _ in range(times))
    assert len(each) == len(values_s)
    for value, true in zip(each, sorted(values_s), strict=True):
        assert value == pytest.approx(true, rel=0.25, abs=1e-5) or true > BOUNDS_S[-1]
    assert sum(each) == pytest.approx(sum(values_s), rel=0.02)
    report.commands["saber", "get"].durations["success"].add(0.5)
    emitter.flush()
    told = [(value, times) for name, value, _, times, _ in agent.lines() if name == "groundfault.command.duration"]
    assert told == [(0.5, 1)]


def test_durations_may_be_histograms_of_the_agent(agent, made, full_report):
    made(agent, lambda now: full_report(), durations="h").flush()
    assert {kind for name, _, kind, _, _ in agent.lines() if name.endswith("duration")} == {"h"}


@pytest.mark.parametrize("times", [2, 3, 7, 49, 98, 1000, 123_457, 10**7])
def test_the_agent_finds_as_many_values_as_there_were(times):
    rate = float(line("x", 1.0, "d", {}, times=times).decode().rsplit("@", 1)[1])
    assert int(1 / rate) == times


def test_gauges_carry_the_worker_and_nothing_else_does(agent, made, full_report):
    first, second = (made(agent, lambda now: full_report()) for _ in range(2))
    first.flush()
    second.flush()
    workers = {(kind, tags.get("worker")) for _, _, kind, _, tags in agent.lines()}
    assert workers == {("c", None), ("d", None), ("g", "0"), ("g", "1")}
    first.stop()
    third = made(agent, lambda now: full_report())
    third.flush()
    assert {tags["worker"] for _, _, kind, _, tags in agent.lines() if kind == "g"} == {"0"}  # it is free again


def test_without_the_tag_gauges_have_none(agent, made, full_report):
    made(agent, lambda now: full_report(), worker_tag=False).flush()
    assert not any("worker" in tags for *_, tags in agent.lines())


def test_names_can_have_a_prefix(agent, made, full_report):
    made(agent, lambda now: full_report(), prefix="contest.").flush()
    assert {name.split(".")[0] for name, *_ in agent.lines()} == {"contest"}


def test_tags_of_the_environment_are_in_every_line_and_labels_go_before(agent, made, monkeypatch, full_report):
    for name, value in {
        "DD_ENV": "prod",
        "DD_SERVICE": "contest",
        "DD_VERSION": "1.2",
        "DD_TAGS": "team:fans,tier:1 flag",
        "DD_ENTITY_ID": "pod-7",
    }.items():
        monkeypatch.setenv(name, value)
    made(agent, lambda now: full_report(), tags={"tier": "2"}).flush()
    for name, *_, tags in agent.lines():
        assert (tags["env"], tags["team"], tags["tier"], tags["flag"]) == ("prod", "fans", "2", "none")
        assert tags["version"] == ("7" if name == "groundfault.settings.version" else "1.2")
        assert tags["dd.internal.entity_id"] == "pod-7"
        assert tags["service"] == ("topps" if ".server." in name or ".processes" in name else "contest") or (
            name.startswith("groundfault.edge.")
        )


def test_what_has_a_meaning_in_a_line_is_none_in_a_tag():
    assert tags_of({}, {}) == {}
    evil = {"where": "a|#b,c\nx:1|c@", "empty": "", "long": "y" * 300, "word": "Zürich-1/2.x", "odd": "\ud800"}
    assert line("x", 1, "c", evil).decode() == (
        f"x:1|c|#where:a__b_c_x:1_c_,empty:none,long:{'y' * 200},word:Zürich-1/2.x,odd:_"
    )


# --- packets ----------------------------------------------------------------------------------------------------------


def test_packets_are_as_large_as_may_be_and_no_larger(agent, made):
    report = Report(internal_errors={f"place-{number}": 1 for number in range(500)})  # a unix socket queues ten packets
    made(agent, lambda now: report).flush()
    packets = agent.packets()
    limit = 8192 if agent.socket.family == socket.AF_UNIX else 1432
    assert max(map(len, packets)) <= limit
    assert min(map(len, packets[:-1])) > limit - 100
    assert b"\n".join(packets).count(b"internal_errors") == 500


@pytest.mark.parametrize(
    ("lines", "packets"),
    [
        ([], []),
        ([b"aa"], [b"aa"]),
        ([b"aa", b"bb"], [b"aa\nbb"]),
        ([b"aa", b"bb", b"c"], [b"aa\nbb", b"c"]),
        ([b"longer", b"b"], [b"longer", b"b"]),
    ],
)
def test_how_lines_are_packed(lines, packets):
    assert [packet for packet, _ in packed(lines, 5)] == packets
    assert sum(number for _, number in packed(lines, 5)) == len(lines)


# --- where to ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "environ", "address"),
    [
        (None, {}, Address("localhost", 8125)),
        (None, {"DD_AGENT_HOST": "10.0.0.1"}, Address("10.0.0.1", 8125)),
        (None, {"DD_AGENT_HOST": "10.0.0.1", "DD_DOGSTATSD_PORT": "9125"}, Address("10.0.0.1", 9125)),
        (None, {"DD_DOGSTATSD_URL": "unix:///run/dsd.socket", "DD_AGENT_HOST": "x"}, Address(path="/run/dsd.socket")),
        ("udp://agent", {"DD_DOGSTATSD_URL": "unix:///run/dsd.socket"}, Address("agent", 8125)),
        ("udp://[::1]:9125", {}, Address("::1", 9125)),
        ("unixgram:///run/dsd.socket", {}, Address(path="/run/dsd.socket")),
    ],
)
def test_where_packets_go(url, environ, address):
    assert address_of(url, environ) == address


@pytest.mark.parametrize(
    ("url", "environ", "why"),
    [
        ("tcp://agent:1", {}, "url must be udp://host:port or unix:///path, not 'tcp://agent:1'"),
        ("unix://relative", {}, "url must be"),
        ("udp://agent:http", {}, "url must be"),
        (None, {"DD_DOGSTATSD_URL": "unixstream:///x"}, "DD_DOGSTATSD_URL must be"),
        (None, {"DD_DOGSTATSD_PORT": "0"}, "DD_DOGSTATSD_PORT must be a port from 1 to 65535, not '0'"),
        (None, {"DD_DOGSTATSD_PORT": "x"}, "DD_DOGSTATSD_PORT"),
    ],
)
def test_what_is_no_address_is_told_at_once(url, environ, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        address_of(url, environ)


@pytest.mark.parametrize(
    "settings", [{"interval_s": 0.5}, {"interval_s": float("nan")}, {"prefix": "1|x"}, {"durations": "ms"}]
)
def test_wrong_settings_are_told_at_once(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        DogStatsD("udp://127.0.0.1:8125", **settings)


# --- agents that are not there ----------------------------------------------------------------------------------------


def test_while_there_is_no_socket_file_totals_are_kept_back(tmp_path, made, caplog, full_report):
    path = tmp_path / "dsd.socket"
    report = full_report()
    emitter = made(f"unix://{path}", lambda now: report)
    emitter.flush()
    report.commands["saber", "get"].calls["success"] = 10
    emitter.flush()
    assert [record.getMessage() for record in caplog.records] == [
        f"dogstatsd: <DogStatsD to {path}> cannot be reached: FileNotFoundError; 0 lost so far"
    ]
    agent = Agent(socket.AF_UNIX, str(path))
    emitter.flush()
    key = ("groundfault.command.calls", (("command", "get"), ("outcome", "success"), ("resource", "saber")))
    assert agent.sums()[key] == 10
    agent.socket.close()  # the file is still there, and nobody listens
    emitter.flush()
    path.unlink()
    agent = Agent(socket.AF_UNIX, str(path))
    report.commands["saber", "get"].calls["success"] = 12
    emitter.flush()
    assert agent.sums()[key] == 2
    agent.socket.close()
    assert internal_errors() == {}


def test_packets_that_nobody_takes_are_counted_and_said_once_a_minute(made, caplog):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"udp://127.0.0.1:{closed.getsockname()[1]}"
    report = Report(internal_errors={f"place-{number}": 1 for number in range(100)})
    emitter = made(url, lambda now: report)
    packets = len(list(packed(emitter._lines(report, 0.0), UDP_BYTES)))
    emitter._sent.clear()
    for _ in range(3):
        report.internal_errors = {name: times + 1 for name, times in report.internal_errors.items()}
        emitter.flush()
    assert emitter.lost == 3 * packets
    assert len(caplog.records) == 1
    assert "ConnectionRefusedError" in caplog.text or "ECONNREFUSED" in caplog.text


def test_an_agent_that_does_not_read_holds_nothing_up(tmp_path, made):
    stuck = Agent(socket.AF_UNIX, str(tmp_path / "dsd.socket"))
    report = Report(internal_errors={f"place-{number}": 1 for number in range(20_000)})
    emitter = made(stuck, lambda now: report)
    done = threading.Thread(target=emitter.flush, daemon=True)
    done.start()
    done.join(LONG_S)
    assert not done.is_alive()
    assert emitter.lost > 50
    stuck.socket.close()


def test_a_host_that_is_not_known_is_no_error_of_ours(made, caplog, full_report):
    emitter = made("udp://agent.invalid:8125", lambda now: full_report())
    emitter.flush()
    assert "cannot be reached: gaierror" in caplog.text
    assert internal_errors() == {}


def test_a_report_that_cannot_be_made_is_counted(agent, made):
    def broken(now):
        raise RuntimeError("report")

    made(agent, broken).flush()
    assert internal_errors() == {"dogstatsd": 1}


def test_a_log_that_raises_is_survived(monkeypatch):
    def broken(*args):
        raise RuntimeError("handler")

    monkeypatch.setattr(_trouble._log, "warning", broken)
    trouble = _trouble.Trouble("it")
    trouble.note("why", 3)
    assert trouble.lost == 3


# --- the thread, forks and the end ------------------------------------------------------------------------------------


def test_it_sends_by_itself_and_the_last_at_the_end(agent, made):
    registry = Registry()
    command = Resource("saber", registry=registry, sinks=[]).command("get")
    emitter = made(agent, lambda now: collect(now, [registry]), interval_s=1.0).start()
    assert emitter.start() is emitter
    command.call(int)
    agent.socket.settimeout(LONG_S)
    assert b"groundfault.command.calls:1|c" in agent.socket.recv(1 << 16)
    agent.packets()
    command.call(int)
    emitter.stop(LONG_S)
    assert sum(value for (name, _), value in agent.sums().items() if name == "groundfault.command.calls") == 1


WORKERS = """
import os, sys
from groundfault.breaker import Registry, Resource
from groundfault.integrations import dogstatsd

emitter = dogstatsd.start({url!r})
command = Resource("saber", sinks=[]).command("get", max_concurrent=5)
for _ in range(5):
    command.call(int)
emitter.flush()
readings = []
for worker in range(2):
    if os.fork() == 0:
        for _ in range(10 + worker):
            command.call(int)
        emitter.flush()  # both claim a number while both live
        os.write({told}, b"x")
        sys.stdin.read()
        for _ in range(100):
            command.call(int)
        sys.exit(0)
command.call(int)
os.write({told}, b"x")
sys.stdin.read()
for _ in range(2):
    os.wait()
"""


@pytest.mark.e2e
def test_forked_workers_add_up_and_each_has_a_number(agent):
    """Parent 6, workers 110 and 111: what was sent at the end of each process too."""
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", WORKERS.format(url=agent.url, told=writing)], stdin=subprocess.PIPE, pass_fds=[writing]
    ) as process:
        os.close(writing)
        for _ in range(3):
            assert os.read(reading, 1) == b"x"
        process.stdin.close()
        assert process.wait(LONG_S) == 0
    os.close(reading)
    calls, workers = 0, set()
    for name, value, kind, _, tags in agent.lines():
        calls += value if name == "groundfault.command.calls" else 0
        workers |= {tags["worker"]} if kind == "g" else set()
    assert (calls, workers) == (6 + 110 + 111, {"0", "1", "2"})


def test_starting_again_sends_nothing_twice(agent):
    command = Resource("twice", sinks=[]).command("get")
    command.call(int)
    first = dogstatsd.start(agent.url)
    first.flush()
    second = dogstatsd.start(agent.url, interval_s=5.0)
    try:
        second.flush()
        key = ("groundfault.command.calls", (("command", "get"), ("outcome", "success"), ("resource", "twice")))
        assert agent.sums()[key] == 1
    finally:
        second.stop()


def test_where_no_thread_can_be_had_the_process_goes_on(agent, made, monkeypatch, full_report):
    def exhausted(thread):
        raise RuntimeError("can't start new thread")

    emitter = made(agent, lambda now: full_report())
    with monkeypatch.context() as exhaustion:
        exhaustion.setattr(threading.Thread, "start", exhausted)
        emitter.start()
    assert internal_errors() == {"dogstatsd thread": 1}
    emitter.start()
    emitter.stop(LONG_S)
    assert agent.lines()


# --- events -----------------------------------------------------------------------------------------------------------


def test_changes_become_events_of_the_stream(agent, made):
    emitter = made(agent, clock=lambda: 1_700_000_000.5, tags={"team": "fans"})
    sinks = Sinks(emitter)
    assert sinks.commands == ()
    sinks.change(CircuitChanged("saber", "get", State.CLOSED, State.OPEN, 12, 20, 5.0, traceparent="x\ny|z"))
    sinks.change(SheddingChanged("topps", shedding=False, queue_wait_s=0.0, shed=9, reason=Reason.QUEUE_WAIT))
    assert flush(LONG_S)
    title = "circuit.open saber/get"
    text = (
        "resource=saber command=get old=closed new=open failures=12 volume=20 sleep_window_s=5.0 "
        r"traceparent='x\ny/z'"
    )
    first, second = agent.raw()
    assert sorted(first.split("|#")[1].split(",")) == ["command:get", "resource:saber", "team:fans"]
    assert first.startswith(
        f"_e{{{len(title)},{len(text)}}}:{title}|{text}|d:1700000000|k:groundfault:saber/get|t:warn"
    )
    assert second.split("|")[0].endswith(":server.shedding_ended topps")
    assert "|t:success|" in second


def test_an_event_that_nobody_takes_is_counted(tmp_path, made):
    emitter = made(f"unix://{tmp_path}/none")
    emitter(CircuitChanged("saber", "get", State.CLOSED, State.OPEN, 12, 20, 5.0))
    assert emitter.lost == 1
