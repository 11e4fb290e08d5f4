"""What is done to the chain and when: a plan made from a seed, and the hand that carries it out."""

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from groundfault._clock import monotonic
from groundfault.lab.faults.fault import Fault, FaultError, Kind

SERVICES = ("topps", "grouper", "saber")
ROUTES = ("grouper", "saber")
FAULTS = (
    Fault(kind=Kind.LATENCY, delay_s=0.4, jitter_s=0.3),
    Fault(kind=Kind.RESET, share=0.5),
    Fault(kind=Kind.SLOW_CLOSE, delay_s=1.0),
    Fault(kind=Kind.TRUNCATION, after_bytes=5, share=0.5),
    Fault(kind=Kind.BANDWIDTH, bytes_per_s=2_000),
    Fault(kind=Kind.BLACKHOLE),
    Fault(kind=Kind.REFUSE),
)
VALID: tuple[dict, ...] = (
    {"*": {"failure_threshold": 0.3}},
    {"saber/contest-db": {"max_concurrent": 2}},
    {"grouper": {"mode": "shadow"}},
    {"topps": {"server.deadline_s": 0.6}, "grouper/saber": {"timeout_s": 0.4}},
    {"saber": {"server.mode": "shadow"}},
    {"*": {"sleep_window_s": 1.0, "max_sleep_window_s": 2.0}, "topps/grouper": {"max_concurrent": 30}},
    {"saber/contest-db": {"max_concurrent": 40, "timeout_s": 0.3}},
)
INVALID: tuple[bytes, ...] = (
    b"{",
    b"",
    b"\xff\xfe\x00",
    b'{"*": {"no_such_setting": 1}}',
    b'{"*": {"failure_threshold": 7}}',
    b'{"*": {"timeout_s": NaN}}',
    b'["*"]',
)
CALM_SETTINGS: dict = {"*": {"sleep_window_s": 1.0, "max_sleep_window_s": 4.0}}
"""What is in force before and after: circuits ask again soon, so that the calm need not be long."""


@dataclass(frozen=True)
class Act:
    """One thing that is done at ``t`` seconds of the chaos. ``number``: which of those that there are."""

    t: float
    kind: str
    who: str
    number: int = 0
    lasts_s: float = 0.0


def planned(seconds: float, seed: int = 0) -> list[Act]:
    """Return what is done in so many seconds.

    Processes are ended in the first three fifths only, so that the rest shows what those that live on grow by.
    Everything is over before the end. However short, each sort of act has its turn once.
    """
    dice = random.Random(seed)
    acts: list[Act] = []
    scale = min(1.0, seconds / 60.0)
    for kind, until, gap_s, lasts_s in (
        ("fault", 0.95, 5.0, 6.0),
        ("kill", 0.6, 6.0, 0.0),
        ("freeze", 0.95, 11.0, 2.0),
        ("settings", 0.9, 7.0, 0.0),
        ("spoil", 0.9, 13.0, 0.0),
        ("reload", 0.6, 25.0, 0.0),
    ):
        t, number = seconds * 0.05 + dice.random() * gap_s * scale * 0.5, 0
        while t < seconds * until:
            lasting = min(lasts_s * scale * dice.uniform(0.5, 1.5), seconds * 0.97 - t)
            who = (ROUTES if kind == "fault" else SERVICES)[number % (2 if kind == "fault" else 3)]
            acts.append(Act(t, kind, who, number, lasting))
            t += lasting + gap_s * scale * dice.uniform(0.6, 1.4)
            number += 1
    return sorted(acts, key=lambda act: act.t)


class Hand:
    """Carries the plan out on a chain, and says what it did."""

    def __init__(self, chain, settings: Path, seed: int = 0) -> None:
        self._chain = chain
        self._settings = settings
        self._dice = random.Random(seed)
        self._undo: list[tuple[float, str, object]] = []
        self.done: Counter[str] = Counter()
        self.killed: set[int] = set()
        self.leaving: set[int] = set()  # told to go by a reload
        self._reloads: dict[str, float] = {}

    def act(self, act: Act) -> str:
        """Do it and return what was done, in words; nothing where it cannot be done now."""
        try:
            text = getattr(self, f"_do_{act.kind}")(act)
        except ProcessLookupError:  # it has ended by itself a moment before
            return ""
        if text:
            self.done[act.kind] += 1
        return text

    def undo(self, now: float) -> Iterator[str]:
        """End what has lasted long enough."""
        due = [each for each in self._undo if each[0] <= now]
        self._undo = [each for each in self._undo if each[0] > now]
        for _, kind, what in due:
            if kind == "freeze":
                with suppress(ProcessLookupError):
                    os.kill(what, signal.SIGCONT)
            else:
                self._chain.proxy.heal(what)
                yield f"{what}: well"

    def finish(self) -> None:
        """End all that lasts, and put the settings of the calm in force."""
        with suppress(OSError, FaultError):  # a proxy that has gone is found by who counts the dead
            for _ in self.undo(float("inf")):
                pass
        self.settle()

    def settle(self) -> None:
        """Put the settings of the calm in force."""
        self._write(json.dumps(CALM_SETTINGS).encode())

    def _write(self, data: bytes) -> None:
        unfinished = self._settings.with_suffix(".tmp")
        unfinished.write_bytes(data)
        unfinished.replace(self._settings)

    def _do_fault(self, act: Act) -> str:
        fault = FAULTS[act.number % len(FAULTS)]
        self._chain.proxy.set(act.who, fault)
        self._undo.append((monotonic() + act.lasts_s, "fault", act.who))
        self.done[f"fault {fault.kind}"] += 1
        return f"{act.who}: {fault.kind}"

    def _worker(self, service: str) -> int | None:
        """Return a worker of this service, if there are others beside it and it is not frozen."""
        frozen = {what for _, kind, what in self._undo if kind == "freeze"}
        workers = [pid for pid in self._chain.workers(service) if pid not in frozen | self.leaving | self.killed]
        return self._dice.choice(workers) if len(workers) > 1 else None

    def _do_kill(self, act: Act) -> str:
        pid = self._worker(act.who)
        # A supervisor that is busy replacing its workers one by one does not look after those that die.
        if pid is None or monotonic() < self._reloads.get(act.who, 0.0):
            return ""
        os.kill(pid, signal.SIGKILL)
        self.killed.add(pid)
        self.done[f"kill {act.who}"] += 1
        return f"{act.who}: kill -9"

    def _do_freeze(self, act: Act) -> str:
        pid = self._worker(act.who)
        if pid is None:
            return ""
        os.kill(pid, signal.SIGSTOP)
        self._undo.append((monotonic() + act.lasts_s, "freeze", pid))
        return f"{act.who}: SIGSTOP for {act.lasts_s:.1f} s"

    def _do_settings(self, act: Act) -> str:
        document = VALID[act.number % len(VALID)]
        merged = {**CALM_SETTINGS, **document, "*": {**CALM_SETTINGS["*"], **document.get("*", {})}}
        self._write(json.dumps(merged).encode())
        return f"settings {json.dumps(document)}"

    def _do_spoil(self, act: Act) -> str:
        self._write(INVALID[act.number % len(INVALID)])
        return "settings spoiled"

    def _do_reload(self, act: Act) -> str:
        self.leaving |= set(self._chain.workers(act.who))
        self._reloads[act.who] = monotonic() + 8.0
        os.kill(self._chain.servers[act.who].pid, signal.SIGHUP)
        return f"{act.who}: reload"
