"""What the shell of a remote procedure call knows that is no request of HTTP's to Python: gRPC's servers.

Their sockets belong to a library of C, so the kernel cannot be asked. What can be known is exact all the same:
how long a call has waited for a thread of the server's own pool. It is taken between the moment the call came to
Python and the moment its thread began, before anything of its message is read, so that no client can make it longer.
On an event loop nothing of the kind can be seen; there the forecast and the calls' own deadlines decide.
"""

from typing import Final

from groundfault import wire
from groundfault._context import RequestContext
from groundfault.shedding._request import HINTS, TRACEPARENT, Said, Visit, classified, said, valid_trace
from groundfault.shedding._wait import NO_SIGNAL, THREAD_POOL, Peer
from groundfault.shedding.criticality import RequestInfo
from groundfault.shedding.shedder import TCP_INFO, Shedder
from groundfault.vocabulary import Criticality

__all__ = ["arrive"]

_METHOD: Final = "POST"
_NO_SOCKET: Final = "gRPC keeps its sockets to itself"
_LONGEST_LABEL: Final = 128
_LABEL: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~-/")


def arrive(
    shedder: Shedder,
    path: str,
    headers: wire.HeaderLookup,
    peer: str | None,
    *,
    wait_s: float | None,
    left_s: float | None,
    gone: bool = False,
    exempt: bool = False,
) -> Visit:
    """Decide about one call.

    ``path``: ``/package.Service/Method``. ``headers``: its metadata.
    ``peer``: the address at the other end of its connection, None for a unix socket, "" if it is not known.
    ``wait_s``: how long it has waited for the thread that it is served by; None: it is served by an event loop.
    ``left_s``: how long its caller still waits as from now; None: it did not say.
    ``gone``: its caller has left. ``exempt``: it is as good as on a health path.
    """
    rules = shedder.rules
    settings = rules.settings
    hinted = any(headers.get(name) is not None for name in HINTS)
    told = said(shedder, rules, headers, peer) if hinted else Said()
    criticality, key = told.criticality, told.key
    if rules.classes or settings.identity is not None:
        info = RequestInfo(_METHOD, path, headers, peer)
        criticality, key = classified(shedder, rules, info, criticality, key, peer)
    shedder.refuse_signal(TCP_INFO, _NO_SOCKET)
    trace = valid_trace(headers.get(TRACEPARENT))
    on_loop = wait_s is None
    name = _route_of(path)
    visit = Visit(name, shedder.find_route(name), on_loop)
    visit.shedder = shedder
    visit.rules = rules
    visit.context = context = RequestContext(settings.service, None, criticality, key, told.caller, trace)
    visit._token = None  # noqa: SLF001  this is its constructor
    trusted = rules.trust.believes(peer)
    longest_s = max(settings.deadline_s, settings.max_deadline_s) if trusted else settings.deadline_s
    waited_s = wait_s or 0.0
    # In seconds as from its arrival. One at the limit of what is believed was cut off there, and says nothing.
    budgets = [] if told.budget_s is None or told.budget_s >= longest_s else [told.budget_s]
    if left_s is not None:
        budgets.append(left_s + waited_s)
    budget_s = min(budgets, default=None)
    shedder.decide(
        visit,
        wait_s,
        signal=NO_SIGNAL if on_loop else THREAD_POOL,
        peer=Peer.GONE if gone else Peer.HERE,
        age_s=told.age_s,
        criticality=criticality or Criticality.CRITICAL,
        key=key,
        budget_s=budget_s if budget_s is None or budget_s < longest_s else None,
        health=exempt or path in rules.health,
        caller=told.caller,
        traceparent=trace,
    )
    if budget_s is not None and rules.enforced:
        # Whoever says it: gRPC ends the call then, so it binds what is called for its sake.
        context.deadline = visit.began + budget_s - waited_s
    return visit


def _route_of(path: str) -> str:
    """Return the label of a method: its whole name, unlike a path's, for packages are called ``v1`` and methods long.

    There are as many as the server knows; of strange ones no more are kept than of other routes.
    """
    return path if len(path) <= _LONGEST_LABEL and _LABEL.issuperset(path) else "/*"
