"""The requests adapter against a real HTTP server on loopback."""

import copy
import gc
import gzip
import io
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
import urllib3

import groundfault.integrations.requests as adapter_module
from groundfault import _context, errors, events, wire
from groundfault._clock import monotonic
from groundfault.breaker import Registry, Resource
from groundfault.breaker import registry as default_registry
from groundfault.events import CommandDone
from groundfault.integrations._http import is_internal
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.vocabulary import Criticality, Outcome, Reason, State


class Server(ThreadingHTTPServer):
    """Answers as the path says and remembers what it was asked."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hits = []
        self.connections = 0
        self.release = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for a delayed acknowledgment

    def setup(self):
        self.server.connections += 1
        super().setup()

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.hits.append((self.command, self.path, dict(self.headers)))
        getattr(self, f"_{self.path.strip('/').split('/')[0].split('?')[0].replace('-', '_')}")()

    do_HEAD = do_POST = do_GET  # noqa: N815  http.server's own names

    def _answer(self, status, body=b"ok", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _ok(self):
        self._answer(200)

    def _empty(self):
        self._answer(204, b"")

    def _missing(self):
        self._answer(404)

    def _broken(self):
        self._answer(500)

    def _plain_503(self):
        self._answer(503)

    def _shed(self):
        whole = wire.answer(Reason.QUEUE_WAIT, "saber")
        self._answer(503, whole.body, whole.headers)

    def _passed_on(self):
        whole = wire.answer(Reason.DEPENDENCY, "saber")
        self._answer(503, whole.body, whole.headers)

    def _doubled(self):
        self._answer(503, headers=[(wire.HANDLED, "handled"), (wire.HANDLED, "handled")])

    def _handled_200(self):
        self._answer(200, headers=[(wire.HANDLED, "handled")])

    def _elsewhere(self):
        self._answer(302, b"", [("Location", f"http://localhost:{self.server.server_port}/ok")])

    def _hang(self):
        self.server.release.wait(5)
        self._answer(200)

    def _stalling_body(self):
        self._answer(200, b"half", [("Content-Length", "8")])
        self.wfile.flush()
        self.server.release.wait(5)
        self.close_connection = True

    def _cut_body(self):
        self._answer(200, b"half", [("Content-Length", "8")])
        self.close_connection = True

    def _drip(self):
        self._answer(200, b"", [("Content-Length", "1000")])
        for _ in range(1000):
            self.wfile.write(b"x")
            if self.server.release.wait(0.02):
                break
        self.close_connection = True

    def _two_lengths(self):
        self._answer(200, b"ok", [("Content-Length", "2, 3")])
        self.close_connection = True

    def _packed(self):
        self._answer(200, gzip.compress(b"one\ntwo\n"), [("Content-Encoding", "gzip")])

    def _packed_chunks(self):
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        body = gzip.compress(b"one\ntwo\n" * 50_000)
        for start in range(0, len(body), 100):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(body[start : start + 100]), body[start : start + 100]))
        self.wfile.write(b"0\r\n\r\n")

    def _until_closed(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * 300_000)
        self.close_connection = True

    def _shed_in_chunks(self):
        self.send_response(503)
        for name, value in wire.annotations(Reason.QUEUE_WAIT, "saber"):
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"4\r\nbusy\r\n0\r\n\r\n")

    def _chunks(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in (b"one", b"two", b"three"):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def registry():
    return Registry(draw=lambda: 0.0)  # the throttle sends every call


@pytest.fixture
def guarded(server, registry, sink):
    """Make a session whose calls to the server go through a resource of its own."""
    sessions = []

    def make(*, adapter=None, sinks=(sink,), **settings):
        session = requests.Session()
        session.trust_env = False
        resource = Resource("saber", registry=registry, sinks=sinks, **settings)
        session.mount(server.url, GroundFaultAdapter(resource, **(adapter or {})))
        sessions.append(session)
        return session

    yield make
    for session in sessions:
        session.close()


@pytest.fixture
def serving():
    """Pretend that a request is being served here."""
    context = _context.RequestContext("grouper", criticality=Criticality.SHEDDABLE, key="0a1b")
    token = _context.serving.set(context)
    yield context
    _context.serving.reset(token)


def command_of(registry, name="get"):
    return next(command for command in registry if command.name == name)


def outcomes(sink):
    return [event.outcome for event in sink.of(CommandDone)]


@pytest.mark.parametrize(
    ("path", "status", "outcome"),
    [
        ("/ok", 200, Outcome.SUCCESS),
        ("/empty", 204, Outcome.SUCCESS),
        ("/missing", 404, Outcome.SUCCESS),
        ("/chunks", 200, Outcome.SUCCESS),
        ("/broken", 500, Outcome.FAILURE),
        ("/plain-503", 503, Outcome.FAILURE),
        ("/shed", 503, Outcome.SHED),
        ("/passed-on", 503, Outcome.SHED),
        ("/doubled", 503, Outcome.FAILURE),
        ("/handled-200", 200, Outcome.SUCCESS),
        ("/shed-in-chunks", 503, Outcome.SHED),
    ],
)
def test_the_response_is_returned_as_it_is_and_judged(guarded, server, registry, sink, path, status, outcome):
    response = guarded().get(server.url + path)

    assert response.status_code == status
    assert outcomes(sink) == [outcome]
    assert command_of(registry).snapshot().in_flight == 0


def test_an_annotated_503_is_read_to_its_end_and_its_connection_used_again(guarded, server):
    session = guarded()
    for _ in range(5):
        assert b"queue-wait" not in session.get(server.url + "/shed", stream=True).content

    assert server.connections == 1


def test_sheds_never_open_the_circuit_and_plain_503s_do(guarded, server, registry):
    session = guarded()
    for _ in range(40):
        session.get(server.url + "/shed")

    assert command_of(registry).snapshot().state is State.CLOSED

    plain = guarded(adapter={"command": "plain"})
    for _ in range(20):
        plain.get(server.url + "/plain-503")

    assert command_of(registry, "plain").snapshot().state is State.OPEN


def test_an_open_circuit_raises_an_error_that_is_both_ours_and_the_librarys(guarded, server):
    session = guarded()
    for _ in range(20):
        session.get(server.url + "/broken")
    before = len(server.hits)

    with pytest.raises(requests.exceptions.ConnectionError) as caught:
        session.get(server.url + "/ok")

    assert isinstance(caught.value, errors.CircuitOpenError)
    assert isinstance(caught.value, adapter_module.CircuitOpenError)
    assert caught.value.request.method == "GET"
    assert "saber/get" in str(caught.value)
    assert len(server.hits) == before


@pytest.mark.parametrize(
    "error",
    [
        adapter_module.CircuitOpenError("saber", "get", 2.0),
        adapter_module.BulkheadFullError("saber", "get", 5),
        adapter_module.ThrottledError("saber", "get", 0.25),
        adapter_module.UnhealthyError("saber", "get"),
        adapter_module.ShedError("saber", "get", Reason.QUEUE_WAIT, "saber"),
        adapter_module.CommandTimeoutError("saber", "get", 0.5),
    ],
)
def test_the_adapters_errors_are_requests_errors_and_pickle(error):
    assert isinstance(error, requests.RequestException)
    assert isinstance(error, errors.GroundFaultError)

    back = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes

    assert type(back) is type(error)
    assert str(back) == str(error)


def test_a_shed_is_raised_on_request_and_carries_the_response(guarded, server):
    with pytest.raises(requests.HTTPError) as caught:
        guarded(adapter={"on_shed": "raise"}).get(server.url + "/shed")

    assert isinstance(caught.value, errors.ShedError)
    assert (caught.value.reason, caught.value.origin) == (Reason.QUEUE_WAIT, "saber")
    assert caught.value.response.status_code == 503


def cached(_request):
    response = requests.Response()
    response.status_code = 203
    return response


@pytest.mark.parametrize(
    "path", ["/shed", "/passed-on", "/broken", "/plain-503", "/hang", "/cut-body", "/stalling-body", "/drip"]
)
def test_a_fallback_is_served_and_counted(guarded, server, registry, sink, serving, path):
    response = guarded(adapter={"fallback": cached}, timeout_s=0.1).get(server.url + path)

    assert response.status_code == 203
    assert [event.fallback for event in sink.of(CommandDone)] == [True]
    assert command_of(registry).snapshot().fallbacks == 1
    assert serving.faults == []


def test_a_fallback_is_served_for_a_rejection_too(guarded, server, sink, serving):
    response = guarded(adapter={"fallback": cached}, mode="force_open").get(server.url + "/ok")

    assert response.status_code == 203
    assert server.hits == []
    assert [event.fallback for event in sink.of(CommandDone)] == [True]
    assert serving.faults == []


@pytest.mark.parametrize("path", ["/ok", "/missing"])
def test_a_fallback_is_not_served_where_nothing_is_wrong(guarded, server, sink, path):
    assert guarded(adapter={"fallback": cached}).get(server.url + path).status_code in {200, 404}
    assert [event.fallback for event in sink.of(CommandDone)] == [False]


@pytest.mark.parametrize(("path", "mode"), [("/ok", "force_open"), ("/hang", "enforce"), ("/cut-body", "enforce")])
def test_a_fallback_that_raises_leaves_the_original_error_and_its_fault(
    guarded, server, registry, sink, serving, path, mode
):
    with pytest.raises(requests.RequestException) as caught:
        guarded(adapter={"fallback": lambda _request: {}["cache"]}, timeout_s=0.1, mode=mode).get(server.url + path)

    causes = [caught.value.__cause__, caught.value.__cause__.__cause__]
    assert any(isinstance(cause, KeyError) for cause in causes)
    assert serving.fault_behind(caught.value) is not None
    assert [event.fallback for event in sink.of(CommandDone)] == [False]
    assert command_of(registry).snapshot().fallbacks == 0


def test_a_fallback_that_raises_leaves_the_original_response(guarded, server):
    response = guarded(adapter={"fallback": lambda _request: {}["cache"]}).get(server.url + "/broken")

    assert (response.status_code, response.content) == (500, b"ok")


@pytest.mark.parametrize("honored", [True, False])
def test_the_annotation_counts_only_if_the_resource_honors_it(guarded, server, sink, honored):
    guarded(honor_handled=honored).get(server.url + "/shed")

    assert outcomes(sink) == [Outcome.SHED if honored else Outcome.FAILURE]


@pytest.mark.parametrize(
    ("host", "internal"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("::1", True),
        ("fd00::1", True),
        ("saber", True),
        ("saber.prod.svc", True),
        ("saber.default.svc.cluster.local", True),
        ("SABER.INTERNAL", True),
        ("8.8.8.8", False),
        ("2001:4860:4860::8888", False),
        ("api.example.com", False),
        ("localhost.example.com", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:8.8.8.8", False),
    ],
)
def test_only_hosts_of_ones_own_network_are_believed_unasked(host, internal):
    assert is_internal(host) is internal


def test_a_refused_connection_is_a_failure_with_requests_own_error(guarded, server, sink):
    session = guarded()
    session.mount("http://127.0.0.1:1/", session.get_adapter(server.url))

    with pytest.raises(requests.ConnectionError) as caught:
        session.get("http://127.0.0.1:1/ok")

    assert not isinstance(caught.value, errors.GroundFaultError)
    assert outcomes(sink) == [Outcome.FAILURE]


@pytest.mark.parametrize("timeout", [None, 9.0, (9.0, None), (0.05, 0.05)])
def test_the_commands_timeout_bounds_the_read_and_counts_against_the_callee(guarded, server, sink, timeout):
    with pytest.raises(requests.Timeout):
        guarded(timeout_s=0.05).get(server.url + "/hang", timeout=timeout)

    assert outcomes(sink) == [Outcome.TIMEOUT]


def test_running_out_of_a_callers_tiny_budget_is_neutral(guarded, server, sink, serving):
    serving.deadline = monotonic() + 0.05

    with pytest.raises(requests.Timeout):
        guarded(timeout_s=3.0).get(server.url + "/hang")

    assert outcomes(sink) == [Outcome.IGNORED]


def test_running_out_of_nearly_the_whole_timeout_is_not(guarded, server, sink, serving):
    serving.deadline = monotonic() + 0.08

    with pytest.raises(requests.Timeout):
        guarded(timeout_s=0.1).get(server.url + "/hang")

    assert outcomes(sink) == [Outcome.TIMEOUT]


def test_a_budget_already_gone_sends_nothing(guarded, server, registry, sink, serving):
    serving.deadline = monotonic() - 0.01

    with pytest.raises(requests.Timeout) as caught:
        guarded(timeout_s=3.0).get(server.url + "/ok")

    assert isinstance(caught.value, errors.CommandTimeoutError)
    assert server.hits == []
    assert outcomes(sink) == [Outcome.IGNORED]
    assert command_of(registry).snapshot().in_flight == 0


def test_one_hop_tells_the_callee_who_calls_and_how_long_it_waits(guarded, server, serving):
    serving.deadline = monotonic() + 0.4
    guarded(timeout_s=3.0).get(
        server.url + "/ok", headers={"X-GroundFault-Criticality": "critical-plus", "X-GroundFault-Odd": "1"}
    )

    (_, _, headers) = server.hits[0]
    ours = {name: value for name, value in headers.items() if wire.is_ours(name)}
    assert 300 <= int(ours.pop(wire.TIMEOUT_MS)) <= 400
    assert ours == {wire.CALLER: "grouper/saber.get", wire.CRITICALITY: "sheddable", wire.KEY: "0a1b"}


def test_without_a_request_being_served_only_the_timeout_is_told(guarded, server, monkeypatch):
    monkeypatch.delenv("GROUNDFAULT_SERVICE", raising=False)
    guarded(timeout_s=3.0).get(server.url + "/ok")

    assert {name: value for name, value in server.hits[0][2].items() if wire.is_ours(name)} == {wire.TIMEOUT_MS: "3000"}


def test_the_headers_do_not_follow_a_redirect_to_another_host(guarded, server, serving):
    response = guarded().get(server.url + "/elsewhere")

    assert response.status_code == 200
    assert wire.CALLER in server.hits[0][2]
    assert not any(wire.is_ours(name) for name in server.hits[1][2])
    assert not any(wire.is_ours(name) for name in response.history[0].request.headers)


def test_a_streamed_body_is_in_flight_until_its_end(guarded, server, registry, sink):
    with guarded().get(server.url + "/chunks", stream=True) as response:
        chunks = response.iter_content(3)
        next(chunks)

        assert command_of(registry).snapshot().in_flight == 1
        assert outcomes(sink) == []

        assert b"".join(chunks) == b"twothree"

    assert command_of(registry).snapshot().in_flight == 0
    assert outcomes(sink) == [Outcome.SUCCESS]


def test_a_body_closed_early_is_judged_by_its_status(guarded, server, registry, sink):
    guarded().get(server.url + "/chunks", stream=True).close()

    assert command_of(registry).snapshot().in_flight == 0
    assert outcomes(sink) == [Outcome.SUCCESS]


def test_a_forgotten_response_gives_its_permit_back(guarded, server, registry):
    session = guarded()
    session.get(server.url + "/chunks", stream=True)
    gc.collect()

    snapshot = command_of(registry).snapshot()
    assert snapshot.in_flight == 0
    assert snapshot.counts[Outcome.IGNORED] == 1


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        ("/stalling-body", Outcome.TIMEOUT),
        ("/drip", Outcome.TIMEOUT),
        ("/cut-body", Outcome.FAILURE),
        ("/two-lengths", Outcome.FAILURE),
    ],
)
def test_a_body_that_stalls_or_breaks_speaks_against_the_callee(guarded, server, registry, sink, path, outcome):
    with pytest.raises(requests.RequestException):
        guarded(timeout_s=0.1).get(server.url + path)

    assert outcomes(sink) == [outcome]
    assert command_of(registry).snapshot().in_flight == 0


@pytest.mark.parametrize("path", ["/stalling-body", "/cut-body", "/hang", "/broken", "/plain-503", "/shed"])
def test_the_error_the_application_sees_is_found_in_the_ledger(guarded, server, serving, path):
    with pytest.raises(requests.RequestException) as caught:
        guarded(timeout_s=0.1).get(server.url + path).raise_for_status()

    fault = serving.fault_behind(caught.value)
    assert fault is not None
    assert (fault.resource, fault.reason) == ("saber", Reason.DEPENDENCY)
    assert fault.origin == ("saber" if path == "/shed" else None)


def test_an_unrelated_error_is_not_put_down_to_a_fault(guarded, server, serving):
    guarded().get(server.url + "/broken")

    assert serving.faults
    assert serving.fault_behind(KeyError("a bug of the application")) is None


def test_only_so_many_calls_at_a_time(guarded, server, registry):
    session = guarded(max_concurrent=1)
    with session.get(server.url + "/chunks", stream=True), pytest.raises(requests.ConnectionError) as caught:
        session.get(server.url + "/ok")

    assert isinstance(caught.value, errors.BulkheadFullError)
    assert command_of(registry).snapshot().state is State.CLOSED


def test_commands_are_named_by_method_by_string_or_by_callable(guarded, server, registry):
    guarded().post(server.url + "/ok", data=b"x")
    guarded(adapter={"command": "entrants"}).get(server.url + "/ok")
    guarded(adapter={"command": lambda request: request.path_url.strip("/")}).get(server.url + "/missing")

    assert {command.name for command in registry} == {"post", "entrants", "missing"}


def test_names_without_end_are_counted_together(guarded, server, registry):
    numbers = iter(range(1000))
    session = guarded(adapter={"command": lambda _request: f"entry-{next(numbers)}"})
    for _ in range(205):
        session.get(server.url + "/ok")
    guarded(adapter={"command": lambda _request: "Not A Name!"}).get(server.url + "/ok")

    names = {command.name for command in registry}
    assert len(names) == 201
    assert "other" in names


def test_a_url_without_a_host_is_the_callers_error_and_creates_nothing(registry):
    adapter = GroundFaultAdapter(Resource("saber", registry=registry))
    with requests.Session() as session:
        session.mount("http://", adapter)
        with pytest.raises(requests.exceptions.InvalidURL):
            session.get("http:///ok")

    assert list(registry) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_shed": "ignore"}, "on_shed must be 'return' or 'raise', not 'ignore'"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"failure_threshold": 2}, "failure_threshold"),
        ({"command": "Not A Name!"}, "Not A Name!"),
        ({"no_such_setting": 1}, "no_such_setting"),
    ],
)
def test_nonsense_is_refused_with_the_field_and_the_value(arguments, message):
    with pytest.raises(errors.SettingsError, match=message):
        GroundFaultAdapter("saber-nonsense", **arguments)


def test_hidden_retries_are_warned_of(caplog, registry):
    GroundFaultAdapter(Resource("saber", registry=registry), max_retries=3)

    assert "retries 3 times below the circuit" in caplog.text


def test_many_threads_leave_nothing_in_flight(guarded, server, registry):
    session = guarded(adapter={"pool_maxsize": 8})
    paths = ["/ok", "/broken", "/shed", "/chunks", "/missing"] * 24

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda path: session.get(server.url + path).status_code, paths))

    assert len(statuses) == len(paths)
    snapshot = command_of(registry).snapshot()
    assert snapshot.in_flight == 0
    assert snapshot.counts[Outcome.SUCCESS] == 72
    assert snapshot.counts[Outcome.FAILURE] == 24


def test_a_body_that_trickles_is_given_up(guarded, server):
    began = monotonic()
    with pytest.raises(requests.ConnectionError):
        guarded(timeout_s=0.2).get(server.url + "/drip")  # never 0.2 s between two bytes, 20 s in all

    assert monotonic() - began < 3


def _raise_for_status(response, **_arguments):
    response.raise_for_status()


@pytest.mark.parametrize("stream", [False, True])
def test_a_5xx_that_raises_before_its_body_is_read_still_counts(guarded, server, registry, stream):
    session = guarded()
    session.hooks["response"] = [_raise_for_status]
    kept = []
    for path in ["/broken"] * 3 + ["/shed"]:
        with pytest.raises(requests.HTTPError) as caught:
            session.get(server.url + path, stream=stream)
        kept.append(caught.value)

    snapshot = command_of(registry).snapshot()
    assert (snapshot.counts[Outcome.FAILURE], snapshot.counts[Outcome.SHED], snapshot.in_flight) == (3, 1, 0)
    for error in kept:
        error.response.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_shed_keeps_its_body_whatever_its_length(guarded, server, stream):
    assert guarded().get(server.url + "/shed-in-chunks", stream=stream).content == b"busy"


def _copied(raw):
    target = io.BytesIO()
    shutil.copyfileobj(raw, target)
    return target.getvalue()


def _entered(raw):
    with raw as entered:
        return entered.read()


@pytest.mark.parametrize(
    "read",
    [
        _copied,
        _entered,
        lambda raw: io.BufferedReader(raw).read(),
        lambda raw: b"".join(iter(raw.readline, b"")),
        lambda raw: b"".join(raw.readlines()),
        b"".join,
        lambda raw: raw.data,
    ],
    ids=["copyfileobj", "with", "BufferedReader", "readline", "readlines", "iter", "data"],
)
def test_the_raw_body_is_read_as_urllib3s_own_and_settles(guarded, server, registry, read):
    response = guarded().get(server.url + "/packed", stream=True)
    response.raw.decode_content = True  # as the documentation of requests' users has it

    assert read(response.raw) == b"one\ntwo\n"
    snapshot = command_of(registry).snapshot()
    assert (snapshot.counts[Outcome.SUCCESS], snapshot.in_flight) == (1, 0)


@pytest.mark.parametrize("clone", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy])  # noqa: S301  our own
def test_a_session_is_copied_with_its_adapter(server, clone):
    session = requests.Session()
    session.trust_env = False
    name = f"saber-copied-{server.server_port}"  # in the registry of the process
    session.mount(server.url, GroundFaultAdapter(name, command="scores", timeout_s=2.0, fallback=cached))

    with clone(session) as copied:
        assert copied.get(server.url + "/ok").status_code == 200
        assert copied.get(server.url + "/broken").status_code == 203

    (command,) = [command for command in default_registry() if command.resource == name]
    assert command.settings.timeout_s == 2.0
    assert command.snapshot().fallbacks == 1


def test_an_adapter_on_a_registry_of_its_own_says_that_it_does_not_pickle(registry):
    adapter = GroundFaultAdapter(Resource("saber", registry=registry))

    with pytest.raises(TypeError, match="registry of its own"):
        pickle.dumps(adapter)


def test_a_urllib3_timeout_is_capped_too(guarded, server, sink):
    with pytest.raises(requests.Timeout):
        guarded(timeout_s=0.1).get(server.url + "/hang", timeout=urllib3.Timeout(connect=9.0, read=9.0))

    assert outcomes(sink) == [Outcome.TIMEOUT]


@pytest.mark.parametrize(
    ("timeout", "told"), [(0.25, "250"), ((9.0, 0.25), "250"), (9.0, "3000"), ((0.25, None), "3000"), (None, "3000")]
)
def test_the_callee_is_told_of_a_shorter_timeout_of_the_request_itself(guarded, server, timeout, told):
    guarded(timeout_s=3.0).get(server.url + "/ok", timeout=timeout)

    assert server.hits[0][2][wire.TIMEOUT_MS] == told


def test_errors_that_the_settings_ignore_are_ignored(guarded, server, sink):
    with pytest.raises(requests.ReadTimeout):
        guarded(timeout_s=0.05, ignored_errors=(requests.ReadTimeout,)).get(server.url + "/hang")

    assert outcomes(sink) == [Outcome.IGNORED]


def test_a_budget_that_runs_out_is_served_no_fallback(guarded, server, registry, sink, serving):
    serving.deadline = monotonic() + 0.05

    with pytest.raises(requests.Timeout):
        guarded(adapter={"fallback": cached}, timeout_s=3.0).get(server.url + "/hang")

    assert outcomes(sink) == [Outcome.IGNORED]
    assert command_of(registry).snapshot().fallbacks == 0


def test_a_fallback_further_out_makes_good_what_the_adapter_noted(guarded, server, registry, serving):
    session = guarded(mode="force_open")
    outer = Resource("page", registry=registry).command("scores", fallback="old scores")
    healthy = guarded(adapter={"command": "open"}, mode="enforce")

    def scores(one, path):
        response = one.get(server.url + path)
        response.raise_for_status()

    assert outer.call(scores, healthy, "/broken") == "old scores"
    assert serving.faults == []
    assert outer.call(scores, session, "/ok") == "old scores"  # neutral for the outer command, yet it had no answer
    assert serving.faults == []


def test_a_callable_that_finds_no_name_costs_no_request(guarded, server, registry):
    assert guarded(adapter={"command": lambda _request: {}["route"]}).get(server.url + "/ok").status_code == 200

    assert [command.name for command in registry] == ["other"]


def test_the_kill_switch_leaves_an_ordinary_adapter(guarded, server, registry, serving, monkeypatch):
    monkeypatch.setenv("GROUNDFAULT_DISABLED", "1")
    serving.deadline = monotonic() - 1
    session = guarded(adapter={"on_shed": "raise", "fallback": cached}, timeout_s=3.0, mode="force_open")

    assert session.get(server.url + "/shed").status_code == 503
    assert session.get(server.url + "/ok", stream=True).raw.__class__ is urllib3.HTTPResponse
    assert not any(wire.is_ours(name) for _, _, headers in server.hits for name in headers)
    assert serving.faults == []


@pytest.mark.parametrize("timeout_s", [None, 5.0])
@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("HEAD", "/packed", b""),
        ("GET", "/empty", b""),
        ("GET", "/packed", b"one\ntwo\n"),
        ("GET", "/packed-chunks", b"one\ntwo\n" * 50_000),
        ("GET", "/until-closed", b"x" * 300_000),
        ("GET", "/chunks", b"onetwothree"),
    ],
)
def test_a_body_read_within_a_time_is_the_same_body(guarded, server, registry, timeout_s, method, path, content):
    response = guarded(timeout_s=timeout_s).request(method, server.url + path)

    assert response.content == content
    assert response.raw.closed
    snapshot = command_of(registry, method.lower()).snapshot()
    assert (snapshot.counts[Outcome.SUCCESS], snapshot.in_flight) == (1, 0)


@pytest.mark.parametrize("path", ["/ok", "/chunks", "/packed-chunks", "/empty", "/shed-in-chunks"])
def test_a_body_read_within_a_time_leaves_its_connection_for_the_next(guarded, server, path):
    session = guarded(timeout_s=5.0)
    for _ in range(3):
        session.get(server.url + path)

    assert server.connections == 1


class _Interrupted(BaseException):
    """What a framework stops a thread or a greenlet with."""


def test_an_interruption_of_a_body_is_not_held_against_the_callee_for_its_consumer_s_pace(
    guarded, server, sink, monkeypatch
):
    with guarded(timeout_s=0.2).get(server.url + "/ok", stream=True) as response:
        monkeypatch.setattr(response.raw, "_began", monotonic() - 10.0)  # ten seconds in the hands of the application

        def interrupted(*_, **__):
            raise _Interrupted

        monkeypatch.setattr(response.raw._raw, "read", interrupted)
        with pytest.raises(_Interrupted):
            response.raw.read()
    assert outcomes(sink) == [Outcome.IGNORED]


def test_an_error_for_a_shed_does_not_hold_the_frame_that_raised_it(guarded, server):
    session = guarded(adapter={"on_shed": "raise"})
    with pytest.raises(errors.ShedError) as caught:
        session.get(server.url + "/shed")
    frame = caught.value.__traceback__.tb_next
    while frame is not None:
        assert caught.value not in [value for name, value in frame.tb_frame.f_locals.items() if name == "error"]
        frame = frame.tb_next


@pytest.mark.parametrize(
    ("fallback", "error"),
    [
        (lambda _request: "text", "TypeError"),
        (lambda _request: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_fallback_that_serves_nothing_of_use_is_counted_and_leaves_the_original(
    guarded, server, registry, fallback, error
):
    response = guarded(adapter={"fallback": fallback}).get(server.url + "/broken")
    assert response.status_code == 500
    snapshot = command_of(registry).snapshot()
    assert (snapshot.fallbacks, snapshot.fallbacks_failed) == (0, 1)


def test_a_fallback_that_takes_too_long_is_not_served_after_all(guarded, server, registry):
    begun, go = threading.Event(), threading.Event()

    def fallback(request):
        begun.set()
        go.wait(10)
        return cached(request)

    session = guarded(adapter={"fallback": fallback}, mode="force_open", fallback_timeout_s=0.01)
    with pytest.raises(errors.CircuitOpenError) as caught:
        session.get(server.url + "/ok")
    assert isinstance(caught.value.__cause__.__cause__, errors.CommandTimeoutError)
    go.set()
    assert (command_of(registry).snapshot().fallbacks, command_of(registry).snapshot().fallbacks_failed) == (0, 1)


@pytest.mark.parametrize("fallback", ["text", [], 3])
def test_what_is_no_fallback_is_refused(fallback):
    with pytest.raises(errors.SettingsError, match="fallback must be a plain callable"):
        GroundFaultAdapter("saber", fallback=fallback)


def test_what_is_no_fallback_here_is_refused():
    async def awaited(request):
        return request

    with pytest.raises(errors.SettingsError, match="nobody here awaits it"):
        GroundFaultAdapter("saber", fallback=awaited)


@pytest.mark.parametrize(("argument", "value"), [("resource", 3), ("command", 3)])
def test_what_is_neither_a_name_nor_what_has_one_is_refused(argument, value):
    with pytest.raises(errors.SettingsError, match=f"{argument} must be a"):
        GroundFaultAdapter(**{"resource": "saber", argument: value})


def test_settings_asked_for_otherwise_elsewhere_cost_no_request(server, registry, sink):
    """The first to ask has decided; that is told, but not by an error out of somebody's request."""
    sessions = []
    for timeout_s in (5.0, 6.0):
        session = requests.Session()
        session.trust_env = False
        resource = Resource("saber", registry=registry, sinks=[sink], timeout_s=timeout_s)
        session.mount("http://", GroundFaultAdapter(resource))
        sessions.append(session)
    with sessions[0], sessions[1]:
        assert [session.get(server.url + "/ok").status_code for session in sessions] == [200, 200]
    assert command_of(registry).settings.timeout_s == 5.0
    assert "settings of saber/get" in events.internal_errors()
