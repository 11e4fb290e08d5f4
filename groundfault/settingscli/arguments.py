"""The arguments of ``groundfault settings``; what runs is imported only when it is asked for."""

import argparse
import os
from functools import partial
from typing import Any, Final

from groundfault.settingscli.moments import duration, moment
from groundfault.settingscli.processes import Reports, reported
from groundfault.settingscli.values import LONGEST_ACTOR, LONGEST_REASON, assignment

__all__ = ["VARIABLE", "add_to"]

VARIABLE: Final = "GROUNDFAULT_SETTINGS"

_NAMES: Final = "a SCOPE is service[/resource[/command]], each part a name or a pattern with * and ?; quote it"
_CODES: Final = (
    "Ends with 0 if all is well, 1 if something was refused or is invalid, 2 if the command line makes no sense, "
    "3 if somebody else changed the settings meanwhile, 4 if the store cannot be read or written, 130 on Ctrl-C."
)


def add_to(commands: Any, *, reports: Reports = reported) -> None:
    """Add ``settings`` to the subparsers of ``groundfault``.

    ``reports`` is asked which version the live processes of this host run. Default: their reports say it.
    """
    settings = commands.add_parser(
        "settings",
        allow_abbrev=False,
        help="look at the live settings of a store, change them with a reason, go back",
        description=f"Live settings: look, change with a reason, go back. {_CODES}",
    )
    actions = settings.add_subparsers(dest="action", metavar="action", required=True)
    for add in (_get, _set, _unset, _apply, _diff, _history, _rollback, _validate, _watch):
        parser = add(actions)
        parser.add_argument("--json", action="store_true", help="print JSON instead")
        parser.set_defaults(run=partial(_run, reports))


def _run(reports: Reports, options: argparse.Namespace) -> int:
    from groundfault.settingscli import running  # noqa: PLC0415  stores are imported only when one is asked for

    return running.run(options, reports)


def _parser(actions: Any, name: str, text: str, more: str = "", *, store: bool = True) -> argparse.ArgumentParser:
    description = f"{text[0].upper()}{text[1:]}. {more}".rstrip()
    parser: argparse.ArgumentParser = actions.add_parser(name, allow_abbrev=False, help=text, description=description)
    if store:
        parser.add_argument(
            "--store",
            default=os.environ.get(VARIABLE) or None,
            metavar="URL",
            help=f"a path, file:///etc/gf.toml, sqlite:///gf.db, postgresql+psycopg://..., redis://... (${VARIABLE})",
        )
    return parser


def _get(actions: Any) -> argparse.ArgumentParser:
    parser = _parser(actions, "get", "what is set, and which version the processes of this host run")
    parser.add_argument("scope", nargs="?", metavar="SCOPE", help="only this scope and those below it")
    parser.add_argument(
        "--effective",
        type=_target,
        metavar="SERVICE[/RESOURCE[/COMMAND]]",
        help="what is in force there, and the scope that each value comes from",
    )
    return parser


def _set(actions: Any) -> argparse.ArgumentParser:
    parser = _parser(actions, "set", "set values at a scope", f"{_NAMES[0].upper()}{_NAMES[1:]}.")
    parser.add_argument("scope", metavar="SCOPE", help="where, for instance 'topps/contest-db' or '*/*/get_*'")
    parser.add_argument(
        "assignments", nargs="+", type=assignment, metavar="NAME=VALUE", help="VALUE is JSON, or else a text"
    )
    lasting = parser.add_mutually_exclusive_group()
    lasting.add_argument("--for", dest="for_s", type=duration, metavar="30m", help="goes away by itself after this")
    lasting.add_argument("--until", type=moment, metavar="ISO", help="goes away by itself then")
    return _naming(parser)


def _unset(actions: Any) -> argparse.ArgumentParser:
    parser = _parser(actions, "unset", "return to what broader scopes or the code say")
    parser.add_argument("scope", metavar="SCOPE", help="exactly as it is set")
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to unset; without it, all that the scope has")
    return _writing(parser)


def _apply(actions: Any) -> argparse.ArgumentParser:
    parser = _parser(actions, "apply", "make the changes of a file, as `diff --json` and `advise` write it")
    parser.add_argument(
        "file", metavar="FILE", help='a JSON list of {"scope", "name", "value"[, "until"]}; - for stdin'
    )
    return _naming(parser)


def _diff(actions: Any) -> argparse.ArgumentParser:
    parser = _parser(
        actions,
        "diff",
        "what differs between versions or files",
        "One argument is compared with what is set now: a file shows what its settings would change, "
        "a version what has changed since. With --json, `apply` can read it.",
    )
    parser.add_argument("first", metavar="A", help="a version, or a file of settings or changes")
    parser.add_argument("second", nargs="?", metavar="B", help="likewise; without it, what is set now")
    return parser


def _history(actions: Any) -> argparse.ArgumentParser:
    parser = _parser(actions, "history", "who changed what, when and why, the newest first")
    parser.add_argument("-n", dest="limit", type=_count, default=20, metavar="N", help="how many at most (20)")
    return parser


def _rollback(actions: Any) -> argparse.ArgumentParser:
    parser = _parser(actions, "rollback", "set everything to what it was under a version, as a new version")
    parser.add_argument("version", metavar="VERSION", help="as `history` shows it")
    return _writing(parser)


def _validate(actions: Any) -> argparse.ArgumentParser:
    parser = _parser(actions, "validate", "check a file of settings, without a store", store=False)
    parser.add_argument("file", metavar="FILE", help="TOML by its suffix, else JSON; - for stdin")
    return _disabling(parser)


def _watch(actions: Any) -> argparse.ArgumentParser:
    return _parser(actions, "watch", "print changes as they happen, until Ctrl-C")


def _writing(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--reason", type=_reason, required=True, metavar="TEXT", help="why, for those who come after")
    parser.add_argument("--actor", type=_actor, metavar="NAME", help="who (user@host)")
    parser.add_argument("--dry-run", action="store_true", help="check and show the changes, write nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask; nobody is asked without a terminal, either")
    return _disabling(parser)


def _naming(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--allow-unknown", action="store_true", help="also names that only a newer version knows")
    return _writing(parser)


def _disabling(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--allow-disable",
        action="store_true",
        help="also what switches a whole fleet's protection off; processes obey that if given allow_disable",
    )
    return parser


def _reason(text: str) -> str:
    return _text(text, LONGEST_REASON)


def _actor(text: str) -> str:
    return _text(text, LONGEST_ACTOR)


def _text(text: str, most: int) -> str:
    words = " ".join(text.split())
    if not 0 < len(words) <= most:
        raise argparse.ArgumentTypeError(f"must be a text of 1 to {most} characters, not {len(words)}")
    return words


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if not 1 <= count <= 1000:  # noqa: PLR2004  the bound that the message names
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 1000, not {text!r}")
    return count


def _target(text: str) -> tuple[str, ...]:
    parts = tuple(text.split("/"))
    if len(parts) > 3 or not all(parts) or any(set(part) & {"*", "?"} for part in parts):  # noqa: PLR2004  as the message says
        raise argparse.ArgumentTypeError(f"must be SERVICE[/RESOURCE[/COMMAND]] without wildcards, not {text!r}")
    return parts
