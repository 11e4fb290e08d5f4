"""The targets of the scenarios: which services, how large, and what can be done to them."""

from typing import Final

from groundfault.lab.targets.faults import Faults, Kind
from groundfault.lab.targets.fleet import Action, Fleet, RunningFleet, Server

__all__ = [
    "CALLERS",
    "INSTANCES",
    "MAX_CONCURRENT",
    "blips",
    "deploy",
    "herd",
    "one_of_seven",
    "query",
    "storm",
    "sunday",
]

SABER_RPS: Final = 20.0
"""Two slots of a tenth of a second: the small service that most of them have."""

MAX_CONCURRENT: Final = 5
ENTRANTS_S: Final = 0.25
CALLERS: Final = ("lobby", "lineup", "scores", "standings")
INSTANCES: Final = 7

_SABER: Final = Server(service="saber", module="scarce", threads=5, options={"slots": 2, "work_s": 0.1})


def _fault(faults: Faults) -> Action:
    def put_in(running: RunningFleet) -> None:
        faults.write(running.directory)

    return put_in


def _deploy(running: RunningFleet) -> None:
    running.replace("saber")


def _database(*, entrants_s: float, comfortable: int, dies_at: int) -> Server:
    return Server(
        service="contest-db",
        module="database",
        options={
            "entrants_s": entrants_s,
            "contest_s": 0.01,
            "comfortable": comfortable,
            "dies_at": dies_at,
            "dead_s": 5.0,
        },
    )


def _contests(threads: int, **options: float) -> Server:
    return Server(service="contests", module="contests", threads=threads, calls=("contest-db",), options=options)


def query() -> Fleet:
    """Return a service with one unbounded query, and a database that dies of forty at once."""
    return Fleet(
        title="contests and its database",
        servers=(
            _database(entrants_s=ENTRANTS_S, comfortable=8, dies_at=40),
            _contests(
                64,
                timeout_s=0.8,
                sleep_window_s=2.0,
                max_sleep_window_s=4.0,
                max_concurrent=MAX_CONCURRENT,
                fallback=0,
            ),
        ),
        capacity_rps=MAX_CONCURRENT / ENTRANTS_S,
    )


def blips() -> Fleet:
    """Return a service with a fallback, and a database node that can stop answering."""
    return Fleet(
        title="contests and a database node",
        servers=(
            _database(entrants_s=0.05, comfortable=1000, dies_at=0),
            _contests(24, timeout_s=0.3, sleep_window_s=1.0, max_sleep_window_s=2.0, max_concurrent=20, fallback=1),
        ),
        actions={"silence": _fault(Faults(silent=True)), "answer": _fault(Faults())},
    )


def herd() -> Fleet:
    """Return four services with caches, and the small one behind them all."""
    callers = tuple(
        Server(
            service=name,
            module="caching",
            threads=24,
            calls=("saber",),
            options={"keys": 40, "live": 8, "timeout_s": 0.9},
        )
        for name in CALLERS
    )
    front = Server(service="front", module="balancer", calls=CALLERS, options={"default": CALLERS[0]})
    return Fleet(
        title="four callers with caches and saber",
        servers=(_SABER, *callers, front),
        actions={"clear caches": _fault(Faults(cleared=1))},
    )


def sunday() -> Fleet:
    """Return a front and the small service behind it."""
    return Fleet(
        title="topps and saber",
        servers=(_SABER, _hop("topps", "saber", threads=32, timeout_s=0.9)),
        capacity_rps=SABER_RPS,
    )


def storm() -> Fleet:
    """Return the fans' apps, a service between, and the small one: the first two try again what failed."""
    return Fleet(
        title="the fans' apps, grouper and saber",
        servers=(
            _SABER,
            _hop("grouper", "saber", threads=48, timeout_s=0.3, tries=3),
            _hop("apps", "grouper", threads=64, timeout_s=0.95, tries=3),
        ),
        capacity_rps=SABER_RPS,
        actions={"brownout": _fault(Faults(slower=4.0)), "heal": _fault(Faults())},
    )


def _hop(service: str, callee: str, *, threads: int, timeout_s: float, tries: int = 1) -> Server:
    return Server(
        service=service,
        module="hop",
        threads=threads,
        calls=(callee,),
        options={"callee": callee, "timeout_s": timeout_s, "tries": tries},
    )


def deploy() -> Fleet:
    """Return four instances behind a balancer."""
    saber = Server(
        service="saber",
        module="scarce",
        threads=8,
        instances=4,
        drains=True,
        options={"slots": 8, "work_s": 0.1},
    )
    front = Server(service="front", module="balancer", calls=("saber",), options={"default": "saber"})
    return Fleet(title="four instances of saber behind a balancer", servers=(saber, front), actions={"deploy": _deploy})


def one_of_seven(sickness: Kind) -> Fleet:
    """Return seven instances, any of which can fall ill, and the service that picks among them."""
    saber = Server(
        service="saber",
        module="scarce",
        threads=5,
        instances=INSTANCES,
        options={"slots": 4, "work_s": 0.05, "sickness": sickness},
    )
    picking = Server(
        service="grouper",
        module="picking",
        threads=48,
        calls=("saber",),
        options={"timeout_s": 0.4, "minimum_volume_per_s": 0.5, "handled_patience_s": 2.0, "retry_ratio": 0.2},
    )
    return Fleet(
        title="grouper and seven instances of saber",
        servers=(saber, picking),
        actions={"fall ill": _fault(Faults(sick=(3,))), "heal": _fault(Faults())},
    )
