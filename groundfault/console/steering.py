"""Live settings on the console: look, see what a change would do, make it, go back; with a reason, and never blindly.

What is refused here is what the command line refuses, by the same code. What is written was previewed on the very
version that it changes.
"""

import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

from groundfault._clock import Clock, wall
from groundfault.console.answering import RefusedError
from groundfault.console.explaining import bounds, explained
from groundfault.console.telling import difference_object, refused, safe, told
from groundfault.console.turns import Answered, Turn, Turns
from groundfault.console.wanting import Wanted, problem, wanted_of
from groundfault.errors import SettingsError
from groundfault.events import note_internal_error
from groundfault.settings.document import as_mapping, differences
from groundfault.settings.opening import open_store
from groundfault.settings.store import (
    NOTHING_YET,
    UNSET,
    Change,
    ConflictError,
    Document,
    MalformedError,
    NothingStoredError,
    SettingsStore,
    StoreError,
    WritableStore,
)
from groundfault.settingscli.checking import examine
from groundfault.settingscli.differences import Difference, as_changes, line_of
from groundfault.settingscli.ending import without_credentials
from groundfault.settingscli.looking import revision_object
from groundfault.settingscli.planning import LEFT_WRONG, Plan, PlanError, end_after, planned, restoring, unsetting
from groundfault.settingscli.processes import Reports, reported, running_versions, unknown_services
from groundfault.settingscli.values import printable

__all__ = ["Steering"]

_log: Final = logging.getLogger("groundfault")

_SHOWN_REVISIONS: Final = 50
_MOST_REVISIONS: Final = 200
_MOST_LINES: Final = 50


class _Look(NamedTuple):
    """What the store holds. ``spoiled``: why that is no document; None if it is one."""

    document: Document
    spoiled: str | None = None


class Steering:
    """Implements :class:`~groundfault.console.answering.Steers` over a store of live settings.

    ``store``: the store, or its address as :func:`~groundfault.settings.opening.open_store` takes it; nothing is
    opened or connected to yet. One that cannot be written is shown all the same.
    ``allow_disable``: whether a scope that names nothing may switch protection off; processes obey that only if they
    were given it, too. Default false. ``clock``: returns the wall time in seconds, for overrides that end.
    ``reports``: asked which services there are; default: the processes of this host say it in GROUNDFAULT_RUN_DIR.
    ``limit_s``: how long an answer may take, 5.0; a store that hangs costs one thread, whatever is asked of it.

    May be made before a fork. Raises what ``open_store`` raises; its methods raise RefusedError and nothing else.
    """

    def __init__(
        self,
        store: str | SettingsStore,
        *,
        allow_disable: bool = False,
        clock: Clock = wall,
        reports: Reports = reported,
        limit_s: float = 5.0,
    ) -> None:
        self._url = store if isinstance(store, str) else None
        self._store = open_store(store) if isinstance(store, str) else store
        self._allow_disable = allow_disable
        self._clock = clock
        self._reports = reports
        self._turns = Turns(limit_s, "groundfault-steering")
        self._last: tuple[str, int, Answered] | None = None  # what was shown, of which version, with how much history

    def shown(self, query: str) -> Answered:
        """Return what there is. ``history=N`` in the query: the last N changes, up to 200; default 50."""
        asked = parse_qs(query[:1000]).get("history", [""])[-1]
        limit = min(int(asked), _MOST_REVISIONS) if asked.isascii() and asked.isdigit() else _SHOWN_REVISIONS
        return self._answered(partial(self._shown, limit))

    def preview(self, asked: Answered) -> Answered:
        """Return what a change, or a rollback, would do. Nothing is written."""
        wanted = wanted_of(asked)
        return self._answered(lambda _: told(*self._planned(wanted)))

    def change(self, asked: Answered) -> Answered:
        """Make a change, or a rollback, if it is what was looked at: on that version, with those differences."""
        return self._answered(partial(self._changed, wanted_of(asked)))

    def close(self) -> None:
        """Let go of the store's connections; the next question makes new ones."""

        def work(_: Turn) -> Answered:
            self._store.close()
            return {}

        self._answered(work)

    # --- everything that waits for the store goes through here ------------------------------------------------------

    def _answered(self, work: Callable[[Turn], Answered]) -> Answered:
        try:
            answer: Answered = self._turns.take(printable(self._store.name), work)
        except RefusedError as error:
            raise RefusedError(error.status, *map(self._clean, error.lines), **error.more) from None
        except PlanError as error:
            lines = [self._clean(each) for each in error.lines]
            raise RefusedError(422, *lines, problems=[problem(each, "name") for each in lines]) from None
        except (StoreError, ImportError) as error:
            raise RefusedError(503, self._clean(str(error))) from None
        except SettingsError as error:
            raise RefusedError(422, self._clean(str(error))) from None
        except Exception as error:  # noqa: BLE001  a store may be anybody's
            note_internal_error("console steering", error)
            raise RefusedError(500, f"unexpected {type(error).__name__} from the store; see the log") from None
        return answer

    def _clean(self, line: str) -> str:
        return without_credentials(printable(line), self._url)

    # --- looking ----------------------------------------------------------------------------------------------------

    def _look(self) -> _Look:
        try:
            return _Look(self._loaded())
        except NothingStoredError:
            return _Look(Document(NOTHING_YET))
        except MalformedError as error:
            return _Look(Document(error.version), self._clean(str(error)))

    def _loaded(self) -> Document:
        document = self._store.load(None)
        if document is None:
            raise StoreError(f"{self._store.name} handed over no document")
        return document

    def _shown(self, limit: int, _: Turn) -> Answered:
        # Anybody who may look can ask; so what has not changed costs the store no more than saying so.
        if self._last is not None and self._last[1] >= limit and self._is_still(self._last[0]):
            return {**self._last[2], "history": self._last[2]["history"][:limit]}
        look = self._look()
        store, document = self._store, look.document
        found = examine(document, allow_disable=self._allow_disable)
        answer = {
            "store": printable(store.name),
            "version": document.version,
            "writable": isinstance(store, WritableStore),
            "document": safe(as_mapping(document)),
            "names": bounds(),
            "settings": explained(),
            "history": self._history(limit),
            "problems": [look.spoiled] if look.spoiled is not None else [printable(each) for each in found.problems],
            "warnings": [printable(each) for each in found.warnings],
        }
        self._last = document.version, limit, answer
        return answer

    def _history(self, limit: int) -> list[Any]:
        if not (isinstance(self._store, WritableStore) and limit):
            return []
        try:
            return [safe(revision_object(each)) for each in self._store.history(limit)]
        except NothingStoredError:
            return []

    def _is_still(self, version: str) -> bool:
        try:
            return version != NOTHING_YET and self._store.load(version) is None
        except (MalformedError, NothingStoredError):
            return False

    # --- planning ---------------------------------------------------------------------------------------------------

    def _planned(self, wanted: Wanted) -> tuple[Document, Plan, list[str]]:
        """Return what the plan is based on, the plan, and what is to be said of it. Raises RefusedError, PlanError."""
        store = self._writable
        look = self._look()
        before = look.document
        if before.version != wanted.based_on:
            raise self._conflict(wanted.based_on, before)
        if look.spoiled is not None and wanted.rollback is None:
            raise RefusedError(409, look.spoiled, "roll back to a version that was good")
        now = self._clock()
        restores = wanted.rollback is not None
        if wanted.rollback is not None:
            changes, notes = restoring(before, self._target(store, wanted.rollback), now)
        else:
            changes, notes = _changes(wanted, before, now)
        try:
            plan = planned(
                before,
                changes,
                allow_disable=self._allow_disable,
                mends=not restores and all(each.value is None for each in wanted.changes),
                restores=restores,
            )
        except PlanError as error:
            raise refused(error, changes) from None
        warnings = [*notes, *(f"{LEFT_WRONG}: {each}" for each in plan.left_wrong), *plan.warnings]
        if look.spoiled is not None:
            warnings.insert(0, f"what is there is no document, and is to be replaced: {look.spoiled}")
        running = running_versions(self._reports())
        scopes = (each.scope for each in changes if each.value is not UNSET)
        warnings += [
            f"no process of this host reports a service that {scope} is for"
            for scope in unknown_services(scopes, running)
        ]
        return before, plan, [self._clean(each) for each in warnings]

    @property
    def _writable(self) -> WritableStore:
        if not isinstance(self._store, WritableStore):
            raise RefusedError(
                403,
                f"{self._store.name} can be read only: it takes no changes and keeps no history; nothing was written",
            )
        return self._store

    def _target(self, store: WritableStore, version: str) -> Document:
        try:
            return store.at(version)
        except StoreError as error:
            # A version that is not known is a mistake of who asks, and no trouble with the store, if that answers.
            store.history(1)
            raise RefusedError(422, str(error), problems=[problem(self._clean(str(error)), "rollback")]) from None

    # --- writing ----------------------------------------------------------------------------------------------------

    def _changed(self, wanted: Wanted, turn: Turn) -> Answered:
        before, plan, warnings = self._planned(wanted)
        answer = told(before, plan, warnings)
        if wanted.fingerprint is not None and wanted.fingerprint != answer["fingerprint"]:
            # An override that has ended since then, say: the version is the same, what the change would do is not.
            raise RefusedError(
                409, "this would not do any more what was previewed; nothing was written", **answer, meanwhile=[]
            )
        if not plan.differences and self._look().spoiled is None:
            return answer
        if turn.given_up:
            raise RefusedError(503, "too late: nothing was written")
        store, actor = self._writable, wanted.by or f"console@{socket.gethostname()}"
        try:
            version = store.write(
                as_changes(plan.differences), reason=wanted.reason, actor=actor, based_on=before.version
            )
        except ConflictError:
            raise self._conflict(wanted.based_on, self._look().document) from None
        self._last = None  # a file's version is its content, and may be one that was shown before
        self._note(version, actor, wanted.reason, before, plan.differences)
        return {**answer, "version": version}

    def _note(self, version: str, actor: str, reason: str, before: Document, found: Iterable[Difference]) -> None:
        """Log a change, once, where only warnings are kept, too: it acts on a whole fleet."""
        lines = [line_of(each) for each in found]
        fields = {
            "event": "settings-changed-on-console",
            "store": printable(self._store.name),
            "version": version,
            "based_on": before.version,
            "by": actor,
            "reason": reason,
            "changes": [difference_object(each) for each in found],
        }
        _log.warning(
            "live settings of %s are at version %s, changed on the console by %r because of %r: %s",
            fields["store"], version, actor, reason, "; ".join(lines), extra={"groundfault": fields},
        )  # fmt: skip

    def _conflict(self, based_on: str, now: Document) -> RefusedError:
        """Return what to say where somebody else was faster: what has changed since, by whom, and why."""
        store = self._writable
        lines = [f"{store.name} holds version {now.version}, not {based_on} any more; nothing was written"]
        revisions: list[dict[str, Any]] = []
        found: Sequence[Difference] = ()
        try:
            recent = store.history(_MOST_LINES)
            newer = list(takewhile(lambda each: each.version != based_on, recent))
            known = len(newer) < len(recent) or based_on == NOTHING_YET
            revisions = [safe(revision_object(each)) for each in (newer if known else recent[:1])]
            old = Document(NOTHING_YET) if based_on == NOTHING_YET else store.at(based_on)
            found = differences(old, now)[:_MOST_LINES]
        except StoreError as error:
            lines.append(f"what has changed cannot be shown: {error}")
        lines += [line_of(each) for each in found]
        lines += [f"version {each['version']}  {each['at']}  {each['by']}: {each['reason']}" for each in revisions]
        return RefusedError(
            409,
            *lines,
            version=now.version,
            meanwhile=[difference_object(each) for each in found],
            revisions=revisions,
        )


def _changes(wanted: Wanted, before: Document, now: float) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    changes: list[Change] = []
    notes: list[str] = []
    for wish in wanted.changes:
        if wish.value is None:
            taken, said = unsetting(before, wish.scope, [wish.name], now)
            changes += taken
            notes += said
        else:
            until = None if wish.for_s is None else end_after(wish.for_s, now)
            changes.append(Change(wish.scope, wish.name, wish.value, until))
    return tuple(changes), tuple(notes)
