"""Where ``groundfault top`` looks: run directories, which it reads itself, or a console that somebody else runs."""

import base64
import json
import os
import socket
import ssl
import zlib
from collections.abc import Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from importlib.metadata import version
from pathlib import Path
from threading import Timer
from typing import Any, Final, NamedTuple, NoReturn, Protocol
from urllib.parse import urlsplit

from groundfault._clock import Clock, monotonic, wall
from groundfault.console._top_checked import NoViewError, checked
from groundfault.console.view import View
from groundfault.metrics._place import read_file

__all__ = ["MEMORY", "Address", "Console", "Looked", "RunDirs", "Source", "SourceError", "address_of", "source_of"]

MEMORY: Final = "console-memory.json.gz"
"""What the recorder of a run directory remembers."""

_LARGEST_SENT: Final = 16 * 2**20
_LARGEST: Final = 64 * 2**20
_LONGEST_REASON: Final = 200
_TIMEOUT_S: Final = 5.0


class SourceError(Exception):
    """Nothing could be read. The message names the source and the cause."""


class Looked(NamedTuple):
    """``view`` is whole; ``said`` is what was said, as it was said. ``age_s``: how old it was when it came."""

    view: View
    said: dict[str, Any]
    age_s: float


class Source(Protocol):
    """What can be looked at again and again, from one thread."""

    looks: int
    """How many looks a first picture takes."""

    def look(self) -> Looked:
        """Return what there is now. Raises SourceError."""


class RunDirs:
    """Reads the reports of processes itself, so it works when nothing else runs."""

    looks = 2

    def __init__(self, directories: Sequence[Path], *, clock: Clock = wall) -> None:
        self._directories = list(dict.fromkeys(directories))
        self._clock = clock
        self._sequence = 0
        self._observers: dict[Path, Any] = {}
        self._services: set[str] = set()

    def look(self) -> Looked:
        """Return what all processes say now."""
        from groundfault.console.views import view_of  # noqa: PLC0415  a console elsewhere needs none of it

        now = self._clock()
        unknown = []
        for directory in self._directories:
            try:
                self._see(directory, now)
            except SourceError as error:
                unknown.append(str(error))
        if len(unknown) == len(self._directories):
            raise SourceError("; ".join(unknown))
        self._sequence += 1
        if self._sequence <= self.looks:
            unknown.append("what came before this command began: rates are those of the moments since")
        view: View = view_of(
            list(self._observers.values()),
            now=now,
            kind="host",
            title=", ".join(sorted(self._services)) or ", ".join(each.name for each in self._directories),
            host=socket.gethostname(),
            release=version("groundfault"),
            sequence=self._sequence,
            interval_s=1.0,
            unknown=unknown,
        )
        return Looked(view, dict(view), 0.0)

    def _see(self, directory: Path, now: float) -> None:
        from groundfault.metrics.rundir import RunDirError, read  # noqa: PLC0415  only a run directory needs it

        try:
            report = read(directory, now)
        except (RunDirError, OSError) as error:
            raise SourceError(f"{directory}: {error}") from None
        observer = self._observers.get(directory)
        if observer is None:
            observer = self._observers[directory] = _begun(directory)
        self._services.update(each.service for each in report.processes if each.service)
        observer.see(report, now)


def _begun(directory: Path) -> Any:
    """Return an observer that goes on where the recorder of this directory stands, if there is one."""
    from groundfault.console.observing import Observer  # noqa: PLC0415  a console elsewhere needs none of it

    with suppress(Exception):  # a memory is welcome, and never needed
        return Observer.recalled(_remembered(directory))
    return Observer()


def _remembered(directory: Path) -> dict[str, Any]:
    """Return what the recorder of this directory remembers. Raises whatever comes of a file that holds none of it."""
    data, _ = read_file(directory / MEMORY, directory.stat().st_uid, probe=False)
    remembered: dict[str, Any] = json.loads(_unpacked(data))["observer"]
    return remembered


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(31)  # as gzip does
    body = unpacker.decompress(data, _LARGEST)
    if unpacker.unconsumed_tail:
        raise SourceError(f"it answers with more than {_LARGEST // 2**20} MiB")
    if not unpacker.eof:
        raise SourceError("its answer ends early")
    return body


class Address(NamedTuple):
    """Where a console answers: ``scheme`` is http, https or unix, and ``path`` that of its snapshot."""

    scheme: str
    host: str
    port: int | None
    path: str
    text: str


def address_of(url: str) -> Address:
    """Return the address that a URL means. Raises ValueError, which says what is wrong with it."""
    if url.startswith("unix:"):
        return Address("unix", url.removeprefix("unix:").removeprefix("//"), None, "/snapshot.json", url)
    split = urlsplit(url)
    if split.scheme not in {"http", "https"} or not split.hostname:
        raise ValueError(f"must be http://..., https://... or unix:/path, not {url!r}")
    if split.username is not None or split.password is not None:
        raise ValueError("must hold no password: put it into GROUNDFAULT_CONSOLE_USER and GROUNDFAULT_CONSOLE_PASSWORD")
    if not (url.isascii() and url.isprintable() and " " not in url):
        raise ValueError("must be of ASCII characters without spaces")
    path = split.path if split.path.endswith("/snapshot.json") else f"{split.path.rstrip('/')}/snapshot.json"
    return Address(split.scheme, split.hostname, split.port, path, url)


class _Unix(HTTPConnection):
    """HTTP through a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Console:
    """Asks a console: a status port, a mounted page, or a hub. Follows no redirect and uses no proxy.

    ``timeout_s``: for the whole of an answer.
    """

    looks = 1

    def __init__(
        self,
        address: Address,
        *,
        user: str | None = None,
        password: str | None = None,
        timeout_s: float = _TIMEOUT_S,
        clock: Clock = monotonic,
    ) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._clock = clock
        self._headers = {"Accept": "application/json", "Accept-Encoding": "gzip", "Connection": "close"}
        if user is not None or password is not None:
            pair = base64.b64encode(f"{user or ''}:{password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {pair}"
        self._changed: tuple[tuple[float, float], float, float] | None = None

    def look(self) -> Looked:
        """Return what the console says now."""
        try:
            body, date = self._asked()
            said = json.loads(body, parse_constant=_refuse_constant)
            view = checked(said)
        except NoViewError as error:
            self._fail(str(error))
        except TimeoutError:
            self._fail(f"no answer within {self._timeout_s:g} s")
        except RecursionError:
            self._fail("what it says is nested too deeply")
        except zlib.error as error:
            self._fail(f"what it says cannot be unpacked: {error}")
        except ValueError as error:
            self._fail(f"what it says is no JSON: {str(error)[:_LONGEST_REASON]}")
        except HTTPException as error:
            self._fail(f"it does not speak HTTP: {type(error).__name__} {str(error)[:_LONGEST_REASON]}")
        except OSError as error:
            self._fail(error.strerror or str(error) or type(error).__name__)
        return Looked(view, said, self._aged(view, date))

    def _aged(self, view: View, date: str | None) -> float:
        """Return how old the view is, by the clock of whoever made it at first, then by ours: they may disagree."""
        now = self._clock()
        mark = (view["made_at"], view["sequence"])
        if self._changed is None or self._changed[0] != mark:
            age_s = 0.0
            if self._changed is None and date is not None:
                with suppress(ValueError, OverflowError):
                    age_s = max(0.0, parsedate_to_datetime(date).timestamp() - view["made_at"])
            self._changed = mark, now, age_s
        _, since, age_s = self._changed
        return age_s + now - since

    def _fail(self, why: str) -> NoReturn:
        raise SourceError(f"{self._address.text}: {why}") from None

    def _connection(self) -> HTTPConnection:
        scheme, host, port, _, _ = self._address
        if scheme == "unix":
            return _Unix(host, self._timeout_s)
        if scheme == "https":
            return HTTPSConnection(host, port, timeout=self._timeout_s, context=ssl.create_default_context())
        return HTTPConnection(host, port, timeout=self._timeout_s)

    def _asked(self) -> tuple[bytes, str | None]:
        connection = self._connection()
        overdue: list[bool] = []
        opened: list[socket.socket] = []  # kept here, for the connection lets go of it before the answer is read

        def cut() -> None:  # a byte now and then would hold us for ever
            overdue.append(True)
            for each in opened:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

        timer = Timer(self._timeout_s, cut)
        timer.daemon = True
        timer.start()
        try:
            connection.connect()
            opened.append(connection.sock)
            connection.request("GET", self._address.path, headers=self._headers)
            with connection.getresponse() as response:
                found = self._read(response), response.headers.get("Date")
            if overdue:
                raise TimeoutError
            return found
        except (OSError, HTTPException):
            if overdue:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()
            connection.close()

    def _read(self, response: HTTPResponse) -> bytes:
        if response.status != HTTPStatus.OK:
            # On one line, whatever it is: a proxy between here and there answers with a page of its own.
            words = " ".join(response.read(_LONGEST_REASON).decode("utf-8", "replace").split())
            unknown = response.status == HTTPStatus.UNAUTHORIZED
            hint = "; set GROUNDFAULT_CONSOLE_USER and GROUNDFAULT_CONSOLE_PASSWORD" if unknown else ""
            self._fail(f"it answers {response.status}: {words}{hint}")
        body = response.read(_LARGEST_SENT + 1)
        if len(body) > _LARGEST_SENT:
            self._fail(f"it answers with more than {_LARGEST_SENT // 2**20} MiB")
        if response.headers.get("Content-Encoding", "").lower() == "gzip":
            try:
                body = _unpacked(body)
            except SourceError as error:
                self._fail(str(error))
        return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def source_of(url: str | None, directories: Sequence[Path]) -> Source:
    """Return the source that the options and the environment name. Raises SourceError, ValueError."""
    if url is not None:
        return Console(
            address_of(url),
            user=os.environ.get("GROUNDFAULT_CONSOLE_USER"),
            password=os.environ.get("GROUNDFAULT_CONSOLE_PASSWORD"),
        )
    named = os.environ.get("GROUNDFAULT_RUN_DIR")
    found = list(directories) or ([Path(named)] if named else [])
    if not found:
        raise SourceError("say where to look: --run-dir or GROUNDFAULT_RUN_DIR, or --url")
    for directory in found:
        if not directory.is_dir():
            raise SourceError(f"{directory} must be the directory that the processes report to; it is none")
    return RunDirs(found)
