"""Both halves together: topps calls grouper calls saber, over real HTTP, through the adapter and the middleware.

What matters is who counts what: a fault is counted by exactly one circuit, the one next to it.
"""

import threading
from dataclasses import dataclass, field

import pytest
import requests
from werkzeug.serving import make_server

from groundfault import wire
from groundfault.breaker import Registry, Resource
from groundfault.events import CircuitChanged
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.shedding.wsgi import WSGILoadShedder
from groundfault.testing import RecordingSink
from groundfault.vocabulary import Outcome, State


@dataclass
class Hop:
    """One service: its middleware, its registry of commands, and where it listens."""

    name: str
    url: str
    middleware: WSGILoadShedder
    registry: Registry
    sink: RecordingSink = field(default_factory=RecordingSink)

    def edge(self):
        (command,) = self.registry
        return command.snapshot()


def answering(status, body=b"ok", headers=()):
    def app(environ, start_response):
        start_response(status, [("Content-Length", str(len(body))), *headers])
        return [body]

    return app


def calling(session, url, *, careless=False):
    """Make a service that needs another one and lets requests' own errors pass, as most code does."""

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/bug":
            raise KeyError("nothing to do with any dependency")
        if environ["PATH_INFO"] == "/alone":
            return answering("200 OK")(environ, start_response)
        response = session.get(url)
        if careless and not response.ok:
            return answering("502 Bad Gateway")(environ, start_response)
        response.raise_for_status()
        return answering("200 OK", response.content)(environ, start_response)

    return app


def without_annotations(app):
    """Leave the header out, as a service without GroundFault in the same place would."""

    def stripped(environ, start_response):
        def start(status, headers, exc_info=None):
            return start_response(status, [pair for pair in headers if not wire.is_ours(pair[0])], exc_info)

        return app(environ, start)

    return stripped


@pytest.fixture
def serve():
    running = []

    def start(app):
        server = make_server("127.0.0.1", 0, app, threaded=True)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def chain(serve):
    """Build saber, grouper, topps in this order; ``saber`` is saber's own application."""
    sessions = []

    def hop(name, app_of, callee=None, *, wrap=lambda app: app):
        registry, sink = Registry(draw=lambda: 0.0), RecordingSink()  # the throttle sends every call
        session = requests.Session()
        session.trust_env = False
        sessions.append(session)
        if callee is not None:
            resource = Resource(callee.name, registry=registry, sinks=[sink])
            session.mount(callee.url, GroundFaultAdapter(resource))
        middleware = WSGILoadShedder(app_of(session), service=name, sinks=[sink])
        return Hop(name, serve(wrap(middleware)), middleware, registry, sink)

    def build(saber_app, *, wrap=lambda app: app, careless=False):
        saber = hop("saber", lambda _session: saber_app, wrap=wrap)
        grouper = hop("grouper", lambda session: calling(session, saber.url, careless=careless), saber, wrap=wrap)
        topps = hop("topps", lambda session: calling(session, grouper.url, careless=careless), grouper, wrap=wrap)
        return topps, grouper, saber

    yield build
    for session in sessions:
        session.close()


def ask(url, path=""):
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url + path)


def trips(hop):
    return [event for event in hop.sink.of(CircuitChanged) if event.new is State.OPEN]


@pytest.mark.parametrize("careless", [False, True], ids=["error raised", "502 answered"])
def test_a_shed_goes_up_the_chain_annotated_and_trips_nobody(chain, careless):
    topps, grouper, saber = chain(answering("200 OK"), careless=careless)
    saber.middleware.shedder.drain()

    for _ in range(30):
        response = ask(topps.url)

        assert response.status_code == 503
        assert response.headers[wire.HANDLED] == "handled"
        assert response.headers[wire.ORIGIN] in {"saber", "grouper"}

    assert trips(topps) == trips(grouper) == []
    assert grouper.edge().counts[Outcome.SHED] > 0
    assert grouper.edge().counts[Outcome.FAILURE] == 0
    assert topps.edge().counts[Outcome.SHED] == 30


def test_the_reason_says_who_refused(chain):
    topps, _grouper, saber = chain(answering("200 OK"))
    saber.middleware.shedder.drain()

    assert ask(saber.url).headers[wire.REASON] == "draining"
    assert ask(topps.url).headers[wire.REASON] == "dependency"
    assert ask(topps.url).headers[wire.ORIGIN] == "saber"


def test_a_failure_is_counted_by_the_circuit_next_to_it_and_by_no_other(chain):
    topps, grouper, _saber = chain(answering("500 Internal Server Error"))

    reasons = [ask(topps.url).headers[wire.REASON] for _ in range(40)]

    assert set(reasons) == {"dependency"}
    assert len(trips(grouper)) == 1
    assert trips(topps) == []
    assert topps.edge().counts[Outcome.FAILURE] == 0
    assert ask(grouper.url).headers[wire.REASON] == "circuit-open"


def test_requests_that_do_not_need_the_failing_service_go_on(chain):
    topps, _grouper, _saber = chain(answering("500 Internal Server Error"))
    for _ in range(40):
        ask(topps.url)

    assert ask(topps.url, "alone").status_code == 200


def test_without_the_header_the_same_services_trip_each_other(chain):
    topps, grouper, saber = chain(answering("200 OK"), wrap=without_annotations)
    saber.middleware.shedder.drain()

    for _ in range(60):
        assert ask(topps.url).status_code in {500, 503}

    assert len(trips(grouper)) >= 1
    assert len(trips(topps)) >= 1


def test_a_bug_of_the_application_stays_a_plain_error(chain):
    topps, grouper, _saber = chain(answering("200 OK"))

    response = ask(grouper.url, "bug")

    assert response.status_code == 500
    assert wire.HANDLED not in response.headers
    assert topps.middleware is not None


def test_a_service_cannot_pass_on_an_annotation_of_its_callee(chain):
    copied = answering("503 Service Unavailable", b"", [(wire.HANDLED, "handled"), (wire.REASON, "queue-wait")])
    _topps, _grouper, saber = chain(copied)

    response = ask(saber.url)

    assert response.status_code == 503
    assert not any(wire.is_ours(name) for name in response.headers)
