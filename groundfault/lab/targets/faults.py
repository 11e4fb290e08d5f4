"""What is wrong with a service at this moment: written by whoever makes the trouble, read by the service itself."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Final, Literal

from groundfault import wire
from groundfault.vocabulary import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Faults", "FaultsFile", "Kind", "Sickness", "refuse"]

Kind = Literal["handled", "plain", "error", "slow"]

SLOW_S: Final = 5.0
"""How long a sick instance of the slow kind takes: longer than anybody waits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """What is wrong with the services of a target.

    ``slower``: how many times as long the work takes. ``sick``: the instances that are. ``silent``: whether the
    database stops answering. ``cleared``: how many times all caches have been cleared.
    """

    slower: float = 1.0
    sick: tuple[int, ...] = ()
    silent: bool = False
    cleared: int = 0

    def write(self, directory: Path) -> None:
        """Make these the faults of the services that were told this directory."""
        draft = directory / "faults.new"
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(directory / "faults.json")


class FaultsFile:
    """Reads :class:`Faults` again whenever the file was replaced."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "faults.json"
        self._seen = (0, 0)
        self._faults = Faults()

    def now(self) -> Faults:
        """Return the faults in force; none as long as there is no file."""
        try:
            found = self._path.stat()
            seen = (found.st_ino, found.st_mtime_ns)
            if seen != self._seen:
                fields = json.loads(self._path.read_text())
                self._faults = Faults(**{**fields, "sick": tuple(fields["sick"])})
                self._seen = seen
        except FileNotFoundError:
            pass
        return self._faults


class Sickness:
    """Answers everything but health checks badly for as long as this instance is said to be sick.

    ``kind``: ``handled``, an annotated 503, as a shedder that has gone mad would; ``plain``, the same without the
    annotation; ``error``, a 500; ``slow``, the right answer after five seconds.
    """

    def __init__(self, app: "WSGIApplication", *, service: str, instance: int, kind: Kind, faults: FaultsFile) -> None:
        self._app = app
        self._instance = instance
        self._kind = kind
        self._faults = faults
        self._annotations = list(wire.annotations(Reason.QUEUE_WAIT, service)) if kind == "handled" else []

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> "Iterable[bytes]":
        """Serve one request."""
        if self._instance not in self._faults.now().sick or environ["PATH_INFO"] == "/healthz":
            return self._app(environ, start_response)
        if self._kind == "slow":
            sleep(SLOW_S)
            return self._app(environ, start_response)
        status = "500 Internal Server Error" if self._kind == "error" else "503 Service Unavailable"
        return refuse(start_response, self._annotations, status)


def refuse(
    start_response: "Callable[..., object] | StartResponse",
    headers: list[tuple[str, str]],
    status: str = "503 Service Unavailable",
) -> list[bytes]:
    """Answer that status, 503 by default, with these headers."""
    body = b"not now\n"
    start_response(status, [("Content-Length", str(len(body))), *headers])
    return [body]
