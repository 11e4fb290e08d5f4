"""Real stores: one PostgreSQL and one Redis for the whole folder, each a process of its own on loopback; and hubs."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import create_connection, create_server

import psycopg
import pytest
import redis

_START_S = 30.0
_HERE = Path(__file__).parent

_spec = importlib.util.spec_from_file_location("hub_served", _HERE / "hub_served.py")
hub_served = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hub_served)


def _as_user(name: str) -> dict[str, object]:
    """Return what makes ``Popen`` run a server that refuses to be root as somebody else."""
    return {"user": name, "group": name, "extra_groups": []} if os.geteuid() == 0 else {}


def _await(answers: Callable[[], bool], process: subprocess.Popen) -> None:
    end = time.monotonic() + _START_S  # noqa: TID251  a real process is waited for in real time
    while not answers():
        assert process.poll() is None, "the server died at its start"
        assert time.monotonic() < end, f"no answer within {_START_S} s"  # noqa: TID251  as above
        time.sleep(0.05)


class _Server:
    """A process that can be stopped and started again; what it holds stays."""

    process: subprocess.Popen | None = None

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


class Postgres(_Server):
    """A server on a unix socket, trusting everybody who can open it."""

    def __init__(self, programs: Path, place: Path) -> None:
        self._programs = programs
        self._data = place / "data"
        self.socket = str(place)
        subprocess.run(
            [programs / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8"],
            check=True,
            capture_output=True,
            timeout=120,
            **_as_user("postgres"),
        )

    @property
    def conninfo(self) -> str:
        return f"host={self.socket} user=postgres dbname=postgres"

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@/postgres?host={self.socket}"

    def start(self) -> None:
        if self.process is None:
            self.process = subprocess.Popen(
                [
                    *(self._programs / "postgres", "-D", self._data, "-k", self.socket),
                    *("-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60"),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                **_as_user("postgres"),
            )
            _await(self._answers, self.process)

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.conninfo, connect_timeout=5):
            return True
        return False


class Redis(_Server):
    """A server on a port of its own that keeps nothing."""

    def __init__(self, program: str, place: Path) -> None:
        self._program = program
        self._place = place
        with create_server(("127.0.0.1", 0)) as listener:
            self.port = int(listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        if self.process is None:
            self.process = subprocess.Popen(
                [
                    *(self._program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", self._place),
                    *("--save", "", "--appendonly", "no"),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            _await(self._answers, self.process)

    def _answers(self) -> bool:
        with suppress(redis.ConnectionError), redis.Redis(port=self.port, socket_timeout=5) as client:
            return bool(client.ping())
        return False


class Hub(_Server):
    """A hub in a process of its own, which keeps settings in SQLite."""

    def __init__(self, place: Path) -> None:
        self.path = place / "hub.db"
        with create_server(("127.0.0.1", 0)) as listener:
            self.port = int(listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, _HERE / "hub_served.py", f"sqlite:///{self.path}", str(self.port)],
                env={**os.environ, "PYTHONPATH": str(_HERE.parent.parent)},
            )
            _await(self._answers, self.process)

    def _answers(self) -> bool:
        with suppress(OSError), create_connection(("127.0.0.1", self.port), 5):
            return True
        return False


def _newest_postgres() -> Path | None:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return places[-1].parent if places else None


@contextmanager
def new_postgres() -> Iterator[Postgres | None]:
    """Make a server that is not started yet, and remove it; None where there is no PostgreSQL."""
    programs = _newest_postgres()
    if programs is None:
        yield None
        return
    # Not below pytest's own folder: another user may not look into that, and a socket's path has to be short.
    place = Path(tempfile.mkdtemp(prefix="gf-pg-"))
    if os.geteuid() == 0:
        shutil.chown(place, "postgres", "postgres")
    server = None
    try:
        server = Postgres(programs, place)
        yield server
    finally:
        if server is not None:
            server.stop(signal.SIGQUIT)
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def new_redis() -> Iterator[Redis | None]:
    """Make a server that is not started yet, and remove it; None where there is no Redis."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="gf-redis-") as place:
        server = Redis(program, Path(place))
        try:
            yield server
        finally:
            server.stop(signal.SIGTERM)


@contextmanager
def new_hub() -> Iterator[Hub]:
    """Make a hub that is not started yet, and remove it."""
    with tempfile.TemporaryDirectory(prefix="gf-hub-") as place:
        server = Hub(Path(place))
        try:
            yield server
        finally:
            server.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def _one_postgres() -> Iterator[Postgres]:
    with new_postgres() as server:
        if server is None:
            pytest.skip("no PostgreSQL server on this machine")
        yield server


@pytest.fixture
def postgres(_one_postgres: Postgres) -> Postgres:
    """Return PostgreSQL, running."""
    _one_postgres.start()
    return _one_postgres


@pytest.fixture(scope="session")
def _one_redis() -> Iterator[Redis]:
    with new_redis() as server:
        if server is None:
            pytest.skip("no Redis server on this machine")
        yield server


@pytest.fixture(name="redis")
def running_redis(_one_redis: Redis) -> Redis:
    """Return Redis, running."""
    _one_redis.start()
    return _one_redis


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Return a hub, running in a process of its own, with nothing stored in it."""
    with new_hub() as server:
        server.start()
        yield server


@pytest.fixture
def serve_hub() -> Iterator[Callable[..., "hub_served.HubServed"]]:
    """Return what serves a store as a hub does, on a thread."""
    served = []

    def serve(store: object, **options: object) -> "hub_served.HubServed":
        served.append(hub_served.HubServed(store, **options))
        return served[-1]

    yield serve
    for each in served:
        each.close()
