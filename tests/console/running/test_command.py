"""``groundfault status`` as far as it runs in the test's own process."""

import json
import socket
import sys
from types import SimpleNamespace

import pytest

from groundfault import SettingsError, cli
from groundfault.console.assembling import steering_of


def test_once_prints_the_view(directory, capfdbinary):
    assert cli.main(["status", "--once", "--run-dir", str(directory)]) == 0
    assert json.loads(capfdbinary.readouterr().out)["commands"] == [{"seen": 1, "calls": 3}]


def test_the_environment_names_the_directory(directory, monkeypatch, capfdbinary):
    monkeypatch.setenv("GROUNDFAULT_RUN_DIR", str(directory))
    assert cli.main(["status", "--once"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["title"] == "run"


def test_once_says_what_it_does_not_know(tmp_path, capfdbinary):
    assert cli.main(["status", "--once", "--run-dir", str(tmp_path / "missing")]) == 0
    assert "cannot be read" in json.loads(capfdbinary.readouterr().out)["unknown"][0]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--host", "0.0.0.0"], "say --public if everybody"),  # noqa: S104  it is refused
        (["--token-file", "/nowhere/token"], "No such file"),
        (["--allow-host", "a b"], "hosts must hold names"),
        (["--unix", "/" + "x" * 200], "at most 100 bytes"),
        (["--run-dir", "/nowhere/shop", "--unix", "/nowhere/socket"], "/nowhere/shop is no directory yet"),
        (["--unix", "/nowhere/socket"], "cannot listen on unix:/nowhere/socket: No such file"),
    ],
)
def test_nonsense_is_said_to_be(directory, more, said, capsys):
    assert cli.main(["status", "--run-dir", str(directory), "--port", "0", *more]) == 1
    assert said in capsys.readouterr().err


def fail(address):
    raise SettingsError(f"the address of a settings store must be a path or an URL, not {address}")


def test_a_store_that_is_none_is_said_to_be(directory, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "groundfault.console.steering", SimpleNamespace(Steering=fail))
    assert cli.main(["status", "--run-dir", str(directory), "--settings", "x:y"]) == 1
    assert "must be a path or an URL, not x:y" in capsys.readouterr().err


def test_the_environment_names_the_store_and_a_missing_library_takes_the_steering_alone(monkeypatch, caplog):
    def missing(address):
        raise ImportError(f"{address} needs groundfault[sqlalchemy]")

    monkeypatch.setenv("GROUNDFAULT_SETTINGS", "sqlite:///settings.db")
    monkeypatch.setitem(sys.modules, "groundfault.console.steering", SimpleNamespace(Steering=lambda url: url))
    assert steering_of(None) == "sqlite:///settings.db"
    monkeypatch.setitem(sys.modules, "groundfault.console.steering", SimpleNamespace(Steering=missing))
    assert steering_of(None) is None
    assert "live settings are not shown: sqlite:///settings.db needs groundfault[sqlalchemy]" in caplog.text
    assert "Traceback" not in caplog.text
    assert steering_of("") is None


def test_a_token_that_can_be_guessed_is_refused_and_not_shown(directory, tmp_path, capsys):
    (tmp_path / "token").write_text("guessable")
    assert cli.main(["status", "--run-dir", str(directory), "--token-file", str(tmp_path / "token")]) == 1
    said = capsys.readouterr().err
    assert "must be at least 16" in said
    assert "guessable" not in said


def test_without_a_directory_it_says_so(capsys):
    assert cli.main(["status"]) == 1
    assert "name the run directory: --run-dir DIR, or GROUNDFAULT_RUN_DIR" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said_to_be(directory, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["status", "--run-dir", str(directory), "--port", port]) == 1
    assert f"cannot listen on http://127.0.0.1:{port}/: another process has it" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["-1", "65536", "http", "٣"])
def test_a_port_that_is_none_is_refused(port, capsys):
    with pytest.raises(SystemExit):
        cli.main(["status", "--port", port])
    assert "must be a number from 0 to 65535" in capsys.readouterr().err
