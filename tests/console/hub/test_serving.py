"""A hub on loopback: real requests over real sockets, streams that tell what changes, and everything it refuses."""

import asyncio
import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hub_reports import PlainSeeing, pushed

from groundfault import wire
from groundfault._clock import monotonic, wall
from groundfault.console.hub import serving, storing
from groundfault.console.hub.accepting import LARGEST_SENT
from groundfault.console.hub.difference import applied
from groundfault.console.hub.pulling import address_of
from groundfault.console.hub.running import Hub, HubOptions, listening

TOKEN = "of-the-hosts-0123456789"  # noqa: S105  it opens nothing but this test's hub
BOUND_S = 20.0

pytestmark = pytest.mark.e2e


class Served:
    """A hub that runs on a thread of this process."""

    def __init__(self, **options):
        self.hub = Hub(HubOptions(**options), seeing=PlainSeeing())
        self.listener = listening("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=lambda: asyncio.run(self.hub.serve(self.listener)))

    def ask(self, method, path, body=None, **headers):
        """Return status, headers and body of an answer."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND_S)) as line:
            line.request(method, path, body, given)
            answer = line.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def push(self, calls, token=TOKEN, **more):
        headers = {wire.TOKEN: token, "Content-Type": "application/json"} if token else {}
        return self.ask("POST", "/push", pushed(calls, **{"at": wall(), **more}), **headers)[0]

    def view(self):
        return json.loads(self.ask("GET", "/snapshot.json")[2])

    def until(self, holds):
        """Return the first view for which that holds."""
        end = monotonic() + BOUND_S
        while not holds(view := self.view()):
            assert monotonic() < end, view
            threading.Event().wait(0.1)
        return view

    def listen(self):
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND_S)
        line.request("GET", "/events")
        return line, line.getresponse()


@contextmanager
def served(**options):
    made = Served(**options)
    made.thread.start()
    try:
        yield made
    finally:
        made.hub.stop()
        made.thread.join(BOUND_S)
        made.listener.close()
        assert not made.thread.is_alive()


def events(answer):
    """Yield what a stream tells: the event's name and its value."""
    name = None
    while line := answer.readline().decode():
        field, _, value = line.rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    place = tmp_path_factory.mktemp("hub") / "hub.db"
    with served(database=f"sqlite:///{place}", token=TOKEN) as made:
        yield made


def test_what_a_host_pushes_is_seen_and_a_stream_tells_first_all_and_then_what_changes(hub):
    assert hub.push({"get": 1}) == 204
    hub.until(lambda view: view["commands"])
    line, answer = hub.listen()
    with closing(line), closing(answer):
        headers = dict(answer.getheaders())
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
        assert "default-src 'none'" in headers["content-security-policy"]
        told = events(answer)
        name, view = next(told)
        assert name == "view"
        assert [row["id"] for row in view["commands"]] == ["topps|db|get"]
        hub.push({"get": 1, "put": 2})
        while len(view["commands"]) < 2:
            name, change = next(told)
            assert name == "change"
            assert change["sequence"] == view["sequence"] + 1
            view = applied(view, change)
        assert "map" not in change
    assert view["commands"][1]["id"] == "topps|db|put"


def test_a_new_hub_has_a_store_of_settings_that_can_be_read(tmp_path):
    place = f"sqlite:///{tmp_path / 'hub.db'}"
    with served(database=place, settings=place) as made:
        status, _, said = made.ask("GET", "/store/document")
    assert (status, json.loads(said)["entries"]) == (200, [])


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 403),
        (b"", {wire.TOKEN: "another-token-0123456789"}, 403),
        (b"nonsense", {wire.TOKEN: TOKEN}, 422),
        (pushed({"get": 1})[:-5], {wire.TOKEN: TOKEN}, 422),
        (gzip.compress(bytes(2**25)), {wire.TOKEN: TOKEN}, 422),
        (bytes(LARGEST_SENT + 1), {wire.TOKEN: TOKEN}, 413),
        (pushed({"get": 1}, host="<b>"), {wire.TOKEN: TOKEN}, 422),
    ],
)
def test_what_is_no_report_of_a_known_host_is_refused_and_the_hub_goes_on(hub, body, headers, status):
    assert hub.ask("POST", "/push", body, **headers)[0] == status
    assert hub.ask("GET", "/")[0] == 200


def test_the_page_says_that_a_host_shows_another_token(hub):
    assert hub.push({"get": 1}, token=TOKEN[::-1]) == 403
    said = "a report from 127.0.0.1 was not taken: the token in X-GroundFault-Token is missing or another"
    hub.until(lambda view: any(line.startswith(said) for line in view["unknown"]))


def test_a_body_without_end_is_cut_off(hub):
    def endless():
        for _ in range(200):
            yield bytes(2**16)

    try:
        status, _, body = hub.ask("POST", "/push", endless(), **{wire.TOKEN: TOKEN})
    except OSError:  # the hub has closed the connection while this one was still sending
        return
    assert (status, json.loads(body)) == (413, {"errors": [f"a body must have at most {LARGEST_SENT} bytes"]})


def test_a_host_that_vanishes_while_it_pushes_is_said(hub):
    with closing(socket.create_connection(("127.0.0.1", hub.port))) as line:
        head = f"POST /push HTTP/1.1\r\nHost: x\r\n{wire.TOKEN}: {TOKEN}\r\nContent-Length: 5000\r\n\r\n"
        line.sendall(head.encode() + bytes(100))
        threading.Event().wait(0.3)
    view = hub.until(lambda view: any("before it was whole" in line for line in view["unknown"]))
    assert any(line.startswith("a report from 127.0.0.1 was dropped: it ended") for line in view["unknown"])


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/push", {}, 404),
        ("GET", "/", {"Host": "evil.example"}, 403),
        ("GET", "/events", {"Host": "evil.example"}, 403),
        ("GET", "/history.json", {"Host": "evil.example"}, 403),
        ("POST", "/events", {}, 415),
        ("PUT", "/", {}, 405),
        ("GET", "/nowhere", {}, 404),
        ("GET", "/report", {}, 404),
        ("GET", "/store/document", {}, 403),
        ("GET", "/store/document", {wire.TOKEN: TOKEN}, 404),
        ("POST", "/store/write", {wire.TOKEN: TOKEN}, 403),
        ("GET", "/history.json?from=yesterday", {}, 400),
        ("GET", "/page/../view.py", {}, 404),
    ],
)
def test_what_is_refused_says_why_and_carries_the_policy(hub, method, path, headers, status):
    found, got, body = hub.ask(method, path, **headers)
    assert (found, bool(body.strip())) == (status, True)
    assert "default-src 'none'" in {name.lower(): value for name, value in got.items()}["content-security-policy"]


def test_the_page_listens_and_its_files_come_from_here(hub):
    status, headers, body = hub.ask("GET", "/")
    assert (status, b'data-live="events"' in body) == (200, True)
    assert hub.ask("GET", "/page/main.js", accept_encoding="gzip")[1]["content-encoding"] == "gzip"
    assert hub.ask("GET", "/", if_none_match=headers["etag"])[0] == 304
    assert hub.ask("HEAD", "/")[2] == b""


def test_history_is_there_to_be_asked_for(hub):
    status, _, body = hub.ask("GET", "/history.json?service=topps")
    said = json.loads(body)
    assert (status, said["service"], said["point_s"] % 10) == (200, "topps", 0)
    assert isinstance(said["points"], list)
    assert isinstance(said["episodes"], list)


def test_no_more_pages_listen_than_may_and_one_that_leaves_makes_room(hub, monkeypatch):
    monkeypatch.setattr(hub.hub.streams, "_most", 1)
    line, answer = hub.listen()
    with closing(line), closing(answer):
        next(events(answer))
        status, _, body = hub.ask("GET", "/events")
        assert (status, b"ask for snapshot.json instead" in body) == (503, True)
    hub.until(lambda _: hub.hub.streams.open == 0)


def test_a_page_that_stops_reading_does_not_keep_its_place(monkeypatch):
    monkeypatch.setattr("groundfault.console.hub.running.UNREAD_S", 0.5)
    with served(token=TOKEN) as hub:
        assert hub.push({f"command-{number}": number for number in range(1000)}) == 204
        hub.until(lambda view: len(view["commands"]) == 1000)
        with closing(socket.socket()) as page:
            page.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            page.connect(("127.0.0.1", hub.port))
            page.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert page.recv(12) == b"HTTP/1.1 200"
            assert hub.hub.streams.open == 1
            hub.until(lambda _: hub.hub.streams.open == 0)


def test_the_thread_that_looks_at_the_store_ends_with_the_hub(tmp_path):
    def looking():
        return [each for each in threading.enumerate() if each.name == "groundfault-hub-store"]

    before = looking()
    with served(settings=f"sqlite:///{tmp_path / 'settings.db'}") as hub:
        assert hub.ask("GET", "/store/document")[0] in {404, 503}
        assert len(looking()) == len(before) + 1
    for each in set(looking()) - set(before):
        each.join(BOUND_S)
    assert len(looking()) <= len(before)


def test_as_much_may_be_written_as_the_store_takes():
    assert serving.LARGEST_WRITE is storing.LARGEST_WRITE


def test_more_reports_at_once_than_may_be_are_refused(hub, monkeypatch):
    monkeypatch.setattr(serving, "BODY_S", 5.0)
    waiting = []
    try:
        for _ in range(serving.MAX_PUSHES):
            line = socket.create_connection(("127.0.0.1", hub.port))
            waiting.append(line)
            line.sendall(
                f"POST /push HTTP/1.1\r\nHost: x\r\n{wire.TOKEN}: {TOKEN}\r\nContent-Length: 9\r\n\r\n".encode()
            )
        end = monotonic() + BOUND_S
        while (status := hub.push({"get": 1}, host="web-7")) != 503:
            assert monotonic() < end, status
    finally:
        for line in waiting:
            line.close()
    hub.until(lambda _: hub.push({"get": 1}, host="web-8") == 204)


def test_without_a_token_only_this_machine_pushes_and_no_page():
    with served() as hub:
        assert hub.push({"get": 1}, token=None) == 204
        assert hub.ask("POST", "/push", pushed({"get": 1}), Origin="http://evil.example")[0] == 403
        assert hub.ask("GET", "/history.json")[0] == 404
        assert json.loads(hub.ask("GET", "/settings.json")[2])["store"] is None


def test_people_are_asked_for_the_password_and_hosts_are_not():
    with served(password="open", token=TOKEN) as hub:  # noqa: S106  as above
        for path in ("/", "/snapshot.json", "/events", "/history.json"):
            status, headers, _ = hub.ask("GET", path)
            assert (status, headers["www-authenticate"][:5]) == (401, "Basic")
        assert hub.ask("GET", "/", authorization="Basic YW55Om9wZW4=")[0] == 200
        assert hub.push({"get": 1}) == 204


def test_one_hub_pulls_what_another_process_serves_and_says_when_it_vanishes():
    class Console(threading.Thread):
        """Answers one request for each connection, as a console would, until its socket is closed."""

        def __init__(self):
            super().__init__(daemon=True)
            self.socket = socket.create_server(("127.0.0.1", 0))
            self.calls = 0

        def run(self):
            while True:
                try:
                    line, _ = self.socket.accept()
                except OSError:
                    return
                with line:
                    line.recv(10_000)
                    self.calls += 1
                    body = pushed({"get": self.calls}, at=wall())
                    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    console = Console()
    console.start()
    port = console.socket.getsockname()[1]
    with served(pull=[address_of(f"http://127.0.0.1:{port}/")]) as hub:
        hub.until(lambda view: view["commands"] and view["commands"][0]["counts"]["success"] > 0)
        console.socket.shutdown(socket.SHUT_RDWR)
        console.socket.close()
        view = hub.until(lambda view: view["hosts"][0]["why"])
    assert view["hosts"][0]["host"] == "web-1"
    assert view["hosts"][0]["why"].startswith(f"127.0.0.1:{port}: ")


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from hub_reports import PlainSeeing
from groundfault.console.hub.running import Hub, HubOptions, listening, run
listener = listening("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
sys.exit(run(Hub(HubOptions(database="sqlite:///" + sys.argv[2]), seeing=PlainSeeing()), listener))
"""


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_at_once_though_pages_listen(tmp_path, how, code):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(tmp_path / "hub.db")],
        stdout=subprocess.PIPE,
        env=os.environ,
    ) as process:
        port = int(process.stdout.readline())
        lines = []
        for _ in range(3):
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND_S)
            line.request("GET", "/events")
            lines.append((line, line.getresponse()))
            next(events(lines[-1][1]))
        began = monotonic()
        process.send_signal(how)
        assert process.wait(BOUND_S) == code
        assert monotonic() - began < 8.0  # 0.3 s on a machine that has nothing else to do
        for line, answer in lines:
            answer.read()  # its end, and no more
            answer.close()
            line.close()
