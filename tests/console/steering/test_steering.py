"""Steering over each kind of store: what it shows, writes, undoes, and how it says that somebody else was faster."""

import json
import logging
import socket

import pytest

from groundfault.console.explaining import ABOUT
from groundfault.console.steering import Steering
from groundfault.settings.memory import MemoryStore
from groundfault.settings.names import LIVE
from groundfault.settings.opening import open_store
from groundfault.settings.store import Change, StoreError

PLACE = ("topps/contest-db", "timeout_s")


# --- what there is ----------------------------------------------------------------------------------------------------


def test_what_there_is_is_shown_with_its_bounds_and_history(steered):
    steered.change((*PLACE, 0.8), by="ada")
    shown = steered.steering.shown("")
    json.dumps(shown, allow_nan=False)
    assert shown["document"]["topps/contest-db"] == {"timeout_s": 0.8}
    assert shown["names"]["timeout_s"] == "a number between 0.001 and 300"
    newest = shown["history"][0]
    assert (newest["version"], newest["by"], newest["reason"]) == (shown["version"], "ada", "db is slow")
    assert newest["changes"][0] == {"scope": PLACE[0], "name": PLACE[1], "value": 0.8, "was": 0.5}
    assert shown["problems"] == []


def test_a_store_that_nothing_was_ever_stored_in_is_version_0_and_can_be_begun(tmp_path, steer):
    for url in (f"file:{tmp_path}/none.json", f"sqlite:///{tmp_path}/none.db"):
        steered = steer(open_store(url))
        shown = steered.steering.shown("")
        assert (shown["version"], shown["document"], shown["history"]) == ("0", {}, [])
        answer = steered.change((*PLACE, 0.8))
        assert answer["differences"][0]["text"] == "+ topps/contest-db:timeout_s  0.8"
        assert steered.held == {"topps/contest-db:timeout_s": 0.8}
        steered.steering.close()


def test_an_override_is_shown_with_its_end(steered):
    steered.change((*PLACE, 2, 1800))
    assert steered.steering.shown("")["document"]["topps/contest-db"]["timeout_s"] == {
        "value": 2,
        "until": "1970-01-01T00:46:40Z",
        "then": 0.5,
    }


@pytest.mark.parametrize(
    ("query", "count"), [("", 50), ("history=2", 2), ("history=-1", 50), ("history=x", 50), ("history=0", 0)]
)
def test_as_much_history_is_shown_as_was_asked_for(in_memory, query, count):
    for number in range(60):
        in_memory.store.write([Change(*PLACE, number + 1)], reason="r", actor="a", based_on=str(number + 1))
    assert len(in_memory.steering.shown(query)["history"]) == count
    assert len(in_memory.steering.shown("history=55")["history"]) == 55
    assert len(in_memory.steering.shown(query)["history"]) == count  # also of what was kept


def test_what_has_not_changed_is_not_read_twice(in_memory, monkeypatch):
    first = in_memory.steering.shown("")
    monkeypatch.setattr(in_memory.store, "history", lambda _: pytest.fail("read again"))
    assert in_memory.steering.shown("") == first


def test_every_live_setting_is_explained_and_no_other():
    assert ABOUT.keys() == LIVE.keys()
    shown = Steering(MemoryStore()).shown("")
    assert shown["names"].keys() == shown["settings"].keys() == LIVE.keys()
    assert not any("salt" in name for name in shown["names"])
    assert shown["settings"]["timeout_s"]["unit"] == "s"
    assert shown["settings"]["mode"]["choices"] == ("enforce", "shadow", "force_open", "force_closed")


def test_a_value_that_json_cannot_hold_is_shown_as_text(steer):
    poisoned = steer(MemoryStore({"*": {"timeout_s": float("nan"), "x": {1, 2}, "y": [float("inf")]}}))
    shown = poisoned.steering.shown("")
    json.dumps(shown, allow_nan=False)
    assert shown["document"]["*"]["timeout_s"] == "nan"
    assert shown["problems"]


# --- changes ----------------------------------------------------------------------------------------------------------


def test_a_preview_says_what_a_change_does_and_writes_nothing(steered):
    before = steered.version
    seen = steered.preview((*PLACE, 0.8), ("topps", "failure_threshold", None), ("*", "mode", "enforce"))
    assert [(each["path"], each["from"], each["to"]) for each in seen["differences"]] == [
        ("*:mode", None, "enforce"),
        ("topps:failure_threshold", 0.6, None),
        ("topps/contest-db:timeout_s", 0.5, 0.8),
    ]
    assert seen["differences"][2]["text"] == "~ topps/contest-db:timeout_s  0.5 -> 0.8"
    assert (seen["version"], steered.version) == (before, before)


def test_a_change_does_what_the_preview_said(steered):
    changes = [(*PLACE, 0.8), ("topps", "failure_threshold", None)]
    seen = steered.preview(*changes)
    done = steered.change(*changes, fingerprint=seen["fingerprint"], by="ada@bastion")
    assert done["differences"] == seen["differences"]
    assert done["version"] == steered.version != seen["version"]
    assert steered.held == {
        "*:failure_threshold": 0.4,
        "*:server.deadline_s": 0.8,
        "topps/contest-db:timeout_s": 0.8,
    }
    (newest, *_) = steered.store.history()
    assert (newest.actor, newest.reason) == ("ada@bastion", "db is slow")


def test_a_change_that_changes_nothing_is_not_written(steered):
    before = steered.version
    assert steered.change((*PLACE, 0.5)) == {
        **steered.preview((*PLACE, 0.5)),
        "version": before,
        "differences": [],
    }
    assert steered.version == before


def test_who_did_it_is_the_console_unless_it_is_said(in_memory):
    in_memory.change((*PLACE, 0.8))
    in_memory.change((*PLACE, 0.9), by="  mallory\n\x1b[31m\u202e  x ")
    assert [each.actor for each in in_memory.store.history()] == [
        "mallory \\x1b[31m\\u202e x",
        f"console@{socket.gethostname()}",
    ]


def test_ending_an_override_brings_back_what_was_set_for_good(steered):
    steered.change((*PLACE, 2, 1800))
    seen = steered.preview((*PLACE, None))
    assert seen["warnings"] == [
        "this ends the override of topps/contest-db:timeout_s; once more takes the value away, too"
    ]
    steered.change((*PLACE, None), fingerprint=seen["fingerprint"])
    assert steered.held["topps/contest-db:timeout_s"] == 0.5
    steered.change((*PLACE, None))
    assert "topps/contest-db:timeout_s" not in steered.held


def test_a_change_that_time_has_made_another_one_is_refused(steered):
    steered.change((*PLACE, 2, 60))
    body = steered.body((*PLACE, None))
    seen = steered.steering.preview(body)
    steered.clock.advance(61)
    refused = steered.refused({**body, "fingerprint": seen["fingerprint"]})
    assert refused.status == 409
    assert "not do any more what was previewed" in refused.lines[0]


def test_the_end_of_an_override_may_move_between_preview_and_change(steered):
    body = steered.body((*PLACE, 2, 60))
    seen = steered.steering.preview(body)
    steered.clock.advance(20)
    assert steered.steering.change({**body, "fingerprint": seen["fingerprint"]})["version"] == steered.version


def test_a_scope_for_services_that_nobody_reports_is_warned_of(steer):
    steered = steer(reports=lambda: [(1, "topps", "memory", "1", 0.0)])
    assert steered.preview(("toops", "timeout_s", 1))["warnings"] == [
        "no process of this host reports a service that toops is for"
    ]
    assert steered.preview(("top*", "timeout_s", 1))["warnings"] == []


def test_a_change_is_logged_once_with_who_why_and_both_values(in_memory, caplog):
    with caplog.at_level(logging.INFO, logger="groundfault"):
        in_memory.preview((*PLACE, 0.8))
        in_memory.change((*PLACE, 0.8), by="ada", reason="x\ny")
        in_memory.change((*PLACE, 0.8))
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    for part in ("memory", "version 2", "'ada'", "'x y'", "topps/contest-db:timeout_s  0.5 -> 0.8"):
        assert part in record.getMessage()
    assert record.groundfault["changes"][0]["from"] == 0.5
    assert record.groundfault["by"] == "ada"


# --- going back -------------------------------------------------------------------------------------------------------


def test_going_back_makes_everything_as_it_was(steered):
    good, before = steered.version, steered.held
    steered.change((*PLACE, 0.8), ("grouper", "timeout_s", 3), ("topps", "failure_threshold", None))
    seen = steered.preview(rollback=good)
    assert [each["text"] for each in seen["differences"]] == [
        "- grouper:timeout_s  3",
        "+ topps:failure_threshold  0.6",
        "~ topps/contest-db:timeout_s  0.8 -> 0.5",
    ]
    steered.change(rollback=good, fingerprint=seen["fingerprint"])
    assert steered.held == before


def test_overrides_that_are_over_do_not_come_back(steered):
    steered.change(("grouper", "timeout_s", 3, 60))
    with_override = steered.version
    steered.change(("grouper", "timeout_s", None))
    steered.clock.advance(61)
    seen = steered.preview(rollback=with_override)
    assert seen["differences"] == []
    assert seen["warnings"][0].startswith("left out, for it has expired: grouper:timeout_s")


def test_going_back_to_what_never_was_is_refused(steered):
    refused = steered.refused(steered.body(rollback="no-such"))
    assert refused.status == 422
    assert refused.more["problems"][0]["field"] == "rollback"
    assert "no-such" in refused.lines[0]


def test_what_is_no_document_can_be_rolled_back_and_nothing_else(tmp_path, steer):
    path = tmp_path / "settings.json"
    steered = steer(open_store(f"file:{path}"))
    steered.change((*PLACE, 0.5))
    good = steered.version
    path.write_text("{ this is no json")
    shown = steered.steering.shown("")
    assert "cannot be read" in shown["problems"][0]
    body = steered.body((*PLACE, 1))
    assert _status(steered.steering, body) == 409
    seen = steered.preview(rollback=good)
    assert "is to be replaced" in seen["warnings"][0]
    steered.change(rollback=good)
    assert steered.held == {"topps/contest-db:timeout_s": 0.5}


def _status(steering, body):
    from groundfault.console.answering import RefusedError  # noqa: PLC0415  used here alone

    with pytest.raises(RefusedError) as caught:
        steering.change(body)
    return caught.value.status


# --- somebody else was faster -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["preview", "change"])
def test_a_conflict_says_what_has_changed_and_who_did_it(steered, of):
    body = steered.body((*PLACE, 0.8))
    steered.change(("topps", "failure_threshold", 0.7), by="grace", reason="too jumpy")
    now = steered.version
    refused = steered.refused(body, of=of)
    assert (refused.status, refused.more["version"]) == (409, now)
    assert [each["text"] for each in refused.more["meanwhile"]] == ["~ topps:failure_threshold  0.6 -> 0.7"]
    assert [(each["by"], each["reason"]) for each in refused.more["revisions"]] == [("grace", "too jumpy")]
    assert any("grace: too jumpy" in line for line in refused.lines)
    assert steered.steering.change({**body, "based_on": now})["version"] != now


def test_a_conflict_on_a_version_that_nobody_knows_is_one_too(steered):
    refused = steered.refused(steered.body((*PLACE, 0.8), based_on="banana"))
    assert refused.status == 409
    assert any("cannot be shown" in line for line in refused.lines)


def test_a_conflict_at_the_last_moment_is_told_alike(in_memory):
    write = in_memory.store.write

    def slower(changes, **more):
        write([Change("topps", "failure_threshold", 0.7)], reason="first", actor="grace", based_on=more["based_on"])
        return write(changes, **more)

    in_memory.store.write = slower
    body = in_memory.body((*PLACE, 0.8))
    assert _status(in_memory.steering, body) == 409
    assert in_memory.held["topps/contest-db:timeout_s"] == 0.5


def test_a_conflict_is_told_where_the_history_cannot_be(in_memory):
    body = in_memory.body((*PLACE, 0.8), based_on="9")

    def broken(_limit=50):
        raise StoreError("memory: the history is damaged")

    in_memory.store.history = broken
    refused = in_memory.refused(body)
    assert (refused.status, refused.more["meanwhile"]) == (409, [])
    assert "the history is damaged" in refused.lines[1]
