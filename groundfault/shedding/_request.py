"""What a shell of either protocol knows about a request: who sent it, what it asks for, and what was decided.

Nothing in a header raises, and nothing in a header is believed of a peer that is not trusted,
except what can only hurt the request itself: a shorter deadline, a lower criticality.
"""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from random import uniform
from typing import TYPE_CHECKING, Final, NamedTuple

from groundfault import wire
from groundfault._context import RequestContext, serving
from groundfault.errors import SettingsError
from groundfault.events import note_internal_error
from groundfault.shedding import _propagation
from groundfault.shedding._routes import route_of
from groundfault.shedding._rules import Rules
from groundfault.shedding._socket import self_test
from groundfault.shedding._threads import THREAD_START, LateError, ThreadQueue, latest_start, thread_queue
from groundfault.shedding._wait import IN_PROCESS, LEFT, Bracket, Peer, header_age
from groundfault.shedding.criticality import RequestInfo
from groundfault.shedding.settings import ShedderOptions
from groundfault.shedding.shedder import TCP_INFO, Admission, Shedder
from groundfault.sinks import Sink, Sinks
from groundfault.vocabulary import Criticality, Reason

if TYPE_CHECKING:
    from contextvars import Token

__all__ = [
    "HINTS",
    "TRACEPARENT",
    "VISIT",
    "Said",
    "Visit",
    "arrive",
    "classified",
    "refuse_outright",
    "retry_after",
    "said",
    "shedder_of",
    "valid_trace",
]

HINTS: Final = (
    wire.TIMEOUT_MS,
    wire.ENVOY_TIMEOUT_MS,
    wire.GRPC_TIMEOUT,
    wire.REQUEST_START,
    wire.QUEUE_START,
    wire.CRITICALITY,
    wire.KEY,
    wire.CALLER,
)
"""Every request header that is understood here. A request without any of them is not asked for each."""
TRACEPARENT: Final = "Traceparent"
VISIT: Final = "groundfault.visit"
"""The key of a WSGI environ under which a worker class of ours hands on what it has decided. No header can set it."""

_TRACE_LENGTH: Final = 55  # W3C Trace Context, version 00
_TRACE_SIGNS: Final = frozenset("0123456789abcdef-")


# Looked up once: through its class a member of an enumeration costs a tenth of a microsecond, and each request asks.
_CRITICAL: Final = Criticality.CRITICAL
_HERE: Final = Peer.HERE


def shedder_of(shedder: Shedder | None, sinks: Iterable[Sink] | Sinks | None, settings: ShedderOptions) -> Shedder:
    """Return the shedder that was passed to a shell, or one of its own; raises SettingsError for both at once."""
    if shedder is None:
        return Shedder(sinks=sinks, **settings)
    if settings or sinks is not None:
        raise SettingsError("settings and sinks belong to the shedder that was passed; set them there")
    return shedder


class Visit(Admission):
    """One request between its arrival and its end, as :func:`arrive` makes it: what was decided, by whom, and why."""

    __slots__ = ("_token", "context", "rules", "shedder")

    context: RequestContext
    rules: Rules
    shedder: Shedder
    _token: "Token[RequestContext | None] | None"

    def enter(self) -> None:
        """Make the context that of the code that runs from here on."""
        self._token = serving.set(self.context)

    def answered(self, status: int) -> None:
        """Note that the answer begins. Never raises; a second call changes nothing."""
        try:
            self.shedder.answered(self, status)
        except Exception as error:  # noqa: BLE001  an error of ours must not cost the answer
            self.shedder.failed("answer", error)

    def finish(self, status: int) -> None:
        """Note answer and end at once, where they are one and the same. Never raises; a second call changes nothing."""
        try:
            self.shedder.finish(self, status)
        except Exception as error:  # noqa: BLE001  as above
            self.shedder.failed("end of a request", error)
        self.close()

    def release(self) -> None:
        """Give the request's place back. Never raises; a second call changes nothing."""
        self.context.deadline = None  # its caller has the answer: what runs on in the background may take its time
        try:
            self.shedder.release(self)
        except Exception as error:  # noqa: BLE001  as above
            self.shedder.failed("end of a request", error)

    def close(self) -> None:
        """End the request: free its place, forget its context. Never raises; a second call changes nothing."""
        token, self._token = self._token, None
        if token is not None:
            try:  # noqa: SIM105  a quarter of a microsecond per request
                serving.reset(token)
            except ValueError:  # closed in another context than it was opened in: there is nothing to reset
                pass
        self.context.end()
        if not self.released:  # else as at the end of most requests: with the last byte of the answer
            self.release()

    def abandon(self) -> None:
        """Do as :meth:`close`, from wherever the garbage collector calls; never touches another request's context."""
        if serving.get() is self.context:
            serving.set(None)
        self._token = None
        self.close()

    def begin_in_thread(self, latest: float, late: Reason) -> None:
        """Raise LateError with the reason ``late`` if a worker thread may not begin any more, after ``latest``."""
        try:
            context = self.context
            withdrawn = self.shedder.clock() > latest and self.shedder.withdraw(
                self, late, context.criticality or _CRITICAL, context.traceparent
            )
        except Exception as error:  # noqa: BLE001  an error of ours must not cost the answer
            self.shedder.failed("turn for a thread", error)
            return
        if withdrawn:
            raise LateError(late)

    def verdict_on_error(self, error: BaseException) -> "_propagation.Verdict | None":
        """Return what to answer instead of raising ``error``, or None if it is not a dependency's doing."""
        if not self.rules.enforced:  # nothing of us is visible
            return None
        if self.reason is not None:  # withdrawn after it was admitted; whatever became of that on the way here
            return _propagation.Verdict(self.reason, self.context.service)
        try:
            return _propagation.of_error(error, self.context)
        except Exception as mine:  # noqa: BLE001  as above; the application's error goes its way
            self.shedder.failed("error of the application", mine)
            return None

    def verdict_on_status(self, status: int) -> "_propagation.Verdict | None":
        """Return how to annotate the application's own answer, or None to leave it alone."""
        if not self.rules.enforced:
            return None
        if self.reason is not None:  # as above
            return _propagation.Verdict(self.reason, self.context.service)
        return _propagation.of_status(status, self.context)


class Said(NamedTuple):
    """What the headers say, as far as it is believed."""

    budget_s: float | None = None
    age_s: float | None = None
    criticality: Criticality | None = None
    key: str | None = None
    caller: str | None = None


def arrive(  # noqa: PLR0917  by place where each request pays for a name
    shedder: Shedder,
    method: str,
    path: str,
    headers: wire.HeaderLookup,
    hinted: bool,  # noqa: FBT001  as above
    peer: str | None,
    via: str | None,
    reading: Bracket | str,
    on_loop: bool,  # noqa: FBT001  as above
    *,
    traced: bool = True,
    threads: ThreadQueue | None = None,
    u: float | None = None,
) -> Visit:
    """Read the request's headers and decide about it.

    ``hinted``: whether it carries any of :data:`HINTS`. ``traced``: whether it may carry
    :data:`TRACEPARENT`. ``peer``: who the server says has sent it.
    ``via``: who is at the other end of the socket, whose headers are believed or not; None for a unix socket.
    ``reading``: what the kernel says about its wait. ``threads``: what stands in front of the worker threads, where
    its endpoint needs one; None: on an event loop that is found out here.
    ``u``: drawn for it, in [0, 1); None: it is drawn here, unless the request has a key.
    """
    if not shedder.self_tested:
        shedder.self_tested = True
        self_test.start()
    rules = shedder.rules
    settings = rules.settings
    budget_s, age_s, criticality, key, caller = said(shedder, rules, headers, via) if hinted else _NOTHING
    if rules.classes or settings.identity is not None:
        info = RequestInfo(method, path, headers, peer)
        criticality, key = classified(shedder, rules, info, criticality, key, via)
    wait_s: float | None = None
    signal, exact, client = TCP_INFO, True, _HERE
    if isinstance(reading, Bracket):
        wait_s, _, exact, client, signal = reading
        if reading is LEFT or (self_test.failure is not None and signal != IN_PROCESS):
            wait_s = None
    else:
        shedder.refuse_signal(TCP_INFO, reading)
    trace = valid_trace(headers.get(TRACEPARENT)) if traced else None
    name = route_of(method, path)
    route = shedder.find_route(name)
    if threads is None and on_loop and route.sync:
        threads = _threads(shedder)
    visit = Visit(name, route, on_loop)
    visit.shedder = shedder
    visit.rules = rules
    visit.context = context = RequestContext(settings.service, None, criticality, key, caller, trace, [])
    visit._token = None  # noqa: SLF001  this is its constructor, and one call less per request
    if (
        wait_s is not None
        and exact
        and client is _HERE
        and rules.plain
        and not (hinted or threads or (on_loop and route.sync) or path in rules.health)
        and shedder.admit_clear(visit, signal, wait_s)
    ):
        return visit
    shedder.decide(
        visit,
        wait_s,
        signal=signal,
        exact=exact,
        peer=client,
        age_s=age_s,
        criticality=criticality or _CRITICAL,
        key=key,
        u=u,
        budget_s=budget_s,
        health=path in rules.health,
        threads=threads,
        caller=caller,
        traceparent=trace,
    )
    if budget_s is not None and rules.enforced:
        # Only what the caller said caps calls made for it; a default of ours could break those it never meant.
        context.deadline = visit.began + budget_s - max(wait_s or 0.0, age_s or 0.0)
    if on_loop and visit.route.sync and not visit.refused and path not in rules.health:
        waited_s = max(wait_s or 0.0, age_s or 0.0)
        latest = latest_start(visit.began, waited_s, budget_s, settings.deadline_s, visit.route.natural_s)
        late = Reason.QUEUE_WAIT if budget_s is None else Reason.DEADLINE
        context.at_thread = partial(visit.begin_in_thread, latest, late)
    return visit


def refuse_outright(
    shedder: Shedder, method: str, path: str, reading: Bracket | str, u: float, *, on_loop: bool
) -> Reason | None:
    """Refuse a request that carries none of :data:`HINTS`, for its wait alone; None: ask :func:`arrive`, with this u.

    In a standing queue most refusals are such: no visit and no context is made of them, for nothing else will be asked.
    ``u`` in [0, 1) is drawn for this request.
    """
    rules = shedder.rules
    if not (rules.plain and isinstance(reading, Bracket) and reading.peer is _HERE) or path in rules.health:
        return None
    if self_test.failure is not None:
        return None
    if on_loop and shedder.has_threads and shedder.find_route(route_of(method, path)).sync:
        return None  # it waits for a thread, too
    return shedder.refuse_outright(reading.signal, reading.lower_s, u, on_loop=on_loop, exact=reading.exact)


def _threads(shedder: Shedder) -> ThreadQueue | None:
    try:
        queue = thread_queue()
        if queue is not None and queue.unwatched is not None:
            shedder.refuse_signal(THREAD_START, queue.unwatched)
        return queue
    except Exception as error:  # noqa: BLE001  without the prediction the request is judged by the rest
        shedder.failed("anyio's thread limiter", error)
        return None


_NOTHING: Final = Said()


def said(shedder: Shedder, rules: Rules, headers: wire.HeaderLookup, via: str | None) -> Said:
    """Return what the headers of a request say that ``via`` has sent, as far as it is believed."""
    trusted = rules.trust.believes(via)
    longest_s = rules.settings.deadline_s
    if trusted:
        longest_s = max(longest_s, rules.settings.max_deadline_s)
    budget_s = wire.parse_budget(headers)
    if budget_s is not None:
        budget_s = min(budget_s, longest_s)
    criticality = wire.parse_criticality(headers.get(wire.CRITICALITY))
    if not trusted:  # a stranger may only ask for less
        return Said(budget_s, criticality=None if criticality is Criticality.CRITICAL_PLUS else criticality)
    return Said(
        budget_s,
        header_age(wire.parse_request_start(headers), shedder.wall_clock()),
        criticality,
        wire.parse_key(headers.get(wire.KEY)),
        shedder.fold_caller(wire.parse_caller(headers.get(wire.CALLER))),
    )


def classified(  # noqa: PLR0917  once a request, where there are rules
    shedder: Shedder, rules: Rules, info: RequestInfo, criticality: Criticality | None, key: str | None, via: str | None
) -> tuple[Criticality | None, str | None]:
    """Return what the rules make of a request's criticality and key."""
    if rules.classes:
        criticality = rules.criticality_of(info, criticality, trusted=rules.trust.believes(via))
    return criticality, key or _ask_key(shedder, rules.settings.identity, info)


def valid_trace(trace: str | None) -> str | None:
    """Return the traceparent if it is one, else None."""
    if trace is None or len(trace) != _TRACE_LENGTH or not _TRACE_SIGNS.issuperset(trace):
        return None
    return trace


def _ask_key(shedder: Shedder, ask: object, info: RequestInfo) -> str | None:
    if not callable(ask):
        return None
    try:
        identity = ask(info)
        return None if identity is None else shedder.key_of(str(identity))
    except Exception as error:  # noqa: BLE001  as above
        note_internal_error("identity", error)
        return None


def retry_after(rules: Rules, reason: Reason) -> tuple[str, str] | None:
    """Return a ``Retry-After`` header, drawn anew each time so that clients do not come back together; or None."""
    span = rules.settings.retry_after_s
    if span is None or not reason.retryable:
        return None
    with suppress(ValueError, OverflowError):
        return "Retry-After", str(max(1, round(uniform(*span))))
    return None
