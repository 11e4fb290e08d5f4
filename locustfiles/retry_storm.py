"""The retry storm: a short brownout that ends, and retries that do not.

    locust -f locustfiles/retry_storm.py --headless [--variant unprotected]

The fans' apps ask grouper, grouper asks saber, which can do twenty a second and is asked for twelve. For five seconds
saber takes four times as long; then it is as well as before.

Unprotected, both the apps and grouper try three times, at once and whatever went wrong: nine requests for one, 108 a
second for a service of twenty, and what it answers comes too late for grouper, which asks again. With GroundFault a
call is tried once more only if the callee itself refused it (:func:`groundfault.retryable`), and only a tenth of all
calls (:class:`groundfault.RetryBudget`); saber refuses what it cannot do in time. What to expect (fans served in time
per second, 12 due):

    before                             12
    in the brownout, groundfault       0: 0.4 s is longer than grouper waits. Its circuit opens, and who comes is
                                       refused at once
    in the brownout, unprotected       near 0
    after it, groundfault              12 again as soon as the probe has found saber well, two to five seconds later
    after it, unprotected              near 0 until the end of the run: the storm feeds itself

The innocents of ``/lobby`` need a thread of the apps' only.
With ``--host`` there is nobody who slows a service there: do it yourself from 8 to 13 seconds.
"""

from groundfault.lab.curves import Points
from groundfault.lab.load.locusting import ArrivalUser
from groundfault.lab.load.scenario import Lane, Options, Scenario
from groundfault.lab.targets import catalogue
from groundfault.lab.targets.expected import promised

BROWNOUT_S, HEALED_S, TOTAL_S = 8.0, 13.0, 40.0


def add_options(group: Options) -> None:
    """Add how many ask for what."""
    group.add_argument("--rps", type=float, default=12.0, help="requests per second that need the last service")
    group.add_argument("--path", default="/lineup/{n}", help="path that needs it")
    group.add_argument("--innocent-path", default="/lobby", help="path that does not")


SCENARIO = Scenario(
    name="retry-storm",
    title="The retry storm: a brownout of five seconds",
    options=add_options,
    lanes=lambda options: (
        Lane("fan", options.path),
        Lane("lobby", options.innocent_path, share=1 / 3, innocent=True),
    ),
    curve=lambda options: Points(((0.0, options.rps), (TOTAL_S, options.rps))),
    spans=lambda _: {
        "before": (0.0, BROWNOUT_S),
        "brownout": (BROWNOUT_S, HEALED_S),
        "after": (HEALED_S + 6, TOTAL_S),
    },
    timeline=lambda _: [
        (BROWNOUT_S, "brownout", "saber takes four times as long"),
        (HEALED_S, "heal", "saber is well again"),
    ],
    bounds=promised(
        "success@before>=0.9",
        "success@after>=0.9",
        "success.innocent>=0.97",
    ),
    target=lambda _options: catalogue.storm(),
)


class Fans(ArrivalUser):
    """Who asks."""

    scenario = SCENARIO
