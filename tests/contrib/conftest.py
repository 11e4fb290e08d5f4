"""What the tests of rules and dashboards share: reading PromQL for the names in it, and Prometheus' own checker."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from groundfault.metrics.catalogue import CATALOGUE
from groundfault.vocabulary import Criticality, Outcome, Reason, State

ROOT = Path(__file__).parents[2]
CONTRIB = ROOT / "contrib"

OF_TARGETS = {"cluster", "namespace", "job", "instance"}
"""Labels that come from Prometheus' configuration."""

MADE_HERE = {"sign", "circuits", "not_closed", "processes"}
"""Labels that an expression itself makes."""

VALUES = {
    "outcome": {*Outcome},
    "state": {*State},
    "from": {*State},
    "to": {*State},
    "reason": {*Reason},
    "criticality": {*Criticality},
    "signal": {"none", "tcp-info"},
}
_BY_METRIC = {
    "groundfault_requests_total": {"admitted", "shed"},
    "groundfault_edge_requests_total": {"admitted", "shed"},
    "groundfault_command_fallbacks_total": {"served", "failed", "refused"},
}

_STRING = r'"(?:[^"\\]|\\.)*"'
_SELECTED = re.compile(rf"\b(groundfault_\w+|[a-z]+:groundfault_[\w:]+)(?:{{((?:{_STRING}|[^}}\"])*)}})?")
_MATCHER = re.compile(rf"(\w+)\s*(?:=~|!~|!=|=)\s*({_STRING})")
_LISTED = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([\w\s,]*)\)")


@dataclass
class Expression:
    """A PromQL expression, as far as names go: metrics with their matchers, and labels in lists."""

    text: str

    @property
    def selected(self) -> list[tuple[str, list[tuple[str, str]]]]:
        bare = re.sub(rf"label_(?:join|replace)\s*\(|{_STRING}(?=\s*[,)])", "", self.text)  # not those in arguments
        return [
            (name, [(label, value[1:-1]) for label, value in _MATCHER.findall(matchers)])
            for name, matchers in _SELECTED.findall(bare)
        ]

    @property
    def listed(self) -> set[str]:
        return {label.strip() for found in _LISTED.findall(self.text) for label in found.split(",") if label.strip()}

    def mistakes(self, recorded: set[str]) -> list[str]:
        """Return what is no metric, label or value. ``recorded``: the names that rules give."""
        result, known = [], set(OF_TARGETS | MADE_HERE)
        for name, matchers in self.selected:
            if ":" in name:
                known |= ALL_LABELS
                labels = ALL_LABELS
                result += [] if name in recorded else [f"{name} is recorded by no rule"]
            elif name in SERIES:
                labels = SERIES[name] | OF_TARGETS
                known |= labels
            else:
                result.append(f"{name} is not in the catalogue")
                continue
            for label, value in matchers:
                if label not in labels:
                    result.append(f"{name} has no label {label}")
                allowed = _BY_METRIC.get(name) if label == "result" else VALUES.get(label)
                unknown = set(value.split("|")) - (allowed or set()) - {""}
                if allowed and unknown and "$" not in value:
                    result.append(f"{label} is never {', '.join(sorted(unknown))}")
        return result + [f"nothing here has a label {label}" for label in sorted(self.listed - known)]


def _series():
    for metric in CATALOGUE:
        if metric.kind == "histogram":
            yield f"{metric.name}_bucket", {*metric.labels, "le"}
            yield f"{metric.name}_sum", {*metric.labels}
            yield f"{metric.name}_count", {*metric.labels}
        else:
            yield metric.name, {*metric.labels}


SERIES = dict(_series())
ALL_LABELS = set().union(*SERIES.values()) | OF_TARGETS


@pytest.fixture(scope="session")
def expression():
    """Return the class that reads expressions."""
    return Expression


@pytest.fixture(scope="session")
def rules():
    """Return all rules, in the order of the file."""
    groups = yaml.safe_load((CONTRIB / "prometheus" / "groundfault.rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="session")
def alerts(rules):
    """Return the alerts by name."""
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


@pytest.fixture(scope="session")
def recorded(rules):
    """Return the names that recording rules give."""
    return {rule["record"] for rule in rules if "record" in rule}


@pytest.fixture(scope="session")
def dashboard():
    """Return Grafana's dashboard."""
    return json.loads((CONTRIB / "grafana" / "groundfault.json").read_text())


@pytest.fixture(scope="session")
def promtool():
    """Return a function that runs promtool and returns what it says; it fails the test if promtool finds a fault."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; Debian has it in the package prometheus")

    def run(*arguments):
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def parses(promtool, tmp_path):
    """Return a function that fails unless all of these expressions are PromQL."""

    def check(expressions):
        named = [{"record": f"expression:{number}", "expr": each} for number, each in enumerate(expressions)]
        path = tmp_path / "expressions.yml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "expressions", "rules": named}]}))
        assert f"{len(named)} rules found" in promtool("check", "rules", path)

    return check


@pytest.fixture(scope="session")
def substituted():
    """Return a function that puts values in the place of Grafana's variables."""

    def put(text, window="1m"):
        text = text.replace("$__rate_interval", window).replace("$__interval", window)
        text = re.sub(r"\$(namespace|job|service|resource|command)\b", ".*", text)
        assert "$" not in text, f"an unknown variable in {text}"
        return text

    return put
