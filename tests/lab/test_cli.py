"""The command line: what it refuses, in one line, and what it says."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import groundfault


def run(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "groundfault", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def without(module, tmp_path):
    """Return an environment in which ``module`` cannot be found, as where an extra was not installed."""
    finder = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == {module!r} else find(name, *rest)
"""
    (tmp_path / "sitecustomize.py").write_text(finder)
    root = Path(groundfault.__file__).parent.parent
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}


def test_version(tmp_path):
    result = run("--version", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout == f"groundfault {version('groundfault')}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--bogus"], "unrecognized arguments: --bogus"),
        (["demo", "--qu"], "unrecognized arguments: --qu"),
        (["dmeo"], "invalid choice: 'dmeo' (choose from"),
        ([], "say what to do: groundfault demo"),
        (["demo", "extra"], "unrecognized arguments: extra"),
        (["demo", "--spike", "0.5"], "--spike: must be a number from 1 to 50, not '0.5'"),
        (["demo", "--spike", "lots"], "--spike: must be a number from 1 to 50, not 'lots'"),
        (["demo", "--spike", "nan"], "--spike: must be a number from 1 to 50, not 'nan'"),
        (["demo", "--spike"], "--spike: expected one argument"),
        (["demo", "--out"], "--out: expected one argument"),
        (["demo", "--scale", "0"], "--scale: must be a number from 0.1 to 10, not '0'"),
    ],
)
def test_a_command_line_that_makes_no_sense(arguments, words, tmp_path):
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert "--help" in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["locust", "rich", "matplotlib", "gunicorn", "uvicorn", "psutil"])
def test_a_missing_extra_is_named_with_the_remedy(module, tmp_path):
    result = run("demo", "--quick", cwd=tmp_path, **without(module, tmp_path))
    assert result.returncode == 1
    assert result.stderr == f"groundfault: the demo needs {module}: pip install 'groundfault[demo]'\n"


def test_the_version_needs_no_extra(tmp_path):
    for module in ("rich", "matplotlib", "requests", "locust"):
        assert run("--version", cwd=tmp_path, **without(module, tmp_path)).returncode == 0


@pytest.mark.parametrize(
    ("out", "words"),
    [("a-file", "cannot write to a-file: File exists; choose another directory with --out")],
)
def test_a_report_that_cannot_be_written_is_refused_before_anything_starts(out, words, tmp_path):
    (tmp_path / "a-file").write_text("")
    result = run("demo", "--out", out, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == f"groundfault: {words}\n"


def test_help_tells_of_every_option_but_the_tests_own(tmp_path):
    text = run("demo", "--help", cwd=tmp_path).stdout
    for option in ("--quick", "--json", "--out", "--spike", "--keep-logs"):
        assert option in text
    assert "--scale" not in text
