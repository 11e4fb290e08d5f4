"""What the gate says to a call that is not to be made."""

from typing import NamedTuple

from groundfault.breaker._machine import Permit
from groundfault.errors import RejectedError
from groundfault.vocabulary import Outcome

__all__ = ["Refused"]


class Refused(NamedTuple):
    """A call that is not to be made, or in shadow mode (``enforced`` false) would not have been."""

    outcome: Outcome
    error: RejectedError
    enforced: bool
    probe: Permit | None = None
    """Issued to the health check in place of this call, which is to start it."""
