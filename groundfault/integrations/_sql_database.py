"""The database of a SQL store: opened when it is used, by the process that uses it, and waited for a limited time.

Whatever goes wrong leaves here as a StoreError that names the database and holds no credentials.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy import inspect as look_at
from sqlalchemy.engine import URL, Dialect, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from groundfault.errors import SettingsError
from groundfault.integrations._settings_forks import Undivided
from groundfault.integrations._settings_records import cause_of
from groundfault.settings.store import NothingStoredError, StoreError

if TYPE_CHECKING:
    from groundfault.integrations._sql_postgres import Listener

__all__ = ["Database"]


_inherited: list[object] = []
"""What a forked child has from its parent: kept and never touched, for its end would speak to the parent's server."""


class Database:
    """One database, by a URL or as an engine of the application's. ``table``: the one whose absence says that all are.

    ``what``: what is kept in it, for errors to say.
    Raises SettingsError for a URL that makes no sense.
    """

    def __init__(
        self, engine_or_url: Engine | URL | str, *, table: str, timeout_s: float, what: str = "settings"
    ) -> None:
        self._what = what
        self.own: Final = not isinstance(engine_or_url, Engine)
        if isinstance(engine_or_url, Engine):
            _must_be_plain(engine_or_url.dialect)
        self._engine = engine_or_url if isinstance(engine_or_url, Engine) else None
        self.url: Final = engine_or_url.url if isinstance(engine_or_url, Engine) else _url_of(engine_or_url)
        self.name: Final = _name_of(self.url)
        self._secrets = _secrets_of(self.url)
        self._table = table
        self._timeout_s = timeout_s
        self._pid: int | None = None
        self.patient: Final = self.own and self.url.drivername == "postgresql+psycopg"
        # By name, for psycopg need not be installed for others; and now, for the same reason as the engine below.
        self._postgres: Any = import_module("groundfault.integrations._sql_postgres") if self.patient else None
        self._undivided = Undivided() if self.url.get_backend_name() == "sqlite" else nullcontext
        # The file that is ours to make; whoever writes a file: URL knows what SQLite does with it.
        self.file: Final = (
            self.url.database or ""
            if self.own and self.url.get_backend_name() == "sqlite" and "uri" not in self.url.query
            else None
        )
        if self._engine is None:
            self._engine = self._made()  # now, for what this imports is not to be imported while the process forks

    # --- connections --------------------------------------------------------------------------------------------------

    def engine(self) -> Engine:
        """Return this process's engine."""
        pid = os.getpid()
        if self._pid not in {None, pid} and self._engine is not None:
            if self.own:
                _inherited.append(self._engine)
                self._engine = None
            else:
                _inherited.append(self._engine.pool)
                self._engine.dispose(close=False)
        self._pid = pid
        if self._engine is None:
            self._engine = self._made()
        return self._engine

    def _made(self) -> Engine:
        if self.file is not None:
            # A connection for each look, so that a file that was replaced is seen; and never one that creates it.
            return create_engine(
                self.url.set(database=f"file:{quote(self.file)}").update_query_dict({"mode": "rw", "uri": "true"}),
                poolclass=NullPool,
                connect_args={"timeout": self._timeout_s},
            )
        engine = create_engine(
            self.url,
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            pool_timeout=self._timeout_s,
            pool_pre_ping=True,  # it may have been idle for longer than some firewall remembers
        )
        if self.patient:
            event.listen(
                engine,
                "do_connect",
                lambda _dialect, _record, args, kwargs: self._postgres.PatientConnection.open(*args, **kwargs),
            )
        return engine

    @contextmanager
    def begin(self, seconds: float) -> Iterator[Connection]:
        """Lend a connection for one transaction, and turn whatever goes wrong into a StoreError."""
        with self.errors(seconds):
            if self.file is not None and not os.path.exists(self.file):  # noqa: PTH110  a path of SQLite's, not of ours
                raise self.nothing(f"there is no file {self.file}")
            with self.engine().begin() as connection:
                if self.patient:
                    # Or each look at a table that somebody has locked would hold one more of the server's processes.
                    connection.execute(text(f"set local statement_timeout = {max(1, int(seconds * 1000))}"))
                yield connection

    @contextmanager
    def errors(self, seconds: float) -> Iterator[None]:
        """Limit the time, and turn whatever goes wrong into a StoreError."""
        try:
            with self._undivided(), self._limit(seconds):
                yield
        except StoreError:
            raise
        except DBAPIError as error:
            asked = error.statement is not None and not error.connection_invalidated  # and got an answer
            if asked and self._is_empty(seconds):
                raise self.nothing(f"there is no table {self._table}") from None
            raise self.error(error.orig or error) from None
        except Exception as error:  # noqa: BLE001  a driver may raise anything, and its text is not to be trusted
            raise self.error(error) from None

    def _limit(self, seconds: float) -> AbstractContextManager[None]:
        return self._postgres.patience.within(seconds) if self.patient else nullcontext()

    def _is_empty(self, seconds: float) -> bool:
        try:
            with self._undivided(), self._limit(seconds):
                return not look_at(self.engine()).has_table(self._table)
        except Exception:  # noqa: BLE001  then something else is wrong with it, which is known already
            return False

    def listener(self, channel: str) -> "Listener":
        """Return what hears of changes, on one more connection, beside the engine's."""
        args, kwargs = self.engine().dialect.create_connect_args(self.url)
        made: Listener = self._postgres.Listener(
            lambda: self._postgres.PatientConnection.open(*args, **kwargs), channel
        )
        return made

    def close(self) -> None:
        """Let go of this process's connections; an engine of the application's is left as it is."""
        if self.own and self._engine is not None and self._pid == os.getpid():
            with suppress(Exception):  # they may be lost already
                self._engine.dispose()

    # --- errors -------------------------------------------------------------------------------------------------------

    def error(self, cause: object, kind: type[StoreError] = StoreError) -> StoreError:
        """Return the error that says so, without what may be secret."""
        return kind(f"{self._what} of {self.name}: {cause_of(cause, self._secrets)}")

    def nothing(self, cause: str) -> StoreError:
        """Return the error that says that nothing was ever stored, and what to do."""
        return self.error(
            f"{cause}; the first `groundfault settings set` creates it, and so does SQLStore(...).create_tables()",
            NothingStoredError,
        )


def _url_of(given: URL | str) -> URL:
    if isinstance(given, str) and given.startswith("postgres://"):
        given = given.replace("postgres://", "postgresql://", 1)
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):  # they quote it, and it may hold a password
        raise SettingsError("the settings store's URL is none that SQLAlchemy can read") from None
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        dialect = url.get_dialect()
    except ArgumentError as error:
        raise SettingsError(f"SQLAlchemy has no dialect {url.drivername} for the settings store: {error}") from None
    _must_be_plain(dialect)
    try:
        dialect.import_dbapi()
    except ImportError as error:
        raise ImportError(f"a settings store at {url.drivername}:// needs its driver: {error}") from error
    if url.get_backend_name() == "sqlite" and "uri" not in url.query:
        if not url.database or url.database == ":memory:":
            raise SettingsError("a SQLite settings store needs a file: sqlite:////var/lib/groundfault/settings.db")
        url = url.set(database=os.path.abspath(url.database))  # noqa: PTH100  a server may change its directory later
    return url


def _must_be_plain(dialect: Dialect | type[Dialect]) -> None:
    if dialect.is_async:
        raise SettingsError(
            f"a settings store is read on a thread and needs a plain driver, not {dialect.name}+{dialect.driver}"
        )


def _name_of(url: URL) -> str:
    """Return the address alone: the rest is the same for everybody, or secret."""
    host = url.host or url.query.get("host") or ""
    if isinstance(host, tuple):
        host = ",".join(host)
    port = f":{url.port}" if url.port else ""
    return f"{url.get_backend_name()}://{host}{port}/{url.database or ''}"


def _secrets_of(url: URL) -> list[str]:
    values = [value for name, value in url.query.items() if "pass" in name.lower()]
    values.append(str(url.password) if url.password is not None else "")
    return [value for value in values if isinstance(value, str) and value]
