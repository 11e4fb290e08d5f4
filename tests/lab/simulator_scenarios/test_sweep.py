"""What if: sweeps over settings, and proposals under the spike."""

import json
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from groundfault.cli import main
from groundfault.lab import look
from groundfault.lab.simulator import proposals, running
from groundfault.lab.simulator.scenario import load, scenario_of
from groundfault.lab.simulator.sweep import Axis, default_of, swept
from groundfault.lab.simulator.sweep_plot import draw
from groundfault.lab.simulator.table import ScenarioError

_TOML = """
total_s = 6
capacity_rps = 100
[services.topps]
threads = 64
wait = 0.002
calls = [{ to = "saber", timeout_s = 0.8 }]
[services.saber]
threads = 2
wait = 0.02
[[streams]]
name = "fan"
to = "topps"
spike = { base_rps = 50, factor = 6, before_s = 2, spike_s = 2, after_s = 2, rise_s = 0 }
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(_TOML)
    return path


@pytest.fixture
def document(file):
    return load(file)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("services.saber.threads", 2),
        ("services.saber.deadline_s", 1.0),
        ("services.saber.max_concurrency", None),
        ("services.topps.calls[0].timeout_s", 0.8),
        ("services.topps.calls[0].breaker.failure_threshold", 0.5),
        ("streams[0].spike.factor", 6),
        ("streams[0].deadline_s", 1.0),
        ("variant", "groundfault"),
        ("services.saber.nothing", None),
    ],
)
def test_the_default_is_what_is_said_or_what_holds_where_nothing_is(document, place, expected):
    assert default_of(document, place) == expected


def test_each_point_meets_the_same_arrivals_in_however_many_processes(document):
    axes = [Axis.parse("services.saber.threads=1,2,8", document)]
    one = swept(document, axes, ["1", "2"])
    two = swept(document, axes, ["1", "2"], processes=2)

    assert one == two
    shares = [next(each.mean for each in point.figures if each.measure == "goodput@spike") for point in one.points]
    assert shares[0] < shares[1] < shares[2]
    assert axes[0].default == 2


@pytest.mark.parametrize(
    "sweeps", [["services.saber.threads=1,2"], ["services.saber.threads=1,2", "variant=groundfault,plain-503"]]
)
def test_a_plot_has_a_panel_for_each_figure_marks_the_default_and_is_the_same_each_time(document, sweeps):
    axes = [Axis.parse(text, document) for text in sweeps]
    made = swept(document, axes, ["1"], measures=["goodput@spike", "recovery_s@after"])
    pictures = [look.svg(draw(made, look.LIGHT), look.LIGHT) for _ in range(2)]
    texts = [element.text for element in ET.fromstring(pictures[0]).iter() if element.text]  # noqa: S314  our own

    assert pictures[0] == pictures[1]
    assert "default" in texts
    assert "services.saber.threads" in texts
    assert "recovery" in texts


def test_the_command_prints_a_table_and_writes_json_and_pictures(file, tmp_path, capsys):
    out = tmp_path / "out"
    code = main(["simulate", str(file), "--sweep", "services.saber.threads=1,2", "--seeds", "2", "--out", str(out)])
    printed = capsys.readouterr().out

    assert code == 0
    assert "2 *" in printed
    assert "* the default: services.saber.threads = 2" in printed
    said = json.loads((out / "sweep.json").read_text())
    assert [point["values"] for point in said["points"]] == [[1], [2]]
    assert (out / "sweep.svg").read_text().startswith("<?xml")
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sweep", "services.saber.threads"], "a sweep must be place=value,value"),
        (["--sweep", "services.saber.threads=1,,2"], "a sweep must be place=value,value"),
        (["--sweep", "services.saber.threads=2,2"], "services.saber.threads: each value must be given once"),
        (
            ["--sweep", "services.saber.threads=0,1"],
            "services.saber.threads must be a whole number from 1 to 100000, not 0",
        ),
        (["--sweep", "services.nobody.threads=1"], "services.nobody.threads: there is no 'nobody'"),
        (["--sweep", "services.saber.colour=1"], "services.saber.colour is unknown"),
        (["--sweep", "a=1", "--sweep", "b=1", "--sweep", "c=1"], "at most 2 sweeps"),
        (["--sweep", "total_s=5,6", "--sweep", "total_s=7"], "total_s must be swept over once"),
        (["--sweep", "total_s=5,6", "--variant", "all"], "a sweep must be of one variant"),
        (["--sweep", "total_s=5,6", "--measures", "beauty"], "measure must be one of"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_in_one_line(file, arguments, said, capsys, tmp_path):
    code = main(["simulate", str(file), "--out", str(tmp_path / "out"), *arguments])
    error = capsys.readouterr().err

    assert code == 2
    assert said in error
    assert error.count("\n") == 1


def test_the_list_names_each_built_in_scenario(capsys):
    assert main(["simulate", "--list"]) == 0
    assert "draftkings " in capsys.readouterr().out


def test_a_sample_is_simulated_and_said(tmp_path, capsys):
    code = main(["simulate", "draftkings", "--sample", "1/200", "--set", "total_s=2", "--set", "spans={spike=[0,1]}",
                 "--set", 'bounds=["success"]', "--out", str(tmp_path)])  # fmt: skip

    assert code == 0
    assert "One in 200 of the fleet" in capsys.readouterr().out
    assert "One in 200" in json.loads((tmp_path / "draftkings-groundfault-1.json").read_text())["notes"][0]


@pytest.mark.parametrize("word", ["50", "1/0", "2/50", "1/x", "1/10001"])
def test_a_sample_that_makes_no_sense_is_refused(word):
    found = subprocess.run(
        [sys.executable, "-m", "groundfault", "simulate", "draftkings", "--sample", word],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 2
    assert "must be 1/1 to 1/10000" in found.stderr


def _checked(document, *changes):
    laid = proposals.laid_over(document, [proposals.Change(*each) for each in changes])
    spreads = [
        running.spreads(list(running.run_all(running.jobs_of(each, seed=1, seeds=1, variants=[each.variant]))))
        for each in (proposals.looked_at(scenario_of(one)) for one in (document, laid.document))
    ]
    return laid, proposals.compared(*spreads)


def test_proposals_are_laid_where_they_are_meant(document):
    laid, rows = _checked(
        document,
        ("*/saber/saber", "timeout_s", 0.8),
        ("topps/sab*/*", "failure_threshold", 0.5),
        ("saber", "deadline_s", 1.0),
        ("*/contest-db/entrants", "timeout_s", 0.1),
    )

    assert laid.places == (
        "services.topps.calls[0].timeout_s",
        "services.topps.calls[0].breaker.failure_threshold",
        "services.saber.deadline_s",
    )
    assert [each.scope for each in laid.elsewhere] == ["*/contest-db/entrants"]
    assert not any(each.worse for each in rows)


def test_a_proposal_that_cuts_good_answers_off_does_not_hold(document):
    _, rows = _checked(document, ("*/saber/*", "timeout_s", 0.01))
    worse = {each.without.check.measure for each in rows if each.worse}

    assert {"goodput@spike", "success@before"} <= worse


def test_the_command_says_whether_they_hold(file, tmp_path, capsys):
    diff = tmp_path / "diff.json"
    diff.write_text(json.dumps({"diff": [{"scope": "*/saber/saber", "name": "timeout_s", "value": 0.01}]}))
    code = main(["simulate", str(file), "--proposals", str(diff), "--out", str(tmp_path / "out")])

    assert code == 1
    assert "The proposals do not hold." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing", "is not JSON"),
        ("[]", "must hold settings"),
        ('{"diff": [1]}', "entry 0 must be an object, not 1"),
        ('[{"scope": 1, "name": "x", "value": 2}]', "entry 0: scope must be a text, not 1"),
        ('[{"scope": "*/a/b", "name": "timeout_s"}]', "entry 0: value must be given"),
        ('[{"scope": "*/a/b", "name": "timeout_s", "value": 1}]', "no call and no service of the scenario"),
        ('[{"scope": "*/saber/saber", "name": "timeout_s", "value": -1}]', "timeout_s must be a number above 0"),
    ],
)
def test_proposals_that_make_no_sense_are_refused_in_one_line(file, tmp_path, text, said, capsys):
    diff = tmp_path / "diff.json"
    diff.write_text(text)

    assert main(["simulate", str(file), "--proposals", str(diff), "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err


def test_the_error_of_a_place_names_it(document):
    with pytest.raises(ScenarioError, match="is no place"):
        Axis.parse("services..x=1", document)
