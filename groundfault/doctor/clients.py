"""What the HTTP clients of an application do with an annotated 503, from what was seen of them after an import."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from groundfault.doctor.child import ChildError, ask
from groundfault.doctor.finding import Finding, ok, problem, warning
from groundfault.doctor.standing import judge_standing

__all__ = ["LIMIT_S", "judge_clients", "judge_imports", "look_at_modules"]

LIMIT_S: Final = 30.0
"""How long all imports together may take."""

_CHECK: Final = "clients"
_SHED: Final = 503
_MULTIPLIES: Final = "a shed call is sent again to a service that sheds, at once and without a budget"
_INSIDE: Final = "leave 503 out; retry outside the command, see docs/reference/retries.md"
_NO_AFTER: Final = "respect_retry_after_header=False, or retries outside the command: docs/reference/retries.md"
_NAMELESS: Final = "without a name in a module"


def look_at_modules(targets: Iterable[str], *, limit_s: float = LIMIT_S) -> Iterator[Finding]:
    """Import ``module`` and ``module:app`` targets in a process of their own, and judge what then exists."""
    wanted = list(targets)
    try:
        facts = ask("groundfault.doctor._imported", wanted, limit_s=limit_s)
    except ChildError as error:
        yield _failed(", ".join(wanted), f"the import was {error.args[0]}", error.said)
        return
    yield from judge_imports(facts["failures"])
    yield from judge_clients(facts)
    for app in facts["apps"]:
        yield judge_standing(app)


def judge_imports(failures: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Say which targets could not be imported, with the end of what Python said."""
    for failure in failures:
        yield _failed(failure["target"], failure["error"], failure["lines"])


def _failed(target: str, cause: str, said: Iterable[str]) -> Finding:
    seen = "\n".join([cause, *(f"| {line}" for line in said)])
    why = "nothing is known of its clients and of what stands in front of it"
    return problem("import", target, seen, why, "run the doctor where the application runs, with its environment")


def judge_clients(facts: Mapping[str, Any]) -> list[Finding]:
    """Judge sessions, pool managers and transports; the same said of several of one kind is said once."""
    found = [finding for session in facts["sessions"] for finding in _session(session)]
    found += [_manager(manager) for manager in facts["managers"]]
    found += [_transport(transport) for transport in facts["transports"]]
    if not (facts["sessions"] or facts["managers"] or facts["transports"]) and not facts["failures"]:
        found.append(ok(_CHECK, "", "no session of requests and no pool of urllib3 exists after the import"))
    return list(dict.fromkeys(found))


def _where(thing: Mapping[str, Any]) -> str:
    return thing["name"] or f"a {thing['type'].rpartition('.')[2]} {_NAMELESS}"


def _session(session: Mapping[str, Any]) -> Iterator[Finding]:
    where = _where(session)
    guarded = [mount["prefix"] for mount in session["mounts"] if mount["guarded"]]
    bad = False
    for mount in session["mounts"]:
        finding = _retrying(where, f"the adapter for {mount['prefix']}", mount["retry"], guarded=mount["guarded"])
        if finding is not None:
            bad = True
            yield finding
    if not guarded and not bad:
        yield ok(_CHECK, where, "retries no 503; no GroundFaultAdapter is mounted")
    elif not bad:
        yield ok(_CHECK, where, f"retries no 503; GroundFaultAdapter for {', '.join(guarded)}")


def _manager(manager: Mapping[str, Any]) -> Finding:
    where = _where(manager)
    finding = _retrying(where, "", manager["retry"], guarded=manager["guarded"])
    kind = "GroundFaultPoolManager" if manager["guarded"] else "PoolManager"
    return finding or ok(_CHECK, where, f"{kind} that retries no 503")


def _retrying(where: str, mount: str, retry: Mapping[str, Any] | None, *, guarded: bool) -> Finding | None:
    if retry is None:
        return None
    of = f"{mount} has " if mount else ""
    if retry["own"]:
        return ok(_CHECK, where, f"{of}retries of its own making ({retry['own']}): whether of a 503, only it knows")
    again = _tries_again(retry)
    if again == 0:
        return None
    hits = "without end" if again is None else f"up to {again + 1} requests of one"
    inside = ", all inside one call of the command" if guarded else ""
    even = "" if retry["jitter"] else ", in step with everybody's"
    if _SHED in retry["statuses"]:
        seen = f"{of}Retry with status_forcelist 503: {hits}{inside}"
        return warning(_CHECK, where, seen, _MULTIPLIES + even, _INSIDE)
    default = "urllib3's default Retry" if retry["implied"] else "Retry"
    seen = f"{of}{default} that obeys Retry-After: {hits}{inside}, if a 503 carries that header"
    why = "GroundFault leaves the header out unless told otherwise; proxies and other services do not"
    return warning(_CHECK, where, seen, why, _NO_AFTER)


def _tries_again(retry: Mapping[str, Any]) -> int | None:
    """Return how often a 503 is sent again; None without a limit. After a redirect it may be less."""
    limits = [int(retry[name]) for name in ("total", "status") if retry[name] is not None]
    if _SHED in retry["statuses"]:
        return max(min(limits), 0) if limits else None
    return max(min(limits), 0) if retry["after"] and retry["total"] else 0


def _transport(transport: Mapping[str, Any]) -> Finding:
    where = _where(transport)
    if _SHED in transport["statuses"]:
        return warning(_CHECK, where, f"{transport['type']} retries 503", _MULTIPLIES, _INSIDE)
    tries = transport["connects"] + 1
    return warning(
        _CHECK,
        where,
        f"{transport['type']} with retries={transport['connects']}: up to {tries} connects for one call",
        "it retries no 503, but one call of a command takes as many connect timeouts, and counts once",
        "retries=0; retry outside the command, see docs/reference/retries.md",
    )
