"""Functions whose call is not over when they return."""

from contextlib import suppress

from conformance.case import Bench, Group, Seen
from conformance.subject import CLOSED, OPEN, Broken, Can

group = Group("Generators")


_started: list[None] = []


def _failing():
    _started.append(None)
    yield 1
    raise Broken


def _endless():
    while True:
        yield 1


async def _afailing():
    _started.append(None)
    yield 1
    raise Broken


async def _aendless():
    while True:
        yield 1


def _drain(bench, made) -> None:
    """Read a generator as far as it goes."""
    with suppress(Broken, *bench.subject.refusals):
        if bench.way.kind == "async":
            bench.way.run(_acollect(made))
        else:
            list(made())


async def _acollect(made) -> None:
    async for _ in made():
        pass


def _leave(bench, made) -> BaseException | None:
    """Take one item and close: return what closing raised."""
    try:
        if bench.way.kind == "async":
            bench.way.run(_aleave(made))
        else:
            source = made()
            next(source)
            source.close()
    except Exception as error:  # noqa: BLE001  what is looked at
        return error
    return None


async def _aleave(made) -> None:
    source = made()
    await anext(source)
    await source.aclose()


def _judged(bench, fn) -> Seen:
    guard = bench.make(failures=5)
    made = guard.adecorate(fn) if bench.way.kind == "async" else guard.decorate(fn)
    _started.clear()
    for _ in range(8):
        _drain(bench, made)
    return Seen(len(_started) == 5, f"of 8 that break {len(_started)} are started, 5 asked for")


def _closed_early(bench, endless, failing) -> Seen:
    guard = bench.make(failures=5)
    wrap = guard.adecorate if bench.way.kind == "async" else guard.decorate
    left, broken = wrap(endless), wrap(failing)
    for _ in range(20):
        error = _leave(bench, left)
        if guard.state() != CLOSED:
            return Seen(ok=False, text=f"{guard.state()} after early closes alone")
        if error is not None:
            return Seen(ok=False, text=f"close() raises {type(error).__name__}")
    for n in range(5):
        if n == 4:
            _leave(bench, left)
        _drain(bench, broken)
    return Seen(guard.state() == OPEN, f"{guard.state()} after 4 broken ones, an early close, 1 broken one of 5")


@group(
    "generators",
    "A generator that breaks half-way is a failure, and an open breaker does not start one",
    origin="I14",
    needs=(Can.GENERATORS,),
    ways=("sync",),
)
def generators(bench: Bench) -> Seen:
    return _judged(bench, _failing)


@group(
    "generators-closed-early",
    "A generator that its consumer closes early is neither failure nor success",
    origin="I14",
    needs=(Can.GENERATORS,),
    ways=("sync",),
)
def generators_closed_early(bench: Bench) -> Seen:
    return _closed_early(bench, _endless, _failing)


@group(
    "async-generators",
    "An asynchronous generator that breaks half-way is a failure, and an open breaker does not start one",
    origin="I14",
    needs=(Can.ASYNC_GENERATORS,),
    ways=("async",),
)
def async_generators(bench: Bench) -> Seen:
    return _judged(bench, _afailing)


@group(
    "async-generators-closed-early",
    "An asynchronous generator that its consumer closes early is neither failure nor success",
    origin="I14",
    needs=(Can.ASYNC_GENERATORS,),
    ways=("async",),
)
def async_generators_closed_early(bench: Bench) -> Seen:
    return _closed_early(bench, _aendless, _afailing)


@group(
    "no-silent-generators",
    "A generator of either kind is protected or refused, never let through unseen",
    origin="I14, I17",
    once=True,
)
def no_silent_generators(bench: Bench) -> Seen:
    unseen = []
    for kind, fn in (("generator", _failing), ("asynchronous generator", _afailing)):
        guard = bench.make(failures=5)
        try:
            made = guard.decorate(fn) if bench.way.kind == "sync" else guard.adecorate(fn)
            for _ in range(20):
                _consume(bench, made)
        except (TypeError, AttributeError):
            continue  # refused, at the latest when it was used
        if guard.state() != OPEN:
            unseen.append(kind)
    return Seen(not unseen, f"unseen: {', '.join(unseen)}" if unseen else "protected or refused")


def _consume(bench, made) -> None:
    async def drain(source) -> None:
        async for _ in source:
            pass

    try:
        source = made()
        if hasattr(source, "__aiter__"):
            if bench.way.kind == "async":
                bench.way.run(drain(source))
            else:
                import asyncio  # noqa: PLC0415  only for a generator that a plain entry point let through

                asyncio.run(drain(source))
        elif hasattr(source, "__await__"):
            for _ in bench.way.run(source):
                pass
        else:
            for _ in source:
                pass
    except (Broken, *bench.subject.refusals):
        pass
