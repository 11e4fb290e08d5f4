"""The short ways to a decision come to what the long way comes to, and leave the same behind."""

from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from groundfault.events import RequestSeen, SheddingChanged
from groundfault.integrations._gunicorn_gate import limits_of
from groundfault.shedding import _request
from groundfault.shedding._head import CHUNKED, read_head, read_plainest
from groundfault.shedding._request import Visit, arrive, refuse_outright
from groundfault.shedding._wait import Bracket, Peer
from groundfault.shedding.shedder import Shedder
from groundfault.sinks import Sinks
from groundfault.testing import ManualClock
from groundfault.vocabulary import Criticality, Reason

gunicorn_config = pytest.importorskip("gunicorn.config")


class Long(Shedder):
    """Goes the long way with each request."""

    def is_refusing(self, *, on_loop):
        return False

    def admit_clear(self, admission, signal, wait_s):
        return False


@dataclass(frozen=True)
class Step:
    """A request that comes ``after_s`` later; with ``ended`` it is answered with that status after ``takes_s``."""

    after_s: float = 0.0
    waited_ms: int = 0
    u: float = 0.5
    path: str = "/"
    hints: tuple[tuple[str, str], ...] = ()
    peer: Peer = Peer.HERE
    exact: bool = True
    takes_s: float | None = None
    status: int = 200


def serve(shedder, step, *, on_loop):
    """Do as the shells and the gunicorn kit do; return why it was refused, and the visit if it was not."""
    reading = Bracket(step.waited_ms / 1e3, inf, step.exact, step.peer)
    if not step.hints and shedder.is_refusing(on_loop=on_loop):
        reason = refuse_outright(shedder, "GET", step.path, reading, step.u, on_loop=on_loop)
        if reason is not None:
            return reason, None
    visit = arrive(
        shedder,
        method="GET",
        path=step.path,
        headers=dict(step.hints),
        hinted=bool(step.hints),
        peer="127.0.0.1",
        via="127.0.0.1",
        reading=reading,
        on_loop=on_loop,
        u=step.u,
    )
    if visit.refused:
        return visit.reason, None
    return visit.reason, visit


def state_of(shedder):
    law, tally = shedder._law, shedder._tally
    routes = {route.name: route for route in (law.whole, law.routes.other, *law.routes._routes.values())}
    return {
        "ladders": [law.workers, law.loop, law.threads],
        "routes": {
            name: (
                each.open,
                each.service_s,
                each.natural_s,
                each.calm_s,
                each.used_at,
                each.done_at,
                each.rate._counts,
            )
            for name, each in routes.items()
        },
        "crowds": {name: (each.crowd.onset, each.crowd.queueing) for name, each in routes.items()},
        "bounds": (law.worker_bounds, law.loop_bounds),
        "counts": (tally.in_flight, tally.admitted, tally.shed, tally.abandoned, tally.waits),
        "episode": (tally.episode, tally._episode_shed, tally._refused_at),
        "health": (shedder._health._at, shedder._health._tokens),
        "signal": shedder._signal,
        "generation": shedder._generation,
    }


HINTS = st.sampled_from(
    [
        (),
        (),
        (),
        (("X-GroundFault-Timeout-Ms", "50"),),
        (("X-GroundFault-Criticality", "sheddable"),),
        (("X-GroundFault-Key", "ff"),),
        (("X-Request-Start", "t=1"),),
    ]
)
STEPS = st.builds(
    Step,
    after_s=st.sampled_from([0.0, 0.001, 0.02, 0.3, 1.1, 4.0]),
    waited_ms=st.sampled_from([0, 1, 2, 4, 8, 12, 20, 28, 32, 100, 260, 700, 1500]),
    u=st.floats(0, 1, exclude_max=True),
    path=st.sampled_from(["/", "/", "/slow", "/healthz"]),
    hints=HINTS,
    peer=st.sampled_from([Peer.HERE] * 6 + [Peer.HALF_CLOSED, Peer.GONE]),
    exact=st.sampled_from([True, True, True, False]),
    takes_s=st.sampled_from([None, 0.0, 0.005, 0.2]),
    status=st.sampled_from([200, 200, 404, 500]),
)
OVERLOADED = [
    Step(waited_ms=700),
    *(Step(after_s=0.02, waited_ms=ms, u=u) for ms in (4, 20, 100, 260) for u in (0, 0.9)),
]
STUCK = [*[Step(takes_s=0.005)] * 3, *[Step()] * 10, *[Step(after_s=1.1)] * 3]  # a crowd, and nobody is answered
DRIPPED = Step(after_s=0.001, exact=False)  # which is no sign of a short queue
SETTINGS = st.sampled_from(
    [{}, {}, {"mode": "shadow"}, {"max_concurrency": 2}, {"deadline_s": 0.2}, {"identity": lambda _: "ann"}]
)


@settings(max_examples=150, deadline=None)
@example(steps=OVERLOADED, changes={}, drained=None, on_loop=False, watched=False)
@example(steps=OVERLOADED, changes={}, drained=None, on_loop=True, watched=False)
@example(steps=OVERLOADED, changes={}, drained=2, on_loop=True, watched=True)
@example(steps=[Step(takes_s=0.005)] * 12, changes={}, drained=None, on_loop=True, watched=False)
@example(steps=STUCK, changes={}, drained=None, on_loop=True, watched=False)
@example(steps=[*OVERLOADED, Step(after_s=4.0)], changes={}, drained=None, on_loop=False, watched=False)
@example(steps=[Step(waited_ms=28), DRIPPED], changes={}, drained=None, on_loop=False, watched=False)
@given(
    steps=st.lists(STEPS, min_size=1, max_size=40),
    changes=SETTINGS,
    drained=st.none() | st.integers(0, 10),
    on_loop=st.booleans(),
    watched=st.booleans(),
)
def test_both_ways_come_to_the_same(steps, changes, drained, on_loop, watched):
    clock = ManualClock()
    seen = {}
    sides = []
    for kind in (Shedder, Long):
        events = seen[kind] = []

        def sink(event, events=events):
            events.append(event)

        sink.changes_only, sink.prompt = not watched, True
        sides.append(kind(sinks=[sink], clock=clock, wall_clock=clock, key_salt="x", **changes))
    for shedder in sides:
        shedder._listener.due = inf
    for number, step in enumerate(steps):
        clock.advance(step.after_s)
        if number == drained:
            for shedder in sides:
                shedder.drain()
        reasons, visits = zip(*(serve(shedder, step, on_loop=on_loop) for shedder in sides), strict=True)
        assert reasons[0] == reasons[1]
        if step.takes_s is not None:
            clock.advance(step.takes_s)
            for visit in filter(None, visits):
                visit.finish(step.status)
        assert state_of(sides[0]) == state_of(sides[1])
    assert seen[Shedder] == seen[Long]


def overloaded(**changes):
    """Return a shedder in the middle of an overload that has lasted for more than a second."""
    clock = ManualClock()
    shedder = Shedder(clock=clock, wall_clock=clock, **{"sinks": (), **changes})
    shedder._listener.due = inf
    for _ in range(15):
        serve(shedder, Step(waited_ms=700), on_loop=False)
        clock.advance(0.1)
    return shedder


def test_in_a_standing_queue_no_visit_is_made_of_a_refusal(monkeypatch):
    shedder = overloaded()

    def made(*_args, **_kwargs):
        raise AssertionError("a visit")

    monkeypatch.setattr(_request, "Visit", made)
    assert serve(shedder, Step(waited_ms=700), on_loop=False) == (Reason.QUEUE_WAIT, None)
    with pytest.raises(AssertionError, match="a visit"):
        serve(shedder, Step(waited_ms=700, hints=(("X-GroundFault-Key", "0"),)), on_loop=False)


def test_who_finds_everything_clear_is_admitted_without_the_long_way(monkeypatch):
    shedder = Shedder(sinks=())
    serve(shedder, Step(), on_loop=True)  # the first look at the accept queue
    monkeypatch.setattr(Shedder, "decide", None)
    _, visit = serve(shedder, Step(), on_loop=True)
    assert isinstance(visit, Visit)


def test_events_are_the_same_on_the_short_ways():
    events = []
    shedder = overloaded(sinks=Sinks.direct(events.append))
    (began,) = [event for event in events if isinstance(event, SheddingChanged)]
    assert began.shedding
    count = len(events)
    serve(shedder, Step(waited_ms=700), on_loop=False)
    (event,) = events[count:]
    assert isinstance(event, RequestSeen)
    assert (event.reason, event.criticality) == (Reason.QUEUE_WAIT, Criticality.CRITICAL)


NAMES = st.sampled_from(
    [
        *("Host", "Accept", "ACCEPT", "Connection", "Connection-X", "Content-Type", "X-Forwarded-Proto", "X-A", "X"),
        *("X-GroundFault-Key", "X-Request-Start", "Grpc-Timeout"),
        *("Expect", "Content-Length", "Transfer-Encoding", "Upgrade"),
    ]
)
VALUES = st.sampled_from(
    ["", "x", "close", "Keep-Alive", " keep-alive\t", "close, x", "0", "3", "text/html", "chunked"]
)
TARGETS = st.sampled_from(["/", "/a?b=%20", "/%68ealthz", "//a", "/a b", "*"])


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "get"]),
    target=TARGETS,
    minor=st.sampled_from("012"),
    fields=st.lists(st.tuples(NAMES, VALUES), max_size=6),
    rest=st.sampled_from([b"", b"", b"abc"]),
)
def test_the_plainest_head_is_read_as_any_other(method, target, minor, fields, rest):
    lines = [f"{method} {target} HTTP/1.{minor}", *(f"{name}:{value}" for name, value in fields), "", ""]
    data = "\r\n".join(lines).encode() + rest
    limits = limits_of(gunicorn_config.Config())
    short, head = read_plainest(data, limits), read_head(data, limits)
    simple = head is not None and not head.hinted and head.body == 0 and head.size == len(data)
    names = [name.lower() for name, _ in fields]
    if short is None:
        # What is said twice, or says that nothing follows, is left to the longer look: it is rare.
        assert not simple or "content-length" in names or len(set(names)) < len(names)
        return
    assert head is not None
    assert simple
    assert head.body != CHUNKED
    path, keeps, (is_head, version, accept) = short
    assert (path, keeps, is_head, version) == (head.path, head.keeps, head.method == "HEAD", head.minor)
    asked = head.get("Accept")
    assert (accept or "").strip() == (asked or "").strip().lower()
