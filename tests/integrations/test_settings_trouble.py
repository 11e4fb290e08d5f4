"""What bench/settings_trouble.py measures, shortly: calls go on as they did while the store is in trouble."""

import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent.parent / "bench"

if str(BENCH) not in sys.path:
    sys.path.append(str(BENCH))

import settings_trouble  # noqa: E402  found by the path above
from settings_places import InHub, InPostgres, InRedis, InSQLite  # noqa: E402  as above

PLACES = {"sqlite": InSQLite, "postgres": InPostgres, "redis": InRedis, "hub": InHub}


@pytest.fixture(params=PLACES)
def place(request, tmp_path):
    """Return a store that can be brought into trouble."""
    kind = request.param
    place = PLACES[kind](tmp_path if kind == "sqlite" else request.getfixturevalue(kind))
    yield place
    place.close()


TROUBLES = [
    ("sqlite", "stopped", "unreachable"),
    ("sqlite", "killed", "unreachable"),
    ("sqlite", "poisoned", "rejected"),
    pytest.param("redis", "stopped", "unreachable", marks=pytest.mark.e2e),
    pytest.param("postgres", "killed", "unreachable", marks=pytest.mark.e2e),
    pytest.param("hub", "stopped", "unreachable", marks=pytest.mark.e2e),
    pytest.param("hub", "killed", "unreachable", marks=pytest.mark.e2e),
]


@pytest.mark.parametrize(("place", "trouble", "event"), TROUBLES, indirect=["place"])
def test_no_call_fails_or_is_refused_and_the_trouble_is_seen(place, trouble, event):
    finding = settings_trouble.find(place, trouble, 0.5, compare=False)
    assert finding.calls > 0
    assert (finding.wrong, finding.refused) == (0, 0)
    assert finding.event == finding.state == event
    assert "settings of " in finding.error or "has not answered" in finding.error
    assert "666-poison" in finding.error or trouble != "poisoned"
    assert finding.age_s > 0
