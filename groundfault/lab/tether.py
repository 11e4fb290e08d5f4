"""Runs a program that must not outlive its parent: ``python -m groundfault.lab.tether PARENT PROGRAM ...``.

On Linux the kernel sends SIGTERM to the program when its parent dies, whatever it died of.
Elsewhere the program runs untethered; an orderly end of the parent still stops it.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; survives execve


def main(arguments: list[str]) -> None:
    """Become the program ``arguments[1:]``, tied to the life of the process ``arguments[0]``."""
    parent, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the line above
            sys.exit("the process this one belongs to has gone")
    os.execv(program[0], program)  # noqa: S606  no shell on purpose; the caller gives an absolute path


if __name__ == "__main__":
    main(sys.argv[1:])
