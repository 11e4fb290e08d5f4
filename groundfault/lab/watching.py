"""The demo's chain in the console: where its services report to, and the page that shows them meanwhile."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Final

from groundfault._clock import monotonic
from groundfault.lab.processes import DemoError, Process, start, stop

__all__ = ["run_directory", "watched"]

_START_S: Final = 10.0
_SAYS: Final = "http://"


def run_directory(directory: Path, service: str) -> Path:
    """Return where a service reports to: the same in all phases, so that the page shows them one after the other."""
    return directory / "run" / service


@contextmanager
def watched(directory: Path, services: Sequence[str], *, port: int) -> Iterator[str]:
    """Serve the console of these services while the demo runs, and give its address.

    Raises :class:`~groundfault.lab.processes.DemoError` if it does not start, as where the port is taken.
    """
    words = []
    for service in services:
        place = run_directory(directory, service)
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        words += ["--run-dir", str(place)]
    status = start("status", ["groundfault", "status", "--port", str(port), *words], directory=directory)
    try:
        yield _address(status)
    finally:
        stop([status])


def _address(status: Process) -> str:
    give_up = monotonic() + _START_S
    while monotonic() < give_up and status.ended() is None:
        said = status.log.read_text(errors="replace")
        if _SAYS in said and said.endswith("\n"):
            return _SAYS + said.partition(_SAYS)[2].split()[0]
        sleep(0.05)
    raise DemoError(f"the console did not start: {status.last_words() or 'it said nothing'}; its log: {status.log}")
