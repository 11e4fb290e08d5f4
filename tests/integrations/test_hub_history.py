"""The hub's history in PostgreSQL: the same statements as in SQLite, kept, found again, thinned out and forgotten."""

import pytest

from groundfault.console.hub.history import History, Span

pytestmark = pytest.mark.e2e

NOW = 1_763_930_000.0
ALL = Span(0.0, 2 * NOW)


def point(at, service, rate):
    numbers = {"rate_per_s": rate, "goodput_per_s": rate, "shed_share": 0.0, "wait_p99_s": None, "open_circuits": 1}
    return {"at": at, "service": service, **numbers}


def test_history_in_postgresql_is_kept_found_thinned_out_and_forgotten(postgres, monkeypatch):
    history = History(postgres.url)
    history.open()
    history.open()
    episode = {
        "id": "e1",
        "kind": "circuit",
        "level": "bad",
        "service": None,
        "subject": "db/get",
        "what": "circuit open",
        "began_at": NOW - 60,
        "ended_at": None,
        "numbers": {"trips": 2},
    }
    rows = [point(at, service, 4.0) for at in range(1000, 3000, 10) for service in ("topps", "saber")]
    history.write(rows, [episode], NOW)
    history.write([point(1000, "topps", 8.0)], [{**episode, "ended_at": NOW}], NOW)
    assert history.episodes(ALL) == [{**episode, "ended_at": NOW}]
    width_s, points = history.points(Span(1000.0, 1010.0, "topps"))
    assert (width_s, points) == (10, [point(1000, "topps", 8.0), point(1010, "topps", 4.0)])
    monkeypatch.setattr("groundfault.console.hub.history.MAX_POINTS", 50)
    width_s, points = history.points(ALL)
    assert width_s > 10
    assert 20 < len(points) <= 50
    assert {each["service"]: each["rate_per_s"] for each in points[2:]} == {"topps": 4.0, "saber": 4.0}
    history.forget(NOW + 1)
    assert (history.episodes(ALL), history.points(ALL)) == ([], (10, []))
    history.close()
