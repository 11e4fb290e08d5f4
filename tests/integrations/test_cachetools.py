"""The last good answers as a fallback: what is remembered, for how long, and for whom it is served."""

import asyncio
import functools
import gc
import inspect
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from cachetools.keys import methodkey

from groundfault import errors, events
from groundfault.breaker import Registry, Resource
from groundfault.events import CommandDone
from groundfault.integrations.cachetools import CachedFallback, NothingRememberedError
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.vocabulary import Outcome


@pytest.fixture
def cached(clock):
    return CachedFallback(maxsize=3, max_age_s=10.0, clock=clock)


@pytest.fixture
def resource(sink):
    return Resource("saber", registry=Registry(), sinks=[sink])


class Callee:
    """A function that works until it is told to fail."""

    def __init__(self):
        self.calls = 0
        self.failing = False

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.failing:
            raise ConnectionError("down")
        return [self.calls, args, kwargs]


class CoroutineCallee(Callee):
    async def __call__(self, *args, **kwargs):
        await asyncio.sleep(0)
        return super().__call__(*args, **kwargs)


@pytest.fixture(params=[Callee, CoroutineCallee])
def callee(request):
    return request.param()


def outcome_of(result):
    return asyncio.run(result) if inspect.iscoroutine(result) else result


def test_the_last_good_answer_is_served_while_the_callee_fails(cached, callee, resource, sink):
    command = resource.command("scores", fallback=cached)
    scores = command(cached.remember(callee))
    outcome_of(scores("gronk"))
    good = outcome_of(scores("gronk"))
    callee.failing = True

    assert outcome_of(scores("gronk")) is good  # shared, not copied
    with pytest.raises(ConnectionError) as caught:
        outcome_of(scores("splork"))

    assert isinstance(caught.value.__context__, NothingRememberedError)
    assert [event.fallback for event in sink.of(CommandDone)] == [False, False, True, False]
    assert command.snapshot().fallbacks == 1
    assert (cached.hits, cached.misses, len(cached)) == (1, 1, 1)


def test_it_is_served_for_a_refusal_as_well(cached, callee, resource):
    command = resource.command("scores", fallback=cached)
    scores = command(cached.remember(callee))
    good = outcome_of(scores("gronk", page=2))
    command.tune(mode="force_open")

    assert outcome_of(scores("gronk", page=2)) is good
    with pytest.raises(errors.CircuitOpenError):
        outcome_of(scores("gronk", page=3))
    assert callee.calls == 1


@pytest.mark.parametrize(("age_s", "served"), [(0.0, True), (9.9, True), (10.0, False), (10.1, False), (1e6, False)])
def test_nothing_older_than_the_limit_is_ever_served(cached, clock, age_s, served):
    cached.keep("scores", "gronk")
    clock.advance(age_s)

    if served:
        assert cached("gronk") == "scores"
    else:
        with pytest.raises(NothingRememberedError, match=r"no result of the last 10 s"):
            cached("gronk")
    assert len(cached) == served


def test_serving_a_result_does_not_make_it_younger(cached, callee, resource, clock):
    scores = resource.command("scores", fallback=cached)(cached.remember(callee))
    outcome_of(scores("gronk"))
    callee.failing = True
    for _ in range(9):
        clock.advance(1.0)
        assert outcome_of(scores("gronk"))[0] == 1
    clock.advance(1.0)

    with pytest.raises(ConnectionError):
        outcome_of(scores("gronk"))


def test_a_new_result_takes_the_place_of_the_old_one_and_its_age(cached, clock):
    cached.keep("old", "gronk")
    clock.advance(6.0)
    cached.keep("new", "gronk")
    clock.advance(6.0)

    assert cached("gronk") == "new"


def test_none_is_a_result_and_a_miss_is_not_none(cached):
    cached.keep(None, "gronk")

    assert cached("gronk") is None
    with pytest.raises(LookupError):
        cached("splork")
    assert (cached.hits, cached.misses) == (1, 1)


def test_as_many_results_as_allowed_are_kept_and_the_least_recently_used_goes_first(cached):
    for name in "abc":
        cached.keep(name.upper(), name)
    cached("a")
    for name in ["d", *map(str, range(1000)), "e"]:
        cached.keep(name.upper(), name)
        if name == "d":
            assert [cached("a"), cached("c"), cached("d")] == ["A", "C", "D"]
            with pytest.raises(NothingRememberedError):
                cached("b")

    assert len(cached) == 3


def test_arguments_that_cannot_be_hashed_are_not_remembered_and_that_is_no_error(cached, callee, resource):
    scores = resource.command("scores", fallback=cached)(cached.remember(callee))
    assert outcome_of(scores(["gronk"], page={}))[0] == 1
    callee.failing = True

    with pytest.raises(ConnectionError):
        outcome_of(scores(["gronk"], page={}))
    assert (len(cached), cached.misses) == (0, 1)
    assert not events.internal_errors()


def test_a_key_of_ones_own_says_what_an_answer_depends_on(callee, resource):
    cached = CachedFallback(key=lambda contest, *, trace=None: contest)
    scores = resource.command("scores", fallback=cached)(cached.remember(callee))
    good = outcome_of(scores("gronk", trace=1))
    callee.failing = True

    assert outcome_of(scores("gronk", trace=2)) is good


@pytest.mark.parametrize("broken", [{"key": lambda *_a: {}["key"]}, {"keep_if": lambda _result: {}["good"]}])
def test_a_key_or_a_condition_that_raises_takes_no_result_away(callee, resource, broken):
    cached = CachedFallback(**broken)
    scores = resource.command("scores", fallback=cached)(cached.remember(callee))
    assert outcome_of(scores("gronk"))[0] == 1
    assert sum(events.internal_errors().values()) == 1
    callee.failing = True

    with pytest.raises(ConnectionError):
        outcome_of(scores("gronk"))


def test_a_result_that_the_command_judges_a_failure_is_not_kept(clock, resource):
    cached = CachedFallback(keep_if=lambda answer: answer["status"] == 200)
    answers = iter([{"status": 200}, {"status": 500}])
    command = resource.command(
        "scores",
        fallback=cached,
        classify=lambda answer: Outcome.FAILURE if answer["status"] >= 500 else None,
    )
    fetch = command(cached.remember(lambda: next(answers)))

    assert fetch() == {"status": 200}
    assert fetch() == {"status": 200}
    assert command.snapshot().counts[Outcome.FAILURE] == 1


class Contest:
    def __init__(self, callee):
        self.callee = callee


def test_a_method_is_remembered_for_its_object(cached, callee, resource):
    class Site(Contest):
        @resource.command("scores", fallback=cached)
        @cached.remember
        def scores(self, name):
            return outcome_of(self.callee(name))

    one, other = Site(callee), Site(callee)
    good = one.scores("gronk")
    callee.failing = True

    assert one.scores("gronk") is good
    with pytest.raises(ConnectionError):
        other.scores("gronk")


def test_a_methods_object_can_be_left_out_of_the_key_and_is_then_not_held(callee, resource):
    cached = CachedFallback(key=methodkey)

    class Site(Contest):
        @resource.command("scores", fallback=cached)
        @cached.remember
        def scores(self, name):
            return outcome_of(self.callee(name))

        @classmethod
        @cached.remember
        def of_all(cls):
            return "all"

    one = Site(callee)
    good = one.scores("gronk")
    gone = weakref.ref(one)
    del one
    gc.collect()
    callee.failing = True

    assert gone() is None
    assert Site(callee).scores("gronk") is good
    assert Site.of_all() == "all"
    assert len(cached) == 2


def plain(a, *, b=1):
    """Say so."""
    return a + b


async def coroutine(a, *, b=1):
    """Say so."""
    return a + b


@pytest.mark.parametrize("fn", [plain, coroutine])
def test_kind_signature_and_name_are_kept(cached, fn):
    remembering = cached.remember(fn)

    assert inspect.iscoroutinefunction(remembering) is inspect.iscoroutinefunction(fn)
    assert inspect.signature(remembering) == inspect.signature(fn)
    assert (remembering.__name__, remembering.__doc__) == (fn.__name__, fn.__doc__)
    assert outcome_of(remembering(1, b=2)) == cached(1, b=2) == 3


@pytest.mark.parametrize(
    "wrap",
    [lambda fn: functools.partial(fn, 1), staticmethod],
    ids=["partial", "staticmethod"],
)
@pytest.mark.parametrize("fn", [plain, coroutine])
def test_partials_and_static_methods_are_remembered_too(cached, wrap, fn):
    remembering = cached.remember(wrap(fn))
    if isinstance(remembering, staticmethod):
        assert outcome_of(remembering.__func__(1)) == cached(1) == 2
    else:
        assert outcome_of(remembering(b=2)) == cached(b=2) == 3


def generator():
    yield 1


async def async_generator():
    yield 1


@pytest.mark.parametrize("fn", [generator, async_generator, functools.partial(generator), 7])
def test_what_can_be_used_only_once_or_not_be_called_is_refused(cached, fn):
    with pytest.raises(TypeError, match=r"only once|functions and other callables"):
        cached.remember(fn)


def test_an_awaitable_of_a_plain_function_is_not_remembered(cached):
    remembering = cached.remember(lambda a: coroutine(a))  # noqa: PLW0108  a plain function is what it must be

    assert asyncio.run(remembering(1)) == 2
    assert len(cached) == 0


def test_what_raises_is_not_remembered_and_raised_as_it_is(cached, callee):
    callee.failing = True

    with pytest.raises(ConnectionError):
        outcome_of(cached.remember(callee)("gronk"))
    assert len(cached) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"maxsize": 0}, "maxsize must be a whole number of at least 1, not 0"),
        ({"maxsize": True}, "maxsize"),
        ({"maxsize": 1.5}, "maxsize"),
        ({"max_age_s": 0}, "max_age_s must be finite and above 0, not 0"),
        ({"max_age_s": float("inf")}, "max_age_s"),
        ({"max_age_s": float("nan")}, "max_age_s"),
        ({"max_age_s": None}, "max_age_s"),
        ({"key": "url"}, "key must be a callable or None, not 'url'"),
        ({"keep_if": 200}, "keep_if must be a callable or None, not 200"),
    ],
)
def test_nonsense_is_refused_with_the_field_and_the_value(arguments, message):
    with pytest.raises(errors.SettingsError, match=message):
        CachedFallback(**arguments)


def test_clearing_forgets_the_results_and_keeps_the_counts(cached):
    cached.keep("scores", "gronk")
    cached("gronk")
    cached.clear()

    assert (len(cached), cached.hits, bool(cached)) == (0, 1, True)
    assert repr(cached) == "<CachedFallback of 0, hits 1, misses 0>"


def test_no_lock_is_held_while_a_function_runs(cached):
    barrier = threading.Barrier(8, timeout=30)
    wait = cached.remember(lambda n: barrier.wait() and n)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(wait, range(8)))  # would time out if one waited for another

    assert len(cached) == 3


def test_many_threads_agree_about_the_counts(clock):
    cached = CachedFallback(maxsize=16, max_age_s=10.0, clock=clock)
    start = threading.Barrier(8, timeout=30)

    def work(seed):
        start.wait()
        found = 0
        for n in range(2000):
            key = (seed * 7 + n) % 24
            cached.keep(key, key)
            try:
                assert cached((key + 1) % 24) == (key + 1) % 24
                found += 1
            except NothingRememberedError:
                pass
            if n % 100 == 0:
                clock.advance(1.0)
        return found

    with ThreadPoolExecutor(8) as pool:
        found = sum(pool.map(work, range(8)))

    assert (cached.hits, cached.misses) == (found, 8 * 2000 - found)
    assert 0 < len(cached) <= 16


def test_a_result_whose_finalizer_calls_again_does_not_lock_up(cached):
    class Result:
        def __del__(self):
            cached.keep("from the finalizer", "last")

    cached.keep(Result(), "gronk")
    cached.keep("scores", "gronk")

    assert cached("last") == "from the finalizer"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_a_lock_of_its_own_and_begins_with_nothing(cached):
    cached.keep("scores", "gronk")
    held, release = threading.Event(), threading.Event()

    def hold():
        with cached._lock:
            held.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    child = os.fork()
    if child == 0:
        cached.keep("scores", "splork")
        os._exit(0 if len(cached) == 1 and cached("splork") == "scores" else 1)
    release.set()
    holder.join()

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cached("gronk") == "scores"


@pytest.fixture
def replies():
    """Return what the server behind the adapter answers next: statuses, or errors."""
    return []


@pytest.fixture
def session(replies, resource, cached_responses):
    def send(request, *_arguments):
        reply = replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        response = requests.Response()
        response.status_code, response._content, response.request = reply, str(reply).encode(), request
        response.raw = None
        return response

    def remember(response, **_options):
        if not hasattr(response, "remembered"):
            response.remembered = True
            cached_responses.keep(response, response.request)

    with requests.Session() as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr("requests.adapters.HTTPAdapter.send", lambda _self, request, *rest: send(request, *rest))
        made.trust_env = False
        made.mount("http://saber/", GroundFaultAdapter(resource, fallback=cached_responses))
        made.hooks["response"].append(remember)
        yield made


@pytest.fixture
def cached_responses(clock):
    return CachedFallback(
        max_age_s=10.0,
        key=lambda request: (request.method, request.url),
        keep_if=lambda response: response.status_code == 200,
        clock=clock,
    )


def test_whole_responses_are_served_by_the_requests_adapter(session, replies, clock, cached_responses):
    replies += [200, 500, requests.ConnectionError("down"), 500]
    good = session.get("http://saber/scores")
    for _ in range(2):
        clock.advance(4.0)
        served = session.get("http://saber/scores")
        assert (served.status_code, served.content) == (200, b"200")
    assert good.content == b"200"
    clock.advance(4.0)  # the two that were served have not made it younger

    assert session.get("http://saber/scores").status_code == 500
    assert (cached_responses.hits, cached_responses.misses) == (2, 1)
