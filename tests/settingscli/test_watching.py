"""`watch`: a line for each change, in every weather."""

import json

import pytest

from groundfault.settings.store import Change, Document, Entry, MalformedError, StoreError
from groundfault.settingscli import session, watching

AT = "1970-01-01T00:16:40Z"


@pytest.fixture
def days(store, monkeypatch, cli_of):
    """Watch while one thing after another happens, and stop as Ctrl-C would when nothing is left."""

    def watch(*happenings, options=()):
        left = list(happenings)

        def waited(_):
            if not left:
                raise KeyboardInterrupt
            left.pop(0)()

        monkeypatch.setattr(store, "wait", waited)
        monkeypatch.setattr(watching, "sleep", waited)
        ended = cli_of("watch", *options)
        assert (ended.code, ended.err, left) == (130, "groundfault settings: stopped\n", [])
        return ended.out.splitlines()

    return watch


@pytest.fixture
def write(store):
    def writer(*changes, reason="slow"):
        def happen():
            store.write(changes, reason=reason, actor="ann@gronk", based_on=store.load(None).version)

        return happen

    return writer


@pytest.fixture
def trouble(store):
    def begin(error=None):
        def happen():
            store.error = error

        return happen

    return begin


def nothing():
    """Let a second go by."""


def test_watch_begins_with_what_there_is_and_says_nothing_while_nothing_changes(days):
    assert days(nothing, nothing) == [f"{AT} version 1 of memory: 4 set"]


def test_each_change_is_a_line_with_version_who_and_why(days, write):
    lines = days(
        write(Change("topps", "failure_threshold", None), Change("topps", "timeout_s", 2)),
        write(Change("topps", "timeout_s", 3, 9000.0)),
    )
    assert lines[1:] == [
        f"{AT} version 2: - topps:failure_threshold  0.6  (ann@gronk: slow)",
        f"{AT} version 2: + topps:timeout_s  2  (ann@gronk: slow)",
        f"{AT} version 3: ~ topps:timeout_s  2 -> 3 until 1970-01-01T02:30:00Z, then 2  (ann@gronk: slow)",
    ]


def test_versions_that_went_by_between_two_looks_are_told_in_their_order(days, write):
    first, second = write(Change("topps", "timeout_s", 2)), write(Change("topps", "timeout_s", None), reason="better")

    def both():
        first()
        second()

    assert days(both)[1:] == [
        f"{AT} version 2: + topps:timeout_s  2  (ann@gronk: slow)",
        f"{AT} version 3: - topps:timeout_s  2  (ann@gronk: better)",
    ]


def test_a_change_that_no_history_tells_of_is_told_without_who(days, store):
    def by_hand():
        store._current = Document("by-hand", (Entry("topps", "timeout_s", 3),))

    lines = days(by_hand)[1:]
    assert f"{AT} version by-hand: + topps:timeout_s  3" in lines
    assert len(lines) == 5


def test_a_history_that_does_not_answer_hides_no_change(days, write, store, monkeypatch):
    def refused(_):
        raise StoreError("gone")

    monkeypatch.setattr(store, "history", refused)
    assert days(write(Change("topps", "timeout_s", 2)))[1:] == [f"{AT} version 2: + topps:timeout_s  2"]


def test_a_new_version_of_the_same_is_said_too(days, store):
    def touched():
        store._current = Document("2", store._current.entries)

    assert days(touched)[1:] == [f"{AT} version 2: nothing else has changed"]


def test_what_processes_reject_is_said(days, write):
    lines = days(write(Change("*", "timeout_s", -1)))
    assert lines[-1] == (
        f"{AT} version 2 is rejected by processes: *:timeout_s must be a number between 0.001 and 300, not -1"
    )


def test_what_is_no_document_is_said_once_and_outlived(days, write, store, monkeypatch):
    load, poison = store.load, []

    def loaded(known):
        if poison and known != "x":
            raise MalformedError("memory is not JSON", "x")
        return None if poison else load(known)

    monkeypatch.setattr(store, "load", loaded)
    lines = days(lambda: poison.append(1), nothing, nothing, poison.clear)
    assert lines[1:] == [f"{AT} rejected: memory is not JSON", f"{AT} version 1: nothing else has changed"]


def test_trouble_with_the_store_is_outlived_with_growing_pauses(days, trouble, monkeypatch):
    monkeypatch.setattr(watching, "uniform", lambda low, high: 1.0)
    begin = trouble(StoreError("memory does not answer"))
    lines = days(begin, *[nothing] * 6, trouble())
    pauses = [line.partition("next try in ")[2] for line in lines if "unreachable" in line]
    assert pauses == ["1.0 s", "2.0 s", "4.0 s", "8.0 s", "16.0 s", "30.0 s", "30.0 s"]
    assert lines[1] == f"{AT} unreachable: memory does not answer; next try in 1.0 s"
    assert lines[-1] == f"{AT} reached: memory answers again"


def test_a_store_that_is_down_at_first_is_waited_for(days, trouble, store):
    store.error = StoreError("memory does not answer")
    lines = days(nothing, trouble())
    assert ["unreachable" in line for line in lines] == [True, True, False, False]
    assert lines[-1] == f"{AT} version 1 of memory: 4 set"


def test_pauses_are_jittered(days, trouble, monkeypatch):
    asked = []
    monkeypatch.setattr(watching, "uniform", lambda low, high: asked.append((low, high)) or 1.2)
    assert days(trouble(StoreError("x")))[-1].endswith("next try in 1.2 s")
    assert asked == [(0.8, 1.2)]


@pytest.mark.parametrize("reachable", [True, False])
def test_an_override_that_ends_is_said_even_while_the_store_is_away(days, write, clock, trouble, reachable):
    def later():
        clock.advance(60)

    between = nothing if reachable else trouble(StoreError("away"))
    lines = days(write(Change("topps", "timeout_s", 2, 1030.0)), between, later, nothing)
    said = [line for line in lines if "expired" in line]
    assert said == ["1970-01-01T00:17:40Z expired: topps:timeout_s  2 until 1970-01-01T00:17:10Z"]


def test_processes_that_come_move_on_and_go_are_said(days, monkeypatch):
    reports = [[(1, "topps", "memory", None, None)], [(1, "topps", "memory", "1", 0.0)], [], []]
    monkeypatch.setattr(session.Session, "running", lambda _: session.running_versions(reports.pop(0)))
    assert days(nothing, nothing, nothing)[1:] == [
        f"{AT} process 1 of topps runs version -",
        f"{AT} process 1 of topps runs version 1",
        f"{AT} process 1 of topps has ended",
    ]


def test_lines_of_json(days, write, trouble, clock, monkeypatch):
    monkeypatch.setattr(watching, "uniform", lambda low, high: 1.0)
    lines = days(
        write(Change("topps", "timeout_s", 2, 1030.0)),
        lambda: clock.advance(60),
        trouble(StoreError("away")),
        trouble(),
        write(Change("*", "timeout_s", -1)),
        options=("--json",),
    )
    told = [json.loads(line) for line in lines]
    assert [each["event"] for each in told] == [
        *("version", "change", "expired", "unreachable", "reached", "change", "rejected"),
    ]
    assert told[0] == {"at": AT, "event": "version", "version": "1", "entries": 4}
    change = {"scope": "topps", "name": "timeout_s", "value": 2, "until": "1970-01-01T00:17:10Z", "then": None}
    assert told[1] == {
        "at": AT,
        "event": "change",
        "version": "2",
        "by": "ann@gronk",
        "reason": "slow",
        "change": change,
    }
    assert told[3] == {"at": "1970-01-01T00:17:40Z", "event": "unreachable", "error": "away", "retry_s": 1.0}


def test_the_real_wait_of_a_store_ends_and_the_change_is_said(store, monkeypatch, cli_of):
    looks = []
    load = store.load

    def loaded(known):
        looks.append(known)
        if len(looks) == 2:
            store.write([Change("topps", "timeout_s", 2)], reason="r", actor="a", based_on="1")
        if len(looks) == 3:
            raise KeyboardInterrupt
        return load(known)

    monkeypatch.setattr(watching, "_POLL_S", 0.01)
    monkeypatch.setattr(store, "load", loaded)
    assert "version 2: + topps:timeout_s  2  (a: r)" in cli_of("watch").out
