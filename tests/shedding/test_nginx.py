"""A real nginx in front: over TCP the kernel knows the wait of its connection, over a unix socket its header does."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager

import pytest

from groundfault.doctor.servers import Server, running
from groundfault.doctor.waiting import Client, hold_up

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.alone,
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed"),
]

HOLD_S = 0.3
DELAYS_S = (0.1, 0.15)
ATTEMPTS = 3
TOLERANCE_S = 0.03  # as in test_waits.py

CONFIGURATION = """
daemon off;
{user}
worker_processes 1;
pid {place}/pid;
error_log {place}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    upstream behind {{ server {behind}; {keep} }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://behind;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Request-Start "t=${{msec}}";
        }}
    }}
}}
"""


USER = "user root;" if os.geteuid() == 0 else ""  # root's temporary directories are nobody else's


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def nginx(place, behind, *, keep=False):
    port = free_port()
    file = place / "nginx.conf"
    file.write_text(
        CONFIGURATION.format(user=USER, place=place, behind=behind, port=port, keep="keepalive 4;" if keep else "")
    )
    process = subprocess.Popen(["nginx", "-p", place, "-c", file], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 5  # noqa: TID251  a real process is waited for in real time
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (place / "error.log").read_text()
                assert time.monotonic() < end, "nginx does not answer"  # noqa: TID251  as above
                time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(5)


def check(port, signal):
    with Client(port) as client:  # a request that finds nothing in front of it, which tells what the clocks differ by
        client.send("/")
        client.receive()
    for _ in range(ATTEMPTS):
        readings = hold_up(port, HOLD_S, DELAYS_S, kept_alive=False)
        assert {reading.signal for reading in readings} == {signal}
        worst = max(abs(reading.error_s) for reading in readings)
        if worst <= TOLERANCE_S:
            return
    pytest.fail(f"off by {worst:.3f} s: {readings}")


GUNICORN = ("-m", "gunicorn", "--workers", "1", "--log-level", "warning", "--bind")
UVICORN = ("-m", "uvicorn", "--no-access-log", "--log-level", "warning")
ASGI = "groundfault.doctor.app:asgi"
WSGI = "groundfault.doctor.app:wsgi"
TCP = "127.0.0.1:{port}"

OVER_TCP = {
    "gunicorn-sync": (*GUNICORN, TCP, "--worker-class", "sync", WSGI),
    "gunicorn-gthread": (*GUNICORN, TCP, "--worker-class", "gthread", "--threads", "1", WSGI),
    "uvicorn": (*UVICORN, "--port", "{port}", ASGI),
}


@pytest.mark.parametrize("keep", [False, True], ids=["fresh", "kept"])
@pytest.mark.parametrize("name", OVER_TCP)
def test_over_tcp_the_kernel_is_asked(name, keep, tmp_path):
    """On connections that nginx makes for each request, or keeps for many."""
    with (
        running(Server(name, "", OVER_TCP[name], ())) as instance,
        nginx(tmp_path, f"127.0.0.1:{instance.port}", keep=keep) as port,
    ):
        check(port, "tcp-info")


OVER_A_UNIX_SOCKET = {
    "gunicorn-sync": (*GUNICORN, "unix:{path}", "--worker-class", "sync", WSGI),
    "gunicorn-gthread": (*GUNICORN, "unix:{path}", "--worker-class", "gthread", "--threads", "1", WSGI),
    "uvicorn": (*UVICORN, "--uds", "{path}", ASGI),
    "uvicorn with the kit": (
        *(*UVICORN, "--http", "groundfault.integrations.uvicorn:AutoProtocol", "--uds", "{path}", ASGI),
    ),
}


@pytest.mark.parametrize("name", OVER_A_UNIX_SOCKET)
def test_over_a_unix_socket_the_header_is_believed(name, tmp_path):
    path = tmp_path / "behind.sock"
    command = tuple(word.replace("{path}", str(path)) for word in OVER_A_UNIX_SOCKET[name])

    def answers(_):
        if not path.exists():
            return False
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            client.connect(str(path))
            client.sendall(b"GET /ready HTTP/1.1\r\nHost: doctor\r\nConnection: close\r\n\r\n")
            return client.recv(12).endswith(b" 200")

    with running(Server(name, "", command, ()), answers), nginx(tmp_path, f"unix:{path}") as port:
        check(port, "request-start")
