"""The Gronk spike: one touchdown, and eight times the usual traffic within a second.

    locust -f locustfiles/gronk_spike.py --headless [--touchdowns 3] [--variant unprotected]
    locust -f locustfiles/gronk_spike.py --headless --host http://127.0.0.1:8000 --base-rps 10 --capacity 17

Two streams of fans arrive: those whose request needs the service at the end of the chain (``--path``, ``{n}`` becomes
a random number), and ``--innocent-share`` times as many whose request does not (``--innocent-path``).
The load is open-loop: every request is due at a moment drawn beforehand from a Poisson process along the curve and is
sent then, however slow the answers are. Latency counts from the moment it was due. A fan gives up after ``--deadline``.
A 503 with ``X-GroundFault: handled`` is not a failure here: Locust lists it under a name of its own, "... [shed]".

Without ``--host`` it is played against the demo's chain, which is started for it and can do about twenty requests a
second (``--variant`` says what protects it). ``--base-rps`` is then 0.6 of what it can do, else 10.
What to expect at that base (answers in time per second, C the capacity):

    before the spike           0.6 C, everybody is served
    during it, unprotected     C for about a second, then near 0: every answer comes too late to be of use,
                               and it stays so after the spike until the backlog is worked off
    during it, with shedding   C throughout; the rest are refused within milliseconds
    innocents                  unprotected or with plain 503s most of them fail although nothing they need is short;
                               with annotated 503s all of them are served
    after it, with shedding    0.6 C again within a few seconds

It is checked for the variant ``groundfault``: nobody is shed before the spike; during each one goodput is at least
0.85 of C and at least 99 % of the innocents are served; no circuit trips; and within four seconds of the end
of the last one 99 % are good again. For the other variants the same figures are shown and not judged.
Without ``--capacity`` nothing is known of what a ``--host`` can do: goodput is then a share of what was due.
"""

from argparse import Namespace
from collections.abc import Sequence

from groundfault.lab.curves import Curve, Points, Spike
from groundfault.lab.load.locusting import ArrivalUser
from groundfault.lab.load.scenario import Lane, Options, Scenario
from groundfault.lab.targets.chain import Chain

LOAD = 0.6
"""Base traffic as a share of capacity: a healthy service with room to spare."""

BASE_RPS = 10.0
"""Base traffic where the capacity is not known."""


def add_options(group: Options) -> None:
    """Add how high and how long the spike is, and what is asked for."""
    group.add_argument("--base-rps", type=float, default=None, help="fans per second before and after the spike")
    group.add_argument("--spike", type=float, default=8.0, help="how many times as many during it")
    group.add_argument("--touchdowns", type=int, default=1, help="how many spikes there are, one after the other")
    group.add_argument("--before", type=float, default=10.0, help="seconds before the spike")
    group.add_argument("--hold", type=float, default=20.0, help="seconds the spike lasts, its rise included")
    group.add_argument("--after", type=float, default=20.0, help="seconds after it")
    group.add_argument("--rise", type=float, default=1.0, help="seconds the rise takes")
    group.add_argument("--path", default="/lineup/{n}", help="path that needs the last service")
    group.add_argument("--innocent-path", default="/lobby", help="path that does not")
    group.add_argument("--innocent-share", type=float, default=1 / 3, help="innocents per fan of the first kind")


def lanes(options: Namespace) -> Sequence[Lane]:
    """Return the two streams."""
    if not options.innocent_share >= 0:
        raise ValueError(f"innocent-share must be at least 0, not {options.innocent_share:g}")
    return (
        Lane("fan", options.path),
        Lane("innocent", options.innocent_path, share=options.innocent_share, innocent=True),
    )


def base_rps(options: Namespace) -> float:
    """Return what the option says, or what suits the capacity."""
    if options.base_rps is not None:
        return float(options.base_rps)
    return BASE_RPS if options.capacity is None else LOAD * float(options.capacity)


def curve(options: Namespace) -> Curve:
    """Return one spike, or as many as there are touchdowns."""
    once = Spike(
        base_rps=base_rps(options),
        factor=options.spike,
        before_s=options.before,
        spike_s=options.hold,
        after_s=options.after,
        rise_s=options.rise,
    )
    if not 1 <= options.touchdowns <= MOST_TOUCHDOWNS:
        raise ValueError(f"touchdowns must be from 1 to {MOST_TOUCHDOWNS}, not {options.touchdowns}")
    if options.touchdowns == 1:
        return once
    points = [(0.0, once.base_rps)]
    for start, end in touchdowns(options):
        points += [
            (start, once.base_rps),
            (start + options.rise, once.peak_rps),
            (end, once.peak_rps),
            (end, once.base_rps),
        ]
    return Points((*points, (points[-1][0] + options.after, once.base_rps)))


MOST_TOUCHDOWNS = 50


def touchdowns(options: Namespace) -> list[tuple[float, float]]:
    """Return when each spike starts and ends."""
    every = options.hold + options.after
    starts = [options.before + number * every for number in range(options.touchdowns)]
    return [(start, start + options.hold) for start in starts]


def spans(options: Namespace) -> dict[str, tuple[float, float]]:
    """Return what is before the first spike, each spike, and what is after the last; ``spike`` is the last."""
    spikes = touchdowns(options)
    named = {"before": (0.0, options.before), "spike": spikes[-1]}
    if len(spikes) > 1:
        named |= {f"spike-{number}": span for number, span in enumerate(spikes, 1)}
    named["after"] = (spikes[-1][1], spikes[-1][1] + options.after)
    return {name: (start, end) for name, (start, end) in named.items() if end > start}


def bounds(options: Namespace) -> Sequence[str]:
    """Return what is promised, of the variant groundfault; of the others the same without a bound."""
    named = spans(options)
    spikes = [name for name in named if name.startswith("spike-")] or [name for name in named if name == "spike"]
    wanted = [("shed@before", "<=0")] if "before" in named else []
    wanted += [(f"goodput@{name}", ">=0.85") for name in spikes]
    if options.innocent_share > 0:
        wanted += [(f"success.innocent@{name}", ">=0.99") for name in spikes]
    wanted += [("recovery_s@after", "<=4")] if "after" in named else []
    wanted += [("trips", "<=0")]
    judged = options.variant == "groundfault"
    return [f"{measure}{bound}" if judged else measure for measure, bound in wanted]


SCENARIO = Scenario(
    name="gronk-spike",
    title="The Gronk spike",
    lanes=lanes,
    curve=curve,
    spans=spans,
    bounds=bounds,
    options=add_options,
    timeline=lambda options: [(start, "", "touchdown") for start, _ in touchdowns(options)],
    target=lambda options: Chain(measure=options.capacity is None),
)


class Fans(ArrivalUser):
    """Those who open the app."""

    scenario = SCENARIO
