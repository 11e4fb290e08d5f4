"""``watch``: says what changes while it changes, and outlives the store's troubles."""

import argparse
from collections.abc import Sequence
from random import uniform
from time import sleep
from typing import TYPE_CHECKING, Any, Final

from groundfault.settings.document import differences
from groundfault.settings.store import Document, Entry, MalformedError, Revision, StoreError, WritableStore
from groundfault.settingscli.checking import examine
from groundfault.settingscli.differences import Difference, Paint, as_objects, line_of, path_of, shown_entry
from groundfault.settingscli.moments import stamp
from groundfault.settingscli.session import Session
from groundfault.settingscli.values import printable

if TYPE_CHECKING:
    from groundfault.settingscli.processes import Running

__all__ = ["watch"]

_POLL_S: Final = 1.0
_LONGEST_RETRY_S: Final = 30.0
_REVISIONS: Final = 20


def watch(options: argparse.Namespace, session: Session) -> int:
    """Print a line for each change until Ctrl-C, which ends it as it ends everything: with KeyboardInterrupt."""
    watcher = _Watcher(session, as_json=options.json)
    while True:
        watcher.look()


class _Watcher:
    """What was seen last, and how long the store has been in trouble."""

    def __init__(self, session: Session, *, as_json: bool) -> None:
        self._session = session
        self._store = session.store
        self._as_json = as_json
        self._seen: Document | None = None
        self._known: str | None = None
        self._failures = 0
        self._looked_at = session.clock()
        self._running: dict[tuple[int, str], Running] = {}

    def look(self) -> None:
        """Look once, say what is new, and wait for more."""
        try:
            document = self._store.load(self._known)
        except MalformedError as error:
            # It is there and says nothing of use; the next version may.
            self._reached()
            self._known = error.version
            self._say("rejected", f"rejected: {error}", version=error.version, error=str(error))
        except StoreError as error:
            self._expiries()
            self._processes()
            self._wait_for_store(error)
            return
        else:
            self._reached()
            if document is not None:
                self._new(document)
        self._expiries()
        self._processes()
        self._store.wait(_POLL_S)

    def _wait_for_store(self, error: StoreError) -> None:
        retry_s = min(_LONGEST_RETRY_S, _POLL_S * 2.0 ** min(self._failures, 10)) * uniform(0.8, 1.2)
        self._failures += 1
        self._say(
            "unreachable", f"unreachable: {error}; next try in {retry_s:.1f} s", error=str(error), retry_s=retry_s
        )
        sleep(retry_s)

    def _reached(self) -> None:
        if self._failures:
            self._say("reached", f"reached: {self._store.name} answers again")
        self._failures = 0

    def _new(self, document: Document) -> None:
        seen, known = self._seen, self._known
        self._seen, self._known = document, document.version
        count = len(document.entries)
        if seen is None:
            words = f"version {document.version} of {self._store.name}: {count} set"
            self._say("version", words, version=document.version, entries=count)
        else:
            for version, difference, revision in self._told(known, seen, document):
                self._change(version, difference, revision)
        for problem in examine(document, allow_disable=False).problems:
            words = f"version {document.version} is rejected by processes: {problem}"
            self._say("rejected", words, version=document.version, error=problem)

    def _told(self, known: str | None, old: Document, new: Document) -> list[tuple[str, Difference, Revision | None]]:
        """Return each change with its version, and who made it and why if the history tells."""
        found = differences(old, new)
        revisions = self._since(known, new.version)
        told = [(each.version, difference, each) for each in revisions for difference in each.changes]
        # A file may have been edited by hand in between, of which no history knows.
        if {path_of(each) for each in found} <= {path_of(difference) for _, difference, _ in told}:
            return list(told) or [(new.version, (None, None), None)]
        return [(new.version, difference, None) for difference in found]

    def _since(self, known: str | None, version: str) -> Sequence[Revision]:
        """Return the revisions from ``known`` to ``version``, the oldest first; none if the history has gaps."""
        if not isinstance(self._store, WritableStore):
            return ()
        try:
            revisions = self._store.history(_REVISIONS)
        except StoreError:
            return ()
        if not revisions or revisions[0].version != version:
            return ()
        newer: list[Revision] = []
        for each in revisions:
            if each.version == known:
                break
            newer.append(each)
        return newer[::-1]

    def _change(self, version: str, difference: Difference, revision: Revision | None) -> None:
        who = "" if revision is None else f"  ({revision.actor}: {revision.reason})"
        facts: dict[str, Any] = {"version": version}
        if revision is not None:
            facts |= {"by": revision.actor, "reason": revision.reason}
        if difference == (None, None):
            self._say("version", f"version {version}: nothing else has changed{who}", **facts)
            return
        facts["change"] = as_objects([difference])[0]

        def words(paint: Paint) -> str:
            return f"{printable(f'version {version}')}: {line_of(difference, paint)}{printable(who)}"

        self._print("change", words, facts)

    def _expiries(self) -> None:
        now, before = self._session.clock(), self._looked_at
        self._looked_at = now
        for each in () if self._seen is None else self._seen.entries:
            if each.expires_at is not None and before < each.expires_at <= now:
                self._expired(each)

    def _expired(self, entry: Entry) -> None:
        difference = (entry, None)
        words = f"expired: {path_of(difference)}  {shown_entry(entry)}"
        self._say("expired", words, change=as_objects([difference])[0])

    def _processes(self) -> None:
        running = {(each.pid, each.store): each for each in self._session.running()}
        for key, each in running.items():
            before = self._running.get(key)
            if before is None or before.version != each.version:
                words = f"process {each.pid} of {each.service} runs version {each.version or '-'}"
                self._say("process", words, pid=each.pid, service=each.service, version=each.version)
        for key in self._running.keys() - running.keys():
            gone = self._running[key]
            words = f"process {gone.pid} of {gone.service} has ended"
            self._say("process_ended", words, pid=gone.pid, service=gone.service)
        self._running = running

    def _say(self, event: str, words: str, **facts: Any) -> None:
        self._print(event, lambda _: printable(words), facts)

    def _print(self, event: str, words: Any, facts: dict[str, Any]) -> None:
        at = stamp(self._session.clock())
        terminal = self._session.terminal
        if self._as_json:
            terminal.say_json({"at": at, "event": event, **facts})
        else:
            terminal.say(f"{at} {words(terminal.paint)}")
