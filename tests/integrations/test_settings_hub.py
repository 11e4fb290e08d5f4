"""The hub store: addresses, a hub that is hostile or not one at all, waiting, TLS, and live settings without it."""

import importlib.util
import json
import os
import signal
import socket
import ssl
import threading
import warnings
from contextlib import closing, suppress
from pathlib import Path

import pytest

from groundfault._clock import monotonic
from groundfault.breaker import Registry, Resource
from groundfault.errors import SettingsError
from groundfault.integrations.hub import HubStore
from groundfault.settings.live import LiveSettings
from groundfault.settings.memory import MemoryStore
from groundfault.settings.opening import open_store
from groundfault.settings.store import (
    AS_BEFORE,
    UNSET,
    Change,
    ConflictError,
    Document,
    Entry,
    MalformedError,
    NothingStoredError,
    StoreError,
)
from groundfault.sinks import Sinks

BOUND_S = 15.0
ENDS = 1.9e9
TOKEN = "hunter2-and-more"  # noqa: S105  of a hub that lives as long as a test

_spec = importlib.util.spec_from_file_location("dripping", Path(__file__).parent / "dripping.py")
dripping = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(dripping)


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch):
    for name in ("GROUNDFAULT_HUB_TOKEN", "GROUNDFAULT_CONSOLE_TOKEN", "GROUNDFAULT_HUB_CA"):
        monkeypatch.delenv(name, raising=False)


def seconds_of(act):
    started = monotonic()
    act()
    return monotonic() - started


def until(done):
    ends_at = monotonic() + BOUND_S
    while not done():
        assert monotonic() < ends_at
        threading.Event().wait(0.02)


def change(store, value, based_on):
    return store.write([Change("*", "timeout_s", value)], reason="r", actor="a", based_on=based_on)


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://hub:9733", "http://hub:9733"),
        ("http://hub", "http://hub"),
        ("https://hub.example/groundfault/", "https://hub.example/groundfault"),
        ("http://app:hunter2@hub:9733/", "http://hub:9733"),
        ("http://[::1]:9733", "http://[::1]:9733"),
    ],
)
def test_its_name_is_the_address_without_credentials(url, name):
    store = open_store(url)
    assert isinstance(store, HubStore)
    assert store.name == name
    assert repr(store) == f"HubStore({name!r})"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http:",
            "http:hub",
            "http://",
            "http://:9733",
            "ftp://hub",
            "http://hub:x",
            "http://hub:0",
            "http://hub:99999",
        ),
        *("http://hub?x=1", "http://hub#x", "http://hub\r\nX: y", "http://h ub", "http://hüb", "http://[::1", ""),
    ],
)
def test_what_is_no_hub_is_refused_when_the_store_is_made(url):
    with pytest.raises(SettingsError, match="address must be"):
        HubStore(url)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://app:hunter2@hub:x", {}),
        ("http://app:hunter2@hub?x", {}),
        ("http://hub", {"token": "hunter2 \r\n"}),
        ("http://hub", {"token": ""}),
        ("http://hub", {"token": "hunter2-ü"}),
        ("http://hub", {"timeout_s": float("nan")}),
        ("http://hub", {"timeout_s": 0}),
    ],
)
def test_what_makes_no_sense_is_refused_and_no_secret_is_told(url, options):
    with pytest.raises(SettingsError) as caught:
        HubStore(url, **options)
    assert "hunter" not in str(caught.value)


def test_a_file_of_authorities_that_is_none_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("GROUNDFAULT_HUB_CA", str(tmp_path / "none.pem"))
    HubStore("http://hub")
    with pytest.raises(SettingsError, match=r"GROUNDFAULT_HUB_CA must name .*none\.pem"):
        HubStore("https://hub")


# --- over a store in memory -------------------------------------------------------------------------------------------


@pytest.fixture
def memory():
    return MemoryStore({"*": {"timeout_s": 0.5}})


@pytest.fixture
def served(serve_hub, memory):
    return serve_hub(memory, patience_s=0.2)


@pytest.fixture
def store(served):
    with closing(HubStore(served.url)) as store:
        yield store


def test_what_a_hub_keeps_in_memory_is_read_changed_and_returned_to(store, memory):
    assert store.load(None) == Document("1", (Entry("*", "timeout_s", 0.5),))
    assert store.load("1") is None
    second = change(store, 0.7, "1")
    assert store.load("1") == memory.load(None) == store.at(second)
    assert store.history() == memory.history()
    assert store.history(0) == store.history(-1) == []
    with pytest.raises(ConflictError, match=f"settings of {store.name}: memory holds version 2, not 1"):
        change(store, 0.8, "1")
    with pytest.raises(StoreError, match="memory knows no version"):
        store.at("n/ö&=+ %")
    with pytest.raises(StoreError, match="UnicodeEncodeError"):
        store.at("\ud800")


@pytest.mark.parametrize(
    ("wanted", "entry"),
    [
        (Change("*", "timeout_s", 0.9, ENDS), Entry("*", "timeout_s", 0.9, ENDS, 0.5)),
        (Change("*", "timeout_s", 0.9, ENDS, AS_BEFORE), Entry("*", "timeout_s", 0.9, ENDS, 0.5)),
        (Change("*", "timeout_s", 0.9, ENDS, None), Entry("*", "timeout_s", 0.9, ENDS)),
        (Change("*", "timeout_s", 0.9, ENDS, 0.7), Entry("*", "timeout_s", 0.9, ENDS, 0.7)),
        (Change("*", "timeout_s", 0.9, None, 0.7), Entry("*", "timeout_s", 0.9)),
        (Change("*", "timeout_s", UNSET, ENDS, 0.7), None),
    ],
)
def test_every_change_crosses_the_wire_as_it_is(store, memory, wanted, entry):
    store.write([wanted], reason="r", actor="a", based_on="1")
    assert memory.load(None).entries == (() if entry is None else (entry,))


def test_the_token_is_shown_and_a_wrong_one_is_told_in_words(serve_hub, memory, monkeypatch):
    served = serve_hub(memory, token=TOKEN, prefix="/groundfault")
    with closing(HubStore(served.url, token=TOKEN)) as store:
        assert store.load(None).version == "1"
    monkeypatch.setenv("GROUNDFAULT_HUB_TOKEN", TOKEN)
    with closing(open_store(served.url.replace("//", "//ann:hunter3@"))) as store:
        assert store.load(None).version == "1"
        assert served.headers[-1]["authorization"] == "Basic YW5uOmh1bnRlcjM="
    with closing(HubStore(served.url, token=TOKEN[::-1])) as store:
        with pytest.raises(StoreError, match=r"it answers 403: wrong token$") as caught:
            store.load(None)
        with pytest.raises(StoreError, match=r"it answers 403: wrong token; nothing was written$"):
            change(store, 0.7, "1")
    assert TOKEN[::-1] not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "environment", "read", "written"),
    [
        ({}, {}, None, None),
        ({}, {"HUB": "host"}, "host", "host"),
        ({}, {"HUB": "host", "CONSOLE": "people"}, "host", "people"),
        ({}, {"CONSOLE": "people"}, None, "people"),
        ({"token": "mine"}, {"HUB": "host", "CONSOLE": "people"}, "mine", "mine"),
        ({"steering_token": "ours"}, {"HUB": "host", "CONSOLE": "people"}, "host", "ours"),
    ],
)
def test_a_change_shows_the_token_of_who_may_steer(served, monkeypatch, options, environment, read, written):
    for name, token in environment.items():
        monkeypatch.setenv(f"GROUNDFAULT_{name}_TOKEN", token)
    with closing(HubStore(served.url, **options)) as store:
        store.load(None)
        change(store, 0.7, "1")
        store.load(None)
    assert [each.get("x-groundfault-token") for each in served.headers] == [read, written, read]


def test_a_hub_in_trouble_with_its_own_store_says_so(store, memory):
    version = store.load(None).version
    memory.error = StoreError("memory: away")
    until(lambda: "away" in trouble_of(lambda: store.load(version)))
    assert "settings of http" in trouble_of(lambda: change(store, 0.7, version))
    memory.error = None
    until(lambda: trouble_of(lambda: store.load(version)) == "")


def trouble_of(act):
    try:
        act()
    except StoreError as error:
        return str(error)
    return ""


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_who_waits_is_told_of_a_change_and_need_not_ask_again(store, served, memory):
    assert seconds_of(lambda: store.wait(0.05)) >= 0.05, "before the first look there is nothing to wait for"
    version = store.load(None).version
    timer = threading.Timer(0.2, lambda: change(memory, 0.7, version))
    timer.start()
    assert 0.1 < seconds_of(lambda: store.wait(BOUND_S)) < BOUND_S / 2
    timer.join()
    asked = len(served.asked)
    assert store.load(version).entries[0].value == 0.7
    assert len(served.asked) == asked


def test_who_waits_is_told_of_what_is_no_document_too(store, memory):
    version = store.load(None).version
    timer = threading.Timer(0.2, lambda: change(memory, float("nan"), version))
    timer.start()
    assert 0.1 < seconds_of(lambda: store.wait(BOUND_S)) < BOUND_S / 2
    timer.join()
    with pytest.raises(MalformedError) as caught:
        store.load(version)
    assert caught.value.version == "2"
    store.wait(0.01)
    assert store.load("2") is None


def test_waiting_in_vain_answers_the_next_look_and_no_other(store, served):
    version = store.load(None).version
    assert seconds_of(lambda: store.wait(0.1)) >= 0.1
    asked = len(served.asked)
    assert store.load(version) is None
    assert len(served.asked) == asked
    store.wait(0.01)
    assert store.load(None).version == version, "what was asked for is another thing"
    store.wait(0.01)
    change(store, 0.7, version)
    assert store.load(version) is not None, "what was heard before a change of one's own is out of date"
    assert served.open
    assert len(served.asked) < 12


def test_a_process_that_follows_a_hub_asks_about_once_a_second_and_is_told_at_once(served, memory):
    command = Resource("contest-db", registry=(registry := Registry())).command("entrants", timeout_s=9.0)
    live = LiveSettings(served.url, service="topps", registry=registry, shedders=[], sinks=Sinks(), cache=False)
    live.start()
    try:
        until(lambda: command.settings.timeout_s == 0.5)
        asked = len(served.asked)
        change(memory, 0.7, "1")
        until(lambda: command.settings.timeout_s == 0.7)
        assert len(served.asked) - asked < 4
    finally:
        live.stop()


def test_a_hub_that_is_gone_leaves_the_settings_as_they_are_with_one_event(serve_hub, memory):
    events = []
    command = Resource("contest-db", registry=(registry := Registry())).command("entrants", timeout_s=9.0)
    sinks = Sinks()
    sinks.add(events.append)
    served = serve_hub(memory)
    store = HubStore(served.url, timeout_s=0.3)
    store.longest_retry_s = 0.1
    live = LiveSettings(
        store, service="topps", registry=registry, shedders=[], sinks=sinks, cache=False, poll_s=0.05
    )  # fmt: skip
    live.start()
    try:
        until(lambda: command.settings.timeout_s == 0.5)
        served.close()
        until(lambda: live.status().state == "unreachable")
        assert served.url in live.status().error
        until(lambda: (live.status().age_s or 0) > 0.4)
        assert command.settings.timeout_s == 0.5
        assert [event.status for event in events if hasattr(event, "status")].count("unreachable") == 1
        change(memory, 0.7, "1")
        serve_hub(memory, port=served.port)
        until(lambda: command.settings.timeout_s == 0.7)
    finally:
        live.stop()


# --- hostile ----------------------------------------------------------------------------------------------------------


class Scripted:
    """A hub by hand: says some bytes to whoever has asked, and then drips, hangs up or says nothing more."""

    def __init__(self, said, *, then=None):
        self.said, self.then = said, then
        self.connections = 0
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://ann:hunter2@127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _serve(self, connection):
        with closing(connection), suppress(OSError):
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += connection.recv(65536)
            connection.sendall(self.said)
            while self.then is not None and not self._over.wait(0.01):
                connection.sendall(self.then)

    def close(self):
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(BOUND_S)


def answer(body, status="200 OK", *more):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *more))
    return f"{head}\r\n".encode() + body


GOOD = {"version": "v1", "entries": []}
OK = b"HTTP/1.1 200 OK\r\n"
HOSTILE = {
    "silent": (b"", b"", "no answer in time|timed out"),
    "hangs up": (b"", None, "RemoteDisconnected"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-", None, "makes no sense: it is not JSON"),
    "no HTTP": (b"220 smtp.example ready\r\n", None, "BadStatusLine: 220 smtp.example ready"),
    "another version of HTTP": (b"HTTP/9.9 200 OK\r\n\r\n", None, "UnknownProtocol|no sense"),
    "drips a head": (OK + b"X-Long: ", b"x", "no answer in time|timed out"),
    "drips interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "no answer in time|timed out"),
    "endless header": (OK + b"X: " + b"x" * 70_000, b"x", "LineTooLong"),
    "many headers": (OK + b"X: y\r\n" * 200 + b"\r\n", None, "got more than 100 headers"),
    "drips a body": (OK + b"Content-Length: 90000\r\n\r\n", b"x", "no answer in time|timed out"),
    "half a body": (OK + b"Content-Length: 90000\r\n\r\nhalf", None, "ends before its end"),
    "drips chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", "no answer in time|timed out"),
    "no chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", None, "IncompleteRead"),
    "huge": (OK + b"Content-Length: 10000000\r\n\r\n", b"x" * 65536, "more than 4194304 bytes"),
    "huge without a length": (OK + b"\r\n", b"x" * 1_000_000, "more than 4194304 bytes"),
    "huge chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n", b"x" * 1_000_000, "more than 4194304 bytes"),
    "redirect": (answer(b"", "302 Found", "Location: http://127.0.0.1/"), None, "302, and redirects are not followed"),
    "compressed": (answer(b"", "200 OK", "Content-Encoding: gzip"), None, "is compressed"),
    "a page": (answer(b"<html>"), None, "makes no sense: it is not JSON"),
    "another site": (answer(b"<h1>Not\r\nFound</h1>\x1b[2J", "404 Not Found"), None, "404: <h1>Not Found</h1>"),
    "nothing new to who knows nothing": (b"HTTP/1.1 304 Not Modified\r\n\r\n", None, "it answers 304"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", None, "it answers 204"),
    "broken": (answer({"errors": 7}, "500 Oh"), None, "it answers 500"),
    "an unknown kind": (answer({"errors": ["oh"], "kind": "new"}, "418 Tea"), None, "oh"),
    "a strange kind": (answer({"errors": ["oh"], "kind": []}, "418 Tea"), None, "oh"),
    "nested": (answer(b"[" * 100_000), None, "nested too deeply"),
    "NaN": (answer(b'{"version": NaN}'), None, "it holds NaN"),
    "twice": (answer(b'{"version": "1", "version": "2"}'), None, "it says 'version' twice"),
    "a list": (answer([GOOD]), None, "it is no object"),
    "a number as version": (answer({**GOOD, "version": 7}), None, "version must be printable text"),
    "no version": (answer({"entries": []}), None, "version must be printable text"),
    "an endless version": (answer({**GOOD, "version": "v" * 65}), None, "version must be printable text"),
    "a malformed one without version": (answer({"errors": [], "kind": "malformed"}, "422 Oh"), None, "version must be"),
}  # fmt: skip


@pytest.mark.parametrize(("said", "then", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_hub_is_an_error_in_time_that_names_it_and_the_cause(said, then, words):
    with closing(Scripted(said, then=then)) as hostile, closing(HubStore(hostile.url, timeout_s=0.4)) as store:
        started = monotonic()
        with pytest.raises(StoreError, match=f"^settings of {store.name}: .*(?:{words})") as caught:
            store.load(None)
        assert monotonic() - started < BOUND_S / 2
        text = str(caught.value)
        assert "hunter" not in text
        assert text.isprintable()
        assert len(text) < 600
        assert not isinstance(caught.value, MalformedError | NothingStoredError | ConflictError)
        assert seconds_of(lambda: store.wait(0.02)) < BOUND_S / 2


MALFORMED = {
    "no entries": {"version": "v1"},
    "a table of entries": {"version": "v1", "entries": {}},
    "a short row": {"version": "v1", "entries": [["*", "timeout_s", 1]]},
    "no value": {"version": "v1", "entries": [["*", "timeout_s", None, None, None]]},
    "a number as scope": {"version": "v1", "entries": [[7, "timeout_s", 1, None, None]]},
    "text as time": {"version": "v1", "entries": [["*", "timeout_s", 1, "soon", None]]},
    "too many": {"version": "v1", "entries": [["*", f"n{number}", 1, None, None] for number in range(2001)]},
    "too large": {"version": "v1", "entries": [["*", "timeout_s", "x" * 70_000, None, None]]},
}


@pytest.mark.parametrize("said", MALFORMED.values(), ids=MALFORMED)
def test_entries_that_make_no_sense_are_told_with_their_version(said):
    with closing(Scripted(answer(said))) as hostile, closing(HubStore(hostile.url)) as store:
        with pytest.raises(MalformedError, match=f"^settings of {store.name}: ") as caught:
            store.load("v0")
        assert caught.value.version == "v1"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (answer({"errors": ["gone"], "kind": "nothing-stored"}, "404 Oh"), NothingStoredError),
        (answer({"errors": ["gone"], "kind": "malformed", "version": "v6"}, "422 Oh"), MalformedError),
        (answer({"errors": ["gone", "for good"], "kind": "store"}, "503 Oh"), StoreError),
    ],
)
def test_what_the_hub_cannot_tell_keeps_its_kind(said, kind):
    with closing(Scripted(said)) as hostile, closing(HubStore(hostile.url)) as store:
        with pytest.raises(StoreError, match=f"^settings of {store.name}: gone") as caught:
            store.load(None)
        assert type(caught.value) is kind
        assert store.longest_retry_s == (2.0 if kind is NothingStoredError else 10.0)


WRITES = {
    "refused": (answer(b"no", "403 Forbidden"), None, "403: no; nothing was written"),
    "lost": (b"", None, "(RemoteDisconnected|reset|Reset|Broken pipe).*; whether it was written is not known"),
    "broken": (answer(b"oh", "500 Oh"), None, "500: oh; whether it was written is not known"),
    "no sense": (answer(b"oh"), None, "makes no sense.*; whether it was written is not known"),
    "no version": (answer({"version": 7}), None, "makes no sense.*; whether it was written is not known"),
    "the store's": (answer({"errors": ["no; nothing was written"], "kind": "store"}, "503 Oh"), None, "written$"),
}  # fmt: skip


@pytest.mark.parametrize(("said", "then", "words"), WRITES.values(), ids=WRITES)
def test_who_writes_learns_whether_it_was_written_and_nothing_is_sent_twice(said, then, words):
    with closing(Scripted(said, then=then)) as hostile, closing(HubStore(hostile.url)) as store:
        with pytest.raises(StoreError, match=words):
            change(store, 0.7, "1")
        assert hostile.connections == 1


def test_where_nobody_listens_nothing_was_written():
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    store = HubStore(url)
    with pytest.raises(StoreError, match=r"ConnectionRefusedError: .*; nothing was written$"):
        change(store, 0.7, "1")
    with pytest.raises(StoreError, match=f"^settings of {url}: ConnectionRefusedError"):
        store.load(None)


def test_past_versions_and_histories_that_make_no_sense_are_errors():
    for said in (GOOD, {"revisions": {}}, {"revisions": [7]}, {"revisions": [{"version": "1", "at": "soon"}]}):
        with closing(Scripted(answer(said))) as hostile, closing(HubStore(hostile.url)) as store:
            with pytest.raises(StoreError, match="makes no sense"):
                store.history()
            with pytest.raises(StoreError, match=r"makes no sense|another version"):
                store.at("v7")


def test_a_connection_that_the_hub_has_closed_meanwhile_is_opened_anew():
    with closing(Scripted(answer(GOOD))) as hostile, closing(HubStore(hostile.url)) as store:
        assert store.load(None) == store.load(None) == Document("v1")
        assert hostile.connections == 2


def test_what_comes_unasked_after_an_answer_belongs_to_no_later_one():
    with (
        closing(Scripted(answer(GOOD) + answer({**GOOD, "version": "v2"}), then=b"")) as hostile,
        closing(HubStore(hostile.url)) as store,
    ):
        assert [store.load(None).version for _ in range(3)] == ["v1"] * 3
        assert hostile.connections == 3


# --- TLS, and forks ---------------------------------------------------------------------------------------------------


def test_https_takes_the_authorities_that_it_is_given_and_no_others(serve_hub, memory, tmp_path, monkeypatch):
    dripping.certificate_in(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    served = serve_hub(memory, tls=context)
    with closing(HubStore(served.url)) as store, pytest.raises(StoreError, match="SSLCertVerificationError"):
        store.load(None)
    monkeypatch.setenv("GROUNDFAULT_HUB_CA", str(tmp_path / "cert.pem"))
    with closing(HubStore(served.url)) as store:
        assert store.load(None).version == "1"
        assert change(store, 0.7, "1") == "2"
        assert store.load("1").version == "2"
        store.wait(0.05)
        assert store.load("2") is None


def test_a_hub_that_does_not_finish_the_handshake_is_given_up_in_time():
    with dripping.Dripping(greeting=(b"\x16\x03\x03\x40\x00", b"\x02")) as hostile:
        store = HubStore(hostile.url.replace("http", "https"), timeout_s=0.3)
        with pytest.raises(StoreError, match=r"in time|timed out|SSL"):
            assert seconds_of(lambda: store.load(None)) < BOUND_S / 2


def test_a_fork_in_the_middle_of_an_answer_leaves_child_and_parent_at_work(store, served):
    version = store.load(None).version
    waiting = threading.Thread(target=store.wait, args=(0.5,))
    waiting.start()
    until(lambda: any("wait_s=0.5" in each for each in served.asked))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads; the child does not use them
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(int(BOUND_S))
            store.close()
            ok = store.load(None).version == version and store.load(version) is None
            status = 0 if ok else 2
        finally:
            os._exit(status)
    waiting.join(BOUND_S)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    asked = len(served.asked)
    assert store.load(version) is None
    assert len(served.asked) == asked, "the parent's waiting was not disturbed"
