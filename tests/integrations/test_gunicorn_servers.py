"""The gunicorn kit in real gunicorn processes: what is refused, how it is answered, closed, kept and drained."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from groundfault._clock import monotonic
from groundfault.integrations._gunicorn_stop import _close_the_door

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
PYTHON = os.environ.get("GROUNDFAULT_GUNICORN_PYTHON", sys.executable)  # one with another version of gunicorn
KIT = "groundfault.integrations.gunicorn."
SYNC = ("-k", f"{KIT}SyncWorker")
THREAD = ("-k", f"{KIT}ThreadWorker", "--threads", "1")
WORKERS = {"sync": SYNC, "thread": THREAD}
STOCK = {"sync": ("-k", "sync"), "thread": ("-k", "gthread", "--threads", "1")}
DATE = re.compile(rb"Date: [^\r]*\r\n")


class Server:
    def __init__(self, port: int, process: Any, log: Path) -> None:
        self.port = port
        self.process = process
        self.log = log

    def said(self) -> str:
        return self.log.read_text()

    def ask(self, path: str = "/", *headers: str, method: str = "GET") -> bytes:
        return exchange(self.port, request(path, *headers, method=method))

    def state(self) -> dict[str, Any]:
        return json.loads(body_of(self.ask("/state", "Connection: close")))


def request(path: str = "/", *headers: str, method: str = "GET", body: bytes = b"", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: served", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def exchange(port: int, data: bytes, timeout: float = 8.0) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as client:
        client.sendall(data)
        return to_the_end(client)


def to_the_end(client: socket.socket, *, stay: bool = False) -> bytes:
    """Read until the server closes, then close unless told to stay; a reset raises: it may cost an answer its end."""
    answer = b""
    try:
        while chunk := client.recv(65_536):
            answer += chunk
    finally:
        if not stay:
            client.close()
    return answer


def one_answer(client: socket.socket) -> bytes:
    """Read one answer with a Content-Length, and leave the connection."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        chunk = client.recv(65_536)
        assert chunk, answer
        answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
    while len(body) < length:
        body += client.recv(65_536)
    return head + b"\r\n\r\n" + body


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def status(answer: bytes) -> int:
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.") else 0


def is_annotated(answer: bytes, reason: str) -> bool:
    return (
        status(answer) == 503
        and b"\r\nX-GroundFault: handled\r\n" in answer
        and f"\r\nX-GroundFault-Reason: {reason}\r\n".encode() in answer
        and len(body_of(answer)) == int(re.findall(rb"Content-Length: (\d+)", answer)[0])
    )


@contextmanager
def serve(log: Path, *options: str, app: str = "guarded", env: dict[str, str] | None = None) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(HERE.parent.parent)
    with log.open("w") as out:
        process = subprocess.Popen(
            [
                PYTHON, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "--graceful-timeout", "8",
                *options, "--chdir", str(HERE), f"gunicorn_served:{app}",
            ],
            env={**os.environ, "PYTHONPATH": root, **(env or {})},
            stdout=out,
            stderr=out,
        )  # fmt: skip
    server = Server(port, process, log)
    try:
        await_up(server)
        yield server
    finally:
        process.send_signal(signal.SIGQUIT)  # the quick way out: a graceful one is what some of the tests are about
        try:
            process.wait(12)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


@contextmanager
def both(kind: str, tmp_path: Path, *options: str) -> Iterator[tuple[Server, Server]]:
    """Serve with the kit and with the stock worker class beside it."""
    with (
        serve(tmp_path / "kit", *WORKERS[kind], *options) as kit,
        serve(tmp_path / "stock", *STOCK[kind], *options) as stock,
    ):
        yield kit, stock


def await_up(server: Server) -> None:
    deadline = monotonic() + 20
    while monotonic() < deadline:
        if "Booting worker" in server.said():
            with suppress(OSError):
                if b" 200 OK" in exchange(server.port, request("/healthz", "Connection: close")):
                    return
        assert server.process.poll() is None, server.said()
        time.sleep(0.05)
    raise AssertionError(server.said())


@pytest.fixture(params=sorted(WORKERS))
def kind(request):
    return request.param


@pytest.fixture
def server(kind, tmp_path):
    with serve(tmp_path / "log", *WORKERS[kind]) as server:
        yield server


@contextmanager
def busy(server: Server, seconds: float) -> Iterator[None]:
    """Keep the one worker busy, so that whatever is sent inside waits for the rest of that time."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=8)
    client.sendall(request(f"/?sleep={seconds}", "Connection: close"))
    time.sleep(0.1)
    try:
        yield
    finally:
        to_the_end(client)


def send_all(server: Server, *messages: bytes) -> list[socket.socket]:
    clients = []
    for message in messages:
        client = socket.create_connection(("127.0.0.1", server.port), timeout=8)
        OPENED.append(client)
        client.sendall(message)
        clients.append(client)
    return clients


OPENED: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _every_client_closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


# --- refusing ---

LATE = 0.6  # longer than the burst tolerance of a quarter of a second


def test_who_has_waited_too_long_is_refused_before_parsing_and_the_rest_is_decided_as_ever(server):
    with busy(server, LATE):
        waiting = send_all(
            server,
            request("/", "Connection: close"),
            request("/healthz", "Connection: close"),
            request("/", "Connection: close", "X-GroundFault-Timeout-Ms: 100"),
            request("/", "Connection: close", "x-GROUNDFAULT-criticality: critical-plus"),
        )
    answers = [to_the_end(each) for each in waiting]
    assert is_annotated(answers[0], "queue-wait"), answers[0]
    assert status(answers[1]) == 200
    assert is_annotated(answers[2], "deadline"), answers[2]
    assert is_annotated(answers[3], "queue-wait"), answers[3]
    state = server.state()
    assert state["shed"] == {"queue-wait": 2, "deadline": 1}
    assert state["in_flight"] == 1  # the question itself
    assert not state["errors"]
    assert b" 200 OK" in server.ask("/", "Connection: close")


FORMS = {
    "GET": request("/", "Connection: close"),
    "HEAD": request("/", "Connection: close", method="HEAD"),
    "HTTP/1.0": request("/", version="1.0"),
    "HTML wanted": request("/", "Connection: close", "Accept: text/html"),
    "JSON wanted": request("/", "Connection: close", "accept: application/json;q=0.5, text/html;q=0"),
    "a body": request("/", "Connection: close", "Content-Length: 3", method="POST", body=b"abc"),
}


def test_a_refusal_is_byte_for_byte_the_middlewares(kind, tmp_path):
    """In stock workers the middleware answers, behind the parser; the budget is spent, so both must refuse."""
    with both(kind, tmp_path, "--access-logfile", "-") as servers:
        with busy(servers[0], LATE), busy(servers[1], LATE):
            waiting = [send_all(each, *FORMS.values()) for each in servers]
        ours, theirs = [[DATE.sub(b"", to_the_end(each)) for each in clients] for clients in waiting]
        said = [" 503 " in each.said() for each in servers]
    assert said == [False, True]  # nothing refused is in the kit's access log
    for form, mine, stock in zip(FORMS, ours, theirs, strict=True):
        assert b"X-GroundFault: handled" in stock, form
        assert mine == stock, form


def test_what_waited_and_is_admitted_is_decided_about_once(server):
    before = server.state()
    with busy(server, 0.3):  # what is sent inside waits for less than the tolerance
        forged = ("Connection: close", "groundfault.visit: x", "X-GroundFault-Visit: x")
        waiting = send_all(server, request("/", *forged), request("/state", "Connection: close"))
    answers = [to_the_end(each) for each in waiting]
    assert status(answers[0]) == 200
    assert json.loads(body_of(answers[1]))["ours"] == []
    after = server.state()
    assert after["admitted"] - before["admitted"] == 4
    assert after["in_flight"] == 1
    assert not after["errors"]


def test_a_place_is_given_back_though_the_request_never_reached_the_application(kind, tmp_path):
    conf = tmp_path / "conf.py"
    conf.write_text("def pre_request(worker, req):\n    if req.path == '/raise':\n        raise RuntimeError('mine')\n")
    with serve(tmp_path / "log", *WORKERS[kind], "-c", str(conf)) as server:
        with busy(server, 0.3):
            raising, malformed = send_all(server, request("/raise"), b"GET / HTTP/1.1\r\nA B: c\r\n\r\n")
        assert status(to_the_end(raising)) == 500
        assert status(to_the_end(malformed)) == 400
        assert server.state()["in_flight"] == 1


def test_an_application_without_a_shedder_gets_one(kind, tmp_path):
    with serve(tmp_path / "log", *WORKERS[kind], app="bare", env={"GROUNDFAULT_SERVICE": "topps"}) as server:
        with busy(server, LATE):
            (client,) = send_all(server, request("/", "Connection: close"))
        answer = to_the_end(client)
        assert is_annotated(answer, "queue-wait")
        assert b"X-GroundFault-Origin: topps\r\n" in answer


def test_of_several_shedders_each_decides_behind_the_parser(kind, tmp_path):
    with serve(tmp_path / "log", *WORKERS[kind], app="doubled") as server:
        with busy(server, LATE):
            (client,) = send_all(server, request("/", "Connection: close"))
        answer = to_the_end(client)
        assert is_annotated(answer, "queue-wait")
        assert b"X-GroundFault-Origin: outer\r\n" in answer
        assert "2 shedders in one application" in server.said()


def test_the_kill_switch_switches_the_gate_off(kind, tmp_path):
    with serve(tmp_path / "log", *WORKERS[kind], env={"GROUNDFAULT_DISABLED": "1"}) as server:
        with busy(server, LATE):
            (client,) = send_all(server, request("/", "Connection: close"))
        assert status(to_the_end(client)) == 200


ODD = [
    b"GET / HTTP/1.1\r\nX-A: 1\r\n 2\r\n\r\n",
    b"GET / HTTP/1.1\r\nX-A: \0\r\n\r\n",
    b"GET / HTTP/1.1\r\nConnection: close\r\nContent_Length: 3\r\n\r\nabc",
    b"get / HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"GET http://served/ HTTP/1.1\r\nHost: served\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nConnection: close\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nX-A: " + b"a" * 9000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X-A: 1\r\n" * 120 + b"\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


def test_what_is_odd_is_answered_as_gunicorn_answers_it(kind, tmp_path):
    """Or refused as any request is, where gunicorn would have served it."""
    with both(kind, tmp_path) as servers:
        with busy(servers[0], LATE), busy(servers[1], LATE):
            waiting = [send_all(each, *ODD) for each in servers]
        ours, theirs = [[to_the_end(each) for each in clients] for clients in waiting]
        for each in servers:
            assert " 500 " not in each.said()
            assert b" 200 OK" in each.ask("/", "Connection: close")
        assert not servers[0].state()["errors"]
    for odd, mine, stock in zip(ODD, ours, theirs, strict=True):
        assert status(mine) == status(stock), (odd, mine, stock)
        assert is_annotated(mine.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"), "queue-wait") or mine == stock, odd


# --- kept connections ---


def test_a_refused_request_keeps_its_connection_and_the_next_one_is_served(tmp_path):
    with serve(tmp_path / "log", *THREAD) as server:
        with busy(server, LATE):
            plain, with_body = send_all(
                server, request("/"), request("/", "Content-Length: 3", method="POST", body=b"abc")
            )
        for client in (plain, with_body):
            answer = one_answer(client)
            assert is_annotated(answer, "queue-wait")
            assert b"Connection: keep-alive\r\n" in answer
        for client in (plain, with_body):
            client.sendall(request("/?size=11"))
            assert body_of(one_answer(client)) == b"x" * 11
            client.close()


def test_a_refused_request_with_more_behind_it_ends_its_connection_with_the_whole_answer(tmp_path):
    with serve(tmp_path / "log", *THREAD) as server:
        with busy(server, LATE):
            waiting = send_all(
                server,
                request("/") + request("/b"),  # pipelined
                request("/", "Content-Length: 10", method="POST", body=b"abc"),  # more to come
                request("/", "Transfer-Encoding: chunked", method="POST", body=b"0\r\n\r\n"),
            )
        for client in waiting:
            answer = to_the_end(client)
            assert is_annotated(answer, "queue-wait"), answer
            assert b"Connection: close\r\n" in answer
            assert answer.count(b"HTTP/1.1 ") == 1


def test_an_unread_body_is_never_taken_for_a_request(tmp_path):
    """The application leaves a body that reads like a request; on a kept connection it must not be answered."""
    inner = request("/?size=3")
    with serve(tmp_path / "log", *THREAD) as server:
        (client,) = send_all(server, request("/?size=5", f"Content-Length: {len(inner)}", method="POST", body=inner))
        assert body_of(one_answer(client)) == b"x" * 5
        with busy(server, LATE):
            client.sendall(request("/"))
        assert is_annotated(one_answer(client), "queue-wait")
        client.sendall(request("/?size=7", "Connection: close"))
        rest = to_the_end(client)
        assert rest.count(b"HTTP/1.1 ") == 1
        assert body_of(rest) == b"x" * 7


# --- closing ---


def test_a_peer_that_does_not_close_keeps_nobody_waiting(server):
    """Stock workers of gunicorn 26 and later wait two seconds for it."""
    slow = []
    for _ in range(3):
        client = socket.create_connection(("127.0.0.1", server.port), timeout=8)
        client.sendall(request("/", "Connection: close"))
        assert b" 200 OK" in to_the_end(client, stay=True)
        slow.append(client)  # open on our side
    for body in (b"abc", b"x" * 200_000):  # one that nobody reads, and one whose rest is on its way
        client = socket.create_connection(("127.0.0.1", server.port), timeout=8)
        client.sendall(request("/", "Connection: close", "Content-Length: 300000", method="POST", body=body))
        assert b" 200 OK" in to_the_end(client, stay=True)
        slow.append(client)
    begun = monotonic()
    assert b" 200 OK" in server.ask("/", "Connection: close")
    assert monotonic() - begun < 1.0
    for client in slow:
        client.close()


@pytest.mark.parametrize("refused", [False, True], ids=["served", "refused"])
def test_a_client_that_sends_a_body_nobody_reads_gets_the_whole_answer(server, refused):
    outcomes: list[Any] = []

    def post(size: int) -> None:
        answer = requests.post(f"http://127.0.0.1:{server.port}/?size=300000", data=b"x" * size, timeout=20)
        outcomes.append((answer.status_code, len(answer.content)))

    for size in (50_000, 1_000_000, 8_000_000):
        if refused:
            client = threading.Thread(target=post, args=(size,))
            with busy(server, LATE):
                client.start()
            client.join()
            assert outcomes.pop() == (503, 130)
        for _ in range(2):
            post(size)
    assert outcomes == [(200, 300_000)] * 6


# --- stopping ---


class Loop:
    """Clients that ask in a loop, each on new connections or on one that is kept, until nobody takes connections."""

    def __init__(self, port: int, *, kept: bool, clients: int = 6) -> None:
        self.port = port
        self.kept = kept
        self.outcomes: Counter[str] = Counter()
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self):
        for each in self.threads:
            each.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for each in self.threads:
            each.join()

    def _run(self) -> None:
        client = None
        while not self.over.is_set():
            try:
                if client is None:
                    client = socket.create_connection(("127.0.0.1", self.port), timeout=8)
                    fresh = True
            except OSError:
                self.outcomes["not connected"] += 1
                time.sleep(0.02)
                continue
            try:
                client.sendall(request("/?sleep=0.002", *([] if self.kept else ["Connection: close"])))
                answer = one_answer(client)
                keeps = b"Connection: keep-alive\r\n" in answer
                self.outcomes[self._name(answer)] += 1
            except (OSError, AssertionError) as error:
                # On a kept connection that lay idle a client must expect this, and asks again on a new one.
                self.outcomes["lost" if fresh else "lost when idle"] += 1
                self.outcomes[repr(error)[:60]] += 0
                keeps = False
            if not keeps:
                client.close()
                client = None
            fresh = False
        if client is not None:
            client.close()

    @staticmethod
    def _name(answer: bytes) -> str:
        if status(answer) == 200:
            return "served"
        reasons = (reason for reason in ("draining", "queue-wait") if is_annotated(answer, reason))
        return next(reasons, "something else")


def door_can_be_closed() -> bool:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return _close_the_door(listener)


@pytest.mark.parametrize("kept", [False, True], ids=["fresh", "kept"])
def test_a_graceful_stop_serves_or_tells_everybody_who_is_connected(kind, tmp_path, kept):
    conf = tmp_path / "conf.py"
    base = {"sync": "SyncWorker", "thread": "ThreadWorker"}[kind]
    conf.write_text(
        f"from groundfault.integrations import gunicorn\nclass worker_class(gunicorn.{base}):\n    drain_s = 1.5\n"
    )
    with serve(tmp_path / "log", "-c", str(conf), "--workers", "2") as server, Loop(server.port, kept=kept) as loop:
        time.sleep(0.4)
        waiting = send_all(server, *[request("/?sleep=0.3", "Connection: close")] * 6)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert status(server.ask("/healthz", "Connection: close")) == 200
        last = [to_the_end(each) for each in waiting]
        server.process.wait(15)
    assert all(status(each) == 200 or is_annotated(each, "draining") for each in last)
    assert loop.outcomes["draining"] > 0, loop.outcomes
    # Who comes in the last moment is let in and lost where the kernel wants CAP_NET_ADMIN for keeping them out.
    assert loop.outcomes["lost"] <= (0 if door_can_be_closed() else len(loop.threads)), loop.outcomes
    assert loop.outcomes["something else"] == 0, loop.outcomes


def test_a_reload_trips_nobody(kind, tmp_path):
    with serve(tmp_path / "log", *WORKERS[kind], "--workers", "2") as server, Loop(server.port, kept=False) as loop:
        time.sleep(0.4)
        server.process.send_signal(signal.SIGHUP)
        deadline = monotonic() + 15
        while server.said().count("Worker exiting") < 2 and monotonic() < deadline:
            time.sleep(0.1)
        loop.over.set()
    assert server.said().count("Worker exiting") >= 2
    assert set(+loop.outcomes) == {"served"}, loop.outcomes


def test_a_replaced_worker_trips_nobody(kind, tmp_path):
    options = (*WORKERS[kind], "--workers", "2", "--max-requests", "150", "--max-requests-jitter", "50")
    with serve(tmp_path / "log", *options) as server, Loop(server.port, kept=False) as loop:
        deadline = monotonic() + 15
        while server.said().count("Autorestarting") < 3 and monotonic() < deadline:
            time.sleep(0.1)
        loop.over.set()
    assert server.said().count("Autorestarting") >= 3
    # Both may be away at once, and on a busy machine for so long that a queue stands; who is told so trips nothing.
    assert set(+loop.outcomes) <= {"served", "queue-wait"}, loop.outcomes
    assert loop.outcomes["queue-wait"] < 0.3 * loop.outcomes["served"], loop.outcomes


# --- beside other settings ---


def test_install_works_beside_the_users_own_hooks(tmp_path):
    conf = tmp_path / "gunicorn.conf.py"
    conf.write_text(
        "from groundfault.integrations.gunicorn import install\n"
        "threads = 1\n"
        "preload_app = True\n"
        "accesslog = '-'\n"
        "statsd_host = '127.0.0.1:9'\n"
        "def post_worker_init(worker):\n"
        "    worker.log.info('the hook of the user: %s', type(worker).__name__)\n"
        "install(globals())\n"
    )
    with serve(tmp_path / "log", "-c", str(conf)) as server:
        with busy(server, LATE):
            (client,) = send_all(server, request("/", "Connection: close"))
        assert is_annotated(to_the_end(client), "queue-wait")
        assert "the hook of the user: SyncWorker" in server.said()
        assert "groundfault.integrations.gunicorn.SyncWorker" in server.said()


def test_a_stock_worker_that_faces_clients_is_warned_of(tmp_path):
    conf = tmp_path / "gunicorn.conf.py"
    conf.write_text("from groundfault.integrations.gunicorn import post_worker_init\n")
    with serve(tmp_path / "log", "-c", str(conf), "-k", "sync", "-b", "0.0.0.0:0") as server:
        assert "waits up to 2 s for each client to close" in server.said()


@pytest.mark.parametrize("how", ["tls", "unix"])
def test_what_the_kernel_cannot_tell_goes_the_stock_way(kind, tmp_path, how):
    options: tuple[str, ...]
    if how == "tls":
        key, cert = tmp_path / "key", tmp_path / "cert"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost", "-days", "2"]
        subprocess.run(command, check=True, capture_output=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options, address = ("--certfile", str(cert), "--keyfile", str(key)), f"127.0.0.1:{port}"
        asked = ["curl", "-sk", f"https://{address}/?size=9"]
    else:
        address = f"unix:{tmp_path / 's'}"
        options, asked = (), ["curl", "-s", "--unix-socket", str(tmp_path / "s"), "http://x/?size=9"]
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [PYTHON, "-m", "gunicorn", "-b", address, *options, *WORKERS[kind], "gunicorn_served:guarded"],
            cwd=HERE,
            env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
            stdout=out,
            stderr=out,
        )
    try:
        for _ in range(100):
            done = subprocess.run(asked, capture_output=True, check=False)
            if done.stdout:
                break
            time.sleep(0.1)
        assert done.stdout == b"x" * 9, log.read_text()
        assert [subprocess.run(asked, capture_output=True, check=False).stdout for _ in range(3)] == [b"x" * 9] * 3
        # Before the end of it: gunicorn leaves by SystemExit out of a signal handler, which may find any line running.
        assert "Traceback" not in log.read_text()
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(12)
