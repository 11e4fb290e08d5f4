"""What people read in a chat: the right things, once, and never the address; a real server on loopback listens."""

import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from groundfault.events import (
    BacklogWarning,
    CircuitChanged,
    CommandDone,
    CommandFailing,
    ConcurrencyChanged,
    HealthChanged,
    SaturationChanged,
    SettingsChanged,
    SettingsStoreChanged,
    SheddingChanged,
    ThrottleChanged,
    internal_errors,
    is_warning,
    name_of,
)
from groundfault.integrations import _webhook_once, webhook
from groundfault.integrations._webhook_once import HostLedger
from groundfault.integrations._webhook_text import FAMILIES
from groundfault.integrations.webhook import Webhook
from groundfault.sinks import Sinks, flush
from groundfault.vocabulary import Outcome, Reason, State

LONG_S = 20.0
SECRET = "T0123/B456/c0ffee"  # noqa: S105  of nobody
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def circuit(new, command="get", **more):
    return CircuitChanged("saber", command, State.CLOSED, State(new), 12, 20, 5.0, **more)


OPEN, CLOSED, HALF_OPEN = circuit("open"), circuit("closed"), circuit("half-open")
HIGH = ConcurrencyChanged("contest-db", "entrants", "high", 4, 5)


class Chat:
    """A server that keeps what is posted to it, and answers as it is told."""

    def __init__(self):
        self.posted = []
        self.answers = []
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                chat.posted.append((self.path, dict(self.headers), body))
                status, headers = chat.answers.pop(0) if chat.answers else (200, {})
                if status == 0:  # hang up
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def do_GET(self):
                chat.posted.append((self.path, dict(self.headers), b"GET"))

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/services/{SECRET}"

    def texts(self):
        assert flush(LONG_S)
        return [json.loads(body)["text"].split("\n")[0].split(" (")[0] for _, _, body in self.posted]

    def close(self):
        self.server.shutdown()
        self.thread.join(LONG_S)
        self.server.server_close()


@pytest.fixture
def chat():
    made = Chat()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("GROUNDFAULT_RUN_DIR", "GROUNDFAULT_SERVICE", "http_proxy", "HTTP_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hook(chat, clock):
    """Return a function that makes webhooks to the chat, on a clock that stands still and without timers."""
    made = []

    def make(**settings):
        each = Webhook(chat.url, clock=clock, wall_clock=clock, pause=paused.append, **settings)
        each._come_back = waits.append
        made.append(each)
        return each

    paused, waits = [], []
    make.paused, make.waits = paused, waits
    return make


def later(clock, seconds):
    """Let time pass after all that has happened was seen."""
    assert flush(LONG_S)
    clock.advance(seconds)


def again(each):
    """Do what the timer does."""
    each._queue(webhook._Due())


# --- what is posted ---------------------------------------------------------------------------------------------------


def test_an_alert_reads_like_a_sentence(chat, hook):
    Sinks(hook(service="topps")).change(HIGH)
    assert flush(LONG_S)
    ((path, headers, body),) = chat.posted
    host = socket.gethostname()
    assert json.loads(body) == {
        "text": "Warn: command concurrency high - contest-db/entrants, 4 of 5 in flight "
        f"(topps, pid {os.getpid()} on {host})"
    }
    assert (path, headers["Content-Type"]) == (f"/services/{SECRET}", "application/json")


TEXTS = [
    (OPEN, "Warn: circuit open - saber/get, 12 of 20 calls failed, next try in 5 s"),
    (CLOSED, "Recovered: circuit closed - saber/get, calls go through again"),
    (ConcurrencyChanged("db", "q", "normal", 1, 5), "Recovered: command concurrency normal - db/q, 1 of 5 in flight"),
    (ThrottleChanged("saber", "get", 0.25), "Warn: command throttle started - saber/get, 25% of the calls are sent"),
    (SaturationChanged("saber", "get", True, 20), "Warn: command saturated - saber/get, 20 refusals and no answer"),
    (SaturationChanged("saber", "get", False, 20), "Recovered: command answering - saber/get, it answers again"),
    (HealthChanged("db", "q", healthy=False, error="OSError"), "Warn: command unhealthy - db/q, the check says no"),
    (HealthChanged("db", "q", healthy=True), "Recovered: command healthy - db/q, the check says yes"),
    (CommandFailing("db", "q", Outcome.TIMEOUT, 0.5), "Warn: command failing - db/q, timeout after 0.50 s"),
    (
        CommandFailing("db", "q", Outcome.FAILURE, 0.5, status=502),
        "Warn: command failing - db/q, failure after 0.50 s, status 502",
    ),
    (
        SheddingChanged("topps", shedding=True, queue_wait_s=0.3, shed=1, reason=Reason.QUEUE_WAIT),
        "Warn: server shedding started - topps, queue-wait, after 0.30 s in the queue",
    ),
    (
        SheddingChanged("topps", True, 0.0, 1, Reason.QUEUE_WAIT, predicted_wait_s=1.5, enforced=False),
        "Warn: server shedding started - topps, queue-wait, a wait of 1.50 s ahead, in shadow mode",
    ),
    (
        SheddingChanged("topps", shedding=False, queue_wait_s=0.0, shed=90),
        "Recovered: server shedding ended - topps, 90 requests refused by this process",
    ),
    (
        BacklogWarning("topps", port=8000, depth=90, limit=100, overflows=3),
        "Warn: server backlog high - topps, 90 of 100 connections wait on port 8000, 3 turned away so far",
    ),
    (
        SettingsStoreChanged("file", "rejected", "8", error="timeout_s must be above 0"),
        "Warn: settings rejected - file, version 8, 'timeout_s must be above 0'",
    ),
    (SettingsStoreChanged("file", "reached", "8"), "Recovered: settings reached - file, version 8"),
]


@pytest.mark.parametrize(("event", "text"), TEXTS, ids=[name_of(event) for event, _ in TEXTS])
def test_every_kind_says_what_matters(event, text):
    made = webhook.alert_of(event, at=0.0, service=None, host="h", pid=1, held_back=0, runbooks=None)
    assert made.text.split(" (")[0] == text
    assert made.title == text.split(" - ")[0]


def test_families_hold_every_warning_and_call_it_one():
    assert {name for name, family in FAMILIES.items() if not family.recovers} == {
        name_of(event)
        for event in (*(event for event, _ in TEXTS), HIGH, ConcurrencyChanged("d", "q", "full", 5, 5))
        if is_warning(event)
    } | {"settings.unreachable"}


def test_trace_and_runbook_are_there_where_they_are_known(chat, hook):
    Sinks(hook(runbooks="https://wiki/groundfault#")).change(circuit("open", traceparent=TRACE))
    assert flush(LONG_S)
    (_, _, body) = chat.posted[0]
    assert json.loads(body)["text"].split("\n")[1:] == [
        "trace 4bf92f3577b34da6a3ce929d0e0e4736",
        "https://wiki/groundfault#circuit.open",
    ]


def test_what_came_with_a_request_mentions_nobody(chat, hook):
    Sinks(hook()).change(SettingsStoreChanged("file", "rejected", "<!channel>&", error="x\n*forged*"))
    assert flush(LONG_S)
    text = json.loads(chat.posted[0][2])["text"]
    assert "&lt;!channel&gt;&amp;" in text
    assert "\n" not in text


def test_json_says_everything(chat, hook, clock):
    Sinks(hook(format="json", service="topps", runbooks="r/")).change(circuit("open", traceparent=TRACE))
    assert flush(LONG_S)
    said = json.loads(chat.posted[0][2])
    assert said.pop("text").startswith("Warn: circuit open")
    assert said == {
        "name": "circuit.open",
        "warning": True,
        "title": "Warn: circuit open",
        "subject": "saber/get",
        "service": "topps",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "at": clock.now,
        "held_back": 0,
        "traceparent": TRACE,
        "runbook": "r/circuit.open",
        "fields": {
            "resource": "saber",
            "command": "get",
            "old": "closed",
            "new": "open",
            "failures": 12,
            "volume": 20,
            "sleep_window_s": 5.0,
            "traceparent": TRACE,
        },
    }


@pytest.mark.parametrize("made", [b"raw", "raw", {"said": "raw"}])
def test_a_format_of_ones_own(chat, hook, made):
    Sinks(hook(format=lambda alert: made)).change(OPEN)
    assert flush(LONG_S)
    assert chat.posted[0][2] == (b'{"said": "raw"}' if isinstance(made, dict) else b"raw")


def test_a_format_that_raises_is_counted_without_its_text(hook, chat, caplog):
    def broken(alert):
        raise RuntimeError(chat.url)

    each = hook(format=broken)
    Sinks(each).change(OPEN)
    assert flush(LONG_S)
    assert (each.lost, chat.posted) == (1, [])
    assert SECRET not in caplog.text


# --- how often --------------------------------------------------------------------------------------------------------


def test_only_warnings_and_the_recovery_of_what_was_warned_of_are_posted(chat, hook):
    sinks = Sinks(hook())
    assert sinks.commands == ()
    sinks.change(CLOSED)  # of what nobody was warned of
    sinks.change(SettingsChanged("saber/get", {}, {}))
    sinks.change(HALF_OPEN)
    sinks.change(OPEN)
    sinks.change(HALF_OPEN)
    sinks.change(CLOSED)
    sinks.change(CLOSED)
    sinks.change(CommandDone("saber", "get", Outcome.SUCCESS, 0.1))
    assert [text.split(" - ")[0] for text in chat.texts()] == ["Warn: circuit open", "Recovered: circuit closed"]


def test_what_comes_again_too_soon_is_held_back_and_said_later_if_it_still_holds(chat, hook, clock):
    each = hook()
    for event in (OPEN, CLOSED, OPEN):  # the third within a minute of the first
        each(event)
    assert len(chat.texts()) == 2
    assert hook.waits == [60.0]
    later(clock, 30.0)
    each(OPEN)
    assert len(chat.texts()) == 2
    later(clock, 30.0)
    again(each)
    assert len(chat.texts()) == 3
    last = json.loads(chat.posted[-1][2])["text"]
    assert last.startswith("Warn: circuit open")
    assert "1 more like it were held back before" in last


def test_what_is_over_before_it_is_said_is_not_said(chat, hook, clock):
    each = hook()
    for event in (OPEN, CLOSED, OPEN, CLOSED):
        each(event)
    later(clock, 60.0)
    again(each)
    assert [text.split(" - ")[0] for text in chat.texts()] == ["Warn: circuit open", "Recovered: circuit closed"]


def test_the_chat_is_never_left_with_a_warning_that_does_not_hold(chat, hook, clock):
    """Open, closed, open, closed, each a minute apart but the last recovery at once: that is told, too."""
    each = hook()
    for event in (OPEN, CLOSED):
        each(event)
    later(clock, 59.0)
    each(OPEN)  # held back for a second
    later(clock, 1.0)
    again(each)
    each(CLOSED)  # a minute after the last recovery
    assert [text.split(":")[0] for text in chat.texts()] == ["Warn", "Recovered", "Warn", "Recovered"]


def test_other_commands_are_other_matters(chat, hook):
    each = hook()
    for command in ("a", "b", "c"):
        each(circuit("open", command))
    assert len(chat.texts()) == 3


def test_all_together_there_are_no_more_than_so_many_a_minute(chat, hook, clock):
    each = hook(max_per_minute=3)
    for number in range(10):
        each(circuit("open", f"c{number}"))
    assert len(chat.texts()) == 3
    later(clock, 59.0)
    each(circuit("closed", "c9"))  # which nobody has read of
    assert len(chat.texts()) == 3
    later(clock, 1.0)
    again(each)
    assert [re.search(r"saber/(c\d)", text)[1] for text in chat.texts()] == ["c0", "c1", "c2", "c3", "c4", "c5"]
    for _ in range(2):
        later(clock, 60.0)
        again(each)
    assert len(chat.texts()) == 9


def test_a_timer_comes_back_for_what_is_held_back(chat):
    """On the real clock."""
    each = Webhook(chat.url, min_interval_s=0.2)
    for event in (OPEN, CLOSED, OPEN):
        each(event)
    waited = threading.Event()
    for _ in range(int(LONG_S / 0.02)):
        if len(chat.posted) == 3:
            break
        waited.wait(0.02)
    assert [text.split(" - ")[0] for text in chat.texts()] == [
        "Warn: circuit open",
        "Recovered: circuit closed",
        "Warn: circuit open",
    ]
    assert each.lost == 0


def test_where_no_timer_can_be_had_the_next_event_brings_it_up(chat, clock, monkeypatch):
    def exhausted(thread):
        raise RuntimeError("can't start new thread")

    each = Webhook(chat.url, clock=clock)
    each(OPEN)
    assert flush(LONG_S)
    monkeypatch.setattr(threading.Timer, "start", exhausted)
    for event in (CLOSED, OPEN):
        each(event)
    assert len(chat.texts()) == 2
    later(clock, 60.0)
    each(HIGH)
    assert len(chat.texts()) == 4
    assert internal_errors() == {}


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "posts", "lost", "paused"),
    [
        ([(500, {})], 2, 0, [1.0]),
        ([(503, {"Retry-After": "3"})], 2, 0, [3.0]),
        ([(429, {"Retry-After": "3600"})], 2, 0, [10.0]),
        ([(429, {"Retry-After": "soon"})], 2, 0, [1.0]),
        ([(0, {})], 2, 0, [1.0]),
        ([(500, {}), (500, {})], 2, 1, [1.0]),
        ([(404, {})], 1, 1, []),
        ([(302, {"Location": "http://127.0.0.1:1/elsewhere"})], 1, 1, []),
        ([(307, {"Location": "/here"})], 1, 1, []),
    ],
)
def test_what_may_pass_is_tried_once_more(chat, hook, caplog, answers, posts, lost, paused):
    chat.answers = answers
    each = hook()
    each(OPEN)
    assert flush(LONG_S)
    assert (len(chat.posted), each.lost, hook.paused) == (posts, lost, paused)
    assert len(caplog.records) == lost
    assert SECRET not in caplog.text
    assert internal_errors() == {}


def test_nobody_there_is_counted_and_said_once_a_minute_without_the_address(clock, caplog):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    each = Webhook(f"http://127.0.0.1:{port}/{SECRET}", clock=clock, pause=lambda _: None)
    for number in range(3):
        each(circuit("open", f"c{number}"))
    assert flush(LONG_S)
    assert each.lost == 3
    later(clock, 60.0)
    each(circuit("open", "c9"))
    assert flush(LONG_S)
    assert [record.getMessage() for record in caplog.records] == [
        "webhook to 127.0.0.1: cannot be reached: ConnectionRefusedError; 1 lost so far",
        "webhook to 127.0.0.1: cannot be reached: ConnectionRefusedError; 4 lost so far",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_one_that_never_answers_holds_up_nobody(clock):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        each = Webhook(url, timeout_s=0.1, clock=clock, pause=lambda _: None)
        sinks = Sinks(each)
        sinks.change(OPEN)
        assert flush(LONG_S)
    assert each.lost == 1


def test_the_environments_proxy_is_used_unless_it_is_not_wanted(chat, clock, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{chat.server.server_port}")
    for proxies in (True, False):
        each = Webhook("http://chat.invalid/path", proxies=proxies, clock=clock, pause=lambda _: None)
        each(OPEN)
        assert flush(LONG_S)
        assert each.lost == (0 if proxies else 1)
    assert [path for path, _, _ in chat.posted] == ["http://chat.invalid/path"]


def test_the_address_is_shown_nowhere(chat):
    each = Webhook(chat.url)
    assert repr(each) == "<Webhook to 127.0.0.1>"
    assert SECRET not in repr(each._queue)


@pytest.mark.parametrize(
    "url",
    [
        *("", "hooks.slack.com/x", "file:///etc/passwd", "ftp://host/x", "https://", "https://user:secret@host/"),
        *("http://host:port/", "http://host/ü", "http://host/a b", "http://[::1/"),
    ],
)
def test_what_cannot_be_posted_to_is_told_at_once_without_repeating_it(url):
    with pytest.raises(ValueError, match="url must") as told:
        Webhook(url)
    assert len(url) < 10 or url not in str(told.value)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"format": "teams"}, "format must be slack, json or callable, not 'teams'"),
        ({"min_interval_s": 0}, "min_interval_s must be above 0, not 0"),
        ({"max_per_minute": 0}, "max_per_minute must be above 0, not 0"),
        ({"timeout_s": 0}, "timeout_s must be above 0 and at most 60, not 0"),
        ({"once_per_host": True}, "once_per_host needs a directory in GROUNDFAULT_RUN_DIR"),
    ],
)
def test_wrong_settings_are_told_at_once(settings, why):
    with pytest.raises(ValueError, match=why):
        Webhook("https://chat.invalid/", **settings)


# --- many processes ---------------------------------------------------------------------------------------------------


def test_of_a_host_the_first_speaks_for_all(chat, hook, clock, monkeypatch, tmp_path):
    monkeypatch.setenv("GROUNDFAULT_RUN_DIR", str(tmp_path / "made-when-needed"))
    workers = [hook(service="topps") for _ in range(8)]
    for event in (OPEN, CLOSED):
        for each in workers:
            each(event)
            assert flush(LONG_S)
    assert [text.split(":")[0] for text in chat.texts()] == ["Warn", "Recovered"]
    later(clock, 60.0)
    workers[3](OPEN)
    assert len(chat.texts()) == 3
    hook(service="grouper")(OPEN)  # another service is another matter
    assert len(chat.texts()) == 4


def test_each_may_speak_for_itself(chat, hook, monkeypatch, tmp_path):
    monkeypatch.setenv("GROUNDFAULT_RUN_DIR", str(tmp_path))
    for _ in range(2):
        hook(once_per_host=False)(OPEN)
    assert len(chat.texts()) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_ledger_holds_no_secret_and_is_nobody_elses_to_read(tmp_path):
    assert HostLedger(tmp_path, f"https://chat/{SECRET}").claim("open", 1000.0, 60.0)
    (file,) = tmp_path.iterdir()
    assert SECRET not in file.name + file.read_text()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("spoiled", [b"", b"{", b"[1]", b'{"open": "yesterday"}', b"\xff\x00"])
def test_a_ledger_that_says_nonsense_keeps_nobody_quiet(tmp_path, spoiled):
    ledger = HostLedger(tmp_path, "url")
    ledger._path.write_bytes(spoiled)
    assert ledger.claim("open", 1000.0, 60.0)
    assert not ledger.claim("open", 1001.0, 60.0)


def test_a_clock_that_was_set_back_keeps_nobody_quiet(tmp_path):
    ledger = HostLedger(tmp_path, "url")
    assert ledger.claim("open", 1000.0, 60.0)
    assert ledger.claim("open", 900.0, 60.0)
    assert not ledger.claim("open", 901.0, 60.0)


def test_a_ledger_forgets_what_was_long_ago(tmp_path):
    ledger = HostLedger(tmp_path, "url")
    for number in range(100):
        ledger.claim(f"c{number}", 1000.0, 60.0)
    ledger.claim("last", 9000.0, 60.0)
    assert json.loads(ledger._path.read_text()) == {"last": 9000.0}


def test_where_processes_cannot_agree_each_speaks(chat, hook, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GROUNDFAULT_RUN_DIR", str(tmp_path / "file"))
    hook()(OPEN)
    assert len(chat.texts()) == 1
    assert internal_errors() == {}


def test_a_lock_whose_owner_was_stopped_is_not_waited_for(chat, hook, monkeypatch, tmp_path):
    monkeypatch.setenv("GROUNDFAULT_RUN_DIR", str(tmp_path))
    monkeypatch.setattr(_webhook_once, "_TRIES", 2)
    ledger = HostLedger(tmp_path, chat.url)
    assert ledger.claim("other", 1000.0, 60.0)
    with ledger._path.open() as held:
        _webhook_once.fcntl.flock(held, _webhook_once.fcntl.LOCK_EX)
        hook()(OPEN)
        assert len(chat.texts()) == 1


WORKERS = """
import os
from groundfault.events import CircuitChanged
from groundfault.integrations.webhook import Webhook
from groundfault.sinks import Sinks, flush
from groundfault.vocabulary import State

hook = Webhook({url!r}, service="topps")
sinks = Sinks(hook)
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        sinks.change(CircuitChanged("saber", "get", State.CLOSED, State.OPEN, 12, 20, 5.0))
        os._exit(0 if flush(20) else 1)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
"""


@pytest.mark.e2e
def test_four_forked_workers_that_trip_at_once_post_once(chat, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WORKERS.format(url=chat.url)],
        env={**os.environ, "GROUNDFAULT_RUN_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(chat.posted) == 1


def test_a_forked_child_takes_nothing_back_that_its_parent_has_said(chat, hook):
    each = hook()
    each(OPEN)
    assert flush(LONG_S)
    each._after_fork()
    each(CLOSED)
    assert len(chat.texts()) == 1


def test_an_answer_that_comes_byte_by_byte_is_given_up_and_holds_up_no_later_alert(clock):
    posted, stop = [], threading.Event()

    def serve():
        while not stop.is_set():
            connection, _ = listening.accept()
            with connection:
                posted.append(connection.recv(1 << 16))
                with suppress(OSError):
                    connection.sendall(b"HTTP/1.1 200 OK\r\n")
                    while not stop.wait(0.05):
                        connection.sendall(b"X")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        each = Webhook(url, timeout_s=0.3, clock=clock, wall_clock=clock, pause=lambda _: None, proxies=False)
        each(OPEN)
        assert flush(LONG_S)
        assert (each.lost, len(posted)) == (1, 2)  # tried once more, then counted
        stop.set()
        socket.create_connection(listening.getsockname()).close()
        thread.join(LONG_S)
