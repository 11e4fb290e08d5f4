"""The recipes for retry libraries, as the documentation has them, against callees on loopback that shed."""

import importlib.util
import itertools
import re
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests
import stamina
import urllib3

from groundfault import Outcome, Reason, Registry, Resource, RetryBudget, errors, retryable
from groundfault.events import CommandDone
from groundfault.integrations.requests import GroundFaultAdapter

_spec = importlib.util.spec_from_file_location("dripping", Path(__file__).parent / "dripping.py")
dripping = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(dripping)

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "retries.md"
RETRYABLE = {Reason.QUEUE_WAIT, Reason.CONCURRENCY, Reason.DRAINING}
CALLS = 200


def recipe(name):
    """Run the block of the page that defines ``name`` and return what it defines."""
    (block,) = [
        block
        for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
        if re.search(rf"^(def|class) {name}\b", block, re.MULTILINE)
    ]
    namespace = {"__name__": "recipe"}
    exec(compile(block, str(PAGE), "exec"), namespace)  # noqa: S102  our own documentation
    return namespace


@pytest.fixture(scope="module", autouse=True)
def _without_instruments():
    """Keep stamina from looking for Prometheus and logging each retry."""
    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([])
    yield
    stamina.instrumentation.set_on_retry_hooks(before)


@pytest.fixture
def server():
    with dripping.Dripping() as server:
        yield server


@pytest.fixture
def registry():
    return Registry(draw=lambda: 0.0)  # the throttle sends every call


@pytest.fixture
def session(registry, sink):
    """Make sessions whose calls are calls of ``saber/get``."""
    made = []

    def make(**adapter):
        session = requests.Session()
        session.trust_env = False
        session.mount("http://", GroundFaultAdapter(Resource("saber", registry=registry, sinks=[sink]), **adapter))
        made.append(session)
        return session

    yield make
    for session in made:
        session.close()


@pytest.fixture
def command(registry, sink):
    return Resource("saber", registry=registry, sinks=[sink]).command("get")


@pytest.fixture(params=[("tenacity", "raise"), ("tenacity", "return"), ("stamina", "raise")], ids="-".join)
def outside(request, session, command):
    """Return a recipe that retries outside the command, as ``outside(urls, budget)``: one call, a URL for each try."""
    library, on_shed = request.param  # stamina looks at errors only
    one = session(on_shed=on_shed)
    use = recipe(f"with_{library}")[f"with_{library}"]

    def attempt(urls, budget, asked=None):
        tries = iter(urls)
        return use(lambda: one.get(next(tries)), command if asked is None else asked, budget)

    return attempt


def ended(outside, *arguments, **keywords):
    """Return the status that the caller sees at last, raised or returned."""
    try:
        return outside(*arguments, **keywords).status_code
    except errors.ShedError as error:
        return error.response.status_code


@pytest.mark.parametrize("reason", Reason)
def test_a_shed_is_tried_once_more_on_another_replica_if_its_reason_allows_it(server, outside, sink, reason):
    with dripping.Dripping() as other:
        status = ended(outside, [f"{server.url}/{reason}", f"{other.url}/ok"], RetryBudget())

        assert status == (200 if reason in RETRYABLE else 503)
        assert len(server.requests) == 1
        assert len(other.requests) == (reason in RETRYABLE)
    outcomes = [event.outcome for event in sink.of(CommandDone)]
    assert outcomes == [Outcome.SHED, Outcome.SUCCESS][: 1 + (reason in RETRYABLE)]  # each try is a call


@pytest.mark.parametrize("path", ["/ok", "/broken", "/plain-503", "/missing"])
def test_what_is_no_shed_is_not_tried_again(server, outside, path):
    budget = RetryBudget()
    outside([server.url + path], budget)

    assert len(server.requests) == 1
    assert (budget.snapshot().first_tries, budget.snapshot().retries) == (1, 0)


def test_what_the_command_refuses_is_not_tried_again(server, outside, command):
    command.tune(mode="force_open")
    with pytest.raises(errors.CircuitOpenError):
        outside([server.url + "/ok"], RetryBudget())

    assert server.requests == []


def test_once_means_once(server, outside):
    assert ended(outside, itertools.repeat(server.url + "/queue-wait"), RetryBudget()) == 503

    assert len(server.requests) == 2


def test_a_budget_that_is_used_up_stops_retries(server, outside):
    budget = RetryBudget(minimum_per_s=0.0)
    for _ in range(9):
        ended(outside, [f"{server.url}/queue-wait"], budget)
    assert len(server.requests) == 9

    ended(outside, [f"{server.url}/queue-wait"] * 2, budget)  # the tenth first try pays for one retry
    assert len(server.requests) == 11


class Unthrottled:
    """Answers for a command whose throttle sends everything."""

    admitted_share = 1.0

    def snapshot(self):
        return self


@pytest.mark.parametrize("minimum", [0, 10])
def test_a_callee_that_sheds_everything_is_asked_little_more_often(server, outside, monkeypatch, minimum):
    monkeypatch.setattr("time.sleep", lambda _seconds: None)  # the libraries' pauses, and nobody else's
    budget = RetryBudget(minimum_per_s=minimum / 3600.0, window_s=3600.0)  # one window, however slow this machine is
    for _ in range(CALLS):
        ended(outside, itertools.repeat(server.url + "/queue-wait"), budget, Unthrottled())

    assert len(server.requests) == CALLS + CALLS // 10 + minimum


def test_nothing_is_tried_again_while_the_throttle_spares_the_callee(server, outside):
    class Throttled(Unthrottled):
        admitted_share = 0.5

    assert ended(outside, [server.url + "/queue-wait"], RetryBudget(), Throttled()) == 503
    assert len(server.requests) == 1


# --- below the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def shed_retry():
    """Return the page's retry object and its budget, which is made anew with each run of the block."""
    names = recipe("ShedRetry")
    names["session"].close()
    return names["once"].new(backoff_jitter=0.0, backoff_factor=0.0), names["ShedRetry"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", [*(f"/{reason}" for reason in Reason), "/plain-503", "/broken", "/ok"])
def test_urllib3s_retry_asks_first(server, session, sink, caplog, shed_retry, method, path):
    once, _ = shed_retry
    response = session(max_retries=once).request(method, server.url + path, data=b"x" if method == "POST" else None)

    assert response.status_code == {"/ok": 200, "/broken": 500}.get(path, 503)
    assert len(server.requests) == (2 if path.strip("/") in RETRYABLE else 1)
    assert len(sink.of(CommandDone)) == 1  # hidden below the circuit
    assert "retries 1 times below the circuit" in caplog.text


def test_urllib3s_retry_keeps_within_the_budget(server, session, shed_retry):
    once, kind = shed_retry
    kind.budget = RetryBudget(minimum_per_s=0.0, window_s=3600.0)
    one = session(max_retries=once)
    for _ in range(CALLS):
        assert one.get(server.url + "/queue-wait").status_code == 503

    assert len(server.requests) == CALLS + CALLS // 10
    assert kind.budget.snapshot().first_tries == CALLS


def test_urllib3s_retry_leaves_other_errors_as_they_were(session, sink, shed_retry):
    once, _ = shed_retry
    with pytest.raises(requests.ConnectionError):
        session(max_retries=once).get("http://127.0.0.1:1/")

    assert [event.outcome for event in sink.of(CommandDone)] == [Outcome.FAILURE]


@pytest.mark.parametrize("reason", Reason)
def test_urllib3s_default_policy_tries_no_shed_again(server, reason):
    with urllib3.PoolManager() as pool:
        assert pool.request("GET", f"{server.url}/{reason}").status == 503

    assert len(server.requests) == 1


# --- what the libraries hand over -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", Reason)
def test_responses_and_errors_of_every_client_library_are_understood(server, reason):
    url, expected = f"{server.url}/{reason}", reason in RETRYABLE
    seen = []
    response = requests.get(url, timeout=30)
    seen.append(response)
    with pytest.raises(requests.HTTPError) as of_requests:
        response.raise_for_status()
    seen.append(of_requests.value)
    response = httpx.get(url, trust_env=False)
    seen.append(response)
    with pytest.raises(httpx.HTTPStatusError) as of_httpx:
        response.raise_for_status()
    seen.append(of_httpx.value)
    with urllib3.PoolManager() as pool:
        seen.append(pool.request("GET", url))

    assert [retryable(one) for one in seen] == [expected] * 5


@pytest.mark.parametrize("reason", Reason)
def test_those_of_aiohttp_too(server, reason):
    import asyncio  # noqa: PLC0415  for this one test

    async def get():
        async with aiohttp.ClientSession() as session, session.get(f"{server.url}/{reason}") as response:
            with pytest.raises(aiohttp.ClientResponseError) as caught:
                response.raise_for_status()
            return [retryable(response), retryable(caught.value)]

    assert asyncio.run(get()) == [reason in RETRYABLE] * 2
