"""A run directory with reports in it, and the way to the fakes and samples that these tests share."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from groundfault.console._post import Making
from groundfault.metrics._coding import encode
from groundfault.metrics._place import place_of, replace_file

for _each in (Path(__file__).parent, Path(__file__).parents[2] / "metrics"):
    if str(_each) not in sys.path:
        sys.path.append(str(_each))


@pytest.fixture(autouse=True)
def _nothing_of_the_surroundings(monkeypatch):
    """Let nothing that the tests' own environment names change what they see; nor are observers real."""
    names = ("RUN_DIR", "SERVICE", "SETTINGS", "CONSOLE_TOKEN")
    for name in (*(f"GROUNDFAULT_{each}" for each in names), "WEB_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Making, "usual", classmethod(lambda cls: import_module("fake_making").MAKING))


@pytest.fixture
def place(tmp_path):
    """Return a run directory that has been made as it should be."""
    made = place_of(tmp_path / "run")
    made.ensure()
    return made


@pytest.fixture
def directory(place):
    """Return a run directory in which a process has left a report of three calls."""
    replace_file(place.path / "1-0000000000000001.json", encode(import_module("sample_reports").counted(3)))
    return place.path
