"""What a settings store in trouble does to the calls of a process that follows it: nothing, and it is seen.

    python bench/settings_trouble.py [--seconds 6] [--only redis] [--json]

For each store and each trouble: a run of calls without a store, then the same run while the store is

* ``stopped``: all its processes stand still (SIGSTOP); for SQLite, another process holds the file's lock;
* ``killed``: its processes are gone; for SQLite, the file is;
* ``slow``: every answer comes 0.7 s late, through a proxy;
* ``poisoned``: it holds a document that makes no sense.

A call is unaffected if its result is right and it took no longer than the band of the run without a store:
99.9 % of those, and 5 ms, one turn of the interpreter's lock, more. The shares may differ by half a point.
Beside them stand the event that said so, and what the status says at the end of the trouble.
Needs PostgreSQL and Redis on this machine; what is missing is left out and named.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field

from settings_places import Place, places

from groundfault._clock import monotonic
from groundfault.breaker import Command, Registry, Resource
from groundfault.errors import RejectedError
from groundfault.events import Event, SettingsStoreChanged
from groundfault.settings.live import LiveSettings
from groundfault.settings.store import NOTHING_YET, Change, NothingStoredError, WritableStore

THREADS = 4
WORK_S = 0.001
LOCK_TURN_S = 0.005
WAIT_S = 30.0


# --- calls ------------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """How the calls of one run went."""

    durations: list[float] = field(default_factory=list)
    wrong: int = 0
    refused: int = 0

    @property
    def calls(self) -> int:
        return len(self.durations) + self.wrong + self.refused

    def band_s(self) -> float:
        ordered = sorted(self.durations)
        return ordered[int(len(ordered) * 0.999)] + LOCK_TURN_S

    def unaffected(self, band_s: float) -> float:
        return sum(duration <= band_s for duration in self.durations) / self.calls


def work(number: int) -> int:
    time.sleep(WORK_S)
    return number + 1


def run_calls(command: Command, seconds: float, *, at_least_until: Callable[[], bool] = lambda: True) -> Run:
    """Call from a few threads, one call after the other in each."""
    runs = [Run() for _ in range(THREADS)]
    end = monotonic() + seconds
    last = end + WAIT_S

    def call(run: Run) -> None:
        number = 0
        while (now := monotonic()) < end or (now < last and not at_least_until()):
            number += 1
            started = monotonic()
            try:
                right = command.call(work, number) == number + 1
            except RejectedError:
                run.refused += 1
                time.sleep(WORK_S)
                continue
            except Exception:  # noqa: BLE001  whatever it is, the call did not go as it should
                right = False
            if right:
                run.durations.append(monotonic() - started)
            else:
                run.wrong += 1

    threads = [threading.Thread(target=call, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Run([duration for run in runs for duration in run.durations], *_sums(runs))


def _sums(runs: list[Run]) -> tuple[int, int]:
    return sum(run.wrong for run in runs), sum(run.refused for run in runs)


# --- one trouble ------------------------------------------------------------------------------------------------------


def put_good(store: WritableStore) -> str:
    """Write a good document."""
    try:
        document = store.load(None)
    except NothingStoredError:
        document = None
    based_on = document.version if document is not None else NOTHING_YET
    changes = [
        Change("bench", "timeout_s", 9.0),
        Change("bench/contest-*", "max_concurrent", 100 + time.time_ns() % 50),
    ]
    return store.write(changes, reason="a benchmark", actor="bench", based_on=based_on)


@dataclass
class Finding:
    """What one trouble did."""

    store: str
    trouble: str
    calls: int
    without: float
    with_trouble: float
    wrong: int
    refused: int
    event: str | None
    event_after_s: float | None
    state: str
    age_s: float | None
    error: str | None
    back_after_s: float | None

    @property
    def points(self) -> float:
        return 100 * (self.without - self.with_trouble)


def find(place: Place, trouble: str, seconds: float, *, compare: bool = True) -> Finding:
    """Run the calls without a store, then with one in trouble.

    Not ``compare``: without the first, but until the trouble is seen.
    """
    registry = Registry()
    command = Resource("contest-db", registry=registry, sinks=[]).command("entrants", timeout_s=9.0, max_concurrent=64)
    events: list[tuple[float, SettingsStoreChanged]] = []

    def note(event: Event) -> None:
        if isinstance(event, SettingsStoreChanged):
            events.append((monotonic(), event))

    note.prompt = True  # type: ignore[attr-defined]  # a function may carry attributes; mypy has no word for it
    run_calls(command, 1.0 if compare else 0.1)  # everything warm
    without = run_calls(command, seconds if compare else 0.1)

    with closing(place.store()) as writer:
        put_good(writer)
    live = LiveSettings(place.store, service="bench", registry=registry, shedders=[], sinks=[note], cache=False)
    live.start()
    try:
        _await(lambda: command.settings.max_concurrent != 64, "the settings never came into force")
        in_force = command.settings
        place.trouble(trouble)
        began = monotonic()
        try:
            with_trouble = run_calls(
                command, seconds, at_least_until=lambda: compare or live.status().state in {"unreachable", "rejected"}
            )
            said = [(at, event) for at, event in events if at >= began]
            status = live.status()
            assert command.settings == in_force, "the last good settings did not stay"
        finally:
            place.heal(trouble)
            healed = monotonic()
        with closing(place.store()) as writer:
            put_good(writer)
        _await(lambda: live.status().state == "applied", "it never came out of the trouble")
        back = monotonic() - healed
    finally:
        live.stop()
    band_s = without.band_s()
    return Finding(
        place.kind,
        trouble,
        with_trouble.calls,
        without.unaffected(band_s),
        with_trouble.unaffected(band_s),
        with_trouble.wrong,
        with_trouble.refused,
        said[0][1].status if said else None,
        said[0][0] - began if said else None,
        status.state,
        status.age_s,
        status.error,
        back,
    )


def _await(done: Callable[[], bool], otherwise: str) -> None:
    end = monotonic() + WAIT_S
    while not done():
        if monotonic() > end:
            raise RuntimeError(otherwise)
        time.sleep(0.01)


# --- all of them ------------------------------------------------------------------------------------------------------


def show(finding: Finding) -> None:
    event = f"settings.{finding.event} after {finding.event_after_s:.1f} s" if finding.event_after_s else "none"
    age = "never" if finding.age_s is None else f"{finding.age_s:.1f} s"
    print(
        f"{finding.store:9}{finding.trouble:10}{finding.calls:8}"
        f"{finding.without:9.2%}{finding.with_trouble:9.2%}{finding.points:+8.2f}"
        f"{finding.wrong:7}{finding.refused:8}  {event:34}{finding.state:12} {age:8} {finding.back_after_s:5.1f} s"
    )
    if finding.error:
        print(f"{'':19}{finding.error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of calls without and with trouble (default: 6)")
    parser.add_argument("--only", choices=("sqlite", "postgres", "redis", "hub"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    findings: list[Finding] = []
    with places(options.only) as found:
        if not options.json:
            print(
                f"{'store':9}{'trouble':10}{'calls':>8}{'without':>9}{'with':>9}{'points':>8}{'wrong':>7}{'refused':>8}"
                f"  {'event':34}{'state':12} {'age':8} back after"
            )
        for place in found:
            for trouble in place.troubles:
                findings.append(find(place, trouble, options.seconds))
                if not options.json:
                    show(findings[-1])
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    if any(finding.points > 0.5 or finding.wrong or finding.refused for finding in findings):
        sys.exit("calls were affected")


if __name__ == "__main__":
    main()
