"""The switch that turns skips into failures, tried on a small suite of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest

def test_passes():
    pass

def test_skips_itself():
    pytest.skip("no such server here")

@pytest.mark.skip(reason="not today")
def test_is_marked():
    pass

@pytest.fixture
def missing():
    pytest.skip("no such fixture here")

def test_needs_a_fixture(missing):
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_fails_as_expected():
    assert False
"""
MODULE = 'import pytest\npytest.importorskip("no_such_module_anywhere")\n'


@pytest.mark.parametrize(
    ("switch", "with_module", "code", "totals"),
    [
        ("0", True, 0, "1 passed, 4 skipped, 1 xfailed"),
        ("1", False, 1, "1 failed, 1 passed, 1 xfailed, 2 errors"),
        ("1", True, 2, "1 error"),  # a module that skips itself ends the collection
    ],
)
def test_skips_fail_on_demand(tmp_path, switch, with_module, code, totals):
    (tmp_path / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    (tmp_path / "test_suite.py").write_text(SUITE)
    if with_module:
        (tmp_path / "test_module.py").write_text(MODULE)
    run = pytest_in(tmp_path, switch)
    assert totals in run.stdout, run.stdout + run.stderr
    assert run.returncode == code
    if totals.startswith("1 failed"):
        for name in ("test_skips_itself", "test_is_marked", "test_needs_a_fixture"):
            assert f"{name} was skipped, which GROUNDFAULT_NO_SKIPS=1 forbids" in run.stdout


def pytest_in(place, switch):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(place), str(place)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=place,
        env={**os.environ, "GROUNDFAULT_NO_SKIPS": switch, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
