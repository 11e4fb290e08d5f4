"""Puts the hub together and runs it until it is told to stop."""

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Final

import uvicorn

from groundfault._clock import monotonic, thread_cpu, wall
from groundfault.console.answering import Console, Steers
from groundfault.console.guarding import Guard
from groundfault.console.hub.daemons import BusyError, Daemons
from groundfault.console.hub.editions import Edition
from groundfault.console.hub.gate import Gate, basic
from groundfault.console.hub.history import History
from groundfault.console.hub.keeping import Keeper
from groundfault.console.hub.pulling import Address, Puller
from groundfault.console.hub.seeing import Seeing
from groundfault.console.hub.serving import Parts, Stores, application, pulled
from groundfault.console.hub.streams import Streams
from groundfault.console.hub.watching import Watch
from groundfault.events import note_internal_error
from groundfault.settings.opening import open_store
from groundfault.settings.store import SettingsStore, WritableStore

__all__ = ["Hub", "HubOptions", "listening"]

INTERVAL_S: Final = 1.0
UNREAD_S: Final = 30.0
"""A connection on which nothing of what was sent has been read for so long is ended by the kernel."""

_LONGEST_INTERVAL_S: Final = 10.0
_SHARE: Final = 0.75  # of a core that the mill may take; beyond it views become fewer
_LEAST_SHARE: Final = 0.15  # of it that is left for views, whatever comes in
_WORTH_SAYING: Final = 1.1
_FAREWELL_S: Final = 0.5
_FILES: Final = 65_536
_BACKLOG: Final = 128  # asyncio takes so many connections in a row, and as often fails where there are no files left
_GRACE_S: Final = 1  # uvicorn's: whole seconds
_INTERRUPTED: Final = 128 + signal.SIGINT


@dataclass(frozen=True, slots=True, kw_only=True)
class HubOptions:
    """What a hub is made with. ``database``: None: no history. ``settings``: the address of the store, None: none.

    ``password``: None: everybody may look. ``token``: the hosts' one; ``steering``: people's, None: nobody may steer.
    """

    pull: Sequence[Address] = ()
    database: str | None = None
    settings: str | None = None
    allow_hosts: Sequence[str] = ()
    keep_s: float = 7 * 86_400.0
    token: str | None = None
    steering: str | None = None
    password: str | None = None


class _Server(uvicorn.Server):
    """Ends what has no end before it waits for everything to end."""

    streams: Streams | None = None
    ended_by: int | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals for oneself, and do not raise them again: there is still something to be kept afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note which signal it was."""
        self.ended_by = sig
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.streams is not None:
            self.streams.end()
        await super().shutdown(sockets)


class Hub:
    """One hub.

    Raises SettingsError for options that make no sense, ImportError where a database's driver is missing.
    """

    def __init__(self, options: HubOptions, *, seeing: Seeing | None = None) -> None:
        self._options = options
        guard = Guard(
            hosts=options.allow_hosts,
            auth=None if options.password is None else basic(options.password),
            token=options.steering,
        )
        gate = Gate(token=options.token, steering=options.steering, hosts=options.allow_hosts)
        self.keeper = None
        history = None
        if options.database is not None:
            history = History(options.database)
            self.keeper = Keeper(History(options.database), keep_s=options.keep_s, run=f"{int(wall() * 1000):x}")
        self.watch = Watch(
            title="hub",
            host=socket.gethostname(),
            release=_release(),
            seeing=seeing or Seeing(),
            keeps=self.keeper,
        )
        store = None if options.settings is None else open_store(options.settings)
        own = options.settings == options.database  # whose tables it creates, as those of its history
        self._stores = _stores_of(store, found=getattr(store, "create_tables", None) if own else None)
        self.mill = Daemons("groundfault-hub-mill", threads=1, waiting=600)
        self.streams = Streams(self._whole)
        self.parts = Parts(
            watch=self.watch,
            console=Console(
                lambda: self.watch.newest.compressed(),  # noqa: PLW0108  the newest when it is asked for
                guard=guard,
                steers=_steering_of(store, self.watch),
                live="events",
            ),
            guard=guard,
            gate=gate,
            streams=self.streams,
            mill=self.mill,
            answers=Daemons("groundfault-hub-answers", threads=6, waiting=64),
            history=history,
            stores=self._stores,
        )
        self._hosts: dict[Address, str] = {}
        self._server: _Server | None = None
        self._stopped = False

    async def _whole(self, edition: Edition) -> bytes:
        try:
            return await asyncio.get_running_loop().run_in_executor(self.parts.answers, edition.whole)
        except BusyError:
            return edition.whole()

    async def serve(self, listener: socket.socket) -> None:
        """Serve on that socket until a signal says to stop."""
        async with self.at_work():
            config = uvicorn.Config(
                application(self.parts),
                log_level="critical",
                access_log=False,
                lifespan="off",
                proxy_headers=False,
                server_header=False,
                limit_concurrency=2000,
                backlog=_BACKLOG,
                timeout_keep_alive=15,
                timeout_graceful_shutdown=_GRACE_S,
            )
            self._server = server = _Server(config)
            server.streams = self.streams
            server.should_exit = self._stopped
            await server.serve(sockets=[listener])

    @property
    def ended_by(self) -> int | None:
        """The signal that ended it, None if none has."""
        return None if self._server is None else self._server.ended_by

    def stop(self) -> None:
        """Have it end. May be called from any thread, also before it has begun."""
        self._stopped = True
        if self._server is not None:
            self._server.should_exit = True

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Watch and keep for as long as it is inside; afterwards the hub is at its end."""
        if self.keeper is not None:
            self.keeper.start()
        puller = Puller(self._options.pull, arrived=self._arrived, missed=self._missed)
        tasks = [asyncio.create_task(self._beat()), asyncio.create_task(puller.run())]
        try:
            yield
        finally:
            self.streams.end()
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            self._end()

    def _end(self) -> None:
        self.mill.shutdown()
        self.parts.answers.shutdown()
        if self.keeper is not None:
            self.keeper.stop(_FAREWELL_S)
        if self.parts.history is not None:
            self.parts.history.close()
        close = getattr(self._stores, "close", None)
        if close is not None:
            close()

    # --- reports and views --------------------------------------------------------------------------------------------

    async def _arrived(self, address: Address, body: bytes) -> None:
        host = await pulled(self.parts, body, address.name)
        if host is not None:
            self._hosts[address] = host

    async def _missed(self, address: Address, why: str) -> None:
        name = self._hosts.get(address, address.name)
        with suppress(BusyError):
            await asyncio.get_running_loop().run_in_executor(self.mill, self.watch.miss, name, f"{address.name}: {why}")

    async def _beat(self) -> None:
        """Make a view each second; where reports and views take too much of the mill's thread, more rarely."""
        loop = asyncio.get_running_loop()
        interval_s, due = INTERVAL_S, loop.time()
        busy_before, looked_at = self.mill.busy_s, monotonic()
        while True:
            took_s = 0.0
            try:
                edition, took_s = await loop.run_in_executor(self.mill, self._turn, interval_s)
                self.streams.publish(edition)
            except BusyError:
                self.watch.note("a view was not made: this hub cannot keep up")
            except Exception as error:  # noqa: BLE001  the next second brings the next chance
                note_internal_error("hub", error)
            busy, at = self.mill.busy_s, monotonic()
            receiving = max(0.0, busy - busy_before - took_s) / max(0.1, at - looked_at)
            busy_before, looked_at = busy, at
            wanted_s = took_s / max(_LEAST_SHARE, _SHARE - receiving)
            interval_s += 0.5 * (min(_LONGEST_INTERVAL_S, max(INTERVAL_S, wanted_s)) - interval_s)
            if interval_s < _WORTH_SAYING:
                interval_s = INTERVAL_S
            due = max(due + interval_s, loop.time() + 0.1)
            await asyncio.sleep(due - loop.time())

    def _turn(self, interval_s: float) -> tuple[Edition, float]:
        began = thread_cpu()
        return self.watch.turn(interval_s), thread_cpu() - began


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens there. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    # Its connections have it too. Else twenty pages that stopped reading would keep all others out for as long as they
    # like: nothing that is sent to them ever fails.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_S * 1000))
    return listener


def run(hub: Hub, listener: socket.socket) -> int:
    """Run the hub until SIGINT or SIGTERM; return the exit code."""
    _raise_file_limit()
    try:
        asyncio.run(hub.serve(listener))
    except KeyboardInterrupt:  # before it served
        return _INTERRUPTED
    finally:
        listener.close()
    return _INTERRUPTED if hub.ended_by == signal.SIGINT else 0


def _raise_file_limit() -> None:
    """Allow as many open connections as the system lets this process have.

    The usual 1024 are few for who must answer while anybody keeps a thousand idle ones open.
    """
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # some systems have a lower bound of their own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _stores_of(store: SettingsStore | None, *, found: Callable[[], None] | None) -> Stores | None:
    if not isinstance(store, WritableStore):
        return None
    made: Stores = import_module("groundfault.console.hub.storing").Storing(store, found=found)
    return made


def _steering_of(store: SettingsStore | None, watch: Watch) -> Steers | None:
    if store is None:
        return None
    made: Steers = import_module("groundfault.console.steering").Steering(store, reports=watch.running)
    return made


def _release() -> str:
    try:
        return version("groundfault")
    except PackageNotFoundError:
        return "?"
