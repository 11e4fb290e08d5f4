"""Where the kernel's word on a wait is hidden, missing or open to deceit: each is said, and none is taken for calm."""

import json
import socket
import ssl
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from threading import Event, Thread

import h2.config
import h2.connection
import h2.events
import pytest

from groundfault.doctor.servers import Server, running
from groundfault.doctor.waiting import Client

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

HERE = str(Path(__file__).parent)
TOLERANCE_S = 0.03
ATTEMPTS = 3  # the machine may have other things to do

UVICORN = ("-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--app-dir", HERE, "--no-access-log")
ASGI = "groundfault.doctor.app:asgi"
WSGI = "groundfault.doctor.app:wsgi"


# --- TLS in this process ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    place = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", place / "key.pem", "-out", place / "cert.pem", "-subj", "/CN=localhost", "-days", "1"),
        ],
        check=True,
        capture_output=True,
    )
    return place


TLS = {
    "uvicorn-asyncio": (*UVICORN, "--loop", "asyncio", "--ssl-keyfile", "key.pem", "--ssl-certfile", "cert.pem", ASGI),
    "uvicorn-uvloop": (*UVICORN, "--loop", "uvloop", "--ssl-keyfile", "key.pem", "--ssl-certfile", "cert.pem", ASGI),
    "gunicorn-gthread": (
        *("-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "1"),
        *("--keyfile", "key.pem", "--certfile", "cert.pem", "--log-level", "warning", WSGI),
    ),
    "gunicorn-asgi": (
        *("-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--worker-class", "asgi", "--log-level", "warning"),
        *("--keyfile", "key.pem", "--certfile", "cert.pem", ASGI),
    ),
    "hypercorn": (
        *("-m", "hypercorn", "--bind", "127.0.0.1:{port}", "--keyfile", "key.pem", "--certfile", "cert.pem", ASGI),
    ),
}


class TlsClient(Client):
    def connect(self, port):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(super().connect(port))


def answers_by_tls(port):
    with TlsClient(port) as client:
        client.send("/ready")
        return client.receive() is not None


@pytest.mark.parametrize("name", TLS)
def test_tls_hides_the_wait_of_a_first_request_only(name, certificate):
    """The handshake comes after the wait and before the request: its reading is refused, and the next is right."""
    command = tuple(str(certificate / word) if word.endswith(".pem") else word for word in TLS[name])
    with running(Server(name, "", command, (command[1],)), answers_by_tls) as instance:
        for _ in range(ATTEMPTS):
            with TlsClient(instance.port) as client:
                client.send("/")
                first = client.receive()
                assert first.signal == "none"
                assert first.refused["tcp-info"].startswith("TLS in this process")
                with TlsClient(instance.port) as holder:
                    holder.send("/hold/300")
                    time.sleep(0.1)
                    client.send("/")
                    holder.receive()
                second = client.receive()
            assert second.signal == "tcp-info"
            if abs(second.error_s) <= TOLERANCE_S:
                return
        pytest.fail(f"off by {second.error_s:.3f} s")


# --- HTTP/2 -----------------------------------------------------------------------------------------------------------

H2 = {
    "hypercorn": ("-m", "hypercorn", "--bind", "127.0.0.1:{port}", ASGI),
    "gunicorn-asgi": (
        *("-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--worker-class", "asgi", "--log-level", "warning"),
        *("--http-protocols", "h2,h1", "--http2-cleartext", "both", ASGI),
    ),
}


class H2Client:
    """HTTP/2 with prior knowledge, as little of it as is needed."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.flush()
        self.bodies = defaultdict(bytes)
        self.ended = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def send(self, path):
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "doctor")]
        self.h2.send_headers(stream, head, end_stream=True)
        self.flush()
        return stream

    def receive(self, stream):
        while stream not in self.ended:
            received = self.socket.recv(65536)
            assert received, "the server has closed the connection"
            for event in self.h2.receive_data(received):
                if isinstance(event, h2.events.DataReceived):
                    self.bodies[event.stream_id] += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    self.ended.add(event.stream_id)
            self.flush()
        return json.loads(self.bodies[stream])


@pytest.mark.parametrize("name", H2)
def test_http_2_is_measured_while_one_stream_is_open_and_not_otherwise(name):
    with running(Server(name, "", H2[name], (H2[name][1],))) as instance:
        for _ in range(ATTEMPTS):
            with H2Client(instance.port) as client, Client(instance.port) as holder:
                client.receive(client.send("/"))
                holder.send("/hold/300")
                time.sleep(0.1)
                sent = time.monotonic()  # noqa: TID251  compared with what the kernel says
                alone = client.receive(client.send("/"))
                assert alone["signal"] == "tcp-info"
                sleeper = client.send("/sleep/100")
                beside = client.receive(client.send("/"))
                assert beside["signal"] == "none"
                assert "several streams" in beside["refused"]["tcp-info"]
                client.receive(sleeper)
                assert client.receive(client.send("/"))["signal"] == "tcp-info"
            off = abs(alone["wait_s"] - (alone["entered"] - sent))
            if off <= TOLERANCE_S:
                return
        pytest.fail(f"off by {off:.3f} s")


# --- bytes that come one by one ---------------------------------------------------------------------------------------


def get(port, path):
    client = socket.create_connection(("127.0.0.1", port), timeout=5)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: served\r\nConnection: close\r\n\r\n".encode())
    return client


def answer(client):
    with client, client.makefile("rb") as file:
        return json.loads(file.read().partition(b"\r\n\r\n")[2])


class Dripping(Thread):
    """Sends the head of an upload at once and its body byte by byte, so that its last byte has always just come."""

    def __init__(self, port):
        super().__init__()
        self.client = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.client.sendall(b"POST /drip HTTP/1.1\r\nHost: served\r\nContent-Length: 100000\r\n\r\n")
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.over = Event()

    def run(self):
        while not self.over.wait(0.001):
            self.client.sendall(b"x")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        self.client.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_client_that_drips_bytes_does_not_end_the_backlog_for_others(loop):
    """Its own wait reads as nothing, as that of a request does that found no queue; such a one does end it."""
    command = (*UVICORN, "--loop", loop, "--log-level", "warning", "served:asgi")
    with running(Server("dripping", "uvicorn", command, ("uvicorn",))) as instance:
        before = answer(get(instance.port, "/ready"))["cleared"]
        with get(instance.port, "/block") as blocker:
            time.sleep(0.02)
            honest = [get(instance.port, "/work") for _ in range(3)]
            with Dripping(instance.port):
                time.sleep(0.1)
                with get(instance.port, "/ready") as witness:
                    answer(blocker)
                    seen = answer(witness)
            for each in honest:
                each.close()
        assert (seen["backlog"], seen["cleared"]) == (True, before)
        for _ in range(ATTEMPTS * 10):
            after = answer(get(instance.port, "/ready"))
            if not after["backlog"]:
                break
            time.sleep(0.1)
        assert (after["backlog"], after["cleared"] > before) == (False, True)


# --- unix sockets -----------------------------------------------------------------------------------------------------


class UnixClient(Client):
    lines = ""

    def connect(self, path):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        try:
            client.connect(str(path))
        except OSError:
            client.close()
            raise
        return client

    def head(self):
        return self.lines

    def ask(self, *lines):
        self.lines = "".join(f"{line}\r\n" for line in lines)
        self.send("/")
        return self.receive()


KIT = "groundfault.integrations.uvicorn:{}"


@pytest.mark.parametrize(
    ("http", "signal"),
    [
        ("h11", "none"),
        ("httptools", "none"),
        (KIT.format("H11Protocol"), "in-process"),
        (KIT.format("HttpToolsProtocol"), "in-process"),
    ],
)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_over_a_unix_socket_there_is_a_trusted_header_or_a_stamp(tmp_path, http, signal, loop):
    path = tmp_path / "served.sock"
    command = (*UVICORN[:2], "--uds", str(path), "--http", http, "--loop", loop, "--log-level", "warning", ASGI)

    def answers(_):
        with UnixClient(path) as client:
            return client.ask() is not None

    with running(Server("unix", "uvicorn", command, ("uvicorn",)), answers), UnixClient(path) as client:
        plain = client.ask()
        assert (plain.signal, plain.refused["tcp-info"]) == (signal, "a unix socket, which has no TCP_INFO")
        if signal != "none":
            assert plain.seen_s < 0.1
        began = time.time()  # noqa: TID251  what a proxy would write
        assert client.ask(f"X-Request-Start: t={began:.3f}").signal == "request-start"
        late = client.ask(f"X-Request-Start: t={began - 0.5:.3f}")
        assert late.seen_s == pytest.approx(0.5, abs=0.1)  # the least age seen is what the clocks differ by
