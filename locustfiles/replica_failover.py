"""Replica failover: a database node stops answering for some seconds, and an hour later again.

    locust -f locustfiles/replica_failover.py --headless [--variant unprotected]

The node takes queries and answers none for seven seconds, twice; the hour between is shortened to twelve.
``/entrants/{n}`` needs it; ``/lobby``, the innocents', needs only a thread of the service in front.

With GroundFault each query has 0.3 s, its circuit trips when half of a window of ten seconds had no answer (from one
second to five and a half, as the windows happen to lie), and the fallback, what was known last, is served within the
fan's second: at once as long as the circuit is open. A probe a second or two after the blip finds the node well again
and closes it, so the second blip trips it anew. What to expect (answers in time per second, of 40 due):

    before, between, after               40
    in a blip, groundfault               40: nobody waits for longer than 0.3 s; one trip in each
    in a blip, unprotected               0: the driver waits five seconds, every thread waits with it, and so do the
                                         innocents
    for two seconds after, unprotected   near 0, while the service works off those who have left

With ``--host`` there is nobody who stops a node there: do it yourself at 8 and at 27 seconds.
"""

from groundfault.lab.curves import Points
from groundfault.lab.load.locusting import ArrivalUser
from groundfault.lab.load.scenario import Lane, Options, Scenario
from groundfault.lab.targets import catalogue
from groundfault.lab.targets.expected import promised

BLIPS_S = (8.0, 27.0)
LASTING_S, TOTAL_S = 7.0, 44.0


def add_options(group: Options) -> None:
    """Add how many ask for what."""
    group.add_argument("--rps", type=float, default=30.0, help="requests per second that need the node")
    group.add_argument("--path", default="/entrants/{n}", help="path that needs it")
    group.add_argument("--innocent-path", default="/lobby", help="path that does not")


SCENARIO = Scenario(
    name="replica-failover",
    title="Replica failover: two blips of a database node",
    options=add_options,
    lanes=lambda options: (
        Lane("entrants", options.path),
        Lane("lobby", options.innocent_path, share=1 / 3, innocent=True),
    ),
    curve=lambda options: Points(((0.0, options.rps), (TOTAL_S, options.rps))),
    spans=lambda _: {
        "first": (BLIPS_S[0], BLIPS_S[0] + LASTING_S),
        "between": (BLIPS_S[0] + LASTING_S + 2, BLIPS_S[1]),
        "second": (BLIPS_S[1], BLIPS_S[1] + LASTING_S),
        "after": (BLIPS_S[1] + LASTING_S + 2, TOTAL_S),
    },
    timeline=lambda _: [
        moment
        for at in BLIPS_S
        for moment in (
            (at, "silence", "the node stops answering"),
            (at + LASTING_S, "answer", "it answers again"),
        )
    ],
    bounds=promised(
        "success@first>=0.9",
        "success@second>=0.9",
        "success.innocent@first>=0.97",
        "success.innocent@second>=0.97",
        "success@between>=0.97",
        "success@after>=0.97",
        "trips@first>=1",
        "trips@second>=1",
    ),
    target=lambda _options: catalogue.blips(),
)


class Fans(ArrivalUser):
    """Who asks."""

    scenario = SCENARIO
