"""Scopes, which entry wins, what a document may hold, and how it is written down."""

import json
import re
import tomllib
from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.errors import SettingsError
from groundfault.settings.document import (
    MAX_BYTES,
    MAX_KEYS,
    Table,
    as_mapping,
    changed,
    differences,
    for_command,
    for_shedder,
    in_force,
    next_expiry,
    parse,
    path_of,
    size_of,
    unmatched,
    valid_scope,
    validate,
)
from groundfault.settings.store import UNSET, Change, Document, Entry

JSON = """{
  "*": {"failure_threshold": 0.4, "server.deadline_s": 0.8},
  "topps/contest-db": {"timeout_s": 0.5, "max_concurrent": {"value": 5, "until": "2026-11-23T20:00:00Z"}}
}"""
TOML = """
["*"]
failure_threshold = 0.4
server.deadline_s = 0.8
["topps/contest-db"]
timeout_s = 0.5
max_concurrent = { value = 5, until = 2026-11-23T20:00:00Z }
"""
UNTIL = datetime(2026, 11, 23, 20, tzinfo=UTC).timestamp()


def of(mapping) -> Document:
    return parse(mapping, "v")


# --- which entry wins -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "winner"),
    [
        (["*"], "*"),
        (["*", "topps"], "topps"),
        (["topps", "*/contest-db"], "*/contest-db"),
        (["*/contest-db", "topps/contest-db"], "topps/contest-db"),
        (["topps/contest-db", "*/*/*"], "*/*/*"),
        (["*/contest-*/entrants", "topps/*/*"], "*/contest-*/entrants"),
        (["*/contest-db/*", "*/contest-db/entrants"], "*/contest-db/entrants"),
        (["*/contest-*", "*/contest-d?"], "*/contest-d?"),
        (["top*", "topp?"], "topp?"),
        (["topp*", "topp?"], "topp?"),
        (["grouper", "topps/other", "*/contest-db/other"], None),
        (["contest-db", "*/entrants"], None),
    ],
)
def test_the_most_specific_scope_wins(scopes, winner):
    for order in (scopes, scopes[::-1]):
        document = of({scope: {"timeout_s": 1.0} for scope in order})
        found = for_command(document, "topps", "contest-db", "entrants", 0.0)
        assert (found["timeout_s"].scope if found else None) == winner


def test_each_setting_has_a_winner_of_its_own():
    document = of({"*": {"timeout_s": 1.0, "max_concurrent": 9}, "*/contest-db": {"timeout_s": 0.5}})
    found = for_command(document, "topps", "contest-db", "entrants", 0.0)
    assert {name: entry.value for name, entry in found.items()} == {"timeout_s": 0.5, "max_concurrent": 9}


def test_a_shedder_is_given_what_is_said_of_the_server():
    document = of({"*": {"server.deadline_s": 0.8, "timeout_s": 1.0}, "topps": {"server": {"deadline_s": 0.5}}})
    found = for_shedder(document, "topps", 0.0)
    assert {name: entry.value for name, entry in found.items()} == {"deadline_s": 0.5}
    assert for_shedder(document, "grouper", 0.0)["deadline_s"].value == 0.8
    assert "server.deadline_s" not in for_command(document, "topps", "contest-db", "entrants", 0.0)


def test_an_override_ends_by_itself_and_gives_way_to_what_is_below():
    document = of(
        {"*": {"max_concurrent": 9}, "topps": {"max_concurrent": {"value": 5, "until": "1970-01-01T00:01:40Z"}}}
    )
    assert [for_command(document, "topps", "r", "c", now)["max_concurrent"].value for now in (99.9, 100.0)] == [5, 9]
    assert [next_expiry(document, now) for now in (0.0, 99.9, 100.0)] == [100.0, 100.0, None]


def test_what_stood_there_for_good_comes_back_after_an_override():
    half = {"value": 5, "until": "1970-01-01T00:01:40Z", "then": 7}
    document = of({"topps": {"max_concurrent": half}})
    assert [for_command(document, "topps", "r", "c", now)["max_concurrent"].value for now in (99.9, 100.0)] == [5, 7]
    with pytest.raises(SettingsError, match="between 1 and"):
        validate(of({"topps": {"max_concurrent": {**half, "then": 0}}}))
    with pytest.raises(SettingsError, match="then must come with until"):
        validate(of({"topps": {"max_concurrent": {"value": 5, "then": 7}}}))


def test_what_is_not_known_wins_nothing():
    assert for_command(of({"*": {"retries": 3, "health_check": 1}}), "topps", "r", "c", 0.0) == {}


NAMES = ["a", "ab", "abc", "b", "ba"]
PARTS = st.sampled_from([*NAMES, "*", "?", "a*", "*b", "a?", "?b*", "**"])
SCOPES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
ENDS = st.tuples(st.none() | st.integers(1, 20).map(float), st.none() | st.integers(10, 19)).map(
    lambda end: end if end[0] is not None else (None, None)
)


@given(
    st.dictionaries(
        st.tuples(SCOPES, st.sampled_from(["timeout_s", "max_concurrent"])), st.tuples(st.integers(1, 9), ENDS)
    ),
    st.integers(0, 20),
)
def test_resolution_agrees_with_a_naive_model(said, now):
    """The table with its shortcuts finds what looking at every entry for every command finds."""
    document = Document("v", tuple(Entry(*key, value, *end) for key, (value, end) in said.items()))
    table = Table(document, "ab")
    for resource, command in product(NAMES, NAMES):
        found = in_force(table.for_command(resource, command), now)
        expected = {}
        for each in document.entries:
            entry = each
            parts = entry.scope.split("/")
            patterns = [part.replace("*", ".*").replace("?", ".") for part in parts]
            if not all(map(re.fullmatch, patterns, ("ab", resource, command))):
                continue
            if entry.expires_at is not None and entry.expires_at <= now:
                if entry.then is None:
                    continue
                entry = Entry(entry.scope, entry.name, entry.then)
            wild = sum("*" in part or "?" in part for part in parts)
            literal = len(re.sub(r"[*?/]", "", entry.scope))
            rank = len(parts), -wild, literal, entry.scope
            if entry.name not in expected or rank > expected[entry.name][0]:
                expected[entry.name] = rank, entry
        assert found == {name: entry for name, (_, entry) in expected.items()}


def test_scopes_that_nothing_is_in_are_found():
    document = of(
        {
            "*": {"mode": "enforce"},
            "topps/contest-db": {"timeout_s": 1},
            "topps/contest-bd": {"timeout_s": 1},
            "grouper/nothing": {"timeout_s": 1},
            "*/*/entrants": {"timeout_s": 1},
        }
    )
    assert unmatched(document, "topps", [("contest-db", "c")]) == ("*/*/entrants", "topps/contest-bd")


# --- scopes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["*", "topps", "*/contest-db", "a/b/c", "*/contest-*/get_*", "a.b-c_d", "?"])
def test_a_scope_is_one_to_three_parts(scope):
    assert valid_scope(scope)


@pytest.mark.parametrize(
    "scope", ["", "/", "a/", "/a", "a//b", "a/b/c/d", "Topps", "a b", "[ab]", "ä", "x" * 65, None, 3]
)
def test_what_is_no_scope(scope):
    assert not valid_scope(scope)
    with pytest.raises(SettingsError, match="the scope must be service"):
        validate(Document("v", (Entry(scope, "timeout_s", 1.0),)))


# --- validation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"*/contest-db/entrants": {"timeout_s": -1}},
            "*/contest-db/entrants:timeout_s must be a number between 0.001 and 300, not -1",
        ),
        ({"*": {"timeout_s": None}}, "*:timeout_s must have a value; to have none, unset it"),
        ({"*": {"max_concurrent": True}}, "*:max_concurrent must be a whole number between 1 and 1000000, not True"),
        ({"*": {"max_concurrent": 2.0}}, "*:max_concurrent must be a whole number"),
        ({"*": {"timeout_s": float("nan")}}, "*:timeout_s must be a number between 0.001 and 300, not nan"),
        ({"topps/x": {"server.deadline_s": 1}}, "topps/x:server.deadline_s must be at a scope of one part"),
        ({"*": {"": 1}}, "*:'': a name must be"),
        ({"*": {"a\nb": 1}}, "a name must be"),
        ({"*": {"timeout_s": "x" * 500}}, "xxx..."),
    ],
)
def test_one_bad_key_is_named_with_path_value_and_bound(mapping, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        validate(of({"topps": {"timeout_s": 1.0}, **mapping}))


@pytest.mark.parametrize(
    ("scope", "name", "value"),
    [
        *product(["*", "*/*", "*/*/*", "**", "?*", "*/?*/**"], ["mode"], ["force_open", "force_closed", "shadow"]),
        *product(["*", "**", "?*"], ["server.mode"], ["off", "shadow"]),
    ],
)
def test_a_store_cannot_switch_the_whole_fleet_off(scope, name, value):
    document = of({scope: {name: value}})
    with pytest.raises(SettingsError, match=r"must be 'enforce' at a scope that names nothing, not .*allow_disable"):
        validate(document)
    assert validate(document, allow_disable=True) == ()


@pytest.mark.parametrize("scope", ["topps", "*/contest-db", "*/*/a*"])
def test_a_scope_that_names_something_may_be_switched_off(scope):
    assert validate(of({scope: {"mode": "force_open"}})) == ()


def test_what_is_not_known_is_a_warning_for_fleets_are_upgraded_one_by_one():
    warnings = validate(of({"*": {"retries": 3, "health_check": "x", "server.identity": "x", "timeout_s": 1.0}}))
    assert warnings == (
        "*:retries is no setting that this version knows",
        "*:health_check cannot be set live: it is a function",
        "*:server.identity cannot be set live: it is a function",
    )


def test_a_document_has_a_largest_number_of_keys():
    entries = tuple(Entry(f"s{n}", "max_concurrent", 5) for n in range(MAX_KEYS))
    assert validate(Document("v", entries)) == ()
    with pytest.raises(SettingsError, match="at most 2000 keys, not 2001"):
        validate(Document("v", (*entries, Entry("s", "max_concurrent", 5))))


def test_a_document_has_a_largest_size():
    document = of({"*": {"unknown": "x" * (MAX_BYTES - 30)}})
    assert size_of(document) <= MAX_BYTES
    assert len(validate(document)) == 1
    with pytest.raises(SettingsError, match="at most 65536 bytes, not 65"):
        validate(of({"*": {"unknown": "x" * MAX_BYTES}}))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ((Entry("*", "timeout_s", 1.0), Entry("*", "timeout_s", 2.0)), "must be said once, not twice"),
        ((Entry("*", "timeout_s", 1.0, float("nan")),), "until must be a moment between 1970 and 9999"),
        ((Entry("*", "timeout_s", 1.0, -5.0),), "until must be a moment between 1970 and 9999"),
        ((Entry("*", "timeout_s", 1.0, 1e300),), "until must be a moment between 1970 and 9999"),
        ((Entry("*", "timeout_s", 1.0, "soon"),), "until must be a moment between 1970 and 9999"),
        ((Entry("*", "unknown", object()),), "must hold what JSON can hold"),
        ((Entry("*", "unknown", float("inf")),), "must hold what JSON can hold"),
        ((Entry("*", 3, 1.0),), "a name must be"),
    ],
)
def test_what_a_store_hands_over_is_checked_as_what_a_file_holds(entries, message):
    with pytest.raises(SettingsError, match=message):
        validate(Document("v", entries))


# --- the mapping form -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mapping", [json.loads(JSON), tomllib.loads(TOML)], ids=["json", "toml"])
def test_json_and_toml_say_the_same(mapping):
    document = of(mapping)
    assert validate(document) == ()
    assert set(document.entries) == {
        Entry("*", "failure_threshold", 0.4),
        Entry("*", "server.deadline_s", 0.8),
        Entry("topps/contest-db", "timeout_s", 0.5),
        Entry("topps/contest-db", "max_concurrent", 5, UNTIL),
    }
    assert as_mapping(document) == json.loads(JSON)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ([], "a document must be a table of scopes, not []"),
        (None, "a document must be a table of scopes"),
        ({"*": 3}, "'*' must be a table of settings, not 3"),
        (
            {"*": {"timeout_s": {"until": "2026-11-23T20:00:00Z"}}},
            "*:timeout_s must be a value, or a table of value, until and then",
        ),
        ({"*": {"timeout_s": {"value": 1, "note": "x"}}}, "*:timeout_s must be a value, or a table"),
        ({"*": {"timeout_s": {"value": 1, "until": "tomorrow"}}}, "*:timeout_s: until must be as in"),
        ({"*": {"timeout_s": {"value": 1, "until": "2026-11-23T20:00:00"}}}, "with its time zone"),
        ({"*": {"timeout_s": {"value": 1, "until": 12}}}, "*:timeout_s: until must be as in"),
    ],
)
def test_another_form_is_named_with_its_path(mapping, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        of(mapping)


VALUES = st.one_of(
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=10),
    st.lists(st.integers() | st.text(max_size=3), max_size=3),
)
ENTRIES = st.dictionaries(
    st.tuples(SCOPES, st.from_regex(r"[a-z_]{1,12}|server\.[a-z_]{1,8}", fullmatch=True)),
    st.tuples(VALUES, st.none() | st.integers(1, 4 * 10**12).map(lambda ms: ms / 1000)),
)


@given(ENTRIES)
def test_a_document_survives_being_written_down(said):
    document = Document("v", tuple(Entry(*key, *value) for key, value in said.items()))
    again = of(json.loads(json.dumps(as_mapping(document))))
    assert differences(document, again) == ()


@given(ENTRIES, ENTRIES)
def test_the_differences_of_two_documents_lead_from_the_one_to_the_other(one, two):
    old, new = (Document("v", tuple(Entry(*key, *value) for key, value in said.items())) for said in (one, two))
    changes = [
        Change(was.scope, was.name, UNSET) if now is None else Change(now.scope, now.name, now.value, now.expires_at)
        for was, now in differences(old, new)
    ]
    assert differences(changed(old, changes, "w"), new) == ()
    assert changed(old, changes, "w").version == "w"


def test_to_unset_what_is_not_set_changes_nothing():
    document = of({"*": {"timeout_s": 1.0}})
    assert changed(document, [Change("*", "max_concurrent", UNSET)], "v") == document


def test_paths_are_scope_and_name():
    assert path_of(Change("*/contest-db", "timeout_s", 1)) == "*/contest-db:timeout_s"
