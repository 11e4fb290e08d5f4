"""``groundfault hub``: one page for many hosts."""

import argparse
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from groundfault.errors import GroundFaultError, SettingsError

__all__ = ["add_to"]

PORT: Final = 9733
CONSOLE_TOKEN: Final = "GROUNDFAULT_CONSOLE_TOKEN"  # noqa: S105  the name of a variable
HUB_TOKEN: Final = "GROUNDFAULT_HUB_TOKEN"  # noqa: S105  as above
HUB_PASSWORD: Final = "GROUNDFAULT_HUB_PASSWORD"  # noqa: S105  as above
_NEEDS: Final = ("sqlalchemy", "starlette", "uvicorn")
_DAY_S: Final = 86_400.0
_LONGEST_DAYS: Final = 3650.0


def add_to(subparsers: Any) -> None:
    """Add the subcommand to the command line's."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "hub",
        allow_abbrev=False,
        help="watch many hosts on one page, which they push to or which pulls from them",
        description="Watches many hosts until it is interrupted: they push their reports to it, or it pulls them from "
        "their consoles. Needs the extra 'hub'. Secrets come from the environment, or from the file that the variable "
        f"with _FILE behind it names: {HUB_TOKEN} for hosts that push and read settings (without it only those of this "
        f"machine may), {CONSOLE_TOKEN} for people who steer, {HUB_PASSWORD} for people who look.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=_port, default=PORT, metavar="N", help=f"the port; 0 for any free one ({PORT})")
    parser.add_argument(
        "--pull", action="append", default=[], metavar="URL", help="a console to pull from, as http://web-1:9731/"
    )
    parser.add_argument(
        "--pull-file",
        type=Path,
        metavar="FILE",
        help="a file with more of them, one in a line; these may hold passwords",
    )
    parser.add_argument(
        "--database",
        metavar="URL",
        help="where history is kept: sqlite:////var/lib/hub.db, postgresql+psycopg://..., or none "
        "(SQLite in XDG_STATE_HOME)",
    )
    parser.add_argument(
        "--settings", metavar="URL", help="the store of live settings to show and to steer (in the database)"
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name that browsers may reach it by"
    )
    parser.add_argument("--keep", type=_days, default=7.0, metavar="DAYS", help="how long history is kept (7)")
    parser.add_argument("--public", action="store_true", help="let everybody look who reaches it")
    parser.set_defaults(run=run)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:  # noqa: PLR2004  what a port is
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 65535, not {text!r}")
    return int(text)


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.01 <= value <= _LONGEST_DAYS:  # noqa: PLR2004  said in the message
        raise argparse.ArgumentTypeError(f"must be days from 0.01 to {_LONGEST_DAYS:g}, not {text!r}")
    return value


def run(options: argparse.Namespace) -> int:
    """Do what the command line asks for; return the exit code."""
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        return _fail(f"the hub needs {', '.join(missing)}: pip install 'groundfault[hub]'")
    try:
        return _run(options)
    except (GroundFaultError, ImportError) as error:
        return _fail(str(error))


def _run(options: argparse.Namespace) -> int:
    # By name: what these import is there, as was just looked for.
    running = import_module("groundfault.console.hub.running")
    pulling = import_module("groundfault.console.hub.pulling")
    password, token = _secret(HUB_PASSWORD), _secret(HUB_TOKEN)
    if not _is_loopback(options.host):
        _must_be_guarded(options, password, token)
    database = None if options.database == "none" else options.database or _usual_database()
    hub = running.Hub(
        running.HubOptions(
            pull=[pulling.address_of(url) for url in _consoles(options)],
            database=database,
            settings=options.settings or database,
            allow_hosts=options.allow_host,
            keep_s=options.keep * _DAY_S,
            token=token,
            steering=_secret(CONSOLE_TOKEN),
            password=password,
        )
    )
    try:
        listener = running.listening(options.host, options.port)
    except OSError as error:
        return _fail(f"cannot listen on {options.host}:{options.port}: {error.strerror}")
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    kept = "no history is kept" if hub.parts.history is None else f"history in {hub.parts.history.name}"
    print(f"hub on http://{shown}:{port}/; {kept}", file=sys.stderr, flush=True)  # noqa: T201  this is the command line
    return int(running.run(hub, listener))


def _must_be_guarded(options: argparse.Namespace, password: str | None, token: str | None) -> None:
    if token is None:
        raise SettingsError(
            f"on {options.host} others may push to this hub: set {HUB_TOKEN}, or listen on a loopback address"
        )
    if password is None and not options.public:
        raise SettingsError(
            f"on {options.host} others may look at this hub: set {HUB_PASSWORD}, or say --public if all of them may"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _secret(name: str) -> str | None:
    """Return what a variable holds, or the file that it names with _FILE behind. Raises SettingsError."""
    given, path = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if given or not path:
        return given or None
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(f"{name}_FILE names {path}, which cannot be read: {why}") from None
    if not text:
        raise SettingsError(f"{name}_FILE names {path}, which is empty")
    return text


def _consoles(options: argparse.Namespace) -> list[str]:
    urls = list(options.pull)
    if any("@" in url for url in urls):
        raise SettingsError("--pull must hold no password, which everybody on this machine could see: use --pull-file")
    if options.pull_file is not None:
        try:
            lines = options.pull_file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SettingsError(f"--pull-file {options.pull_file} cannot be read: {why}") from None
        urls += [text for line in lines if (text := line.partition("#")[0].strip())]
    return urls


def _usual_database() -> str:
    """Return the address of the usual file; make its directory, for this user alone. Raises SettingsError."""
    state = os.environ.get("XDG_STATE_HOME", "")
    place = (Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state") / "groundfault"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"the directory {place} cannot be made: {error.strerror}; name a --database, or --database none"
        ) from None
    return f"sqlite:///{place / 'hub.db'}"


def _fail(message: str) -> int:
    print(f"groundfault: {message}", file=sys.stderr)  # noqa: T201  this is the command line
    return 1
