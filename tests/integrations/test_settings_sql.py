"""The SQL store: SQLite's file, PostgreSQL's word, tables that somebody has spoiled, servers that stop."""

import itertools
import os
import signal
import sqlite3
import stat
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from groundfault._clock import monotonic
from groundfault.errors import SettingsError
from groundfault.integrations.sql import SQLStore
from groundfault.settings.opening import open_store
from groundfault.settings.store import (
    NOTHING_YET,
    Change,
    ConflictError,
    Document,
    MalformedError,
    NothingStoredError,
    StoreError,
)

BOUND_S = 15.0
_numbers = itertools.count()


def put(store, value=0.5, based_on=NOTHING_YET):
    return store.write([Change("*", "timeout_s", value)], reason="a test", actor="gronk", based_on=based_on)


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:////var/lib/settings.db", "sqlite:////var/lib/settings.db"),
        ("postgresql+psycopg://app:hunter2@db:5433/app?sslpassword=hunter3", "postgresql://db:5433/app"),
        ("postgresql://app:hunter2@/app?host=/run/pg", "postgresql:///run/pg/app"),
        ("postgres://app:hunter2@db/app", "postgresql://db/app"),
    ],
)
def test_its_name_is_the_address_without_credentials(url, name):
    store = open_store(url)
    assert isinstance(store, SQLStore)
    assert store.name == name
    assert "hunter" not in repr(store)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite+aiosqlite:////tmp/x.db", "plain driver"),
        ("nowhere://app:hunter2@db/app", "no dialect"),
        ("hunter2", "none that SQLAlchemy can read"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused_when_the_store_is_made(url, said):
    with pytest.raises(SettingsError, match=said) as caught:
        SQLStore.from_url(url)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("options", [{"table_prefix": "a; drop"}, {"timeout_s": 0.0}, {"timeout_s": float("nan")}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(SettingsError, match=r"not .*"):
        SQLStore("sqlite:////tmp/x.db", **options)


# --- SQLite -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "settings.db"


@pytest.fixture
def store(path):
    return SQLStore(f"sqlite:///{path}")


def test_reading_never_creates_the_file_and_writing_creates_it_for_this_user_alone(store, path):
    with pytest.raises(NothingStoredError, match="there is no file"):
        store.load(None)
    assert not path.exists()
    put(store)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with closing(sqlite3.connect(path)) as looked_at:
        assert looked_at.execute("pragma journal_mode").fetchone() == ("wal",)


def test_a_file_without_tables_says_so_and_tables_without_settings_are_an_empty_document(store, path):
    path.touch()
    with pytest.raises(NothingStoredError, match="there is no table groundfault_version"):
        store.load(None)
    store.create_tables()
    store.create_tables()
    assert store.load(None) == Document(NOTHING_YET)


def test_without_create_nothing_is_created(path):
    store = SQLStore(f"sqlite:///{path}", create=False)
    with pytest.raises(NothingStoredError):
        put(store)
    assert not path.exists()


def test_a_directory_that_is_missing_is_named(tmp_path):
    store = SQLStore(f"sqlite:///{tmp_path}/missing/settings.db")
    with pytest.raises(StoreError, match=f"there is no directory {tmp_path}/missing; create it first"):
        put(store)


def test_a_relative_path_is_that_of_where_the_store_was_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = SQLStore("sqlite:///settings.db")
    monkeypatch.chdir("/")
    put(store)
    assert (tmp_path / "settings.db").exists()


def test_a_file_that_was_replaced_is_seen(store, path, tmp_path):
    version = put(store)
    assert store.load(version) is None
    other = SQLStore(f"sqlite:///{tmp_path}/other.db")
    newer = put(other, 0.7)
    (tmp_path / "other.db").replace(path)
    assert store.load(version).version == newer


def test_a_writer_does_not_keep_readers_waiting_and_a_second_writer_not_for_ever(path):
    store = SQLStore(f"sqlite:///{path}", timeout_s=0.2)
    version = put(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        assert store.load(version) is None
        with pytest.raises(StoreError, match="database is locked; nothing was written"):
            put(store, 0.6, version)


def test_an_engine_of_the_applications_own_is_used_and_left_alone(path):
    engine = create_engine(f"sqlite:///{path}")
    store = SQLStore(engine, table_prefix="live_")
    version = put(store)
    store.close()
    assert store.load(version) is None
    assert store.name == f"sqlite:///{path}"
    engine.dispose()


def test_an_engine_of_coroutines_is_refused(path):
    with pytest.raises(SettingsError, match="plain driver"):
        SQLStore(create_async_engine(f"sqlite+aiosqlite:///{path}").sync_engine)


POISONED = {
    "not JSON": ("update {}entries set value = '0.5s'", "value at .*timeout_s: it is not JSON"),
    "NaN": ("update {}entries set value = 'NaN'", "it holds NaN"),
    "infinite": ("update {}entries set value = '-1e999'", "-1e999, which is too large for a float"),
    "null": ("update {}entries set value = 'null'", "timeout_s' is null"),
    "endless number": ("update {}entries set value = printf('%.*c', 5000, '9')", "Exceeds the limit"),
    "nested": ("update {}entries set value = printf('%.*c', 60000, '[')", "is nested too deeply"),
    "a table": ("update {}entries set value = '{{\"a\": 1}}'", "is a table"),
    "a number's type": ("update {}entries set value = x'00ff'", "is no text but bytes"),
    "huge": ("update {}entries set value = printf('%.*c', 9000000, '9')", "9000010 characters"),
    "no text": ("update {}entries set scope = x'c3'", "scope must be printable text"),
    "expiry": ("update {}entries set expires_at = 'soon'", "expires_at of .*'soon'"),
    "expiry infinite": ("update {}entries set expires_at = 9e999", "expires_at of .*inf"),
    "too many": (
        """insert into {0}entries with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000)
        select 's' || i, 'n', '1', null, null from n""",
        "2001 settings",
    ),
    "no scope": (
        """create table spoiled as select null as scope, name, value, expires_at, then_value from {0}entries;
        drop table {0}entries; alter table spoiled rename to {0}entries""",
        "scope must be printable text .* not None",
    ),
}


@pytest.mark.parametrize(("statements", "said"), POISONED.values(), ids=POISONED)
def test_rows_that_make_no_sense_are_named_and_their_version_is_rejected_once(store, path, statements, said):
    version = put(store)
    with closing(sqlite3.connect(path)) as spoiling:
        spoiling.executescript(statements.format("groundfault_"))
    with pytest.raises(MalformedError, match=f"^settings of sqlite.*table groundfault_entries: .*{said}") as caught:
        store.load(None)
    assert caught.value.version == version
    assert len(str(caught.value)) < 600
    assert store.load(version) is None
    with pytest.raises(ConflictError):
        put(store, 0.6, "1-another")
    repaired = put(store, 0.6, version)  # by who has seen it: what was there before can be rolled back to
    assert [entry.value for entry in store.load(None).entries] == [0.6]
    assert [revision.version for revision in store.history()] == [repaired, version]


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        ("delete from groundfault_version", "the row with id 1 is gone"),
        ("update groundfault_version set version = ''", "version must be printable text"),
        ("update groundfault_version set version = x'ff'", "version must be printable text"),
        ("update groundfault_version set version = printf('%.*c', 9000, 'v')", "version must be printable text"),
        ("drop table groundfault_entries", "no such table: groundfault_entries"),
        ("alter table groundfault_entries rename column value to worth", "no such column"),
        ("update groundfault_entries set value = cast(x'ff' as text)", "Could not decode to UTF-8"),
    ],
)
def test_what_cannot_be_read_at_all_is_an_error_that_names_it(store, path, statements, said):
    put(store)
    with closing(sqlite3.connect(path)) as spoiling:
        spoiling.executescript(statements)
    with pytest.raises(StoreError, match=f"^settings of sqlite.*{said}") as caught:
        store.load(None)
    assert not isinstance(caught.value, MalformedError | NothingStoredError)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("changes", "'{}'", "in pairs"), ("changes", "'x'", "not JSON"), ("at", "'noon'", "a time, who and why")],
)
def test_a_history_that_makes_no_sense_is_an_error(store, path, column, value, said):
    version = put(store)
    with closing(sqlite3.connect(path)) as spoiling:
        spoiling.executescript(f"update groundfault_revisions set {column} = {value}, document = '[]'")  # noqa: S608  both from the table above
    with pytest.raises(StoreError, match=f"table groundfault_revisions: .*{said}"):
        store.history()
    with pytest.raises(
        StoreError, match=f"table groundfault_revisions, version {version}: .*must be a table of scopes"
    ):
        store.at(version)


def test_a_file_that_is_no_database_is_an_error(store, path):
    path.write_bytes(b"\x7fELF" * 5000)
    with pytest.raises(StoreError, match="file is not a database"):
        store.load(None)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture
def fleet(postgres):
    """Return a store in PostgreSQL, with one setting in it."""
    store = SQLStore(postgres.url, table_prefix=f"sql_{next(_numbers)}_", timeout_s=1.0)
    store.first = put(store)
    yield store
    store.close()


@contextmanager
def after(seconds, act):
    timer = threading.Timer(seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.join(BOUND_S)


def seconds_of(act):
    started = monotonic()
    act()
    return monotonic() - started


@pytest.mark.e2e
def test_a_change_wakes_who_waits_and_a_lost_word_does_not_disturb(fleet, postgres):
    assert fleet.load(fleet.first) is None
    assert seconds_of(lambda: fleet.wait(BOUND_S)) < BOUND_S / 2, "listening begins, and then it is looked again"
    writer = SQLStore(postgres.url, table_prefix=fleet._tables.channel.removesuffix("changed"))
    with after(0.2, lambda: put(writer, 0.6, fleet.first)):
        assert 0.1 < seconds_of(lambda: fleet.wait(BOUND_S)) < BOUND_S / 2
    writer.close()
    assert fleet.load(fleet.first) is not None
    assert seconds_of(lambda: fleet.wait(0.2)) >= 0.2

    with psycopg.connect(postgres.conninfo, autocommit=True) as admin:
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen %'")
    assert seconds_of(lambda: fleet.wait(0.2)) >= 0.19
    assert seconds_of(lambda: fleet.wait(0.2)) >= 0.19, "it is not tried again at once"
    fleet._listener[1]._again_at = 0.0
    assert fleet.load(None) is not None
    assert seconds_of(lambda: fleet.wait(BOUND_S)) < BOUND_S / 2, "it listens again"


def processes_of(server):
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return [server.pid, *map(int, children)]


@pytest.mark.e2e
def test_a_server_that_stands_still_is_waited_for_a_limited_time_and_found_again(fleet, postgres):
    assert fleet.load(fleet.first) is None
    fleet.wait(0.0)
    stopped = processes_of(postgres.process)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        for said in ("no answer in time", "timeout"):  # on the connection there is, and on a new one
            with pytest.raises(StoreError, match=said):
                assert seconds_of(lambda: fleet.load(fleet.first)) < BOUND_S / 2
        assert seconds_of(lambda: fleet.wait(0.1)) < BOUND_S / 2
    finally:
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)
    assert fleet.load(fleet.first) is None


@pytest.mark.e2e
def test_a_server_that_was_killed_is_unreachable_until_it_is_back(fleet, postgres):
    assert fleet.load(fleet.first) is None
    postgres.stop(signal.SIGQUIT)
    for _ in range(2):
        with pytest.raises(StoreError, match=f"^settings of {fleet.name}: .*"):
            fleet.load(fleet.first)
    with pytest.raises(StoreError, match="nothing was written"):
        put(fleet, 0.6, fleet.first)
    postgres.start()
    assert fleet.load(fleet.first) is None


@pytest.mark.e2e
def test_a_table_that_somebody_has_locked_holds_neither_us_nor_the_servers_processes(fleet, postgres):
    table = f"{fleet._tables.version.name}"
    with psycopg.connect(postgres.conninfo) as admin:
        admin.execute(f"lock table {table} in access exclusive mode")
        with pytest.raises(StoreError, match=r"statement timeout|no answer in time"):
            fleet.load(fleet.first)
        admin.rollback()
        time.sleep(0.1)
        waiting = admin.execute("select count(*) from pg_stat_activity where wait_event_type = 'Lock'").fetchone()
        assert waiting == (0,)
    assert fleet.load(fleet.first) is None


@pytest.mark.e2e
def test_a_wrong_password_is_said_without_it(postgres):
    with psycopg.connect(postgres.conninfo, autocommit=True) as admin:
        admin.execute("drop role if exists guarded")
        admin.execute("create role guarded login password 'right-0ne'")
        (rules,) = admin.execute("show hba_file").fetchone()
        before = Path(rules).read_text()
        Path(rules).write_text("local all guarded scram-sha-256\n" + before)
        admin.execute("select pg_reload_conf()")
        try:
            store = SQLStore(postgres.url.replace("postgres@", "guarded:hunter2@"))
            for _ in range(100):  # the reload takes a moment
                with pytest.raises(StoreError) as caught:
                    store.load(None)
                if "authentication failed" in str(caught.value):
                    break
                time.sleep(0.05)
            assert 'password authentication failed for user "guarded"' in str(caught.value)
            assert "hunter2" not in str(caught.value)
            assert caught.value.__cause__ is None
        finally:
            Path(rules).write_text(before)
            admin.execute("select pg_reload_conf()")


AUDIT = """
select actor, pair->0->2, pair->1->2 from {}revisions, jsonb_array_elements(changes::jsonb) as pair
 where coalesce(pair->1->>0, pair->0->>0) = '*' and coalesce(pair->1->>1, pair->0->>1) = 'timeout_s'
 order by number desc
"""


@pytest.mark.e2e
def test_the_rights_that_the_documentation_names_suffice_and_so_does_its_query(postgres):
    prefix = f"rights_{next(_numbers)}_"

    def of(role):
        return SQLStore(postgres.url.replace("postgres@", f"{role}@"), table_prefix=prefix)

    owner = of("postgres")
    owner.create_tables()
    with psycopg.connect(postgres.conninfo, autocommit=True) as admin:
        for role, rights in {
            "settings_reader": {"version": "select", "entries": "select"},
            "settings_writer": {
                "version": "select, update",
                "entries": "select, insert, delete",
                "revisions": "select, insert",
            },
        }.items():
            admin.execute(f"drop role if exists {role}")
            admin.execute(f"create role {role} login")
            for table, granted in rights.items():
                admin.execute(f"grant {granted} on {prefix}{table} to {role}")
        reader, writer = of("settings_reader"), of("settings_writer")
        first = put(writer)
        second = put(writer, 0.8, first)
        assert reader.load(None).version == second
        assert seconds_of(lambda: reader.wait(BOUND_S)) < BOUND_S / 2
        with pytest.raises(StoreError, match="permission denied"):
            put(reader, 0.6, second)
        with pytest.raises(StoreError, match="permission denied"):
            reader.history()
        assert writer.at(first).entries[0].value == 0.5
        assert admin.execute(AUDIT.format(prefix)).fetchall() == [("gronk", 0.5, 0.8), ("gronk", None, 0.5)]
        for store in (owner, reader, writer):
            store.close()
        admin.execute("drop owned by settings_reader, settings_writer")
