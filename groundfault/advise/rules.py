"""From what was seen of a command to a proposal for it: pure, no clock, no I/O."""

from collections.abc import Mapping
from math import inf
from typing import Any, Final

from groundfault.advise import segments, wording
from groundfault.advise.limits import concurrency_advice, volume_advice
from groundfault.advise.observed import FOLDED, Observed
from groundfault.advise.proposal import Advice, Proposal, Wishes
from groundfault.advise.timeouts import (
    LEAST_S,
    TIMES,
    kinds_of,
    least_calls,
    slow_advice,
    timeout_advice,
)
from groundfault.vocabulary import Outcome

__all__ = ["propose"]

INCIDENT: Final = 0.05
"""If more calls than these fail or are refused, what was seen is an incident, not the usual."""
MISTAKEN_S: Final = 30.0
"""A median beyond it is rarer than milliseconds that were taken for seconds."""
SURE: Final = 10
"""Times the fewest calls needed, and the advice is good."""
LONG: Final = 3.0
"""A timeout that is so many times longer than twice the p95 was made for a few calls, not for all."""
COARSE: Final = 1.5
"""Where the p95 is known no better than within this factor, the advice is only fair."""
_MOST_CAUTIONS: Final = 5


def propose(seen: Observed, current: Mapping[str, Any], wishes: Wishes, key: str | None = None) -> Proposal:
    """Return the proposal for a command.

    ``current``: its settings as far as they are known, by name; those that the source knows are taken where it says
    nothing. ``key``: what its segments are called by, None without.
    """
    known = {**seen.settings, **current}
    timeout = timeout_advice(seen, _numeric(known, "timeout_s"), wishes)
    proposal = Proposal(seen, [timeout])
    slow = slow_advice(seen, timeout, _numeric(known, "slow_call_s"))
    if slow is not None:
        proposal.advice.append(slow)
    proposal.advice.append(volume_advice(seen, _numeric(known, "minimum_volume_per_s"), wishes))
    limit = _numeric(known, "max_concurrent")
    proposal.advice.append(concurrency_advice(seen, limit, proposal.timeout_s, wishes))
    proposal.segments = segments.views(seen.segments, proposal.timeout_s)
    proposal.cautions = [*_of_data(seen, timeout), *_of_shape(seen, timeout), *_of_segments(proposal, key or "segment")]
    proposal.confidence = _confidence(seen, timeout, wishes)
    return proposal


def _numeric(known: Mapping[str, Any], name: str) -> float | None:
    value = known.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def _of_data(seen: Observed, timeout: Advice) -> list[str]:
    """Say where what was seen is not the usual."""
    said = []
    failing, refused, hidden = _troubles(seen)
    if failing > INCIDENT:
        said.append(
            f"{wording.percent(failing)} of the calls fail. What is seen in an incident is not what is normal: "
            "take a quiet day instead."
        )
    if refused > INCIDENT:
        said.append(
            f"{wording.percent(refused)} of the calls are shed or never made, so rates and durations are only those of "
            "the calls that came through: take a quiet day instead."
        )
    if timeout.value is not None and hidden > 0:
        above = timeout.current is not None and timeout.value > timeout.current
        if above or hidden > 0.001:  # noqa: PLR2004  fewer than one in a thousand hide nothing that counts here
            beyond = " The proposal lies beyond it, where nothing has been seen." if above else ""
            said.append(
                f"{wording.percent(hidden)} of the calls were given up at the timeout. How long they would have taken "
                f"is not known, so the tail is longer than it looks.{beyond}"
            )
    middle_s = seen.successes.quantile(0.5)
    if middle_s > MISTAKEN_S:
        said.append(
            f"Half of the calls take longer than {wording.seconds(middle_s)}. If the log holds milliseconds, say so: "
            "--fields duration_s=NAME:ms."
        )
    if seen.rates is not None and seen.rates.note:
        said.append(f"On rates: {seen.rates.note}.")
    return said


def _of_shape(seen: Observed, timeout: Advice) -> list[str]:
    """Say where one timeout does not suit all calls."""
    kinds = kinds_of(seen.successes)
    if kinds is not None:
        fast, slow = (wording.seconds(wording.round_near(each)) for each in (kinds.fast_s, kinds.slow_s))
        said = (
            f"These are two kinds of calls: {wording.percent(1 - kinds.slow_share)} take about {fast}, "
            f"{wording.percent(kinds.slow_share)} about {slow}. "
            "One timeout fits both badly: give each a command of its own."
        )
        return [said]
    p95_s = seen.successes.quantile(0.95)
    if timeout.value is not None and TIMES * p95_s >= LEAST_S and timeout.value > LONG * TIMES * p95_s:
        said = (
            f"The tail is long: {wording.seconds(timeout.value)} is {wording.number(timeout.value / p95_s)} times the "
            "p95. Find out who the slowest are (--segment), and whether a command of their own suits them."
        )
        return [said]
    return []


def _of_segments(proposal: Proposal, key: str) -> list[str]:
    timeout_s = proposal.timeout_s
    if timeout_s is None:
        return []
    slow = proposal.of("slow_call_s")
    slow_s = None if slow is None else slow.value
    said = [text for view in proposal.segments if (text := segments.caution(view, key, timeout_s, slow_s))]
    more = len(said) - _MOST_CAUTIONS
    if more > 0:
        said = [*said[:_MOST_CAUTIONS], f"The same goes for {more} more: --json names them all."]
    folded = sum(view.share for view in proposal.segments if view.name == FOLDED)
    if folded:
        said.append(
            f"{wording.percent(folded)} of the calls are of a {key} beyond the first that there was room for, and were "
            "not looked at one by one: a heavy one among them would not be seen. Take a coarser --segment."
        )
    return said


def _troubles(seen: Observed) -> tuple[float, float, float]:
    """Return the shares of calls that fail, are refused, and time out."""
    made = seen.made or 1
    answered = seen.successes.count + seen.timed_out.count
    failures = max(seen.calls.get(Outcome.FAILURE, 0), _count(seen, Outcome.FAILURE))
    return failures / made, seen.refused / (seen.asked or 1), seen.timed_out.count / (answered or 1)


def _count(seen: Observed, outcome: Outcome) -> int:
    return seen.durations[outcome].count if outcome in seen.durations else 0


def _confidence(seen: Observed, timeout: Advice, wishes: Wishes) -> str:
    if timeout.value is None:
        return "none"
    failing, refused, hidden = _troubles(seen)
    if failing > INCIDENT or refused > INCIDENT or hidden > 0.01:  # noqa: PLR2004  a fifth of what makes it impossible
        return "low"
    low, high = seen.successes.span_of(0.95)
    exact = low > 0 and high < inf and high / low < COARSE
    return "good" if exact and seen.successes.count >= SURE * least_calls(wishes) else "fair"
