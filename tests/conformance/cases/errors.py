"""What the caller gets to see."""

import gc
import pickle
import tracemalloc

from conformance.case import Bench, Group, Seen
from conformance.subject import Broken

group = Group("Errors and refusals")


def _error_of(bench, guard, error=None):
    def body() -> None:
        if error is not None:
            raise error

    try:
        bench.way.call(guard, body)
    except BaseException as raised:  # noqa: BLE001  what is looked at
        return raised
    return None


@group("original-error", "A failing call raises the callee's own error, the very object", origin="I16; pybreaker #60")
def original_error(bench: Bench) -> Seen:
    guard, error = bench.make(), Broken("as it was")
    raised = _error_of(bench, guard, error)
    return Seen(raised is error, "the object itself" if raised is error else f"{type(raised).__name__}: {raised}")


@group(
    "original-error-on-trip",
    "So does the call that trips it, and the probe that fails",
    origin="pybreaker #60, circuitbreaker #24, Hystrix #1344",
)
def original_error_on_trip(bench: Bench) -> Seen:
    guard = bench.make(failures=5)
    for _ in range(4):
        bench.bad(guard)
    for what in ("tripping call", "probe"):
        error = Broken(what)
        raised = _error_of(bench, guard, error)
        if raised is not error:
            return Seen(ok=False, text=f"{type(raised).__name__} in its place from the {what}")
        bench.wake(guard)
    return Seen(ok=True, text="the object itself")


@group(
    "fresh-refusals",
    "Each refusal is an object of its own, and no traceback grows",
    origin="I31",
)
def fresh_refusals(bench: Bench) -> Seen:
    guard = bench.make()
    bench.trip(guard)
    first = _error_of(bench, guard)
    before = _length(first)
    for _ in range(200):
        last = _error_of(bench, guard)
    after = _length(last)
    if first is last:
        grows = ", and its traceback grows" if after > before else ""
        return Seen(ok=False, text=f"one object for all{grows}")
    return Seen(after <= before, f"{before} traceback entries, {after} after 200 more")


def _length(error) -> int:
    entries, traceback = 0, error.__traceback__
    while traceback is not None:
        entries, traceback = entries + 1, traceback.tb_next
    return entries


@group(
    "refusals-keep-nothing",
    "A refusal that the caller has dropped leaves no memory behind",
    origin="I31",
    once=True,
)
def refusals_keep_nothing(bench: Bench) -> Seen:
    guard = bench.make()
    bench.trip(guard)

    def refuse(times: int) -> None:
        for _ in range(times):
            bench.good(guard)

    refuse(200)
    gc.collect()
    tracemalloc.start()
    try:
        refuse(50)  # what it allocates once, while it is watched
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        refuse(1000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    kept = max(0, after - before) / 1000
    return Seen(kept < 64, "nothing" if kept < 64 else f"about {round(kept, -2):.0f} bytes each")


@group(
    "refusals-pickle",
    "A refusal survives pickling, as between processes of Celery or multiprocessing, with its message",
)
def refusals_pickle(bench: Bench) -> Seen:
    guard = bench.make()
    bench.trip(guard)
    error = _error_of(bench, guard)
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301  made on the line before
    except Exception as failed:  # noqa: BLE001  what is looked at
        return Seen(ok=False, text=f"{type(failed).__name__} from pickle")
    same = type(copy) is type(error) and str(copy) == str(error)
    return Seen(same, "type and message kept" if same else f"becomes {type(copy).__name__}: {copy}"[:100])
