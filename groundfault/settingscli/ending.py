"""How the commands end: their exit codes, and the one line that says why."""

import re
from typing import Final
from urllib.parse import unquote, urlsplit

__all__ = ["CONFLICT", "DONE", "REFUSED", "STOPPED", "UNREACHABLE", "USAGE", "EndingError", "without_credentials"]

DONE: Final = 0
REFUSED: Final = 1
"""Something in what was asked for is wrong, or the operator said no; nothing was written."""
USAGE: Final = 2
"""The command line made no sense (argparse's own code)."""
CONFLICT: Final = 3
"""Somebody else changed the settings meanwhile; nothing was written."""
UNREACHABLE: Final = 4
"""The store could not be read or written."""
STOPPED: Final = 130
"""Stopped by Ctrl-C."""


class EndingError(Exception):
    """The command ends here, with ``code`` and with ``lines`` on standard error."""

    def __init__(self, code: int, *lines: str) -> None:
        super().__init__(code, *lines)
        self.code = code
        self.lines = lines


_USER: Final = re.compile(r"(?<=://)[^/\s@]*@")
_QUERY: Final = re.compile(r"(?i)\b(password|passwd|pwd|token|secret|sslpassword)=[^&\s'\"]+")


def without_credentials(text: str, url: str | None) -> str:
    """Return a message without what ``url``, or any other URL in it, holds of credentials.

    The stores' own messages hold none. A driver's message that reaches us by another way may.
    """
    for secret in _secrets(url):
        text = text.replace(secret, "***")
    return _QUERY.sub(r"\1=***", _USER.sub("***@", text))


def _secrets(url: str | None) -> list[str]:
    try:
        password = urlsplit(url or "").password
    except ValueError:
        return []
    # A short one is likely to be part of an innocent word, and the URL that it is in is recognized without it.
    found = {password or "", unquote(password or "")}
    return sorted((each for each in found if len(each) >= 4), key=len, reverse=True)  # noqa: PLR2004  said above
