"""How commands end when something is wrong: one line, the right code, no traceback, no credentials."""

import argparse

import pytest

from groundfault import cli
from groundfault.settings.store import NOTHING_YET, Change, Document, MalformedError, NothingStoredError, StoreError
from groundfault.settingscli import running, session
from groundfault.settingscli.arguments import add_to
from groundfault.settingscli.ending import without_credentials
from groundfault.settingscli.moments import duration, moment, span, stamp

WHY = ("--reason", "r")
READING = [("get",), ("diff", "1"), ("history",)]
WRITING = [("set", "topps", "timeout_s=1", *WHY), ("unset", "topps", *WHY), ("rollback", "1", *WHY)]

each_command = pytest.mark.parametrize("command", READING + WRITING, ids=lambda command: command[0])


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "the following arguments are required: action"),
        (("gte",), "invalid choice: 'gte'"),
        (("set", "*", "a=1"), "the following arguments are required: --reason"),
        (("unset", "*"), "the following arguments are required: --reason"),
        (("apply", "-"), "the following arguments are required: --reason"),
        (("rollback", "1"), "the following arguments are required: --reason"),
        (("rollback", *WHY), "the following arguments are required: VERSION"),
        (("set", "*", "a=1", "--reason", " \t\n"), "--reason: must be a text of 1 to 500 characters, not 0"),
        (("set", "*", "a=1", "--reason", "x" * 501), "--reason: must be a text of 1 to 500 characters, not 501"),
        (("set", "*", "a=1", *WHY, "--actor", ""), "--actor: must be a text of 1 to 200 characters, not 0"),
        (("set", "*", *WHY), "the following arguments are required: NAME=VALUE"),
        (("set", "*", "timeout_s", *WHY), "NAME=VALUE: must be NAME=VALUE, not 'timeout_s'"),
        (("set", "*", "=1", *WHY), "NAME=VALUE: must be NAME=VALUE, not '=1'"),
        (("set", "*", "timeout_s=null", *WHY), "timeout_s cannot be set to null; `unset` returns to what the code"),
        (("set", "*", "a=1", *WHY, "--for", "30"), "--for: must be above 0 and at most 366d, such as 90s, 30m"),
        (("set", "*", "a=1", *WHY, "--for", "0m"), "--for: must be above 0 and at most 366d"),
        (("set", "*", "a=1", *WHY, "--for", "367d"), "--for: must be above 0 and at most 366d"),
        (("set", "*", "a=1", *WHY, "--until", "20:00"), "--until: must be a time with its offset"),
        (("set", "*", "a=1", *WHY, "--until", "2026-11-23T20:00:00"), "--until: must be a time with its offset"),
        (("set", "*", "a=1", *WHY, "--for", "1m", "--until", "2026-11-23T20:00:00Z"), "not allowed with argument"),
        (("history", "-n", "0"), "-n: must be a whole number from 1 to 1000, not '0'"),
        (("history", "-n", "many"), "-n: must be a whole number from 1 to 1000, not 'many'"),
        (("get", "--effective", "a/b/c/d"), "must be SERVICE[/RESOURCE[/COMMAND]] without wildcards, not 'a/b/c/d'"),
        (("get", "--effective", "*/x"), "without wildcards, not '*/x'"),
        (("get", "--effective", "a//b"), "without wildcards, not 'a//b'"),
        (("get", "*", "--effective", "a"), "give one of them"),
        (("get", "--eff", "a"), "unrecognized arguments: --eff"),
        (("set", "*", "a=1", "a=2", *WHY), "a must be said once, not twice"),
        (("diff",), "the following arguments are required: A"),
        (("validate",), "the following arguments are required: FILE"),
        (("validate", "--store", "x", "f"), "unrecognized arguments: --store"),
    ],
)
def test_a_command_line_that_makes_no_sense(cli_of, store, arguments, words):
    ended = cli_of(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
    assert ended.err.count("\n") == 1


@each_command
def test_without_a_store_nothing_can_be_done(cli_of, command):
    assert cli_of(*command) == (
        *(2, ""),
        "groundfault settings: say which store: --store URL, or GROUNDFAULT_SETTINGS=URL\n",
    )


def test_the_option_wins_over_the_environment(cli_of, store, monkeypatch):
    asked = []
    monkeypatch.setattr(session, "open_store", lambda url: asked.append(url) or store)
    cli_of("get")
    cli_of("get", "--store", "other")
    assert asked == ["memory://", "other"]


# --- stores in trouble ------------------------------------------------------------------------------------------------


@each_command
def test_a_store_that_does_not_answer_has_its_own_code(cli_of, store, command):
    store.error = StoreError("redis h:6379 does not answer: timed out")
    assert cli_of(*command) == (4, "", "groundfault settings: redis h:6379 does not answer: timed out\n")


def test_a_store_that_fails_only_at_the_writing(cli_of, store, monkeypatch):
    def refused(*_, **__):
        raise StoreError("file /etc/gf.toml cannot be written: Read-only file system")

    monkeypatch.setattr(store, "write", refused)
    ended = cli_of("set", "topps", "timeout_s=1", *WHY)
    assert (ended.code, ended.err) == (
        4,
        "groundfault settings: file /etc/gf.toml cannot be written: Read-only file system\n",
    )


@pytest.mark.parametrize("command", [("get",), ("diff", "1"), ("set", "topps", "timeout_s=1", *WHY)])
def test_a_store_that_holds_no_document_is_not_out_of_reach(cli_of, store, command, monkeypatch):
    def poisoned(_):
        raise MalformedError("memory holds no JSON", "7")

    monkeypatch.setattr(store, "load", poisoned)
    assert cli_of(*command) == (1, "", "groundfault settings: memory holds no JSON\n")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        *((("get",), 1), (("unset", "topps", *WHY), 1), (("rollback", "1", *WHY), 1)),
        (("set", "topps", "timeout_s=1", *WHY), 0),
    ],
)
def test_a_store_that_holds_nothing_yet_is_begun_by_setting_something(cli_of, store, command, code, monkeypatch):
    written = []

    def nothing(_):
        raise NothingStoredError("there are no keys")

    monkeypatch.setattr(store, "load", nothing)
    monkeypatch.setattr(store, "write", lambda changes, **how: written.append((*changes, how["based_on"])) or "1")
    ended = cli_of(*command)
    assert (ended.code, "there are no keys" in ended.err) == (code, True)
    assert written == ([] if code else [(Change("topps", "timeout_s", 1), NOTHING_YET)])


class ReadOnly:
    name = "elsewhere"

    def load(self, known):
        return Document("5")

    def wait(self, timeout_s):
        """Wait for nothing."""

    def close(self):
        """Hold nothing."""


@each_command
def test_a_store_that_can_only_be_read_is_read(cli_of, command, monkeypatch):
    monkeypatch.setattr(session, "open_store", lambda _: ReadOnly())
    ended = cli_of(*command, "--store", "x")
    if command[0] == "get":
        assert (ended.code, ended.out.splitlines()[0]) == (0, "elsewhere, version 5")
    elif command[0] == "unset":
        assert (ended.code, ended.err) == (1, 'groundfault settings: nothing is set at "topps"\n')
    else:
        words = "elsewhere can be read only: it takes no changes and keeps no history"
        assert (ended.code, ended.err) == (1, f"groundfault settings: {words}\n")


def test_a_store_that_hands_over_nothing_is_in_trouble(cli_of, store, monkeypatch):
    monkeypatch.setattr(store, "load", lambda _: None)
    assert cli_of("get") == (4, "", "groundfault settings: memory handed over no document\n")


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("", 2, "say which store"),
        (" ", 1, "the address of a settings store must be a path or an URL, not empty"),
        ("redis:host", 1, "the address of a settings store must be a path or begin with redis://"),
        ("nosuchdb://u:hunter2@h/d", None, "nosuchdb"),
    ],
)
def test_what_is_no_address_of_a_store(cli_of, monkeypatch, url, code, words):
    monkeypatch.setenv("GROUNDFAULT_SETTINGS", url)
    ended = cli_of("get")
    assert ended.code == code if code is not None else ended.code in {1, 4}
    assert words in ended.err or code is None
    assert "hunter2" not in ended.err
    assert ended.err.count("\n") == 1


def test_a_library_that_is_missing_is_named(cli_of, monkeypatch):
    def missing(_):
        raise ImportError("redis is not installed: pip install 'groundfault[redis]'")

    monkeypatch.setattr(session, "open_store", missing)
    ended = cli_of("get", "--store", "redis://h")
    assert (ended.code, "pip install 'groundfault[redis]'" in ended.err) == (4, True)


@each_command
@pytest.mark.parametrize("kind", [RuntimeError, OSError, TypeError])
def test_even_an_error_that_nobody_foresaw_is_one_line_without_credentials(cli_of, monkeypatch, command, kind):
    def broken(url):
        raise kind(f"driver: cannot use {url} nor postgresql://eve:other@db2/x?password=third&user=eve")

    monkeypatch.setattr(session, "open_store", broken)
    ended = cli_of(*command, "--store", "redis://ann:hunter2@h:1/0")
    assert ended.code == 1
    assert f"unexpected {kind.__name__}: driver: cannot use redis://***@h:1/0" in ended.err
    assert not any(secret in ended.err for secret in ("hunter2", "other", "third", "Traceback"))
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "url", "left"),
    [
        ("bad password hunter2", "redis://:hunter2@h", "bad password ***"),
        ("bad password a/b c", "redis://:a%2Fb%20c@h", "bad password ***"),
        ("see redis://u:p@h:1 and http://h/x@y", None, "see redis://***@h:1 and http://h/x@y"),
        ("dsn host=h password=abc user=u", None, "dsn host=h password=*** user=u"),
        ("id is 1", "redis://:i@h", "id is 1"),
        ("plain", "redis://[bad", "plain"),
    ],
)
def test_messages_lose_what_they_hold_of_credentials(text, url, left):
    assert without_credentials(text, url) == left


# --- the world outside ------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_with_130_and_closes_the_store(cli_of, store, monkeypatch):
    closed = []

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "load", interrupted)
    monkeypatch.setattr(store, "close", lambda: closed.append(True))
    assert cli_of("get") == (130, "", "groundfault settings: stopped\n")
    assert closed == [True]


def test_a_reader_that_has_had_enough_is_no_error(cli_of, store, monkeypatch):
    def closed(*_):
        raise BrokenPipeError

    monkeypatch.setattr(running.Terminal, "say", closed)
    assert cli_of("get") == (141, "", "")


def test_streams_that_were_closed_before_it_began_change_nothing(store, monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", None)
    assert cli.main(["settings", "get"]) == 0
    assert cli.main(["settings", "unset", "grouper", "--reason", "r"]) == 1
    assert cli.main(["settings", "set", "topps", "timeout_s=2", "--reason", "r"]) == 0
    assert "topps:timeout_s" in {f"{each.scope}:{each.name}" for each in store.load(None).entries}


def test_who_cannot_be_asked_has_not_confirmed(store, answering, monkeypatch):
    answering("y\n")
    monkeypatch.setattr("sys.stderr", None)
    assert cli.main(["settings", "set", "topps", "timeout_s=2", "--reason", "r"]) == 1
    assert store.history() == []


@pytest.mark.parametrize(
    ("environment", "painted"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colors_only_on_a_terminal_that_wants_them(cli_of, store, monkeypatch, capsys, environment, painted):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command = ("set", "topps", "timeout_s=1", "failure_threshold=1", *WHY, "--dry-run")
    assert "\x1b" not in cli_of(*command).out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    said = cli_of(*command).out
    assert ("\x1b[32m+\x1b[0m topps:timeout_s  \x1b[32m1\x1b[0m" in said) is painted
    assert ("\x1b[31m0.6\x1b[0m -> \x1b[32m1\x1b[0m" in said) is painted
    assert ("\x1b" in said) is painted


def test_reports_of_processes_are_handed_in_where_the_command_is_added():
    parser = argparse.ArgumentParser()
    add_to(parser.add_subparsers(), reports=lambda: [(1, "topps", "file", "a", 0.0)])
    options = parser.parse_args(["settings", "get", "--store", "x"])
    (reports,) = options.run.args
    assert list(reports()) == [(1, "topps", "file", "a", 0.0)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0s"), (-5, "0s"), (59.4, "59s"), (60, "1m"), (61, "1m 1s"), (3600, "1h"), (3661, "1h 1m")),
        *((86399.7, "1d"), (90000, "1d 1h"), (86401, "1d")),
    ],
)
def test_spans_of_time_are_said_in_two_units(seconds, text):
    assert span(seconds) == text


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5h", 5400), ("1d12h", 129600)])
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1", "1w", "-1m", "1m ", "1 m", "nan", "infs", "9" * 400 + "s"])
def test_what_is_no_duration(text):
    with pytest.raises(argparse.ArgumentTypeError, match="such as 90s, 30m"):
        duration(text)


def test_moments():
    assert moment("2026-11-23T20:00:00Z") == moment("2026-11-23T21:00:00+01:00")
    assert stamp(moment("2026-11-23T20:00:00Z")) == "2026-11-23T20:00:00Z"
    assert stamp(1e300) == "1e+300"
