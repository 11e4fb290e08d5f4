"""A run directory with reports in it, and the way to the fakes and samples that these tests share."""

import sys
from pathlib import Path

import pytest

for _each in (Path(__file__).parent, Path(__file__).parents[2] / "metrics"):
    if str(_each) not in sys.path:
        sys.path.append(str(_each))

from fake_making import MAKING
from sample_reports import counted

from groundfault.console._post import Making
from groundfault.metrics._coding import encode
from groundfault.metrics._place import place_of, replace_file


@pytest.fixture(autouse=True)
def _nothing_of_the_surroundings(monkeypatch):
    """Let nothing that the tests' own environment names change what they see; nor are observers real."""
    names = ("RUN_DIR", "SERVICE", "SETTINGS", "CONSOLE_TOKEN")
    for name in (*(f"GROUNDFAULT_{each}" for each in names), "WEB_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Making, "usual", classmethod(lambda cls: MAKING))


@pytest.fixture
def place(tmp_path):
    """Return a run directory that has been made as it should be."""
    made = place_of(tmp_path / "run")
    made.ensure()
    return made


@pytest.fixture
def directory(place):
    """Return a run directory in which a process has left a report of three calls."""
    replace_file(place.path / "1-0000000000000001.json", encode(counted(3)))
    return place.path
