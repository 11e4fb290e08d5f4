"""What the phases differ in, and the parts of the services."""

import asyncio
import threading
from contextlib import closing

import pytest
from requests.adapters import HTTPAdapter

from groundfault import wire
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.lab import chain, generator, saber
from groundfault.lab.demo import Plan
from groundfault.lab.parts import CONNECTIONS, Part, Phase
from groundfault.vocabulary import Reason

HANDLED = list(wire.annotations(Reason.QUEUE_WAIT, "saber"))
OTHERS = [("Content-Type", "text/plain"), ("X-Ground", "stays")]


def part(phase):
    return Part(service="grouper", phase=phase, directory="/nowhere", token="t", callee="http://127.0.0.1:9")  # noqa: S106  the token of a test


def test_plain_503s_over_wsgi_keep_everything_but_our_headers():
    def app(environ, start_response):
        start_response("503 Service Unavailable", [*HANDLED, *OTHERS], None)
        return [b"shed"]

    sent = []
    body = chain.StripFromWSGI(app)({}, lambda *answer: sent.append(answer))
    assert list(body) == [b"shed"]
    assert sent == [("503 Service Unavailable", [("Cache-Control", "no-store"), *OTHERS], None)]


def test_plain_503s_over_asgi_keep_everything_but_our_headers():
    def raw(pairs):
        return [(name.encode(), value.encode()) for name, value in pairs]

    start = {"type": "http.response.start", "status": 503, "headers": raw([*HANDLED, *OTHERS])}
    body = {"type": "http.response.body", "body": b"shed"}

    async def app(scope, receive, send):
        await send(start)
        await send(body)

    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(chain.StripFromASGI(app)({"type": "http"}, None, send))
    assert sent == [{**start, "headers": raw([("Cache-Control", "no-store"), *OTHERS])}, body]


@pytest.mark.parametrize("phase", list(Phase))
def test_a_part_survives_its_way_to_the_process(phase, monkeypatch):
    for name, value in part(phase).environment().items():
        monkeypatch.setenv(name, value)
    assert Part.from_environment() == part(phase)


@pytest.mark.parametrize(
    ("phase", "protected", "annotated"),
    [(Phase.UNPROTECTED, False, False), (Phase.PLAIN_503, True, False), (Phase.GROUNDFAULT, True, True)],
)
def test_what_a_phase_installs(phase, protected, annotated):
    assert part(phase).protected is protected
    assert part(phase).annotated is annotated
    with chain.session_for(part(phase), "saber", timeout_s=0.9) as session:
        adapter = session.get_adapter("http://127.0.0.1:9/entrants/1")
        assert isinstance(adapter, GroundFaultAdapter) is protected
        assert adapter._pool_maxsize == chain.POOL_SIZE
        assert session.trust_env is False


@pytest.mark.parametrize(("asked", "sent"), [(None, 0.9), (0.1, 0.1)])
def test_the_plain_client_has_the_timeout_too(asked, sent, monkeypatch):
    seen = []
    monkeypatch.setattr(HTTPAdapter, "send", lambda *_, **kwargs: seen.append(kwargs["timeout"]))
    with chain.session_for(part(Phase.UNPROTECTED), "saber", timeout_s=0.9) as session:
        session.get_adapter("http://127.0.0.1:9/").send(None, timeout=asked)
    assert seen == [sent]


class TestDatabase:
    @pytest.fixture
    def database(self, tmp_path):
        with closing(saber.Database(tmp_path / "contests.sqlite3")) as database:
            yield database

    def test_the_best_ten_of_a_contest(self, database, monkeypatch):
        monkeypatch.setattr(saber, "ROUND_TRIP_S", 0)
        scores = [entrant["score"] for entrant in database.entrants(7)]
        assert len(scores) == 10
        assert scores == sorted(scores, reverse=True)
        assert database.entrants(10_000) == []

    def test_the_round_trip_is_made_once_for_each_query(self, database, monkeypatch):
        slept = []
        monkeypatch.setattr(saber, "sleep", slept.append)
        database.entrants(1)
        assert slept == [saber.ROUND_TRIP_S]

    def test_no_more_queries_at_once_than_connections(self, database, monkeypatch):
        meeting = threading.Barrier(CONNECTIONS + 1)
        leave = threading.Event()

        def round_trip(_):
            if not leave.is_set():
                meeting.wait(10)
                leave.wait(10)

        monkeypatch.setattr(saber, "sleep", round_trip)
        threads = [threading.Thread(target=database.entrants, args=(1,)) for _ in range(CONNECTIONS + 4)]
        for thread in threads:
            thread.start()
        meeting.wait(10)  # all connections are out, and nobody else has come to its query
        assert database._free.qsize() == 0
        assert meeting.n_waiting == 0
        leave.set()
        for thread in threads:
            thread.join(10)
        assert database._free.qsize() == CONNECTIONS


def test_the_scenario_file_is_there():
    assert generator.locustfile().read_text().startswith('"""The Gronk spike')


def test_the_plans():
    full, quick = Plan(), Plan.quick()
    assert (full.before_s, full.spike_s, full.after_s, full.factor) == (10, 20, 20, 8)
    curve = full.curve(30.0)
    assert (curve.base_rps, curve.peak_rps, curve.total_s, curve.rise_s) == (18, 144, 50, 1)
    assert 3 * (quick.before_s + quick.spike_s + quick.after_s) + quick.capacity_s <= 60
    half = full.scaled(0.5, factor=3)
    assert (half.before_s, half.spike_s, half.after_s, half.capacity_s, half.factor) == (5, 10, 10, 4, 3)
    assert full.scaled(0.01, factor=8).curve(30.0).rise_s == 0.2
