"""``groundfault hub``: what it wants before it listens, and what it says where something is missing."""

import argparse
import stat

import pytest

from groundfault.console.hub import command

TOKEN = "of-the-hosts-0123456789"  # noqa: S105  it opens nothing but this test's hub


class Stopped(Exception):  # noqa: N818  it is no error that a test stops here
    pass


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the command up to the point where it would listen; the hub's options are what comes of it."""
    for name in ("GROUNDFAULT_HUB_TOKEN", "GROUNDFAULT_CONSOLE_TOKEN", "GROUNDFAULT_HUB_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = []

    def stop(options):
        made.append(options)
        raise command.SettingsError("so far")

    def go(*arguments):
        monkeypatch.setattr("groundfault.console.hub.running.Hub", stop)
        parser = argparse.ArgumentParser()
        command.add_to(parser.add_subparsers())
        options = parser.parse_args(["hub", *arguments])
        assert options.run(options) == 1
        return made[-1] if made else None

    return go


def test_without_options_it_keeps_history_and_settings_in_a_file_of_this_users_own(run, tmp_path):
    options = run()
    place = tmp_path / "state" / "groundfault"
    assert options.database == options.settings == f"sqlite:///{place}/hub.db"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert (options.keep_s, options.token, options.password, list(options.pull)) == (7 * 86_400.0, None, None, [])


@pytest.mark.parametrize(
    ("arguments", "database", "settings"),
    [
        (["--database", "none"], None, None),
        (["--database", "none", "--settings", "redis://r/0"], None, "redis://r/0"),
        (["--database", "postgresql://db/x"], "postgresql://db/x", "postgresql://db/x"),
        (["--database", "sqlite:////x.db", "--settings", "/etc/g.toml"], "sqlite:////x.db", "/etc/g.toml"),
    ],
)
def test_history_and_settings_may_be_elsewhere_or_nowhere(run, arguments, database, settings):
    options = run(*arguments)
    assert (options.database, options.settings) == (database, settings)


def test_secrets_come_from_the_environment_and_from_files_and_addresses_from_a_file(run, monkeypatch, tmp_path):
    secret, consoles = tmp_path / "token", tmp_path / "consoles"
    secret.write_text(f"{TOKEN}\n")
    consoles.write_text("# the first rack\nhttp://ops:pw@web-1:9731/\n\nhttps://web-2/gf  # the second\n")
    monkeypatch.setenv("GROUNDFAULT_HUB_TOKEN_FILE", str(secret))
    monkeypatch.setenv("GROUNDFAULT_HUB_PASSWORD", "open")
    options = run("--database", "none", "--host", "0.0.0.0", "--pull", "http://web-0/", "--pull-file", str(consoles))  # noqa: S104  it never listens
    assert (options.token, options.password) == (TOKEN, "open")
    assert [each.name for each in options.pull] == ["web-0", "web-1:9731", "web-2"]


@pytest.mark.parametrize(
    ("environment", "arguments", "said"),
    [
        ({}, ["--host", "10.0.0.1"], "others may push to this hub: set GROUNDFAULT_HUB_TOKEN"),
        ({"GROUNDFAULT_HUB_TOKEN": TOKEN}, ["--host", "::"], "set GROUNDFAULT_HUB_PASSWORD, or say --public"),
        ({}, ["--pull", "http://ops:hunter2@web-1/"], "must hold no password"),
        ({}, ["--pull", "web-1"], "must be as http://web-1:9731/"),
        ({}, ["--pull-file", "/nowhere/at/all"], "--pull-file /nowhere/at/all cannot be read: No such file"),
        ({"GROUNDFAULT_HUB_TOKEN_FILE": "/nowhere"}, [], "GROUNDFAULT_HUB_TOKEN_FILE names /nowhere, which cannot"),
        ({"GROUNDFAULT_HUB_TOKEN_FILE": "/dev/null"}, [], "which is empty"),
        ({"XDG_STATE_HOME": "/dev/null"}, [], "name a --database, or --database none"),
    ],
)
def test_what_it_cannot_begin_with_is_one_clear_line(run, capsys, monkeypatch, environment, arguments, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run(*arguments) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert "hunter2" not in line


def test_a_missing_extra_is_one_clear_line(run, capsys, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "starlette" else object())
    assert run() is None
    assert capsys.readouterr().err == "groundfault: the hub needs starlette: pip install 'groundfault[hub]'\n"


@pytest.mark.parametrize("arguments", [["--port", "70000"], ["--keep", "0"], ["--keep", "nan"], ["--keep", "week"]])
def test_numbers_have_bounds(run, arguments, capsys):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert "must be" in capsys.readouterr().err
