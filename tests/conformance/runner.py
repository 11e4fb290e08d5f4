"""Puts each case to each library in a process of its own, so that one that hangs or forks costs its case alone."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from conformance.case import FAIL, HANGS, NOT_APPLICABLE, put
from conformance.cases import CASES
from conformance.subjects import load

HERE = Path(__file__).parent


class Result(NamedTuple):
    """One cell of the table."""

    subject: str
    case: str
    verdict: str
    text: str


def run_here(subject: str, case: str) -> Result:
    """Put one case to one library in this process."""
    return Result(subject, case, *put(CASES[case], load(subject)))


def run_apart(subject: str, case: str) -> Result:
    """Put it in a process of its own, and end that if it takes longer than the case allows."""
    one = CASES[case]
    missing = one.missing(load(subject))
    if missing:
        return Result(subject, case, NOT_APPLICABLE, f"needs {missing[0].value}")
    process = subprocess.Popen(
        [sys.executable, str(HERE), "--one", subject, case],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=one.limit_s)
    except subprocess.TimeoutExpired:
        _end(process)
        return Result(subject, case, HANGS, f"not over after {one.limit_s:g} s")
    lines = out.splitlines()
    if process.returncode != 0 or not lines:
        last = err.strip().splitlines()[-1:] or ["nothing on stderr"]
        return Result(subject, case, FAIL, f"the process ended with {process.returncode}: {last[0]}"[:120])
    return Result(*json.loads(lines[-1]))


def _end(process: "subprocess.Popen[str]") -> None:
    """End the process and the children it has forked, all of which are in its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def run_all(subjects: list[str], cases: list[str], *, workers: int | None = None) -> list[Result]:
    """Put every case to every library, a few at a time."""
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        asked = [(subject, case) for case in cases for subject in subjects]
        return list(pool.map(lambda pair: run_apart(*pair), asked))
