"""contests: a service in front of a database, where every thread can be lost to one query.

``/entrants/{n}`` runs the query that nobody bounded. ``/contest/{n}`` looks up one row. ``/lobby`` asks nobody.
Protected, each kind of query is a command: a limit, a timeout, a circuit, and for entrants, if the target says so,
the last answer as the fallback.
"""

from collections.abc import Callable
from time import sleep
from typing import TYPE_CHECKING, Any

import requests

from groundfault.breaker import Resource
from groundfault.lab.chain import POOL_SIZE, TimeoutAdapter
from groundfault.lab.targets.part import Part
from groundfault.lab.targets.serving import NoSuchPageError, application, guarded

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["create"]

DRIVER_TIMEOUT_S = 5.0
"""What a driver waits where nobody has said how long: the unprotected variant's only bound."""

LOBBY_S = 0.005
REMEMBERED = 1000


class _Answers:
    """The last answers by contest, for when the database gives none."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}

    def keep(self, contest: str, answer: Any) -> Any:
        if len(self._last) < REMEMBERED:
            self._last[contest] = answer
        return answer

    def last(self, contest: str) -> Any:
        """Return what was known of it last, or that nothing is."""
        return {"as_of": "before", "rows": self._last.get(contest, [])}


def create() -> "WSGIApplication":
    """Build the application. gunicorn calls this in the worker."""
    part = Part.from_environment()
    part.report()
    session = requests.Session()
    session.trust_env = False
    timeout_s = part.number("timeout_s") if part.protected else DRIVER_TIMEOUT_S
    session.mount("http://", TimeoutAdapter(timeout_s, pool_maxsize=POOL_SIZE))
    answers = _Answers()

    def query(kind: str, contest: str) -> Any:
        response = session.get(f"{part.url('contest-db')}/{kind}/{contest}")
        response.raise_for_status()
        return response.json()

    def entrants(contest: str) -> Any:
        return answers.keep(contest, query("entrants", contest))

    def one(contest: str) -> Any:
        return query("contest", contest)

    ask: dict[str, Callable[[str], Any]] = {"entrants": entrants, "contest": one}
    if part.protected:
        ask = _commands(part, ask, answers)

    def answer(path: str) -> Any:
        match path.split("/")[1:]:
            case [kind, contest] if kind in ask:
                return ask[kind](contest)
            case ["lobby"]:
                sleep(LOBBY_S)
                return {"lobby": "open"}
        raise NoSuchPageError

    return guarded(application(part, answer), part)


def _commands(part: Part, ask: dict[str, Callable[[str], Any]], answers: _Answers) -> dict[str, Callable[[str], Any]]:
    database = Resource(
        "contest-db",
        timeout_s=part.number("timeout_s"),
        sleep_window_s=part.number("sleep_window_s"),
        max_sleep_window_s=part.number("max_sleep_window_s"),
    )
    limit = int(part.number("max_concurrent")) or None
    fallback = {"fallback": answers.last} if part.number("fallback") else {}
    return {
        "entrants": database.command("get-more-entrants", max_concurrent=limit, **fallback)(ask["entrants"]),
        "contest": database.command("get-contest")(ask["contest"]),
    }
