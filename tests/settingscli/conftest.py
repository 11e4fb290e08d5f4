"""The command line over a store in memory, at a time that stands still until it is moved."""

import io
import json
from typing import NamedTuple

import pytest

from groundfault import cli
from groundfault.settings.memory import MemoryStore
from groundfault.settingscli import running, session

SETTINGS = {
    "*": {"failure_threshold": 0.4, "server.deadline_s": 0.8},
    "topps": {"failure_threshold": 0.6},
    "topps/contest-db": {"timeout_s": 0.5},
}


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch):
    for name in ("GROUNDFAULT_SETTINGS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdin", io.StringIO())


@pytest.fixture(autouse=True)
def _standing_clock(monkeypatch, clock):
    monkeypatch.setattr(running, "wall", clock)


@pytest.fixture
def store(monkeypatch, clock):
    """Return the store that every address leads to."""
    found = MemoryStore(SETTINGS, clock=clock)
    monkeypatch.setattr(session, "open_store", lambda _: found)
    monkeypatch.setenv("GROUNDFAULT_SETTINGS", "memory://")
    return found


@pytest.fixture
def cli_of(capsys):
    """Run a command line in this process."""

    def run(*arguments, main=cli.main):
        capsys.readouterr()
        try:
            code = main(["settings", *arguments])
        except SystemExit as ended:
            code = ended.code
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def answering(monkeypatch):
    """Let somebody sit at the terminal and answer."""

    def answer(text):
        monkeypatch.setattr("sys.stdin", Terminal(text))

    return answer


@pytest.fixture
def reporting(monkeypatch):
    """Let processes of this host report what they run, as the reader of their reports would hand it over."""

    def report(*reports):
        run = running.run
        monkeypatch.setattr(running, "run", lambda options, _: run(options, lambda: reports))

    return report
