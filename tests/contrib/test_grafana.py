"""The dashboard for Grafana: a sound file, and every query one that Prometheus takes, of metrics that exist."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from groundfault.metrics.catalogue import CATALOGUE

BUILD = Path(__file__).parents[2] / "contrib" / "grafana" / "build.py"


@pytest.fixture(scope="module")
def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def asked(panels):
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_the_file_is_what_its_source_says():
    run = subprocess.run([sys.executable, BUILD, "--check"], timeout=30, check=False)
    assert run.returncode == 0, f"run: python {BUILD}"


def test_the_file_is_one_that_grafana_imports(dashboard):
    assert dashboard["schemaVersion"] >= 39
    assert dashboard["uid"] == "groundfault"
    assert "id" not in dashboard  # that of a database it would not be found in
    assert dashboard["refresh"]
    assert len(dashboard["title"]) > 0


def test_panels_have_numbers_of_their_own_and_do_not_overlap(dashboard):
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_the_check_of_overlaps_would_see_one(dashboard):
    moved = [dict(panel["gridPos"]) for panel in dashboard["panels"]]
    moved[3]["x"] = moved[2]["x"]
    with pytest.raises(AssertionError):
        test_panels_have_numbers_of_their_own_and_do_not_overlap(
            {"panels": [{"id": number, "gridPos": place} for number, place in enumerate(moved)]}
        )


def test_every_panel_says_what_it_shows_in_which_unit(panels):
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)
    for panel in panels:
        assert panel["description"].rstrip().endswith((".", "?")), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in {"short", "s", "reqps", "percentunit"}
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGHIJ"[: len(panel["targets"])])
        steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert steps[0] is None
        assert steps[1:] == sorted(steps[1:])


def test_seconds_shares_and_rates_have_their_units(panels):
    for panel in panels:
        unit, kind = panel["fieldConfig"]["defaults"]["unit"], panel["type"]
        for target in panel["targets"]:
            if kind not in ("table", "heatmap"):
                assert (unit == "s") == ("_seconds" in target["expr"]), panel["title"]
                assert (unit == "percentunit") == (" / " in target["expr"] or "_ratio" in target["expr"]), panel[
                    "title"
                ]


def test_a_color_is_one_that_grafana_has_for_both_of_its_themes(dashboard):
    names = {"green", "yellow", "orange", "red", "blue", "purple", "dark-red", "dark-purple", "light-blue"}
    used = set(
        re.findall(r'"(?:fixedColor|color|iconColor)": "([^"]+)"', BUILD.with_name("groundfault.json").read_text())
    )
    assert used
    assert used <= names


def test_everything_is_asked_of_the_source_that_was_chosen(dashboard, panels):
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    variables = dashboard["templating"]["list"]
    asking = [*panels, *(target for panel in panels for target in panel["targets"]), *dashboard["annotations"]["list"]]
    asking += [variable for variable in variables if variable["type"] == "query"]
    assert all(each["datasource"] == chosen for each in asking)
    assert variables[0]["name"] == "datasource"


def test_variables_are_defined_and_each_narrows_every_panel_that_it_can(dashboard, panels):
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$(?!__)(\w+)", " ".join(t["expr"] for panel in panels for t in panel["targets"])))
    assert used | {"datasource"} == defined
    for panel in panels:
        for target in panel["targets"]:
            for selector in re.findall(r"groundfault_\w+{([^}]*)}", target["expr"]):
                assert 'job=~"$job"' in selector, panel["title"]
                assert 'namespace=~"$namespace"' in selector, panel["title"]


def test_a_variable_offers_the_values_of_a_label_that_its_metric_has(dashboard, expression, substituted):
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
            assert expression(f"sum by ({label}) ({substituted(metric)})").mistakes(set()) == []
            assert variable["allValue"] == ".*"


def test_every_query_is_promql_of_known_names(dashboard, asked, expression, parses, substituted):
    every = [substituted(each) for each in [*asked, *(each["expr"] for each in dashboard["annotations"]["list"])]]
    parses(every)
    assert [expression(each).mistakes(set()) for each in every] == [[]] * len(every)


def test_every_metric_is_on_some_panel(asked):
    shown = " ".join(asked)
    assert [metric.name for metric in CATALOGUE if metric.name not in shown] == []


def test_a_legend_is_made_of_labels_that_the_answer_has(panels):
    for panel in panels:
        for target in panel["targets"]:
            kept = {label for by in re.findall(r"\bby \(([^)]*)\)", target["expr"]) for label in by.split(", ")}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept, panel["title"]
