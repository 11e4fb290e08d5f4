"""A run directory for each test that wants one, and the way to the reports that they share."""

import sys
from pathlib import Path

import pytest

from groundfault.metrics._place import place_of

_HERE = str(Path(__file__).parent)
if _HERE not in sys.path:
    sys.path.append(_HERE)


@pytest.fixture
def place(tmp_path):
    """Return a run directory that has been made as it should be."""
    made = place_of(tmp_path / "run")
    made.ensure()
    return made


@pytest.fixture(autouse=True)
def _no_directory_of_the_surroundings(monkeypatch):
    """Let nothing that the tests' own environment names change what they see."""
    for name in ("GROUNDFAULT_RUN_DIR", "GROUNDFAULT_SERVICE", "PROMETHEUS_MULTIPROC_DIR", "WEB_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)
