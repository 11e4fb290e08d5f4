"""A file as a store: what is noticed, what is refused, and how it is changed."""

import fcntl
import json
import os
import re
import stat
import sys
import threading

import pytest

from groundfault.errors import SettingsError
from groundfault.settings.document import as_mapping
from groundfault.settings.file import FileStore
from groundfault.settings.store import (
    NOTHING_YET,
    UNSET,
    Change,
    ConflictError,
    MalformedError,
    StoreError,
    WritableStore,
)
from groundfault.testing import ManualClock

ONE = {"*": {"timeout_s": 0.5}}
OLD_NS = 10**18  # long before any clock's now


class Watched(FileStore):
    """A file store whose pauses take no time, but let something happen."""

    def __init__(self, path, **options):
        self.passing = ManualClock()
        self.pauses = []
        self.meanwhile = []
        super().__init__(path, clock=self.passing, sleep=self._let, **options)

    def _let(self, seconds):
        self.pauses.append(seconds)
        self.passing.advance(seconds)
        if self.meanwhile:
            self.meanwhile.pop(0)()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "gf.json"
    path.write_text(json.dumps(ONE))
    return path


@pytest.fixture
def store(path):
    return Watched(path)


def age(path):
    """Make a file look as if nobody had touched it for long."""
    os.utime(path, ns=(OLD_NS, OLD_NS))


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_file_is_a_writable_store(store, path):
    assert isinstance(store, WritableStore)
    assert store.name == f"file:{path}"
    document = store.load(None)
    assert re.fullmatch("[0-9a-f]{12}", document.version)
    assert as_mapping(document) == ONE
    assert store.load(document.version) is None
    assert store.load("another") == document


def test_the_version_is_of_the_content_alone(store, path):
    version = store.load(None).version
    path.write_text(json.dumps({}))
    other = store.load(version).version
    path.write_text(json.dumps(ONE))
    assert other != version
    assert store.load(other).version == version


def test_an_unchanged_file_is_not_even_opened(store, path, monkeypatch):
    age(path)
    version = store.load(None).version
    monkeypatch.setattr(type(path), "open", None)
    assert store.load(version) is None


def test_a_file_that_was_just_written_is_read_again_for_its_time_may_not_move(store, path):
    version = store.load(None).version
    seen = path.stat()
    path.write_text(json.dumps({"*": {"timeout_s": 0.7}}))
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert store.load(version).entries[0].value == 0.7


@pytest.mark.parametrize("how", ["rewritten", "replaced", "link set", "kubernetes"])
def test_every_way_to_change_a_file_ends_the_waiting(tmp_path, how):
    new = {"*": {"timeout_s": 0.7}}
    real = tmp_path / "real.json"
    real.write_text(json.dumps(ONE))
    path = tmp_path / "gf.json"
    if how in {"rewritten", "replaced"}:
        path = real
    elif how == "link set":
        path.symlink_to(real)
    else:
        for name, content in (("v1", ONE), ("v2", new)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "gf.json").write_text(json.dumps(content))
        (tmp_path / "..data").symlink_to("v1")
        path.symlink_to("..data/gf.json")
    store = Watched(path)
    version = store.load(None).version

    def change():
        other = tmp_path / "new.json"
        if how == "rewritten":
            real.write_text(json.dumps(new))
        elif how == "replaced":
            other.write_text(json.dumps(new))
            other.replace(real)
        elif how == "link set":
            other.write_text(json.dumps(new))
            (tmp_path / "link").symlink_to(other)
            (tmp_path / "link").replace(path)
        else:
            (tmp_path / "..data_tmp").symlink_to("v2")
            (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    store.meanwhile = [lambda: None, change]
    store.wait(60.0)
    assert sum(store.pauses) < 1.0
    assert as_mapping(store.load(version)) == new


def test_waiting_ends_when_nothing_happens(store):
    store.wait(1.0)
    assert sum(store.pauses) == pytest.approx(1.0)


def test_a_file_that_comes_back_ends_the_waiting(store, path):
    path.unlink()
    store.meanwhile = [lambda: path.write_text("{}")]
    store.wait(60.0)
    assert len(store.pauses) == 1


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_what_is_half_written_is_read_again(tmp_path, suffix):
    """Half of a TOML file may well be a TOML file, and would unset the other half."""
    whole = '["*"]\ntimeout_s = 0.5\nmax_concurrent = 5\n' if suffix == ".toml" else '{"*": {"timeout_s": 1}}'
    path = tmp_path / f"gf{suffix}"
    path.write_text(whole)
    age(path)
    store = Watched(path)
    version = store.load(None).version
    steps = ["", whole[: len(whole) // 2], whole[:-1], whole + "\n"]
    path.write_text(steps.pop(0))
    store.meanwhile = [lambda step=step: path.write_text(step) for step in steps]
    found = store.load(version)
    assert len(found.entries) == (2 if suffix == ".toml" else 1)
    assert store.meanwhile == []


def test_a_file_that_is_written_all_the_time_cannot_be_read(store, path):
    version = store.load(None).version
    path.write_text("{")
    store.meanwhile = [lambda n=n: path.write_text("{" * n) for n in range(2, 50)]
    with pytest.raises(StoreError, match=r"gf.json: is being written all the time"):
        store.load(version)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gf.json", b"", "is empty; to have no settings, write {} into it"),
        ("gf.toml", b" \n", "is empty; to have no settings, write a comment into it"),
        ("gf.json", b'{"*": {"timeout', "cannot be read: Unterminated string starting at: line 1 column 8"),
        ("gf.json", b'{"*": {"timeout_s": NaN}}', "NaN is no number in JSON"),
        ("gf.json", b'{"*": {"timeout_s": 1, "timeout_s": 2}}', "'timeout_s' is said twice"),
        ("gf.json", b"[" * 60_000, "is nested too deeply"),
        ("gf.json", b"\xff\xfe{}", "can't decode byte 0xff"),
        ("gf.json", b"[]", "a document must be a table of scopes"),
        ("gf.json", b'{"*": {"x": ' + b"9" * 5000 + b"}}", "cannot be read: Exceeds the limit"),
        ("gf.toml", b"timeout_s = ", "cannot be read: Invalid value (at end of document)"),
        ("gf.toml", b"a = " + b"[" * 30_000, "gf.toml"),
        ("gf.toml", b'["*"]\nx = 1\nx = 2\n', "Cannot overwrite a value"),
        ("gf.toml", b"timeout_s = 1\n", "'timeout_s' must be a table of settings, not 1"),
        ("gf.toml", b'["*"]\nx = { value = 1, until = 2026-11-23T20:00:00 }\n', "with its time zone"),
        ("gf.json", b"x" * 65_537, "must be at most 65536 bytes, not 65537"),
    ],
)
def test_what_is_no_document_is_told_with_its_version_once(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    store = Watched(path)
    with pytest.raises(MalformedError, match=re.escape(message)) as caught:
        store.load(None)
    assert str(caught.value).startswith(f"file:{path}")
    assert store.load(caught.value.version) is None
    age(path)
    with pytest.raises(MalformedError):
        store.load("another")


def test_only_so_much_is_read_of_a_file_however_large(tmp_path):
    path = tmp_path / "gf.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(MalformedError, match="at most 65536 bytes, not 1099511627776"):
        FileStore(path).load(None)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "No such file or directory"),
        ("directory", "is a directory"),
        ("fifo", "is no file"),
        ("loop", "symbolic links"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_name_and_does_not_hang(tmp_path, kind, message):
    path = tmp_path / "gf.json"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    store = Watched(path)
    with pytest.raises(StoreError, match=message) as caught:
        store.load(None)
    assert str(caught.value).startswith(f"file:{path}: ")
    assert not isinstance(caught.value, MalformedError)


def test_a_file_that_may_not_be_read_is_told(store, path, monkeypatch):
    """As root one may read everything, so the refusal is made up."""

    def refuse(self, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(StoreError, match=r"gf\.json: Permission denied"):
        store.load(None)


@pytest.mark.parametrize("name", ["gf.yaml", "gf", "gf.json.bak", "gf.pickle"])
def test_other_kinds_of_files_are_refused(name):
    with pytest.raises(SettingsError, match=r"must end in \.toml or \.json"):
        FileStore(name)


# --- writing ----------------------------------------------------------------------------------------------------------


def put(store, *changes, base=None, reason="because", actor="me"):
    base = store.load(None).version if base is None else base
    return store.write([Change(*change) for change in changes], reason=reason, actor=actor, based_on=base)


def test_a_change_of_a_json_file_reads_back_and_keeps_the_mode(store, path):
    path.chmod(0o640)
    version = put(store, ("topps", "max_concurrent", 5, 1_795_464_000.0), ("*", "timeout_s", UNSET))
    document = store.load(None)
    assert document.version == version
    assert json.loads(path.read_text()) == {"topps": {"max_concurrent": {"value": 5, "until": "2026-11-23T20:00:00Z"}}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(each.name for each in path.parent.iterdir()) == ["gf.json", "gf.json.history.jsonl", "gf.json.lock"]


TOML = """# Settings of the contest, see the runbook.
["*"]  # everybody
failure_threshold = 0.4 # as agreed
server.deadline_s = 0.8 # one second is too long

# The database is small.
["topps/contest-db"]
timeout_s = 0.5
max_concurrent = 5
"""


def test_a_change_of_a_toml_file_keeps_every_comment(tmp_path):
    pytest.importorskip("tomlkit")
    path = tmp_path / "gf.toml"
    path.write_text(TOML)
    store = Watched(path)
    put(
        store,
        ("*", "server.deadline_s", 0.7),
        ("*", "server.mode", "shadow"),
        ("*", "failure_threshold", UNSET),
        ("topps/contest-db", "timeout_s", 0.25, 1_795_464_000.0),
        ("*/new", "mode", "shadow"),
        ("*", "server.criticality", [{"criticality": "sheddable", "path": "/suggest*"}]),
        ("*", "nothing", UNSET),
        ("nowhere", "nothing", UNSET),
    )
    text = path.read_text()
    for kept in ("# Settings of the contest", "# everybody", "# one second is too long", "# The database is small."):
        assert kept in text
    assert as_mapping(store.load(None)) == {
        "*": {
            "server.deadline_s": 0.7,
            "server.mode": "shadow",
            "server.criticality": [{"criticality": "sheddable", "path": "/suggest*"}],
        },
        "*/new": {"mode": "shadow"},
        "topps/contest-db": {
            "timeout_s": {"value": 0.25, "until": "2026-11-23T20:00:00Z", "then": 0.5},
            "max_concurrent": 5,
        },
    }
    put(store, ("*", "server.deadline_s", UNSET), ("*", "server.mode", UNSET), ("*", "server.criticality", UNSET))
    assert "*" not in as_mapping(store.load(None))


@pytest.mark.parametrize("form", ['server.mode = "shadow"', '"server.mode" = "shadow"', 'server = { mode = "shadow" }'])
def test_a_servers_setting_is_changed_where_it_stands(tmp_path, form):
    pytest.importorskip("tomlkit")
    path = tmp_path / "gf.toml"
    path.write_text(f'["*"]\n{form}\n')
    store = Watched(path)
    put(store, ("*", "server.mode", "enforce"), ("*", "server.deadline_s", 0.5))
    assert as_mapping(store.load(None)) == {"*": {"server.mode": "enforce", "server.deadline_s": 0.5}}


def test_without_its_extra_a_toml_file_can_be_read_and_says_what_is_missing(tmp_path, monkeypatch):
    path = tmp_path / "gf.toml"
    path.write_text(TOML)
    monkeypatch.setitem(sys.modules, "tomlkit", None)
    monkeypatch.delitem(sys.modules, "groundfault.integrations.tomlkit", raising=False)
    store = Watched(path)
    assert len(store.load(None).entries) == 4
    with pytest.raises(ImportError, match=r"pip install 'groundfault\[tomlkit\]'"):
        put(store, ("*", "timeout_s", 1.0))
    assert path.read_text() == TOML


def test_who_looked_at_an_older_version_is_refused(store, path):
    base = store.load(None).version
    put(store, ("*", "timeout_s", 0.6))
    with pytest.raises(ConflictError, match=rf"gf.json holds version \w+, not {base} any more"):
        put(store, ("*", "timeout_s", 0.7), base=base)
    assert json.loads(path.read_text()) == {"*": {"timeout_s": 0.6}}


def test_a_change_that_makes_no_sense_is_not_written(store, path):
    with pytest.raises(SettingsError, match=r"\*:timeout_s must be a number"):
        put(store, ("*", "timeout_s", -1))
    assert json.loads(path.read_text()) == ONE


@pytest.mark.parametrize("suffix", [".json", ".toml"])
@pytest.mark.parametrize("value", ["\ud800x", ["\udc80"], {"\udfff": 1}])
@pytest.mark.parametrize("until", [None, 4e9])
def test_half_a_surrogate_pair_is_refused_with_its_name_and_nothing_is_written(tmp_path, suffix, value, until):
    path = tmp_path / f"gf{suffix}"
    path.write_text("{}" if suffix == ".json" else "# nothing\n")
    store = FileStore(path)
    before, version = path.read_bytes(), store.load(None).version
    change = Change("*", "later", value) if until is None else Change("*", "later", 1, until, then=value)
    with pytest.raises(SettingsError, match=r"\*:later must be text that UTF-8 can hold, not .*\\ud"):
        store.write([change], reason="r", actor="me", based_on=version)
    assert path.read_bytes() == before
    assert store.history() == []


def test_a_new_file_can_be_begun(tmp_path):
    store = Watched(tmp_path / "new.json")
    version = put(store, ("*", "timeout_s", 0.5), base=NOTHING_YET)
    assert store.load(None).version == version
    assert [revision.version for revision in store.history()] == [version]


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b" " * 70_000])
def test_content_that_is_no_document_can_be_replaced(tmp_path, content):
    path = tmp_path / "gf.json"
    path.write_bytes(content)
    store = Watched(path)
    with pytest.raises(MalformedError) as malformed:
        store.load(None)
    with pytest.raises(MalformedError):
        put(store, ("*", "timeout_s", 0.5), base="another")
    put(store, ("*", "timeout_s", 0.5), base=malformed.value.version)
    assert as_mapping(store.load(None)) == {"*": {"timeout_s": 0.5}}


def test_a_link_stays_a_link(tmp_path, path):
    link = tmp_path / "link.json"
    link.symlink_to(path)
    put(Watched(link), ("*", "timeout_s", 0.6))
    assert link.is_symlink()
    assert json.loads(path.read_text()) == {"*": {"timeout_s": 0.6}}


def test_what_has_changed_by_whom_and_why_is_in_the_history(path):
    wall = ManualClock(2_000.0)
    store = Watched(path, wall_clock=wall)
    first = store.load(None).version
    second = put(store, ("*", "timeout_s", 0.6), reason="slow disks", actor="ann")
    wall.advance(60)
    third = put(store, ("*", "timeout_s", UNSET), reason="new disks", actor="bob")
    newest, middle, oldest = store.history()
    assert (newest.version, newest.at, newest.actor, newest.reason) == (third, 2_060.0, "bob", "new disks")
    (((was, now),),) = (newest.changes,)
    assert (was.value, now) == (0.6, None)
    assert (middle.version, middle.actor) == (second, "ann")
    assert (oldest.version, oldest.reason, oldest.changes) == (first, "found in the file", ())
    assert [each.version for each in store.history(limit=1)] == [third]
    assert [as_mapping(store.at(each)) for each in (first, second, third)] == [ONE, {"*": {"timeout_s": 0.6}}, {}]


def test_what_was_edited_by_hand_shows_with_the_next_change(store, path):
    put(store, ("*", "timeout_s", 0.6))
    path.write_text('{"*": {"timeout_s": 0.9}}')
    by_hand = store.load(None).version
    put(store, ("*", "max_concurrent", 5))
    edited = store.history()[1]
    assert (edited.version, edited.actor) == (by_hand, "unknown")
    assert [(was.value, now.value) for was, now in edited.changes] == [(0.6, 0.9)]


def test_going_back_to_what_was_there_before_is_not_taken_for_an_edit_by_hand(store):
    put(store, ("*", "timeout_s", 0.6))
    put(store, ("*", "timeout_s", 0.7))
    put(store, ("*", "timeout_s", 0.6))  # the same content, so the same version
    put(store, ("*", "timeout_s", 0.8))
    found = [(each.actor, [now.value for _, now in each.changes]) for each in store.history()]
    assert found[:4] == [("me", [0.8]), ("me", [0.6]), ("me", [0.7]), ("me", [0.6])]


def test_the_document_that_is_there_is_known_without_a_history(store):
    current = store.load(None)
    assert store.at(current.version) == current
    assert store.history() == []
    with pytest.raises(StoreError, match=r"knows no version 0000"):
        store.at("0000")


def test_the_history_is_bounded(store, monkeypatch):
    monkeypatch.setattr("groundfault.settings._history._MOST_REVISIONS", 5)
    versions = [put(store, ("*", "max_concurrent", n)) for n in range(1, 10)]
    assert [each.version for each in store.history()] == versions[:3:-1]
    monkeypatch.setattr("groundfault.settings._history._MOST_BYTES", 10)
    last = put(store, ("*", "max_concurrent", 99))
    assert [each.version for each in store.history()] == [last]


@pytest.mark.parametrize("line", ["nonsense", "{}", '{"version": 1}', "[]", '"x"'])
def test_a_damaged_history_is_told_and_nothing_is_written(store, path, line):
    path.with_name("gf.json.history.jsonl").write_text(f"{line}\n")
    with pytest.raises(StoreError, match=r"history\.jsonl is damaged in line 1"):
        store.history()
    with pytest.raises(StoreError, match=r"history\.jsonl is damaged in line 1"):
        put(store, ("*", "timeout_s", 0.6))
    assert json.loads(path.read_text()) == ONE


def test_two_writers_take_turns(path):
    """One holds the lock; the other waits for so long and then says so."""
    store = Watched(path)
    with path.with_name("gf.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="is being written by somebody else for more than 5 s"):
            put(store, ("*", "timeout_s", 0.6))
        store.meanwhile = [lambda: fcntl.flock(lock, fcntl.LOCK_UN)]
        put(store, ("*", "timeout_s", 0.6))
    assert json.loads(path.read_text()) == {"*": {"timeout_s": 0.6}}


def test_of_many_writers_at_once_none_undoes_another(path):
    path.write_text('{"*": {"unknown": 0}}')

    def add(n):
        store = FileStore(path)
        while True:
            base = store.load(None)
            changes = [Change("*", f"by_{n}", n)]
            try:
                store.write(changes, reason="r", actor="a", based_on=base.version)
            except ConflictError:
                continue
            return

    threads = [threading.Thread(target=add, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert json.loads(path.read_text()) == {"*": {"unknown": 0, **{f"by_{n}": n for n in range(6)}}}


def test_a_place_where_nothing_can_be_written_is_told(store, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr("groundfault.settings.file.tempfile.mkstemp", refuse)
        with pytest.raises(StoreError, match="cannot be written: Read-only file system"):
            put(store, ("*", "timeout_s", 0.6))
    version = store.load(None).version
    with monkeypatch.context() as patched:
        patched.setattr("groundfault.settings.file.os.open", refuse)
        with pytest.raises(StoreError, match="cannot be written: Read-only file system"):
            put(store, ("*", "timeout_s", 0.6), base=version)
