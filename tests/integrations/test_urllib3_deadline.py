"""A call over urllib3 ends with its deadline, whatever the callee drips; through the requests adapter."""

import importlib.util
import logging
import pickle
import socket
import ssl
from pathlib import Path

import pytest
import requests
import urllib3

from groundfault._clock import monotonic
from groundfault.breaker import Registry, Resource
from groundfault.events import CommandDone
from groundfault.integrations import _urllib3_body, _urllib3_deadline
from groundfault.integrations._urllib3_deadline import Deadline, bound, within
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.testing import ManualClock
from groundfault.vocabulary import Outcome

_spec = importlib.util.spec_from_file_location("dripping", Path(__file__).parent / "dripping.py")
dripping = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(dripping)

TIMEOUT_S = 0.2
FAR_BELOW_THE_DRIPPING_S = 10.0  # a call without a deadline takes 40 s


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return dripping.certificate_in(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context


@pytest.fixture
def plain_server():
    with dripping.Dripping() as server:
        yield server


@pytest.fixture
def tls_server(tls):
    with dripping.Dripping(tls=tls) as server:
        yield server


@pytest.fixture(params=["http", "https"])
def server(request):
    return request.getfixturevalue("plain_server" if request.param == "http" else "tls_server")


@pytest.fixture
def session(sink, certificate):
    """Make sessions whose every call goes through a resource of its own."""
    made = []

    def make(*, timeout_s=TIMEOUT_S, adapter=None):
        session = requests.Session()
        session.trust_env = False
        session.verify = str(certificate / "cert.pem")
        resource = Resource("saber", registry=Registry(), sinks=[sink], timeout_s=timeout_s)
        for scheme in ("http://", "https://"):
            session.mount(scheme, GroundFaultAdapter(resource, **(adapter or {})))
        made.append(session)
        return session

    yield make
    for session in made:
        session.close()


def outcomes(sink):
    return [event.outcome for event in sink.of(CommandDone)]


class Ended:
    """Holds that what happens inside ends long before the callee would."""

    def __enter__(self):
        self._began = monotonic()

    def __exit__(self, *_):
        assert monotonic() - self._began < FAR_BELOW_THE_DRIPPING_S


@pytest.mark.parametrize("path", dripping.DRIPPING)
def test_a_callee_that_drips_is_given_up(session, server, sink, path):
    with Ended(), pytest.raises(requests.RequestException) as caught:
        session().get(server.url + path)

    assert isinstance(caught.value, requests.Timeout) or "Read timed out" in str(caught.value)
    assert outcomes(sink) == [Outcome.TIMEOUT]


@pytest.mark.parametrize("path", dripping.DRIPPING_HEADERS)
def test_headers_that_drip_end_as_requests_ends_a_read(session, server, path):
    with Ended(), pytest.raises(requests.ReadTimeout, match=r"HTTPS?ConnectionPool\(host='127.0.0.1'"):
        session().get(server.url + path)


@pytest.mark.parametrize("path", ["/drip-headers", "/drip-body", "/drip-chunk-size"])
def test_so_it_is_on_a_connection_that_has_been_used(session, server, sink, path):
    one = session()
    one.get(server.url + "/ok")
    one.get(server.url + "/ok")
    with Ended(), pytest.raises(requests.RequestException):
        one.get(server.url + path)

    assert server.connections == 1
    assert outcomes(sink) == [Outcome.SUCCESS, Outcome.SUCCESS, Outcome.TIMEOUT]


def test_a_timeout_of_the_request_itself_makes_no_difference(session, server, sink):
    with Ended(), pytest.raises(requests.ReadTimeout):
        session().get(server.url + "/drip-headers", timeout=urllib3.Timeout(connect=30, read=30))

    assert outcomes(sink) == [Outcome.TIMEOUT]


def test_each_hop_of_a_redirect_has_a_deadline_of_its_own(session, server, sink):
    with Ended(), pytest.raises(requests.ReadTimeout):
        session().get(server.url + "/elsewhere")

    assert outcomes(sink) == [Outcome.SUCCESS, Outcome.TIMEOUT]


def test_what_is_given_up_leaves_a_session_that_works(session, server, sink):
    one = session(adapter={"pool_maxsize": 1, "pool_block": True})
    for path in ("/drip-headers", "/drip-body"):
        with pytest.raises(requests.RequestException):
            one.get(server.url + path)
    one.get_adapter(server.url)._resource.command("get").tune(timeout_s=None)

    assert one.get(server.url + "/ok").content == b"ok"
    assert outcomes(sink) == [Outcome.TIMEOUT, Outcome.TIMEOUT, Outcome.SUCCESS]


def test_without_a_timeout_nothing_is_bounded(session, server, sink):
    one = session(timeout_s=None)
    with one.get(server.url + "/drip-body", stream=True) as response:
        assert response.raw.read(20) == b"x" * 20  # twice as long as the timeout of the other tests

    assert outcomes(sink) == [Outcome.SUCCESS]


def test_a_connection_whose_headers_are_refused_is_closed(session, plain_server, monkeypatch):
    made = []

    def remember(self):
        made.append(new_conn(self))
        return made[-1]

    new_conn = urllib3.connection.HTTPConnection._new_conn
    monkeypatch.setattr(urllib3.connection.HTTPConnection, "_new_conn", remember)
    with pytest.raises(requests.exceptions.InvalidHeader) as caught:
        session(timeout_s=10.0).get(plain_server.url + "/two-lengths")

    assert caught.tb is not None  # its frames would keep the answer open
    assert [one.fileno() for one in made] == [-1]


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/drip-body", "/drip-chunks", "/drip-chunk-size", "/drip-to-the-end", "/stall"])
def test_a_stream_is_given_up_too(session, server, sink, path):
    response = session().get(server.url + path, stream=True)
    with Ended(), pytest.raises(requests.ConnectionError, match="Read timed out"):
        for _ in response.iter_content(1):
            pass

    assert outcomes(sink) == [Outcome.TIMEOUT]


@pytest.fixture
def later(monkeypatch):
    """Let time pass without waiting for it."""
    passed = ManualClock(0.0)
    for module in (_urllib3_deadline, _urllib3_body):
        monkeypatch.setattr(module, "monotonic", lambda: monotonic() + passed())
    return passed


@pytest.mark.parametrize("path", ["/drip-body", "/drip-chunks"])
def test_the_time_that_the_consumer_takes_is_its_own(session, server, sink, later, path):
    with session(timeout_s=5.0).get(server.url + path, stream=True) as response:
        chunks = response.iter_content(1)
        for _ in range(5):
            later.advance(100.0)
            assert next(chunks) == b"x"

    assert outcomes(sink) == [Outcome.SUCCESS]
    assert sink.of(CommandDone)[0].duration_s < 5.0


def test_what_has_arrived_before_the_end_is_read_after_it(session, server, sink, later):
    """The deadline is for waiting: nobody waits for what is here."""
    with session(timeout_s=5.0).get(server.url + "/ok", stream=True) as response:
        later.advance(100.0)
        assert response.content == b"ok"

    assert outcomes(sink) == [Outcome.SUCCESS]


@pytest.mark.parametrize(("path", "ends"), [("/broken", True), ("/drip-broken", False)])
def test_the_body_of_a_streamed_5xx_is_bounded_as_well(session, server, sink, later, path, ends):
    response = session().get(server.url + path, stream=True)
    assert outcomes(sink) == [Outcome.FAILURE]  # already
    later.advance(100.0)
    if ends:
        assert response.content == b"broken"
    else:
        with Ended(), pytest.raises(requests.ConnectionError, match="Read timed out"):
            response.content  # noqa: B018  reading it is what is tried

    assert outcomes(sink) == [Outcome.FAILURE]


# --- before the answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("greeting", [(b"", b""), (b"\x16\x03\x03\x40\x00", b"\x02")], ids=["silent", "dripping"])
def test_a_handshake_is_bounded(session, sink, greeting):
    with dripping.Dripping(greeting=greeting) as server, Ended(), pytest.raises(requests.Timeout):
        session().get(f"https://127.0.0.1:{server.port}/ok")

    assert outcomes(sink) == [Outcome.TIMEOUT]


@pytest.mark.parametrize("body", ["bytes", "chunks"])
def test_a_callee_that_reads_slowly_is_given_up(session, server, sink, body):
    whole = bytes(16_000_000)
    data = whole if body == "bytes" else (whole[start : start + 4000] for start in range(0, len(whole), 4000))
    with Ended(), pytest.raises(requests.ReadTimeout):
        session(timeout_s=0.5).post(server.url + "/slow-upload", data=data)

    assert outcomes(sink) == [Outcome.TIMEOUT]


def test_waiting_for_a_free_connection_is_bounded_and_says_nothing_about_the_callee(session, server, sink):
    one = session(timeout_s=5.0, adapter={"pool_maxsize": 1, "pool_block": True})
    with one.get(server.url + "/drip-body", stream=True):
        one.get_adapter(server.url)._resource.command("get").tune(timeout_s=0.1)
        with Ended(), pytest.raises(requests.ConnectTimeout):
            one.get(server.url + "/ok")
        one.get_adapter(server.url)._resource.command("get").tune(timeout_s=5.0)
    assert one.get(server.url + "/ok").content == b"ok"

    assert outcomes(sink) == [Outcome.IGNORED, Outcome.SUCCESS, Outcome.SUCCESS]


# --- what a user has mounted beside it --------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "outcome"), [("/ok", Outcome.SUCCESS), ("/drip-headers", Outcome.TIMEOUT)])
def test_through_a_proxy(session, server, plain_server, sink, path, outcome):
    """A plain request is forwarded, by the callee itself for want of a proxy; one over TLS goes through a tunnel."""
    with dripping.Dripping() as proxy, Ended():
        one = session(timeout_s=TIMEOUT_S if path != "/ok" else 10.0)
        one.proxies = {"http": plain_server.url, "https": proxy.url}
        if outcome is Outcome.SUCCESS:
            assert one.get(server.url + path).content == b"ok"
        else:
            with pytest.raises(requests.ReadTimeout):
                one.get(server.url + path)

        assert [method for method, _ in proxy.requests] == (["CONNECT"] if server is not plain_server else [])
    assert outcomes(sink) == [outcome]


def test_a_tunnel_that_drips_is_given_up(session, plain_server, sink):
    one = session()
    one.proxies = {"https": plain_server.url}
    with Ended(), pytest.raises(requests.Timeout):
        one.get("https://dripping.test/ok")

    assert plain_server.requests == [("CONNECT", "dripping.test:443")]
    assert outcomes(sink) == [Outcome.TIMEOUT]


def test_client_certificates_are_shown(session, tls, certificate):
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(certificate / "cert.pem")
    with dripping.Dripping(tls=tls) as server:
        one = session(timeout_s=10.0)
        one.cert = (str(certificate / "cert.pem"), str(certificate / "key.pem"))
        assert one.get(server.url + "/ok").content == b"ok"
        one.cert = None
        with pytest.raises(requests.ConnectionError):
            one.get(server.url + "/ok")


def test_an_adapter_that_was_pickled_keeps_deadlines(plain_server):
    name = f"saber-dripping-{plain_server.port}"  # in the registry of the process
    adapter = pickle.loads(pickle.dumps(GroundFaultAdapter(name, timeout_s=TIMEOUT_S)))  # noqa: S301  our own bytes
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", adapter)
        with Ended(), pytest.raises(requests.ReadTimeout):
            session.get(plain_server.url + "/drip-headers")


def test_urllib3s_own_retries_share_the_deadline(session, plain_server, sink):
    with Ended(), pytest.raises(requests.RequestException):
        session(adapter={"max_retries": urllib3.Retry(2, backoff_factor=0)}).get(plain_server.url + "/drip-headers")

    assert plain_server.connections == 1  # for the next there was no time left
    assert outcomes(sink) == [Outcome.TIMEOUT]


# --- another urllib3 --------------------------------------------------------------------------------------------------


class Recorder:
    """Stands for a connection, as recorders for tests do, and is none of urllib3's."""

    def __init__(self, *args, **kwargs):
        vars(self)["real"] = urllib3.connection.HTTPConnection(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.real, name)

    def __setattr__(self, name, value):
        setattr(self.real, name, value)


class Strange(urllib3.connection.HTTPConnection):
    """Reads its answers in a way of its own, as HTTP/2 does."""

    def getresponse(self):
        self.response_class = __import__("http.client").client.HTTPResponse
        return super().getresponse()


@pytest.fixture
def warned(monkeypatch, caplog):
    monkeypatch.setattr(_urllib3_deadline, "_warned", set())
    caplog.set_level(logging.WARNING, "groundfault")
    return lambda: [record.message for record in caplog.records if "keeps no deadline" in record.message]


def make_recorder(*args, **kwargs):
    return Recorder(*args, **kwargs)


@pytest.mark.parametrize("kind", [Recorder, Strange, make_recorder], ids=["recorder", "strange", "function"])
def test_connections_of_another_kind_work_and_are_warned_of_once(
    session, plain_server, sink, monkeypatch, warned, kind
):
    one = session(timeout_s=10.0)
    one.get(plain_server.url + "/ok")
    assert warned() == []
    monkeypatch.setattr(
        urllib3.HTTPConnectionPool, "ConnectionCls", kind if isinstance(kind, type) else staticmethod(kind)
    )
    for _ in range(3):
        other = session(timeout_s=10.0)
        assert other.get(plain_server.url + "/ok").content == b"ok"

    assert len(warned()) == 1
    assert kind.__name__ in warned()[0]
    assert outcomes(sink) == [Outcome.SUCCESS] * 4


def test_a_connection_class_set_on_a_pool_is_used(session, plain_server):
    class Counted(urllib3.connection.HTTPConnection):
        made = 0

        def connect(self):
            Counted.made += 1
            super().connect()

    one = session()
    request = requests.Request("GET", plain_server.url).prepare()
    pool = one.get_adapter(plain_server.url).get_connection_with_tls_context(request, one.verify)
    pool.ConnectionCls = Counted
    with Ended(), pytest.raises(requests.ReadTimeout):
        one.get(plain_server.url + "/drip-headers")

    assert Counted.made == 1


def test_a_manager_of_another_kind_is_left_alone(warned):
    manager = object()
    bound(manager)
    bound(manager)

    assert len(warned()) == 1


def test_a_socket_without_a_timeout_is_read_as_it_is(warned):
    class Answered:
        def makefile(self, *_):
            return open("/dev/null", "rb")  # noqa: PTH123  closed below

        def close(self):
            pass

    with within(Deadline(monotonic() + 5.0)):
        connection = _urllib3_deadline._bounded_connection(urllib3.connection.HTTPConnection)("127.0.0.1")
        response = connection.response_class(Answered())
    response.close()

    assert len(warned()) == 1


# --- the deadline itself ----------------------------------------------------------------------------------------------


@pytest.fixture
def deadline(monkeypatch, clock):
    monkeypatch.setattr(_urllib3_deadline, "monotonic", clock)
    return Deadline(clock() + 2.0)


@pytest.mark.parametrize(
    ("timeout", "least"), [(None, 2.0), (1.5, 1.5), (3, 2.0), (urllib3.Timeout.DEFAULT_TIMEOUT, 2.0)]
)
def test_the_least_of_a_timeout_and_what_is_left(deadline, timeout, least):
    assert deadline.least(timeout) == least


@pytest.mark.parametrize("passed_s", [2.0, 50.0])
def test_when_nothing_is_left(deadline, clock, passed_s):
    clock.advance(passed_s)
    with pytest.raises(TimeoutError):
        deadline.least(None)


def connection_of(**methods):
    kind = type("Slow", (urllib3.connection.HTTPSConnection,), methods)
    return _urllib3_deadline._bounded_connection(kind)("127.0.0.1", 1, timeout=30.0)


@pytest.mark.parametrize("step", ["_new_conn", "_tunnel"])
def test_a_handshake_gets_what_the_steps_before_it_have_left(deadline, clock, step):
    left, right = socket.socketpair()
    with left, right, within(deadline):

        def slow(self):
            clock.advance(1.25)
            return left

        connection = connection_of(**{step: slow})
        connection.sock = left
        getattr(connection, step)()
        assert left.gettimeout() == 0.75

        with pytest.raises(urllib3.exceptions.ConnectTimeoutError):
            getattr(connection, step)()
        assert (left.fileno() == -1) is (step == "_new_conn")  # nobody else could close that one


def test_connecting_is_not_begun_when_nothing_is_left(deadline, clock):
    clock.advance(2.0)
    with within(deadline), pytest.raises(urllib3.exceptions.ConnectTimeoutError):
        connection_of(connect=lambda _: pytest.fail("connected")).connect()


def test_it_stands_still_while_it_is_paused(deadline, clock):
    clock.advance(0.5)
    deadline.pause()
    clock.advance(10.0)
    deadline.pause()
    assert deadline.least(None) == 1.5
    deadline.resume()
    clock.advance(0.5)
    deadline.resume()
    assert deadline.least(None) == 1.0
