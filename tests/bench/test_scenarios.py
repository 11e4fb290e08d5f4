"""How the scenarios' runs are told: with the promises of the protected one, and what is wrong with them."""

import pytest
import scenarios

from groundfault.lab.runs.record import Check, Run

PLAY = scenarios.Play("sick_node", ("--sickness", "slow"))


def check(value, *, bound=0.9, measure="success@sick", judged=True):
    return Check(measure=measure, title="served", value=value, at_least=bound if judged else None)


def run(variant, *checks, void=()):
    return Run(
        name="n",
        title="t",
        source="locust",
        seconds=1,
        deadline_s=1.0,
        streams=[],
        variant=variant,
        checks=list(checks),
        void=list(void),
    )


def pair(protected, bare):
    return {
        "groundfault": run("groundfault", check(protected)),
        "unprotected": run("unprotected", check(bare, judged=False)),
    }


def test_the_variants_are_measured_against_the_same_promises():
    assert scenarios.table(pair(0.97, 0.5)) == [
        "| measure | promised | groundfault | unprotected |",
        "|---|---|---|---|",
        "| `success@sick` | ≥ 0.9 | 0.97 | **0.5** |",
    ]


def test_a_figure_that_could_not_be_had_breaks_its_promise():
    assert scenarios.table(pair(0.97, None))[-1].endswith("| 0.97 | **never** |")


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (pair(0.97, 0.5), []),
        (pair(0.5, 0.5), ["sick-node-slow: 1 of 1 promises broken"]),
        (pair(0.97, 0.95), ["sick-node-slow: all promises are kept without protection, too: they show nothing"]),
        ({"unprotected": run("unprotected", check(0.97, judged=False))}, []),
        (
            {"groundfault": run("groundfault", check(0.97), void=["it was late"])},
            ["sick-node-slow, groundfault: void: it was late"],
        ),
    ],
)
def test_what_is_not_as_it_should_be_is_said(runs, said):
    assert scenarios.objections(PLAY, runs) == said


def test_the_sick_node_is_played_with_each_sickness():
    names = [play.name for play in scenarios.plays(["retry_storm", "sick_node"])]
    assert names == ["retry-storm", "sick-node", "sick-node-slow", "sick-node-handled"]


def test_a_table_goes_between_its_markers_and_nowhere_else():
    page = "a\n<!-- figures: x -->\nold\n<!-- end of figures -->\nb\n<!-- figures: y -->\n<!-- end of figures -->\n"
    once = scenarios.written(page, "x", ["| new |"])
    assert once == page.replace("\nold\n", "\n\n| new |\n\n")
    assert scenarios.written(once, "x", ["| new |"]) == once
    with pytest.raises(ValueError, match="figures: z"):
        scenarios.written(page, "z", [])


def test_the_page_has_a_place_for_each_of_them():
    page = (scenarios.ROOT / "docs" / "reference" / "scenarios.md").read_text(encoding="utf-8")
    for play in scenarios.plays(scenarios.NAMES):
        scenarios.written(page, play.name, [])
