"""Puts a console together from its settings: the same mounted, on a port of its own, and from the command line."""

import logging
import os
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Final

from groundfault.console.answering import Console, Steers
from groundfault.console.guarding import Auth, Guard, checked_token
from groundfault.console.recording import Recorder
from groundfault.errors import SettingsError
from groundfault.events import note_internal_error

__all__ = ["SETTINGS", "TOKEN", "assembled", "guard_of", "steering_of"]

_log = logging.getLogger("groundfault")

TOKEN: Final = "GROUNDFAULT_CONSOLE_TOKEN"  # noqa: S105  the name of where it is, not the token
"""The environment variable that holds the token without which nobody can steer."""

SETTINGS: Final = "GROUNDFAULT_SETTINGS"
"""The environment variable that names the store of live settings."""


def guard_of(*, hosts: Iterable[str], auth: Auth | None, token: str | None) -> Guard:
    """Return the guard. ``token``: None for the environment's. Raises SettingsError."""
    if isinstance(hosts, str):
        raise SettingsError(f"hosts must be several names, as ({hosts!r},), not one string")
    if auth is not None and not callable(auth):
        raise SettingsError("auth must be callable, as what basic_auth(user, password) returns")
    if token is None:
        token = checked_token(os.environ.get(TOKEN) or None, TOKEN)
    return Guard(hosts=hosts, auth=auth, token=token)


def steering_of(settings: "str | Steers | None") -> Steers | None:
    """Return what shows and changes live settings. ``settings``: None for the environment's store, if it names one.

    Raises SettingsError for what is no address. Where a library is missing that the store needs, that is logged, and
    nobody can steer.
    """
    if settings is not None and not isinstance(settings, str):
        return settings
    address = os.environ.get(SETTINGS, "") if settings is None else settings
    if not address:
        return None
    try:
        steering: Steers = import_module("groundfault.console.steering").Steering(address)
    except SettingsError:
        raise
    except ImportError as error:
        _log.warning("console: live settings are not shown: %s", error)
        return None
    except Exception as error:  # noqa: BLE001  the view is worth having without it
        note_internal_error("console settings", error)
        return None
    return steering


def assembled(
    recorder: Callable[[], Recorder],
    *,
    hosts: Iterable[str] = (),
    auth: Auth | None = None,
    token: str | None = None,
    settings: "str | Steers | None" = None,
) -> Console:
    """Return a console over what ``recorder`` returns, which is called last. Raises SettingsError."""
    guard, steers = guard_of(hosts=hosts, auth=auth, token=token), steering_of(settings)
    made = recorder()
    return Console(made.newest, guard=guard, report=made.report, steers=steers, is_ready=lambda: made.is_ready)
