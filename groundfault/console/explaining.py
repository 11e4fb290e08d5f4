"""What each live setting is for, in a sentence, and what its value may be: for who fills in a form."""

from collections.abc import Mapping
from typing import Any, Final

from groundfault.settings.names import LIVE

__all__ = ["ABOUT", "bounds", "explained"]

ABOUT: Final[Mapping[str, str]] = {
    "timeout_s": "A call that takes longer is a timeout, which is a failure.",
    "slow_call_s": "A call that takes longer is a failure, too, but is not given up.",
    "failure_threshold": "The share of failures that trips the circuit.",
    "minimum_volume_per_s": "With fewer calls than this nothing trips: one error in a quiet service says little.",
    "sleep_window_s": "How long an open circuit waits for its probe.",
    "max_sleep_window_s": "The sleep window doubles with each failed probe, up to this.",
    "max_concurrent": "Calls in flight at once, in each process; one more is refused.",
    "mode": "shadow: decide and count, refuse nothing. force_open: refuse all. force_closed: never trip.",
    "honor_handled": "Whether an annotated 503 is neutral; else it is a failure like any other.",
    "handled_patience_s": "A callee that has only refused for this long is called saturated.",
    "on_saturated": "What to do then: report it, or open the circuit as well.",
    "health_check_ttl_s": "How long the answer of the health check stands.",
    "isolation": "Where a plain function runs: on the thread that calls it, or on one of its own.",
    "probe": "What an open circuit sends to find out: the next call, or the health check.",
    "fallback_max_concurrent": "Fallbacks of the command that run at once; beyond that the error is raised.",
    "fallback_timeout_s": "A fallback that takes longer is given up, and the error is raised.",
    "server.mode": "shadow: decide and count, refuse nothing. off: do not even look.",
    "server.deadline_s": "How long callers wait that do not say so themselves; the ladder is built on it.",
    "server.max_concurrency": "Requests in flight at once, in each process; one more is refused.",
    "server.health_paths": "Paths that are never refused.",
    "server.health_rate_per_s": "Up to this many requests a second for those paths.",
    "server.max_deadline_s": "The longest budget that a trusted caller is believed.",
    "server.criticality": "Rules, the first of which that matches a request says how much it is worth.",
    "server.serve_half_closed": "Whether to work for clients that have closed their sending half and waited.",
    "server.retry_after_s": "The range that Retry-After is drawn from.",
}

_UNITS: Final = (("_per_s", "per second"), ("_s", "s"), ("_threshold", "share"))


def bounds() -> dict[str, str]:
    """Return by name what each value must be, in words."""
    return {name: live.bound for name, live in LIVE.items()}


def explained() -> dict[str, dict[str, Any]]:
    """Return by name what a form is made of: ``kind`` of value, unit, ends of its range, choices, a sentence."""
    found = {}
    for name, live in LIVE.items():
        unit = next((unit for ending, unit in _UNITS if name.endswith(ending)), "")
        fields = {"kind": live.kind, "low": live.low, "high": live.high, "choices": live.choices}
        found[name] = {
            "about": ABOUT.get(name, ""),
            "unit": unit,
            **{key: each for key, each in fields.items() if each},
        }
    return found
