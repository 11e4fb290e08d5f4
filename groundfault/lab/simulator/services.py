"""Reading a service of a scenario, and the calls it makes."""

from typing import Any, Final

from groundfault.breaker.settings import BreakerSettings
from groundfault.errors import SettingsError
from groundfault.lab.simulator.distributions import NOTHING
from groundfault.lab.simulator.model import (
    VARIANTS,
    Balance,
    Cache,
    Call,
    Cold,
    Network,
    Protection,
    Retries,
    Rule,
    Service,
    Thrash,
    Work,
)
from groundfault.lab.simulator.table import ScenarioError, Table
from groundfault.shedding.settings import ShedderSettings
from groundfault.wire import NAME_GRAMMAR, valid_name

__all__ = ["read_service"]

_LONGEST_S: Final = 3600.0
_MOST_PROCESSES: Final = 100_000
_MOST_THREADS: Final = 10_000_000


def read_service(name: str, table: Table) -> Service:
    """Return the service that a table describes. Raises ScenarioError."""
    if not valid_name(name):
        raise ScenarioError(f"{table.place} must have a name that matches {NAME_GRAMMAR}")
    loop = table.flag("loop", default=False)
    if loop and table.has("threads"):
        raise table.wrong("threads", "left out: an event loop has none", table.raw("threads"))
    work = _work(table, Work())
    routes = {}
    for route, each in table.named("routes"):
        routes[route] = _work(each, work)
        each.close()
    service = Service(
        name=name,
        instances=table.whole("instances", 1, low=1, high=100_000),
        workers=table.whole("workers", 1, low=1, high=10_000),
        threads=None if loop else table.whole("threads", 1, low=1, high=100_000),
        backlog=table.whole("backlog", 2048, low=0),
        work=work,
        routes=routes,
        shed_cost_s=table.number("shed_cost_s", 0.0003, low=0.0, high=_LONGEST_S),
        shedder=table.flag("shedder", default=True),
        deadline_s=table.number("deadline_s", 1.0, low=0.01, high=_LONGEST_S),
        max_concurrency=table.whole("max_concurrency", 0, low=1) or None,
        clock_s=table.number("clock_s", 0.0, low=0.0, high=1.0),
        balance=Balance(table.choice("balance", tuple(each.value for each in Balance), Balance.ROUND_ROBIN.value)),
        protection=_protection(table),
        thrash=_thrash(table.table("thrash")),
        cold=_cold(table.table("cold")),
        network=_network(table.table("network")),
        calls=tuple(_call(each) for each in table.tables("calls")),
    )
    table.close()
    _check_size(service, table)
    ShedderSettings(service=name, deadline_s=service.deadline_s, max_concurrency=service.max_concurrency)
    _check_calls(service, table)
    return service


def _work(table: Table, usual: Work) -> Work:
    return Work(
        cpu=table.seconds("cpu", usual.cpu),
        wait=table.seconds("wait", usual.wait),
        after_cpu=table.seconds("after_cpu", usual.after_cpu),
        after_wait=table.seconds("after_wait", usual.after_wait),
    )


def _protection(table: Table) -> Protection | None:
    return Protection(table.choice("protection", VARIANTS)) if table.has("protection") else None


def _thrash(table: Table | None) -> Thrash | None:
    if table is None:
        return None
    made = Thrash(above=table.whole("above", low=1), slope=table.number("slope", low=0.0, high=1000.0))
    table.close()
    return made


def _cold(table: Table | None) -> Cold | None:
    if table is None:
        return None
    made = Cold(
        factor=table.number("factor", low=1.0, high=1000.0), warm_s=table.number("warm_s", above=0.0, high=_LONGEST_S)
    )
    table.close()
    return made


def _network(table: Table | None) -> Network | None:
    if table is None:
        return None
    made = Network(
        delay=table.seconds("delay", NOTHING),
        loss=table.number("loss", 0.0, low=0.0, high=0.5),
        resend_s=table.number("resend_s", 0.2, above=0.0, high=60.0),
    )
    table.close()
    return made


def _call(table: Table) -> Call:
    to = table.text("to")
    call = Call(
        to=to,
        name=table.text("name", to),
        routes=table.words("routes"),
        probability=table.share("probability", 1.0),
        count=table.whole("count", 1, low=1, high=1000),
        parallel=table.flag("parallel", default=False),
        together=table.text("together") if table.has("together") else None,
        timeout_s=table.maybe("timeout_s", above=0.0, high=_LONGEST_S),
        required=table.flag("required", default=True),
        cache=_cache(table.table("cache")),
        retries=_retries(table.table("retries")),
        breaker=_breaker(table.table("breaker"), table),
        protection=_protection(table),
    )
    table.close()
    if not valid_name(call.name):
        raise table.wrong("name", f"a name that matches {NAME_GRAMMAR}", call.name)
    return call


def _cache(table: Table | None) -> Cache | None:
    if table is None:
        return None
    made = Cache(
        hit=table.share("hit"),
        warm_s=table.maybe("warm_s", above=0.0, high=86_400.0),
        warm_fetches=table.maybe("warm_fetches", above=0.0, high=1e9),
        cold=table.flag("cold", default=False),
    )
    table.close()
    return made


def _retries(table: Table | None) -> Retries | None:
    if table is None:
        return None
    rule = Rule(table.choice("rule", tuple(each.value for each in Rule), Rule.PLAIN.value))
    ours = rule is Rule.GROUNDFAULT
    made = Retries(
        rule=rule,
        most=table.whole("most", 1, low=0, high=1 if ours else 20),
        backoff_s=table.number("backoff_s", 0.0, low=0.0, high=_LONGEST_S),
        factor=table.number("factor", 2.0, low=1.0, high=100.0),
        jitter=table.flag("jitter", default=True),
        budget=table.maybe("budget", low=0.0, high=1.0) if table.has("budget") or not ours else 0.1,
    )
    table.close()
    return made


def _breaker(table: Table | None, call: Table) -> dict[str, Any]:
    said = dict(call.raw("breaker") or {})
    try:
        BreakerSettings.of(said)
    except SettingsError as error:
        raise ScenarioError(f"{call.where('breaker')}.{error}") from error
    for name in ("health_check", "ignored_errors", "isolation", "timeout_s"):
        if table is not None and table.has(name):
            raise ScenarioError(f"{call.where('breaker')}.{name} cannot be simulated; a call has its own timeout_s")
    return said


def _check_size(service: Service, table: Table) -> None:
    """Raise ScenarioError for a service that no memory would hold: each process and each free thread is there."""
    processes = service.instances * service.workers
    for what, size, most in (
        ("instances times workers", processes, _MOST_PROCESSES),
        ("instances times workers times threads", processes * (service.threads or 1), _MOST_THREADS),
    ):
        if size > most:
            raise ScenarioError(f"{table.place} must have at most {most} {what}, not {size}")


def _check_calls(service: Service, table: Table) -> None:
    if service.network is not None and service.network.loss and service.network.resend_s <= 0:
        raise table.wrong("network", "given a resend_s above 0", 0)
    seen = set()
    for number, call in enumerate(service.calls):
        if (call.to, call.name) in seen:
            place = f"{table.where('calls')}[{number}].name"
            raise ScenarioError(f"{place} must be another one: {call.name!r:.60} to {call.to} is taken")
        seen.add((call.to, call.name))
