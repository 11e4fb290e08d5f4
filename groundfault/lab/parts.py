"""The parts of the chain: who calls whom, what protects them, and how large each is.

::

    fans ──► topps ──► grouper ──► saber ──► contest-db (SQLite behind two connections)
             Starlette  werkzeug    WSGI
             uvicorn    gunicorn    gunicorn

The three phases differ in :class:`Phase` and in nothing else.
"""

import json
import os
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from groundfault import metrics
from groundfault.lab.journal import Journal
from groundfault.sinks import default_sinks

__all__ = [
    "CONNECTIONS",
    "GROUPER_THREADS",
    "GROUPER_WORKERS",
    "ROUND_TRIP_S",
    "SABER_THREADS",
    "Part",
    "Phase",
]

GROUPER_WORKERS = 2
GROUPER_THREADS = 16

SABER_THREADS = 5
CONNECTIONS = 2
ROUND_TRIP_S = 0.1
"""Two connections, a tenth of a second for each query: about twenty requests a second is all that saber can do."""

VARIABLE = "GROUNDFAULT_DEMO_PART"


class Phase(StrEnum):
    """What protects the chain; the three runs of the demo, in order.

    * ``unprotected``: plain HTTP with client timeouts.
    * ``plain-503``: the load shedder and the circuit breakers, without the header that says "on purpose".
    * ``groundfault``: the same with the header.
    """

    UNPROTECTED = "unprotected"
    PLAIN_503 = "plain-503"
    GROUNDFAULT = "groundfault"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What a service process is told: who it is, what protects it, whom it calls, and where it writes.

    ``callee`` is the base URL of the service it calls, empty for the last one.
    ``token`` is repeated by the health check, so that the runner knows its own processes from a stranger on the port.
    """

    service: str
    phase: Phase
    directory: str
    token: str
    callee: str = ""

    @property
    def protected(self) -> bool:
        """True if the shedder and the breakers are installed."""
        return self.phase is not Phase.UNPROTECTED

    @property
    def annotated(self) -> bool:
        """True if answers keep the header."""
        return self.phase is Phase.GROUNDFAULT

    def report(self) -> None:
        """Send the events of this process to the journal that the runner reads, and its counts to the run directory.

        There is one if the runner names one in ``GROUNDFAULT_RUN_DIR``; the demo itself needs none.
        """
        metrics.start()
        default_sinks().use(Journal(Path(self.directory), self.service))

    def environment(self) -> dict[str, str]:
        """Return the environment variable that carries all this to the process."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Self:
        """Read the part this process plays. KeyError if it was not started by the demo."""
        fields = json.loads(os.environ[VARIABLE])
        return cls(**{**fields, "phase": Phase(fields["phase"])})
