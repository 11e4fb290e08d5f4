"""Tries servers one after another, makes the checks, and says what came of both, as text or as JSON."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import inf, isfinite
from typing import Final

from groundfault.doctor.finding import Finding
from groundfault.doctor.machine import Machine, examine
from groundfault.doctor.servers import SERVERS, Server, ServerError, running
from groundfault.doctor.showing import shown
from groundfault.doctor.waiting import Reading, hold_up

__all__ = ["FAILED", "WRONG", "Tried", "diagnose", "try_server"]

FAILED: Final = 1
"""A server that was asked for is not installed, or did not start."""
WRONG: Final = 4
"""A server has no signal that it should have, or one that is far from the truth."""

HOLD_S: Final = 0.3
DELAYS_S: Final = (0.1, 0.15)
TOLERANCE_S: Final = 0.03
"""What the reading may be off: a tick of the kernel, and the rest for a machine that has other things to do."""
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one server. ``failure`` says why it could not be tried; ``verdict`` is ``ok``, ``blind`` or else.

    ``error_s`` is the greatest error of the best attempt, None without a signal.
    """

    server: str
    version: str
    verdict: str
    signal: str = "none"
    error_s: float | None = None
    keeps_alive: bool = False
    refused: dict[str, str] | None = None
    failure: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        """The exit code that this finding alone would make."""
        return {"ok": 0, "blind": 0, "failed": FAILED}.get(self.verdict, WRONG)


def try_server(server: Server) -> Tried:
    """Start a server, hold it up for 300 ms, and compare; takes about two seconds. Raises nothing foreseeable."""
    if server.missing:
        missing = f"not installed: {', '.join(server.missing)}"
        return Tried(server.name, server.version, "failed", failure=missing, notes=server.notes)
    best: list[Reading] = []
    try:
        with running(server) as instance:
            for _ in range(_ATTEMPTS):
                readings = [
                    reading
                    for kept_alive in (False, True)
                    for reading in hold_up(instance.port, HOLD_S, DELAYS_S, kept_alive=kept_alive)
                ]
                best = min((each for each in (best, readings) if each), key=_worst)
                if _worst(best) <= TOLERANCE_S or best[-1].signal == "none":
                    break
    except (ServerError, OSError, ValueError) as failure:
        return Tried(server.name, server.version, "failed", failure=str(failure), notes=server.notes)
    worst = _worst(best)
    signal = best[-1].signal
    return Tried(
        server.name,
        server.version,
        _verdict(server, signal, worst),
        signal,
        worst if isfinite(worst) else None,
        any(reading.kept_alive for reading in best),
        best[-1].refused,
        notes=server.notes,
    )


def _worst(readings: list[Reading]) -> float:
    return max(inf if each.error_s is None else abs(each.error_s) for each in readings)


def _verdict(server: Server, signal: str, worst_s: float) -> str:
    if signal == "none":
        return "blind" if server.blind else "no signal"
    return "ok" if worst_s <= TOLERANCE_S else "wrong"


def diagnose(
    names: Iterable[str],
    *,
    as_json: bool,
    say: Callable[[str], None],
    checks: Callable[[Machine], Sequence[Finding]] | None = None,
    servers: bool = True,
    show: Callable[[Sequence[Finding]], Iterable[str]] = shown,
) -> int:
    """Examine the machine and the servers named, or all that are installed, and make the checks; return the exit code.

    ``say`` takes each line as soon as it is known; with ``as_json`` there is one line in the end.
    ``checks``: what makes them, None for none. ``servers``: whether any are tried. ``show``: how findings look.
    """
    machine = examine()
    tell = _silent if as_json else say
    for line in _lines_of_machine(machine):
        tell(line)
    tried = list(_try_servers(tuple(names), tell)) if servers else []
    found = list(checks(machine)) if checks is not None else []
    if as_json:
        facts = {"machine": machine, "servers": tried, "checks": found}
        say(json.dumps(facts, default=asdict))
    elif found:
        say("")
        for line in show(found):
            say(line)
    return max([0, *(each.code for each in tried), *(each.code for each in found)])


def _silent(line: str) -> None:
    """Say nothing."""


def _try_servers(wanted: tuple[str, ...], tell: Callable[[str], None]) -> Iterator[Tried]:
    tell("")
    for server in SERVERS:
        if server.name in wanted if wanted else not server.missing:
            tried = try_server(server)
            for line in _lines_of(tried):
                tell(line)
            yield tried


def _lines_of_machine(machine: Machine) -> Iterator[str]:
    yield f"system        {machine.system}, {machine.python}"
    yield f"kernel's word {machine.self_test or 'to be trusted: a wait of 30 ms on loopback reads as one'}"
    if machine.tick_s is not None:
        yield f"resolution    {machine.tick_s * 1e3:.0f} ms"
    yield f"sock_diag     {machine.sock_diag or 'answers'}"
    if machine.somaxconn is not None:
        yield f"somaxconn     {machine.somaxconn}: no accept queue is longer, whatever backlog a server asks for"
    if machine.overflows is not None:
        yield f"overflows     {machine.overflows} connections so far found an accept queue full, in this namespace"
    for name, value in machine.environment.items():
        yield f"environment   {name}={value}"


def _lines_of(finding: Tried) -> Iterator[str]:
    name = f"{finding.server} {finding.version}".rstrip()
    if finding.failure is not None:
        yield f"{name:34} FAILED     {finding.failure}"
        return
    error = "" if finding.error_s is None else f"off by {finding.error_s * 1e3:.1f} ms at most"
    kept = "" if finding.keeps_alive else ", keeps no connection"
    yield f"{name:34} {finding.verdict.upper():10} {finding.signal}{', ' if error else ''}{error}{kept}"
    if finding.verdict != "ok":
        for signal, cause in (finding.refused or {}).items():
            yield f"{'':34} {signal}: {cause}"
    for note in finding.notes:
        yield f"{'':34} {note}"
