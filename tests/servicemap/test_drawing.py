"""DOT, SVG and text."""

import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest

from groundfault.servicemap import drawing
from groundfault.servicemap.drawing import DrawingError, dot_of, lines_of, svg_of
from groundfault.servicemap.graph import Seen, draw_up

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz' dot")

SEEN = Seen(
    calls={
        ("topps", "grouper"): {"success": 880, "shed": 110, "throttled": 10},
        ("grouper", "contest-db"): {"success": 90, "failure": 8, "timeout": 2},
    },
    requests={("topps/grouper.get", "grouper"): {"admitted": 880, "shed": 110}},
    waits_s={("topps/grouper.get", "grouper"): 9.9},
    totals={"grouper": {"admitted": 880, "shed": 110}},
    span_s=10.0,
)
HOSTILE = 'x"]; node [label="\\N\n<script>alert(1)</script>'


def test_text_says_rate_outcome_and_wait():
    lines = list(lines_of(draw_up(SEEN)))
    assert lines[0] == "grouper -> contest-db  10/s, 10 % failed"
    assert lines[1] == "topps   -> grouper     100/s, 11 % shed, 1 % not sent, waited 10 ms"
    assert "contest-db: does not report" in lines[3]


def test_without_a_span_totals_are_shown():
    assert "so far" in next(lines_of(draw_up(Seen(calls={("a", "b"): {"success": 12345}}))))


def test_an_empty_map_says_so():
    assert list(lines_of(draw_up(Seen()))) == ["no calls and no requests have been seen"]


@needs_dot
def test_svg_holds_every_node_and_edge():
    root = ET.fromstring(svg_of(draw_up(SEEN)))  # noqa: S314  made by dot, right here
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"topps", "grouper", "contest-db", "11 % shed", "10 % failed"} <= texts


@needs_dot
def test_hostile_names_stay_names():
    drawn = draw_up(Seen(calls={(HOSTILE, "b"): {"success": 1}}))
    plain = subprocess.run(["dot", "-Tplain"], input=dot_of(drawn), capture_output=True, text=True, check=True).stdout
    assert sum(line.startswith("node ") for line in plain.splitlines()) == 2
    root = ET.fromstring(svg_of(drawn))  # noqa: S314  as above
    assert not [each for each in root.iter() if each.tag.endswith("script")]


def test_a_name_writes_nothing_of_its_own_to_a_terminal():
    text = "".join(lines_of(draw_up(Seen(calls={("a\x1b[2J", "b\r\u202e"): {"success": 1}}))))
    assert text.isprintable()
    assert "a [2J -> b" in text


def test_without_graphviz_an_svg_says_what_to_install(monkeypatch):
    monkeypatch.setattr(drawing.shutil, "which", lambda _: None)
    with pytest.raises(DrawingError, match="apt-get install graphviz"):
        svg_of(draw_up(SEEN))


@pytest.mark.parametrize(("script", "said"), [("exit 1", "dot has failed"), ("exec sleep 30", "--limit")])
def test_a_dot_that_fails_or_hangs_is_told(monkeypatch, tmp_path, script, said):
    program = tmp_path / "dot"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(drawing, "_SVG_TIMEOUT_S", 0.5)
    with pytest.raises(DrawingError, match=said):
        svg_of(draw_up(SEEN))
