"""`unset`, `apply` and `rollback`: what they write, and what they refuse."""

import json

import pytest

from groundfault.cli import main
from groundfault.settings.file import FileStore
from groundfault.settings.memory import MemoryStore
from groundfault.settings.store import Change, MalformedError
from groundfault.settingscli import session

WHY = ("--reason", "contest db is slow")


def held(store):
    return {f"{each.scope}:{each.name}": each.value for each in store.load(None).entries}


def ends(store):
    return {f"{each.scope}:{each.name}": each.expires_at for each in store.load(None).entries if each.expires_at}


# --- unset ------------------------------------------------------------------------------------------------------------


def test_unset_takes_names_away(cli_of, store):
    ended = cli_of("unset", "*", "failure_threshold", *WHY)
    assert ended == (0, "- *:failure_threshold  0.4\nmemory is at version 2 now\n", "")
    assert "*:server.deadline_s" in held(store)


def test_unset_without_names_takes_all_of_the_scope_and_nothing_else(cli_of, store):
    assert cli_of("unset", "*", *WHY).code == 0
    assert list(held(store)) == ["topps:failure_threshold", "topps/contest-db:timeout_s"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("grouper",), 'nothing is set at "grouper"'),
        (("*", "timeout_s"), "timeout_s: not set at *; set there: failure_threshold, server.deadline_s"),
    ],
)
def test_to_unset_what_is_not_set_is_a_mistake(cli_of, store, arguments, words):
    ended = cli_of("unset", *arguments, *WHY)
    assert (ended.code, store.history()) == (1, [])
    assert words in ended.err


def test_one_of_two_wrong_values_can_be_taken_away(cli_of, monkeypatch):
    poisoned = MemoryStore({"*": {"timeout_s": -1}, "topps": {"timeout_s": -2}})
    monkeypatch.setattr(session, "open_store", lambda _: poisoned)
    ended = cli_of("unset", "topps", *WHY, "--store", "x")
    assert (ended.code, list(held(poisoned))) == (0, ["*:timeout_s"])
    assert "processes will still reject all of it: *:timeout_s must be" in ended.err


# --- apply ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def advice(tmp_path):
    def write(content):
        file = tmp_path / "advice.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(file)

    return write


def change(**parts):
    return {"scope": "topps/contest-db", "name": "timeout_s", "value": 0.7, **parts}


def test_apply_makes_the_changes_of_a_file(cli_of, store, advice):
    file = advice(
        [
            change(was=0.5, why="p95 is 0.31 s"),
            change(name="max_concurrent", value=4, until="1970-01-01T01:00:00Z"),
            {"scope": "topps", "name": "failure_threshold", "value": None},
        ]
    )
    assert cli_of("apply", file, *WHY).code == 0
    assert held(store)["topps/contest-db:timeout_s"] == 0.7
    assert "topps:failure_threshold" not in held(store)
    assert ends(store) == {"topps/contest-db:max_concurrent": 3600.0}


def test_apply_says_what_in_a_file_means_nothing(cli_of, store, advice):
    file = advice([change(unti="1970-01-01T01:00:00Z")])
    ended = cli_of("apply", file, *WHY)
    assert (ended.code, ended.err) == (
        0,
        f'groundfault settings: warning: {file}, change 1: "unti" means nothing here\n',
    )


def test_apply_reads_standard_input(cli_of, store, monkeypatch, tmp_path, advice):
    with open(advice([change()]), encoding="utf-8") as given:  # noqa: PTH123  a real stream, with its buffer
        monkeypatch.setattr("sys.stdin", given)
        assert cli_of("apply", "-", *WHY).code == 0
    assert held(store)["topps/contest-db:timeout_s"] == 0.7


def test_an_empty_list_changes_nothing(cli_of, store, advice):
    assert cli_of("apply", advice([]), *WHY) == (0, "nothing to change\n", "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "must be a list of changes, as `groundfault settings diff --json` prints"),
        ("[", "advice.json is not JSON: "),
        ('[{"scope": "a", "scope": "b"}]', 'is not JSON: "scope" stands there twice'),
        ("[" * 100_000, "advice.json is nested too deeply"),
        (" " * 1_100_000, "advice.json must be at most 1048576 bytes"),
        ("", "advice.json is empty"),
        ([1], "change 1: must have scope, name and value, not 1"),
        ([change(), {"scope": "a", "name": "b"}], "change 2: must have scope, name and value"),
        ([change(scope=1)], "change 1: scope must be a text, not 1"),
        ([change(name=["x"])], 'change 1: name must be a text, not ["x"]'),
        ([change(), change()], "change 2: topps/contest-db:timeout_s must be said once, not twice"),
        ([change(until="soon")], "change 1: until must be a time with its offset, such as 2026-11-23T20:00:00Z"),
        ([change(until="2026-11-23T20:00:00")], "change 1: until must be a time with its offset"),
        ([change(until=5)], "change 1: until must be a time with its offset"),
        ([change(until="1970-01-01T00:01:00Z")], "topps/contest-db:timeout_s: until must be in the future"),
        ([change(value=-1)], "topps/contest-db:timeout_s must be a number between 0.001 and 300, not -1"),
        ([change(name="timout_s")], "topps/contest-db:timout_s is no setting that this version knows"),
    ],
)
def test_a_file_that_makes_no_sense_changes_nothing(cli_of, store, advice, content, words):
    ended = cli_of("apply", advice(content), *WHY)
    assert (ended.code, ended.out, store.history()) == (1, "", [])
    assert words in ended.err


def test_a_file_that_is_not_there(cli_of, store, tmp_path):
    ended = cli_of("apply", str(tmp_path / "none.json"), *WHY)
    assert (ended.code, ended.err.endswith("none.json cannot be read: No such file or directory\n")) == (1, True)


# --- rollback ---------------------------------------------------------------------------------------------------------


def test_rollback_writes_the_old_content_as_a_new_version(cli_of, store):
    cli_of("set", "topps", "timeout_s=9", "failure_threshold=1", *WHY)
    cli_of("unset", "*", *WHY)
    ended = cli_of("rollback", "1", *WHY)
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "memory is at version 4 now")
    assert "- topps:timeout_s  9" in ended.out
    assert held(store) == held(MemoryStore({each: dict(names) for each, names in _as_at_first().items()}))
    assert cli_of("rollback", "4", *WHY).out == "nothing to change\n"


def _as_at_first():
    return {
        "*": {"failure_threshold": 0.4, "server.deadline_s": 0.8},
        "topps": {"failure_threshold": 0.6},
        "topps/contest-db": {"timeout_s": 0.5},
    }


def test_rollback_leaves_out_what_has_expired_since(cli_of, store, clock):
    cli_of("set", "topps", "timeout_s=9", *WHY, "--for", "1m")
    cli_of("unset", "topps", *WHY)
    clock.advance(60)
    ended = cli_of("rollback", "2", *WHY)
    assert "left out, for it has expired: topps:timeout_s, 1970-01-01T00:17:40Z" in ended.err
    assert "topps:timeout_s" not in held(store)
    assert held(store)["topps:failure_threshold"] == 0.6


def test_rollback_to_what_nobody_knows_is_refused(cli_of, store):
    assert cli_of("rollback", "77", *WHY) == (1, "", "groundfault settings: memory knows no version 77\n")


def test_rollback_to_what_processes_would_reject_is_refused(cli_of, store):
    store.write([Change("*", "timeout_s", -1)], reason="by another way", actor="eve", based_on="1")
    cli_of("unset", "*", "timeout_s", *WHY)
    ended = cli_of("rollback", "2", *WHY)
    assert (ended.code, len(store.history())) == (1, 2)
    assert "*:timeout_s must be a number between 0.001 and 300, not -1" in ended.err


def test_rollback_brings_back_names_that_this_version_does_not_know(cli_of, store):
    store.write([Change("*", "hedge_after_s", 1)], reason="by a newer one", actor="eve", based_on="1")
    cli_of("unset", "*", "hedge_after_s", *WHY)
    ended = cli_of("rollback", "2", *WHY)
    assert (ended.code, held(store)["*:hedge_after_s"]) == (0, 1)
    assert "warning: *:hedge_after_s is no setting that this version knows" in ended.err


def test_rollback_replaces_what_is_no_document(cli_of, store, monkeypatch):
    cli_of("set", "topps", "timeout_s=9", *WHY)
    load, seen = store.load, []

    def poisoned(known):
        if not seen:
            seen.append(known)
            raise MalformedError("memory is not JSON", "2")
        return load(known)

    monkeypatch.setattr(store, "load", poisoned)
    ended = cli_of("rollback", "1", *WHY)
    assert "what is there is no document, and is to be replaced: memory is not JSON" in ended.err
    assert ended.code == 0
    assert held(store).items() >= held(MemoryStore(_as_at_first())).items()


def test_rollback_to_no_settings_replaces_what_is_no_document(tmp_path, monkeypatch, capsys):
    path = tmp_path / "settings.toml"
    monkeypatch.delenv("GROUNDFAULT_RUN_DIR", raising=False)
    path.write_text("# nothing is set\n")
    store = FileStore(path)
    nothing = store.load(None).version
    store.write([Change("topps", "timeout_s", 9)], reason="INC-311", actor="ann", based_on=nothing)
    path.write_text('["half')
    assert main(["settings", "rollback", nothing, "--store", str(path), "--yes", *WHY]) == 0
    assert "is at version" in capsys.readouterr().out
    assert store.load(None).entries == ()
