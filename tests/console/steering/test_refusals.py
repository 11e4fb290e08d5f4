"""What is refused, in which words, beside which input; and that whatever is sent, nothing else comes of it."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.console.answering import RefusedError
from groundfault.console.steering import Steering
from groundfault.settings.document import validate
from groundfault.settings.memory import MemoryStore
from groundfault.settings.names import LIVE
from groundfault.settings.store import NothingStoredError, StoreError

PLACE = ("topps/contest-db", "timeout_s")
BASE = {"reason": "r", "based_on": "1"}


def one(value, scope="topps", name="timeout_s", **more):
    return {**BASE, "changes": [{"scope": scope, "name": name, "value": value, **more}]}


def nested(depth):
    return json.loads("[" * depth + "]" * depth)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "based_on must be a version"),
        ({**BASE}, "the body must have either changes or rollback"),
        ({**one(1), "rollback": "1"}, "the body must have either changes or rollback"),
        ({**one(1), "token": "x"}, "the body must have based_on, by, changes, fingerprint, reason, rollback only"),
        (one(1, until="never"), "change 1 must have for_s, name, scope, value only, not 'until'"),
        ({**one(1), "based_on": 1}, "based_on must be a version, as settings.json shows it, not 1"),
        ({**one(1), "based_on": "x\n"}, "based_on must be a version"),
        ({**one(1), "based_on": "9" * 300}, "based_on must be a version"),
        ({**one(1), "fingerprint": []}, "fingerprint must be a version"),
        ({**one(1), "reason": ["r"]}, "reason must be a text, not a list"),
        ({**one(1), "by": 7}, "by must be a text, not 7"),
        ({**BASE, "changes": {}}, "changes must be a list of 1 to 2000 changes, not a table"),
        ({**BASE, "changes": []}, "changes must be a list of 1 to 2000 changes, not 0 of them"),
        ({**BASE, "changes": [7] * 2001}, "changes must be a list of 1 to 2000 changes, not 2001 of them"),
        ({**BASE, "changes": [[]]}, "change 1 must have scope, name and value, not a list"),
        ({**BASE, "changes": [{"scope": "*", "name": "mode"}]}, "change 1 must have scope, name and value"),
        (one(1, scope=7), "change 1: scope must be a text, not 7"),
        (one(1, name=None), "change 1: name must be a text, not None"),
        ({**BASE, "rollback": 3}, "rollback must be a version"),
        ({**BASE, "rollback": True}, "rollback must be a version, as settings.json shows it, not True"),
    ],
)
def test_a_body_that_makes_no_sense_is_a_bad_request(in_memory, body, words):
    refused = in_memory.refused(body)
    assert refused.status == 400
    assert any(line.startswith(words) for line in refused.lines), refused.lines


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({**one(1), "reason": ""}, "reason", "reason must be a text of 1 to 500 characters, not 0"),
        ({**one(1), "reason": " \n\t "}, "reason", "reason must be a text of 1 to 500 characters, not 0"),
        ({**one(1), "reason": None}, "reason", "reason must be a text of 1 to 500 characters, not 0"),
        ({**one(1), "reason": "r" * 501}, "reason", "reason must be a text of 1 to 500 characters, not 501"),
        ({**one(1), "by": "b" * 201}, "by", "by must be a text of 1 to 200 characters, not 201"),
        (one(-1), "value", "topps:timeout_s must be a number between 0.001 and 300, not -1"),
        (one(True), "value", "topps:timeout_s must be a number between 0.001 and 300, not True"),
        (one("1"), "value", "topps:timeout_s must be a number between 0.001 and 300, not '1'"),
        (one(10**4000), "value", "topps:timeout_s must be a number between 0.001 and 300, not 1000"),
        (one(math.nan), "value", "topps:timeout_s must be a finite number, not nan"),
        (one(math.inf), "value", "topps:timeout_s must be a finite number, not inf"),
        (one(1.0, name="max_concurrent"), "value", "topps:max_concurrent must be a whole number between 1 and 1000000"),
        (one(True, name="max_concurrent"), "value", "topps:max_concurrent must be a whole number between 1 and"),
        (one({"value": 1}), "value", "topps:timeout_s must be a number between 0.001 and 300, not {'value': 1}"),
        (one(nested(200)), "value", "topps:timeout_s must be nested at most 8 deep"),
        (one(["/\ud800"], name="server.health_paths"), "value", "topps:server.health_paths must be text that can be"),
        (one(["/\x00"], name="server.health_paths"), "value", "topps:server.health_paths must be text that can be"),
        (one([{"\x1b": 1}], name="server.criticality"), "value", "topps:server.criticality must be text that can be"),
        (one([{"x": 1}], name="server.criticality"), "value", "topps:server.criticality must be at most 100 rules"),
        (one("OFF", name="mode"), "value", "topps:mode must be 'enforce' or 'shadow' or"),
        (one("off", "*", "server.mode"), "value", "*:server.mode must be 'enforce' at a scope that names nothing"),
        (one(1, scope="TOPPS"), "scope", "'TOPPS':'timeout_s': the scope must be service[/resource[/command]]"),
        (one(1, scope="a/b/c/d"), "scope", "'a/b/c/d':'timeout_s': the scope must be"),
        (one(1, scope="\x1b[31m"), "scope", "'\\x1b[31m':'timeout_s': the scope must be"),
        (one(1, scope=""), "scope", "change 1: scope must have 1 to 194 characters, not 0"),
        (one(1, scope="s" * 200), "scope", "change 1: scope must have 1 to 194 characters, not 200"),
        (one(1, "a/b", "server.deadline_s"), "scope", "a/b:server.deadline_s must be at a scope of one part"),
        (one(1, name="timout_s"), "name", "topps:timout_s is no setting that this version knows (did you mean timeou"),
        (one(1, name="server.key_salt"), "name", "topps:server.key_salt cannot be set live: it is a secret"),
        (one(1, name="n" * 100_000), "name", "change 1: name must have 1 to 64 characters, not 100000"),
        (one(1, for_s=0), "for_s", "topps:timeout_s: for_s must be a number of seconds above 0 and at most 31622400"),
        (one(1, for_s=math.nan), "for_s", "topps:timeout_s: for_s must be a number of seconds above 0"),
        (one(1, for_s=10**400), "for_s", "topps:timeout_s: for_s must be a number of seconds above 0"),
        (one(1, for_s=True), "for_s", "topps:timeout_s: for_s must be a number of seconds above 0"),
        (one(1, for_s="30m"), "for_s", "topps:timeout_s: for_s must be a number of seconds above 0"),
        (one(None, for_s=60), "for_s", "topps:timeout_s: for_s must come with a value, not with null"),
        (one(None, scope="grouper"), "name", 'nothing is set at "grouper"'),
        (one(None, scope="topps", name="mode"), "name", "mode: not set at topps; set there: failure_threshold"),
    ],
)
def test_what_cannot_be_is_refused_with_path_value_and_bound(in_memory, body, field, words):
    for of in ("preview", "change"):
        refused = in_memory.refused(body, of=of)
        assert refused.status == 422
        assert refused.lines[0].startswith(words), refused.lines
        assert all(len(line) < 400 for line in refused.lines)
        assert [each["field"] for each in refused.more["problems"]] == [field]
        json.dumps({"errors": refused.lines, **refused.more}, allow_nan=False)


def test_every_wrong_value_is_told_at_once(in_memory):
    refused = in_memory.refused(
        in_memory.body(("topps", "timeout_s", -1), ("*", "max_concurrent", 0), ("A", "mode", 1))
    )
    assert len(refused.lines) == len(refused.more["problems"]) == 3


def test_one_place_is_said_once(in_memory):
    refused = in_memory.refused(in_memory.body((*PLACE, 1), (*PLACE, 2)))
    assert refused.lines == ("topps/contest-db:timeout_s must be said once, not twice",)


def test_what_was_wrong_before_refuses_a_change_beside_it_but_can_be_taken_away(steer):
    poisoned = steer(MemoryStore({"*": {"timeout_s": -1}, "topps": {"timeout_s": -2}}))
    refused = poisoned.refused(poisoned.body(("grouper", "timeout_s", 1)))
    assert "*:timeout_s must be a number between 0.001 and 300, not -1" in refused.lines
    seen = poisoned.preview(("*", "timeout_s", None))
    assert seen["warnings"][0].startswith("processes will still reject all of it: topps:timeout_s must be")
    poisoned.change(("*", "timeout_s", None))
    poisoned.change(("topps", "timeout_s", None))
    assert poisoned.held == {}


def test_a_whole_fleet_is_switched_off_only_by_who_may(steer):
    allowed = steer(allow_disable=True)
    allowed.change(("*", "server.mode", "off"))
    assert allowed.held["*:server.mode"] == "off"


def test_a_document_that_gets_too_large_is_refused(in_memory):
    paths = [f"/{'p' * 200}{number}" for number in range(100)]
    body = in_memory.body(*((f"s{number}", "server.health_paths", paths) for number in range(4)))
    refused = in_memory.refused(body)
    assert refused.lines[0].startswith("a document must be at most 65536 bytes")


# --- stores that do not do what is asked of them ----------------------------------------------------------------------


class ReadOnly:
    """A store that can be read alone."""

    name = "mounted"

    def __init__(self, store):
        self._store = store

    def load(self, known):
        return self._store.load(known)

    def wait(self, timeout_s):
        self._store.wait(timeout_s)

    def close(self):
        self._store.close()


def test_a_store_that_can_only_be_read_is_shown_and_says_so(steer):
    steered = steer(ReadOnly(MemoryStore({"*": {"timeout_s": 1}})))
    shown = steered.steering.shown("")
    assert (shown["writable"], shown["history"]) == (False, [])
    refused = steered.refused(steered.body((*PLACE, 1)))
    assert refused.status == 403
    assert refused.lines == ("mounted can be read only: it takes no changes and keeps no history; nothing was written",)


def test_a_store_that_is_away_is_told_in_its_own_words(steer):
    store = MemoryStore({"*": {"timeout_s": 1}})
    steered = steer(store)
    steered.steering.shown("")
    store.error = StoreError("memory: connection refused by postgresql://app:hunter22@db/x?password=hunter23")
    for ask in (lambda: steered.steering.shown(""), lambda: steered.steering.change({**BASE, **one(1)})):
        with pytest.raises(RefusedError) as caught:
            ask()
        assert caught.value.status == 503
        assert "connection refused" in caught.value.lines[0]
        assert "hunter2" not in str(caught.value.args) + str(caught.value.more)


def test_a_credential_of_the_stores_own_address_is_never_told(tmp_path, monkeypatch):
    steering = Steering(f"sqlite:///{tmp_path}/settings.db")
    steering._url = "postgresql://app:hunter22@db/x"
    monkeypatch.setattr(steering, "_store", Leaky())
    with pytest.raises(RefusedError) as caught:
        steering.shown("")
    assert caught.value.lines == ("no entry for *** on db",)


class Leaky(ReadOnly):
    """A store whose driver talks too much."""

    def __init__(self):
        super().__init__(MemoryStore())

    def load(self, known):
        raise StoreError("no entry for hunter22 on db")


@pytest.mark.parametrize(("error", "status"), [(ValueError("x"), 500), (ImportError("no tomlkit"), 503)])
def test_whatever_a_store_raises_is_a_refusal(steer, error, status):
    store = MemoryStore({"*": {"timeout_s": 1}})
    steered = steer(store)

    def write(*_, **__):
        raise error

    store.write = write
    refused = steered.refused(steered.body((*PLACE, 1)))
    assert refused.status == status
    assert type(error).__name__ in refused.lines[0] or "tomlkit" in refused.lines[0]


def test_a_store_that_hands_over_nothing_is_told(steer):
    store = MemoryStore()
    store.load = lambda _: None
    with pytest.raises(RefusedError, match="handed over no document"):
        steer(store).steering.shown("")


def test_a_document_that_goes_away_is_nothing_stored(steer):
    store = MemoryStore({"*": {"timeout_s": 1}})
    steered = steer(store)
    assert steered.version == "1"

    def gone(_):
        raise NothingStoredError("memory: gone")

    store.load = gone
    assert steered.version == "0"


# --- anything at all --------------------------------------------------------------------------------------------------

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(sorted(LIVE)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_change = st.fixed_dictionaries(
    {
        "scope": st.sampled_from(["*", "topps", "a/b", "a/b/c", "*/x*"]) | _json,
        "name": st.sampled_from(sorted(LIVE)) | _json,
        "value": st.sampled_from([1, 0.5, 20, True, "shadow", "open", ["/x"], [1, 2], None]) | _json,
    },
    optional={"for_s": st.floats() | st.integers() | _json},
)
_body = st.fixed_dictionaries(
    {},
    optional={
        "changes": st.lists(_change, max_size=4) | _json,
        "rollback": st.sampled_from(["1", "2"]) | _json,
        "reason": st.just("r") | _json,
        "based_on": st.just("1") | _json,
        "by": st.just("ada") | _json,
        "fingerprint": _json,
    },
)
_likely = st.fixed_dictionaries(
    {"changes": st.lists(_change, min_size=1, max_size=3), "reason": st.text(max_size=9), "based_on": st.just("1")}
)


@given(_body | _likely | st.dictionaries(st.text(max_size=9), _json, max_size=4))
def test_no_body_whatever_does_more_than_be_refused_or_leave_a_sound_document(body):
    store = MemoryStore({"*": {"timeout_s": 1}})
    steering = Steering(store, clock=lambda: 1000.0, reports=list)
    for ask in (steering.preview, steering.change):
        status, answer = 200, {}
        try:
            answer = ask(body)
        except RefusedError as refused:
            status, answer = refused.status, {"errors": refused.lines, **refused.more}
        assert status in {200, 400, 409, 422}, answer
        assert status == 200 or store.history() == []
        json.dumps(answer, allow_nan=False)
        validate(store.load(None))
    json.dumps(steering.shown(""), allow_nan=False)
