"""Live settings in Redis: a version, the document, a list of the last changes, and a channel that says when to look.

::

    store = RedisStore("redis://redis.internal:6379/0")

The version is at ``<key>:version`` and the document, JSON, at ``<key>``. Both are written in one transaction
that fails if somebody else was faster, and read in one.
"""

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Self

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.connection import parse_url
    from redis.retry import Retry
except ImportError as missing:  # pragma: no cover  shown only where the extra is missing
    raise ImportError("groundfault.integrations.redis needs redis-py: pip install 'groundfault[redis]'") from missing

from groundfault._clock import Clock, monotonic, wall
from groundfault.errors import SettingsError
from groundfault.integrations import _settings_forks  # noqa: F401  for what it imports before any fork
from groundfault.integrations import _settings_records as records
from groundfault.settings.document import MAX_BYTES
from groundfault.settings.store import (
    NOTHING_YET,
    Change,
    ConflictError,
    Document,
    MalformedError,
    NothingStoredError,
    Revision,
    StoreError,
)

__all__ = ["RedisStore"]

_MAX_VERSION: Final = 64
_CHEAP_S: Final = 2.0
_DEAR_S: Final = 10.0
_AGAIN_S: Final = 5.0
_HERD_S: Final = 0.2

_inherited: list[object] = []
"""What a forked child has from its parent: kept and never touched."""


class RedisStore:
    """Keeps live settings in one Redis, under three keys that begin with ``key``.

    url_or_client_factory: ``redis://``, ``rediss://`` or ``unix://``; or a callable that makes a client of redis-py,
      once in each process, for whatever a URL cannot say: then all limits on time are yours.
    key: of the document; ``key:version`` and ``key:revisions`` go with it, and the channel ``key:changed``.
      Default ``groundfault:settings``.
    keep: how many changes the history holds, at least 1. Default 200.
    timeout_s: how long to wait for a connection, and then for each answer. Default 1.0, above 0.
    name: how events and errors call it. Default None: its address, or just ``redis`` with a factory.
    clock: returns seconds since 1970, for the history; for tests.

    Nothing is opened before it is used, and a forked child opens its own.
    ``longest_retry_s``: how long whoever follows the store may pause after a failure: 10.0, and 2.0 where there is no
    document yet, for then a look costs next to nothing.
    Raises :class:`~groundfault.errors.SettingsError` for arguments that make no sense.
    """

    def __init__(
        self,
        url_or_client_factory: str | Callable[[], "redis.Redis"],
        *,
        key: str = "groundfault:settings",
        keep: int = 200,
        timeout_s: float = 1.0,
        name: str | None = None,
        clock: Clock = wall,
    ) -> None:
        if not key or not key.isprintable() or " " in key:
            raise SettingsError(f"key must be printable text without spaces, not {key!r}")
        if keep < 1:
            raise SettingsError(f"keep must be at least 1, not {keep!r}")
        if not timeout_s > 0:  # nan is not above it either
            raise SettingsError(f"timeout_s must be above 0, not {timeout_s!r}")
        self._document, self._version = key, f"{key}:version"
        self._revisions, self._channel = f"{key}:revisions", f"{key}:changed"
        self._keep = keep
        self._timeout_s = timeout_s
        self._clock = clock
        self._secrets: list[str] = []
        if callable(url_or_client_factory):
            self._make = url_or_client_factory
            self._name = name or "redis"
        else:
            self._make, address = self._at_url(url_or_client_factory)
            self._name = name or address
        self._pid: int | None = None
        self._client: redis.Redis | None = None
        self._subscription: Any = None
        self._reached = False
        self._again_at = float("-inf")
        self.longest_retry_s = _DEAR_S

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Return the store at a URL; ``options`` are the keywords of the class."""
        return cls(url, **options)

    @property
    def name(self) -> str:
        """The server's address and database, without user and password."""
        return self._name

    def __repr__(self) -> str:
        return f"RedisStore({self._name!r})"

    # --- reading ------------------------------------------------------------------------------------------------------

    def load(self, known: str | None) -> Document | None:
        """Return the document, or None if its version is still ``known``: then that is all that was read.

        Raises StoreError; NothingStoredError where there are no keys; MalformedError for one that makes no sense.
        """
        self._reached = False
        try:
            with self._errors():
                document = self._load(known)
        except StoreError as error:
            self.longest_retry_s = _CHEAP_S if isinstance(error, NothingStoredError) else _DEAR_S
            self._unsubscribe()  # what cannot be read will not say that it has changed
            raise
        self._reached = True
        return document

    def _load(self, known: str | None) -> Document | None:
        # By range, so that what is far too long does not come at all.
        version = self._patiently(lambda client: client.getrange(self._version, 0, _MAX_VERSION))
        if known is not None and version in {known, known.encode()}:  # a client may decode
            return None
        return self._whole()

    def _whole(self) -> Document:
        with self._client_here().pipeline(transaction=True) as pipe:
            pipe.getrange(self._version, 0, _MAX_VERSION)
            pipe.getrange(self._document, 0, MAX_BYTES)
            version, document = pipe.execute()
        if not version and not document:
            raise self._nothing()
        with self._wrong_in(self._version):
            text = records.checked_version(_text(version))
        with self._wrong_in(self._document, text):
            return Document(text, records.document_from_json(_text(document)))

    def history(self, limit: int = 50) -> list[Revision]:
        """Return the last changes, the newest first. Raises StoreError."""
        with self._errors(), self._wrong_in(self._revisions):
            return [
                records.revision_of(*(revision.get(part) for part in ("version", "at", "actor", "reason", "changes")))
                for revision in self._kept(limit)
            ]

    def at(self, version: str) -> Document:
        """Return the document as it was under a version. Raises StoreError, also for one that is not known any more."""
        with self._errors(), self._wrong_in(self._revisions):
            for revision in self._kept(self._keep):
                if revision.get("version") == version:
                    document = records.value_to_json(revision.get("document"))
                    return Document(version, records.document_from_json(document))
            if version == NOTHING_YET:
                return Document(NOTHING_YET)
            raise ValueError(f"version {version!r} is not known, or not any more")

    def _kept(self, limit: int) -> list[dict[str, Any]]:
        if limit < 1:
            return []
        kept = self._patiently(lambda client: client.lrange(self._revisions, 0, limit - 1))
        revisions = [records.json_from(_text(revision)) for revision in kept]
        if not all(isinstance(revision, dict) for revision in revisions):
            raise ValueError("every change must be an object")
        return revisions

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, changes: Iterable[Change], *, reason: str, actor: str, based_on: str) -> str:
        """Apply all changes at once and return the new version, or ``based_on`` if nothing differs.

        Raises ConflictError if the version is not ``based_on`` any more, StoreError.
        """
        fate = "nothing was written"
        try:
            with self._errors(), self._client_here().pipeline(transaction=True) as pipe:
                version = self._prepare(pipe, list(changes), reason, actor, based_on)
                if version != based_on:
                    fate = "whether it was written is not known: look at the history"
                    pipe.execute()
        except redis.WatchError:
            raise self._conflict("somebody else has just changed them", based_on) from None
        except (ConflictError, NothingStoredError):
            raise
        except StoreError as error:
            raise StoreError(f"{error}; {fate}") from None
        return version

    def _prepare(self, pipe: Any, changes: list[Change], reason: str, actor: str, based_on: str) -> str:
        """Read what there is, and queue what there will be; it is carried out only if the first has not changed."""
        actor, reason = records.checked_text("actor", actor), records.checked_text("reason", reason)
        pipe.watch(self._version, self._document)
        try:
            current = self._whole()  # on another connection, where it can be one transaction
        except NothingStoredError:
            current = Document(NOTHING_YET)
        except MalformedError as error:  # whoever was shown that begins anew
            current = Document(error.version)
        if current.version != based_on:
            raise self._conflict(f"they are at version {current.version}", based_on)
        after, differences = records.changed(current.entries, changes)
        if not differences:
            return based_on
        with self._wrong_in(self._version):
            version = records.new_version(records.number_of(based_on) + 1)
        document = records.document_to_json(after)
        revision = {
            "version": version,
            "at": self._clock(),
            "actor": actor,
            "reason": reason,
            "changes": records.pairs_of(differences),
            "document": records.json_from(document),
        }
        pipe.multi()
        pipe.set(self._document, document)
        pipe.set(self._version, version)
        pipe.lpush(self._revisions, records.value_to_json(revision))
        pipe.ltrim(self._revisions, 0, self._keep - 1)
        pipe.publish(self._channel, version)
        return version

    # --- being told ---------------------------------------------------------------------------------------------------

    def wait(self, timeout_s: float) -> None:
        """Return when Redis says that something has changed, otherwise after ``timeout_s``."""
        until = monotonic() + timeout_s
        if self._reached and monotonic() >= self._again_at:
            try:
                if self._is_told(timeout_s):
                    return
            except Exception:  # noqa: BLE001  it is only ever a reason to look sooner
                self._unsubscribe()
                self._again_at = monotonic() + _AGAIN_S
        time.sleep(max(0.0, until - monotonic()))

    def _is_told(self, timeout_s: float) -> bool:
        client = self._client_here()
        if self._subscription is None:
            self._subscription = client.pubsub()  # type: ignore[no-untyped-call]  # redis-py types its commands only
            self._subscription.subscribe(self._channel)
            if self._subscription.get_message(timeout=self._timeout_s) is None:
                raise TimeoutError
            return True  # what was said before this is only to be seen by looking
        if self._subscription.get_message(timeout=timeout_s) is None:
            return False
        # Everybody was told at the same moment. Not everybody should ask at the same moment.
        time.sleep(random.uniform(0.02, _HERD_S))
        return True

    def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None and self._pid == os.getpid():
            with suppress(Exception):  # it is lost anyway
                subscription.close()

    # --- connections --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of connections; a later :meth:`load` makes new ones."""
        self._unsubscribe()
        client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            with suppress(Exception):  # they may be lost already
                client.close()
                client.connection_pool.disconnect()

    def _client_here(self) -> "redis.Redis":
        """Return this process's client, and leave to the parent what is the parent's."""
        if self._pid != os.getpid():
            _inherited.append((self._client, self._subscription))
            self._client = self._subscription = None
            self._pid = os.getpid()
        if self._client is None:
            self._client = self._make()
        return self._client

    def _patiently(self, ask: Callable[["redis.Redis"], Any]) -> Any:
        """Ask once more, on a new connection, if the old one was closed: Redis and firewalls do so to idle ones."""
        client = self._client_here()
        try:
            return ask(client)
        except redis.AuthenticationError:
            raise
        except redis.ConnectionError:
            client.connection_pool.disconnect()
            return ask(client)

    def _at_url(self, url: str) -> tuple[Callable[[], "redis.Redis"], str]:
        try:
            options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]  # as below
        except ValueError:  # it may quote the URL
            raise SettingsError(
                "a Redis settings store needs a URL like redis://host:6379/0, rediss://... or unix:///path"
            ) from None
        self._secrets = [
            value for name, value in options.items() if "pass" in name and isinstance(value, str) and value
        ]
        place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"

        def make() -> "redis.Redis":
            return redis.Redis.from_url(
                url,
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                retry=Retry(NoBackoff(), 0),  # whoever polls is the one who tries again
            )

        return make, f"{url.partition('://')[0]}://{place}/{options.get('db', 0)}"

    # --- errors -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn whatever goes wrong into a StoreError, but for losing a race."""
        try:
            yield
        except (StoreError, redis.WatchError):
            raise
        except Exception as error:  # noqa: BLE001  a client may raise anything, and its text is not to be trusted
            raise self._error(error) from None

    @contextmanager
    def _wrong_in(self, key: str, version: str | None = None) -> Iterator[None]:
        """Say where it is that something is wrong; with a version, it is this one that will stay wrong."""
        try:
            yield
        except ValueError as error:
            wrong = self._error(f"key {key}: {error}")
            raise (wrong if version is None else MalformedError(str(wrong), version)) from None

    def _error(self, cause: object, kind: type[StoreError] = StoreError) -> StoreError:
        return kind(f"settings of {self._name}: {records.cause_of(cause, self._secrets)}")

    def _conflict(self, what: str, based_on: str) -> StoreError:
        return self._error(f"{what}, and the change was based on {based_on}", ConflictError)

    def _nothing(self) -> StoreError:
        return self._error(
            f"there are no keys {self._version} and {self._document}; `groundfault settings set` creates them. "
            "If they were there, was Redis flushed, or restarted without persistence?",
            NothingStoredError,
        )


def _text(answer: Any) -> str:
    """Return the text that Redis holds, whether or not the client has decoded it."""
    try:
        return answer if isinstance(answer, str) else bytes(answer).decode()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
