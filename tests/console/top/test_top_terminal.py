"""A real pseudo-terminal: what is drawn there, what keys do, and that the terminal is as it was afterwards."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.e2e

DRIVE = """
import argparse, sys
from groundfault.console import top_command
parser = argparse.ArgumentParser(prog="groundfault")
top_command.add_to(parser.add_subparsers())
options = parser.parse_args(sys.argv[1:])
sys.exit(options.run(options))
"""
_PATIENCE_S = 20.0


class Terminal:
    """A terminal, and the command that draws on it."""

    def __init__(self, code: str, *arguments: str, **environ: str) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(80, 24, tell=False)
        self.before = termios.tcgetattr(self._ours)
        self.seen = ""
        environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **environ}
        for name in ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  so that keys make signals
        )
        os.close(theirs)

    def resize(self, width: int, height: int, *, tell: bool = True) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def wait_for(self, said: str) -> str:
        """Return what was drawn until that was."""
        end = time.thread_time() + _PATIENCE_S
        for _ in range(int(_PATIENCE_S / 0.05)):
            if said in self.seen:
                drawn, self.seen = self.seen, ""
                return drawn
            self._read(0.05)
            assert time.thread_time() < end
        raise AssertionError(f"{said!r} does not come; there is {self.seen[-2000:]!r}")

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._ours], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # nobody has the other side open any more
            return False
        self.seen += data.decode("utf-8", "replace")
        return bool(data)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def end(self) -> int:
        """Return the exit code, once it has ended and everything was read."""
        code = None
        for _ in range(int(_PATIENCE_S / 0.05)):
            if not self._read(0.05):
                time.sleep(0.05)
            code = self.process.poll()
            if code is not None:
                break
        assert code is not None, "it goes on"
        while self._read(0.0):
            pass
        return code

    @property
    def is_as_before(self) -> bool:
        settings = termios.tcgetattr(self._ours) == self.before
        shown = self.seen.rfind("\x1b[?25h") > self.seen.rfind("\x1b[?25l")
        return settings and shown and self.seen.rfind("\x1b[?1049l") > self.seen.rfind("\x1b[?1049h")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(_PATIENCE_S)
        os.close(self._ours)


@pytest.fixture
def terminal(console, sample) -> Iterator[Terminal]:
    console.says(sample(40, spike=True))
    made = Terminal(DRIVE, "top", "--url", console.url)
    try:
        made.wait_for("OPEN 3/8")
        yield made
    finally:
        made.close()


def test_keys_change_the_picture_and_q_restores_the_terminal(terminal):
    assert termios.tcgetattr(terminal._ours) != terminal.before
    terminal.press("s")
    terminal.wait_for("sort: errors")
    terminal.press("\x1b[B\r")
    terminal.wait_for("timeout_s=0.5")
    terminal.press("\x1b")
    terminal.wait_for("sort: errors")
    terminal.press("/saber wallet\r")
    terminal.wait_for("filter: saber wallet")
    terminal.press("m")
    terminal.wait_for("who calls whom")
    terminal.resize(40, 12)
    assert "details" not in terminal.wait_for("who calls whom")
    terminal.press("q")
    assert terminal.end() == 0
    assert terminal.is_as_before


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)], ids=["term", "hup", "int"]
)
def test_a_signal_that_ends_it_restores_the_terminal(terminal, number, code):
    terminal.process.send_signal(number)
    assert terminal.end() == code
    assert terminal.is_as_before


SHELL = """
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = os.fork()
if not child:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
while True:
    _, status = os.waitpid(child, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        sys.exit(os.waitstatus_to_exitcode(status))
    print(f"STOPPED {child}.", flush=True)
"""
"""As a shell does it: a job of its own, which the kernel lets be stopped, for somebody is there to go on with it."""


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(console, sample):
    console.says(sample(40, spike=True))
    terminal = Terminal(SHELL, DRIVE, "top", "--url", console.url)
    try:
        terminal.wait_for("OPEN 3/8")
        terminal.press("\x1a")
        drawn = terminal.wait_for(".\r\n")
        assert "\x1b[?1049l" in drawn
        assert termios.tcgetattr(terminal._ours) == terminal.before
        os.kill(int(drawn.rpartition("STOPPED ")[2].rstrip(".\r\n")), signal.SIGCONT)
        terminal.wait_for("OPEN 3/8")
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.is_as_before
    finally:
        terminal.close()


def test_an_error_of_its_own_restores_the_terminal(console, sample):
    console.says(sample(4))
    broken = DRIVE.replace(
        "options = ",
        "from groundfault.console import _top_live as live\n"
        "drawn = live.picture\n"
        "def picture(view, looking, *rest, **more):\n"
        "    if looking.screen == 'map': raise RuntimeError('a defect')\n"
        "    return drawn(view, looking, *rest, **more)\n"
        "live.picture = picture\noptions = ",
    )
    terminal = Terminal(broken, "top", "--url", console.url)
    try:
        terminal.wait_for("get_000")
        terminal.press("m")
        assert terminal.end() == 1
        assert "RuntimeError: a defect" in terminal.seen
        assert "\x1b[?1049l" in terminal.seen
        assert "\x1b[?25h" in terminal.seen
        assert termios.tcgetattr(terminal._ours) == terminal.before
    finally:
        terminal.close()


def test_a_console_that_goes_away_leaves_the_last_picture_and_says_how_old_it_is(console, terminal):
    console.answer = lambda handler: console.send(handler, b"draining", 503)
    drawn = terminal.wait_for("STALE, nothing new for")
    assert "OPEN 3/8" in drawn + terminal.wait_for("it answers 503: draining")


def test_a_dumb_terminal_gets_one_picture(console, sample):
    console.says(sample(4))
    terminal = Terminal(DRIVE, "top", "--url", console.url, TERM="dumb")
    try:
        assert terminal.end() == 0
        assert "get_000" in terminal.seen
        assert "\x1b" not in terminal.seen
    finally:
        terminal.close()
