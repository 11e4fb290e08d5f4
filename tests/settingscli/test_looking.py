"""`get`, `diff` and `history`: what they say of a store, to people and to programs."""

import json

import pytest

from groundfault.settings.memory import MemoryStore
from groundfault.settings.store import Change, Document, Entry, StoreError
from groundfault.settingscli import session


def write(store, *changes, reason="a reason", actor="ann@gronk"):
    return store.write(changes, reason=reason, actor=actor, based_on=store.load(None).version)


# --- get --------------------------------------------------------------------------------------------------------------


def test_get_lists_scope_name_value_and_who_set_it_when(cli_of, store, clock):
    write(store, Change("topps/contest-db", "max_concurrent", 5, clock() + 1800))
    clock.advance(90)
    assert cli_of("get") == (
        0,
        """memory, version 2

SCOPE             NAME               VALUE  EXPIRES     SINCE
*                 failure_threshold  0.4    -           -
*                 server.deadline_s  0.8    -           -
topps             failure_threshold  0.6    -           -
topps/contest-db  max_concurrent     5      in 28m 30s  version 2, ann@gronk, 1970-01-01T00:16:40Z
topps/contest-db  timeout_s          0.5    -           -

no process reports
""",
        "",
    )


@pytest.mark.parametrize(
    ("arguments", "paths"),
    [
        ((), ["*:failure_threshold", "*:server.deadline_s", "topps/contest-db:timeout_s", "topps:failure_threshold"]),
        (("topps",), ["topps/contest-db:timeout_s", "topps:failure_threshold"]),
        (("topps/contest-db",), ["topps/contest-db:timeout_s"]),
        (("*",), ["*:failure_threshold", "*:server.deadline_s"]),
        (("top",), []),
    ],
)
def test_get_lists_a_scope_and_those_below_it(cli_of, store, arguments, paths):
    shown = cli_of("get", "--json", *arguments).json["entries"]
    assert sorted(f"{each['scope']}:{each['name']}" for each in shown) == sorted(paths)


def test_get_says_that_nothing_is_set(cli_of, store, monkeypatch):
    assert "nothing is set at grouper\n" in cli_of("get", "grouper").out
    monkeypatch.setattr(session, "open_store", lambda _: MemoryStore())
    assert "nothing is set\n" in cli_of("get").out


def test_get_shows_an_override_that_has_expired_as_such(cli_of, store, clock):
    write(store, Change("topps", "timeout_s", 2, clock() + 60))
    clock.advance(120)
    assert "expired 1m ago" in cli_of("get", "topps").out
    shown = cli_of("get", "topps", "--json").json["entries"]
    assert [(each["name"], each["until"], each["expired"]) for each in shown if each["until"]] == [
        ("timeout_s", "1970-01-01T00:17:40Z", True)
    ]


def test_get_says_nobody_of_a_value_that_no_history_tells_of(cli_of, store):
    write(store, Change("topps", "timeout_s", 2))
    by_hand = Document("9", (Entry("topps", "timeout_s", 3), Entry("topps", "max_concurrent", 2)))
    store._current = by_hand
    assert [("since" in each) for each in cli_of("get", "--json").json["entries"]] == [False, False]
    store._current = Document("10", (*by_hand.entries[1:], Entry("topps", "timeout_s", 2)))
    assert [("since" in each) for each in cli_of("get", "--json").json["entries"]] == [False, True]


@pytest.mark.parametrize(
    ("place", "resolved"),
    [
        ("grouper", {"failure_threshold": (0.4, "*"), "server.deadline_s": (0.8, "*")}),
        ("topps", {"failure_threshold": (0.6, "topps"), "server.deadline_s": (0.8, "*")}),
        ("topps/contest-db", {"failure_threshold": (0.6, "topps"), "timeout_s": (0.5, "topps/contest-db")}),
        ("topps/contest-db/get_entrants", {"failure_threshold": (0.6, "topps"), "timeout_s": (9, "*/*/get_*")}),
        ("topps/contest-db/put", {"failure_threshold": (0.6, "topps"), "timeout_s": (0.5, "topps/contest-db")}),
    ],
)
def test_effective_resolves_what_is_in_force_and_names_the_scope_it_comes_from(cli_of, store, place, resolved):
    write(store, Change("*/*/get_*", "timeout_s", 9))
    shown = cli_of("get", "--effective", place, "--json").json
    assert {each["name"]: (each["value"], each["scope"]) for each in shown["entries"]} == resolved
    assert shown["effective"] == place


def test_effective_as_a_table(cli_of, store):
    said = cli_of("get", "--effective", "topps/contest-db/put").out
    assert "NAME               VALUE  FROM              EXPIRES\n" in said
    assert "timeout_s          0.5    topps/contest-db  -\n" in said


def test_effective_forgets_what_has_expired_and_says_when_nothing_is_left(cli_of, store, monkeypatch, clock):
    alone = MemoryStore()
    monkeypatch.setattr(session, "open_store", lambda _: alone)
    write(alone, Change("topps", "timeout_s", 2, clock() + 60))
    assert "in 1m" in cli_of("get", "--effective", "topps").out
    clock.advance(60)
    assert "nothing is set for topps: all is as the code declares it" in cli_of("get", "--effective", "topps").out


def test_get_says_what_processes_reject_and_what_they_do_not_know(cli_of, monkeypatch):
    poisoned = MemoryStore({"*": {"timeout_s": -1, "timout_s": 2, "server.mode": "off"}})
    monkeypatch.setattr(session, "open_store", lambda _: poisoned)
    ended = cli_of("get", "--store", "any")
    assert ended.code == 0
    assert "processes reject version 1: *:timeout_s must be a number between 0.001 and 300, not -1\n" in ended.err
    assert "*:server.mode must be 'enforce' at a scope that names nothing" in ended.err
    assert "warning: *:timout_s is no setting that this version knows\n" in ended.err


REPORTS = [(12, "topps", "memory", "1", 0.4), (11, "topps", "memory", "9", 75.0), (7, "grouper", "memory", None, None)]


def test_get_shows_which_version_each_process_runs_and_who_has_not_got_it(cli_of, store, reporting):
    reporting(*REPORTS)
    assert cli_of("get", "top").out.endswith(
        """PID  SERVICE  STORE   VERSION  CONFIRMED
7    grouper  memory  -        -           not this version
11   topps    memory  9        1m 15s ago  not this version
12   topps    memory  1        0s ago
"""
    )
    assert cli_of("get", "--json").json["processes"][0] == {
        "pid": 7,
        "service": "grouper",
        "store": "memory",
        "version": None,
        "age_s": None,
    }


def test_a_history_that_cannot_be_read_hides_nothing_else(cli_of, store, monkeypatch):
    def refused(_):
        raise StoreError("memory: the table is gone")

    monkeypatch.setattr(store, "history", refused)
    assert "topps/contest-db  timeout_s" in cli_of("get").out


def test_what_others_wrote_moves_no_cursor(cli_of, store):
    write(store, Change("topps", "mode", "\x1b[2Jgone\u202e"), reason="\x1b]0;x\x07", actor="a\nb")
    for arguments in (("get",), ("history",), ("diff", "1")):
        said = cli_of(*arguments)
        assert not set("\x1b\x07\u202e") & set(said.out + said.err)
    assert "version 2  1970-01-01T00:16:40Z  a\\nb: \\x1b]0;x\\x07\n" in cli_of("history").out


# --- diff -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def changed(store, clock):
    write(store, Change("topps/contest-db", "timeout_s", 0.8), Change("topps", "failure_threshold", None))
    write(store, Change("topps/contest-db", "max_concurrent", 5, 90061.0))
    return store


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ("1", "2"),
            ["~ topps/contest-db:timeout_s  0.5 -> 0.8", "- topps:failure_threshold  0.6"],
        ),
        (
            ("2", "1"),
            ["~ topps/contest-db:timeout_s  0.8 -> 0.5", "+ topps:failure_threshold  0.6"],
        ),
        (("2",), ["+ topps/contest-db:max_concurrent  5 until 1970-01-02T01:01:01Z"]),
        (("3",), ["no difference"]),
    ],
)
def test_diff_compares_versions(cli_of, changed, arguments, lines):
    ended = cli_of("diff", *arguments)
    assert (ended.code, sorted(ended.out.splitlines()), ended.err) == (0, sorted(lines), "")


def test_diff_of_a_file_that_no_process_would_take_is_refused(cli_of, store, tmp_path):
    file = tmp_path / "wrong.json"
    file.write_text('{"*": {"timeout_s": -1, "max_concurrent": 0}}')
    ended = cli_of("diff", str(file))
    assert (ended.code, ended.out, ended.err.count(f"settings: {file}: *:")) == (1, "", 2)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wanted.json", '{"*": {"failure_threshold": 0.4, "server": {"deadline_s": 0.9}}}'),
        ("wanted.toml", '["*"]\nfailure_threshold = 0.4\nserver.deadline_s = 0.9\n'),
    ],
)
def test_diff_of_a_file_shows_what_the_store_would_become(cli_of, store, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert cli_of("diff", str(tmp_path / name)).out.splitlines() == [
        "~ *:server.deadline_s  0.8 -> 0.9",
        "- topps:failure_threshold  0.6",
        "- topps/contest-db:timeout_s  0.5",
    ]


def test_diff_of_a_list_of_changes_shows_only_those(cli_of, store, tmp_path):
    file = tmp_path / "advice.json"
    file.write_text(json.dumps([{"scope": "topps/contest-db", "name": "timeout_s", "value": 0.7, "odd": 1}]))
    ended = cli_of("diff", str(file))
    assert ended.out == "~ topps/contest-db:timeout_s  0.5 -> 0.7\n"
    assert f'warning: {file}, change 1: "odd" means nothing here' in ended.err


def test_diff_of_two_files_needs_no_store(cli_of, tmp_path):
    (tmp_path / "a.json").write_text('{"*": {"timeout_s": 1}}')
    (tmp_path / "b.toml").write_text('["*"]\ntimeout_s = 2\n')
    ended = cli_of("diff", str(tmp_path / "a.json"), str(tmp_path / "b.toml"))
    assert ended == (0, "~ *:timeout_s  1 -> 2\n", "")


def test_what_diff_prints_as_json_apply_can_read(cli_of, changed, tmp_path):
    printed = cli_of("diff", "3", "1", "--json")
    assert printed.json[0] == {"scope": "topps", "name": "failure_threshold", "value": 0.6}
    file = tmp_path / "back.json"
    file.write_text(printed.out)
    assert cli_of("apply", str(file), "--reason", "back").code == 0
    assert cli_of("diff", "1").out == "no difference\n"


def test_what_diff_prints_as_json_says_that_nothing_comes_after_an_override(cli_of, store, tmp_path):
    wanted, changes = tmp_path / "wanted.json", tmp_path / "changes.json"
    until = "1970-01-02T01:01:01Z"
    wanted.write_text(json.dumps({"topps/contest-db": {"timeout_s": {"value": 0.8, "until": until}}}))
    changes.write_text(cli_of("diff", str(wanted), "--json").out)
    assert cli_of("apply", str(changes), "--reason", "as wanted").code == 0
    assert cli_of("diff", str(wanted)).out == "no difference\n"


# --- history ----------------------------------------------------------------------------------------------------------


def test_history_says_when_who_why_and_what_the_newest_first(cli_of, changed):
    assert cli_of("history").out == (
        """version 3  1970-01-01T00:16:40Z  ann@gronk: a reason
  + topps/contest-db:max_concurrent  5 until 1970-01-02T01:01:01Z
version 2  1970-01-01T00:16:40Z  ann@gronk: a reason
  - topps:failure_threshold  0.6
  ~ topps/contest-db:timeout_s  0.5 -> 0.8
"""
    )
    assert cli_of("history", "-n", "1").out.count("version") == 1


def test_history_as_json(cli_of, changed):
    (last, _) = cli_of("history", "--json").json
    assert last == {
        "version": "3",
        "at": "1970-01-01T00:16:40Z",
        "by": "ann@gronk",
        "reason": "a reason",
        "changes": [
            {
                "scope": "topps/contest-db",
                "name": "max_concurrent",
                "value": 5,
                "until": "1970-01-02T01:01:01Z",
                "then": None,
            }
        ],
    }


def test_history_of_nothing(cli_of, store):
    assert cli_of("history").out == "nothing has been changed yet\n"
