"""A service that picks one of several instances of saber for each request.

Protected, each instance is a resource with a circuit of its own: one that fails, or does nothing but refuse, is left
out until its probe succeeds, and another is picked in its place. What an instance itself has refused is tried once
more on another, within a budget. Unprotected, whoever is picked is asked, come what may.
"""

import random
from typing import TYPE_CHECKING, Any

import requests

from groundfault.errors import RejectedError
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.lab.chain import POOL_SIZE, TimeoutAdapter
from groundfault.lab.targets.part import Part
from groundfault.lab.targets.serving import NoSuchPageError, application, guarded
from groundfault.retries import RetryBudget

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["Picked", "create"]

CALLEE = "saber"


class Picked:
    """The instances behind one session. ``budget``: for retries; None: there are none."""

    def __init__(self, part: Part, budget: RetryBudget | None) -> None:
        self._urls = part.callees[CALLEE]
        self._budget = budget
        self._session = requests.Session()
        self._session.trust_env = False
        timeout_s = part.number("timeout_s")
        for number, url in enumerate(self._urls):
            if part.protected:
                self._session.mount(url + "/", _adapter(part, number, timeout_s))
            else:
                self._session.mount(url + "/", TimeoutAdapter(timeout_s, pool_maxsize=POOL_SIZE))

    def get(self, path: str) -> Any:
        """Ask one instance, and others in its place if its circuit is open or the retry rule allows it."""
        may_retry = _never if self._budget is None else self._budget.one_retry()
        order = random.sample(self._urls, len(self._urls))
        for left, url in zip(reversed(range(len(order))), order, strict=True):
            try:
                response = self._session.get(url + path)
                response.raise_for_status()
            except RejectedError:
                if not left:
                    raise
            except requests.RequestException as error:
                if not left or not may_retry(error):
                    raise
            else:
                return response.json()
        raise AssertionError("unreachable")  # the last one returns or raises

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _never(_error: object) -> bool:
    return False


def _adapter(part: Part, number: int, timeout_s: float) -> GroundFaultAdapter:
    return GroundFaultAdapter(
        f"{CALLEE}-{number}",
        timeout_s=timeout_s,
        minimum_volume_per_s=part.number("minimum_volume_per_s"),
        handled_patience_s=part.number("handled_patience_s"),
        on_saturated="open",
        honor_handled=None if part.annotated else False,
        pool_maxsize=POOL_SIZE,
    )


def create() -> "WSGIApplication":
    """Build the application. gunicorn calls this in the worker."""
    part = Part.from_environment()
    part.report()
    # A tenth is for fleets in which hardly anything is refused; one of seven that refuses everything needs more.
    budget = RetryBudget(ratio=part.number("retry_ratio")) if part.annotated else None
    picked = Picked(part, budget)

    def answer(path: str) -> Any:
        if not path.startswith("/lineup/"):
            raise NoSuchPageError
        return picked.get(path)

    return guarded(application(part, answer), part)
