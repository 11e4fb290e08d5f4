"""Trial by query: one query that nobody bounded kills the database, and everything that needs it.

    locust -f locustfiles/trial_by_query.py --headless [--variant unprotected]

``/entrants/{n}`` runs "get more entrants", a quarter of a second of work for the database; ``/contest/{n}``, the
innocents', looks up one row in the same database. Eight queries at once are comfortable for it, with more each takes
the others' locks and all together get less done, and at forty the process dies: connections are refused for five
seconds. The fans press the button five times as often for twenty seconds.

With GroundFault the query is a command with ``max_concurrent=5``, so the database never sees a sixth, and what five at
once can do, twenty a second, is all that is given away. What to expect (answers in time per second):

    before the spike            8 entrants, 4 contests: everybody is served
    during it, groundfault      17 to 20 entrants, the others are refused at once; all contests
    during it, unprotected      0 of both: it dies within two seconds, comes back, is run over, and dies again
    after it                    groundfault: as before at once. Unprotected: when the last restart is over

With ``--host`` the load goes there, to ``--path`` and ``--innocent-path``.
"""

from groundfault.lab.curves import Points
from groundfault.lab.load.locusting import ArrivalUser
from groundfault.lab.load.scenario import Lane, Options, Scenario
from groundfault.lab.targets import catalogue
from groundfault.lab.targets.expected import promised

BEFORE_S, SPIKE_S, TOTAL_S = 8.0, 20.0, 44.0


def add_options(group: Options) -> None:
    """Add how many ask for what."""
    group.add_argument("--base-rps", type=float, default=8.0, help="entrants per second before and after the spike")
    group.add_argument("--spike", type=float, default=5.0, help="how many times as many during it")
    group.add_argument("--path", default="/entrants/{n}", help="path with the expensive query")
    group.add_argument("--innocent-path", default="/contest/{n}", help="path with a cheap one")
    group.add_argument("--innocent-share", type=float, default=0.5, help="cheap ones for each expensive one")


SCENARIO = Scenario(
    name="trial-by-query",
    title="Trial by query: one unbounded query and its database",
    options=add_options,
    lanes=lambda options: (
        Lane("entrants", options.path),
        Lane("contest", options.innocent_path, share=options.innocent_share, innocent=True),
    ),
    curve=lambda options: Points.spikes(
        options.base_rps, [(BEFORE_S, options.spike, SPIKE_S)], total_s=TOTAL_S, rise_s=1.0
    ),
    spans=lambda _: {"spike": (BEFORE_S + 1, BEFORE_S + SPIKE_S), "after": (BEFORE_S + SPIKE_S + 2, TOTAL_S)},
    timeline=lambda _: [(BEFORE_S, "", "everybody presses the button")],
    bounds=promised(
        "goodput@spike>=0.7",
        "success.innocent@spike>=0.95",
        "failed@spike<=0.02",
        "success@after>=0.9",
        "success.innocent@after>=0.97",
    ),
    target=lambda _options: catalogue.query(),
)


class Fans(ArrivalUser):
    """Who asks."""

    scenario = SCENARIO
