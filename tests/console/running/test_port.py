"""The console on an address of its own: what it answers, who has the address, and what bad clients can do."""

import gzip
import json
import os
import select
import socket
import stat
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest

from groundfault import SettingsError, wire
from groundfault._clock import monotonic
from groundfault.console import _door, _kernel, port, serve
from groundfault.console._door import Door
from groundfault.console.answering import LARGEST_BODY, Console
from groundfault.console.guarding import Guard
from groundfault.console.port import Address, Port

TOKEN = "sixteen-or-more-characters"  # noqa: S105  of these tests alone
VIEW = gzip.compress(b'{"format":1}')
BOUND_S = 30.0


class FakeSteering:
    def shown(self, query):
        return {"query": query}

    def preview(self, asked):
        return asked

    def change(self, asked):
        return {"size": len(json.dumps(asked))}


def console(view=lambda: VIEW, **more):
    return Console(view, guard=Guard(token=TOKEN), steers=FakeSteering(), **more)


def wait_until(what):
    until = monotonic() + BOUND_S
    while not what():
        assert monotonic() < until
        time.sleep(0.01)


@contextmanager
def opened(made=None, address=None, **more):
    listener = (address or Address(port=0)).listen()
    where = listener.getsockname()
    door = Door(listener, made or console(), **more)
    try:
        yield where
    finally:
        door.close(BOUND_S)


def raw(where, *parts, family=socket.AF_INET):
    """Send the parts one after the other; return all that comes back."""
    with socket.socket(family) as sock:
        sock.settimeout(BOUND_S)
        sock.connect(where)
        for part in parts:
            sock.sendall(part)
            time.sleep(0.02 * (len(parts) > 1))
        answer = b""
        while more := sock.recv(65536):
            answer += more
        return answer


def status(answer):
    return int(answer.split()[1])


def get(path="/snapshot.json", *more):
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *more, "", ""]).encode()


def post(body, *more, length=None):
    head = ["POST /settings/change HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    length = [f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*head, f"{wire.TOKEN}: {TOKEN}", *length, *more, "", ""]).encode() + body


@pytest.fixture(params=["library", "python"])
def where(request, monkeypatch):
    """Return the address of a console that is open, once for each way to call the kernel."""
    if request.param == "python":
        monkeypatch.setattr(_door, "calls", _kernel._OfPython)
    elif not isinstance(_kernel.calls(), _kernel._OfTheLibrary):
        pytest.skip("this C library has no accept4")
    with opened() as found:
        yield found


def test_it_answers_as_http(where):
    client = HTTPConnection(*where, timeout=BOUND_S)
    for path, expected in (("/snapshot.json?x", 200), ("/page/main.js", 200), ("/", 200), ("/none", 404)):
        client.request("GET", path, headers={"Host": "localhost"})
        answer = client.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (expected, "close")
        assert len(answer.read()) == int(answer.headers["Content-Length"])
    client.request("HEAD", "/snapshot.json", headers={"Host": "localhost"})
    assert client.getresponse().read() == b""
    client.close()


def test_a_request_may_come_in_pieces(where):
    whole = get()
    assert raw(where, *(whole[at : at + 20] for at in range(0, len(whole), 20))).endswith(b'{"format":1}')
    assert raw(where, whole, b"").endswith(b'{"format":1}')


def test_a_change_is_steered(where):
    assert raw(where, post(b'{"a":1}')).endswith(b'{"size": 8}')
    assert raw(where, post(b"", length=7), b'{"a"', b":1}").endswith(b'{"size": 8}')
    answer = raw(where, post(b"", "Expect: 100-continue", length=7), b'{"a":1}')
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET  HTTP/1.1\r\n\r\n", 400),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"G\xc3T / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n folded: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\nC: d\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\n\r\n", 403),
        (b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /page/%2e%2e/answering.py HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /%73napshot.json HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /snapshot.json%3Fx HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (get("/" + "x" * 3000), 414),
        (get("/", *(f"A{number}: b" for number in range(200))), 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 30_000, 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 30_000 + b"\r\n\r\n", 431),
        (post(b"{}", "Transfer-Encoding: chunked"), 411),
        (post(b"{}", length="-1"), 400),
        (post(b"{}", "Content-Length: 2"), 400),
        (post(b"", length=LARGEST_BODY + 1), 413),
        (post(b"", length="9" * 30), 413),
        (post(b"{}").replace(TOKEN.encode(), b"another-token-0123456789"), 403),
    ],
)
def test_odd_requests_are_refused(sent, expected):
    with opened() as where:
        assert status(raw(where, sent)) == expected


def test_who_says_nothing_or_reads_nothing_is_left_in_time_and_others_are_answered():
    large = gzip.compress(os.urandom(8_000_000), 1)
    with opened(console(lambda: large), slow_s=0.2) as where:
        clients = [socket.create_connection(where, timeout=BOUND_S) for _ in range(60)]
        try:
            for number, client in enumerate(clients):
                client.sendall(get("/snapshot.json", "Accept-Encoding: gzip") if number % 2 else b"GET ")
            assert status(raw(where, get("/page/main.js"))) == 200
            wait_until(lambda: sum("slow" in each.name for each in threading.enumerate()) == 0)
            assert status(raw(where, get("/page/main.js"))) == 200
        finally:
            for client in clients:
                client.close()


def test_clients_that_leave_at_once_are_nothing_to_speak_of(caplog):
    with opened() as where:
        for _ in range(30):
            with socket.create_connection(where, timeout=BOUND_S) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.sendall(get())
        assert status(raw(where, get())) == 200
    assert not caplog.records


def test_an_answer_that_waits_holds_up_no_other():
    released = threading.Event()

    def slow():
        released.wait(BOUND_S)
        return VIEW

    with opened(console(slow, is_ready=lambda: False)) as where, socket.create_connection(where) as client:
        client.sendall(get())
        assert status(raw(where, get("/page/main.js"))) == 200
        assert not select.select([client], [], [], 0)[0]
        released.set()
        client.settimeout(BOUND_S)
        assert client.recv(15) == b"HTTP/1.1 200 OK"


def test_what_fails_is_an_answer_and_an_internal_error(caplog):
    def fail():
        raise ValueError("secret")

    with opened(console(fail)) as where:
        answer = raw(where, get())
    assert (status(answer), b"secret" in answer) == (500, False)
    assert "internal error in console" in caplog.text


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": -1}, "port must be a number"),
        ({"port": 65_536}, "port must be a number"),
        ({"port": True}, "port must be a number"),
        ({"port": "9731"}, "port must be a number"),
        ({"host": ""}, "host must be an address"),
        ({"path": "/" + "x" * 200}, "at most 100 bytes"),
        ({"host": "0.0.0.0"}, "needs auth="),  # noqa: S104  it is refused
        ({"host": "::"}, "needs auth="),
        ({"host": "console.example.com"}, "needs auth="),
        ({"token": "short"}, "token must be at least"),
        ({"hosts": "localhost"}, "hosts must be several names"),
        ({"auth": "ada:secret"}, "auth must be callable"),
    ],
)
def test_nonsense_is_refused_at_once(settings, message):
    with pytest.raises(SettingsError, match=message):
        serve(**settings)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"])
def test_addresses_of_the_loopback_interface_need_nothing(host):
    assert Address(host).is_private


@contextmanager
def ported(address, **more):
    made = Port(address, console(), **more)
    made.start()
    try:
        yield made
    finally:
        made.stop(BOUND_S)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(port, "_RETRY_S", 0.02)
    monkeypatch.setattr(port, "_YIELD_S", 0.2)


@pytest.mark.usefixtures("quick")
def test_of_several_one_has_the_port_and_another_takes_it_when_that_one_ends():
    with ported(Address(port=0)) as first:
        wait_until(lambda: first.is_listening)
        number = first.address.port
        with ported(Address(port=number)) as second:
            assert status(raw(("127.0.0.1", number), get())) == 200
            assert not second.is_listening
            first.stop(BOUND_S)
            wait_until(lambda: second.is_listening)
            assert status(raw(("127.0.0.1", number), get())) == 200
    assert not second.is_listening


@pytest.mark.usefixtures("quick")
def test_a_strangers_port_is_waited_for_and_spoken_of_once(caplog):
    caplog.set_level("INFO", "groundfault")
    with socket.create_server(("127.0.0.1", 0)) as stranger, ported(Address(port=stranger.getsockname()[1])) as made:
        tries = []
        made.address.listen = lambda before=made.address.listen: (tries.append(1), before())[1]
        wait_until(lambda: len(tries) > 5)
        assert not made.is_listening
    assert len([each for each in caplog.records if "standing by" in each.getMessage()]) == 1


@pytest.mark.usefixtures("quick")
def test_who_has_forked_lends_the_port_where_each_shows_itself():
    with ported(Address(port=0), lends=True) as made:
        wait_until(lambda: made.is_listening)
        made.lend()
        wait_until(lambda: not made.is_listening)
        wait_until(lambda: made.is_listening)
    with ported(Address(port=0)) as kept:
        wait_until(lambda: kept.is_listening)
        kept.lend()
        time.sleep(0.1)
        assert kept.is_listening


def test_an_address_that_does_not_exist_is_waited_for(caplog):
    caplog.set_level("INFO", "groundfault")
    with ported(Address("192.0.2.1", 1)) as made:
        wait_until(lambda: "standing by" in caplog.text)
        assert not made.is_listening


# --- unix sockets -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_a_unix_socket_is_for_this_user_alone_and_needs_no_host(tmp_path):
    path = tmp_path / "s"
    with ported(Address(path=path)) as made:
        wait_until(lambda: made.is_listening)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for head in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", get("/")):
            assert status(raw(str(path), head, family=socket.AF_UNIX)) == 200
        evil = b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"
        assert status(raw(str(path), evil, family=socket.AF_UNIX)) == 403
    assert not path.exists()


@pytest.mark.usefixtures("quick")
def test_the_socket_of_a_dead_process_is_taken_and_that_of_a_living_one_is_not(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))  # and nobody listens any more
    with ported(Address(path=path)) as first:
        wait_until(lambda: first.is_listening)
        with ported(Address(path=path)) as second:
            time.sleep(0.1)
            assert (first.is_listening, second.is_listening) == (True, False)
            first.stop(BOUND_S)
            wait_until(lambda: second.is_listening)
            assert status(raw(str(path), get(), family=socket.AF_UNIX)) == 200


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["file", "link", "directory", "stranger"])
def test_what_is_no_socket_or_somebody_elses_is_never_deleted(tmp_path, kind, caplog):
    caplog.set_level("INFO", "groundfault")
    path = tmp_path / "s"
    stranger = socket.socket(socket.AF_UNIX)
    if kind == "file":
        path.write_text("precious")
    elif kind == "link":
        (tmp_path / "target").write_text("precious")
        path.symlink_to("target")
    elif kind == "directory":
        path.mkdir()
    else:
        stranger.bind(str(path))
        stranger.listen()
    before = path.lstat()
    with stranger, ported(Address(path=path)) as made:
        wait_until(lambda: "standing by" in caplog.text)
        assert not made.is_listening
    assert os.path.samestat(before, path.lstat())


@pytest.mark.usefixtures("quick")
def test_a_socket_that_somebody_has_cleared_away_is_made_again(tmp_path):
    path = tmp_path / "s"
    with ported(Address(path=path)) as made:
        wait_until(lambda: made.is_listening)
        path.unlink()
        wait_until(path.exists)
        wait_until(lambda: made.is_listening)
        assert status(raw(str(path), get(), family=socket.AF_UNIX)) == 200
