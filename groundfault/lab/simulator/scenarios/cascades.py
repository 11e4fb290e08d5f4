"""Small chains in which one overload becomes everybody's: the cases that the breaker's rules were chosen by.

::

    fans ──► topps ──► grouper [──► pricing ──► rules] ──► saber
    lobby ─► topps ──► grouper

Each service has four processes. saber, the last one, can do 400 requests a second; 240 a second need it, and 80 end at
grouper: their users are the innocents, for nothing they need is scarce.
"""

from collections.abc import Callable
from typing import Any, Final

__all__ = ["CAPACITY_RPS", "TITLES", "document"]

CAPACITY_RPS: Final = 400.0
"""What saber can do: four processes of two threads, 20 ms for each request."""

_FANS_RPS: Final = 240.0
_LOBBY_RPS: Final = 80.0
_MIDDLE: Final = ("grouper", "pricing", "rules")
_TIMEOUTS_S: Final = {2: (1.5, 1.0), 4: (1.75, 1.5, 1.25, 1.0)}
_DEADLINE_S: Final = 2.0
_BEFORE_S: Final = 10.0
_EVENT_S: Final = 20.0
_OUTAGE_S: Final = 60.0

TITLES: Final = {
    "cascade": "eight times the load for 20 s, two edges",
    "cascade-users": "the same, and 70 % of the users who fail ask again",
    "cascade-four-edges": "the same with users who ask again, four edges",
    "cascade-blip": "eight times the load for a minute, four edges, users who ask again",
    "cascade-retries": "eight times the load for 20 s, and two retries at each hop, without a budget",
    "cascade-retries-budget": "the same with GroundFault's retries: once, elsewhere, in a budget of 10 %",
    "cascade-brownout": "saber takes four times as long for 20 s",
    "cascade-down": "saber is down for a minute",
    "cascade-sick": "saber refuses everything with annotated 503s for a minute",
    "cascade-fan-out": "eight times the load for 20 s, and three calls of saber for each request",
    "cascade-fan-out-3x": "three times the load for 20 s, and three calls of saber for each request",
}
"""What each of them is, in words."""


def document(name: str) -> dict[str, Any]:
    """Return a scenario of this module, as a scenario file holds it. KeyError for a name that is not in TITLES."""
    made = _CASES[name]()
    return {"name": name, "title": TITLES[name], **made}


def _spike(
    *,
    edges: int = 2,
    factor: float = 8.0,
    hold_s: float = _EVENT_S,
    after_s: float = 30.0,
    asks_again: bool = False,
    retries: dict[str, Any] | None = None,
    fan_out: int = 1,
) -> dict[str, Any]:
    def stream(name: str, rps: float, *, innocent: bool) -> dict[str, Any]:
        spike = {"base_rps": rps, "factor": factor, "before_s": _BEFORE_S, "spike_s": hold_s, "after_s": after_s}
        made = {"name": name, "to": "topps", "innocent": innocent, "spike": {**spike, "rise_s": 0.0}}
        if asks_again:
            made["again"] = {"share": 0.7, "delay": {"kind": "uniform", "low_s": 0.5, "high_s": 1.5}, "most": 3}
        return made

    return {
        "deadline_s": _DEADLINE_S,
        "capacity_rps": CAPACITY_RPS / fan_out,
        "bounds": _shown("goodput@spike", "below_s", after=True),
        "services": _services(edges, retries, fan_out),
        "streams": [
            stream("lineup", _FANS_RPS / fan_out, innocent=False),
            stream("lobby", _LOBBY_RPS, innocent=True),
        ],
    }


def _event(
    event: dict[str, Any], *, for_s: float, capacity_rps: float | None, figures: tuple[str, ...]
) -> dict[str, Any]:
    """Something happens to saber, under the usual load."""
    end = _BEFORE_S + for_s
    total_s = end + 30.0
    made = {
        "total_s": total_s,
        "deadline_s": _DEADLINE_S,
        "spans": {"before": [0.0, _BEFORE_S], "spike": [_BEFORE_S, end], "after": [end, total_s]},
        "bounds": _shown(*figures, after=True),
        "services": _services(2, None, 1),
        "streams": [
            {"name": "lineup", "to": "topps", "rate": _FANS_RPS},
            {"name": "lobby", "to": "topps", "innocent": True, "rate": _LOBBY_RPS},
        ],
        "events": [{"at": _BEFORE_S, "service": "saber", "for_s": for_s, **event}],
    }
    return made if capacity_rps is None else {**made, "capacity_rps": capacity_rps}


def _shown(*figures: str, after: bool) -> list[str]:
    return [*figures, "success.innocent@spike", *(("recovery_s@after", "recovery_s.innocent@after") if after else ())]


def _services(edges: int, retries: dict[str, Any] | None, fan_out: int) -> dict[str, Any]:
    names = ("topps", *_MIDDLE[: edges - 1], "saber")
    timeouts_s = _TIMEOUTS_S[edges]
    deadlines_s = (_DEADLINE_S, *timeouts_s)
    threads = (64, *(32 for _ in names[1:-1]), 2)
    works_s = (0.003, *(0.005 for _ in names[1:-1]), 0.020)
    services: dict[str, Any] = {}
    for at, name in enumerate(names):
        services[name] = made = {
            "workers": 4,
            "threads": threads[at],
            "deadline_s": deadlines_s[at],
            "wait": {"kind": "exponential", "mean_s": works_s[at]},
            "shed_cost_s": round(0.02 * works_s[at], 6),
        }
        if at == len(names) - 1:
            continue
        call: dict[str, Any] = {"to": names[at + 1], "timeout_s": timeouts_s[at]}
        if at:
            call["routes"] = ["lineup"]  # what the lobby shows, grouper knows by itself
        if retries is not None:
            call["retries"] = retries
        if names[at + 1] == "saber" and fan_out > 1:
            call.update(count=fan_out, parallel=True)
        made["calls"] = [call]
    return services


_PLAIN_RETRIES: Final = {"rule": "plain", "most": 2, "backoff_s": 0.05}
_OUR_RETRIES: Final = {"rule": "groundfault", "most": 1, "budget": 0.1}

_CASES: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "cascade": _spike,
    "cascade-users": lambda: _spike(asks_again=True),
    "cascade-four-edges": lambda: _spike(edges=4, asks_again=True),
    "cascade-blip": lambda: _spike(edges=4, asks_again=True, hold_s=60.0, after_s=340.0),
    "cascade-retries": lambda: _spike(asks_again=True, retries=_PLAIN_RETRIES),
    "cascade-retries-budget": lambda: _spike(asks_again=True, retries=_OUR_RETRIES),
    "cascade-brownout": lambda: _event(
        {"action": "slow", "factor": 4.0},
        for_s=_EVENT_S,
        capacity_rps=CAPACITY_RPS / 4,
        figures=("goodput@spike", "below_s"),
    ),
    "cascade-down": lambda: _event(
        {"action": "down"}, for_s=_OUTAGE_S, capacity_rps=None, figures=("below_s.innocent",)
    ),
    "cascade-sick": lambda: _event(
        {"action": "handled"}, for_s=_OUTAGE_S, capacity_rps=None, figures=("below_s.innocent",)
    ),
    "cascade-fan-out": lambda: _spike(fan_out=3),
    "cascade-fan-out-3x": lambda: _spike(fan_out=3, factor=3.0),
}
