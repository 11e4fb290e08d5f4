"""Runs other people's code in a process of its own: bounded in time, and its words are shown only if it fails."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

__all__ = ["ChildError", "answer", "ask", "request"]

_LAST_LINES: Final = 8
_LINE: Final = 200


class ChildError(RuntimeError):
    """The process gave no answer: ``args[0]`` says why. ``said``: the end of what it printed."""

    def __init__(self, cause: str, said: tuple[str, ...] = ()) -> None:
        super().__init__(cause)
        self.said = said


def ask(module: str, request: Any, *, limit_s: float) -> Any:
    """Run ``python -m module`` in this directory and return what it hands to :func:`answer`.

    ``request`` is handed to it; both are anything that JSON can say. It and whatever it starts are ended after
    ``limit_s`` seconds. Raises :class:`ChildError`.
    """
    with tempfile.TemporaryDirectory(prefix="groundfault-doctor-") as place:
        log, asked, answered = (Path(place) / name for name in ("log", "request", "answer"))
        asked.write_text(json.dumps(request))
        command = [sys.executable, "-m", module, str(asked), str(answered)]
        with log.open("wb") as said:
            process = subprocess.Popen(  # noqa: S603  a module of ours
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                raise ChildError(f"not done within {limit_s:g} s", _end_of(log)) from None
            finally:
                _end(process)
        try:
            return json.loads(answered.read_bytes())
        except (OSError, ValueError):
            raise ChildError(f"ended with code {process.returncode}", _end_of(log)) from None


def request() -> Any:
    """Return what :func:`ask` was given; for the process that it has started."""
    return json.loads(Path(sys.argv[1]).read_bytes())


def answer(facts: Any) -> None:
    """Hand the answer over and end at once, with whatever threads and processes the other people's code has started."""
    Path(sys.argv[2]).write_text(json.dumps(facts))
    if os.getpgrp() == os.getpid():  # the group that `ask` has made for this process
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(0)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process and what it has started, unless it has ended by itself: then its number may be another's."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end_of(log: Path) -> tuple[str, ...]:
    lines = log.read_text(errors="replace").splitlines()
    return tuple(line[:_LINE] for line in lines if line.strip())[-_LAST_LINES:]
