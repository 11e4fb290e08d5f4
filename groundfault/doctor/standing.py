"""Whether the load shedder stands outermost, from the names of what stands around an application."""

from collections.abc import Mapping
from typing import Any, Final

from groundfault.doctor.finding import Finding, ok, warning

__all__ = ["judge_standing"]

_CHECK: Final = "application"
_SHEDDER: Final = "shedder"
_INNER: Final = "what stands in front runs for refused requests too, and can change what they are told"
_HARMLESS: Final = ("DispatcherMiddleware", "ProxyFix")
"""Werkzeug's. One hands each request to one of several applications, as for /metrics; the others are not ours to guard.
The other writes down who the client is. Neither changes an answer, and both cost next to nothing."""
_LAST: Final = "app.add_middleware(LoadShedder) after all other add_middleware"


def judge_standing(app: Mapping[str, Any]) -> Finding:
    """Judge one application by its ``chain``, its ``middleware`` and whether a shedder is ``elsewhere``."""
    where, chain, middleware = app["target"], list(app["chain"]), app["middleware"]
    around = [*chain[:-1], *(middleware or ()), chain[-1]]
    shown = " > ".join("LoadShedder" if name == _SHEDDER else name for name in around)
    shedders = around.count(_SHEDDER)
    if shedders > 1:
        why = "only the outer one sees all requests, and each counts for itself"
        return warning(_CHECK, where, f"{shedders} load shedders: {shown}", why, "one is enough: the outermost")
    if middleware is not None and _SHEDDER in chain[:-1]:
        why = "behind Starlette's ServerErrorMiddleware every error is a 500: what a dependency caused is not annotated"
        return warning(_CHECK, where, f"LoadShedder is around the whole of {chain[-1]}: {shown}", why, _LAST)
    if shedders == 0 and app["elsewhere"]:
        return ok(_CHECK, where, f"a shedder exists; where it stands is not visible before the start: {shown}")
    if shedders == 0:
        why = (
            "nothing of this application refuses in an overload; a worker class of GroundFault's would, under gunicorn"
        )
        return warning(_CHECK, where, f"no load shedder: {shown}", why, "docs/reference/server.md, two lines")
    before = [name for name in around[: around.index(_SHEDDER)] if name not in _HARMLESS]
    if before:
        outermost = _LAST if middleware is not None else "wrap the application in LoadShedder last"
        return warning(_CHECK, where, f"LoadShedder stands behind {', '.join(before)}: {shown}", _INNER, outermost)
    return ok(_CHECK, where, f"LoadShedder is outermost: {shown}")
