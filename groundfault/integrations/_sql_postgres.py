"""PostgreSQL through psycopg: a connection that waits for a limited time only, and one that is told of changes.

``statement_timeout`` is kept by the server, so it does not help against a server that stands still,
and TCP's own time limits do not either: its kernel still acknowledges. So it is the waiting that ends.
"""

import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import psycopg
from psycopg import sql

from groundfault._clock import monotonic

__all__ = ["Listener", "PatientConnection", "StalledError", "patience"]

T = TypeVar("T")

_CONNECT_S: Final = 2  # psycopg takes whole seconds, two at least, for each address
_AGAIN_S: Final = 5.0
_HERD_S: Final = 0.2


class StalledError(psycopg.OperationalError):
    """The server has not answered in time. The connection is closed."""


class _Patience(threading.local):
    """Until when this thread waits for servers, by the monotonic clock."""

    until = float("inf")

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Let all that is waited for in here take ``seconds`` at most, taken together."""
        before = self.until
        self.until = min(before, monotonic() + seconds)
        try:
            yield
        finally:
            self.until = before


patience: Final = _Patience()


class PatientConnection(psycopg.Connection[Any]):
    """Waits for the server no longer than the thread's :data:`patience` says; then it is closed."""

    @classmethod
    def open(cls, *args: Any, **kwargs: Any) -> "PatientConnection":
        """Connect, unless there is no time left. Each address has two seconds."""
        if monotonic() >= patience.until:
            raise StalledError("no answer in time, and none left to connect")
        kwargs.setdefault("connect_timeout", _CONNECT_S)
        kwargs.setdefault("application_name", "groundfault-settings")
        kwargs.setdefault("prepare_threshold", None)  # whoever stands between may give each transaction another server
        return cls.connect(*args, **kwargs)

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """Wait as psycopg does; it looks after its generator ten times a second."""
        try:
            return super().wait(_until(gen, patience.until), *args, **kwargs)
        except StalledError:
            self.close()
            raise


def _until(gen: Generator[Any, Any, T], until: float) -> Generator[Any, Any, T]:
    try:
        wanted = next(gen)
        while True:
            wanted = gen.send((yield wanted))
            if monotonic() >= until:  # only now, for what has just come may have been the rest
                raise StalledError("no answer in time")
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what a generator returns is typed by its Generator alone
    finally:
        gen.close()


class Listener:
    """A connection of its own on which PostgreSQL says that something has changed.

    It is only ever a reason to look sooner. Whatever goes wrong, the time is waited out, and tried again later.
    """

    def __init__(self, connect: Callable[[], PatientConnection], channel: str) -> None:
        self._connect = connect
        self._channel = channel
        self._connection: PatientConnection | None = None
        self._again_at = float("-inf")

    def wait(self, timeout_s: float) -> None:
        """Return when told of a change, or after ``timeout_s``; at once after listening has begun."""
        until = monotonic() + timeout_s
        if monotonic() >= self._again_at:
            try:
                if self._connection is None:
                    self._begin()
                    return  # what was said before this is only to be seen by looking
                with patience.within(timeout_s + _CONNECT_S):
                    for _ in self._connection.notifies(timeout=timeout_s, stop_after=1):
                        # Everybody was told at the same moment. Not everybody should ask at the same moment.
                        time.sleep(random.uniform(0.02, _HERD_S))
                        return
            except Exception:  # noqa: BLE001  psycopg without timeout=, pgbouncer, a standby, a broken connection
                self.close()
                self._again_at = monotonic() + _AGAIN_S
        time.sleep(max(0.0, until - monotonic()))

    def _begin(self) -> None:
        with patience.within(_CONNECT_S):
            self._connection = self._connect()
            self._connection.autocommit = True
            self._connection.execute(sql.SQL("listen {}").format(sql.Identifier(self._channel)))

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it is lost anyway
                connection.close()
