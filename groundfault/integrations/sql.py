"""Live settings in a SQL database: one row says the version, one table holds the settings, one every change.

::

    store = SQLStore("postgresql+psycopg://app@db.internal/app")

SQLite for the processes of one host, PostgreSQL for a fleet. Other databases of SQLAlchemy's should do,
but only for these two the time is limited here.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

try:
    from sqlalchemy import Connection, delete, func, insert, select, update
    from sqlalchemy.engine import URL, Engine
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError(
        "groundfault.integrations.sql needs SQLAlchemy: pip install 'groundfault[sqlalchemy]'"
    ) from missing

from groundfault._clock import Clock, wall
from groundfault.errors import SettingsError
from groundfault.integrations import _settings_records as records
from groundfault.integrations._sql_database import Database
from groundfault.integrations._sql_tables import Tables, create_file
from groundfault.settings.document import MAX_BYTES, MAX_KEYS
from groundfault.settings.store import (
    NOTHING_YET,
    Change,
    ConflictError,
    Document,
    Entry,
    MalformedError,
    NothingStoredError,
    Revision,
    StoreError,
)

if TYPE_CHECKING:
    from groundfault.integrations._sql_postgres import Listener

__all__ = ["SQLStore"]

_PREFIX: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}", re.ASCII)
_CHEAP_S: Final = 2.0
_DEAR_S: Final = 10.0
_WRITE_S: Final = 10.0  # a person waits for it, and another writer may hold the row


class SQLStore:
    """Keeps live settings in three tables, whose names begin with ``table_prefix``.

    engine_or_url: a URL of SQLAlchemy's, which is the better way, or an engine of your own:
      then all limits on time are yours, and PostgreSQL is polled only. ``postgresql://`` means psycopg here.
    table_prefix: lower-case letters, digits and underscores, 40 at most. Default ``groundfault_``.
    create: whether the first :meth:`write` creates the tables, and SQLite's file. Default true.
    listen: whether PostgreSQL is to say when something has changed (LISTEN), on a second connection. Default true.
    timeout_s: how long :meth:`load` waits for PostgreSQL, and for a lock in SQLite. Default 2.0, at least 0.1.
    clock: returns seconds since 1970, for the history; for tests.

    Nothing is opened before it is used, and a forked child opens its own.
    ``longest_retry_s``: how long whoever follows the store may pause after a failure: 10.0, and 2.0 where there is no
    document yet or the store is a file, for then a look costs next to nothing.
    Raises :class:`~groundfault.errors.SettingsError` for arguments that make no sense.
    """

    def __init__(
        self,
        engine_or_url: Engine | URL | str,
        *,
        table_prefix: str = "groundfault_",
        create: bool = True,
        listen: bool = True,
        timeout_s: float = 2.0,
        clock: Clock = wall,
    ) -> None:
        if not _PREFIX.fullmatch(table_prefix):
            raise SettingsError(f"table_prefix must match {_PREFIX.pattern}, not {table_prefix!r}")
        if not timeout_s >= 0.1:  # noqa: PLR2004  said in the message; nan is not above it either
            raise SettingsError(f"timeout_s must be at least 0.1, not {timeout_s!r}")
        self._tables = Tables(table_prefix)
        self._database = Database(engine_or_url, table=self._tables.version.name, timeout_s=timeout_s)
        self._create = create
        self._listen = listen and self._database.patient
        self._timeout_s = timeout_s
        self._clock = clock
        self._listener: tuple[int, Listener] | None = None  # and the process whose it is
        self._reached = False
        self.longest_retry_s = _DEAR_S

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Return the store at a URL; ``options`` are the keywords of the class."""
        return cls(url, **options)

    @property
    def name(self) -> str:
        """The database's address, without user, password and options."""
        return self._database.name

    def __repr__(self) -> str:
        return f"SQLStore({self.name!r})"

    # --- reading ------------------------------------------------------------------------------------------------------

    def load(self, known: str | None) -> Document | None:
        """Return the document, or None if its version is still ``known``: then one row was read, and no more.

        Raises StoreError; NothingStoredError where there are no tables; MalformedError for rows that make no sense.
        """
        self._reached = False
        try:
            with self._database.begin(self._timeout_s) as connection:
                version = self._version_in(connection)
                document = None if version == known else self._document_in(connection, version)
        except StoreError as error:
            cheap = isinstance(error, NothingStoredError) or self._database.file is not None
            self.longest_retry_s = _CHEAP_S if cheap else _DEAR_S
            self._stop_listening()  # what cannot be read will not say that it has changed
            raise
        self._reached = True
        return document

    def wait(self, timeout_s: float) -> None:
        """Return when PostgreSQL says that something has changed, otherwise after ``timeout_s``."""
        if not (self._listen and self._reached):
            time.sleep(timeout_s)
            return
        if self._listener is None or self._listener[0] != os.getpid():
            self._listener = os.getpid(), self._database.listener(self._tables.channel)
        self._listener[1].wait(timeout_s)

    def close(self) -> None:
        """Let go of connections; an engine of your own is left as it is. A later :meth:`load` makes new ones."""
        self._stop_listening()
        self._database.close()

    def _stop_listening(self) -> None:
        if self._listener is not None and self._listener[0] == os.getpid():
            self._listener[1].close()

    def history(self, limit: int = 50) -> list[Revision]:
        """Return the last changes, the newest first. Raises StoreError."""
        columns = self._tables.revisions.c
        query = select(columns.version, columns.at, columns.actor, columns.reason, columns.changes)
        with self._database.begin(_WRITE_S) as connection:
            rows: Sequence[Any] = connection.execute(query.order_by(columns.number.desc()).limit(max(0, limit))).all()
            with self._wrong_in(self._tables.revisions.name):
                return [
                    records.revision_of(version, at, actor, reason, records.json_from(changes))
                    for version, at, actor, reason, changes in rows
                ]

    def at(self, version: str) -> Document:
        """Return the document as it was under a version. Raises StoreError, also for one that is not known."""
        columns = self._tables.revisions.c
        with self._database.begin(_WRITE_S) as connection:
            row = connection.execute(select(columns.document).where(columns.version == version)).first()
            if row is None and version != NOTHING_YET:
                raise self._database.error(f"version {version!r} is not known, or not any more")
            with self._wrong_in(f"{self._tables.revisions.name}, version {version}"):
                return Document(version, () if row is None else records.document_from_json(row[0]))

    # --- writing ------------------------------------------------------------------------------------------------------

    def create_tables(self) -> None:
        """Create SQLite's file and the tables, as far as they are missing. Raises StoreError."""
        with self._database.errors(_WRITE_S):
            if self._database.file is not None:
                create_file(self._database.file)
            self._tables.create(self._database.engine())

    def write(self, changes: Iterable[Change], *, reason: str, actor: str, based_on: str) -> str:
        """Apply all changes at once and return the new version, or ``based_on`` if nothing differs.

        Raises ConflictError if the version is not ``based_on`` any more, StoreError.
        """
        if self._create and based_on == NOTHING_YET:
            self.create_tables()
        fate = "nothing was written"
        try:
            with self._database.begin(_WRITE_S) as connection:
                version = self._write_in(connection, changes, reason, actor, based_on)
                fate = "whether it was written is not known: look at the history"  # committing begins
        except (ConflictError, NothingStoredError):
            raise
        except StoreError as error:
            raise StoreError(f"{error}; {fate}") from None
        return version

    def _write_in(
        self, connection: Connection, changes: Iterable[Change], reason: str, actor: str, based_on: str
    ) -> str:
        actor, reason = records.checked_text("actor", actor), records.checked_text("reason", reason)
        versions, the_row = self._tables.version, self._tables.the_row
        # The first statement decides who wins: it takes the row, or finds that it is at another version by now.
        taken = connection.execute(
            update(versions).where(the_row, versions.c.version == based_on).values(number=versions.c.number + 1)
        )
        if taken.rowcount != 1:
            raise self._database.error(
                f"they are at version {self._version_in(connection)}, and the change was based on {based_on}",
                ConflictError,
            )
        try:
            before = self._document_in(connection, based_on).entries
        except MalformedError:  # whoever was shown that begins anew
            connection.execute(delete(self._tables.entries))
            before = ()
        after, differences = records.changed(before, changes)
        if not differences:
            connection.rollback()
            return based_on
        document = records.document_to_json(after)
        for old, new in differences:
            self._replace(connection, old, new)
        number = connection.execute(select(versions.c.number).where(the_row)).scalar_one()
        version = records.new_version(number)
        connection.execute(update(versions).where(the_row).values(version=version))
        connection.execute(
            insert(self._tables.revisions).values(
                number=number,
                version=version,
                at=self._clock(),
                actor=actor,
                reason=reason,
                changes=records.value_to_json(records.pairs_of(differences)),
                document=document,
            )
        )
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_notify(self._tables.channel, version)))
        return version

    def _replace(self, connection: Connection, old: Entry | None, new: Entry | None) -> None:
        entries = self._tables.entries
        if old is not None:
            connection.execute(delete(entries).where(entries.c.scope == old.scope, entries.c.name == old.name))
        if new is not None:
            row = {"scope": new.scope, "name": new.name, "expires_at": new.expires_at}
            then = None if new.then is None else records.value_to_json(new.then)
            connection.execute(insert(entries).values(value=records.value_to_json(new.value), then_value=then, **row))

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _version_in(self, connection: Connection) -> str:
        row = connection.execute(self._tables.which_version()).first()
        with self._wrong_in(self._tables.version.name):
            if row is None:
                raise ValueError("the row with id 1 is gone; put it back, with a version that was never used before")
            return records.checked_version(row[0])

    def _document_in(self, connection: Connection, version: str) -> Document:
        """Return the document; ``version`` is the one seen before, by which one that makes no sense is known."""
        table = self._tables.entries.name
        count, characters = connection.execute(self._tables.how_much()).one()
        with self._wrong_in(table, version):
            if count > MAX_KEYS or characters > MAX_BYTES:
                raise ValueError(
                    f"{count} settings of {characters} characters; a document may hold {MAX_KEYS} of {MAX_BYTES} bytes"
                )
        rows: Sequence[Sequence[Any]] = connection.execute(self._tables.whole_document()).all()
        with self._wrong_in(self._tables.version.name):
            if not rows:
                raise ValueError("the row with id 1 went away while it was read")
            version = records.checked_version(rows[0][0])
        with self._wrong_in(table, version):
            if len(rows) == 1 and rows[0][1] is rows[0][2] is rows[0][3] is None:  # no settings
                return Document(version)
            entries = tuple(_entry_in(row) for row in rows)
            records.document_to_json(entries)  # for its limits
        return Document(version, entries)

    @contextmanager
    def _wrong_in(self, where: str, version: str | None = None) -> Iterator[None]:
        """Say where it is that something is wrong; with a version, it is this one that will stay wrong."""
        try:
            yield
        except ValueError as error:
            wrong = self._database.error(f"table {where}: {error}")
            raise (wrong if version is None else MalformedError(str(wrong), version)) from None


def _entry_in(row: Sequence[Any]) -> Entry:
    _, scope, name, value, expires_at, then = row
    entry = records.entry_of(scope, name, value, expires_at, then)
    try:
        after = None if then is None else records.value_from_json(then)
        return records.entry_of(scope, name, records.value_from_json(value), expires_at, after)
    except ValueError as error:
        raise ValueError(f"the value at {entry.scope}:{entry.name}: {error}") from None
