"""The commands over real stores: files of both kinds, SQLite and a hub; and as the program that is installed."""

import importlib.util
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import groundfault
from groundfault._clock import monotonic, wall
from groundfault.settings.memory import MemoryStore
from groundfault.settings.opening import open_store
from groundfault.settingscli import running

_spec = importlib.util.spec_from_file_location(
    "hub_served", Path(__file__).parent.parent / "integrations" / "hub_served.py"
)
hub_served = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hub_served)

WHY = ("--reason", "contest db is slow", "--actor", "ann@gronk")


@pytest.fixture(autouse=True)
def _real_time(monkeypatch):
    monkeypatch.setattr(running, "wall", wall)


@pytest.fixture(params=["json", "toml", "sqlite", "hub"])
def url(request, tmp_path, monkeypatch):
    """Return the address of a store that holds one setting."""
    path, served = tmp_path / f"gf.{request.param}", None
    address = str(path)
    if request.param == "hub":
        served = hub_served.HubServed(MemoryStore({"*": {"failure_threshold": 0.4}}))
        address = served.url
    elif request.param == "sqlite":
        pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")
        address = f"sqlite:///{path}"
    elif request.param == "toml":
        pytest.importorskip("tomlkit", reason="tomlkit is not installed")
        path.write_text('# ours\n["*"]\nfailure_threshold = 0.4  # careful\n')
    else:
        path.write_text('{"*": {"failure_threshold": 0.4}}')
    monkeypatch.setenv("GROUNDFAULT_SETTINGS", address)
    yield address
    if served is not None:
        served.close()


def held(url):
    with closing(open_store(url)) as store:
        return {f"{each.scope}:{each.name}": each.value for each in store.load(None).entries}


def test_an_incident_from_the_first_look_to_the_rollback(cli_of, url):
    if url.startswith("sqlite"):
        assert cli_of("get").code == 1
        assert cli_of("set", "*", "failure_threshold=0.4", *WHY).code == 0
    before = cli_of("get", "--json").json["version"]
    set_ = cli_of("set", "topps/contest-db", "max_concurrent=5", "mode=shadow", *WHY, "--for", "30m", "--json")
    assert set_.code == 0
    effective = cli_of("get", "--effective", "topps/contest-db/get_entrants")
    assert re.search(r"max_concurrent +5 +topps/contest-db +in (30m|29m 5\ds)\n", effective.out)
    assert held(url)["topps/contest-db:mode"] == "shadow"
    last = cli_of("history", "-n", "1", "--json").json[0]
    assert (last["by"], last["reason"], last["version"]) == ("ann@gronk", WHY[1], set_.json["version"])
    assert cli_of("unset", "*", *WHY).code == 0
    back = cli_of("rollback", before, *WHY)
    assert (back.code, held(url)) == (0, {"*:failure_threshold": 0.4})
    assert cli_of("diff", before).out == "no difference\n"
    assert len(cli_of("history", "--json").json) >= 3


def test_a_version_that_the_store_does_not_know_is_refused(cli_of, url):
    cli_of("set", "*", "timeout_s=1", *WHY)
    ended = cli_of("rollback", "no-such", *WHY)
    assert (ended.code, "no-such" in ended.err, ended.err.count("\n")) == (1, True, 1)


def test_a_wrong_value_names_the_store(cli_of, url):
    cli_of("set", "*", "timeout_s=1", *WHY)
    ended = cli_of("set", "*", "timeout_s=-1", *WHY)
    assert ended.code == 1
    assert "*:timeout_s must be a number between 0.001 and 300, not -1 (" in ended.err
    assert Path(url).name in ended.err


def test_a_comment_of_a_toml_file_outlives_a_change(cli_of, tmp_path):
    pytest.importorskip("tomlkit", reason="tomlkit is not installed")
    file = tmp_path / "gf.toml"
    file.write_text('# ours\n["*"]\nfailure_threshold = 0.4  # careful\n')
    assert cli_of("set", "*", "timeout_s=1", *WHY, "--store", str(file)).code == 0
    assert "# ours" in file.read_text()
    assert "# careful" in file.read_text()


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_a_broken_file_is_invalid_and_an_absent_one_out_of_reach(cli_of, tmp_path, suffix):
    file = tmp_path / f"gf.{suffix}"
    file.write_text("{{{")
    broken = cli_of("get", "--store", str(file))
    assert (broken.code, f"file:{file}" in broken.err, broken.err.count("\n")) == (1, True, 1)
    absent = cli_of("get", "--store", str(tmp_path / f"none.{suffix}"))
    assert (absent.code in {1, 4}, f"none.{suffix}" in absent.err, absent.err.count("\n")) == (True, True, 1)


@pytest.mark.parametrize(
    ("address", "package"),
    [
        ("redis://ann:hunter2@127.0.0.1:1/0", "redis"),
        ("postgresql+psycopg://ann:hunter2@127.0.0.1:1/x", "psycopg"),
        ("http://ann:hunter2@127.0.0.1:1", "groundfault"),
    ],
)
def test_a_server_that_is_not_there_is_said_in_a_line_without_credentials(cli_of, address, package):
    pytest.importorskip(package, reason=f"{package} is not installed")
    ended = cli_of("get", "--store", address)
    assert (ended.code, ended.out, ended.err.count("\n")) == (4, "", 1)
    assert "127.0.0.1:1" in ended.err
    assert "hunter2" not in ended.err


# --- as installed -----------------------------------------------------------------------------------------------------

SCRIPT = Path(sys.executable).parent / "groundfault"
installed = pytest.mark.skipif(not SCRIPT.exists(), reason="groundfault is not installed as a program")


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "gf.json").write_text('{"*": {"failure_threshold": 0.4}}')
    return {
        **os.environ,
        "GROUNDFAULT_SETTINGS": str(tmp_path / "gf.json"),
        "PYTHONPATH": str(Path(groundfault.__file__).parent.parent),
    }


def line_with(stream, words):
    """Return the first line that holds some words, of what a program prints within half a minute."""
    ends_at = monotonic() + 30
    text = ""
    while words not in text or not text.endswith("\n"):
        assert monotonic() < ends_at, text
        if select.select([stream], [], [], 1)[0]:
            more = os.read(stream.fileno(), 65536).decode()
            assert more, f"it has ended, after {text!r}"
            text += more
    return next(line for line in text.splitlines() if words in line)


@installed
@pytest.mark.e2e
def test_a_change_is_seen_by_who_watches_until_ctrl_c(environment):
    watch = subprocess.Popen([SCRIPT, "settings", "watch"], stdout=subprocess.PIPE, env=environment)
    try:
        assert "1 set" in line_with(watch.stdout, "version")
        done = subprocess.run(
            [SCRIPT, "settings", "set", "topps", "timeout_s=2", *WHY],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "+ topps:timeout_s  2  (ann@gronk: contest db is slow)" in line_with(watch.stdout, "topps")
        watch.send_signal(signal.SIGINT)
        assert watch.wait(30) == 130
    finally:
        watch.kill()
        watch.wait(30)
        watch.stdout.close()


@installed
@pytest.mark.e2e
def test_a_reader_that_has_gone_ends_it_without_a_word(environment):
    theirs, ours = os.pipe()
    os.close(theirs)
    try:
        done = subprocess.run(
            [SCRIPT, "settings", "get"], stdout=ours, stderr=subprocess.PIPE, env=environment, timeout=60, check=False
        )
    finally:
        os.close(ours)
    assert (done.returncode, done.stderr) == (141, b"")


@installed
@pytest.mark.e2e
def test_at_a_real_terminal_it_is_colored_and_asks(environment):
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in environment.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    process = subprocess.Popen(
        [SCRIPT, "settings", "set", "topps", "timeout_s=2", *WHY],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    try:
        with os.fdopen(ours, "r+b", buffering=0) as terminal:
            terminal.write(b"y\n")
            assert "\x1b[32m+\x1b[0m topps:timeout_s" in line_with(terminal, "topps:timeout_s")
            assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(30)
    assert json.loads(Path(environment["GROUNDFAULT_SETTINGS"]).read_text())["topps"] == {"timeout_s": 2}
