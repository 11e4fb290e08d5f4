"""What only looks: ``get``, ``diff`` and ``history``."""

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

from groundfault.settings.document import changed, differences, for_command, for_shedder
from groundfault.settings.store import Document, Entry, Revision, StoreError, WritableStore
from groundfault.settingscli.checking import examine, parsed
from groundfault.settingscli.differences import as_objects, line_of
from groundfault.settingscli.ending import DONE, REFUSED, USAGE, EndingError
from groundfault.settingscli.files import changes_of, is_file, read
from groundfault.settingscli.moments import span, stamp
from groundfault.settingscli.processes import show_running
from groundfault.settingscli.session import Session
from groundfault.settingscli.values import printable, shown

__all__ = ["diff", "get", "history", "revision_object"]

_LOOKED_THROUGH: Final = 200
"""Revisions in which `get` looks for who set what; older settings are shown without."""


def get(options: argparse.Namespace, session: Session) -> int:
    """Say what is set, or what is in force somewhere, and what the processes run."""
    if options.scope is not None and options.effective is not None:
        raise EndingError(USAGE, "SCOPE says what to list, --effective what to resolve: give one of them")
    document, now = session.load(), session.clock()
    found = examine(document, allow_disable=False)
    if options.effective is not None:
        entries = _effective(document, options.effective, now)
    else:
        entries = sorted(_within(document, options.scope), key=lambda each: (each.scope, each.name))
    since = {} if options.effective is not None else _since(session, entries)
    if options.json:
        session.terminal.say_json(
            {
                "store": session.store.name,
                "version": document.version,
                **({} if options.effective is None else {"effective": "/".join(options.effective)}),
                "entries": [_entry_object(each, now, since.get((each.scope, each.name))) for each in entries],
                "problems": found.problems,
                "warnings": found.warnings,
                "processes": [asdict(each) for each in session.running()],
            }
        )
        return DONE
    _show(session, document, entries, since, options)
    for problem in found.problems:
        session.terminal.note(f"processes reject version {document.version}: {problem}")
    for warning in found.warnings:
        session.terminal.note(f"warning: {warning}")
    return DONE


def _within(document: Document, scope: str | None) -> Iterable[Entry]:
    return (
        each for each in document.entries if scope is None or each.scope == scope or each.scope.startswith(f"{scope}/")
    )


def _effective(document: Document, place: tuple[str, ...], now: float) -> list[Entry]:
    """Return what wins for a place: a whole service, a resource as it calls it, or one command."""
    service, resource, command = (*place, "", "")[:3]
    # What is said of single resources or commands is not in force for all of the service's.
    broad = (each for each in document.entries if each.scope.count("/") < len(place))
    found = for_command(Document(document.version, tuple(broad)), service, resource, command, now)
    entries = [found[name] for name in sorted(found)]
    if len(place) == 1:
        server = for_shedder(document, service, now)
        entries += [server[name] for name in sorted(server)]
    return entries


def _since(session: Session, entries: Iterable[Entry]) -> dict[tuple[str, str], Revision]:
    """Return by entry the revision that made it so, where the history tells; without one, it is not told."""
    if not isinstance(session.store, WritableStore):
        return {}
    try:
        revisions = session.store.history(_LOOKED_THROUGH)
    except StoreError:
        return {}
    latest: dict[tuple[str, str], tuple[Entry, Revision]] = {}
    for revision in reversed(revisions):
        for _, after in revision.changes:
            if after is not None:
                latest[after.scope, after.name] = after, revision
    since = {}
    for each in entries:
        last = latest.get((each.scope, each.name))
        # A file may have been edited by hand since then: by whom, nobody knows.
        if last is not None and last[0] == each:
            since[each.scope, each.name] = last[1]
    return since


def _show(
    session: Session,
    document: Document,
    entries: list[Entry],
    since: dict[tuple[str, str], Revision],
    options: argparse.Namespace,
) -> None:
    terminal, now = session.terminal, session.clock()
    terminal.say(f"{printable(session.store.name)}, version {printable(document.version)}")
    terminal.say("")
    if entries and options.effective is not None:
        terminal.table(
            ("NAME", "VALUE", "FROM", "EXPIRES"),
            _fit((each.name, shown(each.value), each.scope, _end(each, now)) for each in entries),
        )
    elif entries:
        terminal.table(
            ("SCOPE", "NAME", "VALUE", "EXPIRES", "SINCE"),
            _fit(
                (each.scope, each.name, shown(each.value), _end(each, now), _who(since.get((each.scope, each.name))))
                for each in entries
            ),
        )
    elif options.effective is not None:
        terminal.say(f"nothing is set for {'/'.join(options.effective)}: all is as the code declares it")
    else:
        terminal.say("nothing is set" if options.scope is None else f"nothing is set at {printable(options.scope)}")
    terminal.say("")
    show_running(terminal, session.running(), document.version)


def _fit(rows: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [tuple(map(printable, row)) for row in rows]


def _end(entry: Entry, now: float) -> str:
    if entry.expires_at is None:
        return "-"
    left_s = entry.expires_at - now
    then = "" if entry.then is None else f", then {shown(entry.then)}"
    return f"in {span(left_s)}{then}" if left_s > 0 else f"expired {span(-left_s)} ago{then}"


def _who(revision: Revision | None) -> str:
    return "-" if revision is None else f"version {revision.version}, {revision.actor}, {stamp(revision.at)}"


def _entry_object(entry: Entry, now: float, since: Revision | None) -> dict[str, Any]:
    shape: dict[str, Any] = {"scope": entry.scope, "name": entry.name, "value": entry.value, "until": None}
    if entry.expires_at is not None:
        shape |= {"until": stamp(entry.expires_at), "then": entry.then, "expired": entry.expires_at <= now}
    if since is not None:
        shape["since"] = {"version": since.version, "at": stamp(since.at), "by": since.actor, "reason": since.reason}
    return shape


# --- diff -------------------------------------------------------------------------------------------------------------


def diff(options: argparse.Namespace, session: Session) -> int:
    """Say what differs between two documents, each a version, a file, or what is set now."""
    one_file = options.second is None and is_file(options.first)
    if one_file:
        old, new = session.load(), _document(options.first, session)
    else:
        old = _document(options.first, session)
        new = session.load() if options.second is None else _document(options.second, session)
    found = differences(old, new)
    terminal = session.terminal
    if options.json:
        terminal.say_json(as_objects(found))
    elif found:
        for each in found:
            terminal.say(line_of(each, terminal.paint))
    else:
        terminal.say("no difference")
    return DONE


def _document(text: str, session: Session) -> Document:
    if not is_file(text):
        return session.at(text)
    content = read(text)
    if isinstance(content, list):
        changes, warnings = changes_of(content, text)
        for warning in warnings:
            session.terminal.note(f"warning: {warning}")
        return changed(session.load(), changes, text)
    document, misread = parsed(content, text)
    problems = (*misread, *examine(document, allow_disable=True).problems)
    if problems:
        raise EndingError(REFUSED, *(f"{text}: {each}" for each in problems))
    return document


# --- history ----------------------------------------------------------------------------------------------------------


def history(options: argparse.Namespace, session: Session) -> int:
    """Say who changed what, when and why."""
    revisions = session.writable.history(options.limit)
    terminal = session.terminal
    if options.json:
        terminal.say_json([revision_object(each) for each in revisions])
        return DONE
    if not revisions:
        terminal.say("nothing has been changed yet")
    for each in revisions:
        head = f"version {each.version}  {stamp(each.at)}  {each.actor}: {each.reason}"
        terminal.say(printable(head))
        for difference in each.changes:
            terminal.say(f"  {line_of(difference, terminal.paint)}")
    return DONE


def revision_object(revision: Revision) -> dict[str, Any]:
    """Return a revision as JSON shows it."""
    return {
        "version": revision.version,
        "at": stamp(revision.at),
        "by": revision.actor,
        "reason": revision.reason,
        "changes": as_objects(revision.changes),
    }
