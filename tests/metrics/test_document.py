"""docs/reference/metrics.md says what there is."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from sample_reports import histogram

from groundfault.metrics.catalogue import BUCKETS_S, CATALOGUE
from groundfault.metrics.exposition import render
from groundfault.metrics.report import CommandReport, ProcessInfo, Report, ServerReport, merged

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text()


def test_the_table_is_the_catalogue():
    table = re.search(r"<!-- metrics -->\n(.*?)\n?<!-- end -->", PAGE, re.DOTALL)
    assert table is not None
    rows = ["| metric | kind | labels | what it says | series |", "|---|---|---|---|---|"]
    for metric in CATALOGUE:
        labels = " ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} | {metric.each} |")
    assert table[1].splitlines() == rows


def test_the_buckets_are_those_of_the_catalogue():
    said = re.search(r"have the buckets (.*?) s\.", PAGE)
    assert said is not None
    assert tuple(float(bound) for bound in re.findall(r"[\d.]+", said[1])) == BUCKETS_S


def process(pid, commands, resources):
    """Return the report of a process as the example has it: two outcomes, one caller."""
    report = Report(processes=[ProcessInfo(pid, "saber", 0.0)])
    for number in range(commands):
        report.add_command(
            CommandReport(
                *(f"resource{number % resources}", f"command{number}"),
                calls={"success": 5, "failure": 1},
                durations={"success": histogram(0.1), "failure": histogram(0.2)},
                states={"closed": 1},
                limit=5,
            )
        )
    report.servers["saber"] = ServerReport(
        *("saber", {("admitted", "critical"): 1, ("queue-wait", "critical"): 1}, histogram(0.1)),
        callers={("topps", "admitted"): (1, 0.0), ("topps", "queue-wait"): (1, 0.0)},
        signals={"tcp-info": 1},
        backlog=0,
        backlog_limit=2048,
    )
    report.draw_edges("saber")
    return report


@pytest.mark.parametrize(("commands", "resources"), [(40, 10), (1000, 250)])
@pytest.mark.parametrize("workers", [1, 8])
def test_there_are_as_many_series_as_it_says_however_many_workers(commands, resources, workers):
    said = re.search(rf"\| {commands} commands of {resources} resources.*\| (\d+) \|", PAGE)
    assert said is not None
    report = merged(process(pid, commands, resources) for pid in range(workers))
    series = [line for line in render(report, 0.0).splitlines() if not line.startswith(b"#")]
    assert len(series) == int(said[1])
    assert abs(commands * (20 * 2 + 8) + resources * 2 + 25 + 4 - len(series)) <= 12  # the formula, which rounds


def test_its_questions_are_ones_that_prometheus_understands(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    block = re.search(r"```promql\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    asked = [re.sub(r"^#.*\n", "", part).replace("\n", " ") for part in block[1].strip().split("\n\n")]
    assert len(asked) == 8
    rules = "".join(f"  - record: q{number}\n    expr: |-\n      {expr}\n" for number, expr in enumerate(asked))
    file = tmp_path / "rules.yml"
    file.write_text(f"groups:\n- name: page\n  rules:\n{rules}")
    run = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False, timeout=30)
    assert run.returncode == 0, run.stdout + run.stderr
    known = {metric.name for metric in CATALOGUE}
    for name in re.findall(r"groundfault_\w+", " ".join(asked)):
        assert re.sub(r"_(bucket|sum|count)$", "", name) in known
