"""What a source of advice hands over, and how it fails."""

from dataclasses import dataclass, field

from groundfault.advise.observed import Observed
from groundfault.logfiles.files import SourceError

__all__ = ["Reading", "SourceError"]


@dataclass(slots=True)
class Reading:
    """What was read: commands, and what the person should know of the reading itself, a line each.

    ``hint``: what more could be known, and how.
    """

    commands: list[Observed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hint: str = ""
