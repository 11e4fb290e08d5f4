"""Runs one action of ``groundfault settings``; whatever goes wrong ends in one line and in an exit code."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from groundfault._clock import wall
from groundfault.errors import SettingsError
from groundfault.settings.store import MalformedError, NothingStoredError, StoreError
from groundfault.settingscli import changing, checking, looking, watching
from groundfault.settingscli.ending import REFUSED, STOPPED, UNREACHABLE, EndingError, without_credentials
from groundfault.settingscli.processes import Reports
from groundfault.settingscli.session import Session
from groundfault.settingscli.terminal import Terminal

__all__ = ["run"]

_ACTIONS: Final[Mapping[str, Callable[[argparse.Namespace, Session], int]]] = {
    "get": looking.get,
    "diff": looking.diff,
    "history": looking.history,
    "validate": checking.validate_file,
    "watch": watching.watch,
    "set": changing.set_values,
    "unset": changing.unset,
    "apply": changing.apply,
    "rollback": changing.rollback,
}

_PIPE_CLOSED: Final = 141
"""128 + SIGPIPE: whoever read the output has had enough of it."""


def run(options: argparse.Namespace, reports: Reports) -> int:
    """Do what the options say and return the exit code. Raises nothing that a store, a file or a pipe can cause."""
    terminal = Terminal()
    url: str | None = getattr(options, "store", None)
    try:
        with Session(url, terminal=terminal, reports=reports, clock=wall) as session:
            return _ACTIONS[options.action](options, session)
    except KeyboardInterrupt:
        terminal.note("stopped")
        return STOPPED
    except BrokenPipeError:
        # What is left in the buffer would be written at exit, and fail again.
        with suppress(OSError, ValueError):
            output = sys.stdout.fileno()
            os.dup2(os.open(os.devnull, os.O_WRONLY), output)
        return _PIPE_CLOSED
    except Exception as error:  # noqa: BLE001  an operator in an incident needs a line, not a traceback
        code, lines = _ending(error)
        for line in lines:
            terminal.note(without_credentials(line, url))
        return code


def _ending(error: Exception) -> tuple[int, tuple[str, ...]]:
    match error:
        case EndingError():
            return error.code, error.lines
        case MalformedError() | NothingStoredError() | SettingsError():
            return REFUSED, (str(error),)
        case StoreError():
            return UNREACHABLE, (str(error),)
        case ImportError():
            return UNREACHABLE, (f"this store needs a library that is not installed: {error}",)
        case _:
            return REFUSED, (f"unexpected {type(error).__name__}: {error}",)
