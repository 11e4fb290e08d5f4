"""psycopg, for threads and for asyncio: ``DATABASE=postgresql://localhost/postgres python examples/psycopg_client.py``.

A call takes its place before it takes a connection, so that five slow reports never empty the pool,
and its statements are bounded by the server itself. ``connections`` is whatever gives one for a ``with`` statement:
``psycopg_pool.ConnectionPool(...).connection``, or as here ``psycopg.connect``.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import psycopg

from groundfault import Attempt, Command, CommandTimeoutError, GroundFaultError, Outcome, RejectedError, Resource

SEASON_TOTALS = Resource("contest-db").command("season_totals", timeout_s=2.0, max_concurrent=5)

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]

_BOUND = "select set_config('statement_timeout', %s, true)"  # until the transaction ends

# The rest of what has a SQLSTATE was answered by a database that works: constraints, mistakes, deadlocks.
_FAILURES = ("08", "28", "53", "57", "58", "XX")


def outcome_of(error: BaseException) -> Outcome:
    """Say what an error means for the database."""
    if isinstance(error, psycopg.errors.QueryCanceled):
        return Outcome.TIMEOUT
    if isinstance(error, psycopg.Error):
        if error.sqlstate is not None:
            return Outcome.FAILURE if error.sqlstate.startswith(_FAILURES) else Outcome.SUCCESS
        return Outcome.FAILURE if isinstance(error, psycopg.OperationalError) else Outcome.SUCCESS
    return Outcome.IGNORED  # the application's own


def _settle(attempt: Attempt, error: BaseException) -> None:
    if isinstance(error, psycopg.Error) or (isinstance(error, Exception) and not isinstance(error, GroundFaultError)):
        attempt.settle(outcome_of(error), carrier=error)


def _milliseconds(attempt: Attempt) -> str:
    return str(max(1, int((attempt.timeout_s or 0.0) * 1000))) if attempt.timeout_s is not None else "0"


@contextmanager
def guarded(command: Command, connections: Callable[[], AbstractContextManager[Connection]]) -> Iterator[Connection]:
    """Give a connection with an open transaction whose statements may take as long as the command's timeout.

    Raises RejectedError before any connection is taken.
    """
    with command.attempt() as attempt:
        try:
            with connections() as connection:
                connection.execute(_BOUND, (_milliseconds(attempt),))
                yield connection
        except BaseException as error:
            _settle(attempt, error)
            raise


@asynccontextmanager
async def aguarded(
    command: Command, connections: Callable[[], AbstractAsyncContextManager[AsyncConnection]]
) -> AsyncIterator[AsyncConnection]:
    """Do as :func:`guarded`; here the timeout covers taking the connection, too."""
    with command.attempt() as attempt:
        scope = asyncio.timeout(attempt.timeout_s)
        try:
            async with scope, connections() as connection:
                await connection.execute(_BOUND, (_milliseconds(attempt),))
                yield connection
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise CommandTimeoutError(command.resource, command.name, attempt.timeout_s or 0.0) from error
        except BaseException as error:
            _settle(attempt, error)
            raise


@asynccontextmanager
async def aconnect(conninfo: str) -> AsyncIterator[AsyncConnection]:
    """Give a connection of its own; a pool's ``connection`` stands here in earnest."""
    async with await psycopg.AsyncConnection.connect(conninfo) as connection:
        yield connection


async def main(conninfo: str) -> None:
    """Use both."""
    query = "select sum(n) from generate_series(1, 100) as n"
    try:
        with guarded(SEASON_TOTALS, partial(psycopg.connect, conninfo)) as connection:
            print("totals:", connection.execute(query).fetchone())  # noqa: T201  a script that shows something
        async with aguarded(SEASON_TOTALS, partial(aconnect, conninfo)) as other:
            cursor = await other.execute(query)
            print("totals:", await cursor.fetchone())  # noqa: T201  as above
    except (RejectedError, psycopg.OperationalError) as error:
        print("no totals:", type(error).__name__)  # noqa: T201  as above


if __name__ == "__main__":
    asyncio.run(main(os.environ.get("DATABASE", "postgresql://localhost/postgres")))
