"""What the dashboard asks Datadog.

Counters come as counts, so their rates are sums ``as_rate``. Gauges are of one process each, told apart by ``worker``:
they are summed, or the least or greatest is taken. Durations are distributions.
A count that never came is nothing to Datadog, not zero: ``default_zero`` is for parts of a whole.
"""

from dataclasses import dataclass, field
from typing import Final

__all__ = ["GROUPS", "Graph"]

SERVICE: Final = "$env,$service"
COMMAND: Final = "$env,$service,$resource,$command"
EACH: Final = "{service,resource,command}"
REQUESTS: Final = "groundfault.server.requests"
WAIT: Final = "groundfault.server.request.time_in_queue"
CALLS: Final = "groundfault.command.calls"
TOOK: Final = "groundfault.command.duration"


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One widget. ``formulas``: what is shown of the queries, by formula; none: each of them.

    ``bad_from``: from which value on it is yellow or red.
    """

    title: str
    queries: tuple[str, ...]
    formulas: dict[str, str] = field(default_factory=dict)
    kind: str = "timeseries"
    drawn: str = "line"
    bad_from: tuple[tuple[float, str], ...] = ()


def count(metric: str, scope: str, by: str = "") -> str:
    """Return a counter's rate."""
    return f"sum:{metric}{{{scope}}}{f' by {by}' if by else ''}.as_rate()"


def gauge(metric: str, scope: str, by: str = "", how: str = "sum") -> str:
    """Return a gauge of all processes."""
    return f"{how}:{metric}{{{scope}}}{f' by {by}' if by else ''}"


def judged(by: str = "") -> tuple[str, ...]:
    """Return failures, timeouts and successes: the calls that speak for or against a callee."""
    return tuple(count(CALLS, f"{COMMAND},outcome:{outcome}", by) for outcome in ("failure", "timeout", "success"))


FAILED: Final = "default_zero(query1) + default_zero(query2)"
ERROR_SHARE: Final = {f"({FAILED}) / ({FAILED} + default_zero(query3))": "failing"}
FIRST_OF_SECOND: Final = "default_zero(query1) / query2"

GROUPS: Final = {
    "Headline": (
        Graph(
            title="Admitted, requests per second",
            queries=(count(REQUESTS, f"{SERVICE},result:admitted"),),
            kind="query_value",
        ),
        Graph(
            title="Shed share",
            queries=(count(REQUESTS, f"{SERVICE},result:shed"), count(REQUESTS, SERVICE)),
            formulas={FIRST_OF_SECOND: "shed"},
            kind="query_value",
            bad_from=((0.05, "yellow"), (0.5, "red")),
        ),
        Graph(
            title="Queue wait p99, seconds",
            queries=(f"p99:{WAIT}{{{SERVICE}}}",),
            kind="query_value",
            bad_from=((0.25, "yellow"), (0.75, "red")),
        ),
        Graph(
            title="Circuits not closed, processes",
            queries=(gauge("groundfault.circuit.state", f"{COMMAND},!state:closed"),),
            kind="query_value",
            bad_from=((0.5, "red"),),
        ),
        Graph(title="Requests by result", queries=(count(REQUESTS, SERVICE, "{result}"),), drawn="bars"),
        Graph(
            title="Queue wait",
            queries=tuple(f"{which}:{WAIT}{{{SERVICE}}}" for which in ("p50", "p95", "p99")),
            formulas={"query1": "p50", "query2": "p95", "query3": "p99"},
        ),
        Graph(title="Calls by outcome", queries=(count(CALLS, COMMAND, "{outcome}"),), drawn="bars"),
    ),
    "Commands": (
        Graph(title="Calls by command", queries=(count(CALLS, COMMAND, EACH),)),
        Graph(
            title="Concurrency, share of the limit",
            queries=(
                gauge("groundfault.command.active", COMMAND, EACH),
                gauge("groundfault.command.limit", COMMAND, EACH),
            ),
            formulas={"query1 / query2": "in flight"},
            bad_from=((0.8, "yellow"), (1.0, "red")),
        ),
        Graph(title="Calls in flight", queries=(gauge("groundfault.command.active", COMMAND, EACH),)),
        Graph(
            title="Error share",
            queries=judged(EACH),
            formulas=ERROR_SHARE,
            bad_from=((0.5, "red"),),
        ),
        Graph(
            title="Shed responses, calls per second",
            queries=(count(CALLS, f"{COMMAND},outcome:shed", EACH),),
        ),
        Graph(
            title="Circuits not closed, share of the processes",
            queries=(
                gauge("groundfault.circuit.state", f"{COMMAND},!state:closed", EACH),
                gauge("groundfault.circuit.state", COMMAND, EACH),
            ),
            formulas={"query1 / query2": "not closed"},
        ),
        Graph(title="Duration p50", queries=(f"p50:{TOOK}{{{COMMAND},outcome:success}} by {EACH}",)),
        Graph(title="Duration p95", queries=(f"p95:{TOOK}{{{COMMAND},outcome:success}} by {EACH}",)),
        Graph(title="Duration p99", queries=(f"p99:{TOOK}{{{COMMAND},outcome:success}} by {EACH}",)),
        Graph(
            title="Calls never made",
            queries=tuple(
                count(CALLS, f"{COMMAND},outcome:{outcome}", EACH)
                for outcome in ("circuit-open", "bulkhead-full", "throttled", "unhealthy")
            ),
            formulas={"query1": "open", "query2": "full", "query3": "throttled", "query4": "unhealthy"},
            drawn="bars",
        ),
        Graph(
            title="Trips and other changes of circuits",
            queries=(
                f"sum:groundfault.circuit.transitions{{{COMMAND}}} by {{service,resource,command,from,to}}.as_count()",
            ),
            drawn="bars",
        ),
        Graph(
            title="Fallbacks by result",
            queries=(count("groundfault.command.fallbacks", COMMAND, "{service,resource,command,result}"),),
        ),
        Graph(
            title="Share of calls that is sent to a shedding callee",
            queries=(gauge("groundfault.command.admitted_ratio", COMMAND, EACH, "min"),),
        ),
        Graph(
            title="Saturated, processes",
            queries=(gauge("groundfault.command.saturated", COMMAND, EACH),),
            bad_from=((1.0, "red"),),
        ),
        Graph(
            title="Health checks that say no, processes",
            queries=(gauge("groundfault.command.unhealthy", COMMAND, EACH),),
            bad_from=((1.0, "red"),),
        ),
    ),
    "Server half": (
        Graph(title="Requests by service and result", queries=(count(REQUESTS, SERVICE, "{service,result}"),)),
        Graph(
            title="Shed by reason",
            queries=(count(REQUESTS, f"{SERVICE},result:shed", "{service,reason}"),),
            drawn="bars",
        ),
        Graph(
            title="Shed share by criticality",
            queries=(
                count(REQUESTS, f"{SERVICE},result:shed", "{criticality}"),
                count(REQUESTS, SERVICE, "{criticality}"),
            ),
            formulas={FIRST_OF_SECOND: "shed"},
        ),
        Graph(title="Queue wait p99 by service", queries=(f"p99:{WAIT}{{{SERVICE}}} by {{service}}",)),
        Graph(
            title="Requests being served",
            queries=(gauge("groundfault.server.requests.active", SERVICE, "{service}"),),
        ),
        Graph(
            title="Backlog, share of the limit",
            queries=(
                gauge("groundfault.server.backlog", SERVICE, "{service,host}", "max"),
                gauge("groundfault.server.backlog.limit", SERVICE, "{service,host}", "max"),
            ),
            formulas={"query1 / query2": "backlog"},
            bad_from=((0.5, "red"),),
        ),
        Graph(
            title="Processes shedding",
            queries=(gauge("groundfault.server.shedding", SERVICE, "{service}"),),
        ),
        Graph(
            title="Abandoned requests per second",
            queries=(count("groundfault.server.requests.abandoned", SERVICE, "{service}"),),
        ),
        Graph(
            title="Where the wait is read, processes",
            queries=(gauge("groundfault.server.wait_signal", SERVICE, "{service,signal}"),),
            drawn="bars",
        ),
    ),
    "Who calls whom": (
        Graph(
            title="Calls by caller, resource and outcome",
            queries=(count("groundfault.edge.calls", "$env,$resource", "{caller,resource,outcome}"),),
        ),
        Graph(
            title="Requests by caller and result",
            queries=(count("groundfault.edge.requests", SERVICE, "{caller,service,result}"),),
        ),
        Graph(
            title="Mean queue wait of each caller, seconds",
            queries=(
                count("groundfault.edge.time_in_queue", SERVICE, "{caller,service}"),
                count("groundfault.edge.requests", SERVICE, "{caller,service}"),
            ),
            formulas={"query1 / query2": "wait"},
        ),
    ),
    "Live settings, and GroundFault itself": (
        Graph(
            title="Processes by version of the settings",
            queries=(gauge("groundfault.settings.version", SERVICE, "{service,store,version}"),),
            drawn="bars",
        ),
        Graph(
            title="Age of the settings, seconds",
            queries=(gauge("groundfault.settings.age", SERVICE, "{service,store}", "max"),),
            bad_from=((300.0, "red"),),
        ),
        Graph(
            title="Settings unreachable, processes",
            queries=(gauge("groundfault.settings.unreachable", SERVICE, "{service,store}"),),
            bad_from=((1.0, "red"),),
        ),
        Graph(
            title="Settings rejected",
            queries=(f"sum:groundfault.settings.rejected{{{SERVICE}}} by {{service,store}}.as_count()",),
            drawn="bars",
        ),
        Graph(
            title="Internal errors",
            queries=(f"sum:groundfault.internal_errors{{{SERVICE}}} by {{service,where}}.as_count()",),
            drawn="bars",
        ),
        Graph(
            title="Stepped aside, processes",
            queries=(gauge("groundfault.server.stepped_aside", SERVICE, "{service}"),),
            bad_from=((1.0, "red"),),
        ),
        Graph(title="Processes by service", queries=(gauge("groundfault.processes", SERVICE, "{service}"),)),
    ),
}
