import argparse
import io
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from groundfault.console import top_command

DRIVE = """
import argparse, sys
from groundfault.console import top_command
parser = argparse.ArgumentParser(prog="groundfault")
top_command.add_to(parser.add_subparsers())
options = parser.parse_args(sys.argv[1:])
sys.exit(options.run(options))
"""


@pytest.fixture
def top(monkeypatch):
    """Return what runs the command in this process."""
    for name in ("GROUNDFAULT_RUN_DIR", "NO_COLOR", "COLUMNS", "LC_ALL", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(top_command.time, "sleep", lambda _: None)

    def run(*arguments: str) -> int:
        parser = argparse.ArgumentParser(prog="groundfault")
        top_command.add_to(parser.add_subparsers())
        options = parser.parse_args(["top", *arguments])
        return options.run(options)

    return run


def with_level(view, level):
    return {**view, "headline": {**view["headline"], "level": level}}


@pytest.mark.parametrize(
    ("level", "fail_on", "code"),
    [
        ("ok", None, 0),
        ("bad", None, 0),
        ("ok", "bad", 0),
        ("warn", "bad", 0),
        ("bad", "bad", 3),
        ("ok", "warn", 0),
        ("warn", "warn", 4),
        ("bad", "warn", 3),
    ],
)
@pytest.mark.parametrize("form", [["--json"], []])
def test_a_script_learns_the_level_by_the_exit_code(top, console, sample, level, fail_on, code, form, capsys):
    console.says(with_level(sample(2), level))
    wanted = ["--fail-on", fail_on] if fail_on else []
    assert top("--url", console.url, "--once", *form, *wanted) == code
    assert capsys.readouterr().out


def test_json_is_exactly_the_view(top, console, sample, capsys):
    view = sample(3)
    console.says(view)
    assert top("--url", console.url, "--once", "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == view
    assert shown.err == ""


def test_without_a_terminal_it_prints_one_picture(top, console, sample, capsys):
    console.says(sample(40, spike=True))
    assert top("--url", console.url) == 0
    out = capsys.readouterr().out
    assert "OPEN 3/8" in out
    assert out.count("get_") == 40
    assert "\x1b" not in out


def test_a_picture_can_be_sorted_filtered_narrow_and_ascii(top, console, sample, capsys, monkeypatch):
    console.says(sample(40, spike=True))
    monkeypatch.setenv("COLUMNS", "60")
    assert top("--url", console.url, "--once", "--ascii", "--filter", "saber wallet", "--sort", "name") == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert max(len(line) for line in out.splitlines()) <= 60
    names = [line.split("get_")[1][:3] for line in out.splitlines() if "get_" in line]
    assert names == sorted(names)
    assert len(names) == 2


def test_nothing_to_read_ends_with_one_and_a_line(top, tmp_path, capsys):
    assert top("--once") == 1
    assert "say where to look" in capsys.readouterr().err
    assert top("--once", "--json", "--run-dir", str(tmp_path / "gone")) == 1
    assert "it is none" in capsys.readouterr().err
    assert top("--once", "--url", f"unix:{tmp_path}/none") == 1
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--json", "--fail-on", "bad"], ["--url", "ftp://x"], ["--url", "http://x", "--run-dir", "y"], ["--sort", "luck"]],
)
def test_what_makes_no_sense_is_refused(top, arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        top(*arguments)
    assert raised.value.code == 2


def test_without_rich_it_says_what_to_install_and_json_still_works(top, console, sample, capsys, monkeypatch):
    console.says(sample(1))
    monkeypatch.setattr(top_command, "find_spec", lambda name: None)
    assert top("--url", console.url, "--once") == 1
    assert "pip install 'groundfault[top]'" in capsys.readouterr().err
    assert top("--url", console.url, "--once", "--json") == 0


def test_json_alone_is_a_line_for_each_look_and_says_a_failure_once(top, console, sample, capsys, monkeypatch):
    view = sample(1)
    console.says(view)
    rest = itertools.count()

    def sleep(_):
        number = next(rest)
        if number == 1:
            console.answer = lambda handler: console.send(handler, b"down", 503)
        elif number == 3:
            console.says(view)
        elif number == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(top_command.time, "sleep", sleep)
    assert top("--url", console.url, "--json") == 130
    shown = capsys.readouterr()
    assert [json.loads(line) for line in shown.out.splitlines()] == [view] * 3
    assert shown.err.count("503") == 1


def test_a_stream_whose_first_look_fails_ends_with_one(top, tmp_path, capsys):
    assert top("--url", f"unix:{tmp_path}/none", "--json") == 1


def test_a_run_directory_is_looked_at_twice(top, sample, capsys, monkeypatch):
    class Twice:
        looks = 2
        looked = 0

        def look(self):
            self.looked += 1
            view = {**sample(1), "sequence": self.looked}
            return top_command.sources.Looked(view, view, 0.0)

    monkeypatch.setattr(top_command.sources, "source_of", lambda url, directories: Twice())
    assert top("--once", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sequence"] == 2


def test_text_that_the_encoding_cannot_hold_does_not_break_it(top, console, sample, monkeypatch):
    view = sample(1)
    view["commands"][0]["command"] = "Größe\u202e"
    console.says(view)
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert top("--url", console.url, "--once") == 0
    out.seek(0)
    assert "Gr\\xf6\\xdfe\\u202e" in out.read()


@pytest.mark.e2e
@pytest.mark.parametrize("form", [["--json"], ["--once"]])
def test_a_reader_that_has_enough_ends_it_quietly(console, sample, form):
    console.says(sample(400))
    command = [sys.executable, "-c", DRIVE, "top", "--url", console.url, *form]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parent
    ) as process:
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.wait(20) == 0
        assert process.stderr.read() == b""


def test_json_needs_nothing_but_the_standard_library():
    look = "import sys; from groundfault.console import top_command; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def test_what_a_console_answers_does_nothing_to_the_terminal(top, console, capsys):
    body = b"\x1b[2J\x07\x9b31m\xe2\x80\xaeoops"
    console.answer = lambda handler: console.send(handler, body, status=500)
    assert top("--url", console.url, "--once") == 1
    said = capsys.readouterr().err
    assert said.endswith("oops\n")
    assert said.removesuffix("\n").isprintable()


@pytest.mark.parametrize("form", [["--once"], ["--once", "--json"], ["--json"]])
@pytest.mark.parametrize(
    ("where", "said"),
    [(">/dev/full", "standard output takes no more: No space left on device"), (">&-", "standard output is closed")],
)
def test_an_output_that_takes_nothing_is_one_line_and_no_traceback(console, sample, form, where, said):
    console.says(sample(2))
    command = [sys.executable, "-c", DRIVE, "top", "--url", console.url, *form]
    ended = subprocess.run(
        ["sh", "-c", f'"$@" {where}', "sh", *command], check=False, capture_output=True, timeout=60, text=True
    )
    assert (ended.returncode, ended.stderr) == (1, f"groundfault: {said}\n")


def test_without_a_standard_error_nothing_of_it_comes_among_the_output(top, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    assert top("--run-dir", str(tmp_path), "--once", "--json") == 0
    assert json.loads(capsys.readouterr().out)["format"] == 1
    assert top("--run-dir", str(tmp_path / "none"), "--once", "--json") == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("columns", ["0", "", "-3", "99999"])
def test_columns_that_make_no_sense_are_as_none(top, console, sample, monkeypatch, capsys, columns):
    console.says(sample(2))
    assert top("--url", console.url, "--once") == 0
    usual = capsys.readouterr().out.splitlines()
    monkeypatch.setenv("COLUMNS", columns)
    assert top("--url", console.url, "--once") == 0
    assert [len(line) for line in capsys.readouterr().out.splitlines()] == [len(line) for line in usual]
