"""Where the load shedder of an application stands: what is around it, as names. Runs where the application is."""

import gc
import sys
from typing import Any, Final

__all__ = ["standing"]

_DEEPEST: Final = 40
_REPLACED: Final = ("wsgi_app", "asgi_app", "asgi_handler")
"""What Flask, Quart and Litestar call themselves by: what is put there stands in front of them."""
_INWARD: Final = (*_REPLACED, "application", "app", "_app", "wrapped")
_SHEDDERS: Final = (("groundfault.shedding.asgi", "LoadShedder"), ("groundfault.shedding.wsgi", "WSGILoadShedder"))
_SHEDDER: Final = "shedder"
_FUNCTIONS: Final = ("function", "method", "builtin_function_or_method")
_DJANGO: Final = "groundfault.integrations.django."


def standing(app: Any) -> dict[str, Any]:
    """Return what a request passes, from the outside in.

    ``chain``: the names of what wraps what, ``shedder`` for ours, up to the application itself.
    ``middleware``: what Starlette has been given, outermost first; None if the application is none of its kind.
    ``elsewhere``: a shedder exists in this process, or Django is told to make one.
    """
    kinds = _kinds()
    chain: list[str] = []
    middleware: list[str] | None = None
    framework = ""
    while app is not None and len(chain) < _DEEPEST:
        kind = _SHEDDER if kinds & set(type(app).__mro__) else type(app).__name__
        held = getattr(app, "__dict__", None)
        held = held if isinstance(held, dict) else {}
        if isinstance(held.get("user_middleware"), list):
            chain.append(kind)
            middleware = [_name_of(each, kinds) for each in held["user_middleware"]]
            break
        step = next((name for name in _INWARD if held.get(name) is not None), "")
        if step in _REPLACED:
            framework = kind
        elif step or not framework:
            chain.append(getattr(app, "__qualname__", "") if kind in _FUNCTIONS else kind)
        app = held.get(step)
    return {"chain": [*chain, *filter(None, [framework])], "middleware": middleware, "elsewhere": _is_elsewhere()}


def _kinds() -> set[type]:
    return {kind for module, name in _SHEDDERS if (kind := getattr(sys.modules.get(module), name, None)) is not None}


def _name_of(given: Any, kinds: set[type]) -> str:
    kind = getattr(given, "cls", None)
    if isinstance(kind, type):
        return _SHEDDER if kinds & set(kind.__mro__) else kind.__name__
    return str(getattr(kind, "__name__", "?"))


def _is_elsewhere() -> bool:
    shedder = getattr(sys.modules.get("groundfault.shedding.shedder"), "Shedder", None)
    if shedder is not None and any(shedder in type(each).__mro__ for each in gc.get_objects()):
        return True
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    if settings is None or not settings.configured:
        return False
    return any(str(name).startswith(_DJANGO) for name in settings.MIDDLEWARE)
