"""The rules for Prometheus: sound, tried, and each alert with a page to turn to."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
import yaml

from groundfault.cli import _parser

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "contrib" / "prometheus"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
REFERENCE = (ROOT / "docs" / "reference" / "alerts.md").read_text()


def test_prometheus_takes_the_rules_and_the_example_of_a_configuration(promtool):
    assert "SUCCESS" in promtool("check", "rules", PLACE / "groundfault.rules.yml")
    assert "SUCCESS" in promtool("check", "config", PLACE / "prometheus.yml")


def test_every_history_ends_as_it_says(promtool):
    assert "SUCCESS" in promtool("test", "rules", PLACE / "groundfault.rules.test.yml")


@pytest.fixture(scope="module")
def histories():
    return yaml.safe_load((PLACE / "groundfault.rules.test.yml").read_text())["tests"]


def test_every_alert_is_seen_to_fire_and_not_to_fire(alerts, histories):
    cases = [case for history in histories for case in history.get("alert_rule_test", [])]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    stays_quiet = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert fires == set(alerts) == stays_quiet


def test_every_recorded_series_is_used_or_tried(recorded, rules, histories, dashboard):
    asked = " ".join(
        [case["expr"] for history in histories for case in history.get("promql_expr_test", [])]
        + [rule["expr"] for rule in rules]
    )
    assert {name for name in recorded if name not in asked} == set()


def test_the_histories_are_of_metrics_that_exist(histories, expression):
    for history in histories:
        for series in history["input_series"]:
            if not series["series"].startswith("up{"):
                assert expression(series["series"]).selected, series
                assert expression(series["series"]).mistakes(set()) == []


def test_the_rules_use_names_and_values_of_the_catalogue_alone(rules, recorded, expression):
    for rule in rules:
        assert expression(rule["expr"]).mistakes(recorded) == [], rule


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('sum by (job) (rate(groundfault_command_calls_total{outcome="success"}[2m]))', []),
        ("groundfault_command_call_total", ["groundfault_command_call_total is not in the catalogue"]),
        ('groundfault_command_active{outcome="success"}', ["groundfault_command_active has no label outcome"]),
        ('groundfault_command_calls_total{outcome=~"success|short_circuited"}', ["outcome is never short_circuited"]),
        ('groundfault_edge_requests_total{result="refused"}', ["result is never refused"]),
        ("sum by (job, route) (groundfault_backlog)", ["nothing here has a label route"]),
        ("command:groundfault_errors:share9m > 1", ["command:groundfault_errors:share9m is recorded by no rule"]),
        ("groundfault_command_duration_seconds", ["groundfault_command_duration_seconds is not in the catalogue"]),
        ('label_replace(groundfault_backlog, "sign", "shed requests", "", "")', []),
    ],
)
def test_the_search_for_wrong_names_finds_them(expression, text, found):
    assert expression(text).mistakes(set()) == found


def test_no_alert_waits_so_shortly_that_one_bad_minute_would_raise_it(alerts):
    """A rate over two minutes shows one bad minute for three."""
    for name, rule in alerts.items():
        if re.search(r"(?:errors|shed\w*|failed|time_in_queue_seconds):\w*2m", rule["expr"]):
            assert rule["for"] in ("3m", "5m", "10m"), name


def test_every_alert_says_what_who_and_where_to_turn(alerts):
    for name, rule in alerts.items():
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_the_runbook_has_one_section_for_each_alert_and_each_says_all_that_is_needed(alerts):
    sections = dict(re.findall(r"^## (GroundFault\w+)\n(.*?)(?=^## |^---|\Z)", RUNBOOK, re.DOTALL | re.MULTILINE))
    assert set(sections) == set(alerts)
    for name, text in sections.items():
        for lead in ("**It says:**", "**Users feel**", "**Look", "**Do:**", "**Do not**", "**Over when**"):
            assert lead in text, (name, lead)


def test_the_runbook_has_a_place_for_each_event_that_a_chat_is_told():
    events = (ROOT / "docs" / "reference" / "events.md").read_text()
    told = re.findall(r"^\| `([a-z_.]+)` \|.*\bchat \|$", events, re.MULTILINE)
    assert "circuit.open" in told
    assert set(told) == set(re.findall(r'<a id="([^"]+)"></a>', RUNBOOK))


def test_links_within_the_runbook_lead_to_a_section():
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)", RUNBOOK, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK)) <= anchors


def test_what_the_runbook_asks_prometheus_is_promql_with_known_names(expression, recorded, parses):
    asked = re.findall(r"^```promql\n(.*?)^```", RUNBOOK, re.DOTALL | re.MULTILINE)
    assert len(asked) > 30
    parses(asked)
    assert [expression(each).mistakes(recorded) for each in asked] == [[]] * len(asked)


def test_what_the_runbook_has_you_type_is_understood():
    commands = next(each.choices for each in _parser()._actions if isinstance(each, argparse._SubParsersAction))
    typed = re.findall(r"^\$ groundfault (.+)$", RUNBOOK, re.MULTILINE) + re.findall(r"`groundfault (\w.*?)`", RUNBOOK)
    asked = [shlex.split(line.partition("#")[0].partition(">")[0]) for line in typed]
    known = [words for words in asked if words[0] in commands]
    assert {"doctor", "metrics"} <= {words[0] for words in known}
    for words in known:
        _parser().parse_args(words)  # ends the process if it is not


def test_the_reference_has_every_alert_with_its_severity_and_how_long_it_waits(alerts):
    table = dict(re.findall(r"^\| \[`(GroundFault\w+)`\]\([^)]+\) \| (.+) \|$", REFERENCE, re.MULTILINE))
    assert set(table) == set(alerts)
    for name, rule in alerts.items():
        cells = [cell.strip() for cell in table[name].split("|")]
        assert cells[0] == rule["labels"]["severity"], name
        assert cells[2] == rule.get("for", "at once").replace("m", " min"), name
