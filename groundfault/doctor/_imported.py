"""Run as ``python -m groundfault.doctor._imported``: imports what it is told to, and says what then exists.

Whatever it says is made of names and numbers; what to think of it is for ``clients`` and ``application``.
Objects are told by their type, never by ``isinstance``, which asks the object: a proxy may answer with an error.
"""

import gc
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from groundfault.doctor._standing import standing
from groundfault.doctor.child import answer, request
from groundfault.wire import SHED_STATUS

_FRAMES: Final = 4
_SHOWN: Final = 200
_OWN: Final = "groundfault."


def main(targets: list[str]) -> dict[str, Any]:
    """Import each target, ``module`` or ``module:name``, and return the facts."""
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  as `python -m` and the servers have it
    failures: list[dict[str, Any]] = []
    apps: list[dict[str, Any]] = []
    for target in targets:
        try:
            module, _, path = target.partition(":")
            found: Any = importlib.import_module(module)
            if path:
                apps.append({"target": target, **standing(_resolve(found, path))})
        except BaseException as error:  # noqa: BLE001  a module may end the process as well as raise
            last = traceback.format_exception(error, limit=-_FRAMES)
            lines = [line[:_SHOWN] for part in last for line in part.splitlines()]
            failures.append({"target": target, "error": f"{type(error).__name__}: {error}"[:_SHOWN], "lines": lines})
    named = _names(targets)
    return {
        "failures": failures,
        "sessions": list(_sessions(named)),
        "managers": list(_managers(named)),
        "transports": list(_transports(named)),
        "apps": apps,
    }


def _resolve(module: Any, path: str) -> Any:
    """Follow ``app``, ``package.app`` or ``make_app()``; the last is called, as gunicorn does."""
    found = module
    for name in path.removesuffix("()").split("."):
        found = getattr(found, name)
    return found() if path.endswith("()") else found


def _of_type(module: str, name: str) -> Iterator[Any]:
    """Yield the objects of a class and its subclasses, if its module has been imported."""
    wanted = getattr(sys.modules.get(module), name, None)
    if wanted is not None:
        for each in gc.get_objects():
            if wanted in type(each).__mro__:
                yield each


def _names(targets: list[str]) -> dict[int, str]:
    """Return how things are reached from modules, and from what lies in them: those asked for come first."""
    roots = {target.partition(":")[0].split(".")[0] for target in targets}
    modules = sorted(
        (name for name, module in sys.modules.items() if hasattr(module, "__dict__")),  # None, and oddities
        key=lambda name: (name.split(".")[0] not in roots, name),
    )
    named: dict[int, str] = {}
    for module in modules:
        for name, value in list(vars(sys.modules[module]).items()):
            named.setdefault(id(value), f"{module}:{name}")
    for module in modules:
        if module.split(".")[0] not in roots:
            break
        for name, value in list(vars(sys.modules[module]).items()):
            with suppress(Exception):  # a proxy whose turn has not come
                for inner, held in list(vars(value).items()):
                    named.setdefault(id(held), f"{module}:{name}.{inner}")
    return named


def _type_of(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _is_ours(thing: Any) -> bool:
    return any(kind.__module__.startswith(_OWN) for kind in type(thing).__mro__)


def _sessions(named: dict[int, str]) -> Iterator[dict[str, Any]]:
    for session in _of_type("requests.sessions", "Session"):
        mounts = [
            {
                "prefix": str(prefix),
                "guarded": _is_ours(adapter),
                "adapter": _type_of(adapter),
                "retry": _retry(getattr(adapter, "max_retries", None)),
            }
            for prefix, adapter in dict(getattr(session, "adapters", None) or {}).items()
        ]
        yield {"name": named.get(id(session), ""), "type": _type_of(session), "mounts": mounts}


def _managers(named: dict[int, str]) -> Iterator[dict[str, Any]]:
    owned = {id(getattr(sys.modules.get("urllib3"), "_DEFAULT_POOL", None))}  # of urllib3.request(), used or not
    for adapter in _of_type("requests.adapters", "HTTPAdapter"):
        held = vars(adapter)
        owned |= {id(held.get("poolmanager")), *map(id, dict(held.get("proxy_manager") or {}).values())}
    for session in _of_type("botocore.httpsession", "URLLib3Session"):  # which says retries=False at every call
        held = vars(session)
        owned |= {id(held.get("_manager")), *map(id, dict(held.get("_proxy_managers") or {}).values())}
    for manager in _of_type("urllib3.poolmanager", "PoolManager"):
        if id(manager) not in owned:
            given = manager.connection_pool_kw.get("retries")
            yield {
                "name": named.get(id(manager), ""),
                "type": _type_of(manager),
                "guarded": _is_ours(manager),
                "retry": _retry(given, default=True),
            }


def _transports(named: dict[int, str]) -> Iterator[dict[str, Any]]:
    for library in ("httpx", "httpx2"):
        for kind in ("BaseTransport", "AsyncBaseTransport"):
            for transport in _of_type(library, kind):
                held = dict(getattr(transport, "__dict__", {}))
                policies = (getattr(each, "status_forcelist", None) for each in held.values())
                statuses = {int(status) for policy in policies if policy is not None for status in policy}
                connects = getattr(held.get("_pool"), "_retries", 0)
                if connects or SHED_STATUS in statuses:
                    yield {
                        "name": named.get(id(transport), ""),
                        "type": _type_of(transport),
                        "connects": connects if isinstance(connects, int) else 0,
                        "statuses": sorted(statuses),
                    }


def _retry(given: Any, *, default: bool = False) -> dict[str, Any] | None:
    """Return what a policy of urllib3's says; None if there is none. ``default``: None stands for urllib3's own."""
    from urllib3.util.retry import Retry  # noqa: PLC0415  whoever asks has imported it

    if given is None and not default:
        return None
    policy = Retry.DEFAULT if given is None else given
    policy = Retry.from_int(policy) if isinstance(policy, int | bool) else policy
    if Retry not in type(policy).__mro__:
        return {"own": _type_of(policy)}
    own = type(policy).increment is not Retry.increment or type(policy).is_retry is not Retry.is_retry
    return {
        "own": _type_of(policy) if own else "",
        "implied": given is None,
        "total": policy.total,
        "status": policy.status,
        "statuses": sorted(int(status) for status in policy.status_forcelist or ()),
        "after": bool(policy.respect_retry_after_header),
        "jitter": float(getattr(policy, "backoff_jitter", 0.0)),
        "backoff": float(policy.backoff_factor),
    }


if __name__ == "__main__":
    answer(main(request()))
