"""Advice on how many calls make a judgment, and how many may be in flight."""

from math import ceil, sqrt
from typing import Final

from groundfault.advise import wording
from groundfault.advise.observed import MADE, Observed
from groundfault.advise.proposal import Advice, Wishes

__all__ = ["concurrency_advice", "volume_advice"]

LEAST_CALLS: Final = 200
"""Fewer calls say little about rates; the same as for a 95th percentile."""
QUARTER: Final = 0.25
"""Of its usual rate, below which a command is not judged: at night a handful of errors says little."""
LEAST_VOLUME: Final = 1.0
MOST_VOLUME: Final = 10.0
"""Ten calls are the fewest that make a share; a hundred are enough, and more would only make a trip late."""
THIN_VOLUME: Final = 0.5
WINDOW_S: Final = 10.0
LONGEST_S: Final = 30.0
"""A command's windows: one of ten seconds at least, three at most."""
SPARE: Final = 2.0
BURST: Final = 4.0
"""Room for twice what is usual, and four times the root of it: fewer than one in ten thousand bursts is greater."""
LEAST_LIMIT: Final = 5
"""No lower limit is proposed: below it, chance alone fills it up, and five that hang hurt nobody."""
EXACT: Final = 20


def _unknown(seen: Observed, wishes: Wishes) -> str | None:
    if seen.rates is None:
        return "How often it is called is not known: --over says how long to look, or how long a log without times is."
    if _processes(seen, wishes) is None:
        return "How many processes call it is not known: --processes N says it."
    if seen.made < LEAST_CALLS:
        return f"{wording.count(seen.made)} calls are too few to know how often it is called."
    return None


def _processes(seen: Observed, wishes: Wishes) -> int | None:
    return wishes.processes or seen.processes


def volume_advice(seen: Observed, current: float | None, wishes: Wishes) -> Advice:
    """Propose ``minimum_volume_per_s``, or say why not."""
    name, missing = "minimum_volume_per_s", _unknown(seen, wishes)
    processes = _processes(seen, wishes)
    if missing is not None or seen.rates is None or processes is None:
        return Advice(name, None, missing or "", current)
    usual = seen.rates.usual_per_s / processes
    each = "" if processes == 1 else f" in each of {processes} processes"
    if usual * LONGEST_S < 1.5 * THIN_VOLUME * WINDOW_S:
        return Advice(
            name,
            None,
            f"At its usual {wording.number(usual)}/s{each} it is too quiet to be judged: {wording.number(LONGEST_S)} s "
            f"hold {wording.number(usual * LONGEST_S)} calls. Its timeout protects it, its circuit hardly can.",
            current,
        )
    value = min(MOST_VOLUME, max(LEAST_VOLUME, wording.round_near(usual * QUARTER)))
    if usual * LONGEST_S < 1.5 * value * WINDOW_S:
        value = THIN_VOLUME
    calls = ceil(value * WINDOW_S)
    # The newest window alone, if it holds them; else as many as it takes.
    within = "10 s" if usual >= value else "20 s" if usual * 2 >= value else "30 s"
    return Advice(
        name,
        value,
        f"Its usual rate is {wording.number(usual)}/s{each}. So {calls} calls, which {within} of that hold, are judged "
        f"together, and at less than {wording.number(value * WINDOW_S / LONGEST_S)}/s, as at night, nothing trips.",
        current,
    )


def concurrency_advice(seen: Observed, current: float | None, timeout_s: float | None, wishes: Wishes) -> Advice:
    """Propose ``max_concurrent`` for each process by Little's law, or say why not."""
    name, missing = "max_concurrent", _unknown(seen, wishes)
    processes = _processes(seen, wishes)
    if missing is not None or seen.rates is None or processes is None:
        return Advice(name, None, missing or "", current)
    mean_s = sum(seen.durations[outcome].sum_s for outcome in MADE if outcome in seen.durations) / seen.made
    peak = seen.rates.peak_per_s * wishes.peak_factor / processes
    busy = peak * mean_s
    value = max(LEAST_LIMIT, ceil(SPARE * busy + BURST * sqrt(busy)))
    if value > EXACT:
        value = ceil(wording.round_up(value))
    each_one = "" if processes == 1 else f" in each of {processes} processes"
    factor = "" if wishes.peak_factor == 1 else f" times {wording.number(wishes.peak_factor)}"
    hanging = ""
    if timeout_s is not None:
        held = peak * timeout_s
        hanging = (
            f" If every call hung for {wording.seconds(timeout_s)}, {wording.number(held)} would be wanted"
            f"{': it refuses the rest.' if held > value else ', so it is the timeout that bounds them.'}"
        )
    return Advice(
        name,
        value,
        f"The busiest {wording.number(seen.rates.over_s)} s{factor} bring {wording.number(peak)} calls/s{each_one}, of "
        f"{wording.seconds(mean_s)} on average: {wording.number(busy)} in flight (Little's law). Twice that, and room "
        f"for bursts, makes {value}{', the least proposed' if value == LEAST_LIMIT else ''}.{hanging}",
        current,
    )
