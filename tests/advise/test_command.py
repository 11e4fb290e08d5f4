"""The command line: what it prints, writes and refuses."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import groundfault
from groundfault._clock import monotonic
from groundfault.advise import command, shown
from groundfault.breaker.registry import Registry, Resource
from groundfault.breaker.settings import BreakerSettings
from groundfault.cli import main
from groundfault.logfiles import progress
from groundfault.metrics import writer


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Return a log of two commands, in which a few heavy users are slow by nature, and of another with few calls."""
    chance = random.Random(7)
    path = tmp_path_factory.mktemp("log") / "calls.log"
    lines = []
    for at in range(120_000):
        plan = "heavy" if at % 2220 == 0 else "free"
        median_s = 2.0 if plan == "heavy" else 0.1 if at % 2 else 0.02
        call = {"event": "command.done", "resource": "contest-db", "command": "entrants" if at % 2 else "scores"}
        duration_s = median_s * chance.lognormvariate(0, 0.3)
        lines.append(
            {**call, "outcome": "success", "duration_s": duration_s, "ts": 1_795_436_400 + at / 100, "plan": plan}
        )
    lines += [{**lines[0], "command": "rare"}] * 30
    path.write_text("".join(f"{json.dumps(each)}\n" for each in lines) + "garbage\n")
    return path


def advise(capsys, *arguments):
    code = main(["advise", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(params=["rich", "plain"])
def _with_and_without_rich(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(shown, "_print_rich", lambda *_: False)
        monkeypatch.setattr(progress, "_bar", lambda _: None)


@pytest.mark.usefixtures("_with_and_without_rich")
def test_a_table_cautions_and_a_diff_are_printed(capsys, log):
    code, out, err = advise(capsys, "--log", log, "--segment", "plan", "--processes", "2")
    assert (code, err) == (0, "")
    assert "contest-db/entrants" in out
    assert "minimum_volume_per_s" in out
    assert "! contest-db/scores: plan heavy (" in out
    assert "(mind heavy, above)" in out
    assert "contest-db/rare: 30 successes are too few" in out
    assert "*/contest-db/entrants\n+ timeout_s 0." in out
    assert "1 of 120,031 lines: no JSON, left out. The first: garbage" in out
    assert "--explain says why" in out


def test_reasons_and_a_distribution_are_printed_where_they_are_wanted(capsys, log):
    _, out, _ = advise(capsys, "--log", log, "--segment", "plan", "--explain")
    assert "timeout_s: 0.35. The p95 is" in out
    assert "◀ p50" in out
    assert " proposed" in out
    assert "minimum_volume_per_s: no advice. How many processes call it is not known" in out
    assert "plan heavy: 0.092 % of the calls, p95" in out


def test_one_command_may_be_asked_for_and_tells_everything(capsys, log):
    _, out, _ = advise(capsys, "--log", log, "--only", "*/scores")
    assert "contest-db/entrants" not in out
    assert "The p95 is" in out
    code, out, err = advise(capsys, "--log", log, "--only", "mail/*")
    assert (code, out) == (1, "")
    assert "no command is called mail/*; there are contest-db/entrants, contest-db/rare, contest-db/scores" in err


def test_the_diff_is_a_list_of_entries_that_are_valid_settings(capsys, log, tmp_path):
    path = tmp_path / "diff.json"
    _, out, _ = advise(capsys, "--log", log, "--processes", "2", "--service", "topps", "--diff", path)
    held = json.loads(path.read_text())
    assert {entry["scope"] for entry in held} == {"topps/contest-db/entrants", "topps/contest-db/scores"}
    assert f"{len(held)} changes are in {path}; to apply them: groundfault settings apply {path} --reason" in out
    for scope in {entry["scope"] for entry in held}:
        BreakerSettings.of({entry["name"]: entry["value"] for entry in held if entry["scope"] == scope})
    assert all(set(entry) == {"scope", "name", "value"} for entry in held)
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written


CURRENT_JSON = {
    "*": {"timeout_s": 9.0},
    "*/contest-db": {"timeout_s": {"value": 5.0, "until": "2030-01-01T00:00:00Z"}, "failure_threshold": 0.4},
    "*/*/entrants": {"timeout_s": 0.35},
    "other": {"timeout_s": 1.0},
}
CURRENT_TOML = '["*"]\ntimeout_s = 9.0\n["*/contest-db"]\ntimeout_s = 5.0\n["*/contest-db/entr*"]\ntimeout_s = 0.35\n'
CURRENT_LIST = [
    {"scope": "*/contest-db/scores", "name": "timeout_s", "value": 5.0},
    {"scope": "*/contest-db/entrants", "name": "timeout_s", "value": 0.35},
]


@pytest.mark.parametrize(
    ("name", "text"),
    [("s.json", json.dumps(CURRENT_JSON)), ("s.toml", CURRENT_TOML), ("s.json", json.dumps(CURRENT_LIST))],
    ids=["json", "toml", "diff"],
)
def test_the_proposal_is_compared_with_the_settings_in_force(capsys, log, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    _, out, _ = advise(capsys, "--log", log, "--current", tmp_path / name)
    assert "*/contest-db/scores\n- timeout_s 5\n+ timeout_s 0." in out
    assert "*/contest-db/entrants" not in out.partition("diff")[2]
    assert "0.35 ok" in out


def test_applying_what_is_advised_leaves_nothing_to_advise(capsys, log, tmp_path):
    path = tmp_path / "diff.json"
    advise(capsys, "--log", log, "--processes", "2", "--diff", path)
    _, out, _ = advise(capsys, "--log", log, "--processes", "2", "--current", path, "--diff", path)
    assert "Nothing needs to be changed." in out
    assert json.loads(path.read_text()) == []


def test_json_holds_everything(capsys, log):
    code, out, _ = advise(capsys, "--log", log, "--segment", "plan", "--processes", "2", "--json")
    held = json.loads(out)
    assert code == 0
    assert set(held) == {"commands", "diff", "notes", "hint"}
    entrants = next(each for each in held["commands"] if each["command"] == "entrants")
    assert entrants["successes"]["count"] == 60_000
    assert entrants["segments"][0]["name"] == "free"
    assert {each["name"] for each in entrants["advice"]} >= {"timeout_s", "minimum_volume_per_s", "max_concurrent"}
    assert all(each["why"] for each in entrants["advice"])
    assert [entry for entry in held["diff"] if entry["name"] == "timeout_s"]


def test_a_name_that_no_command_can_have_stays_out_of_the_diff(capsys, tmp_path, line):
    path = tmp_path / "foreign.log"
    path.write_bytes(b"\n".join([line(resource="GET /users/*")] * 2_000))
    code, out, _ = advise(capsys, "--log", path, "--diff", tmp_path / "diff.json")
    assert code == 0
    assert "That is no name that a command can have" in out
    assert "Nothing needs to be changed." in out
    assert json.loads((tmp_path / "diff.json").read_text()) == []


@pytest.mark.parametrize("target", ["picture.svg", "picture.png", "pictures"])
def test_plots_are_drawn_into_a_file_or_a_directory(capsys, log, tmp_path, target):
    place = tmp_path / target
    _, out, _ = advise(capsys, "--log", log, "--segment", "plan", "--plot", place)
    assert f"in {place}" in out
    if place.suffix == ".png":
        assert place.read_bytes().startswith(b"\x89PNG")
        return
    if not place.suffix:
        assert {path.name for path in place.iterdir()} == {
            f"contest-db.{name}.svg" for name in ("entrants", "rare", "scores")
        }
        place /= "contest-db.scores.svg"
    tree = ET.parse(place)  # noqa: S314  drawn here
    text = {"".join(element.itertext()) for element in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert {"p50", "p95", "p99", "contest-db/scores"} <= text
    assert any("proposed, cuts off" in each for each in text)
    assert any(each.startswith("plan heavy (") for each in text)


def test_a_plot_is_small_and_the_same_each_time(capsys, log, tmp_path):
    paths = [tmp_path / "1.svg", tmp_path / "2.svg"]
    for path in paths:
        advise(capsys, "--log", log, "--segment", "plan", "--only", "*/scores", "--plot", path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert len(first) < 60_000


def test_nothing_to_draw_is_no_error(capsys, tmp_path, line):
    path = tmp_path / "failing.log"
    path.write_bytes(b"\n".join([line(outcome="failure")] * 100))
    code, out, _ = advise(capsys, "--log", path, "--explain", "--plot", tmp_path / "plot.svg")
    assert code == 0
    assert "0 successes are too few" in out
    assert not (tmp_path / "plot.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--log", "{tmp}/none.log"], "none.log cannot be read: No such file"),
        (["--log", "{log}", "--fields", "x=y"], "--fields: 'x' is no field of ours"),
        (
            ["--log", "{log}", "--fields", "duration_s=nowhere"],
            "no call of a command was found; a line should look like",
        ),
        (["--log", "{log}", "--current", "{tmp}/none.json"], "none.json cannot be read"),
        (["--log", "{log}", "--current", "{log}"], "cannot be read"),
        (["--log", "{log}", "--diff", "{tmp}/none/diff.json"], "cannot be written: No such file"),
        (["--log", "{log}", "--plot", "{tmp}/none/plot.svg"], "cannot be written: No such file"),
        (["--segment", "plan", "--run-dir", "{tmp}"], "--segment needs --log"),
        (["--run-dir", "{tmp}", "--over", "2d"], "an hour is long enough"),
        (["--prometheus", "nowhere:1"], "is no address of a Prometheus"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(capsys, log, tmp_path, arguments, words):
    code, out, err = advise(capsys, *(each.format(log=log, tmp=tmp_path) for each in arguments))
    assert (code, out) == (1, "")
    assert words in err.splitlines()[-1]
    assert err.startswith("groundfault: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--over", "soon"], "--over: must be a time such as 10s"),
        (["--over", "0s"], "--over: must be a time such as 10s"),
        (["--processes", "0"], "--processes: must be a whole number from 1 to 100000"),
        (["--processes", "²"], "--processes: must be a whole number"),
        (["--may-cut", "6%"], "--may-cut: must be a share from 0.001% to 5%"),
        (["--may-cut", "nan"], "--may-cut: must be a share"),
        (["--peak-factor", "0"], "--peak-factor: must be a number from 0.1 to 100"),
        (["--log", "a", "--prometheus", "b"], "not allowed with argument"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(capsys, arguments, words):
    with pytest.raises(SystemExit) as stopped:
        main(["advise", *arguments])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"), [("10s", 10.0), ("1.5h", 5400.0), ("250ms", 0.25), ("90", 90.0), ("1d", 86400.0)]
)
def test_times_have_units(text, value):
    assert command._duration(text) == value


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), ("0.001", 0.001), ("0.1%", 0.001)])
def test_shares_may_be_percentages(text, value):
    assert command._share(text) == pytest.approx(value)


def test_a_terminal_without_block_characters_gets_number_signs(monkeypatch, log):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["advise", "--log", str(log), "--explain"]) == 0
    out.flush()
    text = out.buffer.getvalue().decode("ascii")
    assert "####" in text
    assert "< p50" in text
    assert "-> 0.35" in text


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(clock):
    out = io.StringIO()
    with progress.Progress(file=out, clock=clock) as told:
        told.begin(1_000_000)
        for _ in range(4):
            clock.advance(3.0)
            told.advance(100_000, 600, 500)
    assert out.getvalue().splitlines() == [
        "read 20% of 1 MB: 600 lines, 500 calls, 100 lines/s, 24 s left",
        "read 40% of 1 MB: 600 lines, 500 calls, 50 lines/s, 18 s left",
    ]


def test_progress_is_a_bar_on_a_terminal(clock):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    with progress.Progress(file=out, clock=clock) as told:
        told.begin(1_000_000)
        told.advance(500_000, 600, 500)
        told._bar.refresh()
    assert "600 lines, 500 calls" in out.getvalue()


def run(*arguments, stdin=b"", **environment):
    return subprocess.run(
        [sys.executable, "-m", "groundfault", "advise", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.e2e
def test_standard_input_is_read_without_the_extra(log, tmp_path):
    finder = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name in {"msgspec", "rich", "matplotlib"} else find(name, *rest)
"""
    (tmp_path / "sitecustomize.py").write_text(finder)
    root = Path(groundfault.__file__).parent.parent
    result = run("--log", "-", "--plot", tmp_path, stdin=log.read_bytes(), PYTHONPATH=f"{tmp_path}{os.pathsep}{root}")
    assert result.returncode == 1
    assert result.stderr.decode() == "groundfault: plots need matplotlib: pip install 'groundfault[advise]'\n"
    result = run("--log", "-", stdin=log.read_bytes(), PYTHONPATH=f"{tmp_path}{os.pathsep}{root}")
    assert result.returncode == 0
    assert "+ timeout_s 0.35" in result.stdout.decode()


@pytest.mark.parametrize(("name", "code"), [("-", 1), ("{log}", 0)])
def test_where_standard_input_is_closed_it_is_not_needed(capsys, log, monkeypatch, name, code):
    monkeypatch.setattr(sys, "stdin", None)
    ended, _, err = advise(capsys, "--log", name.format(log=log))
    assert ended == code
    assert err == ("groundfault: standard input is closed; give a file, or pipe a log into it\n" if code else "")


@pytest.mark.e2e
def test_ctrl_c_ends_it_and_all_of_its_processes(tmp_path):
    fifo = tmp_path / "endless"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "groundfault", "advise", "--jobs", "2", "--log", fifo],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    call = b'{"resource": "a", "command": "b", "outcome": "success", "duration_s": 0.1}\n'
    with fifo.open("wb", buffering=0) as pipe:
        for _ in range(12):  # past the first 32 MB, which it counts by itself
            pipe.write(call * (4 * 2**20 // len(call)))
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == b""
    assert err.decode().splitlines()[-1] == "groundfault: stopped; nothing is left running"
    assert b"Traceback" not in err
    until = monotonic() + 20
    while is_group(process.pid):
        assert monotonic() < until
        time.sleep(0.05)


def is_group(number):
    """Return whether any process is left in a group."""
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_reports_of_running_processes_are_read(capsys, tmp_path, monkeypatch):

    registry = Registry()
    entrants = Resource("contest-db", registry=registry).command("entrants", max_concurrent=7)
    for _ in range(1_200):
        entrants.call(lambda: None)
    monkeypatch.setattr(writer, "all_registries", lambda: [registry])  # other tests' may still be there
    reporter = writer.Writer(tmp_path)
    reporter.write()
    code, out, err = advise(capsys, "--run-dir", tmp_path)
    assert (code, err) == (0, "")
    assert "contest-db/entrants, 1,200 successes" in out
    assert "+ timeout_s 0.01" in out
    assert "--over 60s" in out
