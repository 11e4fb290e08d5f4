"""`set`: what it writes, what it refuses, whom it asks, and what a conflict is."""

import getpass
import socket

import pytest

from groundfault.settings.memory import MemoryStore
from groundfault.settings.store import Change, Entry, StoreError
from groundfault.settingscli import session

WHY = ("--reason", "contest db is slow")
PATH = "topps/contest-db:timeout_s"


def held(store):
    return {f"{each.scope}:{each.name}": each.value for each in store.load(None).entries}


def ends(store):
    return {f"{each.scope}:{each.name}": each.expires_at for each in store.load(None).entries if each.expires_at}


# --- set --------------------------------------------------------------------------------------------------------------


def test_set_shows_the_change_writes_it_and_says_the_version(cli_of, store):
    ended = cli_of("set", "topps/contest-db", "timeout_s=0.8", "max_concurrent=5", *WHY)
    assert ended == (
        0,
        "+ topps/contest-db:max_concurrent  5\n~ topps/contest-db:timeout_s  0.5 -> 0.8\nmemory is at version 2 now\n",
        "",
    )
    assert held(store)["topps/contest-db:timeout_s"] == 0.8
    (revision,) = store.history()
    assert revision.reason == "contest db is slow"
    assert revision.actor == f"{getpass.getuser()}@{socket.gethostname()}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("timeout_s=2", 2),
        ("timeout_s=2.5e-1", 0.25),
        ("honor_handled=true", True),
        ("mode=shadow", "shadow"),
        ('mode="shadow"', "shadow"),
        ("mode= shadow", " shadow"),
        ('server.health_paths=["/up", "/a=b"]', ["/up", "/a=b"]),
    ],
)
def test_a_value_is_json_or_else_a_text(cli_of, store, text, value):
    ended = cli_of("set", "grouper", text, *WHY, "--json")
    if value == " shadow":
        assert (ended.code, "not ' shadow'" in ended.err) == (1, True)
    else:
        assert ended.json["changes"][0]["value"] == value
        assert held(store)[f"grouper:{text.partition('=')[0]}"] == value


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("topps", "timeout_s=-1"), "topps:timeout_s must be a number between 0.001 and 300, not -1"),
        (("topps", "timeout_s=NaN"), "topps:timeout_s must be a number between 0.001 and 300, not nan"),
        (("topps", "timeout_s=Infinity"), "topps:timeout_s must be a number between 0.001 and 300, not inf"),
        (
            ("topps", "max_concurrent=true"),
            "topps:max_concurrent must be a whole number between 1 and 1000000, not True",
        ),
        (("topps", "timeout_s=soon"), "topps:timeout_s must be a number between 0.001 and 300, not 'soon'"),
        (("topps", f"timeout_s={'9' * 5000}"), "topps:timeout_s must be a number between 0.001 and 300, not '999"),
        (("topps", f"timeout_s={'[' * 20000}"), "topps:timeout_s must be a number between 0.001 and 300, not '[[["),
        (
            ("topps/contest-db", "server.deadline_s=1"),
            "topps/contest-db:server.deadline_s must be at a scope of one part",
        ),
        (("TOPPS", "timeout_s=1"), "'TOPPS':'timeout_s': the scope must be service[/resource[/command]]"),
        (("a/b/c/d", "timeout_s=1"), "the scope must be service[/resource[/command]]"),
        (("*", "server.mode=off"), "*:server.mode must be 'enforce' at a scope that names nothing, not 'off'"),
        (
            ("topps", "timout_s=1"),
            "topps:timout_s is no setting that this version knows (did you mean timeout_s?); nothing was written",
        ),
        (("topps", "health_check=1"), "topps:health_check cannot be set live: it is a function; nothing was written"),
        (("topps", "timeout_s=1", "--until", "1970-01-01T00:00:01Z"), "--until must be in the future"),
    ],
)
def test_what_no_process_would_take_is_refused_in_words_and_not_written(cli_of, store, arguments, words):
    ended = cli_of("set", *arguments, *WHY)
    assert (ended.code, ended.out) == (1, "")
    assert words in ended.err
    assert all(line.startswith("groundfault settings: ") for line in ended.err.splitlines())
    assert store.history() == []


def test_a_refusal_names_the_store_and_every_wrong_value(cli_of, store):
    ended = cli_of("set", "topps", "timeout_s=-1", "max_concurrent=0", *WHY)
    assert ended.err.count("(memory); nothing was written\n") == 2


def test_a_name_that_only_a_newer_version_knows_is_written_on_demand(cli_of, store):
    ended = cli_of("set", "topps", "hedge_after_s=1", *WHY, "--allow-unknown")
    assert (ended.code, held(store)["topps:hedge_after_s"]) == (0, 1)
    assert "warning: topps:hedge_after_s is no setting that this version knows" in ended.err
    assert cli_of("set", "topps", "timeout_s=1", *WHY).err == ""


def test_a_whole_fleet_is_switched_off_on_demand_only(cli_of, store):
    assert cli_of("set", "*", "server.mode=off", *WHY, "--allow-disable").code == 0
    assert held(store)["*:server.mode"] == "off"


def test_what_is_already_wrong_in_the_store_refuses_a_change_beside_it(cli_of, monkeypatch):
    poisoned = MemoryStore({"*": {"timeout_s": -1}})
    monkeypatch.setattr(session, "open_store", lambda _: poisoned)
    ended = cli_of("set", "topps", "timeout_s=1", *WHY, "--store", "x")
    assert (ended.code, poisoned.history()) == (1, [])
    assert "*:timeout_s must be a number between 0.001 and 300, not -1 (memory)" in ended.err
    assert cli_of("set", "*", "timeout_s=1", *WHY, "--store", "x").code == 0


@pytest.mark.parametrize(
    ("option", "end"),
    [
        (("--for", "30m"), 1000.0 + 1800),
        (("--for", "1h30m"), 1000.0 + 5400),
        (("--for", "0.5s"), 1001.0),
        (("--for", "2d"), 1000.0 + 172800),
        (("--until", "1970-01-01T01:00:00Z"), 3600.0),
        (("--until", "1970-01-01T02:00:00+01:00"), 3600.0),
    ],
)
def test_an_override_ends_by_itself(cli_of, store, option, end):
    ended = cli_of("set", "topps", "max_concurrent=5", *WHY, *option)
    assert (ended.code, ends(store)) == (0, {"topps:max_concurrent": end})
    assert ended.out.splitlines()[-1].startswith("ends by itself in ")


@pytest.mark.parametrize(
    ("scope", "text", "then"),
    [
        ("topps/contest-db", "timeout_s=2", ", then 0.5"),
        ("topps/contest-db", "max_concurrent=2", ""),
        ("topps/contest-db/*", "timeout_s=2", ""),
    ],
)
def test_what_was_set_for_good_comes_back_after_an_override(cli_of, store, scope, text, then):
    ended = cli_of("set", scope, text, *WHY, "--for", "30m")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[0].endswith(f"Z{then}")
    again = cli_of("set", scope, text, *WHY, "--for", "40m")  # and so it does after one that takes the place of another
    assert again.out.splitlines()[0].endswith(f"Z{then}")


def test_unset_ends_an_override_before_it_takes_away_what_was_set_for_good(cli_of, store):
    cli_of("set", "topps/contest-db", "timeout_s=2", *WHY, "--for", "30m")
    ended = cli_of("unset", "topps/contest-db", "timeout_s", *WHY)
    assert ended.out.splitlines()[0].endswith(", then 0.5 -> 0.5")
    assert "once more takes the value away" in ended.err
    ended = cli_of("unset", "topps/contest-db", "timeout_s", *WHY)
    assert (ended.out.splitlines()[0], ended.err) == ("- topps/contest-db:timeout_s  0.5", "")


def test_a_value_for_good_ends_an_override(cli_of, store):
    cli_of("set", "topps/contest-db", "timeout_s=2", *WHY, "--for", "30m")
    cli_of("set", "topps/contest-db", "timeout_s=3", *WHY)
    assert [entry for entry in store.load(None).entries if entry.name == "timeout_s"] == [
        Entry("topps/contest-db", "timeout_s", 3)
    ]


def test_nothing_is_written_where_nothing_changes(cli_of, store):
    assert cli_of("set", "topps/contest-db", "timeout_s=0.5", *WHY) == (0, "nothing to change\n", "")
    assert store.history() == []


def test_a_dry_run_checks_and_shows_and_writes_nothing(cli_of, store):
    ended = cli_of("set", "topps", "timeout_s=1", *WHY, "--dry-run")
    assert ended == (0, "+ topps:timeout_s  1\ndry run: nothing was written\n", "")
    assert cli_of("set", "topps", "timeout_s=-1", *WHY, "--dry-run").code == 1
    assert store.history() == []


def test_the_answer_as_json(cli_of, store):
    ended = cli_of("set", "topps/contest-db", "timeout_s=1", *WHY, "--json", "--for", "1m")
    assert ended.json == {
        "store": "memory",
        "version": "2",
        "written": True,
        "changes": [
            {
                "scope": "topps/contest-db",
                "name": "timeout_s",
                "value": 1,
                "until": "1970-01-01T00:17:40Z",
                "then": 0.5,
                "was": 0.5,
            }
        ],
    }
    assert cli_of("set", "topps", "timeout_s=1", *WHY, "--json", "--dry-run").json["written"] is False


def test_the_actor_is_as_said_or_a_number_where_nobody_has_a_name(cli_of, store, monkeypatch):
    cli_of("set", "topps", "timeout_s=1", *WHY, "--actor", "pager-bot")

    def nobody():
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    cli_of("set", "topps", "timeout_s=2", *WHY)
    assert [each.actor.split("@")[0][:4] for each in store.history()] == ["uid-", "page"]


def test_a_scope_of_a_service_that_no_process_here_is_gets_a_warning(cli_of, store, reporting):
    assert "warning" not in cli_of("set", "tops", "timeout_s=1", *WHY, "--dry-run").err
    reporting((1, "topps", "memory", "1", 0.0))
    assert cli_of("set", "tops/x", "timeout_s=1", *WHY, "--dry-run").err == (
        "groundfault settings: warning: no process of this host reports a service that tops/x is for\n"
    )
    for scope in ("topps/x", "top*", "*/x"):
        assert cli_of("set", scope, "timeout_s=1", *WHY, "--dry-run").err == ""


# --- asking -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("\n", 1), ("", 1), ("yessir\n", 1)]
)
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_who_sits_at_a_terminal_is_asked_and_anything_but_yes_is_no(cli_of, store, answering, answer, code, more):
    answering(answer)
    ended = cli_of("set", "topps", "timeout_s=1", *WHY, *more)
    assert (ended.code, len(store.history())) == (code, 1 - code)
    assert "write this to memory (1 change)? [y/N] " in ended.err
    assert "+ topps:timeout_s  1" in (ended.err if more else ended.out)
    assert ("not confirmed: nothing was written" in ended.err) is bool(code)


@pytest.mark.parametrize("option", ["--yes", "--dry-run"])
def test_nobody_is_asked_who_said_yes_or_writes_nothing(cli_of, store, answering, option):
    answering("n\n")
    ended = cli_of("set", "topps", "timeout_s=1", *WHY, option)
    assert (ended.code, ended.err) == (0, "")


def test_ctrl_c_at_the_question_writes_nothing(cli_of, store, answering, monkeypatch):
    answering("")

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin.readline", interrupted, raising=False)
    assert cli_of("set", "topps", "timeout_s=1", *WHY).code == 130
    assert store.history() == []


# --- conflict ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def overtaken(store, monkeypatch):
    """Let somebody else write between the look and the writing."""
    write = store.write
    write([Change("grouper", "timeout_s", 3)], reason="long ago", actor="bob@gronk", based_on="1")

    def late(changes, **rest):
        write([Change("topps", "timeout_s", 7)], reason="me first", actor="bob@gronk", based_on="2")
        return write(changes, **rest)

    monkeypatch.setattr(store, "write", late)
    return store


@pytest.mark.parametrize(
    "command",
    [("set", "topps", "timeout_s=1"), ("unset", "topps"), ("rollback", "1")],
    ids=lambda command: command[0],
)
def test_a_conflict_writes_nothing_says_what_changed_meanwhile_and_has_its_own_code(cli_of, overtaken, command):
    ended = cli_of(*command, *WHY)
    assert ended.code == 3
    assert [each.reason for each in overtaken.history()] == ["me first", "long ago"]
    assert ended.err.splitlines() == [
        "groundfault settings: memory holds version 3, not 2 any more; nothing was written",
        "groundfault settings: + topps:timeout_s  7",
        "groundfault settings: version 3  1970-01-01T00:16:40Z  bob@gronk: me first",
        "groundfault settings: look at it, then run the command again",
    ]


def test_a_store_that_goes_away_after_a_conflict_leaves_it_a_conflict(cli_of, overtaken, monkeypatch):
    def gone(_):
        raise StoreError("memory does not answer")

    monkeypatch.setattr(overtaken, "history", gone)
    ended = cli_of("set", "topps", "timeout_s=1", *WHY)
    assert ended.code == 3
    assert "what has changed cannot be shown: memory does not answer" in ended.err
