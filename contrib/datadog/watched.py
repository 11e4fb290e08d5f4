"""The alerts of contrib/prometheus, as far as one query of Datadog's can say them.

What it cannot: *and*. So there is no least volume here; a quiet service's monitors want a composite with its traffic.
Nor can it count groups by group (versions that differ), or compare the hosts of each service for itself
(one sick node): docs/reference/alerts.md says what to use instead.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["MONITORS", "Monitor"]

COMMAND: Final = "{service,resource,command}"
AT_HOST: Final = "{service,host,resource,command}"
STORE: Final = "{service,store}"
SERVICE: Final = "{service}"
WHICH: Final = "{{resource.name}}/{{command.name}}"


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """One monitor. ``threshold`` is the one of the query, which Datadog wants said twice."""

    name: str
    query: str
    threshold: float
    says: str
    severity: str = "warning"


def calls(outcome: str, by: str = COMMAND) -> str:
    """Return how many calls ended so; zero if none did."""
    return f"default_zero(sum:groundfault.command.calls{{outcome:{outcome}}} by {by}.as_count())"


def requests(scope: str) -> str:
    """Return how many requests there were."""
    return f"default_zero(sum:groundfault.server.requests{{{scope}}} by {SERVICE}.as_count())"


FAILED: Final = f"{calls('failure')} + {calls('timeout')}"
ALL_CALLS: Final = f"sum:groundfault.command.calls{{*}} by {COMMAND}.as_count()"
SHED: Final = "result:shed,!reason:draining,criticality:critical"
SHED_CRITICAL: Final = f"{requests(SHED)} + {requests(SHED + '-plus')}"
CRITICAL: Final = f"{requests('criticality:critical')} + {requests('criticality:critical-plus')}"

MONITORS: Final = (
    Monitor(
        name="GroundFaultCommandConcurrencyHigh",
        query=f"avg(last_5m):sum:groundfault.command.active{{*}} by {AT_HOST}"
        f" / sum:groundfault.command.limit{{*}} by {AT_HOST} >= 0.8",
        threshold=0.8,
        says=f"Command concurrency high: {WHICH} in {{{{service.name}}}}, on {{{{host.name}}}}: {{{{value}}}} of 1.",
    ),
    Monitor(
        name="GroundFaultCommandConcurrencyFull",
        query=f"sum(last_5m):{calls('bulkhead-full')} / {ALL_CALLS} > 0.01",
        threshold=0.01,
        says=f"Command concurrency full: {{{{service.name}}}} refuses {{{{value}}}} of 1 of its calls of {WHICH}.",
    ),
    Monitor(
        name="GroundFaultCircuitOpen",
        query=f"min(last_2m):sum:groundfault.circuit.state{{!state:closed}} by {COMMAND} > 0",
        threshold=0,
        says=f"Circuit open: {WHICH}, in {{{{value}}}} processes of {{{{service.name}}}} or more, for two minutes.",
    ),
    Monitor(
        name="GroundFaultCircuitOpenEverywhere",
        query=f"max(last_2m):sum:groundfault.circuit.state{{state:closed}} by {COMMAND} <= 0",
        threshold=0,
        says=f"Circuit open everywhere: {{{{service.name}}}} is cut off from {WHICH}.",
        severity="critical",
    ),
    Monitor(
        name="GroundFaultCircuitFlapping",
        query=f"sum(last_15m):sum:groundfault.circuit.transitions{{from:closed,to:open}} by {COMMAND}.as_count() >= 10",
        threshold=10,
        says=f"Circuit flapping: {{{{value}}}} trips of {WHICH} in a quarter of an hour, all processes of "
        "{{service.name}} together.",
    ),
    Monitor(
        name="GroundFaultCommandFailing",
        query=f"sum(last_10m):({FAILED}) / ({FAILED} + {calls('success')}) > 0.2",
        threshold=0.2,
        says=f"Command failing: of the calls of {{{{service.name}}}} to {WHICH} a share of {{{{value}}}} failed.",
    ),
    Monitor(
        name="GroundFaultCommandUnhealthy",
        query=f"min(last_5m):sum:groundfault.command.unhealthy{{*}} by {COMMAND} > 0",
        threshold=0,
        says=f"The health check of {WHICH} says no in {{{{value}}}} processes of {{{{service.name}}}}: no calls.",
    ),
    Monitor(
        name="GroundFaultSaturated",
        query=f"min(last_2m):sum:groundfault.command.saturated{{*}} by {COMMAND} > 0",
        threshold=0,
        says="Saturated: {{resource.name}} does nothing but refuse what {{service.name}} asks of it.",
        severity="critical",
    ),
    Monitor(
        name="GroundFaultThrottlingLong",
        query=f"sum(last_10m):{calls('throttled')} / {ALL_CALLS} > 0.05",
        threshold=0.05,
        says=f"Throttled for long: {{{{service.name}}}} holds back a share of {{{{value}}}} of its calls of {WHICH}.",
    ),
    Monitor(
        name="GroundFaultSustainedShedding",
        query=f"sum(last_10m):({SHED_CRITICAL}) / ({CRITICAL}) > 0.05",
        threshold=0.05,
        says="Sustained shedding: {{service.name}} refuses a share of {{value}} of its critical requests.",
    ),
    Monitor(
        name="GroundFaultSheddingMost",
        query=f"sum(last_5m):({SHED_CRITICAL}) / ({CRITICAL}) > 0.5",
        threshold=0.5,
        says="Shedding most: {{service.name}} refuses a share of {{value}} of its critical requests.",
        severity="critical",
    ),
    Monitor(
        name="GroundFaultBacklogHigh",
        query="avg(last_5m):max:groundfault.server.backlog{*} by {service,host}"
        " / max:groundfault.server.backlog.limit{*} by {service,host} > 0.5",
        threshold=0.5,
        says="Backlog high: the accept queue of {{service.name}} on {{host.name}} is {{value}} full; at 1 the kernel "
        "turns connections away.",
    ),
    Monitor(
        name="GroundFaultSteppedAside",
        query=f"max(last_5m):sum:groundfault.server.stepped_aside{{*}} by {SERVICE} > 0",
        threshold=0,
        says="Stepped aside: {{value}} processes of {{service.name}} let everything through.",
    ),
    Monitor(
        name="GroundFaultBlind",
        query="min(last_15m):sum:groundfault.server.wait_signal{signal:none} by {service,host}"
        " / sum:groundfault.server.wait_signal{*} by {service,host} >= 1",
        threshold=1,
        says="Blind: no process of {{service.name}} on {{host.name}} can tell how long requests wait. "
        "If it had not a single request yet, that is all.",
    ),
    Monitor(
        name="GroundFaultSettingsUnreachable",
        query=f"min(last_5m):sum:groundfault.settings.unreachable{{*}} by {STORE} > 0",
        threshold=0,
        says="Settings unreachable: {{value}} processes of {{service.name}} cannot read {{store.name}}.",
    ),
    Monitor(
        name="GroundFaultSettingsStale",
        query=f"min(last_5m):max:groundfault.settings.age{{*}} by {STORE} > 300",
        threshold=300,
        says="Settings stale: a process of {{service.name}} last knew its settings to be those of {{store.name}} "
        "{{value}} seconds ago.",
    ),
    Monitor(
        name="GroundFaultSettingsRejected",
        query=f"sum(last_15m):sum:groundfault.settings.rejected{{*}} by {STORE}.as_count() > 0",
        threshold=0,
        says="Settings rejected: {{service.name}} does not take what {{store.name}} holds.",
    ),
    Monitor(
        name="GroundFaultInternalErrors",
        query="sum(last_15m):sum:groundfault.internal_errors{*} by {service,where}.as_count() > 0",
        threshold=0,
        says="Internal errors: {{value}} of GroundFault's own in {{service.name}}, {{where.name}}, in 15 minutes.",
    ),
    Monitor(
        name="GroundFaultProcessesGone",
        query="pct_change(avg(last_5m),last_1h):sum:groundfault.processes{*} by {service,host} < -10",
        threshold=-10,
        says="Processes gone: {{service.name}} on {{host.name}} has changed by {{value}} percent since an hour ago.",
    ),
)
