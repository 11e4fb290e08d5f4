"""The store in memory, addresses of stores, and the cached copy on disk."""

import json
import os
import pickle

import pytest

from groundfault.errors import SettingsError
from groundfault.settings._cache import Cache, cache_of
from groundfault.settings._reading import Reader
from groundfault.settings.document import as_mapping, parse
from groundfault.settings.file import FileStore
from groundfault.settings.memory import MemoryStore
from groundfault.settings.opening import open_store
from groundfault.settings.store import Change, ConflictError, MalformedError, StoreError, WritableStore
from groundfault.testing import ManualClock

# --- memory -----------------------------------------------------------------------------------------------------------


def test_the_store_in_memory_keeps_everything_it_ever_held():
    store = MemoryStore({"*": {"timeout_s": 0.5}}, clock=ManualClock(7.0))
    assert isinstance(store, WritableStore)
    assert (store.name, store.load(None).version, store.load("1")) == ("memory", "1", None)
    assert store.write([Change("*", "timeout_s", 0.6)], reason="r", actor="a", based_on="1") == "2"
    with pytest.raises(ConflictError, match="memory holds version 2, not 1 any more"):
        store.write([], reason="r", actor="a", based_on="1")
    (revision,) = store.history()
    assert (revision.version, revision.at, revision.actor, revision.reason) == ("2", 7.0, "a", "r")
    assert [as_mapping(store.at(version)) for version in "12"] == [{"*": {"timeout_s": 0.5}}, {"*": {"timeout_s": 0.6}}]
    with pytest.raises(StoreError, match="memory knows no version 3"):
        store.at("3")
    store.close()


def test_the_store_in_memory_can_be_out_of_order():
    store = MemoryStore(name="m")
    store.error = StoreError("m: away")
    for use in (lambda: store.load(None), store.history, lambda: store.at("1")):
        with pytest.raises(StoreError, match="m: away"):
            use()


def test_content_that_is_no_document_survives_pickling_with_its_version():
    again = pickle.loads(pickle.dumps(MalformedError("no JSON", "v")))  # noqa: S301  our own
    assert (str(again), again.version) == ("no JSON", "v")


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/etc/gf.toml", "/etc/gf.toml"),
        ("file:/etc/gf.toml", "/etc/gf.toml"),
        ("file:///etc/gf.toml", "/etc/gf.toml"),
        ("file:///etc/with%20blank.json", "/etc/with blank.json"),
        ("gf.json", os.path.join(os.getcwd(), "gf.json")),  # noqa: PTH109, PTH118  as text, as the addresses are
        ("file:gf.json", os.path.join(os.getcwd(), "gf.json")),  # noqa: PTH109, PTH118  as above
        ("./odd:name.json", os.path.join(os.getcwd(), "odd:name.json")),  # noqa: PTH109, PTH118  as above
    ],
)
def test_a_path_is_the_address_of_a_file(url, path):
    store = open_store(url)
    assert isinstance(store, FileStore)
    assert str(store.path) == path


@pytest.mark.parametrize("url", ["", "  ", "redis:", "sqlite:settings.db", "gf.yaml"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(SettingsError):
        open_store(url)


# --- the cached copy --------------------------------------------------------------------------------------------------

DOCUMENT = parse({"*": {"timeout_s": 0.5, "max_concurrent": {"value": 5, "until": "2026-11-23T20:00:00Z"}}}, "v7")


@pytest.fixture
def wall(tmp_path):
    return ManualClock(tmp_path.stat().st_mtime)


@pytest.fixture
def cache(tmp_path, wall):
    return Cache(tmp_path / "cache.json", "memory", wall)


def test_what_is_kept_is_found_again_with_its_age(cache, wall):
    cache.write(DOCUMENT)
    assert cache.path.stat().st_mode & 0o777 == 0o600
    os.utime(cache.path, (wall.now, wall.now))
    wall.advance(90)
    document, age_s = cache.read()
    assert set(document.entries) == set(DOCUMENT.entries)
    assert (document.version, age_s) == ("v7", pytest.approx(90))
    assert [each.name for each in cache.path.parent.iterdir()] == ["cache.json"]


def test_its_age_is_refreshed_once_a_minute(cache, wall):
    cache.write(DOCUMENT)
    wall.advance(59)
    cache.touch()
    wall.advance(31)
    cache.touch()
    wall.advance(10)
    assert cache.read()[1] == pytest.approx(10)
    cache.path.unlink()
    wall.advance(90)
    cache.touch()
    assert cache.read() is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is damaged: JSONDecodeError"),
        (b"\xff", "it is damaged: UnicodeDecodeError"),
        (b"[]", "it is damaged: TypeError"),
        (b"{}", "it is damaged: KeyError"),
        (b"[" * 100_000, "it is damaged: RecursionError"),
        (b"x" * 200_000, "it is larger than 131072 bytes"),
        (b'{"store": "other", "version": "1", "settings": {}}', "it is of another store, 'other'"),
        (b'{"store": "memory", "version": "1", "settings": []}', "it is damaged: SettingsError"),
    ],
)
def test_a_damaged_copy_is_ignored_with_a_word_in_the_log(cache, caplog, content, why):
    cache.path.write_bytes(content)
    cache.path.chmod(0o600)
    assert cache.read() is None
    assert f"the copy of live settings in {cache.path} is ignored: {why}" in caplog.text


@pytest.mark.parametrize("kind", ["writable", "link", "directory", "foreign"])
def test_a_copy_that_somebody_else_may_have_put_there_is_ignored(cache, tmp_path, caplog, kind, monkeypatch):
    cache.write(DOCUMENT)
    if kind == "writable":
        cache.path.chmod(0o666)
    elif kind == "foreign":
        monkeypatch.setattr("groundfault.settings._cache.os.geteuid", lambda: 12345)
        if os.getuid() == 0:
            os.chown(cache.path, 4321, -1)
    else:
        cache.path.rename(tmp_path / "elsewhere")
        cache.path.symlink_to(tmp_path / "elsewhere") if kind == "link" else cache.path.mkdir()
    assert cache.read() is None
    assert "is ignored" in caplog.text


def test_no_copy_is_no_trouble(cache, caplog):
    assert cache.read() is None
    assert caplog.text == ""


def test_a_full_disk_is_told_once(cache, caplog):
    cache.path.write_text("no directory")
    missing = Cache(cache.path / "nowhere" / "x.json", "memory", cache._wall_clock)
    missing.write(DOCUMENT)
    missing.write(DOCUMENT)
    (record,) = caplog.records
    assert "live settings are not kept in" in record.getMessage()


def test_a_run_directory_that_is_not_there_yet_is_made_for_its_owner_alone(cache, tmp_path, caplog):
    early = Cache(tmp_path / "run" / "x.json", "memory", cache._wall_clock)
    early.write(DOCUMENT)
    assert early.read() is not None
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    assert caplog.text == ""


def test_where_the_copy_is(monkeypatch, tmp_path, wall):
    monkeypatch.delenv("GROUNDFAULT_RUN_DIR", raising=False)
    assert cache_of(None, "memory", wall) is None
    assert cache_of(tmp_path / "x.json", "memory", wall).path == tmp_path / "x.json"
    monkeypatch.setenv("GROUNDFAULT_RUN_DIR", str(tmp_path))
    one, two = (cache_of(None, name, wall).path for name in ("memory", "redis"))
    assert one.parent == two.parent == tmp_path
    assert one != two
    assert cache_of(False, "memory", wall) is None


def test_the_reader_begins_with_the_copy_and_keeps_what_is_good(cache):
    cache.write(DOCUMENT)
    store = MemoryStore({"*": {"timeout_s": 0.9}})
    read = []

    def judge(reading):
        read.append((reading.cached_age_s is not None, reading.document.version))
        reading.keep = None if reading.cached_age_s is not None else reading.document
        reading.pause_s = 0.01
        if len(read) == 2:
            reader._stopped = False
        reading.judged()

    reader = Reader(store, cache, judge, known=None, cold=True, clock=ManualClock())
    reader._begin()
    reader._look()
    assert read == [(True, "v7"), (False, "1")]
    assert json.loads(cache.path.read_text())["version"] == "1"
    assert reader.busy_since is None
