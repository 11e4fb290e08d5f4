"""What every framework's kit does with an error that the framework would answer with a 500 of its own.

Frameworks that turn exceptions into answers leave the shells nothing to see of them.
So each kit asks here, at the place where its framework is about to give up on an error, and answers what it is told.
The fault is written into the ledger of the request, and by that the shell knows how to annotate the answer.
"""

from typing import Final

from groundfault import wire
from groundfault._context import Fault, serving
from groundfault.shedding._propagation import of_error
from groundfault.shedding.shedder import Shedder
from groundfault.vocabulary import Mode, Outcome, Reason

__all__ = ["answer_to"]

_OUTCOMES: Final = {Reason.CIRCUIT_OPEN: Outcome.CIRCUIT_OPEN, Reason.THROTTLED: Outcome.THROTTLED}


def answer_to(error: BaseException, shedder: Shedder, *, accept: str | None, head: bool) -> wire.Answer | None:
    """Return the 503 to answer instead of a 500 for ``error``; None if it is not a dependency's doing. Never raises.

    None as well in shadow mode, where nothing a client can see changes, and outside of a request that is being served.
    ``accept`` is the request's Accept header, ``head`` says that its method is HEAD.
    """
    try:
        context = serving.get()
        if context is None or shedder.rules.mode is not Mode.ENFORCE:
            return None
        verdict = of_error(error, context)
        if verdict is None:
            return None
        outcome = _OUTCOMES.get(verdict.reason, Outcome.SHED)
        context.note(Fault("", "", outcome, verdict.reason, verdict.origin, error))
        return wire.answer(*verdict, accept=accept, head=head)
    except Exception as mine:  # noqa: BLE001  an error of ours must not hide the application's
        shedder.failed("error of the application", mine)
        return None
