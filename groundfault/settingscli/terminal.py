"""What the commands say, where, and in which color; and the one question that they ask."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

from groundfault.settingscli.values import printable

__all__ = ["Terminal"]

_CODES: Final = {"red": "31", "green": "32", "yellow": "33"}


class Terminal:
    """Standard output for what was asked for, standard error for everything else.

    Colors only on a terminal, and not with ``NO_COLOR`` set or ``TERM=dumb``.
    """

    def __init__(self) -> None:
        allowed = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._colors = allowed and sys.stdout is not None and sys.stdout.isatty()

    def paint(self, text: str, color: str) -> str:
        """Return text in a color, if there are any."""
        return f"\x1b[{_CODES[color]}m{text}\x1b[0m" if self._colors else text

    def say(self, line: str) -> None:
        """Print a line of the answer."""
        _print(line, sys.stdout)

    def say_json(self, value: Any) -> None:
        """Print a value as JSON on one line."""
        self.say(json.dumps(value, default=str))

    def note(self, line: str) -> None:
        """Print a line about the answer, or about what went wrong."""
        _print(f"groundfault settings: {printable(line)}", sys.stderr)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print rows in columns as wide as they must be."""
        lines = [heads, *rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
        for line in lines:
            self.say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    @property
    def interactive(self) -> bool:
        """Whether somebody is there to be asked."""
        return sys.stdin is not None and sys.stdin.isatty()

    def confirmed(self, question: str) -> bool:
        """Ask, on standard error so that the output can be piped on; anything but yes is no."""
        if sys.stderr is None:  # who cannot be asked has not said yes
            return False
        sys.stderr.write(f"{printable(question)} [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if not answer.endswith("\n"):
            sys.stderr.write("\n")
        return answer.strip().lower() in {"y", "yes"}


def _print(line: str, stream: TextIO | None) -> None:
    if stream is None:  # closed before this process began, as by `>&-`: nobody listens
        return
    # A terminal or file that cannot hold a character shows its escape: an error here would hide what was to be said.
    encoding = stream.encoding or "utf-8"
    stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()
