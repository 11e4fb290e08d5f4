"""A store that is one file, TOML or JSON. It is looked at with ``stat`` and read when it has changed.

A change is noticed within half a second, also where the path is a symbolic link that is set to another file, as
Kubernetes does with what it mounts from a ConfigMap. What is being written at the moment is read again.
"""

import fcntl
import json
import os
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from time import sleep
from typing import Any, Final, NoReturn

from groundfault._clock import Clock, monotonic, wall
from groundfault.errors import SettingsError
from groundfault.settings._history import History
from groundfault.settings.document import MAX_BYTES, as_mapping, changed, differences, parse, path_of, validate
from groundfault.settings.store import (
    NOTHING_YET,
    Change,
    ConflictError,
    Document,
    Entry,
    MalformedError,
    NothingStoredError,
    Revision,
    StoreError,
)

__all__ = ["FileStore"]

_LOOK_S: Final = 0.4
_SETTLE_S: Final = 0.1
_TRIES: Final = 6
_LOCK_S: Final = 5.0
_FRESH_NS: Final = 2_000_000_000  # a file changed twice within a tick of its file system's clock looks unchanged
_BY_HAND: Final = "unknown"
_MOST_SHOWN: Final = 80

Signature = tuple[int, int, int, int, int]
_NEVER: Final[Signature] = (0, 0, 0, 0, 0)


class FileStore:
    """A :class:`~groundfault.settings.store.WritableStore`: the file at ``path``, which ends in ``.toml`` or ``.json``.

    The version is a short hash of the content. Raises SettingsError for another ending.
    Changes are written to a new file that takes the old one's place, under ``<path>.lock``;
    the history is in ``<path>.history.jsonl``. To write TOML needs the extra ``tomlkit``.
    ``clock``, ``wall_clock`` and ``sleep`` are for tests.
    """

    longest_retry_s: Final = 1.0
    """A missing file is looked for as often as a present one: to look costs nothing."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock = monotonic,
        wall_clock: Clock = wall,
        sleep: Callable[[float], object] = sleep,
    ) -> None:
        self.path = Path(path).absolute()
        self._kind = self.path.suffix.lower()
        if self._kind not in {".toml", ".json"}:
            raise SettingsError(f"a settings file must end in .toml or .json, not as {str(path)!r} does")
        self._clock = clock
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._signature: Signature | None = None  # of what was read last, if that can be told from what comes after
        self._version: str | None = None

    def __repr__(self) -> str:
        return f"<FileStore {self.path}>"

    @property
    def name(self) -> str:
        """``file:`` and the path."""
        return f"file:{self.path}"

    # --- reading ----------------------------------------------------------------------------------------------------

    def load(self, known: str | None) -> Document | None:
        """Return the document, or None if its version is still ``known``. Raises StoreError, MalformedError."""
        if known is not None and known == self._version and self._signature and self._signature == self._look():
            return None
        data, seen = self._read(settled=known is None)
        version = _version_of(data, seen)
        fresh = abs(self._wall_clock() * 1e9 - seen[0]) < _FRESH_NS
        self._signature, self._version = None if fresh else seen, version
        if version == known:
            return None
        return self._parsed(data, seen)

    def wait(self, timeout_s: float) -> None:
        """Return when the file has another time, size or place on the disk, or after ``timeout_s``."""
        before = self._signature or self._look()
        ends_at = self._clock() + timeout_s
        while (left_s := ends_at - self._clock()) > 0:
            self._sleep(min(left_s, _LOOK_S))
            if self._look() != before:
                return

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def _look(self) -> Signature | None:
        """Return what tells one content from the next; None if there is nothing to be seen."""
        with suppress(OSError):
            return _signature_of(self.path.stat())
        return None

    def _read(self, *, settled: bool) -> tuple[bytes, Signature]:
        """Return the content, up to one byte too many, that nobody was seen to be writing.

        ``settled``: it may have stood there for long, and one reading will do if its age says so.
        """
        data, seen = b"", _NEVER
        for attempt in range(_TRIES):
            try:
                before = self.path.stat()
                if not stat.S_ISREG(before.st_mode):
                    self._fail("is a directory" if stat.S_ISDIR(before.st_mode) else "is no file")
                seen = _signature_of(before)
                with self.path.open("rb") as file:
                    data = b"" if before.st_size > MAX_BYTES else file.read(MAX_BYTES + 1)
            except FileNotFoundError:
                raise NothingStoredError(f"{self.name}: No such file or directory") from None
            except OSError as error:
                self._fail(error.strerror or str(error))
            if before.st_size > MAX_BYTES:
                return bytes(MAX_BYTES + 1), seen
            old = settled and self._wall_clock() * 1e9 - seen[0] > _FRESH_NS
            if old or (self._kind == ".json" and self._is_whole(data)):
                if self._look() == seen:
                    return data, seen
            else:
                self._sleep(_SETTLE_S * (1 + attempt // 2))
                if self._look() == seen and data:
                    return data, seen
        if self._look() != seen:
            self._fail("is being written all the time")
        return data, seen  # empty, and nobody writes it

    def _is_whole(self, data: bytes) -> bool:
        """Return whether it parses. Of JSON that says that nothing is missing, of TOML it says nothing."""
        try:
            json.loads(data)
        except (ValueError, RecursionError):
            return False
        return True

    def _parsed(self, data: bytes, seen: Signature) -> Document:
        version = _version_of(data, seen)
        if len(data) > MAX_BYTES:
            raise MalformedError(f"{self.name} must be at most {MAX_BYTES} bytes, not {seen[1]}", version)
        if not data.strip():
            empty = "{}" if self._kind == ".json" else "a comment"
            raise MalformedError(f"{self.name} is empty; to have no settings, write {empty} into it", version)
        try:
            text = data.decode()
            return parse(tomllib.loads(text) if self._kind == ".toml" else _json(text), version)
        except RecursionError:
            raise MalformedError(f"{self.name} is nested too deeply", version) from None
        except (ValueError, SettingsError) as error:
            raise MalformedError(f"{self.name} cannot be read: {error}", version) from None

    def _fail(self, why: str) -> NoReturn:
        raise StoreError(f"{self.name}: {why}")

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, changes: Iterable[Change], *, reason: str, actor: str, based_on: str) -> str:
        """Apply all changes at once and return the new version. What stood there before is kept in the history.

        ``based_on``: the version that was looked at; ``NOTHING_YET`` makes a file that is not there yet, and that of
        content that is no document begins anew.
        Raises ConflictError, StoreError; SettingsError if the result makes no sense; ImportError without ``tomlkit``.
        """
        changes = list(changes)
        path = Path(os.path.realpath(self.path))  # or the link would be replaced, and not what it leads to
        with self._locked(path):
            text, old, readable = self._current(based_on)
            if old.version != based_on:
                raise ConflictError(f"{self.name} holds version {old.version}, not {based_on} any more")
            wanted = changed(old, changes, "")
            validate(wanted, allow_disable=True)
            _check_text(wanted)
            data = self._written(text, changes, wanted).encode()
            new = self._parsed(data, _NEVER)
            if differences(wanted, new):
                self._fail("the change cannot be written in a way that reads back as it was meant")
            history = History(path.with_name(f"{path.name}.history.jsonl"))
            try:
                last = history.last()
                if readable and (last is None or last.version != old.version):
                    self._note_by_hand(history, last, old)
                _replace(path, data)
                revision = Revision(new.version, self._wall_clock(), actor, reason, differences(old, new))
                history.append(revision, new)
            except OSError as error:
                self._fail(f"cannot be written: {error.strerror or error}")
        return new.version

    def history(self, limit: int = 50) -> list[Revision]:
        """Return the last changes, the newest first. What was edited by hand shows with the next change after it."""
        return self._history().revisions()[::-1][:limit]

    def at(self, version: str) -> Document:
        """Return the document as it was under a version. Raises StoreError for one that is not in the history."""
        found = self._history().documents().get(version)
        if found is None:
            current = self.load(None)
            if current is None or current.version != version:
                raise StoreError(f"{self.name} knows no version {version}")
            return current
        return found

    def _history(self) -> History:
        path = Path(os.path.realpath(self.path))
        return History(path.with_name(f"{path.name}.history.jsonl"))

    def _current(self, based_on: str) -> tuple[str, Document, bool]:
        """Return text and document, and whether somebody meant what stands there."""
        try:
            data, seen = self._read(settled=True)
            return data.decode(errors="replace"), self._parsed(data, seen), True
        except NothingStoredError:
            if based_on != NOTHING_YET:
                raise
        except MalformedError as error:
            if based_on != error.version:
                raise
        return "{}" if self._kind == ".json" else "", Document(based_on), False

    def _written(self, text: str, changes: Iterable[Change], wanted: Document) -> str:
        if self._kind == ".json":
            return json.dumps(as_mapping(wanted), indent=2, ensure_ascii=False) + "\n"
        # By name, for the walls between the rooms: other libraries are brought in above this one.
        rewritten: Callable[[str, Iterable[Change]], str] = import_module("groundfault.integrations.tomlkit").rewritten
        meant = {(entry.scope, entry.name): entry for entry in wanted.entries}
        said = rewritten(text, [_settled(change, meant.get((change.scope, change.name))) for change in changes])
        return said or "# no settings\n"  # an empty file would be taken for half a one

    def _note_by_hand(self, history: History, last: Document | None, found: Document) -> None:
        at = self.path.stat().st_mtime
        was = () if last is None else differences(last, found)
        history.append(Revision(found.version, at, _BY_HAND, "found in the file", was), found)

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """Keep other writers away, on this machine. The lock's file stays: to remove it would let two in at once."""
        try:
            descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            self._fail(f"cannot be written: {error.strerror or error}")
        try:
            ends_at = self._clock() + _LOCK_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if self._clock() >= ends_at:
                        self._fail(f"is being written by somebody else for more than {_LOCK_S:g} s")
                    self._sleep(_SETTLE_S)
            yield
        finally:
            os.close(descriptor)


def _version_of(data: bytes, seen: Signature) -> str:
    """Return what content goes by; one that is too large, and not all there, by what is seen of the file."""
    return _hash(repr(seen).encode() if len(data) > MAX_BYTES else data)


def _check_text(document: Document) -> None:
    """Raise SettingsError for half a pair of surrogates, which JSON's escapes can hold, and a file cannot."""
    for entry in document.entries:
        for value in (entry.value, entry.then):
            try:
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise SettingsError(
                    f"{path_of(entry)} must be text that UTF-8 can hold, not {ascii(value)[:_MOST_SHOWN]}"
                ) from None


def _settled(change: Change, entry: Entry | None) -> Change:
    """Return the change with what comes after it spelled out."""
    return change if entry is None else replace(change, then=entry.then)


def _signature_of(seen: os.stat_result) -> Signature:
    return seen.st_mtime_ns, seen.st_size, seen.st_ino, seen.st_dev, seen.st_ctime_ns


def _hash(data: bytes) -> str:
    return blake2b(data, digest_size=6).hexdigest()


def _json(text: str) -> Any:
    """Read JSON as strictly as it is defined: without NaN, and without a key that is said twice."""
    return json.loads(text, parse_constant=_no_number, object_pairs_hook=_once)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{ascii(twice)[:80]} is said twice")
    return table


def _replace(path: Path, data: bytes) -> None:
    """Put new content in a file's place at once, with the old one's mode and owner."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            with suppress(FileNotFoundError):
                old = path.stat()
                with suppress(PermissionError):
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # or the name might still be the old file's after a power cut
    finally:
        os.close(directory)
