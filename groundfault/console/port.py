"""The console on a loopback port, or a unix socket, of its own: it answers while the service drowns."""

import atexit
import errno
import ipaddress
import logging
import os
import socket
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from groundfault._clock import monotonic
from groundfault._family import Family
from groundfault.console._door import Door
from groundfault.console.answering import Console, Steers
from groundfault.console.assembling import assembled
from groundfault.console.guarding import Auth
from groundfault.console.recording import recorder_in_service
from groundfault.errors import SettingsError
from groundfault.events import note_internal_error
from groundfault.metrics.rundir import named_directory

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]  # the module itself is not there

__all__ = ["PORT", "Address", "Port", "serve"]

_log = logging.getLogger("groundfault")

PORT: Final = 9731
_BACKLOG: Final = 128
_SEND_BUFFER: Final = 256 * 1024  # an answer fits in, so that none is waited for
_RETRY_S: Final = 1.0
_YIELD_S: Final = 5.0  # so long who has forked leaves the port to its children
_FAREWELL_S: Final = 0.5
_MOST: Final = 65_535
_UNIX_PATH: Final = 100  # bytes; some systems allow no more

_random: Final = Random()  # its own: a thread that draws from everybody's would change what a test draws


class TakenError(Exception):
    """Somebody else has the address. The message says who, as far as that is known."""


class Address:
    """Where to listen: a port of an interface, or a unix socket. Raises SettingsError for what cannot be one."""

    def __init__(self, host: str = "127.0.0.1", port: int = PORT, path: str | os.PathLike[str] | None = None) -> None:
        if not _is_port(port):
            raise SettingsError(f"port must be a number from 0 to {_MOST}, not {port!r}")
        if path is None and not host:
            raise SettingsError(f"host must be an address, such as 127.0.0.1, not {host!r}")
        self.host = host.removeprefix("[").removesuffix("]") if path is None else ""
        self.port = port
        self.path = None if path is None else Path(path).absolute()
        if self.path is not None:
            if fcntl is None:
                raise SettingsError("a unix socket needs a POSIX system")
            if len(os.fsencode(self.path)) > _UNIX_PATH:
                raise SettingsError(f"path must have at most {_UNIX_PATH} bytes, not {len(os.fsencode(self.path))}")
        self._lock: int | None = None
        self._made: os.stat_result | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"

    @property
    def is_private(self) -> bool:
        """Whether only who is on this machine reaches it."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def listen(self) -> socket.socket:
        """Return a socket that listens there and does not block. Raises OSError, TakenError."""
        sock = self._bound() if self.path is None else self._bound_to_path(self.path)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            sock.listen(_BACKLOG)
            sock.setblocking(False)  # noqa: FBT003  the standard library's signature
        except BaseException:
            sock.close()
            raise
        return sock

    def _bound(self) -> socket.socket:
        (family, kind, proto, _, where), *_ = socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sock = socket.socket(family, kind, proto)
        try:
            if os.name == "posix":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_DEFER_ACCEPT"):  # so that who answers finds the request there, and need not wait
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
            sock.bind(where)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                raise TakenError("another process has it") from None
            raise
        self.port = sock.getsockname()[1]
        return sock

    def _bound_to_path(self, path: Path) -> socket.socket:
        self._take_lock(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _clear(path)
            os.fchmod(sock.fileno(), 0o600)  # what Linux makes the file with, so that it is never anybody else's
            sock.bind(os.fspath(path))
            path.chmod(0o600)
            self._made = path.lstat()
        except BaseException:
            sock.close()
            self.let_go()
            raise
        return sock

    def _take_lock(self, path: Path) -> None:
        """Be the one that may take a stale file away: two that find it at once would each take the other's."""
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise TakenError("another process has it") from None
        self._lock = lock

    @property
    def stands(self) -> bool:
        """Whether what was made is still there: somebody may have cleared the socket's directory."""
        if self.path is None or self._made is None:
            return True
        try:
            return os.path.samestat(self._made, self.path.lstat())
        except OSError:
            return False

    def let_go(self, *, unlink: bool = True) -> None:
        """Take the socket's file away, if it is this process's."""
        made, self._made = self._made, None
        if unlink and made is not None and self.path is not None:
            with suppress(OSError):
                if os.path.samestat(made, self.path.lstat()):
                    self.path.unlink()
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(OSError):
                os.close(lock)


def _clear(path: Path) -> None:
    """Take away the socket that a dead process has left. Raises TakenError if it is alive, or no socket at all."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise TakenError("there is a file of that name, which is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)  # noqa: FBT003  the standard library's signature
        try:
            sock.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise TakenError(f"whether it is alive cannot be told: {error.strerror}") from None
    raise TakenError("another process has it")


def _is_port(port: object) -> bool:
    return isinstance(port, int) and not isinstance(port, bool) and 0 <= port <= _MOST


class Port:
    """Listens, or stands by until the address is free. ``console``: called once there is something to be answered.

    In the child of a fork it stands by anew. ``lends``: whether the parent then leaves the address to its children,
    as it must where each process shows itself alone.
    """

    def __init__(self, address: Address, console: Console, *, lends: bool = False) -> None:
        self.address = address
        self._console = console
        self._lends = lends
        self._door: Door | None = None
        self._begin_anew()
        _ports.add(self)

    def __repr__(self) -> str:
        return f"<Port {self.address} {'listening' if self.is_listening else 'standing by'}>"

    def _begin_anew(self) -> None:
        self._wake = threading.Event()
        self._stopping = False
        self._yields = False
        self._said: str | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_listening(self) -> bool:
        """Whether this process has the address."""
        return self._door is not None

    def start(self) -> None:
        """Begin, on a thread of its own. Never raises an Exception."""
        try:
            thread = threading.Thread(target=self._run, name="groundfault-console-port", daemon=True)
            thread.start()
            self._thread = thread
        except Exception as error:  # noqa: BLE001  the service is worth having without it
            note_internal_error("console port", error)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Give the address back."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(max(0.0, timeout_s))

    def renew(self) -> None:
        """Begin anew in the child of a fork: what listens is the parent's."""
        ran = self._thread is not None and not self._stopping
        door, self._door = self._door, None
        if door is not None:
            door.abandon()
        self.address.let_go(unlink=False)
        self._begin_anew()
        if ran:
            self.start()

    def lend(self) -> None:
        """Leave the address to the children: this process has forked."""
        if self._lends and not self._stopping:
            self._yields = True
            self._wake.set()

    def _run(self) -> None:
        wake = self._wake
        while not self._stopping:
            pause_s = _RETRY_S
            if self._yields:
                self._yields, pause_s = False, _YIELD_S
                self._shut()
            elif self._door is None:
                self._say(self.open())
            elif not self.address.stands:
                self._shut()
                continue
            wake.wait(_random.uniform(0.8, 1.2) * pause_s)
            wake.clear()
        self._shut()

    def open(self) -> str | None:
        """Take the address, on this thread; return why that cannot be, or None. Never raises an Exception."""
        try:
            listener = self.address.listen()
        except TakenError as error:
            return str(error)
        except OSError as error:
            return error.strerror or type(error).__name__
        except Exception as error:  # noqa: BLE001  the next second brings the next chance
            note_internal_error("console port", error)
            return "an internal error; see the log"
        try:
            self._door = Door(listener, self._console)
        except Exception as error:  # noqa: BLE001  no thread is to be had
            listener.close()
            self.address.let_go()
            note_internal_error("console port", error)
            return "no thread could be started"
        _log.info("console: listening on %s", self.address)
        return None

    def _shut(self) -> None:
        door, self._door = self._door, None
        if door is not None:
            self.address.let_go()
            door.close(_FAREWELL_S)

    def _say(self, why: str | None) -> None:
        """Log why it does not listen, once: another worker of this service has the address, as a rule."""
        before, self._said = self._said, why
        if why is not None and why != before:
            _log.info("console: standing by for %s: %s", self.address, why)


_ports: Final[Family[Port]] = Family(Port.renew)
_served: Final[list[Port]] = []  # held here, for nobody else needs to


def _note_fork() -> None:
    for port in _ports.members():
        port.lend()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_note_fork)


@atexit.register
def _say_farewell() -> None:
    until = monotonic() + _FAREWELL_S
    for port in _ports.members():
        port.stop(until - monotonic())


def serve(
    run_dir: str | os.PathLike[str] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    path: str | os.PathLike[str] | None = None,
    token: str | None = None,
    hosts: Iterable[str] = (),
    auth: Auth | None = None,
    settings: "str | Steers | None" = None,
    public: bool = False,
) -> Port:
    """Serve the console on an address of its own, from threads of this process; return at once.

    ``run_dir``: the run directory of the service; None, the default, for the one that ``GROUNDFAULT_RUN_DIR`` names;
    without one it shows this process alone.

    ``host``, ``port``: where; 0 is any free port. ``path``: a unix socket instead, for this user alone. Of several
    workers one gets the address; the others stand by, and take it within seconds when that one ends.

    ``auth``: as for :class:`~groundfault.console.StatusApp`; ``public``: everybody may look. An address that is not of
    the loopback interface needs one of them. ``token``, ``hosts``, ``settings``: as there.

    Raises SettingsError. An address that cannot be had is none: it is tried for again each second.
    """
    address = Address(host, port, path)
    if auth is None and not public and not address.is_private:
        raise SettingsError(
            f"a console on {address.host} can be reached from elsewhere: it needs auth=, such as "
            "basic_auth(user, password), or public=True"
        )
    recorder = partial(recorder_in_service, run_dir)
    console = assembled(recorder, hosts=hosts, auth=auth, token=token, settings=settings)
    served = Port(address, console, lends=named_directory(run_dir) is None)
    _served.append(served)
    served.start()
    return served
