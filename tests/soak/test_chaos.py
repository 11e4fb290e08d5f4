"""The soak itself, in small: that it passes, that it finds what is planted, and that it leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep

import psutil
import pytest
from chaos import parsed, spans_of

from groundfault._clock import monotonic
from groundfault.lab.runs.record import Run, Verdict

SOAK = Path(__file__).parent.parent.parent / "soak"
BOUND_S = 90.0


@pytest.mark.parametrize("seconds", [2, 3, 20, 60, 600, 3600])
def test_spans_are_whole_seconds_and_follow_each_other(seconds):
    spans = spans_of(seconds)
    edges = [*spans.before, *spans.chaos, *spans.calm]
    assert edges == sorted(edges)
    assert all(edge == int(edge) for edge in edges)
    assert spans.before[1] == spans.chaos[0]
    assert spans.chaos[1] == spans.calm[0]
    assert max(spans.quiet_s, spans.window_s) < spans.calm[1] - spans.calm[0]


@pytest.mark.parametrize("words", [["--seconds", "1"], ["--factor", "0"], ["--seconds", "nan"], ["--colour"]])
def test_what_cannot_be_is_refused(words, capsys):
    with pytest.raises(SystemExit) as caught:
        parsed(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err


def begun(out, *more):
    words = [sys.executable, str(SOAK / "chaos.py"), "--seconds", "3", "--out", str(out), *more]
    out.mkdir()
    with (out / "said").open("wb") as said:
        return subprocess.Popen(words, stdout=said, stderr=said, cwd=out, start_new_session=True)


def interrupted(soak, out):
    """Press Ctrl-C in the middle of the chaos; return what is left of the processes that it had started."""
    give_up = monotonic() + BOUND_S
    while b"chaos" not in (out / "said").read_bytes():
        assert soak.poll() is None, (out / "said").read_text()
        assert monotonic() < give_up
        sleep(0.05)
    sleep(0.3)
    started = psutil.Process(soak.pid).children(recursive=True)
    assert len(started) >= 10
    soak.send_signal(signal.SIGINT)
    soak.wait(BOUND_S)
    return [each for each in started if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.e2e
@pytest.mark.alone
@pytest.mark.long
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the soak looks into /proc")  # noqa: PTH112  a question
def test_a_short_soak_passes_and_a_planted_loss_is_found_and_ctrl_c_leaves_nothing(tmp_path):
    soaks = {
        "well": begun(tmp_path / "well", "--factor", "4"),
        "planted": begun(tmp_path / "planted", "--factor", "2", "--plant", "permits,handles"),
        "stopped": begun(tmp_path / "stopped", "--factor", "1"),
    }
    try:
        assert interrupted(soaks["stopped"], tmp_path / "stopped") == []
        codes = {name: soak.wait(BOUND_S) for name, soak in soaks.items()}
    finally:
        for soak in soaks.values():
            soak.terminate()
            soak.wait(BOUND_S)
    said = {name: (tmp_path / name / "said").read_text() for name in soaks}
    assert codes["stopped"] == 130, said["stopped"]
    assert not (tmp_path / "stopped" / "run.json").exists()

    run = Run.read(tmp_path / "well" / "run.json")
    assert run.verdict is Verdict.PASSED, said["well"]
    assert codes["well"] == 0
    assert {"calm"} < {mark.text for mark in run.marks}
    assert json.loads((tmp_path / "well" / "soak.json").read_text())["verdict"] == "passed"

    assert codes["planted"] == 1, said["planted"]
    missed = {check.measure for check in Run.read(tmp_path / "planted" / "run.json").checks if check.met is False}
    assert {"permits_held", "saber_worker_handles_grown"} <= missed
