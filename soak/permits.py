"""Whether a permit is ever lost: cancellations, abandoned streams, signals that raise, forks, in large numbers.

    python soak/permits.py [--cancellations N] [--streams N] [--signals N] [--forks N] [--seed N]

Each scene makes calls through commands and breaks them off in every way there is.
Lost is what still counts as in flight when nothing runs any more, a place below ``max_concurrent`` that nobody gets,
a probe's slot that does not come back (the commands' clock stands still, so no lease ever ends),
a signal after which the command cannot be used, a forked child that hangs or finds itself refused.

Prints one line for each scene and exits with 1 if anything was lost; a scene that has lost as much as a whole limit
ends early. A number of 0 leaves its scene out.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from groundfault import breaker
from groundfault._clock import monotonic
from groundfault.breaker import Command, Registry, Resource
from groundfault.errors import RejectedError
from groundfault.testing import ManualClock
from groundfault.vocabulary import Outcome, Reason, State
from groundfault.wire import Refusal

LIMIT = 50
BATCH = 100
BOUND_S = 60.0
ROOM = str(Path(breaker.__file__).parent)


class Result(NamedTuple):
    """What a scene has done, and what of it was lost."""

    made: int
    lost: int


class Circuit:
    """A command in one condition, on a clock that stands still but for what the condition needs."""

    def __init__(self, condition: str) -> None:
        self.condition = condition
        self.clock = ManualClock()
        registry = Registry(clock=self.clock, draw=lambda: 0.0)  # 0.0: the throttle lets everybody through
        self.command: Command = Resource("soak", registry=registry, sinks=[]).command(
            condition, max_concurrent=LIMIT, timeout_s=1e6 if condition == "bounded" else None, sleep_window_s=1.0
        )

    def prepare(self) -> None:
        """Bring it into its condition, unless too much is lost for that, which ``lost`` will say."""
        with contextlib.suppress(RejectedError):
            if self.condition == "attended":
                self.command.begin().settle(Outcome.SHED, refusal=Refusal(Reason.QUEUE_WAIT))
            elif self.condition == "half-open":
                while self.command.snapshot().state is State.CLOSED:
                    self.command.begin().settle(Outcome.FAILURE)
                self.clock.advance(60.0)

    def lost(self) -> int:
        """Count what is lost while nothing runs; leave the circuit closed, or count that it does not close."""
        lost = self.command.snapshot().in_flight
        self.clock.advance(60.0 if self.command.snapshot().state is State.OPEN else 0.0)
        try:
            self.command.call(int)
        except RejectedError:
            return lost + 1
        held = []
        for _ in range(LIMIT):
            try:
                held.append(self.command.begin())
            except RejectedError:
                lost += 1
        for attempt in held:
            attempt.settle(Outcome.SUCCESS)
        return lost + (self.command.snapshot().state is not State.CLOSED)


def circuits() -> list[Circuit]:
    return [Circuit(condition) for condition in ("quiet", "bounded", "attended", "half-open")]


# Cancellations.


class Storm:
    """Coroutines that are canceled at random moments, through every way in that a coroutine has."""

    def __init__(self, command: Command, dice: random.Random) -> None:
        self.dice = dice
        self.canceled = 0
        self.command = command
        self._guarded = command(self._work)
        self._items = command(self._stream)

    async def _work(self) -> None:
        try:
            for _ in range(self.dice.randrange(4)):
                await asyncio.sleep(0)
            if self.dice.random() < 0.8:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.canceled += 1
            raise

    async def _stream(self):
        while True:
            yield
            await self._work()

    async def one(self) -> None:
        way = self.dice.randrange(5)
        with contextlib.suppress(RejectedError):
            if way == 0:
                await self.command.acall(self._work)
            elif way == 1:
                await self._guarded()
            elif way == 2:
                with self.command.attempt():
                    await self._work()
            elif way == 3:
                async for _ in self._items():
                    await asyncio.sleep(0)
            else:
                attempt = self.command.begin()
                try:
                    await self._work()
                finally:
                    attempt.settle(Outcome.IGNORED)

    async def batch(self) -> None:
        tasks = [asyncio.ensure_future(self.one()) for _ in range(BATCH)]
        for _ in range(self.dice.randrange(6)):
            await asyncio.sleep(0)
            for task in self.dice.sample(tasks, BATCH // 5):
                task.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def cancellations(count: int, seed: int = 0) -> Result:
    """Cancel ``count`` guarded coroutines inside their calls."""
    dice = random.Random(seed)

    async def main() -> Result:
        made = lost = 0
        chosen = [(circuit, Storm(circuit.command, dice)) for circuit in circuits()]
        while made < count and lost < LIMIT:
            for circuit, storm in chosen:
                circuit.prepare()
                await storm.batch()
                lost += circuit.lost()
            made = sum(storm.canceled for _, storm in chosen)
        return Result(made, lost)

    return asyncio.run(main())


# Streams.


class ConsumerError(Exception):
    """What a consumer throws into a stream."""


def source():
    while True:
        yield


async def asource():
    while True:
        yield
        await asyncio.sleep(0)


def abandon(stream, dice: random.Random) -> None:
    """Read a little of a generator, then close it, throw into it, or forget it."""
    with contextlib.suppress(RejectedError, ConsumerError):
        for _ in range(dice.randrange(3)):
            next(stream)
        way = dice.randrange(3)
        if way == 0:
            stream.close()
        elif way == 1:
            stream.throw(ConsumerError)


async def aabandon(stream, dice: random.Random) -> None:
    """Do the same with an asynchronous one, or be canceled while waiting for it."""
    with contextlib.suppress(RejectedError, ConsumerError):
        for _ in range(dice.randrange(3)):
            await anext(stream)
        way = dice.randrange(4)
        if way == 0:
            await stream.aclose()
        elif way == 1:
            await stream.athrow(ConsumerError)
        elif way == 2:
            task = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def stream_round(circuit: Circuit, dice: random.Random) -> int:
    """Abandon a batch of either kind; return what was lost."""
    circuit.prepare()
    guarded, aguarded = circuit.command(source), circuit.command(asource)
    for _ in range(BATCH):
        abandon(guarded(), dice)
        await aabandon(aguarded(), dice)
    for _ in range(5):  # the event loop closes what was forgotten
        await asyncio.sleep(0)
    gc.collect(0)
    return circuit.lost()


def streams(count: int, seed: int = 0) -> Result:
    """Abandon ``count`` generators and asynchronous generators halfway."""
    dice = random.Random(seed)

    async def main() -> Result:
        made = lost = 0
        while made < count and lost < LIMIT:
            for circuit in circuits():
                lost += await stream_round(circuit, dice)
                made += 2 * BATCH
        return Result(made, lost)

    return asyncio.run(main())


# Signals.


class InterruptError(BaseException):
    """What the signal's handler raises."""


def busy() -> None:
    for _ in range(20):
        pass


def handler(_signum, frame) -> None:
    if frame.f_code is busy.__code__ or frame.f_code.co_filename.startswith(ROOM):
        raise InterruptError
    signal.setitimer(signal.ITIMER_REAL, 0.00003)  # between two calls: once more in a moment


def interrupt(call: Callable[[], None], after_s: float) -> None:
    """Call again and again until a signal interrupts it."""
    try:
        signal.setitimer(signal.ITIMER_REAL, after_s)
        while True:
            with contextlib.suppress(RejectedError):
                call()
    except InterruptError:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def signal_round(circuit: Circuit, dice: random.Random) -> int:
    """Interrupt a batch of calls; return what was lost."""
    circuit.prepare()
    command = circuit.command
    ways: list[Callable[[], None]] = [lambda: command.call(busy), command(busy)]
    for _ in range(BATCH):
        interrupt(dice.choice(ways), 0.00005 + dice.random() * 0.0002)
        if circuit.condition == "half-open":
            circuit.clock.advance(1.0)  # a probe that is interrupted in the command itself costs its lease
    return circuit.lost()


def signals(count: int, seed: int = 0) -> Result:
    """Raise from a signal handler ``count`` times, in the middle of calls: in the function, and in the command."""
    dice = random.Random(seed)
    before = signal.signal(signal.SIGALRM, handler)
    made = lost = 0
    try:
        while made < count and lost < LIMIT:
            for circuit in circuits():
                lost += signal_round(circuit, dice)
                made += BATCH
    finally:
        signal.signal(signal.SIGALRM, before)
    return Result(made, lost)


# Forks.


def fail() -> None:
    raise ConnectionError


def in_child(work: Callable[[], int]) -> bool:
    """Run in a forked child; return whether it ended well and in time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking while threads run is what this is about
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    ends_at = monotonic() + BOUND_S
    while monotonic() < ends_at:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def usable(commands: list[Command]) -> int:
    """Return 0 if a child can use all commands, which have nothing in flight and all of their places."""
    for command in commands:
        if command.snapshot().in_flight:
            return 2
        held = [command.begin() for _ in range(LIMIT)]
        for attempt in held:
            attempt.settle(Outcome.SUCCESS)
        if command.snapshot().totals[Outcome.SUCCESS] != LIMIT:
            return 3
    return 0


def hammer(command: Command, stop: threading.Event) -> None:
    while not stop.is_set():
        with contextlib.suppress(ConnectionError, RejectedError):
            command.call(fail)


def forks(count: int, seed: int = 0) -> Result:
    """Fork ``count`` times while other threads hold the commands' locks as often as they can."""
    dice = random.Random(seed)
    commands = [circuit.command for circuit in circuits()]
    for command in commands:
        command.tune(mode="force_closed")
    stop = threading.Event()
    threads = [threading.Thread(target=hammer, args=(command, stop)) for command in commands]
    for thread in threads:
        thread.start()
    lost = 0
    try:
        for _ in range(count):
            time.sleep(dice.random() * 0.002)
            lost += not in_child(lambda: usable(commands))
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=BOUND_S)
    return Result(count, lost + sum(command.snapshot().in_flight for command in commands))


SCENES: dict[str, tuple[Callable[[int, int], Result], int]] = {
    "cancellations": (cancellations, 1_000_000),
    "streams": (streams, 100_000),
    "signals": (signals, 10_000),
    "forks": (forks, 300),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (scene, default) in SCENES.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{scene.__doc__} ({default})")
    parser.add_argument("--seed", type=int, default=0, help="of the dice (0)")
    options = parser.parse_args()
    lost = 0
    for name, (scene, _) in SCENES.items():
        count = getattr(options, name)
        if count:
            began = monotonic()
            result = scene(count, options.seed)
            lost += result.lost
            took_s = monotonic() - began
            sys.stdout.write(f"{name:14} {result.made:9,} {result.lost:6,} lost  {took_s:6.0f} s\n")
            sys.stdout.flush()
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
