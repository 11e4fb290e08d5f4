"""The rules of the house that no single module can hold: walls, words of the wire, reasons beside exceptions, size."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "groundfault"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400

each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


def test_the_walls_between_the_rooms_hold():
    pytest.importorskip("importlinter")
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", run.stdout), run.stdout


@each_source
def test_no_file_is_too_long_to_read(source):
    assert len(source.read_text().splitlines()) <= MAX_LINES


# --- names of the wire ------------------------------------------------------------------------------------------------

OF_THE_WIRE = re.compile(r"x[-_]groundfault", re.IGNORECASE)


def literals(code: str):
    """Yield line and text of every literal that is no docstring; comments are none."""
    tree = ast.parse(code)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in prose:
            yield node.lineno, node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('name = "X-GroundFault"', 1),
        ('name = b"x-groundfault-reason"', 1),
        ('name = f"X-GROUNDFAULT-{kind}"', 1),
        ('environ["HTTP_X_GROUNDFAULT_CALLER"]', 1),
        ('def f():\n    """Sets X-GroundFault."""', 0),
        ("# X-GroundFault", 0),
        ('name = "X-Request-Start"', 0),
    ],
)
def test_the_search_itself_finds_literals_only(code, found):
    assert sum(bool(OF_THE_WIRE.search(text)) for _, text in literals(code)) == found


@each_source
def test_header_names_live_in_one_module(source):
    if source == PACKAGE / "wire.py":
        assert any(OF_THE_WIRE.search(text) for _, text in literals(source.read_text()))
        return
    assert [line for line, text in literals(source.read_text()) if OF_THE_WIRE.search(text)] == []


# --- reasons ----------------------------------------------------------------------------------------------------------

EXEMPTION = re.compile(r"#\s*(?:noqa|type:\s*ignore)\b", re.IGNORECASE)
WITH_REASON = re.compile(
    r"""\#\s noqa:\s [A-Z]+\d+ (?:,\s?[A-Z]+\d+)* \s\s \w.{7,}
      | \#\s type:\s ignore \[[a-z, -]+\] \s\s \#\s (?!noqa) \w.{7,}""",
    re.VERBOSE,
)


def comments(code: str):
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


@pytest.mark.parametrize(
    ("comment", "reasoned"),
    [
        ("# noqa: BLE001  a sink never changes a call", True),
        ("# noqa: BLE001, S110  a sink never changes a call", True),
        ("# type: ignore[attr-defined]  # a function may carry attributes", True),
        ("# noqa", False),
        ("# noqa: BLE001", False),
        ("# noqa: BLE001  why", False),
        ("# type: ignore", False),
        ("# type: ignore[attr-defined]", False),
        ("# type: ignore  # a function may carry attributes", False),
        ("# type: ignore[attr-defined]  # noqa: BLE001", False),
    ],
)
def test_what_counts_as_a_reason(comment, reasoned):
    assert EXEMPTION.search(comment)
    assert bool(WITH_REASON.search(comment)) is reasoned


@each_source
def test_a_reason_stands_beside_each_exemption(source):
    bare = [
        f"{line}: {comment}"
        for line, comment in comments(source.read_text())
        if EXEMPTION.search(comment) and not WITH_REASON.search(comment)
    ]
    assert bare == []
