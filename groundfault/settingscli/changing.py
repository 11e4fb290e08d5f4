"""What writes: ``set``, ``unset``, ``apply`` and ``rollback``; each checks the whole result, shows it, and asks."""

import argparse
import getpass
import os
import socket
from collections.abc import Sequence
from typing import Any

from groundfault.settings.document import differences
from groundfault.settings.store import UNSET, Change, ConflictError, Document, MalformedError, StoreError
from groundfault.settingscli.differences import Difference, as_changes, as_objects, line_of
from groundfault.settingscli.ending import CONFLICT, DONE, REFUSED, USAGE, EndingError
from groundfault.settingscli.files import changes_of, read
from groundfault.settingscli.moments import span, stamp
from groundfault.settingscli.planning import LEFT_WRONG, PlanError, end_after, planned, restoring, unsetting
from groundfault.settingscli.processes import unknown_services
from groundfault.settingscli.session import Session
from groundfault.settingscli.values import printable

__all__ = ["apply", "rollback", "set_values", "unset"]


def set_values(options: argparse.Namespace, session: Session) -> int:
    """Set values at a scope."""
    names = [name for name, _ in options.assignments]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EndingError(USAGE, f"{', '.join(twice)} must be said once, not twice")
    until = _until(options, session)
    changes = [Change(options.scope, name, value, until) for name, value in options.assignments]
    return _change(options, session, session.load_or_begin(), changes)


def _until(options: argparse.Namespace, session: Session) -> float | None:
    if options.for_s is not None:
        return end_after(options.for_s, session.clock())
    until: float | None = options.until
    _check_future(until, session, "--until")
    return until


def _check_future(until: float | None, session: Session, what: str) -> None:
    if until is not None and until <= session.clock():
        raise EndingError(REFUSED, f"{what} must be in the future, not {stamp(until)}")


def unset(options: argparse.Namespace, session: Session) -> int:
    """Take values away from a scope."""
    document = session.load()
    try:
        changes, notes = unsetting(document, options.scope, options.names, session.clock())
    except PlanError as error:
        raise EndingError(REFUSED, *error.lines) from None
    for note in notes:
        session.terminal.note(note)
    return _change(options, session, document, changes, mends=True)


def apply(options: argparse.Namespace, session: Session) -> int:
    """Make the changes that a file lists."""
    changes, warnings = changes_of(read(options.file), options.file)
    for warning in warnings:
        session.terminal.note(f"warning: {warning}")
    for change in changes:
        _check_future(change.expires_at, session, f"{change.scope}:{change.name}: until")
    return _change(options, session, session.load_or_begin(), changes)


def rollback(options: argparse.Namespace, session: Session) -> int:
    """Make everything as it was under a version, as a new one."""
    target, now = session.at(options.version), session.clock()
    spoiled = False
    try:
        before = session.load()
    except MalformedError as error:
        session.terminal.note(f"what is there is no document, and is to be replaced: {error}")
        before = Document(error.version)
        spoiled = True
    changes, notes = restoring(before, target, now)
    for note in notes:
        session.terminal.note(note)
    return _change(options, session, before, changes, restores=True, spoiled=spoiled)


# --- the one way in which anything is written -------------------------------------------------------------------------


def _change(
    options: argparse.Namespace,
    session: Session,
    before: Document,
    changes: Sequence[Change],
    *,
    mends: bool = False,
    spoiled: bool = False,
    restores: bool = False,
) -> int:
    """Make changes. ``mends``: what was wrong before may stay; ``restores``: what is not known is none of our doing.

    ``spoiled``: what is there is no document, so that writing none of its settings is a change, too.
    """
    terminal, store = session.terminal, session.writable
    found = _planned(options, session, before, changes, mends=mends, restores=restores)
    if not found and not spoiled:
        return _finish(options, session, found, before.version, "nothing to change", written=False)
    asks = terminal.interactive and not options.yes and not options.dry_run
    if not options.json:
        for each in found:
            terminal.say(line_of(each, terminal.paint))
    elif asks:
        for each in found:
            terminal.note(line_of(each))
    for scope in unknown_services((each.scope for each in changes if each.value is not UNSET), session.running()):
        terminal.note(f"warning: no process of this host reports a service that {scope} is for")
    if options.dry_run:
        return _finish(options, session, found, before.version, "dry run: nothing was written", written=False)
    if asks and not terminal.confirmed(f"write this to {store.name} ({_those(len(found))})?"):
        raise EndingError(REFUSED, "not confirmed: nothing was written")
    try:
        version = store.write(
            as_changes(found), reason=options.reason, actor=options.actor or _actor(), based_on=before.version
        )
    except ConflictError as error:
        raise EndingError(CONFLICT, *_meanwhile(session, before, error)) from None
    return _finish(options, session, found, version, f"{store.name} is at version {version} now", written=True)


def _those(count: int) -> str:
    return f"{count} change{'' if count == 1 else 's'}"


def _finish(
    options: argparse.Namespace,
    session: Session,
    found: Sequence[Difference],
    version: str,
    words: str,
    *,
    written: bool,
) -> int:
    if options.json:
        answer: dict[str, Any] = {"store": session.store.name, "version": version, "written": written}
        session.terminal.say_json({**answer, "changes": as_objects(found)})
        return DONE
    session.terminal.say(printable(words))
    ends = {each[1].expires_at for each in found if each[1] is not None and each[1].expires_at is not None}
    if written and ends:
        session.terminal.say(f"ends by itself in {span(min(ends) - session.clock())}, at {stamp(min(ends))}")
    return DONE


def _planned(
    options: argparse.Namespace,
    session: Session,
    before: Document,
    changes: Sequence[Change],
    *,
    mends: bool,
    restores: bool,
) -> tuple[Difference, ...]:
    where = f" ({session.store.name})"
    try:
        plan = planned(
            before,
            changes,
            allow_disable=options.allow_disable,
            allow_unknown=options.allow_unknown if "allow_unknown" in options else False,
            mends=mends,
            restores=restores,
        )
    except PlanError as error:
        held = "" if error.unknown else where
        raise EndingError(REFUSED, *(f"{line}{held}; nothing was written" for line in error.lines)) from None
    for problem in plan.left_wrong:
        session.terminal.note(f"{LEFT_WRONG}: {problem}{where}")
    for warning in plan.warnings:
        session.terminal.note(f"warning: {warning}")
    return plan.differences


def _meanwhile(session: Session, before: Document, error: ConflictError) -> list[str]:
    """Return what to say of a conflict: what has changed since it was looked at, and who did it."""
    lines = [f"{error}; nothing was written"]
    try:
        now = session.load()
        revisions = session.writable.history(1)
    except StoreError as trouble:
        return [*lines, f"what has changed cannot be shown: {trouble}"]
    lines += [line_of(each) for each in differences(before, now)]
    if revisions and revisions[0].version == now.version:
        last = revisions[0]
        lines.append(f"version {last.version}  {stamp(last.at)}  {last.actor}: {last.reason}")
    return [*lines, "look at it, then run the command again"]


def _actor() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = f"uid-{os.getuid()}"  # a container's user is often in no list
    return f"{user}@{socket.gethostname()}"
