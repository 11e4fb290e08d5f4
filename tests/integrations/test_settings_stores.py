"""What every settings store promises, over SQLite, PostgreSQL and Redis, and over a hub that keeps them in SQLite."""

import itertools
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from groundfault._clock import monotonic
from groundfault.integrations.hub import HubStore
from groundfault.integrations.redis import RedisStore
from groundfault.integrations.sql import SQLStore
from groundfault.settings.document import differences
from groundfault.settings.store import (
    NOTHING_YET,
    UNSET,
    Change,
    ConflictError,
    Document,
    Entry,
    NothingStoredError,
    StoreError,
    WritableStore,
)

SERVERS = [pytest.param("postgres", marks=pytest.mark.e2e), pytest.param("redis", marks=pytest.mark.e2e)]
_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "hub", *SERVERS])
def opened(request, tmp_path, clock):
    """Return what opens one more store on the same, new place."""
    number, stores, hubs = next(_numbers), [], []
    place = f"sqlite:///{tmp_path}/of 100% ?.db"

    def open_one(**options):
        options = {"clock": clock, **options}
        if request.param == "redis":
            store = RedisStore(request.getfixturevalue("redis").url, key=f"contract:{number}", **options)
        elif request.param == "postgres":
            url = request.getfixturevalue("postgres").url
            store = SQLStore(url, table_prefix=f"contract_{number}_", **options)
        elif request.param == "hub":
            if not hubs:
                hubs.append(request.getfixturevalue("serve_hub")(SQLStore(place, **options)))
            store = HubStore(hubs[0].url)
        else:
            store = SQLStore(place, **options)
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(opened):
    return opened()


def put(store, *changes, based_on=NOTHING_YET, reason="a test", actor="gronk"):
    return store.write([Change(*change) for change in changes], reason=reason, actor=actor, based_on=based_on)


def test_it_is_a_store_that_can_be_written(store):
    assert isinstance(store, WritableStore)
    assert store.name in repr(store)


def test_where_nothing_was_ever_stored_that_is_an_error_which_says_what_to_do(store):
    with pytest.raises(NothingStoredError, match="groundfault settings set") as caught:
        store.load(None)
    assert store.name in str(caught.value)


def test_the_first_write_begins_a_document_and_its_version_is_not_read_twice(store, opened):
    version = put(store, ("topps", "timeout_s", 0.5), ("*", "failure_threshold", 0.4))
    other = opened()
    assert other.load(None) == Document(
        version, (Entry("*", "failure_threshold", 0.4), Entry("topps", "timeout_s", 0.5))
    )
    assert other.load(version) is None
    assert version != NOTHING_YET


VALUES = [0.5, 5, 0, True, False, "shadow", "naïve \u202e\x00", [1, "a", None, {"b": 2.5}], 10**30, -0.25]


def test_values_and_their_end_come_back_as_they_were(store):
    version = put(
        store,
        *((f"s{number}", "timeout_s", value) for number, value in enumerate(VALUES)),
        ("topps/contest-db", "max_concurrent", 5, 1795464000.123456),
    )
    entries = {entry.scope: entry for entry in store.load(None).entries}
    back = [entries[f"s{number}"].value for number in range(len(VALUES))]
    assert [(type(value), value) for value in back] == [(type(value), value) for value in VALUES]
    assert entries["topps/contest-db"] == Entry("topps/contest-db", "max_concurrent", 5, 1795464000.123456)
    assert entries["s0"].expires_at is None
    assert store.at(version) == store.load(None)


def test_a_change_replaces_and_unsets_at_once(store):
    first = put(store, ("*", "timeout_s", 0.5), ("*", "max_concurrent", 5))
    second = put(store, ("*", "timeout_s", 0.7, 1.8e9), ("*", "max_concurrent", UNSET), based_on=first)
    assert store.load(first) == Document(second, (Entry("*", "timeout_s", 0.7, 1.8e9, 0.5),))
    third = put(store, ("*", "timeout_s", 0.8, 1.9e9, None), based_on=second)
    assert store.load(second).entries == (Entry("*", "timeout_s", 0.8, 1.9e9),)
    assert [pair[1].then for pair in store.history()[0].changes] == [None]
    assert store.at(second).entries[0].then == 0.5, third


def test_what_differs_in_nothing_is_no_change(store):
    version = put(store, ("*", "timeout_s", 0.5))
    assert put(store, ("*", "timeout_s", 0.5), ("*", "gone", UNSET), based_on=version) == version
    assert len(store.history()) == 1
    assert put(store, ("*", "timeout_s", True), based_on=version) != version
    assert put(store, ("*", "timeout_s", 1), based_on=store.load(None).version)
    assert len(store.history()) == 3, "True is not 1"


def test_no_version_comes_twice_even_where_a_document_begins_anew(opened):
    store = opened()
    seen = {put(store, ("*", "timeout_s", 0.5))}
    for value in (0.6, 0.7, 0.5):
        seen.add(put(store, ("*", "timeout_s", value), based_on=store.load(None).version))
    assert len(seen) == 4


def test_the_history_says_who_why_when_and_what(store, clock):
    first = put(store, ("*", "timeout_s", 0.5), reason="slow\x00 \ud800 contest", actor="brady")
    clock.advance(5)
    second = put(store, ("*", "timeout_s", UNSET), ("topps", "mode", "shadow", 1.8e9), based_on=first)
    newest, oldest = store.history()
    assert (newest.version, newest.at, newest.actor, newest.reason) == (second, 1005.0, "gronk", "a test")
    assert newest.changes == (
        (Entry("*", "timeout_s", 0.5), None),
        (None, Entry("topps", "mode", "shadow", 1.8e9)),
    )
    assert (oldest.version, oldest.at, oldest.actor) == (first, 1000.0, "brady")
    assert oldest.reason == "slow\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER} contest"
    assert store.history(1) == [newest]
    assert store.history(0) == []


def test_every_version_can_be_had_again_and_returned_to(store):
    first = put(store, ("*", "timeout_s", 0.5), ("topps", "max_concurrent", 5))
    second = put(store, ("*", "timeout_s", UNSET), ("topps", "max_concurrent", 7), based_on=first)
    back = [
        Change(*(before or after).__getstate__()[:2], *((UNSET,) if after is None else after.__getstate__()[2:]))
        for before, after in differences(store.load(None), store.at(first))
    ]
    third = store.write(back, reason="rollback", actor="gronk", based_on=second)
    assert store.load(None).entries == store.at(first).entries
    assert store.at(second) == Document(second, (Entry("topps", "max_concurrent", 7),))
    assert store.at(NOTHING_YET) == Document(NOTHING_YET)
    assert third not in {first, second}
    with pytest.raises(StoreError, match="'99-abcdef' is not known"):
        store.at("99-abcdef")


# --- refused ----------------------------------------------------------------------------------------------------------

REFUSED = {
    "nan": ([("*", "timeout_s", float("nan"))], "JSON"),
    "infinite": ([("*", "timeout_s", float("inf"))], "JSON"),
    "object": ([("*", "timeout_s", object())], "JSON"),
    "bytes": ([("*", "timeout_s", b"1")], "JSON"),
    "table": ([("*", "timeout_s", {"value": 1})], "table"),
    "endless": ([("*", "timeout_s", 1, float("nan"))], "expires_at"),
    "no scope": ([("", "timeout_s", 1)], "scope must be"),
    "scope with a line end": ([("to\npps", "timeout_s", 1)], "scope must be"),
    "endless name": ([("*", "n" * 256, 1)], "name must be"),
    "huge": ([("*", "timeout_s", "x" * 70_000)], "65536"),
    "many": ([("*", f"n{number}", 1) for number in range(2001)], "2001|2000"),
    "many large ones": ([(f"s{number}", "n" * 60, "x" * 60) for number in range(1000)], "65536"),
}


@pytest.mark.parametrize(("changes", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_stored_is_refused_and_nothing_of_it_is_written(store, changes, said):
    version = put(store, ("*", "max_concurrent", 5))
    with pytest.raises(StoreError, match=said) as caught:
        put(store, ("*", "failure_threshold", 0.4), *changes, based_on=version)
    assert str(caught.value).startswith(f"settings of {store.name}: ")
    assert "nothing was written" in str(caught.value)
    assert len(str(caught.value)) < 600
    assert store.load(version) is None
    assert len(store.history()) == 1


@pytest.mark.parametrize("wrong", [{"reason": " "}, {"actor": ""}, {"reason": "x" * 2001}])
def test_a_change_says_who_and_why_within_limits(store, wrong):
    with pytest.raises(StoreError, match="must be text of 1 to 2000"):
        put(store, ("*", "timeout_s", 0.5), **wrong)


def test_two_thousand_settings_fit(store):
    version = put(store, *((f"s{number}", "mode", 1) for number in range(2000)))
    assert len(store.load(None).entries) == 2000
    assert store.load(version) is None


# --- several writers --------------------------------------------------------------------------------------------------


def test_a_change_based_on_what_is_no_more_conflicts(store, opened):
    first = put(store, ("*", "timeout_s", 0.5))
    second = put(opened(), ("*", "timeout_s", 0.6), based_on=first)
    for old in (first, NOTHING_YET, "7-ffffff"):
        with pytest.raises(ConflictError, match=f"at version {second}, and the change was based on {old}"):
            put(store, ("*", "timeout_s", 0.7), based_on=old)
    assert store.load(second) is None


def test_of_writers_at_the_same_time_exactly_one_wins(opened):
    stores = [opened() for _ in range(6)]
    at_once = threading.Barrier(len(stores))

    def write(number):
        at_once.wait(20)
        try:
            return put(stores[number], ("*", "timeout_s", [based_on, number]), based_on=based_on)
        except ConflictError:
            return None

    with ThreadPoolExecutor(len(stores)) as threads:
        for based_on in (NOTHING_YET, None):  # the first round also creates everything
            based_on = based_on or stores[0].load(None).version  # noqa: PLW2901  what the threads are told
            winners = [version for version in threads.map(write, range(len(stores))) if version]
            assert len(winners) == 1
            assert stores[0].load(None).version == winners[0]
    assert len(stores[0].history()) == 2


# --- processes --------------------------------------------------------------------------------------------------------


def test_a_forked_child_has_connections_of_its_own(store):
    version = put(store, ("*", "timeout_s", 0.5))
    assert store.load(None).version == version
    store.wait(0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pytest has threads; the child does not use theirs
        child = os.fork()
    if child == 0:
        status = 1
        try:
            loaded = [store.load(None).version == version for _ in range(3)]
            store.wait(0.0)
            changed = put(store, ("*", "timeout_s", 0.6), based_on=version)
            store.close()
            status = 0 if all(loaded) and changed else 2
        finally:
            os._exit(status)
    assert store.load(None) is not None
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.load(version).entries == (Entry("*", "timeout_s", 0.6),)


def test_after_closing_it_opens_again(store):
    version = put(store, ("*", "timeout_s", 0.5))
    store.close()
    store.close()
    assert store.load(version) is None


def test_waiting_without_a_word_takes_its_time(store):
    started = monotonic()
    store.wait(0.05)
    assert monotonic() - started >= 0.05
