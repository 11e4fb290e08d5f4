"""How a process stands with its store: by hand for the verdicts, with real threads for what hangs, forks and ends."""

import logging
import os
import subprocess
import sys
import threading
from itertools import pairwise

import pytest

from groundfault._clock import monotonic
from groundfault.breaker import Registry, Resource
from groundfault.errors import SettingsError
from groundfault.events import SettingsStoreChanged, internal_errors
from groundfault.settings import live as live_module
from groundfault.settings._reading import Reader, Reading
from groundfault.settings.live import LiveSettings, install, installed, live_settings
from groundfault.settings.memory import MemoryStore
from groundfault.settings.store import Document, Entry, MalformedError, StoreError
from groundfault.testing import RecordingSink

BOUND_S = 20.0

# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_a_version_is_said_when_it_is_in_force_and_not_again(driven):
    assert driven.live.status().state == "starting"
    assert driven.live.status().reachable is None
    driven.look()
    driven.look()
    version = driven.set("*", "timeout_s", 0.5)
    driven.look()
    driven.look()
    assert driven.said == [("applied", "1"), ("applied", version)]
    status = driven.live.status()
    assert (status.store, status.state, status.version, status.entries) == ("memory", "applied", version, 1)
    assert (status.reachable, status.rejected, status.error, status.age_s) == (True, 0, None, 0.0)


def test_a_bad_version_is_rejected_once_and_the_last_good_one_stays(driven):
    command = driven.resource.command("entrants")
    driven.set("*", "timeout_s", 0.5)
    driven.look()
    bad = driven.set("*/contest-db", "timeout_s", -1)
    for _ in range(3):
        driven.clock.advance(1.0)
        driven.look()
    assert driven.said == [("applied", "2"), ("rejected", bad)]
    assert command.settings.timeout_s == 0.5
    status = driven.live.status()
    assert (status.state, status.version, status.rejected, status.age_s) == ("rejected", "2", 1, 3.0)
    assert status.error == (
        f"*/contest-db:timeout_s must be a number between 0.001 and 300, not -1 (settings of memory, version {bad})"
    )
    good = driven.set("*/contest-db", "timeout_s", 0.7)
    driven.look()
    assert driven.said[2:] == [("applied", good)]
    assert (driven.live.status().error, command.settings.timeout_s) == (None, 0.7)


def test_each_bad_version_is_counted(driven):
    for value in (-1, -2, -3):
        driven.set("*", "timeout_s", value)
        driven.look()
    assert [status for status, _ in driven.said] == ["rejected"] * 3
    assert driven.live.status().rejected == 3
    assert driven.live.status().version is None


def test_a_store_that_goes_back_to_what_is_in_force_is_reached_again(driven):
    good = driven.store.load(None)
    driven.look()
    driven.set("*", "timeout_s", -1)
    driven.look()
    driven.store._current = good
    driven.look()
    assert driven.said == [("applied", "1"), ("rejected", "2"), ("reached", "1")]
    assert driven.live.status().state == "applied"


def test_a_store_that_cannot_be_read_is_said_once_with_cause_and_next_try(driven):
    driven.look()
    driven.store.error = StoreError("memory: connection refused")
    retries = [driven.look().pause_s for _ in range(6)]
    assert driven.said == [("applied", "1"), ("unreachable", None)]
    event = driven.sink.of(SettingsStoreChanged)[-1]
    assert (event.store, event.error, event.retry_s) == ("memory", "memory: connection refused", 1.0)
    assert retries == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    status = driven.live.status()
    assert (status.state, status.reachable, status.version, status.retry_s) == ("unreachable", False, "1", 10.0)
    driven.clock.advance(30)
    driven.store.error = None
    assert driven.look().pause_s == 1.0
    assert driven.said[2:] == [("reached", "1")]
    assert (driven.live.status().retry_s, driven.live.status().age_s) == (None, 0.0)
    driven.store.error = StoreError("memory: again")
    assert driven.look().pause_s == 1.0


def test_pauses_differ_between_processes_by_a_fifth(driven):
    pauses = []
    for draw in (0.0, 0.25, 0.999999):
        driven.live._standing._draw = lambda draw=draw: draw
        pauses.append(round(driven.look().pause_s, 3))
    assert pauses == [0.8, 0.9, 1.2]


def test_an_error_that_no_store_should_raise_is_told_by_its_type(driven):
    driven.store.error = ZeroDivisionError("mine")
    driven.look()
    assert driven.live.status().error == "memory: ZeroDivisionError: mine"


def test_a_bad_version_that_is_still_there_after_an_outage_is_said_again_and_not_counted(driven):
    bad = driven.set("*", "timeout_s", -1)
    driven.look()
    driven.store.error = StoreError("memory: away")
    driven.look()
    driven.store.error = None
    driven.look()
    assert driven.said == [("rejected", bad), ("unreachable", None), ("rejected", bad)]
    assert driven.live.status().rejected == 1


def test_content_that_is_no_document_is_rejected_once(driven):
    driven.look()
    driven.store.error = MalformedError("memory is no JSON", "bad1")
    assert driven.look().pause_s == 1.0
    driven.look()
    assert driven.said == [("applied", "1"), ("rejected", "bad1")]
    assert driven.live.status().error == "memory is no JSON (settings of memory, version bad1)"
    assert driven.live._standing.seen == "bad1"


class Garbage:
    """A store that hands over whatever it was given."""

    name = "garbage"

    def __init__(self, document):
        self.document = document

    def load(self, known):
        return self.document

    def wait(self, timeout_s):
        raise NotImplementedError

    def close(self):
        pass


@pytest.mark.parametrize(
    "document",
    [
        Document("v", (None,)),
        Document("v", ("*", "timeout_s", 1)),
        Document("v", (Entry(None, None, None),)),
        Document("v", (Entry("*", "timeout_s", [[[]]]),)),
        Document("v", tuple(Entry(f"s{n}", "timeout_s", 1.0) for n in range(2001))),
        Document("v", (Entry("*", "x", "y" * 70_000),)),
    ],
)
def test_a_poisoned_store_is_rejected_whatever_it_hands_over(drive, document):
    driven = drive(store=Garbage(document))
    driven.look()
    assert driven.said == [("rejected", "v")]
    assert len(driven.live.status().error) <= 500


def test_what_this_version_does_not_know_is_logged_once_and_the_rest_is_in_force(driven, caplog):
    command = driven.resource.command("entrants")
    driven.set("*", "retries", 3)
    driven.set("*", "timeout_s", 0.5)
    driven.look()
    driven.look()
    assert command.settings.timeout_s == 0.5
    assert driven.live.status().warnings == ("*:retries is no setting that this version knows",)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "live settings of memory, version 3: *:retries is no setting that this version knows"
    ]


@pytest.mark.parametrize(("allowed", "state"), [(False, "rejected"), (True, "applied")])
def test_only_who_says_so_lets_a_store_switch_everything_off(drive, allowed, state):
    driven = drive(allow_disable=allowed)
    driven.set("*", "mode", "force_open")
    driven.look()
    assert driven.live.status().state == state


def test_a_document_under_a_version_seen_before_is_compared_with_what_is_in_force(driven):
    """A store that was set up anew may count from one again."""
    driven.look()
    driven.store._current = Document("1", (Entry("*", "timeout_s", 0.5),))
    driven.look(known=None)
    assert driven.live.status().entries == 1
    assert driven.said == [("applied", "1"), ("applied", "1")]


# --- the cached copy --------------------------------------------------------------------------------------------------


def test_a_cached_copy_is_in_force_until_the_store_is_there(driven):
    command = driven.resource.command("entrants")
    driven.live._take(Reading(document=Document("7", (Entry("*", "timeout_s", 0.5),)), cached_age_s=90.0))
    assert command.settings.timeout_s == 0.5
    status = driven.live.status()
    assert (status.state, status.version, status.age_s) == ("starting", "7", 90.0)
    driven.store.error = StoreError("memory: away")
    driven.look()
    driven.store.error = None
    driven.look()
    assert driven.said == [("applied", "7"), ("unreachable", None), ("applied", "1")]
    assert command.settings.timeout_s is None


def test_a_cached_copy_that_is_no_good_is_ignored(driven, caplog):
    driven.live._take(Reading(document=Document("7", (Entry("*", "timeout_s", -1),)), cached_age_s=90.0))
    assert (driven.live.status().version, driven.said) == (None, [])
    assert "the copy of live settings of memory is ignored: *:timeout_s must be" in caplog.text


def test_a_cached_copy_that_comes_late_changes_nothing(driven):
    driven.look()
    driven.live._take(Reading(document=Document("7", (Entry("*", "timeout_s", 0.5),)), cached_age_s=90.0))
    assert driven.live.status().version == "1"


# --- threads ----------------------------------------------------------------------------------------------------------


class Waiting(RecordingSink):
    """A sink that can be waited for."""

    def __init__(self):
        super().__init__()
        self.came = threading.Condition()

    def __call__(self, event):
        with self.came:
            super().__call__(event)
            self.came.notify_all()

    def statuses(self):
        return [event.status for event in self.of(SettingsStoreChanged)]

    def wait_for(self, *statuses):
        with self.came:
            assert self.came.wait_for(lambda: self.statuses() == list(statuses), BOUND_S), self.statuses()


class Hanging(MemoryStore):
    """A store that can be made to hang; it counts how many threads hang in it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.open = threading.Event()
        self.open.set()
        self.hung = self.most_hung = 0
        self.entered = threading.Event()

    def load(self, known):
        if not self.open.is_set():
            self.hung += 1
            self.most_hung = max(self.hung, self.most_hung)
            self.entered.set()
            assert self.open.wait(2 * BOUND_S)
            self.hung -= 1
        return super().load(known)


@pytest.fixture
def threaded():
    """Return a function that starts live settings with real threads and a short patience, stopped at the end."""
    started = []

    def start(store, **options):
        sink = Waiting()
        registry = Registry()
        defaults = {"service": "topps", "poll_s": 0.05, "patience_s": 0.2, "cache": False, "shedders": ()}
        live = LiveSettings(store, registry=registry, sinks=[sink], **(defaults | options))
        started.append(live)
        live.start()
        return live, sink, registry

    yield start
    for live in started:
        live.stop()


def eventually(check):
    """Wait until something is true, looking often."""
    ends_at, pause = monotonic() + BOUND_S, threading.Event()
    while not check():
        assert monotonic() < ends_at
        pause.wait(0.01)


def test_a_change_comes_in_by_itself(threaded):
    store = MemoryStore({"*": {"timeout_s": 0.5}})
    live, sink, registry = threaded(store)
    sink.wait_for("applied")
    command = Resource("r", registry=registry, sinks=[]).command("c")
    assert command.settings.timeout_s == 0.5
    store.write([], reason="none", actor="me", based_on="1")
    sink.wait_for("applied", "applied")
    live.stop()
    assert command.settings.timeout_s is None
    assert not [each for each in threading.enumerate() if each.name == "groundfault-settings"]


def test_to_start_never_waits_and_again_starts_nothing(threaded):
    store = Hanging()
    store.open.clear()
    live, _, registry = threaded(store)
    assert store.entered.wait(BOUND_S)
    live.start()
    assert Resource("r", registry=registry, sinks=[]).command("c").call(lambda: "done") == "done"
    # Those of the tests before this one may take a moment to end.
    eventually(lambda: [each.name for each in threading.enumerate()].count("groundfault-settings-store") == 1)
    store.open.set()


def test_a_store_that_hangs_is_noticed_while_it_does_and_read_on_when_it_answers(threaded):
    store = Hanging({"*": {"timeout_s": 0.5}})
    live, sink, registry = threaded(store)
    sink.wait_for("applied")
    store.open.clear()
    sink.wait_for("applied", "unreachable")
    status = live.status()
    assert (status.reachable, status.version, status.retry_s) == (False, "1", None)
    assert "memory: has not answered for" in status.error
    command = Resource("r", registry=registry, sinks=[]).command("c")
    assert (command.settings.timeout_s, command.call(lambda: "done")) == (0.5, "done")
    threading.Event().wait(0.5)
    assert (store.hung, store.most_hung) == (1, 1)
    store.open.set()
    sink.wait_for("applied", "unreachable", "reached")


def test_a_store_that_hangs_over_a_stop_and_a_start_gets_no_second_thread(threaded):
    store = Hanging()
    store.open.clear()
    live, sink, _ = threaded(store)
    assert store.entered.wait(BOUND_S)
    live.stop()
    live.start()
    sink.wait_for("unreachable")
    assert store.most_hung == 1
    store.open.set()
    sink.wait_for("unreachable", "applied")


def test_an_override_ends_while_the_store_hangs(threaded):
    store = Hanging(clock=lambda: 0.0)
    wall = [1000.0]
    _, sink, registry = threaded(store, wall_clock=lambda: wall[0])
    sink.wait_for("applied")
    from groundfault.settings.store import Change  # noqa: PLC0415  used here alone

    store.write([Change("*", "timeout_s", 0.5, 1060.0)], reason="r", actor="a", based_on="1")
    sink.wait_for("applied", "applied")
    command = Resource("r", registry=registry, sinks=[]).command("c")
    store.open.clear()
    assert store.entered.wait(BOUND_S)
    assert command.settings.timeout_s == 0.5
    wall[0] = 1060.0
    eventually(lambda: command.settings.timeout_s is None)
    assert store.hung == 1
    store.open.set()


def test_a_store_whose_wait_returns_at_once_or_raises_is_not_asked_without_a_pause():
    looks = []

    class Hasty(Garbage):
        def load(self, known):
            looks.append(monotonic())

    reader = Reader(Hasty(None), None, lambda reading: reading.judged(), known="1", cold=False, clock=monotonic)
    reader.start()
    eventually(lambda: len(looks) >= 4)
    reader.stop()
    assert min(after - before for before, after in pairwise(looks)) >= 0.09
    eventually(lambda: not reader.is_alive)
    assert set(internal_errors()) == {"live settings"}


def test_where_no_thread_can_be_had_everything_stays_as_declared_and_it_is_tried_again(threaded, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        live, sink, registry = threaded(MemoryStore({"*": {"timeout_s": 0.5}}))
        assert Resource("r", registry=registry, sinks=[]).command("c").settings.timeout_s is None
        assert live.status().state == "starting"
        assert internal_errors() == {"live settings": 2}
    live.status()
    sink.wait_for("applied")


def test_an_error_of_ours_does_not_end_the_thread(threaded, monkeypatch):
    store = MemoryStore()
    live, sink, _ = threaded(store)
    sink.wait_for("applied")
    with monkeypatch.context() as patched:
        patched.setattr(live._standing, "take", lambda reading: 1 // 0)
        eventually(lambda: internal_errors().get("live settings", 0) >= 2)
    store.write([], reason="r", actor="a", based_on="1")
    sink.wait_for("applied", "applied")


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["callable", "store"])
def test_the_child_of_a_fork_has_threads_of_its_own_and_where_it_can_a_store(threaded, kind, tmp_path):
    made = []

    def make():
        made.append(MemoryStore({"*": {"timeout_s": 0.5 + len(made)}}, name=f"memory{len(made)}"))
        return made[-1]

    store = make if kind == "callable" else make()
    live, sink, registry = threaded(store)
    sink.wait_for("applied")
    command = Resource("r", registry=registry, sinks=[]).command("c")
    expected = 1.5 if kind == "callable" else 0.5
    pid = os.fork()
    if pid == 0:
        try:
            eventually(lambda: live.status().state == "applied")
            assert command.settings.timeout_s == expected
            assert live.status().store == ("memory1" if kind == "callable" else "memory0")
            os._exit(0)
        except BaseException:  # noqa: BLE001  a child must not run the rest of the tests
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert command.settings.timeout_s == 0.5
    assert len(made) == 1


def test_a_process_ends_cleanly_with_a_store_that_hangs():
    code = """
import threading
from groundfault.settings.live import LiveSettings
from groundfault.settings.memory import MemoryStore
class Hanging(MemoryStore):
    def load(self, known):
        inside.set()
        threading.Event().wait()
inside = threading.Event()
LiveSettings(Hanging(), service="topps").start()
LiveSettings(MemoryStore(name="other"), service="topps", poll_s=0.01).start()
assert inside.wait(20)
print("done")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "done\n", "")


# --- installing -------------------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(live_module, "_installed", {})
    monkeypatch.delenv("GROUNDFAULT_SETTINGS", raising=False)
    yield
    for live in live_module._installed.values():
        live.stop()


@pytest.mark.usefixtures("nothing_installed")
def test_install_follows_what_the_environment_names(monkeypatch, tmp_path):
    assert install() is None
    assert installed() is None
    path = tmp_path / "gf.json"
    path.write_text('{"installed": {"timeout_s": 0.5}}')
    monkeypatch.setenv("GROUNDFAULT_SETTINGS", str(path))
    live = install(service="installed", cache=False)
    assert install() is live
    assert installed() is live
    assert live in live_settings()
    eventually(lambda: live.status().state == "applied")
    with pytest.raises(SettingsError, match="follows a store of live settings already"):
        install(str(tmp_path / "other.json"))


@pytest.mark.parametrize(
    "options",
    [
        {"poll_s": 0},
        {"poll_s": True},
        {"poll_s": 1e9},
        {"patience_s": -1},
        {"service": "Not A Name"},
        {"store": 3},
        {"store": ""},
        {"store": "settings.yaml"},
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(options):
    with pytest.raises(SettingsError):
        LiveSettings(**{"store": MemoryStore(), **options})
