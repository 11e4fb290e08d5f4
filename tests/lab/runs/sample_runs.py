"""Runs made up from a few numbers: a spike with and without protection, small enough to reckon with on paper."""

from groundfault.lab.runs.record import Check, Edge, Mark, Run, Service, Stream
from groundfault.lab.runs.tally import Fate, Tally


def stream(name="fan", *, innocent=False, seconds=4, **counts):
    """Return a stream that is all zero but for what is given."""
    values = {
        field: counts.get(field, [0] * seconds)
        for field in ("due", "sent", "arrived", "good", "late", "shed", "failed", "unsent")
    }
    nothing = [None] * seconds
    return Stream(name=name, innocent=innocent, **values, p50_ms=nothing, p99_ms=nothing)


def full_run():
    """Return a run with a value in each field there is."""
    fans, innocents = Tally(), Tally()
    for at in range(40):
        due = at / 10
        fans.send(due, due + 0.001)
        fans.settle(due, Fate.GOOD if at % 2 else Fate.SHED, 0.05)
        innocents.send(due, due)
        innocents.settle(due, Fate.GOOD, 0.01)
    fans.skip(3.5)
    return Run(
        name="gronk-spike",
        title="One touchdown",
        source="locust",
        seconds=4,
        deadline_s=1.0,
        streams=[Stream.of("fan", fans, 4), Stream.of("lobby", innocents, 4, innocent=True)],
        variant="groundfault",
        target="a chain of three",
        seed="gronk",
        started_at=1_795_436_400.5,
        capacity_rps=6.5,
        lag_p99_ms=1.0,
        spans={"spike": (1.0, 3.0), "after": (3.0, 4.0)},
        marks=[Mark(t=1.0, text="touchdown")],
        services=[
            Service(
                name="saber",
                arrived=[10, 10, 10, 10],
                shed=[0, 5, 5, 0],
                answered=[10, 5, 5, 10],
                wait_p95_ms=[None, 80.0, 75.5, 1.0],
                busy=[0.5, 1.0, 1.0, None],
                instances=[1, 1, 2, 2],
            )
        ],
        edges=[
            Edge(
                caller="grouper",
                callee="saber",
                calls=[10, 10, 10, 10],
                bad=[0, 1, 2, 0],
                refused=[0, 0, 3, 0],
                trips=[1.5],
                open=[(1.5, 2.75)],
            )
        ],
        checks=[
            Check(measure="goodput@spike", title="goodput", value=0.9, unit="share", at_least=0.85),
            Check(measure="recovery_s@after", title="recovery", value=None, unit="s", at_most=4.0),
            Check(measure="lag_p99_ms", title="lag", value=1.0, unit="ms"),
        ],
        void=["the machine was busy"],
        notes=["one instance of each"],
        settings={"scale": 8, "groups": {"fan": [1, 2.5, None, True]}},
        versions={"python": "3.13.5"},
    )
