"""Decorated functions of every kind, and that none of them skips the gate."""

import ast
import asyncio
import functools
import gc
import inspect
import textwrap

import pytest

from groundfault.breaker import _wrapping
from groundfault.breaker.command import Command
from groundfault.errors import CircuitOpenError
from groundfault.events import CommandDone
from groundfault.vocabulary import Outcome


def outcomes(sink):
    return [each.outcome for each in sink.of(CommandDone)]


async def collect(source):
    return [item async for item in source]


def plain(n, *, times=2):
    """Multiply."""
    return n * times


async def coroutine(n, *, times=2):
    """Multiply."""
    return n * times


def generator(n, *, times=2):
    """Repeat."""
    for _ in range(times):
        yield n
    return "end"


async def async_generator(n, *, times=2):
    """Repeat."""
    for _ in range(times):
        yield n


KINDS = [
    (plain, lambda fn: fn(3)),
    (coroutine, lambda fn: asyncio.run(fn(3))),
    (generator, lambda fn: list(fn(3))),
    (async_generator, lambda fn: asyncio.run(collect(fn(3)))),
]
each_kind = pytest.mark.parametrize(("fn", "use"), KINDS, ids=[fn.__name__ for fn, _ in KINDS])

TESTS_OF_KIND = [
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
    inspect.isfunction,
]


@each_kind
def test_kind_signature_and_name_are_kept(command, sink, fn, use):
    guarded = command(fn)
    assert [test(guarded) for test in TESTS_OF_KIND] == [test(fn) for test in TESTS_OF_KIND]
    assert inspect.signature(guarded) == inspect.signature(fn)
    assert (guarded.__name__, guarded.__doc__, guarded.__wrapped__) == (fn.__name__, fn.__doc__, fn)
    assert use(guarded) == use(fn)
    assert outcomes(sink) == [Outcome.SUCCESS]
    assert command.snapshot().in_flight == 0


@each_kind
def test_no_kind_skips_the_gate(resource, fn, use):
    guarded = resource.command("c", mode="force_open")(fn)
    with pytest.raises(CircuitOpenError):
        use(guarded)


@each_kind
def test_a_partial_is_seen_through(command, sink, fn, use):
    guarded = command(functools.partial(functools.partial(fn, times=1), times=3))
    assert use(guarded) == use(functools.partial(fn, times=3))
    assert outcomes(sink) == [Outcome.SUCCESS]


@each_kind
def test_a_method_is_bound(command, sink, fn, use):
    class Owner:
        factor = 2
        method = command(lambda self, n: n)

        if inspect.isasyncgenfunction(fn):

            @command
            async def method(self, n):
                for _ in range(self.factor):
                    yield n

        elif inspect.iscoroutinefunction(fn):

            @command
            async def method(self, n):
                return n * self.factor

        elif inspect.isgeneratorfunction(fn):

            @command
            def method(self, n):
                yield from [n] * self.factor

        else:

            @command
            def method(self, n):
                return n * self.factor

    assert use(Owner().method) == use(fn)
    assert outcomes(sink) == [Outcome.SUCCESS]


@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("kind", [classmethod, staticmethod])
def test_class_and_static_methods_in_either_order(command, sink, kind, outside):
    def method(*args):
        return len(args)

    class Owner:
        one = command(kind(method)) if outside else kind(command(method))

    assert Owner.one(1) == Owner().one(1) == 1 + (kind is classmethod)
    assert outcomes(sink) == [Outcome.SUCCESS] * 2


@each_kind
def test_a_callable_object_is_guarded_as_what_it_runs(command, sink, fn, use):
    owner = type("Owner", (), {"__call__": lambda self, n: plain(n)})
    if fn is coroutine:

        async def run(self, n):
            return await fn(n)

        owner.__call__ = run
    elif fn is generator:

        def run(self, n):
            yield from fn(n)

        owner.__call__ = run
    elif fn is async_generator:

        async def run(self, n):
            async for item in fn(n):
                yield item

        owner.__call__ = run
    assert use(command(owner())) == use(fn)
    assert outcomes(sink) == [Outcome.SUCCESS]


def test_a_class_and_a_builtin_are_functions_like_any_other(command):
    assert command(dict)(a=1) == {"a": 1}
    assert command(len)([1, 2]) == 2


@pytest.mark.parametrize("thing", [None, 3, "name"])
def test_what_cannot_be_called_is_refused(command, thing):
    with pytest.raises(TypeError, match="functions and other callables"):
        command(thing)


def test_the_lines_of_the_plain_course_are_the_same_in_all_its_copies():
    """They are repeated for speed; nothing else may hold them apart."""

    def body(function, name):
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        found = next(
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
        )
        lines = [ast.unparse(node) for node in found.body]
        notes = {"course = self._course", "result: Any"}
        return [line for line in lines if not line.startswith(("'", '"')) and line not in notes]

    assert body(_wrapping._wrap_function, "guarded") == body(Command.call, "call")
    assert body(_wrapping._wrap_coroutine_function, "guarded") == body(Command.acall, "acall")
    twins = [
        [
            line.replace("await ", "")
            .replace("acall", "call")
            .replace("afailed", "failed")
            .replace("areturned", "returned")
            for line in body(function, function.__name__)
        ]
        for function in (Command.call, Command.acall)
    ]
    differing = [pair for pair in zip(*twins, strict=True) if pair[0] != pair[1]]
    assert len(differing) == 2  # how the function is run, and whether it returned a coroutine


@pytest.mark.parametrize("way_to_end", ["exhausted", "closed", "collected", "raised", "interrupted"])
def test_a_generator_is_judged_when_it_ends(command, sink, way_to_end):
    error = {"raised": ValueError, "interrupted": KeyboardInterrupt}.get(way_to_end)

    @command
    def numbers():
        yield 1
        if error:
            raise error
        yield 2

    made = numbers()
    assert command.snapshot().in_flight == 0  # nothing has begun
    assert next(made) == 1
    assert command.snapshot().in_flight == 1
    assert outcomes(sink) == []
    if way_to_end == "exhausted":
        assert list(made) == [2]
    elif way_to_end == "closed":
        made.close()
    elif way_to_end == "collected":
        del made
        gc.collect()
    else:
        with pytest.raises(error):
            next(made)
    expected = {"exhausted": Outcome.SUCCESS, "raised": Outcome.FAILURE}.get(way_to_end, Outcome.IGNORED)
    assert outcomes(sink) == [expected]
    assert command.snapshot().in_flight == 0


@pytest.mark.parametrize("way_to_end", ["exhausted", "closed", "raised", "canceled"])
def test_an_async_generator_is_judged_when_it_ends(command, sink, way_to_end):
    @command
    async def numbers():
        yield 1
        if way_to_end == "raised":
            raise ValueError
        if way_to_end == "canceled":
            raise asyncio.CancelledError
        yield 2

    async def main():
        made = numbers()
        assert await anext(made) == 1
        assert command.snapshot().in_flight == 1
        if way_to_end == "exhausted":
            assert [item async for item in made] == [2]
        elif way_to_end == "closed":
            await made.aclose()
        else:
            with pytest.raises(ValueError if way_to_end == "raised" else asyncio.CancelledError):
                await anext(made)

    asyncio.run(main())
    expected = {"exhausted": Outcome.SUCCESS, "raised": Outcome.FAILURE}.get(way_to_end, Outcome.IGNORED)
    assert outcomes(sink) == [expected]
    assert command.snapshot().in_flight == 0


def test_an_abandoned_async_generator_gives_its_place_back(command, sink):
    @command
    async def numbers():
        yield 1
        yield 2

    async def main():
        async for item in numbers():
            assert item == 1
            break
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert outcomes(sink) == [Outcome.IGNORED]
    assert command.snapshot().in_flight == 0


def test_a_generator_can_be_sent_to_and_thrown_into(command):
    @command
    def echo():
        received = yield "ready"
        while True:
            try:
                received = yield received
            except LookupError:
                received = "caught"
                if (yield received) == "stop":
                    return "end"

    made = echo()
    assert [next(made), made.send(1), made.send(2), made.throw(LookupError())] == ["ready", 1, 2, "caught"]
    with pytest.raises(StopIteration) as ended:
        made.send("stop")
    assert ended.value.value == "end"


def test_an_async_generator_can_be_sent_to_and_thrown_into(command, sink):
    @command
    async def echo():
        received = yield "ready"
        for _ in range(3):
            try:
                received = yield received
            except LookupError:
                received = "caught"

    async def main():
        made = echo()
        seen = [await anext(made), await made.asend(1), await made.athrow(LookupError()), await made.asend(2)]
        with pytest.raises(StopAsyncIteration):
            await made.asend(3)
        return seen

    assert asyncio.run(main()) == ["ready", 1, "caught", 2]
    assert outcomes(sink) == [Outcome.SUCCESS]


@each_kind
def test_a_fallback_is_served_for_a_refusal(resource, sink, fn, use):
    fallback = (lambda n, **_: [n, n]) if fn in {generator, async_generator} else (lambda n, **_: n * 2)
    guarded = resource.command("c", mode="force_open", fallback=fallback)(fn)
    assert use(guarded) == use(fn)
    assert [(each.outcome, each.fallback) for each in sink.of(CommandDone)] == [(Outcome.CIRCUIT_OPEN, True)]


def test_a_fallback_of_its_own_kind_for_an_async_generator(resource):
    async def cached(n):
        yield n * 100

    guarded = resource.command("c", mode="force_open", fallback=cached)(async_generator)
    assert asyncio.run(collect(guarded(3))) == [300]


def test_the_traceback_leads_to_the_function_and_does_not_grow(command):
    @command
    def bad():
        raise ConnectionError

    lengths = set()
    for _ in range(5):
        with pytest.raises(ConnectionError) as caught:
            bad()
        assert caught.traceback[-1].name == "bad"
        lengths.add(len(caught.traceback))
    assert lengths == {3}


def _rows(clock, spent_s):
    for n in range(4):
        clock.advance(spent_s)
        yield n


async def _async_rows(clock, spent_s):
    for n in range(4):
        clock.advance(spent_s)
        yield n


async def _drained(source, clock, dawdled_s):
    async for _ in source:
        clock.advance(dawdled_s)


@pytest.mark.parametrize("rows", [_rows, _async_rows])
@pytest.mark.parametrize(
    ("spent_s", "dawdled_s", "outcome"), [(0.1, 9.0, Outcome.SUCCESS), (0.3, 0.0, Outcome.TIMEOUT)]
)
def test_a_generator_answers_for_its_own_time_and_not_for_its_consumers(
    resource, sink, clock, rows, spent_s, dawdled_s, outcome
):
    """Or a client that reads an answer slowly would trip the circuit for everybody."""
    source = resource.command("rows", timeout_s=1.0)(rows)(clock, spent_s)
    if rows is _rows:
        for _ in source:
            clock.advance(dawdled_s)
    else:
        asyncio.run(_drained(source, clock, dawdled_s))

    assert outcomes(sink) == [outcome]
    assert sink.of(CommandDone)[0].duration_s == pytest.approx(4 * spent_s)


def test_a_generators_return_value_is_kept(command):
    @command
    def numbers():
        yield 1
        return "end"

    def outer():
        assert (yield from numbers()) == "end"

    assert list(outer()) == [1]
