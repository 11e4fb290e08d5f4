"""The Redis store: keys that somebody has spoiled, a server that stops, is emptied, or wants a password."""

import itertools
import os
import signal
import socket
import threading

import pytest
import redis as redis_py

from groundfault._clock import monotonic
from groundfault.errors import SettingsError
from groundfault.integrations.redis import RedisStore
from groundfault.settings.opening import open_store
from groundfault.settings.store import NOTHING_YET, Change, MalformedError, NothingStoredError, StoreError

BOUND_S = 15.0
_numbers = itertools.count()


def put(store, value=0.5, based_on=NOTHING_YET):
    return store.write([Change("*", "timeout_s", value)], reason="a test", actor="gronk", based_on=based_on)


def seconds_of(act):
    started = monotonic()
    act()
    return monotonic() - started


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://cache:6380/3", "redis://cache:6380/3"),
        ("redis://app:hunter2@cache", "redis://cache:6379/0"),
        ("rediss://:hunter2@cache/?ssl_password=hunter3", "rediss://cache:6379/0"),
        ("unix:///run/redis.sock?db=1&password=hunter2", "unix:///run/redis.sock/1"),
    ],
)
def test_its_name_is_the_address_without_credentials(url, name):
    store = open_store(url)
    assert isinstance(store, RedisStore)
    assert store.name == name
    assert "hunter" not in repr(store)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RedisStore("http://hunter2@cache"),
        lambda: RedisStore("redis://cache?socket_timeout=hunter2"),
        lambda: RedisStore("redis://cache", key=""),
        lambda: RedisStore("redis://cache", key="a b"),
        lambda: RedisStore("redis://cache", keep=0),
        lambda: RedisStore("redis://cache", timeout_s=float("nan")),
    ],
)
def test_what_makes_no_sense_is_refused_when_the_store_is_made(make):
    with pytest.raises(SettingsError) as caught:
        make()
    assert "hunter" not in str(caught.value)


def test_nobody_there_is_an_error_without_the_password():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    store = RedisStore(f"redis://app:hunter2@127.0.0.1:{port}/0")
    with pytest.raises(StoreError, match=f"^settings of redis://127.0.0.1:{port}/0: ConnectionError: ") as caught:
        store.load(None)
    assert "hunter2" not in str(caught.value)
    assert seconds_of(lambda: store.wait(0.05)) >= 0.05


def test_a_server_that_accepts_and_says_nothing_is_waited_for_about_a_second():
    with socket.create_server(("127.0.0.1", 0)) as server:
        store = RedisStore(f"redis://127.0.0.1:{server.getsockname()[1]}/0", timeout_s=0.3)
        started = monotonic()
        with pytest.raises(StoreError, match="TimeoutError"):
            store.load(None)
        assert monotonic() - started < BOUND_S / 2
        store.close()


# --- a real one -------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(redis):
    """Return a store with one setting in it."""
    store = RedisStore(redis.url, key=f"redis:{next(_numbers)}", keep=3, timeout_s=0.5)
    store.first = put(store)
    yield store
    store.close()


@pytest.fixture
def client(redis):
    with redis_py.Redis(port=redis.port) as client:
        yield client


POISONED = {
    "not JSON": (["set", "{}", "{{"], "is not JSON"),
    "NaN": (["set", "{}", '{{"*": {{"timeout_s": NaN}}}}'], "it holds NaN"),
    "infinite": (["set", "{}", '{{"*": {{"timeout_s": 1e999}}}}'], "too large for a float"),
    "null": (["set", "{}", '{{"*": {{"timeout_s": null}}}}'], "is null"),
    "twice": (["set", "{}", '{{"*": {{"timeout_s": 1, "timeout_s": 2}}}}'], "it says 'timeout_s' twice"),
    "an array": (["set", "{}", "[]"], "must be a table of scopes"),
    "no table": (["set", "{}", '{{"*": 1}}'], "must be a table of settings"),
    "no moment": (["set", "{}", '{{"*": {{"timeout_s": {{"value": 1, "until": "soon"}}}}}}'], "until must be"),
    "not UTF-8": (["setrange", "{}", "0", b"\xff"], "not UTF-8"),
    "huge": (["setrange", "{}", "9000000", "x"], "longer than 65536"),
    "nested": (["set", "{}", "[" * 60_000], "nested too deeply"),
    "a pickle": (["set", "{}", b"\x80\x04\x95"], "not UTF-8"),
    "evicted": (["del", "{}"], "is not JSON"),
}


@pytest.mark.e2e
@pytest.mark.parametrize(("command", "said"), POISONED.values(), ids=POISONED)
def test_a_document_that_makes_no_sense_is_named_and_its_version_rejected_once(store, client, command, said):
    key = store._document
    client.execute_command(*(part.format(key) if isinstance(part, str) else part for part in command))
    with pytest.raises(MalformedError, match=f"^settings of redis.*key {key}: .*{said}") as caught:
        store.load(None)
    assert caught.value.version == store.first
    assert len(str(caught.value)) < 600
    assert store.load(store.first) is None
    repaired = put(store, 0.6, store.first)  # by who has seen it: what was there before can be rolled back to
    assert [entry.value for entry in store.load(None).entries] == [0.6]
    assert [revision.version for revision in store.history()] == [repaired, store.first]


@pytest.mark.e2e
def test_keys_of_another_type_and_versions_that_are_none_are_errors(store, client):
    for command, said in [
        (["del", "{}"], "version must be printable"),
        (["set", "{}", ""], "version must be printable"),
        (["set", "{}", b"\xff"], "not UTF-8"),
        (["set", "{}", "v" * 9_000_000], "version must be printable"),
    ]:
        client.execute_command(*(part.format(store._version) if isinstance(part, str) else part for part in command))
        with pytest.raises(StoreError, match=f"key {store._version}: .*{said}") as caught:
            store.load(None)
        assert not isinstance(caught.value, MalformedError | NothingStoredError)
    client.set(store._version, "abc")
    with pytest.raises(StoreError, match="does not begin with the number of a change"):
        put(store, 0.6, "abc")
    for key in (store._version, store._document):
        client.delete(store._version, store._document)
        client.lpush(key, "x")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            store.load(None)


@pytest.mark.e2e
def test_only_so_many_changes_are_kept(store):
    versions = [store.first]
    for value in (0.6, 0.7, 0.8):
        versions.append(put(store, value, versions[-1]))
    assert [revision.version for revision in store.history()] == versions[:0:-1]
    with pytest.raises(StoreError, match=f"{versions[0]!r} is not known, or not any more"):
        store.at(versions[0])


@pytest.mark.e2e
def test_a_client_that_decodes_does_as_well(redis, store):
    made = []

    def factory():
        made.append(redis_py.Redis(port=redis.port, decode_responses=True))
        return made[-1]

    other = RedisStore(factory, key=store._document)
    assert other.name == "redis"
    assert other.load(store.first) is None
    second = put(other, 0.6, store.first)
    assert other.load(None).version == second == other.history()[0].version
    other.close()
    assert len(made) == 1


@pytest.mark.e2e
def test_a_change_wakes_who_waits_and_a_lost_word_does_not_disturb(store, redis, client):
    assert store.load(store.first) is None
    assert seconds_of(lambda: store.wait(BOUND_S)) < BOUND_S / 2, "listening begins, and then it is looked again"
    writer = RedisStore(redis.url, key=store._document)
    timer = threading.Timer(0.2, lambda: put(writer, 0.6, store.first))
    timer.start()
    assert 0.1 < seconds_of(lambda: store.wait(BOUND_S)) < BOUND_S / 2
    timer.join(BOUND_S)
    writer.close()
    assert store.load(store.first) is not None
    assert seconds_of(lambda: store.wait(0.2)) >= 0.19

    client.execute_command("client", "kill", "type", "pubsub")
    assert seconds_of(lambda: store.wait(0.2)) >= 0.19
    assert seconds_of(lambda: store.wait(0.2)) >= 0.19, "it is not tried again at once"
    store._again_at = 0.0
    assert seconds_of(lambda: store.wait(BOUND_S)) < BOUND_S / 2, "it listens again, and then it is looked again"


@pytest.mark.e2e
def test_a_server_that_stands_still_is_an_error_within_seconds_and_is_found_again(store, redis):
    assert store.load(store.first) is None
    store.wait(0.0)
    os.kill(redis.process.pid, signal.SIGSTOP)
    try:
        for _ in range(2):  # on the connection there is, and on a new one
            with pytest.raises(StoreError, match="TimeoutError"):
                assert seconds_of(lambda: store.load(store.first)) < BOUND_S / 2
        with pytest.raises(StoreError, match="nothing was written"):
            put(store, 0.6, store.first)
        assert seconds_of(lambda: store.wait(0.1)) < BOUND_S / 2
    finally:
        os.kill(redis.process.pid, signal.SIGCONT)
    assert store.load(None) is not None


@pytest.mark.e2e
def test_a_server_that_comes_back_without_what_it_held_takes_nothing_away(store, redis):
    redis.stop(signal.SIGKILL)
    with pytest.raises(StoreError, match="ConnectionError"):
        store.load(store.first)
    redis.start()
    with pytest.raises(NothingStoredError, match="flushed, or restarted without persistence"):
        store.load(store.first)
    again = put(store)
    assert store.load(store.first).version == again != store.first


@pytest.mark.e2e
def test_the_rights_that_the_documentation_names_suffice_and_a_wrong_password_is_not_told(store, redis, client):
    key = store._document
    client.execute_command(
        *("acl", "setuser", "reader", "reset", "on", ">right-0ne", f"~{key}", f"~{key}:version", f"&{key}:changed"),
        *("+getrange", "+multi", "+exec", "+subscribe"),
    )
    reader = RedisStore(f"redis://reader:right-0ne@127.0.0.1:{redis.port}/0", key=key)
    assert reader.load(None).version == store.first
    assert seconds_of(lambda: reader.wait(BOUND_S)) < BOUND_S / 2
    with pytest.raises(StoreError, match="no permissions"):
        put(reader, 0.6, store.first)
    with pytest.raises(StoreError, match="no permissions"):
        reader.history()
    reader.close()
    client.execute_command(
        *("acl", "setuser", "writer", "reset", "on", ">right-0ne", f"~{key}*", f"&{key}:changed"),
        *("+getrange", "+multi", "+exec", "+watch", "+unwatch", "+set", "+lpush", "+ltrim", "+lrange", "+publish"),
    )
    writer = RedisStore(f"redis://writer:right-0ne@127.0.0.1:{redis.port}/0", key=key)
    assert put(writer, 0.6, store.first) == writer.load(None).version == writer.history()[0].version
    writer.close()
    stranger = RedisStore(f"redis://reader:hunter2@127.0.0.1:{redis.port}/0", key=key)
    with pytest.raises(StoreError, match="AuthenticationError: ") as caught:
        stranger.load(None)
    assert "hunter2" not in str(caught.value)
    stranger.close()
