"""Worker classes for gunicorn that refuse before they parse, close without waiting, and stop without tripping anybody.

``gunicorn -k groundfault.integrations.gunicorn.SyncWorker app:app``, or ``.ThreadWorker`` with ``--threads``.
In a configuration file ``install(globals())`` as its last line does the same beside hooks of its own.
"""

import os
import signal
import socket
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from inspect import signature
from ipaddress import ip_address
from typing import Any, Final

from gunicorn import util
from gunicorn.workers import gthread, sync

from groundfault._clock import monotonic, wall
from groundfault.events import note_internal_error
from groundfault.integrations._gunicorn_closing import Closer
from groundfault.integrations._gunicorn_gate import Answer, Gate, is_read_to_end
from groundfault.integrations._gunicorn_stop import DRAIN_S, Stop, server_is_stopping
from groundfault.metrics.rundir import RUN_DIR, fold, named_directory
from groundfault.metrics.writer import start
from groundfault.shedding._socket import self_test
from groundfault.shedding.shedder import live_shedders

__all__ = ["SyncWorker", "ThreadWorker", "child_exit", "install", "post_worker_init"]

_TICK_S: Final = 0.05  # how often a worker that is stopping looks up
_LOG_S: Final = 60.0  # so often a worker says how many it has refused
_LEAVE_S: Final = 1.0  # so long a worker that ends sees its last connections off


class _Kit:
    """What both worker classes have in common. Mixed in before gunicorn's class."""

    drain_s: float = DRAIN_S
    """While the server stops: so long at most, in seconds, requests that still come are answered ``draining``."""

    alive: bool
    cfg: Any
    log: Any
    ppid: int
    sockets: list[Any]
    wsgi: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gate = Gate(self, threads=isinstance(self, gthread.ThreadWorker))
        self.closer = Closer()
        self.stop = Stop(self.drain_s)
        self._kinds: dict[Any, tuple[int, int, int]] = {}  # of each listener, what its connections are made of
        self._notified_at = float("-inf")

    def init_process(self) -> None:
        """Begin in the worker's process. Here gunicorn's own way of closing is replaced, for this process alone.

        Up to gunicorn 25 that is a plain close, which may reset the connection; since then one that waits.
        """
        setattr(util, "close_graceful" if hasattr(util, "close_graceful") else "close", self.closer.close)
        super().init_process()  # type: ignore[misc]  # gunicorn's class comes behind this one

    def load_wsgi(self) -> None:
        """Load the application and find its shedder."""
        super().load_wsgi()  # type: ignore[misc]  # as above
        self.wsgi = self.gate.around(self.wsgi)

    def handle_exit(self, sig: int, frame: object) -> None:
        """On SIGTERM: stop at once if others take the connections, else tell those who still come."""
        try:
            if self.stop.begun:  # asked again: it is under way
                return
            if self.alive and server_is_stopping(self.sockets, self.ppid):
                self.gate.drain()
                self.stop.begin(monotonic(), self.cfg.graceful_timeout)
                self._wake_up()
                return
        except Exception as error:  # noqa: BLE001  then it stops as gunicorn does
            note_internal_error("gunicorn stop", error)
        super().handle_exit(sig, frame)  # type: ignore[misc]  # as above

    def notify(self) -> None:
        """Tell the master that this worker lives; called in every round of its loop.

        Twenty times a second at most: it is a system call, and the master's patience is counted in seconds.
        """
        now = monotonic()
        if now - self._notified_at >= _TICK_S:
            self._notified_at = now
            super().notify()  # type: ignore[misc]  # as above
            self.gate.log_refusals(now, due_s=_LOG_S)
        if self.stop.begun and self.alive and self.stop.is_over(monotonic(), self.sockets):
            self.alive = False

    def run(self) -> None:
        """Serve until told otherwise, then see the last connections off."""
        try:
            super().run()  # type: ignore[misc]  # as above
        finally:
            self.gate.log_refusals(monotonic())
            for each in self.sockets:  # nobody is taken any more, so nobody shall wait to be
                each.close()
            self.closer.finish(_LEAVE_S)

    def _wake_up(self) -> None:
        """Let the main loop look up before its timeout: gunicorn's wakeup descriptor does it for the sync worker."""


class SyncWorker(_Kit, sync.SyncWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's ``sync`` worker that refuses before it parses: one request at a time, every connection closed."""

    def accept(self, listener: Any) -> None:
        """Take one connection and serve it."""
        # As gunicorn's, without three system calls: such a socket blocks and is closed on exec already (PEP 446).
        # And without looking two enumerations up for each connection, at a microsecond.
        kind = self._kinds.get(listener)
        if kind is None:
            client, addr = listener.accept()
            own = getattr(listener, "sock", None)
            if isinstance(own, socket.socket):
                self._kinds[listener] = (int(own.family), int(own.type), own.proto)
        else:
            descriptor, addr = listener.sock._accept()  # noqa: SLF001  what socket.accept() calls
            client = socket.socket(*kind, fileno=descriptor)
        if client.gettimeout() is not None:  # the application has set one for all sockets to come
            client.setblocking(True)  # noqa: FBT003  by place in the standard library
        self.handle(listener, client, addr)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve or refuse the request on a new connection."""
        if self.stop.begun:
            self.stop.saw(monotonic())
        verdict = self.gate.look(client, addr)
        if verdict is None:
            super().handle(listener, client, addr)
        elif isinstance(verdict, tuple):
            self._refuse(client, verdict)
        else:
            self.gate.hand_over(verdict)
            try:
                super().handle(listener, client, addr)
            finally:
                self.gate.hand_over(None)
                verdict.close()

    def _refuse(self, client: Any, answer: Answer) -> None:
        data, consumed, whole, _ = answer
        try:
            client.recv(consumed)
            client.sendall(data)
        except OSError as error:
            self.log.debug("groundfault: the client of a refused request has gone: %s", error)
            whole = True
        if whole:
            with suppress(OSError):
                client.close()
        else:
            self.closer.close(client)

    def handle_request(self, listener: Any, req: Any, client: Any, addr: Any) -> None:
        """Serve a parsed request, and note whether its connection may be closed at once."""
        try:
            super().handle_request(listener, req, client, addr)
        finally:
            if not self.cfg.is_ssl and is_read_to_end(req):
                self.closer.note_read_to_end(client)

    def wait(self, timeout: float) -> Any:
        """Wait for connections; only briefly while stopping."""
        return super().wait(min(timeout, _TICK_S) if self.stop.begun else timeout)


class ThreadWorker(_Kit, gthread.ThreadWorker):  # type: ignore[misc]  # as above
    """gunicorn's ``gthread`` worker that refuses before it parses, and keeps connections alive while it does."""

    def init_process(self) -> None:
        """Begin in the worker's process."""
        self._keepalive = self.cfg.keepalive  # which looks a setting up at each question
        super().init_process()

    def handle(self, conn: Any) -> Any:
        """Serve or refuse the next request of a connection, in a thread of the worker's."""
        if self.stop.begun:
            self.stop.saw(monotonic())
        verdict = self.gate.look(conn.sock, conn.client, conn, may_keep=self._may_keep)
        if verdict is None:
            return super().handle(conn)
        if isinstance(verdict, tuple):
            return self._refuse(conn, verdict)
        conn.data_ready = True  # it has been seen: there is no need to wait for it
        self.gate.hand_over(verdict)
        try:
            return super().handle(conn)
        finally:
            self.gate.hand_over(None)
            verdict.close()

    def _may_keep(self) -> bool:
        return (
            self.alive and not self.stop.begun and self._keepalive > 0 and len(_kept_alive(self)) < self.max_keepalived
        )

    def _refuse(self, conn: Any, answer: Answer) -> Any:
        data, consumed, whole, keep = answer
        sock = conn.sock
        try:
            sock.recv(consumed)
            _send_all(sock, data)
            if keep:
                conn.init()  # what comes after looks into the connection's parser
        except OSError as error:
            self.log.debug("groundfault: the client of a refused request has gone: %s", error)
            keep = False
        if whole and not keep:
            self.closer.note_read_to_end(sock)
        return keep if _ANSWERS_BY_VALUE else (keep, conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Serve a parsed request, and note whether its connection may be closed at once."""
        keep = super().handle_request(req, conn)
        if not keep and not self.cfg.is_ssl and is_read_to_end(req):
            self.closer.note_read_to_end(conn.sock)
        return keep

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for something to do; only briefly while stopping."""
        super().wait_for_and_dispatch_events(min(timeout, _TICK_S) if self.stop.begun else timeout)

    def _wake_up(self) -> None:
        defer = getattr(getattr(self, "method_queue", None), "defer", None)
        if defer is not None:
            defer(lambda: None)


def _send_all(sock: Any, data: bytes) -> None:
    """Send all of it on a socket that may be non-blocking: as it nearly always fits, that is not changed first."""
    try:
        sent = sock.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        sock.settimeout(None)
        sock.sendall(data[sent:])


_ANSWERS_BY_VALUE: Final = hasattr(gthread.ThreadWorker, "set_accept_enabled")
"""gunicorn's thread tells its main thread whether to keep the connection; up to 24 together with the connection."""


def _kept_alive(worker: Any) -> Any:
    kept = getattr(worker, "keepalived_conns", None)
    return worker._keep if kept is None else kept  # noqa: SLF001  gunicorn's own name for it up to 24


def post_worker_init(worker: Any) -> None:
    """Do what can be done for stock workers; a hook of ``gunicorn.conf.py``, called by gunicorn.

    Warns of the pause in front of clients that close slowly, and drains the application's shedders when the whole
    server stops, for kept-alive connections. Starts the worker's reports, if there is a run directory.
    """
    start()
    try:
        self_test.start()
        if isinstance(worker, _Kit):
            return
        if str(worker.cfg.settings["worker_class"].get()).startswith(__name__):
            worker.log.warning(
                "groundfault: with threads gunicorn puts its own %s in the place of our SyncWorker; "
                "set threads in the configuration file in front of install(), or name -k %s.ThreadWorker",
                type(worker).__name__,
                __name__,
            )
        if _may_be_kept_waiting(worker):
            worker.log.warning(
                "groundfault: %s waits up to 2 s for each client to close its connection; "
                "put a proxy in front, or use groundfault.integrations.gunicorn.%s",
                type(worker).__name__,
                type(worker).__name__,
            )
        _drain_on_stop(worker)
    except Exception as error:  # noqa: BLE001  a worker must start
        note_internal_error("gunicorn post_worker_init", error)


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001  gunicorn's signature
    """Fold what a worker has counted that has died; a hook of ``gunicorn.conf.py``, called in the master.

    Whoever reads the run directory would do it, too. So it stays small where nobody does. Never raises an Exception.
    """
    try:
        directory = named_directory()
        if directory is not None and directory.is_dir():
            fold(directory, wall(), timeout_s=0.0)
    except Exception as error:  # noqa: BLE001  the master must go on
        note_internal_error("gunicorn child_exit", error)


def _may_be_kept_waiting(worker: Any) -> bool:
    if not hasattr(util, "close_graceful") or not isinstance(worker, sync.SyncWorker | gthread.ThreadWorker):
        return False
    return any(not _is_local(each.getsockname()) for each in worker.sockets)


def _is_local(name: Any) -> bool:
    try:
        return not isinstance(name, tuple) or ip_address(name[0]).is_loopback
    except ValueError:
        return False


def _drain_on_stop(worker: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before):
        return

    def drain_and_stop(sig: int, frame: Any) -> None:
        try:
            if server_is_stopping(worker.sockets, worker.ppid):
                for shedder in live_shedders():
                    shedder.drain()
        except Exception as error:  # noqa: BLE001  it must stop
            note_internal_error("gunicorn stop", error)
        before(sig, frame)

    signal.signal(signal.SIGTERM, drain_and_stop)
    signal.siginterrupt(signal.SIGTERM, False)  # noqa: FBT003  as gunicorn has it


def install(namespace: MutableMapping[str, Any], *, run_dir: str | os.PathLike[str] | None = None) -> None:
    """Protect what a ``gunicorn.conf.py`` configures; its last line: ``install(globals())``.

    A ``worker_class`` of ``sync``, ``gthread`` or none becomes ours; any other stays.
    ``post_worker_init`` and ``child_exit`` run after hooks of these names that are there already.
    A command line option ``-k`` goes before.
    ``run_dir`` is the directory into which the workers report, see :mod:`groundfault.metrics`, unless the environment
    variable ``GROUNDFAULT_RUN_DIR`` names one; None, the default: none but that.
    Of ``threads`` only the file's are seen here: with ``--threads`` name ``-k`` and :class:`ThreadWorker` as well.
    """
    try:
        threads = int(namespace.get("threads", 1))  # gunicorn takes text, too, as from an environment variable
    except (TypeError, ValueError):  # gunicorn will say so
        threads = 1
    stock = namespace.get("worker_class", "sync")
    if stock == "gthread" or (stock == "sync" and threads > 1):
        namespace["worker_class"] = f"{__name__}.ThreadWorker"
    elif stock == "sync":
        namespace["worker_class"] = f"{__name__}.SyncWorker"
    namespace["post_worker_init"] = _after(namespace.get("post_worker_init"), post_worker_init)
    namespace["child_exit"] = _after(namespace.get("child_exit"), child_exit)
    if run_dir is not None and not os.environ.get(RUN_DIR):
        os.environ[RUN_DIR] = os.fspath(run_dir)  # for the workers, and for a new master after SIGUSR2


def _after(first: Any, second: Callable[..., None]) -> Callable[..., None]:
    if not callable(first) or first is second:
        return second
    if len(signature(second).parameters) > 1:  # gunicorn counts a hook's parameters

        def both_of(server: Any, worker: Any) -> None:
            first(server, worker)
            second(server, worker)

        return both_of

    def both(worker: Any) -> None:
        first(worker)
        second(worker)

    return both
