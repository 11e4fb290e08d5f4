"""The hub's side of live settings: what is asked and what is answered, one who looks for many who wait."""

import asyncio
import gc
import json
import threading

import pytest

from groundfault.console.asking import Asked
from groundfault.console.hub.storing import LARGEST_WRITE, LONGEST_WAIT_S, Storing
from groundfault.settings.memory import MemoryStore
from groundfault.settings.store import Change, Entry, MalformedError, NothingStoredError, StoreError
from groundfault.testing import ManualClock

BOUND_S = 20.0


class Watched(MemoryStore):
    """Counts how often it is looked at, and breaks when told to."""

    loads = 0

    def load(self, known):
        self.loads += 1
        if self.error is not None and not isinstance(self.error, StoreError):
            raise self.error
        if isinstance(self.error, MalformedError) and self.error.version == known:
            return None
        return super().load(known)


@pytest.fixture
def store():
    return Watched(
        {"*": {"timeout_s": 0.5}, "topps": {"max_concurrent": {"value": 5, "until": "2026-11-23T20:00:00Z"}}}
    )


@pytest.fixture
def storing(store):
    storing = Storing(store, look_s=0.02, patience_s=0.2)
    yield storing
    storing.close()


def get(storing, path, **more):
    status, headers, body = storing.answer(Asked("GET", path, {}, **more))
    assert dict(headers)["Cache-Control"] == "no-store"
    return status, json.loads(body) if body else None


def post(storing, said, path="/store/write"):
    body = said if isinstance(said, bytes) or said is None else json.dumps(said).encode()
    status, _, answered = storing.answer(Asked("POST", path, {}, body))
    return status, json.loads(answered)


def test_a_store_that_holds_nothing_is_founded_once_and_then_read(store):
    founded = []
    store.error = NothingStoredError("there is no table")

    def found():
        founded.append(True)
        store.error = None

    storing = Storing(store, look_s=0.02, found=found)
    try:
        assert get(storing, "/store/document")[0] == 200
    finally:
        storing.close()
    assert founded == [True]


def until(done):
    ends = threading.Event()
    for _ in range(int(BOUND_S / 0.02)):
        if done():
            return
        ends.wait(0.02)
    raise AssertionError("it never came to be")


def change(store, value, based_on):
    return store.write([Change("*", "timeout_s", value)], reason="r", actor="a", based_on=based_on)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_the_document_comes_with_its_version_and_not_to_whom_it_is_known(storing):
    status, said = get(storing, "/store/document")
    assert (status, said["version"]) == (200, "1")
    assert said["entries"] == [
        ["*", "timeout_s", 0.5, None, None],
        ["topps", "max_concurrent", 5, 1795464000.0, None],
    ]
    assert get(storing, "/store/document?known=1&wait_s=0") == (304, None)
    assert get(storing, "/store/document?known=other")[0] == 200
    assert storing.version() == "1"


def test_history_and_past_versions_are_told(storing, store):
    change(store, 0.7, "1")
    status, said = get(storing, "/store/history?limit=5")
    (revision,) = said["revisions"]
    assert (status, revision["version"], revision["actor"], revision["reason"]) == (200, "2", "a", "r")
    assert revision["changes"] == [[["*", "timeout_s", 0.5, None, None], ["*", "timeout_s", 0.7, None, None]]]
    assert get(storing, "/store/history?limit=0")[1] == {"revisions": []}
    assert get(storing, "/store/at?version=1")[1]["entries"][0] == ["*", "timeout_s", 0.5, None, None]
    assert get(storing, "/store/at?version=9") == (503, {"errors": ["memory knows no version 9"], "kind": "store"})


def test_a_very_long_history_is_cut_to_what_can_be_sent(storing, store):
    version = "1"
    for number in range(60):
        large = [Change("*", "timeout_s", f"{number}{'x' * 60_000}")]
        version = store.write(large, reason="r", actor="a", based_on=version)
    status, said = get(storing, "/store/history?limit=60")
    assert (status, said["revisions"][0]["version"]) == (200, version)
    assert 10 < len(said["revisions"]) < 60


WRONG = [
    ("GET", "/store/document?wait_s=soon", 400, "wait_s must be seconds, 0 or more, not 'soon'"),
    ("GET", "/store/document?wait_s=nan", 400, "wait_s must be"),
    ("GET", "/store/document?wait_s=-1", 400, "wait_s must be"),
    ("GET", "/store/history?limit=-1", 400, "limit must be a whole number"),
    ("GET", "/store/history?limit=99999999999", 400, "limit must be a whole number"),
    ("GET", "/store/history?limit=²", 400, "limit must be a whole number"),
    ("GET", "/store/at", 400, "version must be said"),
    ("GET", "/store/at?" + "&".join("x=1" for _ in range(9)), 400, "the query makes no sense"),
    ("GET", "/store/", 404, "no such thing"),
    ("GET", "/store/write", 405, "use POST"),
    ("POST", "/store/document", 405, "use GET"),
    ("DELETE", "/store/history", 405, "use GET"),
]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"), WRONG, ids=[f"{each[0]} {each[1][:40]}" for each in WRONG]
)
def test_what_makes_no_sense_is_refused_with_a_reason(storing, method, path, status, words):
    answer = storing.answer(Asked(method, path, {}))
    said = json.loads(answer.body)
    assert (answer.status, said["kind"]) == (status, "request")
    assert words in said["errors"][0]


def test_who_asks_is_never_told_more_than_that_there_was_an_internal_error(storing, store, monkeypatch):
    monkeypatch.setattr(store, "history", lambda limit: 1 / 0)
    assert get(storing, "/store/history") == (
        500,
        {"errors": ["internal error; see the hub's log"], "kind": "internal"},
    )


# --- writing ----------------------------------------------------------------------------------------------------------

WRITE = {"changes": [["*", "timeout_s", 0.9, None, None]], "reason": "slow", "actor": "ann", "based_on": "1"}


def test_what_is_written_is_read_at_once(storing, store):
    assert post(storing, WRITE) == (200, {"version": "2"})
    assert get(storing, "/store/document?known=1")[1]["version"] == "2"
    assert (store.history()[0].actor, store.history()[0].reason) == ("ann", "slow")
    status, said = post(storing, WRITE)
    assert (status, said["kind"]) == (409, "conflict")
    assert "holds version 2, not 1" in said["errors"][0]


ENDS = 1.9e9
THEN = {
    "what stands there": ([0.9, ENDS, {"as": "before"}], Entry("*", "timeout_s", 0.9, ENDS, 0.5)),
    "another value": ([0.9, ENDS, 0.7], Entry("*", "timeout_s", 0.9, ENDS, 0.7)),
    "nothing": ([0.9, ENDS, None], Entry("*", "timeout_s", 0.9, ENDS)),
    "for good": ([0.9, None, None], Entry("*", "timeout_s", 0.9)),
    "taken away": ([None, None, None], None),
}


@pytest.mark.parametrize(("rest", "entry"), THEN.values(), ids=THEN)
def test_what_comes_after_an_override_crosses_the_wire(storing, store, rest, entry):
    status, _ = post(storing, {**WRITE, "changes": [["*", "timeout_s", *rest]]})
    assert status == 200
    assert {each.scope: each for each in store.load(None).entries}.get("*") == entry


REFUSED = {
    "no JSON": (b"{", 400, "is not JSON"),
    "no object": (b"[]", 400, "must be a JSON object"),
    "nothing": (b"", 400, "is not JSON"),
    "too nested": (b"[" * 100_000, 400, "nested too deeply"),
    "too long": (b" " * (LARGEST_WRITE + 1), 413, "at most 1048576 bytes"),
    "not taken": (None, 413, "at most"),
    "no changes": ({**WRITE, "changes": {}}, 400, "changes must be a list"),
    "no row": ({**WRITE, "changes": [["*", "timeout_s", 1]]}, 400, "a change must be [scope, name"),
    "no scope": ({**WRITE, "changes": [[7, "timeout_s", 1, None, None]]}, 400, "scope must be"),
    "no name to unset": ({**WRITE, "changes": [["*", "", None, None, None]]}, 400, "name must be"),
    "a table": ({**WRITE, "changes": [["*", "timeout_s", {"value": 1}, None, None]]}, 400, "is a table"),
    "a table later": ({**WRITE, "changes": [["*", "timeout_s", 1, ENDS, {"as": "ever"}]]}, 400, "is a table"),
    "no time": ({**WRITE, "changes": [["*", "timeout_s", 1, "soon", None]]}, 400, "expires_at of"),
    "NaN": (json.dumps(WRITE).replace("0.9", "NaN").encode(), 400, "it holds NaN"),
    "no reason": ({**WRITE, "reason": " "}, 400, "reason must be text of 1 to 2000"),
    "no text": ({**WRITE, "actor": 7}, 400, "reason and actor must be text"),
    "no version": ({**WRITE, "based_on": 1}, 400, "version must be printable text"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "status", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_written_is_refused_and_nothing_is(storing, store, body, status, words):
    answered, said = post(storing, body)
    assert (answered, said["kind"]) == (status, "request")
    assert words in said["errors"][0]
    assert said["errors"][0].endswith("; nothing was written")
    assert store.load(None).version == "1"


# --- trouble ----------------------------------------------------------------------------------------------------------


def test_where_nothing_is_stored_that_is_said(storing, store):
    store.error = NothingStoredError("memory holds nothing")
    assert get(storing, "/store/document") == (404, {"errors": ["memory holds nothing"], "kind": "nothing-stored"})
    assert storing.version() is None
    store.error = None
    until(lambda: get(storing, "/store/document")[0] == 200)


def test_who_begins_a_document_need_not_wait_until_the_hub_looks_again(storing, store, monkeypatch):
    monkeypatch.setattr("groundfault.console.hub.storing._AFTER_FAILURE_S", BOUND_S * 2)
    store.error = NothingStoredError("memory holds nothing")
    assert get(storing, "/store/document")[0] == 404
    store.error = None
    assert post(storing, WRITE)[0] == 200
    change(store, 0.7, "2")
    until(lambda: storing.version() == "3")


def test_what_is_no_document_is_told_once_with_its_version(storing, store):
    store.error = MalformedError("no JSON", "v6")
    said = {"errors": ["no JSON"], "kind": "malformed", "version": "v6"}
    assert get(storing, "/store/document") == (422, said)
    assert get(storing, "/store/document?known=v6") == (304, None)
    store.error = None
    until(lambda: get(storing, "/store/document?known=v6")[0] == 200)


def test_what_json_cannot_hold_is_no_document(store):
    store.write([Change("*", "timeout_s", float("nan"))], reason="r", actor="a", based_on="1")
    storing = Storing(store)
    status, said = get(storing, "/store/document")
    assert (status, said["kind"], said["version"]) == (422, "malformed", "2")
    storing.close()


def test_a_store_in_trouble_is_borne_for_a_while_and_then_said(storing, store):
    assert get(storing, "/store/document")[0] == 200
    store.error = StoreError("memory: away")
    assert get(storing, "/store/document")[0] == 200
    until(lambda: get(storing, "/store/document") == (503, {"errors": ["memory: away"], "kind": "store"}))
    assert get(storing, "/store/history")[0] == 503
    assert post(storing, WRITE) == (503, {"errors": ["memory: away"], "kind": "store"})
    store.error = None
    until(lambda: get(storing, "/store/document?known=1")[0] == 304)


def test_a_store_that_breaks_its_promise_is_looked_at_again(storing, store):
    store.error = ZeroDivisionError()
    assert get(storing, "/store/document")[1]["errors"] == ["memory cannot be read: ZeroDivisionError"]
    store.error = None
    until(lambda: get(storing, "/store/document")[0] == 200)


def test_a_store_that_hangs_from_the_beginning_holds_nobody_up_for_ever(monkeypatch):
    over = threading.Event()
    store = Watched()
    monkeypatch.setattr(store, "load", lambda known: over.wait(BOUND_S))
    monkeypatch.setattr("groundfault.console.hub.storing._ONE_LOOK_S", 0.05)
    storing = Storing(store)
    assert get(storing, "/store/document")[1]["errors"] == ["memory has not answered yet"]
    assert asyncio.run(storing.answered(Asked("GET", "/store/document", {}))).status == 503
    storing.close()
    over.set()


def test_a_hub_that_stood_still_looks_before_it_answers(store):
    clock = ManualClock()
    storing = Storing(store, look_s=0.02, patience_s=3.0, clock=clock)
    assert get(storing, "/store/document")[0] == 200
    clock.advance(60)
    assert get(storing, "/store/document")[0] == 200
    clock.advance(60)
    assert asyncio.run(storing.answered(Asked("GET", "/store/document?known=1", {}))).status == 304
    storing.close()


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_who_waits_on_a_thread_is_answered_with_the_change(storing, store):
    get(storing, "/store/document")
    timer = threading.Timer(0.1, lambda: change(store, 0.7, "1"))
    timer.start()
    assert get(storing, f"/store/document?known=1&wait_s={BOUND_S}")[1]["version"] == "2"
    assert get(storing, "/store/document?known=2&wait_s=0.05") == (304, None)
    timer.join()


def test_nobody_waits_for_longer_than_the_longest():
    assert Storing(MemoryStore())._document_wanted(Asked("GET", "/store/document?wait_s=1e9", {}))[1] == LONGEST_WAIT_S


def test_two_hundred_hosts_wait_without_threads_and_one_looks_for_all(storing, store):
    async def wait():
        await storing.answered(Asked("GET", "/store/document", {}))
        before, loads = threading.active_count(), store.loads
        asked = Asked("GET", "/store/document?known=1&wait_s=15", {})
        waiting = [asyncio.create_task(storing.answered(asked)) for _ in range(200)]
        await asyncio.sleep(0.1)
        threads = threading.active_count() - before
        canceled = [waiting.pop() for _ in range(50)]
        for each in canceled:
            each.cancel()
        await asyncio.gather(*canceled, return_exceptions=True)
        left = len(storing._waiting)
        change(store, 0.7, "1")
        answers = await asyncio.gather(*waiting)
        return threads, left, {json.loads(answer.body)["version"] for answer in answers}, store.loads - loads

    threads, left, versions, loads = asyncio.run(wait())
    assert (threads, left, versions) == (0, 150, {"2"})
    assert loads < 100
    assert storing._waiting == set()


def test_on_an_event_loop_the_answers_are_the_same(storing):
    async def ask(path, method="GET", body=b""):
        return await storing.answered(Asked(method, path, {}, body))

    assert asyncio.run(ask("/store/document?known=1&wait_s=0.01")).status == 304
    assert asyncio.run(ask("/store/document?wait_s=x")).status == 400
    assert asyncio.run(ask("/store/history")).status == 200
    assert asyncio.run(ask("/store/write", "POST", json.dumps(WRITE).encode())).status == 200


def test_a_loop_that_is_gone_does_not_disturb_the_others(storing, store):
    get(storing, "/store/document")
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    loop.close()
    storing._waiting.add((loop, future))
    change(store, 0.7, "1")
    until(lambda: storing.version() == "2")


def test_it_ends_when_it_is_closed_and_may_never_have_begun(store):
    storing = Storing(store, look_s=0.02)
    storing.close()
    storing = Storing(store, look_s=0.02)
    get(storing, "/store/document")
    thread = storing._thread
    storing.close()
    thread.join(BOUND_S)
    assert not thread.is_alive()
    del storing
    gc.collect()
