"""History: kept by one thread, found again, and worth no wait: a database in trouble is said, and nothing else."""

import re
import sqlite3
import stat
from contextlib import closing

import pytest
from sqlalchemy import event

from groundfault.console.answering import RefusedError
from groundfault.console.hub import history as history_module
from groundfault.console.hub import keeping
from groundfault.console.hub.history import MAX_POINTS, SCHEMA, History, LaterSchemaError, Span
from groundfault.console.hub.keeping import Keeper
from groundfault.console.hub.spans import span_of
from groundfault.errors import SettingsError
from groundfault.settings.store import StoreError

NOW = 1_763_930_000.0
ALL = Span(0.0, 2 * NOW)


def episode(name="e1", *, began_at=NOW - 60, ended_at=None, service="topps", **more):
    fixed = {
        "id": name,
        "kind": "circuit",
        "level": "bad",
        "service": service,
        "subject": "db/get",
        "what": "circuit open",
    }
    return {**fixed, "began_at": began_at, "ended_at": ended_at, "numbers": {"trips": 2}, **more}


def point(at, service="topps", rate=10.0, wait=0.01, circuits=0):
    return {
        "at": at,
        "service": service,
        "rate_per_s": rate,
        "goodput_per_s": rate,
        "shed_share": 0.0,
        "wait_p99_s": wait,
        "open_circuits": circuits,
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "hub.db"


@pytest.fixture
def history(path):
    made = History(f"sqlite:///{path}")
    made.open()
    yield made
    made.close()


@pytest.fixture
def keeper(path, clock):
    return Keeper(History(f"sqlite:///{path}"), keep_s=86_400.0, run="r1", clock=clock, time=lambda: NOW)


def test_the_file_is_for_this_user_alone_and_writers_do_not_stand_in_the_way_of_readers(history, path):
    history.open()  # again: nothing happens
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with closing(sqlite3.connect(path)) as looked_at:
        assert looked_at.execute("pragma journal_mode").fetchone() == ("wal",)


def test_what_is_kept_is_found_again_and_newer_takes_the_place_of_older(history):
    history.write([point(1000), point(1010)], [episode()], NOW)
    ended = episode(ended_at=NOW - 1, by="ada", reason="INC-311")
    history.write([point(1010, rate=20.0)], [ended], NOW)
    assert history.episodes(ALL) == [ended]
    assert history.points(ALL) == (10, [point(1000), point(1010, rate=20.0)])


def test_an_episode_that_was_never_seen_to_end_says_so(history):
    history.write([], [episode()], NOW)
    (found,) = history.episodes(ALL)
    assert (found["ended_at"], found["what"]) == (NOW, "circuit open; when it ended is not known")


def test_a_span_and_a_service_limit_what_is_found(history):
    history.write(
        [point(at, service) for at in range(1000, 2000, 10) for service in ("topps", "saber")],
        [
            episode("old", began_at=100.0, ended_at=200.0),
            episode("new", began_at=1500.0, ended_at=1600.0, service="saber"),
        ],
        NOW,
    )
    assert [each["id"] for each in history.episodes(Span(150.0, 1000.0))] == ["old"]
    assert [each["id"] for each in history.episodes(Span(0.0, NOW, "saber"))] == ["new"]
    assert [each["at"] for each in history.points(Span(1500.0, 1520.0, "saber"))[1]] == [1500, 1510, 1520]
    assert history.points(Span(5000.0, 6000.0)) == (10, [])


@pytest.mark.parametrize("services", [1, 3, 7])
def test_there_are_never_more_points_than_may_be_and_they_cover_all_the_time(history, monkeypatch, services):
    monkeypatch.setattr(history_module, "MAX_POINTS", 100)
    rows = [point(at, f"s{n}", rate=float(n), wait=at) for at in range(1000, 6000, 10) for n in range(services)]
    history.write(rows, [], NOW)
    width_s, points = history.points(Span(1000.0, 6000.0))
    assert width_s % 10 == 0
    assert 50 < len(points) <= 100 < MAX_POINTS
    assert points[0]["at"] <= 1000
    assert points[-1]["at"] + width_s > 5990
    assert {each["service"]: each["rate_per_s"] for each in points} == {f"s{n}": n for n in range(services)}
    assert max(each["wait_p99_s"] for each in points) == 5990.0


def test_what_is_old_is_forgotten(history):
    history.write([point(1000), point(2000)], [episode("a", began_at=900.0, ended_at=950.0), episode("b")], NOW)
    history.forget(1500.0)
    assert [each["at"] for each in history.points(ALL)[1]] == [2000]
    assert [each["id"] for each in history.episodes(ALL)] == ["b"]


def test_a_database_of_a_later_release_is_left_alone(history, path, keeper):
    with closing(sqlite3.connect(path)) as other:
        other.execute("update groundfault_hub_schema set version = ?", (SCHEMA + 1,))
        other.commit()
    with pytest.raises(LaterSchemaError, match="schema 2, not 1"):
        history.open()
    assert not keeper.turn()
    keeper.offer([point(1000)], [episode()])
    (said,) = keeper.unknown()
    assert said.startswith("history is not kept: the tables in sqlite://")
    assert history.points(ALL) == (10, [])


@pytest.mark.parametrize("url", ["sqlite://", "nowhere://x", "hunter2"])
def test_an_address_that_makes_no_sense_is_refused(url):
    with pytest.raises(SettingsError):
        History(url)


# --- the thread -------------------------------------------------------------------------------------------------------


def test_a_new_run_recalls_the_last_day_and_does_not_write_over_it(path, clock, keeper):
    keeper.offer([point(1000)], [episode(), episode("e2", began_at=NOW - 100_000, ended_at=NOW - 99_000)])
    assert keeper.turn()
    assert keeper.recalled == []
    later = Keeper(History(f"sqlite:///{path}"), keep_s=86_400.0, run="r2", clock=clock, time=lambda: NOW + 5)
    later.offer([], [episode(what="another one of the same name")])
    assert later.turn()
    assert [each["what"] for each in later.recalled] == ["circuit open; when it ended is not known"]
    assert {each["id"] for each in History(f"sqlite:///{path}").episodes(ALL)} == {"r1|e1", "r2|e1"}  # e2 was too old


def test_what_has_not_changed_is_not_written_again(history, keeper, monkeypatch):
    written = []
    real = History.write
    monkeypatch.setattr(History, "write", lambda self, *args: (written.append(len(args[1])), real(self, *args)))
    going, ended = episode("a"), episode("b", ended_at=NOW)
    for _ in range(2):
        keeper.offer([], [going, ended])
        assert keeper.turn()
    going["ended_at"] = NOW
    keeper.offer([], [going, ended])
    assert keeper.turn()
    assert written == [2, 1, 1]


def test_a_locked_database_is_waited_for_and_said_and_nothing_is_lost(history, path, keeper, clock, monkeypatch):
    monkeypatch.setattr(history_module, "_LOCK_S", 0.1)
    keeper._history = History(f"sqlite:///{path}")
    assert keeper.turn()
    with closing(sqlite3.connect(path)) as other:
        other.execute("begin immediate")
        keeper.offer([point(1000)], [episode()])
        assert not keeper.turn()
        assert keeper.unknown() == []  # it may be over in a moment
        clock.advance(40.0)
        keeper.offer([point(1010)], [episode()])
        assert not keeper.turn()
        (said,) = keeper.unknown()
        assert said.startswith("history has not been kept for 40 s: ")
        assert "database is locked" in said
        other.rollback()
    assert keeper.turn()
    assert keeper.unknown() == []
    assert [each["at"] for each in history.points(ALL)[1]] == [1000, 1010]


def test_a_full_database_is_said_and_what_there_is_no_room_for_is_counted(path, keeper, clock, monkeypatch):
    monkeypatch.setattr(keeping, "MAX_POINTS", 50)
    assert keeper.turn()
    full = {"is": True}

    @event.listens_for(keeper._history._database.engine(), "connect")
    def _limit(connection, _):
        connection.execute(f"pragma max_page_count = {1 if full['is'] else 10**6}")

    for number in range(120):
        keeper.offer([point(1000 + 10 * number)], [episode(f"e{number}", what="x" * 500)])
    assert not keeper.turn()
    clock.advance(20.0)
    late, lost = keeper.unknown()
    assert "database or disk is full" in late
    assert lost == "70 rows of history are lost"
    full["is"] = False
    assert keeper.turn()
    assert keeper.unknown() == ["70 rows of history are lost"]
    clock.advance(601.0)
    assert keeper.unknown() == []


def test_a_file_that_somebody_takes_away_is_made_anew(path, keeper):
    assert keeper.turn()
    for each in path.parent.iterdir():
        each.unlink()
    keeper.offer([point(1000)], [])
    assert not keeper.turn()
    assert keeper.turn()
    assert History(f"sqlite:///{path}").points(ALL)[1] == [point(1000)]


def test_a_database_that_hangs_is_said_while_it_does(keeper, clock):
    keeper.offer([point(1000)], [])
    clock.advance(16.0)  # and no turn has come to an end
    (said,) = keeper.unknown()
    assert said.endswith("hub.db does not answer")


def test_the_thread_keeps_what_is_left_when_it_is_told_to_end(path):
    keeper = Keeper(History(f"sqlite:///{path}"), keep_s=86_400.0, run="r1", time=lambda: NOW)
    keeper.start()
    keeper.offer([point(int(NOW))], [])
    keeper.stop(20.0)
    assert History(f"sqlite:///{path}").points(ALL)[1] == [point(int(NOW))]


# --- what is asked for ------------------------------------------------------------------------------------------------


def test_without_a_word_it_is_the_last_hour_of_everything():
    assert span_of("", NOW) == Span(NOW - 3600.0, NOW, None)
    assert span_of("from=5&to=9.5&service=a%20b", NOW) == Span(5.0, 9.5, "a b")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("from=yesterday", "from must be seconds from 0 to .*, not 'yesterday'"),
        ("to=nan", "to must be seconds from 0 to .*, not 'nan'"),
        ("to=-1", "to must be seconds from 0 to .*, not '-1'"),
        ("from=10&to=9", "from must be at most to, 9, not 10"),
        ("service=" + "x" * 201, "service must have at most 200 characters, not 201"),
        ("form=1", "the query may say from, to and service, each once, not 'form'"),
        ("from=1&from=2", "each once, not 'from'"),
        ("&".join("a=1" for _ in range(20)), "at most 10 fields"),
    ],
)
def test_what_makes_no_sense_is_refused_with_field_value_and_bound(query, said):
    with pytest.raises(RefusedError) as caught:
        span_of(query, NOW)
    assert caught.value.status == 400
    (line,) = caught.value.lines
    assert re.search(said, line)


def test_a_store_error_is_what_comes_of_a_database_that_is_none(tmp_path):
    place = tmp_path / "hub.db"
    place.write_bytes(b"no database at all, whatever its name says" * 50)
    with pytest.raises(StoreError, match=r"history of sqlite:.*file is not a database"):
        History(f"sqlite:///{place}").open()
