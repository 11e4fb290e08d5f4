"""Code of the application's that runs in the middle of a call: the function, listeners, classifiers, fallbacks."""

import asyncio
import threading
from contextlib import suppress

from conformance.case import Bench, Group, Seen
from conformance.subject import OPEN, Broken, Can
from conformance.ways import PATIENCE_S

group = Group("The application's own code")


def _quietly(call, fn) -> None:
    """Call in a thread; what became of it, the case sees from what ``fn`` did."""
    with suppress(Exception):
        call(fn)


@group(
    "threads-overlap",
    "Eight threads that call at once are inside at once",
    origin="I15; pybreaker #3, #55",
    ways=("sync",),
)
def threads_overlap(bench: Bench) -> Seen:
    guard = bench.make()
    inside: list[None] = []
    together = threading.Event()

    def body() -> None:
        inside.append(None)
        if len(inside) == 8:
            together.set()
        together.wait(2 * PATIENCE_S)

    threads = [threading.Thread(target=_quietly, args=(guard.call, body), daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    together.wait(PATIENCE_S)
    most = len(inside)
    together.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    return Seen(most == 8, f"{most} of 8 inside at once")


@group(
    "tasks-overlap",
    "So are eight tasks of one event loop",
    origin="I15",
    ways=("async",),
)
def tasks_overlap(bench: Bench) -> Seen:
    guard = bench.make()
    pending = [bench.start(guard) for _ in range(8)]
    most = sum(one.inside for one in pending)
    return Seen(most == 8, f"{most} of 8 inside at once")


@group(
    "two-event-loops",
    "Two event loops in two threads share one breaker",
    origin="I19; asyncio's locks belong to one loop",
    ways=("async",),
    real_time=True,
)
def two_event_loops(bench: Bench) -> Seen:
    guard = bench.make(failures=1_000_000)
    made: list[None] = []
    errors: list[str] = []

    async def body() -> None:
        await asyncio.sleep(0)
        made.append(None)

    async def many() -> None:
        for _ in range(20):
            await asyncio.gather(*(guard.acall(body) for _ in range(20)))

    def work() -> None:
        try:
            asyncio.run(many())
        except Exception as error:  # noqa: BLE001  what is looked at
            errors.append(f"{type(error).__name__} in one of them")

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5 * PATIENCE_S)
    if any(thread.is_alive() for thread in threads):
        return Seen(ok=False, text="a loop hangs")
    return Seen(len(made) == 800 and not errors, errors[0] if errors else f"{len(made)} of 800 calls made")


@group(
    "listener-asks-back",
    "A listener may use the breaker that it listens to, from whichever thread",
    origin="I23; Polly #96, pybreaker #41",
    needs=(Can.LISTENER,),
)
def listener_asks_back(bench: Bench) -> Seen:  # noqa: C901  one small function for each who asks
    """Let the listener wait for somebody else who asks the breaker: a lock that is held round it shows."""
    asked: list[None] = []
    answered: list[bool] = []

    async def aask() -> None:
        with suppress(*bench.subject.refusals):
            await guard.acall(asyncio.sleep, 0)

    async def aask_here() -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await aask()
        except TimeoutError:
            answered.append(False)
        else:
            answered.append(True)

    def ask() -> None:
        if bench.way.kind == "async":
            asyncio.run(aask())
        else:
            with suppress(*bench.subject.refusals):
                guard.call(int)

    def listener(opened: bool):
        if asked or not opened:
            return None
        asked.append(None)
        if bench.subject.awaits_listeners:
            return aask_here()
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(PATIENCE_S)
        answered.append(not thread.is_alive())
        return None

    guard = bench.make(failures=5, listener=listener)
    for _ in range(5):
        bench.bad(guard)
    if not answered:
        return Seen(ok=False, text="the listener never saw it open")
    return Seen(answered[0], "answered" if answered[0] else "blocked while the listener runs")


@group(
    "listener-raises",
    "A listener that raises changes neither a call's result nor the circuit",
    origin="I23; pybreaker #41, denoland/std #6996",
    needs=(Can.LISTENER,),
)
def listener_raises(bench: Bench) -> Seen:
    def listener(_opened: bool) -> None:
        raise RuntimeError("the listener's own")

    guard = bench.make(failures=5, listener=listener)
    try:
        result = bench.way.call(guard, lambda: "done")
    except RuntimeError:
        return Seen(ok=False, text="a good call raises the listener's error")
    for _ in range(5):
        error = Broken()

        def fail(error: BaseException = error) -> None:
            raise error

        try:
            bench.way.call(guard, fail)
        except RuntimeError:
            return Seen(ok=False, text="a failing call raises the listener's error")
        except (Broken, *bench.subject.refusals):
            pass
    return Seen(result == "done" and guard.state() == OPEN, f"{guard.state()} after 5 failures of 5")


@group(
    "classifier-raises",
    "A classifier that raises does not become the caller's error",
    origin="I23",
    needs=(Can.JUDGE,),
)
def classifier_raises(bench: Bench) -> Seen:
    guard = bench.make(judge_raises=True)
    error = Broken()

    def fail() -> None:
        raise error

    try:
        result = bench.way.call(guard, lambda: "done")
    except Exception as raised:  # noqa: BLE001  what is looked at
        return Seen(ok=False, text=f"a good call raises {type(raised).__name__}")
    try:
        bench.way.call(guard, fail)
    except Exception as raised:  # noqa: BLE001  what is looked at
        if raised is not error:
            return Seen(ok=False, text=f"{type(raised).__name__} in place of the callee's error")
    return Seen(result == "done", "result and error are the callee's")


@group(
    "fallback-raises",
    "A fallback that raises does not hide why it was asked: that error is raised or in its chain",
    origin="I35; Hystrix #1344",
    needs=(Can.FALLBACK,),
)
def fallback_raises(bench: Bench) -> Seen:
    def fallback(*_: object) -> None:
        raise RuntimeError("the fallback's own")

    guard = bench.make(failures=5, fallback=fallback)
    for _ in range(5):
        with suppress(RuntimeError):
            bench.bad(guard)
    try:
        bench.way.call(guard, lambda: None)
    except Exception as raised:  # noqa: BLE001  what is looked at
        error: BaseException | None = raised
        for _ in range(10):
            if error is None or isinstance(error, bench.subject.refusals):
                break
            error = error.__cause__ or error.__context__
        ok = isinstance(error, bench.subject.refusals)
        return Seen(ok, "the refusal is raised or in the chain" if ok else "the fallback's error alone")
    return Seen(ok=False, text="nothing was raised")


@group(
    "recursion",
    "A probe that calls through its own breaker is not blocked and leaves it usable",
    origin="I24; denoland/std #6996",
)
def recursion(bench: Bench) -> Seen:
    guard = bench.make()
    bench.until_half_open(guard)
    inner: list[str] = []

    def outer() -> None:
        try:
            guard.call(inner.append, "made")
        except bench.subject.refusals:
            inner.append("refused")

    async def aouter() -> None:
        async def body() -> None:
            inner.append("made")

        try:
            async with asyncio.timeout(PATIENCE_S):
                await guard.acall(body)
        except bench.subject.refusals:
            inner.append("refused")

    if bench.way.kind == "async":
        with suppress(*bench.subject.refusals):
            bench.way.run(guard.acall(aouter))
    else:
        thread = threading.Thread(target=_quietly, args=(guard.call, outer), daemon=True)
        thread.start()
        thread.join(PATIENCE_S)
        if thread.is_alive():
            return Seen(ok=False, text="blocked")
    bench.wake(guard)
    usable = bench.good(guard)
    return Seen(
        usable and bool(inner), f"the inner call is {inner[0] if inner else 'lost'}, later ones are made: {usable}"
    )
