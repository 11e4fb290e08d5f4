"""Pushing to a hub: what arrives, and hubs that are down, slow, full or hostile."""

import gzip
import json
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from groundfault import events, wire
from groundfault._clock import monotonic
from groundfault.console import pushing
from groundfault.console.pushing import Pusher, PushStatus, push
from groundfault.errors import SettingsError
from groundfault.testing import ManualClock

BOUND_S = 20.0
TOKEN = "hunter2-and-more"  # noqa: S105  of a hub that lives as long as a test
REPORT = gzip.compress(b'{"version":1}')


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("GROUNDFAULT_HUB", "GROUNDFAULT_HUB_TOKEN", "GROUNDFAULT_HUB_CA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setattr(pushing, "_TIMEOUT_S", 0.5)


def until(done):
    ends_at = monotonic() + BOUND_S
    while not done():
        assert monotonic() < ends_at
        time.sleep(0.01)


# --- a hub ------------------------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.connections += 1

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.words)))
        self.end_headers()
        self.wfile.write(self.server.words)

    def log_message(self, *_):
        pass


class Hub(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, tls=None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got, self.connections, self.status, self.words = [], 0, 204, b""
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def handle_error(self, *_):
        """Say nothing: clients come and go."""

    def close(self):
        self.shutdown()
        self._thread.join()
        self.server_close()


@pytest.fixture
def hub():
    with closing(Hub()) as hub:
        yield hub


@pytest.fixture
def pusher_of():
    """Return what makes pushers, which end with the test."""
    made = []

    def make(url, **options):
        made.append(Pusher(url, **{"report": lambda: REPORT, "draw": lambda: 0.5, **options}))
        return made[-1]

    yield make
    for each in made:
        each.stop()
        if not each.status().running:
            each._line.close()


# --- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["hub:9733", "ftp://hub", "http://", "http://ann:hunter2@hub:x", "http://hub/?x=1", " "]
)
def test_a_wrong_address_is_refused_at_the_call_and_named(url):
    with pytest.raises(SettingsError, match="a hub's address must be as in http://hub:9733") as caught:
        push(url, report=bytes)
    assert url.rpartition("@")[2] in str(caught.value)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("options", [{"every_s": 0}, {"every_s": float("nan")}, {"every_s": True}, {"token": "a b"}])
def test_what_makes_no_sense_is_refused_at_the_call(options):
    with pytest.raises(SettingsError, match=r"every_s must be a number|the token .*not shown"):
        push("http://hub", report=bytes, **options)


def test_without_an_address_there_is_nobody_to_push_to(monkeypatch):
    with pytest.raises(SettingsError, match="set GROUNDFAULT_HUB"):
        push(report=bytes)
    monkeypatch.setenv("GROUNDFAULT_HUB", "http://ann:hunter2@hub:9733/")
    pusher = push(report=bytes)
    assert repr(pusher) == "<Pusher to http://hub:9733>"
    assert pusher.status() == PushStatus(
        url="http://hub:9733", running=False, sent=0, failed=0, last_error=None, last_sent_at=None
    )


# --- a hub that takes reports -----------------------------------------------------------------------------------------


def test_each_second_a_report_arrives_on_one_connection_with_the_token(hub, monkeypatch):
    monkeypatch.setenv("GROUNDFAULT_HUB_TOKEN", TOKEN)
    made = []

    def report():
        made.append(threading.current_thread().name)
        return gzip.compress(json.dumps({"number": len(made)}).encode())

    pusher = push(f"{hub.url}/groundfault", report=report, every_s=0.1)
    pusher.start()
    pusher.start()
    until(lambda: len(hub.got) >= 4)
    status = pusher.status()
    pusher.stop()
    pusher.stop()
    until(lambda: not any(each.name == "groundfault-push" for each in threading.enumerate()))
    assert (status.running, status.failed, status.last_error) == (True, 0, None)
    assert status.sent >= 3
    assert abs(status.last_sent_at - time.time()) < BOUND_S  # noqa: TID251  the wall's, as it is said
    assert [json.loads(gzip.decompress(body))["number"] for _, _, body in hub.got] == [*range(1, len(hub.got) + 1)]
    path, headers, _ = hub.got[0]
    assert path == "/groundfault/push"
    assert (headers["content-type"], headers["content-encoding"]) == ("application/json", "gzip")
    assert headers[wire.TOKEN.lower()] == TOKEN
    assert hub.connections == 1
    assert set(made) == {"groundfault-push"}
    assert not pusher.status().running

    pusher.start()
    until(lambda: len(hub.got) > len(made) - 1 > 4)
    pusher.stop()


def test_the_interval_is_jittered_and_what_sending_took_is_taken_off(hub, pusher_of):
    draws = iter([0.0, 1.0, 0.5, 0.5])
    clock = ManualClock()
    took_s = iter([0.0, 0.0, 0.25, 30.0])

    def report():
        clock.advance(next(took_s))
        return REPORT

    pusher = pusher_of(hub.url, report=report, clock=clock, draw=lambda: next(draws))
    assert [pusher.push_once() for _ in range(4)] == pytest.approx([0.9, 1.1, 0.75, 0.1])


# --- hubs that do not -------------------------------------------------------------------------------------------------

STATUSES = {
    "broken": (500, b"oh", "it answers 500: oh"),
    "too large": (413, b'{"errors": ["at most 9 bytes"]}', "it answers 413: at most 9 bytes"),
    "no token": (403, b"the token is another\n", "it answers 403: the token is another"),
    "busy": (503, b"", "it answers 503"),
    "moved": (302, b"", "it answers 302, and redirects are not followed"),
    "strange": (418, b"\x1b[2J\xff\x00", "it answers 418: "),
}  # fmt: skip


@pytest.mark.parametrize(("status", "words", "said"), STATUSES.values(), ids=STATUSES)
def test_a_hub_that_takes_nothing_is_left_alone_ever_longer(hub, pusher_of, status, words, said):
    hub.status, hub.words = status, words
    pusher = pusher_of(hub.url, draw=lambda: 1.0)
    assert [pusher.push_once() for _ in range(6)] == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    stands = pusher.status()
    assert (stands.sent, stands.failed) == (0, 6)
    assert stands.last_error.startswith(said)
    assert stands.last_error.isprintable()
    hub.status, hub.words = 204, b""
    assert pusher.push_once() == pytest.approx(1.1, abs=0.2)
    assert (pusher.status().sent, pusher.status().last_error) == (1, None)
    hub.status = 500
    assert pusher.push_once() == 2.0


def test_half_of_the_pause_after_a_failure_is_chance(pusher_of):
    pusher = pusher_of("http://127.0.0.1:1", draw=lambda: 0.0)
    assert [pusher.push_once() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    assert "ConnectionRefusedError" in pusher.status().last_error


class Hostile:
    """Takes connections and says some bytes again and again, whatever is asked; or never reads a thing."""

    def __init__(self, start, drop, *, reads=True):
        self.start, self.drop, self.reads = start, drop, reads
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
                self._threads[-1].start()

    def _serve(self, connection):
        with closing(connection), suppress(OSError):
            if self.reads:
                connection.recv(65536)
            connection.sendall(self.start)
            while not self._over.wait(0.01) and self.drop is not None:
                connection.sendall(self.drop)

    def close(self):
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(BOUND_S)


HOSTILE = {
    "silent": (b"", b"", True, "no answer in time|timed out"),
    "drips a head": (b"HTTP/1.1 204 No", b" ", True, "no answer in time|timed out"),
    "drips a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"x", True, "no answer in time|timed out"),
    "says too much": (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536, True, "more than 65536 bytes"),
    "hangs up": (b"", None, True, "RemoteDisconnected|ConnectionReset"),
    "answers in gzip": (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nbad", b"", True, "compressed"),
    "never reads": (b"", b"", False, "no answer in time|timed out"),
    "refuses unread": (b"HTTP/1.1 413 Oh\r\nContent-Length: 0\r\n\r\n", None, False, "it answers 413|Reset|BrokenPipe"),
}  # fmt: skip


@pytest.mark.parametrize(("start", "drop", "reads", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_hub_costs_its_time_limit_and_nothing_more(pusher_of, start, drop, reads, said):
    with closing(Hostile(start, drop, reads=reads)) as hostile:
        report = REPORT if reads else os.urandom(4 << 20)  # more than lies in buffers on the way
        pusher = pusher_of(hostile.url, report=lambda: report)
        began = monotonic()
        pusher.push_once()
        assert monotonic() - began < BOUND_S / 2
        assert re.search(said, pusher.status().last_error)


def test_a_report_that_cannot_be_made_is_an_error_of_ours_and_ends_nothing(hub, pusher_of, caplog):
    before = events.internal_errors().get("push", 0)
    pusher = pusher_of(hub.url, report=lambda: 1 / 0)
    pusher.push_once()
    assert pusher.status().last_error == "the report could not be made: ZeroDivisionError"
    assert events.internal_errors()["push"] == before + 1
    assert hub.got == []


def test_the_log_hears_of_it_once_a_minute_and_never_of_the_token(pusher_of, caplog):
    clock = ManualClock()
    pusher = pusher_of("http://ann:hunter3@127.0.0.1:1", token=TOKEN, clock=clock)
    with caplog.at_level(logging.INFO, "groundfault"):
        for _ in range(59):
            pusher.push_once()
            clock.advance(1.0)
        assert len(caplog.records) == 1
        clock.advance(1.0)
        pusher.push_once()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "push to http://127.0.0.1:1: ConnectionRefusedError" in caplog.text
    assert "hunter" not in caplog.text


def test_where_no_thread_can_be_had_a_later_start_tries_again(hub, pusher_of, monkeypatch, caplog):
    pusher = pusher_of(hub.url, every_s=0.1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no more threads")))
        pusher.start()
    assert not pusher.status().running
    pusher.start()
    until(lambda: hub.got)


# --- what the view says -----------------------------------------------------------------------------------------------

SAID = [
    ({"running": False, "last_error": "x"}, None),
    ({}, None),
    ({"last_sent_at": 995.0}, None),
    ({"last_sent_at": 2000.0}, None),
    ({"last_error": "it answers 500"}, "the hub at http://hub has not taken a report yet: it answers 500"),
    (
        {"last_sent_at": 960.0, "last_error": "it answers 500"},
        "the hub at http://hub has not taken a report for 40 s: it answers 500",
    ),
    ({"last_sent_at": 960.0}, "the hub at http://hub has not taken a report for 40 s"),
    ({"last_sent_at": 2000.0, "last_error": "x"}, "the hub at http://hub has not taken a report for 0 s: x"),
]


@pytest.mark.parametrize(("facts", "words"), SAID)
def test_what_is_wrong_is_said_in_a_sentence(facts, words):
    usual = {"url": "http://hub", "running": True, "sent": 0, "failed": 0, "last_error": None, "last_sent_at": None}
    assert PushStatus(**{**usual, **facts}).trouble(1000.0) == words


# --- TLS, forks, the end ----------------------------------------------------------------------------------------------


def test_https_believes_the_authority_that_it_is_given(tmp_path, monkeypatch, pusher_of):
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-subj", "/CN=localhost", "-days", "1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    monkeypatch.setattr(pushing, "_TIMEOUT_S", BOUND_S)
    with closing(Hub(context)) as hub:
        stranger = pusher_of(hub.url)
        stranger.push_once()
        assert "SSLCertVerificationError" in stranger.status().last_error
        monkeypatch.setenv("GROUNDFAULT_HUB_CA", str(tmp_path / "cert.pem"))
        pusher = pusher_of(hub.url)
        pusher.push_once()
        pusher.push_once()
        assert (pusher.status().sent, pusher.status().last_error) == (2, None)


def test_the_child_of_a_fork_stands_still_until_it_is_told_and_the_parent_goes_on(hub):
    pusher = push(hub.url, report=lambda: gzip.compress(str(os.getpid()).encode()), every_s=0.1)
    pusher.start()
    until(lambda: hub.got)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads; the child does not use them
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(int(BOUND_S))
            stood_still = not pusher.status().running and pusher.status().sent == 0
            pusher.start()
            until(lambda: pusher.status().sent)
            status = 0 if stood_still else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sent = pusher.status().sent
    until(lambda: pusher.status().sent > sent + 1)
    pusher.stop()
    until(lambda: not any(each.name == "groundfault-push" for each in threading.enumerate()))
    assert {int(gzip.decompress(body)) for _, _, body in hub.got} == {os.getpid(), child}
    assert pusher.status().failed == 0
    assert hub.connections == 2


SCRIPT = """
import socket, sys
from groundfault.console.pushing import push
with socket.create_server(("127.0.0.1", 0)) as silent:
    pusher = push(f"http://127.0.0.1:{silent.getsockname()[1]}", report=lambda: b"x", every_s=0.1)
    pusher.start()
    connection, _ = silent.accept()
    print(*sorted(name for name in sys.modules if name.split(".")[0] in {"starlette", "uvicorn", "sqlalchemy"}))
    connection.close()
"""


@pytest.mark.e2e
def test_a_process_ends_while_its_hub_says_nothing_and_no_extra_was_needed():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (0, "\n", False)
