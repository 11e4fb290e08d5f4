"""A callee by hand, plain or TLS, that answers as the path says, and drips: a byte now and then, without end."""

import socket
import ssl
import subprocess
import threading
from contextlib import closing, suppress

from groundfault import Reason, wire

INTERVAL_S = 0.02
DRIPS = 2000  # 40 s: whoever waits for the end has no deadline


def annotated(reason):
    """Return the whole annotated 503 for a reason, as bytes."""
    answer = wire.answer(reason, "saber")
    head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
    return f"HTTP/1.1 503 Service Unavailable\r\n{head}\r\n".encode() + answer.body


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

# What is sent at once, what is then sent one drop at a time, and the drop.
SCRIPTS = {
    "/ok": (HEAD + b"Content-Length: 2\r\n\r\nok", None),
    "/broken": (b"HTTP/1.1 500 Oh\r\nContent-Length: 6\r\n\r\nbroken", None),
    "/plain-503": (b"HTTP/1.1 503 Oh\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n", None),
    "/missing": (b"HTTP/1.1 404 Oh\r\nContent-Length: 0\r\n\r\n", None),
    "/two-lengths": (HEAD + b"Content-Length: 2, 3\r\n\r\nok", None),
    "/chunks": (CHUNKED + b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n", None),
    **{f"/{reason}": (annotated(reason), None) for reason in Reason},
    "/to-localhost": (b"HTTP/1.1 302 Found\r\nLocation: http://localhost:{port}/ok\r\nContent-Length: 0\r\n\r\n", None),
    "/elsewhere": (b"HTTP/1.1 302 Found\r\nLocation: /drip-headers\r\nContent-Length: 0\r\n\r\n", None),
    "/drip-status": (b"HTTP/1.1 200 O", b"K"),
    "/drip-interim": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "/drip-headers": (HEAD + b"X-Long: ", b"x"),
    "/drip-body": (HEAD + b"Content-Length: 100000\r\n\r\n", b"x"),
    "/drip-to-the-end": (HEAD + b"Connection: close\r\n\r\n", b"x"),
    "/drip-chunk-size": (CHUNKED, b"0"),
    "/drip-chunk-extension": (CHUNKED + b"2;", b"x"),
    "/drip-chunk": (CHUNKED + b"ffff\r\n", b"x"),
    "/drip-chunks": (CHUNKED, b"1\r\nx\r\n"),
    "/drip-trailers": (CHUNKED + b"2\r\nok\r\n0\r\n", b"X-More: x\r\n"),
    "/drip-broken": (b"HTTP/1.1 500 Oh\r\nContent-Length: 100000\r\n\r\n", b"x"),
    "/stall": (HEAD + b"Content-Length: 8\r\n\r\nhalf", b""),
}
DRIPPING = [path for path, (_, drop) in SCRIPTS.items() if drop]
DRIPPING_HEADERS = ["/drip-status", "/drip-interim", "/drip-headers"]


def certificate_in(place):
    """Make a certificate for loopback, which is its own authority and good for clients too."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", place / "key.pem", "-out", place / "cert.pem", "-subj", "/CN=localhost", "-days", "1"),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    return place


class Dripping:
    """Each connection has a thread. ``greeting`` is dripped before anything is read; ``tls`` is a context or None."""

    def __init__(self, *, tls=None, greeting=None):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._tls = tls
        self._greeting = greeting
        self._over = threading.Event()
        self.connections = 0
        self.requests = []
        self.headers = []
        self._open = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._over.set()
        for one in (self._listener, *self._open):
            with suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)  # of TLS too: its own would wait for the other side
        self._listener.close()
        for thread in self._threads:
            thread.join()

    @property
    def port(self):
        return self._listener.getsockname()[1]

    @property
    def url(self):
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def _accept(self):
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(connection,))
                thread.start()
                self._threads.append(thread)

    def _serve(self, connection):
        self._open.append(connection)
        connection.settimeout(30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with closing(connection), suppress(OSError, ssl.SSLError):
            if self._greeting is not None:
                self._drip(connection, *self._greeting)
                return
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            with closing(connection), closing(connection.makefile("rb")) as reader:
                while self._answer(connection, reader):
                    pass

    def _answer(self, connection, reader):
        head = []
        while (line := reader.readline()) not in {b"\r\n", b""}:
            head.append(line.decode())
        if not head:
            return False
        method, target, _ = head[0].split(" ", 2)
        self.requests.append((method, target))
        self.headers.append(dict(line.strip().split(": ", 1) for line in head[1:]))
        if method == "CONNECT" and target.startswith("127.0.0.1:"):
            return self._tunnel(connection, target)
        if target == "/slow-upload":
            while not self._over.wait(INTERVAL_S) and connection.recv(20_000):  # never idle, and 16 MB take 16 s
                pass
            return False
        reader.read(int(self.headers[-1].get("Content-Length", 0)))
        start, drop = SCRIPTS["/" + target.split("/", 3)[-1] if "/" in target else "/drip-headers"]
        connection.sendall(start.replace(b"{port}", str(self.port).encode()))
        if drop is not None:
            self._drip(connection, b"", drop)
        return drop is None

    def _drip(self, connection, start, drop):
        connection.sendall(start)
        for _ in range(DRIPS):
            connection.sendall(drop)
            if self._over.wait(INTERVAL_S):
                break

    def _tunnel(self, connection, target):
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        with socket.create_connection(("127.0.0.1", int(target.split(":")[1])), 30) as upstream:
            self._open.append(upstream)
            back = threading.Thread(target=_relay, args=(upstream, connection))
            back.start()
            _relay(connection, upstream)
            back.join()
        return False


def _relay(source, target):
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
