"""What the variants differ in: how a service calls the next one, and what stands in front of it."""

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter

from cascading.parts import Part, Variant, timeout_s
from groundfault import WSGILoadShedder
from groundfault.events import CircuitChanged, Event
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.lab.chain import POOL_SIZE, StripFromWSGI
from groundfault.lab.journal import Journal
from groundfault.lab.targets.faults import FaultsFile, Kind, Sickness, refuse
from groundfault.vocabulary import State

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Changes", "guarded", "next_service", "sickly"]

SLEEP_WINDOW_S = 5.0
"""How long an open circuit waits for its probe, in all variants; ours draw half of it by chance."""


class Changes:
    """A sink that journals the rare events and leaves out the frequent ones, which would cost CPU time."""

    changes_only = True

    def __init__(self, part: Part) -> None:
        self._journal = Journal(Path(part.directory), part.service)

    def __call__(self, event: Event) -> None:
        """Write one event."""
        self._journal(event)


def next_service(part: Part, changes: Changes) -> Callable[[str], bytes]:
    """Return how this service asks the next one for a path; one of its instances, drawn anew for each call.

    What is returned raises ``requests.RequestException`` for whatever is no answer of status 200.
    """
    session = requests.Session()
    session.trust_env = False  # a proxy configured on this machine has no place between the services
    patience_s = timeout_s(part.place)
    adapter = _adapter(part, patience_s, changes)
    for callee in part.callees:
        session.mount(callee + "/", adapter)
    callees = part.callees

    def ask(path: str) -> bytes:
        response = session.get(random.choice(callees) + path, timeout=patience_s)
        response.raise_for_status()
        return response.content

    return ask


def _adapter(part: Part, patience_s: float, changes: Changes) -> HTTPAdapter:
    if part.variant is Variant.INTERLOCK:
        return _interlock_adapter(part, changes)
    honor = None if part.variant is Variant.GROUNDFAULT else False
    return GroundFaultAdapter(
        part.callee,
        timeout_s=patience_s,
        sleep_window_s=SLEEP_WINDOW_S,
        honor_handled=honor,
        pool_maxsize=POOL_SIZE,
    )


def _interlock_adapter(part: Part, changes: Changes) -> HTTPAdapter:
    from interlock import Config  # noqa: PLC0415  only this variant needs it
    from interlock.integrations.requests import CircuitBreakerAdapter  # noqa: PLC0415  as above

    class Listener:
        """Says its state changes in our words, so that one reader understands both."""

        def on_state_change(self, *, name: str, old: Any, new: Any) -> None:  # noqa: ARG002  interlock's signature
            before, after = (State(str(each).replace("_", "-")) for each in (old, new))
            changes(CircuitChanged(part.callee, "get", before, after, 0, 0, SLEEP_WINDOW_S))

        def on_call(self, **_: Any) -> None: ...

        def on_rejected(self, **_: Any) -> None: ...

        def on_reset(self, **_: Any) -> None: ...

    config = Config(wait_duration_in_open=SLEEP_WINDOW_S)
    adapter: HTTPAdapter = CircuitBreakerAdapter(config=config, listener=Listener(), pool_maxsize=POOL_SIZE)
    return adapter


def guarded(app: "WSGIApplication", part: Part) -> "WSGIApplication":
    """Return the application behind what protects it."""
    match part.variant:
        case Variant.GROUNDFAULT:
            return WSGILoadShedder(app, service=part.service)
        case Variant.PLAIN:
            return StripFromWSGI(WSGILoadShedder(app, service=part.service))
        case Variant.INTERLOCK:
            return _Bulkhead(app, part.threads - 1)
        case Variant.NONE:
            return app


class _Bulkhead:
    """interlock-cb's bulkhead in front of an application: one thread is always left to refuse with a plain 503."""

    def __init__(self, app: "WSGIApplication", limit: int) -> None:
        from interlock import Pipeline  # noqa: PLC0415  only this variant needs it

        self._app = app
        self._pipeline = Pipeline.builder().bulkhead(limit).build()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Serve one request."""
        from interlock import BulkheadFullError  # noqa: PLC0415  as above

        try:
            answer: Iterable[bytes] = self._pipeline.call(self._app, environ, start_response)
        except BulkheadFullError:
            return refuse(start_response, [])
        return answer


def sickly(app: "WSGIApplication", part: Part, faults: FaultsFile) -> "WSGIApplication":
    """Return the application as one that refuses everything while its instance is said to be sick.

    Annotated in the groundfault variant, as a shedder that has gone mad would; plain in the others.
    """
    kind: Kind = "handled" if part.variant is Variant.GROUNDFAULT else "plain"
    return Sickness(app, service=part.service, instance=part.instance, kind=kind, faults=faults)
