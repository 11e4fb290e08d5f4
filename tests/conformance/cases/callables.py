"""Whatever can be called, by whatever entry point."""

import asyncio
import functools
import inspect
from contextlib import suppress

from conformance.case import Bench, Group, Seen
from conformance.subject import OPEN, Broken, Can

group = Group("Ways in")


class _Callee:
    """One of each kind of callable; ``answer`` is an error to raise or a value to return."""

    def __init__(self, answer) -> None:
        self.answer = answer

    def method(self, given):
        return _answer(self.answer, given)

    async def amethod(self, given):
        return _answer(self.answer, given)

    def __call__(self, given):
        return _answer(self.answer, given)


class _AsyncCallee(_Callee):
    async def __call__(self, given):
        return _answer(self.answer, given)


def _answer(answer, given):
    if isinstance(answer, BaseException):
        raise answer
    return answer, given


async def _aanswer(answer, given):
    return _answer(answer, given)


def _kinds(kind: str, answer):
    """Return callables of one argument, by what they are called."""
    if kind == "async":
        return {
            "coroutine function": lambda: _aanswer_of(answer),
            "method": lambda: _AsyncCallee(answer).amethod,
            "partial": lambda: functools.partial(_aanswer, answer),
            "callable object": lambda: _AsyncCallee(answer),
        }
    return {
        "lambda": lambda: lambda given: _answer(answer, given),
        "method": lambda: _Callee(answer).method,
        "partial": lambda: functools.partial(_answer, answer),
        "callable object": lambda: _Callee(answer),
    }


def _aanswer_of(answer):
    async def coroutine_function(given):
        return _answer(answer, given)

    return coroutine_function


@group(
    "callables",
    "Methods, partials and callable objects are protected like functions, decorated or else called through it",
    origin="I17",
)
def callables(bench: Bench) -> Seen:
    for kind, make in _kinds(bench.way.kind, "answer").items():
        guard = bench.make(failures=5)
        try:
            result = _protected(bench, guard, make())("given")
        except Exception as error:  # noqa: BLE001  what is looked at
            return Seen(ok=False, text=f"{kind}: {type(error).__name__}")
        if inspect.isawaitable(result):
            result.close()
        if result != ("answer", "given"):
            return Seen(ok=False, text=f"{kind}: returned {type(result).__name__}")
        failing = _protected(bench, guard, _kinds(bench.way.kind, Broken())[kind]())
        for _ in range(20):
            with suppress(Broken, *bench.subject.refusals):
                failing("given")
        if guard.state() != OPEN:
            return Seen(ok=False, text=f"{kind}: {guard.state()} after 20 failures of 5")
    return Seen(ok=True, text="each returns its value, and its failures count")


@group(
    "methods-of-a-class",
    "Decorated methods, class methods and static methods of a class work and count",
    origin="I17",
    ways=("sync",),
)
def methods_of_a_class(bench: Bench) -> Seen:
    for kind in (lambda fn: fn, classmethod, staticmethod):
        guard = bench.make(failures=5)

        class Service:
            @kind  # above the breaker's, as every library's users write it
            @guard.decorate
            def ask(*args):
                raise Broken(args)

        for _ in range(20):
            with suppress(Broken, *bench.subject.refusals):
                Service().ask("given")
        if guard.state() != OPEN:
            return Seen(ok=False, text=f"{kind.__name__}: {guard.state()} after 20 failures of 5")
    return Seen(ok=True, text="their failures count")


def _protected(bench, guard, fn):
    """Decorate, or call through the breaker where its decorator says no and it has another way in."""
    try:
        return bench.way.decorate(guard, fn)
    except (TypeError, AttributeError):
        if Can.CALL not in bench.subject.can:
            raise
    if bench.way.kind == "async":
        return lambda *args: bench.way.run(guard.acall(fn, *args))
    return lambda *args: guard.call(fn, *args)


@group("metadata", "A decorated function keeps its name, text, signature and kind")
def metadata(bench: Bench) -> Seen:
    def plain(one: int, *, two: str = "2") -> str:
        """Say something."""
        return f"{one}{two}"

    async def coroutine_function(one: int, *, two: str = "2") -> str:
        """Say something."""
        return f"{one}{two}"

    fn = coroutine_function if bench.way.kind == "async" else plain
    guard = bench.make()
    made = guard.adecorate(fn) if bench.way.kind == "async" else guard.decorate(fn)
    lost = [
        what
        for what, kept in (
            ("name", made.__name__ == fn.__name__),
            ("text", made.__doc__ == fn.__doc__),
            ("signature", inspect.signature(made) == inspect.signature(fn)),
            ("kind", inspect.iscoroutinefunction(made) == inspect.iscoroutinefunction(fn)),
        )
        if not kept
    ]
    return Seen(not lost, f"lost: {', '.join(lost)}" if lost else "all kept")


@group(
    "coroutine-function-in-plain-api",
    "A coroutine function given to the plain entry point is handled or refused, not counted as a success",
    origin="I17; pybreaker #7",
    ways=("sync",),
)
def coroutine_function_in_plain_api(bench: Bench) -> Seen:
    async def failing() -> None:
        raise Broken

    return _unseen(bench, failing)


@group(
    "coroutine-from-plain-function",
    "Nor is the coroutine that a plain function returns",
    origin="I17",
    ways=("sync",),
)
def coroutine_from_plain_function(bench: Bench) -> Seen:
    async def failing() -> None:
        raise Broken

    return _unseen(bench, lambda: failing())  # noqa: PLW0108  the point of it


def _unseen(bench, fn) -> Seen:
    guard = bench.make(failures=5)
    for _ in range(20):
        try:
            result = guard.call(fn)
        except (Broken, *bench.subject.refusals):
            continue
        except (TypeError, AttributeError) as error:
            return Seen(ok=True, text=f"refused with {type(error).__name__}")
        if inspect.isawaitable(result):

            async def wait(result=result) -> None:
                await result

            with suppress(Broken, *bench.subject.refusals):
                asyncio.run(wait())
    state = guard.state()
    return Seen(state == OPEN, f"{state} after 20 failures of 5")


@group(
    "call-is-gated",
    "The entry point that takes a function refuses while it is open",
    needs=(Can.CALL,),
)
def call_is_gated(bench: Bench) -> Seen:
    guard = bench.make()
    bench.trip(guard)
    refused = sum(not bench.good(guard) for _ in range(10))
    return Seen(refused == 10, f"{refused} of 10 refused")


@group(
    "block-is-gated",
    "The context manager counts failures, refuses while it is open, and lets errors through",
    needs=(Can.BLOCK,),
)
def block_is_gated(bench: Bench) -> Seen:
    guard = bench.make(failures=5)

    def enter(error: BaseException | None) -> bool:
        ran: list[None] = []

        def body() -> None:
            ran.append(None)
            if error is not None:
                raise error

        async def ablock() -> None:
            async with guard.ablock():
                body()

        try:
            if bench.way.kind == "async":
                bench.way.run(ablock())
            else:
                with guard.block():
                    body()
        except bench.subject.refusals:
            return bool(ran)
        except Broken as raised:
            if raised is not error:
                raise
        return bool(ran)

    made = sum(enter(Broken()) for _ in range(20))
    bench.wake(guard)
    probed = enter(None)
    again = sum(enter(None) for _ in range(5))
    return Seen(made == 5 and probed and again == 5, f"{made} of 20 failing blocks entered, 5 asked for")
