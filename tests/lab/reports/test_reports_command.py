"""``groundfault report`` and ``groundfault gate``: what they write, what they say, and how they end."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from made_runs import spike_run

import groundfault
from groundfault.cli import main


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a directory with runs, which no test changes."""
    path = tmp_path_factory.mktemp("runs")
    for variant in ("groundfault", "plain-503", "unprotected"):
        spike_run(variant, services=[]).write(path / f"{variant}.json")
    spike_run("unprotected", void=["the machine\n::error::was busy"], services=[]).write(path / "void.json")
    spike_run(bounds=()).write(path / "unjudged.json")
    spike_run(deadline_s=2.0, services=[]).write(path / "patient.json")
    return path


@pytest.fixture
def here(written, tmp_path, monkeypatch):
    """Return a directory with these runs, in which the command line runs."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_run_makes_a_page(here, capsys):
    assert main(["report", "groundfault.json"]) == 0
    assert capsys.readouterr().out == f"report: {here / 'report.html'}\n"
    assert "Passed: all 5 bounds are met." in (here / "report.html").read_text()


def test_several_make_a_comparison_and_a_picture(here, capsys):
    assert main(["report", "groundfault.json", "void.json", "--out", "c.html", "--image", "c.svg", "--dark"]) == 0
    said = capsys.readouterr()
    assert said.err == "groundfault: mind: unprotected: it is void: the machine ::error::was busy\n"
    assert "void, not compared" in (here / "c.html").read_text()
    assert ET.parse(here / "c.svg").getroot().tag.endswith("svg")  # noqa: S314  written by the line above
    assert not (here / "report.html").exists()


def test_a_place_that_cannot_be_written_to_is_said_before_anything_is_drawn(here, capsys, monkeypatch):
    from groundfault.lab.reports import making  # noqa: PLC0415  it needs matplotlib, the other tests' command loads it

    drawn = []
    monkeypatch.setattr(making, "page_of", lambda *_: drawn.append("page") or "")
    assert main(["report", "groundfault.json", "--out", "x.html", "--image", "none/x.png"]) == 1
    assert "cannot write to none/x.png: No such file" in capsys.readouterr().err
    assert drawn == []
    assert not Path("x.html").exists()


def test_who_wants_an_image_only_gets_no_page(here):
    assert main(["report", "groundfault.json", "--image", "h.png"]) == 0
    assert (here / "h.png").read_bytes().startswith(b"\x89PNG")
    assert not (here / "report.html").exists()


def test_runs_that_cannot_be_compared_are_refused_unless_one_insists(here, capsys):
    runs = ["report", "unprotected.json", "patient.json", "--out", "c.html"]
    assert main(runs) == 2
    assert capsys.readouterr().err == (
        "groundfault: groundfault cannot be compared with unprotected: its deadline is 2 s, not 1 s. "
        "--anyway does it all the same\n"
    )
    assert not (here / "c.html").exists()
    assert main([*runs, "--anyway"]) == 0
    assert "it cannot really be compared: its deadline is 2 s, not 1 s" in (here / "c.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["report", "nowhere.json"], 1, "cannot read nowhere.json: No such file or directory"),
        (["report", "."], 1, "cannot read .: Is a directory"),
        (["report", "broken.json"], 1, 'broken.json: it is no run: "format" must be "groundfault-run"'),
        (["report", "groundfault.json", "--image", "x.pdf"], 2, "--image must end in .svg or .png, not 'x.pdf'"),
        (["report", "groundfault.json", "--dark"], 2, "--dark is for --image"),
        (["report", *["groundfault.json"] * 7], 2, "runs must be at most 6, or nobody can tell them apart, not 7"),
        (["report", "groundfault.json", "--out", "none/x.html"], 1, "cannot write to none/x.html: No such file"),
        (["report", "groundfault.json", "--image", "none/x.svg"], 1, "cannot write to none/x.svg: No such file"),
        (["gate", "nowhere.json"], 2, "cannot read nowhere.json: No such file or directory"),
        (["gate", "unjudged.json"], 2, "nothing to judge by: the run has no bounds of its own"),
        (["gate", "groundfault.json", "speed>=1"], 2, "measure must be one of goodput, "),
        (["gate", "groundfault.json", "trips>=x"], 2, "the bound of 'trips>=x' must be a number, not 'x'"),
        (["gate", "groundfault.json", "trips@x>=1"], 2, "trips@x: span must be one of before, spike, after, not x"),
        (["gate", "groundfault.json", "--tolerance", "5%"], 2, "--tolerance is for --baseline"),
        (
            ["gate", "groundfault.json", "--baseline", "void.json", "--tolerance", "x"],
            2,
            "tolerance must be from 0% to",
        ),
        (["gate", "groundfault.json", "--baseline", "patient.json"], 2, "cannot be compared with the baseline"),
        (["gate", "groundfault.json", "--baseline", "gone.json"], 2, "cannot read gone.json"),
        (["gate", "groundfault.json", "--rules", "gone.toml"], 2, "cannot read gone.toml: No such file or directory"),
        (["gate", "groundfault.json", "--rules", "bad.toml"], 2, "bad.toml: 'bound' is no key"),
        (["gate", "groundfault.json", "--junit", "none/j.xml"], 2, "cannot write to none/j.xml: No such file"),
    ],
)
def test_what_does_not_work_is_said_in_one_line(arguments, code, words, here, capsys):
    (here / "broken.json").write_text("{}")
    (here / "bad.toml").write_text("bound = []")
    assert main(arguments) == code
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.startswith("groundfault: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "last"),
    [
        (["groundfault.json"], 0, "passed: gronk-spike, groundfault: 5 of 5 met"),
        (["plain-503.json"], 1, "failed: gronk-spike, plain-503: 3 of 5 missed"),
        (["void.json"], 3, "void: gronk-spike, unprotected: it says nothing, whatever its figures are"),
        (["plain-503.json", "goodput@spike>=0.2", "trips<=3"], 0, "passed: gronk-spike, plain-503: 2 of 2 met"),
        (["groundfault.json", "shed@spike<=0.5"], 1, "failed: gronk-spike, groundfault: 1 of 1 missed"),
        (
            ["plain-503.json", "trips<=3", "--baseline", "groundfault.json"],
            1,
            "failed: gronk-spike, plain-503: 1 of 2 missed",
        ),
    ],
)
def test_how_the_gate_ends(arguments, code, last, here, capsys):
    assert main(["gate", *arguments]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == last
    assert {line.split()[0] for line in lines[:-1]} <= {"ok", "MISSED", "shown", "VOID"}


def test_rules_and_junit_and_json(here, capsys):
    (here / "gate.toml").write_text('bounds = ["trips<=5"]\nbaseline = "groundfault.json"\ntolerance = "100%"\n')
    arguments = ["gate", "plain-503.json", "goodput@spike>=0.2", "--rules", "gate.toml", "--junit", "j.xml", "--json"]
    assert main(arguments) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == "failed"
    assert [(check["measure"], check["met"]) for check in said["checks"]] == [
        ("trips", True),
        ("goodput@spike", True),
        ("trips", False),
        ("goodput@spike", True),
    ]
    suite = ET.parse(here / "j.xml").getroot()[0]  # noqa: S314  written two lines above
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("4", "1")


@pytest.mark.parametrize(
    ("arguments", "module", "code", "words"),
    [
        (
            ["report", "groundfault.json"],
            "matplotlib",
            1,
            "a report needs matplotlib: pip install 'groundfault[lab]'\n",
        ),
        (["gate", "groundfault.json"], "matplotlib", 0, ""),
    ],
)
def test_only_the_report_needs_an_extra(arguments, module, code, words, here):
    (here / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\nfind = PathFinder.find_spec\n"
        f"PathFinder.find_spec = lambda name, *rest: None if name == {module!r} else find(name, *rest)\n"
    )
    root = Path(groundfault.__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-m", "groundfault", *arguments],
        env={**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{root}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == code, result.stderr
    assert result.stderr == (f"groundfault: {words}" if words else "")
