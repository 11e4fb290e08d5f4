"""saber: the end of the chain, and what it can do is the limit. Plain WSGI on gunicorn, one process of five threads.

``/entrants/{n}`` runs a query on an SQLite database behind two connections. Each query waits a tenth of a second,
as one to a database elsewhere would, so about twenty a second is all there is.
"""

import json
import queue
import random
import sqlite3
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

from groundfault.breaker import Resource
from groundfault.lab.chain import StripFromWSGI
from groundfault.lab.parts import CONNECTIONS, ROUND_TRIP_S, SABER_THREADS, Part
from groundfault.shedding.wsgi import WSGILoadShedder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Database", "create"]

QUERY_TIMEOUT_S = 0.8
"""How long the contest database may take, the wait for a connection included."""

_CONTESTS = 500
_ENTRANTS = 20

_QUERY = """
SELECT name, score FROM entrants
WHERE contest = ? AND (SELECT round_trip(?)) = 1
ORDER BY score DESC LIMIT 10
"""


class Database:
    """An SQLite file behind a fixed number of connections; who finds none free waits for one."""

    def __init__(self, path: Path) -> None:
        self._free: queue.Queue[sqlite3.Connection] = queue.Queue()
        for _ in range(CONNECTIONS):
            connection = sqlite3.connect(path, check_same_thread=False)  # one thread at a time: whoever took it out
            connection.create_function("round_trip", 1, _round_trip)
            self._free.put(connection)
        self._seed()

    def entrants(self, contest: int) -> list[dict[str, Any]]:
        """Return a contest's best ten."""
        connection = self._free.get()
        try:
            rows = connection.execute(_QUERY, (contest, ROUND_TRIP_S)).fetchall()
        finally:
            self._free.put(connection)
        return [{"name": name, "score": score} for name, score in rows]

    def close(self) -> None:
        """Close the connections. Nobody may have one out."""
        for _ in range(CONNECTIONS):
            self._free.get().close()

    def _seed(self) -> None:
        dice = random.Random(0)
        rows = [
            (contest, f"entrant-{number}", round(dice.gauss(100, 25), 2))
            for contest in range(1, _CONTESTS + 1)
            for number in range(_ENTRANTS)
        ]
        connection = self._free.get()
        with connection:
            connection.execute("CREATE TABLE IF NOT EXISTS entrants (contest INTEGER, name TEXT, score REAL)")
            connection.execute("DELETE FROM entrants")
            connection.executemany("INSERT INTO entrants VALUES (?, ?, ?)", rows)
            connection.execute("CREATE INDEX IF NOT EXISTS by_contest ON entrants (contest)")
        self._free.put(connection)


def _round_trip(seconds: float) -> int:
    sleep(seconds)
    return 1


def create() -> "WSGIApplication":
    """Build the application. gunicorn calls this in the worker."""
    part = Part.from_environment()
    part.report()
    database = Database(Path(part.directory) / "contests.sqlite3")
    entrants: Callable[[int], Any] = database.entrants
    if part.protected:
        command = Resource("contest-db").command("entrants", timeout_s=QUERY_TIMEOUT_S, max_concurrent=SABER_THREADS)
        entrants = command(database.entrants)

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> "Iterable[bytes]":
        status, body = "200 OK", {}
        match environ["PATH_INFO"].split("/")[1:]:
            case ["entrants", contest] if contest.isdigit():
                body = {"entrants": entrants(int(contest))}
            case ["healthz"]:
                body = {"service": part.service, "token": part.token}
            case _:
                status, body = "404 Not Found", {"error": "no such page"}
        payload = json.dumps(body).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(payload)))])
        return [payload]

    if not part.protected:
        return app
    shedder = WSGILoadShedder(app, service=part.service)
    return shedder if part.annotated else StripFromWSGI(shedder)
