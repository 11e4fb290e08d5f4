"""The thundering herd: four callers' caches are cleared at once, and all they had kept is asked of one small service.

    locust -f locustfiles/thundering_herd.py --headless [--variant unprotected]

Four services, ten requests a second each, keep answers of saber, which can give twenty a second; with full caches it
is asked for five. After eight seconds somebody clears all four: forty a second now, twice what it can do.
Only an answer that comes in time fills a cache, and that is what decides. What to expect (answers in time per second,
all four):

    before                     40: everybody is served
    cleared, groundfault       saber answers twenty a second, all of them in time, and each fills a place in a cache;
                               the others are refused at once. So less is missing every second, and within some
                               ten seconds everybody is served again
    cleared, unprotected       two seconds of answers; then saber's queue is longer than anybody waits. It works as hard
                               as it can for callers that have left, no cache is filled any more, and so it stays
                               until the end of the run, long after the cause: a fifth of the 40

With ``--host`` there is nobody who clears the caches there: do it yourself at ``--clear-at``.
"""

from groundfault.lab.curves import Points
from groundfault.lab.load.locusting import ArrivalUser
from groundfault.lab.load.scenario import Lane, Options, Scenario
from groundfault.lab.targets import catalogue
from groundfault.lab.targets.expected import promised

TOTAL_S = 48.0
SETTLED_S = 20.0
"""How long after the clearing the caches must be full again."""


def add_options(group: Options) -> None:
    """Add how many ask, and when the caches are cleared."""
    group.add_argument("--rps", type=float, default=10.0, help="requests per second to each of the four")
    group.add_argument("--clear-at", type=float, default=8.0, help="second at which all caches are cleared")


SCENARIO = Scenario(
    name="thundering-herd",
    title="The thundering herd: four caches cleared at once",
    options=add_options,
    lanes=tuple(Lane(name, f"/{name}/{{n}}") for name in catalogue.CALLERS),
    curve=lambda options: Points(((0.0, options.rps), (TOTAL_S, options.rps))),
    spans=lambda options: {
        "before": (0.0, options.clear_at),
        "herd": (options.clear_at, options.clear_at + SETTLED_S),
        "settled": (options.clear_at + SETTLED_S, TOTAL_S),
    },
    timeline=lambda options: [(options.clear_at, "clear caches", "all four caches cleared")],
    bounds=promised(
        "success@before>=0.97",
        "success@herd>=0.5",
        "failed@herd<=0.05",
        "success@settled>=0.95",
    ),
    target=lambda _options: catalogue.herd(),
)


class Fans(ArrivalUser):
    """Who asks."""

    scenario = SCENARIO
