"""Stores of live settings that can be brought into trouble and out of it, for settings_trouble.py."""

import contextlib
import importlib.util
import os
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import redis

from groundfault.integrations.hub import HubStore
from groundfault.integrations.redis import RedisStore
from groundfault.integrations.sql import SQLStore
from groundfault.settings.store import WritableStore

HERE = Path(__file__).parent
DELAY_S = 0.7
HUB_LOOKS_S = 0.5  # twice the time between two looks of a hub at its own store
TROUBLES = ("stopped", "killed", "slow", "poisoned")


# --- a proxy that can be slow -----------------------------------------------------------------------------------------


class Proxy:
    """Forwards to a server, and holds each of its answers back for ``delay_s``."""

    def __init__(self, to: Callable[[], socket.socket]) -> None:
        self._to = to
        self.delay_s = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                try:
                    server = self._to()
                except OSError:
                    client.close()
                    continue
                self._open += [client, server]
                for source, target, slow in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._forward, args=(source, target, slow), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, slow: bool) -> None:  # noqa: FBT001  one of two directions
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if slow:
                    time.sleep(self.delay_s)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        for each in self._open:
            each.close()


# --- stores, and what befalls them ------------------------------------------------------------------------------------


class Place:
    """A store with one good document in it, and how to bring it into trouble and out of it."""

    kind = "none"
    troubles: tuple[str, ...] = TROUBLES

    def store(self) -> WritableStore:
        raise NotImplementedError

    def trouble(self, which: str) -> None:
        raise NotImplementedError

    def heal(self, which: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what was opened."""


class Served(Place):
    """A server of its own, behind a proxy."""

    def __init__(self, server: Any, connect: Callable[[], socket.socket]) -> None:
        self.server = server
        self.proxy = Proxy(connect)

    def _processes(self) -> list[int]:
        pid = self.server.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def trouble(self, which: str) -> None:
        if which == "stopped":
            for pid in self._processes():
                os.kill(pid, signal.SIGSTOP)
        elif which == "killed":
            self.server.stop(signal.SIGQUIT if self.kind == "postgres" else signal.SIGKILL)
        elif which == "slow":
            self.proxy.delay_s = DELAY_S
        else:
            self.poison()

    def heal(self, which: str) -> None:
        if which == "stopped":
            for pid in reversed(self._processes()):
                os.kill(pid, signal.SIGCONT)
        elif which == "killed":
            self.server.start()
        elif which == "slow":
            self.proxy.delay_s = 0.0
        else:
            self.purge()

    def poison(self) -> None:
        raise NotImplementedError

    def purge(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.proxy.close()


class InRedis(Served):
    kind = "redis"

    def __init__(self, server: Any) -> None:
        super().__init__(server, lambda: socket.create_connection(("127.0.0.1", server.port)))

    def store(self) -> WritableStore:
        return RedisStore(f"redis://127.0.0.1:{self.proxy.port}/0", key="trouble")

    def poison(self) -> None:
        with redis.Redis(port=self.server.port) as client:
            client.mset({"trouble": '{"*": {"timeout_s": NaN}}', "trouble:version": "666-poison"})

    def purge(self) -> None:
        with redis.Redis(port=self.server.port) as client:
            client.delete("trouble", "trouble:version")


class InPostgres(Served):
    kind = "postgres"

    def __init__(self, server: Any) -> None:
        def connect() -> socket.socket:
            there = socket.socket(socket.AF_UNIX)
            try:
                there.connect(f"{server.socket}/.s.PGSQL.5432")
            except OSError:
                there.close()
                raise
            return there

        super().__init__(server, connect)

    def store(self) -> WritableStore:
        return SQLStore(
            f"postgresql+psycopg://postgres@127.0.0.1:{self.proxy.port}/postgres?sslmode=disable",
            table_prefix="trouble_",
        )

    def poison(self) -> None:
        with psycopg.connect(self.server.conninfo) as connection:
            connection.execute("update trouble_entries set value = 'NaN'")
            connection.execute("update trouble_version set version = '666-poison'")

    def purge(self) -> None:
        with psycopg.connect(self.server.conninfo) as connection:
            connection.execute("delete from trouble_entries")
            connection.execute("update trouble_version set version = '667-purged'")


class InHub(Served):
    """A hub that keeps the settings in a SQLite file."""

    kind = "hub"

    def __init__(self, server: Any) -> None:
        super().__init__(server, lambda: socket.create_connection(("127.0.0.1", server.port)))

    def store(self) -> WritableStore:
        return HubStore(f"http://127.0.0.1:{self.proxy.port}")

    def poison(self) -> None:
        with closing(sqlite3.connect(self.server.path)) as poisoning, poisoning:
            poisoning.execute("update groundfault_entries set value = 'NaN'")
            poisoning.execute("update groundfault_version set version = '666-poison'")

    def purge(self) -> None:
        with closing(sqlite3.connect(self.server.path)) as purging, purging:
            purging.execute("delete from groundfault_entries")
            purging.execute("update groundfault_version set version = '667-purged'")
        time.sleep(HUB_LOOKS_S)


class InSQLite(Place):
    kind = "sqlite"
    troubles = ("stopped", "killed", "poisoned")

    def __init__(self, directory: Path) -> None:
        self.path = directory / "settings.db"
        self._lock: sqlite3.Connection | None = None

    def store(self) -> WritableStore:
        return SQLStore(f"sqlite:///{self.path}", timeout_s=1.0)

    def trouble(self, which: str) -> None:
        if which == "stopped":
            with closing(sqlite3.connect(self.path, isolation_level=None)) as plain:
                plain.execute("pragma journal_mode=delete")  # or readers would go on reading
            self._lock = sqlite3.connect(self.path, isolation_level=None)
            self._lock.execute("begin exclusive")
        elif which == "killed":
            self.path.rename(self.path.with_suffix(".gone"))
        else:
            with closing(sqlite3.connect(self.path)) as poisoning, poisoning:
                poisoning.execute("update groundfault_entries set value = 'NaN'")
                poisoning.execute("update groundfault_version set version = '666-poison'")

    def heal(self, which: str) -> None:
        if which == "stopped" and self._lock is not None:
            self._lock.close()
        elif which == "killed":
            self.path.with_suffix(".gone").rename(self.path)
        else:
            with closing(sqlite3.connect(self.path)) as purging, purging:
                purging.execute("delete from groundfault_entries")
                purging.execute("update groundfault_version set version = '667-purged'")


@contextmanager
def places(only: str | None) -> Iterator[list[Place]]:
    """Start the servers, in the way that the tests do."""
    path = HERE.parent / "tests" / "integrations" / "conftest.py"
    spec = importlib.util.spec_from_file_location("servers_of_the_tests", path)
    assert spec is not None
    assert spec.loader is not None
    servers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(servers)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gf-trouble-")))
        found: list[Place] = [InSQLite(directory)] if only in {None, "sqlite"} else []
        for kind, make in (("postgres", servers.new_postgres), ("redis", servers.new_redis), ("hub", servers.new_hub)):
            if only not in {None, kind}:
                continue
            server = stack.enter_context(make())
            if server is None:
                print(f"{kind} is not on this machine and is left out", file=sys.stderr)
                continue
            server.start()
            found.append({"postgres": InPostgres, "redis": InRedis, "hub": InHub}[kind](server))
        yield found
        for place in found:
            place.close()
