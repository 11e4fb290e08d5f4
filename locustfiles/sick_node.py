"""A sick node: one of seven instances answers slowly, with errors, or with nothing but refusals.

    locust -f locustfiles/sick_node.py --headless [--sickness error|slow|handled|plain] [--variant unprotected]

grouper picks one of seven instances of saber for each request, at random. From the eighth second to the thirtieth one
is sick: it answers 500 (``error``, the default), after five seconds (``slow``), or 503 at once, annotated as if it shed
on purpose (``handled``) or not (``plain``). A seventh of the calls is far from tripping a circuit for all of saber.

With GroundFault each instance is a resource of its own: the sick one's circuit trips as soon as half of a window of its
calls was bad, within some five seconds, and another is picked in its place, until a probe finds it well; one that only
refuses loses its share of the calls to the throttle, and what it refused is tried once elsewhere. What to expect
(served in time, 35 a second due):

    before and after                    all
    while it is sick, groundfault       all but a seventh of the first seconds, and a probe now and then: 97 in 100
    while it is sick, unprotected       six in seven: 86 in 100 to the end

With ``--host`` there is nobody who makes an instance sick there: do it yourself.
"""

from groundfault.lab.curves import Points
from groundfault.lab.load.locusting import ArrivalUser
from groundfault.lab.load.scenario import Lane, Options, Scenario
from groundfault.lab.targets import catalogue
from groundfault.lab.targets.expected import promised

SICK_S, WELL_S, TOTAL_S = 8.0, 30.0, 40.0


def add_options(group: Options) -> None:
    """Add how many ask for what, and how sick the instance is."""
    group.add_argument("--rps", type=float, default=35.0, help="requests per second")
    group.add_argument("--path", default="/lineup/{n}", help="what they ask for")
    group.add_argument(
        "--sickness",
        choices=("error", "slow", "handled", "plain"),
        default="error",
        help="what is wrong with the local target's sick instance",
    )


SCENARIO = Scenario(
    name="sick-node",
    title="A sick node: one of seven instances",
    options=add_options,
    lanes=lambda options: (Lane("fan", options.path),),
    curve=lambda options: Points(((0.0, options.rps), (TOTAL_S, options.rps))),
    spans=lambda _: {"sick": (SICK_S, WELL_S), "after": (WELL_S + 2, TOTAL_S)},
    timeline=lambda options: [
        (SICK_S, "fall ill", f"one of seven falls ill: {options.sickness}"),
        (WELL_S, "heal", "it is well again"),
    ],
    bounds=promised("success@sick>=0.94", "success@after>=0.98"),
    target=lambda options: catalogue.one_of_seven(options.sickness),
)


class Fans(ArrivalUser):
    """Who asks."""

    scenario = SCENARIO
