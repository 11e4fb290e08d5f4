"""``groundfault load`` finds the scenarios by name and hands the rest to Locust."""

import subprocess
import sys

import pytest

from groundfault.cli import main
from groundfault.lab.load.command import scenarios


def test_without_a_name_all_are_listed_with_what_they_are(capsys):
    assert main(["load"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[: len(scenarios())]] == list(scenarios())
    assert any(line.startswith("gronk_spike") and "touchdown" in line for line in said)
    assert "replay" not in scenarios()


def test_one_that_is_not_there_is_refused_by_name(capsys):
    assert main(["load", "gronk"]) == 2
    assert "one of gronk_spike, " in capsys.readouterr().err


def test_help_is_told_in_the_first_place_too(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["load", "--help"])
    assert ended.value.code == 0
    assert "Without a name" in capsys.readouterr().out


@pytest.mark.e2e
def test_the_help_of_a_scenario_tells_what_it_expects_and_its_own_options():
    command = [sys.executable, "-m", "groundfault", "load", "gronk_spike", "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    for said in ("The Gronk spike", "--host", "--variant", "--gate", "--base-rps"):
        assert said in ended.stdout


@pytest.mark.e2e
def test_the_options_go_to_the_scenario_and_its_exit_code_comes_back():
    command = [sys.executable, "-m", "groundfault", "load", "gronk_spike", "--spike=-1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "-1" in ended.stderr
    assert "Traceback" not in ended.stderr
