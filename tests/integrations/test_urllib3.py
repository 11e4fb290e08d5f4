"""The pool manager for urllib3 against a callee on loopback."""

import gc
import importlib.util
import pickle
from pathlib import Path

import pytest
import urllib3

import groundfault.integrations.urllib3 as module
from groundfault import _context, errors, wire
from groundfault._clock import monotonic
from groundfault.breaker import Registry, Resource
from groundfault.events import CommandDone
from groundfault.integrations.urllib3 import GroundFaultPoolManager
from groundfault.vocabulary import Criticality, Outcome, Reason

_spec = importlib.util.spec_from_file_location("dripping", Path(__file__).parent / "dripping.py")
dripping = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(dripping)


@pytest.fixture
def server():
    with dripping.Dripping() as server:
        yield server


@pytest.fixture
def registry():
    return Registry(draw=lambda: 0.0)  # the throttle sends every call


@pytest.fixture
def manager(registry, sink):
    """Make managers whose every call goes through a resource of its own."""
    made = []

    def make(*, options=None, **settings):
        resource = Resource("saber", registry=registry, sinks=[sink], **settings)
        made.append(GroundFaultPoolManager(resource, **(options or {})))
        return made[-1]

    yield make
    for one in made:
        one.clear()


@pytest.fixture
def serving():
    """Pretend that a request is being served here."""
    context = _context.RequestContext("grouper", criticality=Criticality.SHEDDABLE, key="0a1b")
    token = _context.serving.set(context)
    yield context
    _context.serving.reset(token)


def outcomes(sink):
    return [event.outcome for event in sink.of(CommandDone)]


def in_flight(registry):
    return sum(command.snapshot().in_flight for command in registry)


ANSWERS = [
    ("/ok", 200, Outcome.SUCCESS),
    ("/chunks", 200, Outcome.SUCCESS),
    ("/missing", 404, Outcome.SUCCESS),
    ("/broken", 500, Outcome.FAILURE),
    ("/plain-503", 503, Outcome.FAILURE),
    ("/queue-wait", 503, Outcome.SHED),
    ("/dependency", 503, Outcome.SHED),
]


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize(("path", "status", "outcome"), ANSWERS)
def test_the_response_is_returned_as_it_is_and_judged(manager, server, registry, sink, path, status, outcome, preload):
    response = manager(timeout_s=10.0).request("GET", server.url + path, preload_content=preload)
    response.read()

    assert response.status == status
    assert outcomes(sink) == [outcome]
    assert in_flight(registry) == 0
    assert len(server.requests) == 1  # urllib3's default would have tried the 503 with Retry-After four times


def test_connections_are_used_again(manager, server):
    one = manager(timeout_s=10.0)
    for path in ("/ok", "/queue-wait", "/chunks", "/broken"):
        one.request("GET", server.url + path)

    assert server.connections == 1


def test_a_body_that_is_not_preloaded_is_in_flight_until_its_end(manager, server, registry, sink):
    response = manager().request("GET", server.url + "/chunks", preload_content=False)
    chunks = response.stream(3)
    assert next(chunks) == b"one"
    assert (in_flight(registry), outcomes(sink)) == (1, [])
    assert list(chunks) == [b"two"]

    assert (in_flight(registry), outcomes(sink)) == (0, [Outcome.SUCCESS])


@pytest.mark.parametrize("end", [lambda one: one.close(), lambda one: one.release_conn(), lambda one: one.drain_conn()])
def test_a_body_may_be_left(manager, server, registry, sink, end):
    response = manager().request("GET", server.url + "/ok", preload_content=False)
    end(response)
    response.close()

    assert (in_flight(registry), outcomes(sink)) == (0, [Outcome.SUCCESS])


def test_a_forgotten_response_gives_its_permit_back(manager, server, registry):
    one = manager()
    one.request("GET", server.url + "/ok", preload_content=False)
    gc.collect()

    assert in_flight(registry) == 0


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("path", ["/drip-headers", "/drip-body", "/drip-chunks", "/stall"])
def test_a_callee_that_drips_is_given_up(manager, server, registry, sink, path, preload):
    began = monotonic()
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        manager(timeout_s=0.2).request("GET", server.url + path, preload_content=preload).read(100_000)

    assert monotonic() - began < 10.0  # of 40
    assert outcomes(sink) == [Outcome.TIMEOUT]
    assert in_flight(registry) == 0


@pytest.mark.parametrize(
    ("url", "error", "outcome"),
    [
        ("http://127.0.0.1:1/", urllib3.exceptions.NewConnectionError, Outcome.FAILURE),
        ("{}/two-lengths", urllib3.exceptions.InvalidHeader, Outcome.FAILURE),
    ],
)
def test_the_caller_sees_urllib3s_own_error(manager, server, registry, sink, url, error, outcome):
    with pytest.raises(error) as caught:
        manager(timeout_s=10.0).request("GET", url.format(server.url))

    assert not isinstance(caught.value, errors.GroundFaultError)
    assert outcomes(sink) == [outcome]
    assert in_flight(registry) == 0


def test_a_url_of_another_kind_is_the_callers_mistake_and_no_call(manager, registry):
    with pytest.raises(urllib3.exceptions.URLSchemeUnknown):
        manager().request("GET", "gopher://saber/")

    assert list(registry) == []


def test_waiting_for_a_free_connection_is_bounded_and_says_nothing_about_the_callee(manager, server, registry, sink):
    one = manager(timeout_s=10.0, options={"pool": {"maxsize": 1, "block": True}})
    held = one.request("GET", server.url + "/chunks", preload_content=False)
    registry.get("saber", "get").tune(timeout_s=0.1)
    with pytest.raises(urllib3.exceptions.EmptyPoolError):
        one.request("GET", server.url + "/ok")
    held.read()

    assert outcomes(sink)[0] is Outcome.IGNORED
    registry.get("saber", "get").tune(timeout_s=10.0)
    assert one.request("GET", server.url + "/ok").data == b"ok"


@pytest.mark.parametrize("mode", ["force_open"])
def test_a_rejection_is_an_error_of_both(manager, server, sink, mode):
    with pytest.raises(urllib3.exceptions.HTTPError) as caught:
        manager(mode=mode).request("GET", server.url + "/ok")

    assert isinstance(caught.value, errors.CircuitOpenError)
    assert isinstance(caught.value, module.CircuitOpenError)
    assert server.requests == []
    assert outcomes(sink) == [Outcome.CIRCUIT_OPEN]


@pytest.mark.parametrize(
    "error",
    [
        module.CircuitOpenError("saber", "get", 2.0),
        module.BulkheadFullError("saber", "get", 5),
        module.ThrottledError("saber", "get", 0.25),
        module.UnhealthyError("saber", "get"),
        module.ShedError("saber", "get", Reason.QUEUE_WAIT, "saber"),
        module.CommandTimeoutError("saber", "get", 0.5),
    ],
)
def test_the_errors_are_urllib3s_errors_and_pickle(error):
    assert isinstance(error, urllib3.exceptions.HTTPError)
    assert isinstance(error, errors.GroundFaultError)

    back = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes

    assert type(back) is type(error)
    assert str(back) == str(error)


@pytest.mark.parametrize("preload", [True, False])
def test_a_shed_is_raised_on_request(manager, server, preload):
    one = manager(options={"on_shed": "raise"})
    for _ in range(2):
        with pytest.raises(urllib3.exceptions.HTTPError) as caught:
            one.request("GET", server.url + "/queue-wait", preload_content=preload)

    assert isinstance(caught.value, errors.ShedError)
    assert (caught.value.reason, caught.value.origin) == (Reason.QUEUE_WAIT, "saber")
    assert b"Ground Fault" in caught.value.response.data or b"shedding" in caught.value.response.data
    assert server.connections == 1


def test_one_hop_tells_the_callee_who_calls_and_how_long_it_waits(manager, server, serving):
    mine = {"X-GroundFault-Criticality": "critical-plus", "Accept": "text/plain"}
    manager(timeout_s=3.0).request("GET", server.url + "/ok", headers=mine)

    ours = {name: value for name, value in server.headers[0].items() if wire.is_ours(name)}
    assert ours == {
        wire.CALLER: "grouper/saber.get",
        wire.CRITICALITY: "sheddable",
        wire.KEY: "0a1b",
        wire.TIMEOUT_MS: "3000",
    }
    assert server.headers[0]["Accept"] == "text/plain"
    assert mine["X-GroundFault-Criticality"] == "critical-plus"


@pytest.mark.parametrize(
    ("timeout", "told"), [(0.25, "250"), (9.0, "3000"), (None, "3000"), (urllib3.Timeout(total=0.25), "250")]
)
def test_the_callee_is_told_of_a_shorter_timeout_of_the_request(manager, server, timeout, told):
    manager(timeout_s=3.0).request("GET", server.url + "/ok", timeout=timeout)

    assert server.headers[0][wire.TIMEOUT_MS] == told


def test_each_hop_on_the_host_is_a_call(manager, server, sink):
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        manager(timeout_s=0.2).request("GET", server.url + "/elsewhere")

    assert outcomes(sink) == [Outcome.SUCCESS, Outcome.TIMEOUT]


@pytest.mark.parametrize("preload", [True, False])
def test_a_redirect_to_another_host_is_none_of_its_calls(manager, server, sink, serving, preload):
    response = manager(timeout_s=3.0).request("GET", server.url + "/to-localhost", preload_content=preload)
    response.read()

    assert response.status == 200
    assert outcomes(sink) == [Outcome.SUCCESS]
    assert wire.CALLER in server.headers[0]
    assert not any(wire.is_ours(name) for name in server.headers[1])


def test_a_pool_that_was_asked_for_is_guarded_too(manager, server, sink):
    pool = manager().connection_from_url(server.url)
    assert pool.host == "127.0.0.1"
    pool.request("GET", "/ok")
    pool.request("POST", "/ok", fields={"a": "b"})
    pool.urlopen("GET", "/broken", None, {"Accept": "*/*"}, False)

    assert outcomes(sink) == [Outcome.SUCCESS, Outcome.SUCCESS, Outcome.FAILURE]


def test_commands_are_named_by_method_by_string_or_by_callable(manager, server, registry):
    manager().request("POST", server.url + "/ok")
    manager(options={"command": "entrants"}).request("GET", server.url + "/ok")
    by_path = {"command": lambda request: f"{request.method}{request.target.replace('/', '-')}"}
    manager(options=by_path).request("GET", server.url + "/missing")

    assert {command.name for command in registry} == {"post", "entrants", "get-missing"}


def test_a_budget_already_gone_sends_nothing(manager, server, sink, serving):
    serving.deadline = monotonic() - 0.01
    with pytest.raises(urllib3.exceptions.TimeoutError) as caught:
        manager(timeout_s=3.0).request("GET", server.url + "/ok")

    assert isinstance(caught.value, errors.CommandTimeoutError)
    assert server.requests == []
    assert outcomes(sink) == [Outcome.IGNORED]


def test_retries_of_urllib3_hide_inside_one_call(manager, server, sink):
    retries = urllib3.Retry(total=2, status_forcelist=[500], backoff_factor=0, raise_on_status=False)
    response = manager(options={"pool": {"retries": retries}}).request("GET", server.url + "/broken")

    assert response.status == 500
    assert len(server.requests) == 3
    assert outcomes(sink) == [Outcome.FAILURE]


def test_errors_that_the_settings_ignore_are_ignored(manager, sink):
    with pytest.raises(urllib3.exceptions.NewConnectionError):
        manager(ignored_errors=(urllib3.exceptions.NewConnectionError,)).request("GET", "http://127.0.0.1:1/")

    assert outcomes(sink) == [Outcome.IGNORED]


def test_the_kill_switch_leaves_an_ordinary_manager(manager, server, sink, monkeypatch):
    monkeypatch.setenv("GROUNDFAULT_DISABLED", "1")
    one = manager(mode="force_open", timeout_s=3.0, options={"on_shed": "raise"})

    assert one.request("GET", server.url + "/queue-wait").status == 503
    assert not any(wire.is_ours(name) for name in server.headers[0])
    assert outcomes(sink) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_shed": "ignore"}, "on_shed must be 'return' or 'raise', not 'ignore'"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"command": "Not A Name!"}, "Not A Name!"),
        ({"maxsize": 1}, "maxsize"),
    ],
)
def test_nonsense_is_refused_with_the_field_and_the_value(arguments, message):
    with pytest.raises(errors.SettingsError, match=message):
        GroundFaultPoolManager("saber-nonsense", **arguments)


def test_settings_belong_to_the_resource_that_was_passed(registry):
    with pytest.raises(errors.SettingsError, match="belong to the Resource"):
        GroundFaultPoolManager(Resource("saber", registry=registry), timeout_s=1.0)
