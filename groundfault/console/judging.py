"""How bad it is, and why, in words: of a command and of a server, over one window. Pure."""

from collections.abc import Mapping
from math import ceil
from typing import Final

from groundfault.console.figures import percent, short
from groundfault.console.view import Level
from groundfault.metrics.report import ADMITTED, CommandReport, ServerReport

__all__ = ["Verdict", "judge_command", "judge_server", "refused_of"]

Verdict = tuple[Level, list[str], float]
"""Level, reasons with the worst first, trouble."""

_BAD: Final = 1000.0
_WARN: Final = 100.0
_VOLUME_PER_S: Final = 2.0  # as BreakerSettings has it where a process does not say
_THRESHOLD: Final = 0.5
_NOTABLE: Final = 0.05  # a share that is worth a word though it trips nothing
_HIGH: Final = 0.8  # of a limit, as the event ``command.concurrency_high``


def judge_command(  # noqa: C901  one line for each thing that can be wrong
    seen: CommandReport, counts: Mapping[str, int], fallbacks: Mapping[str, int], error_share: float, span_s: float
) -> Verdict:
    """Return the verdict. ``counts`` and ``fallbacks``: of the window, which is ``span_s`` long."""
    bad: list[str] = []
    warn: list[str] = []
    states, count = seen.states, counts.get
    processes = sum(states.values())
    if len(states) != 1 or "closed" not in states:
        if states.get("open"):
            bad.append(f"circuit open{_in(states['open'], processes)}")
        if states.get("half-open"):
            warn.append(f"circuit half-open{_in(states['half-open'], processes)}")
    if error_share:
        _judge_errors(seen, counts, error_share, span_s, bad=bad, warn=warn)
    if seen.unhealthy:
        bad.append(f"the health check says no{_in(seen.unhealthy, processes)}")
    if seen.saturated:
        bad.append(f"the callee does nothing but refuse{_in(seen.saturated, processes)}")
    if shed := count("shed"):
        made = shed + count("success", 0) + count("failure", 0) + count("timeout", 0)
        warn.append(f"{percent(shed / made)} of the calls are shed by the callee")
    if seen.admitted_share < 1.0:
        warn.append(f"sends {percent(seen.admitted_share)} of the calls")
    limit, full = seen.limit, count("bulkhead-full")
    if full or (limit and seen.active >= _HIGH * limit):
        of = f"concurrency {seen.active} of {limit}" if limit else "concurrency"
        warn.append(f"{of}: {_calls(full)} refused" if full else of)
    if (refused := count("circuit-open")) and not states.get("open"):
        warn.append(f"{_calls(refused)} refused by the circuit")
    if failed := fallbacks.get("failed", 0) + fallbacks.get("refused", 0):
        warn.append(f"{failed} fallback{'s' if failed > 1 else ''} failed")
    notes = _judge_modes(seen.modes, processes, warn) if seen.modes else []
    level: Level = "bad" if bad else "warn" if warn else "ok"
    if level == "ok":
        return level, notes, 0.0
    ill = sum(counts.values()) - count("success", 0) - count("ignored", 0)
    weight = ill / span_s if span_s else 0.0
    return level, bad + warn + notes, short(_BAD + weight if bad else _WARN + min(weight, _BAD - _WARN - 1))


def _judge_errors(
    seen: CommandReport, counts: Mapping[str, int], share: float, span_s: float, *, bad: list[str], warn: list[str]
) -> None:
    timeouts, failures = counts.get("timeout", 0), counts.get("failure", 0)
    judged = counts.get("success", 0) + failures + timeouts
    enough = judged >= max(1, ceil(seen.settings.get("minimum_volume_per_s", _VOLUME_PER_S) * span_s))
    words = f"{percent(share)} of the calls failed"
    if enough and share >= seen.settings.get("failure_threshold", _THRESHOLD):
        bad.append(words)
    elif enough and share >= _NOTABLE:
        warn.append(words)
    if timeouts:
        warn.append(f"{_calls(timeouts)} timed out")


def _judge_modes(modes: Mapping[str, int], processes: int, warn: list[str]) -> list[str]:
    """Add the modes that hold or let everything; return the others, which are notes."""
    notes: list[str] = []
    for mode, times in sorted(modes.items()):
        words = f"{mode.replace('_', ' ')} mode{_in(times, processes)}"
        (warn if mode.startswith("force") else notes).append(words)
    return notes


def refused_of(counts: Mapping[str, int]) -> int:
    """Return how many requests were refused, of a window's counts by reason."""
    return sum(counts.values()) - counts.get(ADMITTED, 0)


def judge_server(
    seen: ServerReport, counts: Mapping[str, int], *, abandoned: int, wait_p99_s: float | None, processes: int
) -> Verdict:
    """Return the verdict. ``counts``: of the window by reason."""
    bad: list[str] = []
    warn: list[str] = []
    notes: list[str] = []
    refused, total = refused_of(counts), sum(counts.values())
    if refused:
        share = refused / total
        reasons = ", ".join(sorted((each for each in counts if each != ADMITTED), key=lambda each: -counts[each]))
        if seen.modes.get("shadow", 0) >= max(1, processes):
            warn.append(f"{percent(share)} of the requests would be shed: {reasons}")
        else:
            words = f"{percent(share)} of the requests are shed: {reasons}"
            (bad if share >= _NOTABLE else warn).append(words)
    if abandoned:
        warn.append(f"{abandoned} of them {'were' if abandoned > 1 else 'was'} given up by the client before")
    if seen.stepped_aside:
        warn.append(f"lets everything through after internal errors{_in(seen.stepped_aside, processes)}")
    if wait_p99_s is not None and seen.threshold_s is not None and wait_p99_s > seen.threshold_s and not refused:
        warn.append(f"requests wait {_time(wait_p99_s)} (p99); beyond {_time(seen.threshold_s)} they are shed")
    if seen.backlog and seen.backlog_limit and 2 * seen.backlog > seen.backlog_limit:
        warn.append(f"{seen.backlog} of {seen.backlog_limit} places before accept are taken")
    for mode, times in sorted(seen.modes.items()):
        (warn if mode == "off" else notes).append(f"{mode} mode{_in(times, processes)}")
    if total and set(seen.signals) == {"none"}:
        notes.append("no signal tells how long requests have waited")
    level: Level = "bad" if bad else "warn" if warn else "ok"
    trouble = 0.0 if level == "ok" else (_BAD if bad else _WARN) + refused / max(1, total) * (_BAD - _WARN - 1)
    return level, bad + warn + notes, short(trouble)


def _in(times: int, processes: int) -> str:
    return f" in {times} of {processes} processes" if processes > 1 else ""


def _calls(times: int) -> str:
    return f"{times} calls" if times > 1 else "1 call"


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
