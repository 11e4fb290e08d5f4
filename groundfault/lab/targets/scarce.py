"""saber: a small service. Each request holds one of a few slots for a while, and that is all it can do."""

import threading
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any, Final, cast

from groundfault.lab.targets.faults import FaultsFile, Kind, Sickness
from groundfault.lab.targets.part import Part
from groundfault.lab.targets.serving import NoSuchPageError, application, guarded

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["create"]

PATHS: Final = ("lineup", "scores", "entrants", "standings", "lobby")


def create() -> "WSGIApplication":
    """Build the application. gunicorn calls this in the worker.

    Options: ``slots`` at once, ``work_s`` each, and ``sickness``, the kind it has if its instance is sick.
    """
    part = Part.from_environment()
    part.report()
    faults = FaultsFile(Path(part.directory))
    slots = threading.BoundedSemaphore(int(part.number("slots")))
    work_s = part.number("work_s")

    def answer(path: str) -> Any:
        parts = path.split("/")[1:]
        if parts[0] not in PATHS:
            raise NoSuchPageError
        with slots:
            sleep(work_s * faults.now().slower)
        return {parts[0]: parts[1:], "by": part.instance}

    kind = cast("Kind", part.options.get("sickness", "error"))

    def sickly(app: "WSGIApplication") -> "WSGIApplication":
        return Sickness(app, service=part.service, instance=part.instance, kind=kind, faults=faults)

    return guarded(application(part, answer), part, inside=sickly)
