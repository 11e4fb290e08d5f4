"""The three tables of a SQL store, and how they come to be.

``version`` has one row; each change sets it, and whoever polls reads nothing else.
``entries`` has a row for each setting. ``revisions`` has a row for each change, with the whole document after it,
so that any version can be had again even if somebody has edited ``entries`` by hand.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    Double,
    Engine,
    Executable,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    func,
    insert,
    select,
    true,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

from groundfault.settings.document import MAX_BYTES, MAX_KEYS
from groundfault.settings.store import NOTHING_YET

__all__ = ["Tables", "create_file"]

_ONLY: Final = 1  # the id of the one row
_CREATING: Final = 0x67665F73  # PostgreSQL's advisory lock for those who create the tables at the same time


class Tables:
    """The tables under one prefix, and what is asked of them."""

    def __init__(self, prefix: str) -> None:
        metadata = MetaData()
        self.version = Table(
            f"{prefix}version",
            metadata,
            Column("id", Integer, CheckConstraint(f"id = {_ONLY}"), primary_key=True, autoincrement=False),
            Column("number", BigInteger, nullable=False),
            Column("version", String(64), nullable=False),
        )
        self.entries = Table(
            f"{prefix}entries",
            metadata,
            Column("scope", String(255), primary_key=True),
            Column("name", String(255), primary_key=True),
            Column("value", Text, nullable=False),
            Column("expires_at", Double),
        )
        self.revisions = Table(
            f"{prefix}revisions",
            metadata,
            Column("number", BigInteger, primary_key=True, autoincrement=False),
            Column("version", String(64), nullable=False, unique=True),
            Column("at", Double, nullable=False),
            Column("actor", Text, nullable=False),
            Column("reason", Text, nullable=False),
            Column("changes", Text, nullable=False),
            Column("document", Text, nullable=False),
        )
        self.channel: Final = f"{prefix}changed"
        self.the_row: Final[ColumnElement[bool]] = self.version.c.id == _ONLY

    def which_version(self) -> Executable:
        """Ask for the version alone."""
        return select(self.version.c.version).where(self.the_row)

    def how_much(self) -> Executable:
        """Ask how many settings there are, and how many characters, before any of them is fetched."""
        columns = self.entries.c
        lengths = [func.coalesce(func.length(column), 0) for column in (columns.scope, columns.name, columns.value)]
        return select(func.count(), func.coalesce(func.sum(lengths[0] + lengths[1] + lengths[2]), 0)).select_from(
            self.entries
        )

    def whole_document(self) -> Executable:
        """Ask for the version and every setting in one statement, which no change can come between anywhere.

        Where there is no setting, there is one row with the version and nulls.
        """
        columns = self.entries.c
        return (
            select(
                self.version.c.version,
                columns.scope,
                columns.name,
                func.substr(columns.value, 1, MAX_BYTES + 1),
                columns.expires_at,
            )
            .select_from(self.version.outerjoin(self.entries, true()))
            .where(self.the_row)
            .order_by(columns.scope, columns.name)
            .limit(MAX_KEYS + 1)
        )

    def create(self, engine: Engine) -> None:
        """Create what is missing. Any number of processes may do so at once."""
        if engine.dialect.name == "sqlite":
            with engine.connect() as connection:  # outside of any transaction; the file remembers it
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_CREATING)))
            for table in (self.version, self.entries, self.revisions):
                connection.execute(CreateTable(table, if_not_exists=True))
        with suppress(IntegrityError), engine.begin() as connection:  # it: somebody else was faster
            if connection.execute(self.which_version()).first() is None:
                connection.execute(insert(self.version).values(id=_ONLY, number=0, version=NOTHING_YET))


def create_file(name: str) -> None:
    """Create SQLite's file, for this user alone: settings may say more than everybody should read.

    Raises ValueError where its directory is missing, OSError.
    """
    path = Path(name)
    if not path.parent.is_dir():
        raise ValueError(f"there is no directory {path.parent}; create it first")
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
