"""What the hub keeps: episodes, and a row of headline numbers for each service each ten seconds.

Two tables, and one that says by which release's layout they were made. Statements are written in SQLAlchemy's own
words, so SQLite and PostgreSQL do alike. Every method may wait for the database, for a limited time, and raises
StoreError; see :mod:`groundfault.console.hub.keeping` for who calls them.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypedDict, TypeVar, cast

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
)
from sqlalchemy.schema import CreateIndex, CreateTable, Index

from groundfault.console.view import Episode
from groundfault.integrations._sql_database import Database
from groundfault.integrations._sql_tables import create_file
from groundfault.settings.store import StoreError

T = TypeVar("T")

__all__ = ["GRID_S", "MAX_POINTS", "SCHEMA", "History", "LaterSchemaError", "Point", "Span"]

SCHEMA: Final = 1
"""The layout of the tables. A database of a later one is left alone."""

GRID_S: Final = 10
MAX_POINTS: Final = 5000
MAX_EPISODES: Final = 1000
_PATIENCE_S: Final = 5.0
_LOCK_S: Final = 2.0
_AT_ONCE: Final = 200  # SQLite takes so many parameters in any of its releases
_CREATING: Final = 0x67665F68  # PostgreSQL's advisory lock for those who create the tables at the same time

_metadata: Final = MetaData()
_schema: Final = Table(
    "groundfault_hub_schema",
    _metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)
_episodes: Final = Table(
    "groundfault_hub_episodes",
    _metadata,
    Column("id", String(600), primary_key=True),
    Column("began_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("known_at", Double, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("level", String(10), nullable=False),
    Column("service", String(200)),
    Column("subject", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("rest", Text, nullable=False),
    Index("groundfault_hub_episodes_began", "began_at"),
)
_points: Final = Table(
    "groundfault_hub_points",
    _metadata,
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("service", String(200), primary_key=True),
    Column("rate_per_s", Double, nullable=False),
    Column("goodput_per_s", Double, nullable=False),
    Column("shed_share", Double, nullable=False),
    Column("wait_p99_s", Double),
    Column("open_circuits", Integer, nullable=False),
)


class Point(TypedDict):
    """One service over ten seconds. ``at``: seconds since the epoch, a multiple of :data:`GRID_S`."""

    at: int
    service: str
    rate_per_s: float
    goodput_per_s: float
    shed_share: float
    wait_p99_s: float | None
    open_circuits: int


class Span(NamedTuple):
    """What is asked for. ``from_s`` and ``to_s``: seconds since the epoch; ``service``: None for all."""

    from_s: float
    to_s: float
    service: str | None = None


class LaterSchemaError(StoreError):
    """The tables were made by a later release. They are not touched."""


class History:
    """The tables in one database. Raises SettingsError for a URL that makes no sense."""

    def __init__(self, url: str) -> None:
        self._database = Database(url, table=_schema.name, timeout_s=_LOCK_S, what="history")

    @property
    def name(self) -> str:
        """The database's address, without user, password and options."""
        return self._database.name

    def open(self) -> None:
        """Create SQLite's file and the tables, as far as they are missing. Raises LaterSchemaError, StoreError."""
        with self._database.errors(_PATIENCE_S):
            if self._database.file is not None:
                create_file(self._database.file)
                with self._database.engine().connect() as connection:  # outside of any transaction; the file keeps it
                    connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        with self._database.begin(_PATIENCE_S) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_CREATING)))
            connection.execute(CreateTable(_schema, if_not_exists=True))
            found = connection.execute(select(_schema.c.version)).scalar()
            if found is not None and found > SCHEMA:
                raise LaterSchemaError(
                    f"the tables in {self.name} are those of a later release: schema {found}, not {SCHEMA}"
                )
            for table in (_episodes, _points):
                connection.execute(CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    connection.execute(CreateIndex(index, if_not_exists=True))
            if found is None:
                connection.execute(insert(_schema).values(id=1, version=SCHEMA))

    def write(self, points: Sequence[Point], episodes: Sequence[Episode], now: float) -> None:
        """Keep these, in place of what was kept under the same names. ``now``: seconds since the epoch."""
        rows = [_row(episode, now) for episode in episodes]
        with self._database.begin(_PATIENCE_S) as connection:
            for some in _portions(points):
                same = [and_(_points.c.at == each["at"], _points.c.service == each["service"]) for each in some]
                connection.execute(delete(_points).where(or_(*same)))
                connection.execute(insert(_points), cast("list[dict[str, Any]]", some))
            for part in _portions(rows):
                connection.execute(delete(_episodes).where(_episodes.c.id.in_([each["id"] for each in part])))
                connection.execute(insert(_episodes), part)

    def forget(self, before: float) -> None:
        """Take away what is older. ``before``: seconds since the epoch."""
        with self._database.begin(_PATIENCE_S) as connection:
            connection.execute(delete(_points).where(_points.c.at < int(before)))
            connection.execute(delete(_episodes).where(_episodes.c.known_at < before))

    def episodes(self, span: Span, most: int = MAX_EPISODES) -> list[Episode]:
        """Return the episodes that have to do with that time, the newest first.

        One that was never seen to end ended no sooner than it was last seen.
        """
        query = (
            select(_episodes)
            .where(_episodes.c.began_at <= span.to_s, _episodes.c.known_at >= span.from_s)
            .order_by(_episodes.c.began_at.desc())
            .limit(most)
        )
        if span.service is not None:
            query = query.where(_episodes.c.service == span.service)
        with self._database.begin(_PATIENCE_S) as connection:
            return [_episode(row) for row in connection.execute(query).mappings()]

    def points(self, span: Span) -> tuple[int, list[Point]]:
        """Return how many seconds each point stands for, and the points: means, the largest of waits and circuits."""
        columns = _points.c
        inside = and_(columns.at >= span.from_s, columns.at <= span.to_s)
        if span.service is not None:
            inside = and_(inside, columns.service == span.service)
        with self._database.begin(_PATIENCE_S) as connection:
            first, last, services = connection.execute(
                select(func.min(columns.at), func.max(columns.at), func.count(columns.service.distinct())).where(inside)
            ).one()
            if not services:
                return GRID_S, []
            slots = max(1, MAX_POINTS // services - 2)  # they begin on a grid: at both ends there may be part of one
            width_s = GRID_S * max(1, -(-(last - first) // (GRID_S * slots)))
            slot = columns.at // width_s
            query = (
                select(
                    (slot * width_s).label("at"),
                    columns.service,
                    func.avg(columns.rate_per_s).label("rate_per_s"),
                    func.avg(columns.goodput_per_s).label("goodput_per_s"),
                    func.avg(columns.shed_share).label("shed_share"),
                    func.max(columns.wait_p99_s).label("wait_p99_s"),
                    func.max(columns.open_circuits).label("open_circuits"),
                )
                .where(inside)
                .group_by(slot, columns.service)
                .order_by(slot, columns.service)
                .limit(MAX_POINTS)
            )
            return width_s, [cast("Point", dict(row)) for row in connection.execute(query).mappings()]

    def close(self) -> None:
        """Let go of connections."""
        self._database.close()


_COLUMNS: Final = ("id", "kind", "level", "service", "subject", "what", "began_at", "ended_at")


def _row(episode: Episode, now: float) -> dict[str, Any]:
    said = cast("dict[str, Any]", episode)
    ended_at = episode["ended_at"]
    row = {name: said[name] for name in _COLUMNS}
    rest = {name: value for name, value in said.items() if name not in _COLUMNS}
    return {**row, "known_at": now if ended_at is None else ended_at, "rest": json.dumps(rest)}


def _episode(row: Any) -> Episode:
    said = {name: row[name] for name in _COLUMNS}
    try:
        said |= json.loads(row["rest"])
    except ValueError:  # somebody has edited it by hand
        said["numbers"] = {}
    if said["ended_at"] is None:
        said["ended_at"] = row["known_at"]
        said["what"] += "; when it ended is not known"
    return cast("Episode", said)


def _portions(rows: Sequence[T]) -> Iterable[list[T]]:
    return (list(rows[start : start + _AT_ONCE]) for start in range(0, len(rows), _AT_ONCE))
