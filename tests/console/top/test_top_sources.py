import gzip
import json
import socket
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest

from groundfault.console import _top_sources as sources
from groundfault.console._top_checked import NoViewError, checked
from groundfault.console._top_sources import Console, RunDirs, SourceError, address_of
from groundfault.metrics import rundir
from groundfault.metrics.report import ProcessInfo, Report


def look(console, **settings):
    return Console(address_of(console.url), **settings).look()


@pytest.mark.parametrize("packed", [True, False])
def test_a_console_is_asked_for_its_snapshot(console, sample, packed):
    view = sample(3)
    console.says(view, packed=packed)
    looked = look(console)
    assert looked.said == view
    for name in ("title", "headline", "commands", "timeline", "stores", "processes", "hosts", "unknown"):
        assert looked.view[name] == view[name]
    path, headers = console.asked[0]
    assert path == "/snapshot.json"
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://a:1", "/snapshot.json"),
        ("http://a:1/", "/snapshot.json"),
        ("http://a:1/groundfault", "/groundfault/snapshot.json"),
        ("https://a/x/snapshot.json", "/x/snapshot.json"),
        ("unix:/run/x.sock", "/snapshot.json"),
    ],
)
def test_an_address_may_be_that_of_the_page(url, path):
    assert address_of(url).path == path


@pytest.mark.parametrize(
    "url",
    ["", "a:1", "file:///etc/passwd", "http://", "http://u:p@a/", "http://a/ b", "http://a/\r\nX: y", "http://[x"],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError, match=r"must|IPv6"):
        address_of(url)


def test_who_asks_can_say_who_it_is(console, sample):
    console.says(sample(1))
    look(console, user="ada", password="pa:ss")  # noqa: S106  of a test
    assert console.asked[0][1]["Authorization"] == "Basic YWRhOnBhOnNz"


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no JSON"),
        (b"<html>", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b'{"format": NaN}', "NaN is no JSON"),
        (b"[]", "no format"),
        (b"{}", "no format"),
        (nested(200_000), "nested too deeply"),
        (b'{"format": 2}', "its format is '2', and this release of groundfault reads 1"),
    ],
)
def test_what_is_no_view_is_said_in_a_line(console, body, why):
    console.answer = lambda handler: console.send(handler, body)
    with pytest.raises(SourceError) as raised:
        look(console)
    assert why in str(raised.value)
    assert str(raised.value).startswith(console.url)


@pytest.mark.parametrize(
    ("status", "why"), [(401, "GROUNDFAULT_CONSOLE_USER"), (403, "403: not you"), (307, "307"), (503, "503: not you")]
)
def test_another_status_is_told_with_what_it_says(console, status, why):
    console.answer = lambda handler: console.send(handler, b"not you", status, Location="/elsewhere")
    with pytest.raises(SourceError, match=why):
        look(console)
    assert len(console.asked) == 1


def test_too_much_is_not_read(console, monkeypatch):
    monkeypatch.setattr(sources, "_LARGEST_SENT", 2**16)
    monkeypatch.setattr(sources, "_LARGEST", 2**18)
    console.answer = lambda handler: console.send(handler, b" " * 2**17)
    with pytest.raises(SourceError, match="more than"):
        look(console)
    packed = gzip.compress(b" " * 2**20)
    console.answer = lambda handler: console.send(handler, packed, **{"Content-Encoding": "gzip"})
    with pytest.raises(SourceError, match="more than"):
        look(console)
    console.answer = lambda handler: console.send(handler, packed[:-9], **{"Content-Encoding": "gzip"})
    with pytest.raises(SourceError, match=r"more than|ends early"):
        look(console)
    console.answer = lambda handler: console.send(handler, b"x" * 99, **{"Content-Encoding": "gzip"})
    with pytest.raises(SourceError, match="cannot be unpacked"):
        look(console)


def test_a_byte_now_and_then_does_not_hold_it(console):
    def drip(handler):
        handler.send_response_only(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.1)

    console.answer = drip
    began = time.thread_time()
    with pytest.raises(SourceError, match=r"no answer within 0\.5 s"):
        look(console, timeout_s=0.5)
    assert time.thread_time() - began < 5


def test_a_console_that_is_down_is_said():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(SourceError, match="Connection refused"):
        Console(address_of(f"http://127.0.0.1:{port}/")).look()
    with pytest.raises(SourceError, match="No such file"):
        Console(address_of("unix:/nowhere/at/all.sock")).look()


def test_what_does_not_speak_http_is_said(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer():
            client, _ = listener.accept()
            with client:
                client.recv(4096)
                client.sendall(b"SSH-2.0-x\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(SourceError, match="does not speak HTTP"):
            Console(address_of(f"unix:{path}")).look()
        thread.join()


def test_a_unix_socket_is_asked_under_the_name_of_this_host(tmp_path, sample):
    path, asked = tmp_path / "s", []
    body = json.dumps(sample(1)).encode()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer():
            client, _ = listener.accept()
            with client:
                asked.append(client.recv(4096))
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        thread = threading.Thread(target=answer)
        thread.start()
        assert Console(address_of(f"unix://{path}")).look().view["title"] == "topps"
        thread.join()
    assert b"Host: localhost\r\n" in asked[0]


def test_the_age_is_that_of_the_maker_first_and_then_our_own(console, sample, clock):
    view = sample(1)
    console.says(view, date=formatdate(view["made_at"] + 30, usegmt=True))
    source = Console(address_of(console.url), clock=clock)
    assert source.look().age_s == 30
    clock.advance(4)
    assert source.look().age_s == 34
    console.says({**view, "sequence": view["sequence"] + 1, "made_at": view["made_at"] - 3600})
    assert source.look().age_s == 0


def test_odd_fields_are_replaced_and_counted(sample):
    view = sample(2)
    view["commands"][0].update(rate_per_s="many", counts=[1], p99_s=True, level="dire", spark=[None, "x"], in_flight=-3)
    view["commands"][1] = "no row"
    view["headline"]["wait_p99_s"] = 10**400
    del view["map"]
    view["surplus"] = {}
    whole = checked(view)
    assert whole["commands"][0]["level"] == "warn"
    assert whole["commands"][0]["rate_per_s"] == 0
    assert whole["commands"][1]["resource"] == "?"
    assert whole["headline"]["wait_p99_s"] is None
    assert "fields are missing or odd" in whole["unknown"][-1]
    assert "surplus" not in whole


@pytest.mark.parametrize("said", [None, 3, "x", [], {}, {"format": "1"}, {"format": None}])
def test_what_has_no_format_of_ours_is_refused(said):
    with pytest.raises(NoViewError, match="format"):
        checked(said)


class Observes:
    """Stands for the observer of reports."""

    def __init__(self, remembered=None):
        self.remembered = remembered
        self.seen = []

    @classmethod
    def recalled(cls, remembered):
        return cls(remembered)

    def see(self, report, now):
        self.seen.append((report, now))


@pytest.fixture
def observed(monkeypatch, sample):
    made = []

    def view_of(observers, **fields):
        made.append((list(observers), fields))
        return {**sample(1), "sequence": fields["sequence"], "unknown": list(fields["unknown"])}

    monkeypatch.setitem(sys.modules, "groundfault.console.views", SimpleNamespace(view_of=view_of))
    monkeypatch.setitem(sys.modules, "groundfault.console.observing", SimpleNamespace(Observer=Observes))
    monkeypatch.setattr(rundir, "read", lambda directory, now: Report())
    return made


def test_each_run_directory_has_an_observer_of_its_own(observed, tmp_path, clock):
    source = RunDirs([tmp_path / "topps", tmp_path / "saber", tmp_path / "topps"], clock=clock)
    for _ in range(3):
        looked = source.look()
        clock.advance(1)
    observers, fields = observed[-1]
    assert [len(observer.seen) for observer in observers] == [3, 3]
    assert (fields["title"], fields["kind"], fields["sequence"]) == ("topps, saber", "host", 3)  # nobody has a name yet
    assert looked.view["unknown"] == []
    assert "what came before" in observed[0][1]["unknown"][0]


def test_the_title_is_what_the_processes_call_themselves(observed, tmp_path, clock, monkeypatch):
    named = Report(
        processes=[ProcessInfo(1, "grouper", 0.0), ProcessInfo(2, None, 0.0), ProcessInfo(3, "checkout", 0.0)]
    )
    monkeypatch.setattr(rundir, "read", lambda directory, now: named)
    RunDirs([tmp_path], clock=clock).look()
    assert observed[0][1]["title"] == "checkout, grouper"


def test_a_directory_that_cannot_be_read_is_said_and_the_others_are_shown(observed, tmp_path, clock, monkeypatch):
    def read(directory, now):
        if directory.name == "gone":
            raise rundir.RunDirError("it is busy")
        return Report()

    monkeypatch.setattr(rundir, "read", read)
    looked = RunDirs([tmp_path, tmp_path / "gone"], clock=clock).look()
    assert f"{tmp_path / 'gone'}: it is busy" in looked.view["unknown"]
    with pytest.raises(SourceError, match="it is busy"):
        RunDirs([tmp_path / "gone"], clock=clock).look()


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\x1f\x8b", gzip.compress(b"[]"), gzip.compress(b'{"observer": 3}')[:-2]],
    ids=["none", "empty", "begun", "other", "cut"],
)
def test_history_begins_anew_where_the_recorder_left_none(observed, tmp_path, clock, content):
    if content is not None:
        (tmp_path / sources.MEMORY).write_bytes(content)
    RunDirs([tmp_path], clock=clock).look()
    assert observed[0][0][0].remembered is None


def test_history_goes_on_where_the_recorder_stands(observed, tmp_path, clock):
    (tmp_path / sources.MEMORY).write_bytes(gzip.compress(b'{"format": 1, "observer": {"points": [1]}}'))
    RunDirs([tmp_path], clock=clock).look()
    assert observed[0][0][0].remembered == {"points": [1]}


def test_without_a_source_it_says_which_there_are(monkeypatch):
    monkeypatch.delenv("GROUNDFAULT_RUN_DIR", raising=False)
    with pytest.raises(SourceError, match="--run-dir or GROUNDFAULT_RUN_DIR, or --url"):
        sources.source_of(None, ())
    with pytest.raises(SourceError, match="it is none"):
        sources.source_of(None, [Path("/nowhere/at/all")])
