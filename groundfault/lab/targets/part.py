"""What one service process of a target is told, and what it reports."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

from groundfault import metrics
from groundfault.lab.journal import Journal
from groundfault.lab.parts import Phase
from groundfault.sinks import default_sinks

__all__ = ["CallJournal", "Option", "Part"]

Option = float | str

_VARIABLE: Final = "GROUNDFAULT_LAB_PART"


class CallJournal(Journal):
    """Journals calls and changes. Requests are counted at the door instead, in all variants alike.

    A sink that asks for requests would also make the shedder leave its cheap ways.
    """

    skips_requests = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Who a process is, what protects it, whom it calls, and where it writes.

    ``variant``: as the demo's phases. ``callees``: base URLs of the instances of each service it calls.
    ``token``: repeated by the health check, so that a stranger on the port is not taken for this process.
    ``options``: numbers and words that its own module knows the meaning of.
    """

    service: str
    instance: int
    variant: Phase
    directory: str
    token: str
    callees: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)

    @property
    def protected(self) -> bool:
        """True if the shedder and the commands are installed."""
        return self.variant is not Phase.UNPROTECTED

    @property
    def annotated(self) -> bool:
        """True if refusals keep their header, and those of others are believed."""
        return self.variant is Phase.GROUNDFAULT

    def number(self, name: str) -> float:
        """Return an option that is a number. KeyError if the target does not set it."""
        return float(self.options[name])

    def url(self, service: str) -> str:
        """Return where the first instance of a service is. KeyError if this one does not call it."""
        return self.callees[service][0]

    def report(self) -> None:
        """Send the events of this process to the target's journals, and its counts to the run directory, if any."""
        metrics.start()
        default_sinks().use(CallJournal(Path(self.directory), self.service))

    def environment(self) -> dict[str, str]:
        """Return the environment variable that carries all this to the process."""
        return {_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Self:
        """Read the part this process plays. KeyError if it was not started as part of a target."""
        fields = json.loads(os.environ[_VARIABLE])
        callees = {name: tuple(urls) for name, urls in fields["callees"].items()}
        return cls(**{**fields, "variant": Phase(fields["variant"]), "callees": callees})
