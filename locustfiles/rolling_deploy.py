"""A rolling deploy under load: four instances, replaced one after the other, and nobody is failed.

    locust -f locustfiles/rolling_deploy.py --headless [--variant unprotected]

A balancer in front of four instances of saber, 24 requests a second. From the fifth second on each instance is ended
and another started in its place, the next one as soon as that one answers.

With GroundFault an instance that is told to stop drains: it finishes what it has and tells everybody else ``draining``,
which the balancer may send to another instance, as a connection that was refused. Unprotected, an instance is killed
with what it has, and the balancer sends it a share of the requests until its health checks have missed it twice.
What to expect:

    before and after           24 a second are served
    in the deploy, groundfault     24 a second: no request fails, none is refused
    in the deploy, unprotected     each replacement fails what was inside and a quarter of what comes until it is
                                   noticed: about one in fifty over the deploy

With ``--host`` there is nobody who deploys there: begin yourself at five seconds.
"""

from groundfault.lab.curves import Points
from groundfault.lab.load.locusting import ArrivalUser
from groundfault.lab.load.scenario import Lane, Options, Scenario
from groundfault.lab.targets import catalogue
from groundfault.lab.targets.expected import promised

DEPLOY_S, TOTAL_S = 5.0, 32.0


def add_options(group: Options) -> None:
    """Add how many ask for what."""
    group.add_argument("--rps", type=float, default=24.0, help="requests per second")
    group.add_argument("--path", default="/lineup/{n}", help="what they ask for")


SCENARIO = Scenario(
    name="rolling-deploy",
    title="A rolling deploy of four instances",
    options=add_options,
    lanes=lambda options: (Lane("fan", options.path),),
    curve=lambda options: Points(((0.0, options.rps), (TOTAL_S, options.rps))),
    spans=lambda _: {"deploy": (DEPLOY_S, TOTAL_S)},
    timeline=lambda _: [(DEPLOY_S, "deploy", "the deploy begins")],
    bounds=promised("failed@deploy<=0", "shed@deploy<=0.002", "success@deploy>=0.98"),
    target=lambda _options: catalogue.deploy(),
)


class Fans(ArrivalUser):
    """Who asks."""

    scenario = SCENARIO
