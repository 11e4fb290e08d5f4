"""A service between: it asks the next one for ``/lineup/{n}`` and knows ``/lobby`` by itself.

It may try again what failed. Unprotected, as so many do: up to ``tries`` times, whatever the answer was.
Protected, by the rule of :func:`groundfault.retryable`: once, what the callee itself has refused, within a budget.
"""

from collections.abc import Callable
from time import sleep
from typing import TYPE_CHECKING, Any

import requests

from groundfault.lab.targets.part import Part
from groundfault.lab.targets.serving import NoSuchPageError, application, guarded, session_for
from groundfault.retries import RetryBudget

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["create", "insisting", "within_budget"]

LOBBY_S = 0.005


def create() -> "WSGIApplication":
    """Build the application. gunicorn calls this in the worker."""
    part = Part.from_environment()
    part.report()
    callee = str(part.options["callee"])
    session = session_for(part, callee, timeout_s=part.number("timeout_s"))
    url = part.url(callee)
    tries = int(part.number("tries"))

    def once(path: str) -> Any:
        response = session.get(url + path)
        response.raise_for_status()
        return response.json()

    ask: Callable[[str], Any] = once
    if tries > 1:
        ask = within_budget(once, RetryBudget()) if part.annotated else insisting(once, tries)

    def answer(path: str) -> Any:
        match path.split("/")[1:]:
            case ["lineup", _]:
                return ask(path)
            case ["lobby"]:
                sleep(LOBBY_S)
                return {"lobby": "open"}
        raise NoSuchPageError

    return guarded(application(part, answer), part)


def insisting(once: Callable[[str], Any], tries: int) -> Callable[[str], Any]:
    """Return what tries so many times at once, whatever went wrong."""

    def ask(path: str) -> Any:
        for left in reversed(range(tries)):
            try:
                return once(path)
            except requests.RequestException:
                if not left:
                    raise
        raise AssertionError("unreachable")  # the last try returns or raises

    return ask


def within_budget(once: Callable[[str], Any], budget: RetryBudget) -> Callable[[str], Any]:
    """Return what tries once more if the rule and the budget allow it."""

    def ask(path: str) -> Any:
        may_retry = budget.one_retry()
        try:
            return once(path)
        except requests.RequestException as error:
            if not may_retry(error):
                raise
        return once(path)

    return ask
