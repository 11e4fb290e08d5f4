"""The names of all metrics, their kinds, labels and meanings: one list for code, docs, rules and dashboards.

OpenTelemetry has no conventions for breakers and shedding; these follow its stable neighbors
(``aspnetcore.rate_limiting.*``, ``kestrel.queued_connections``): seconds, dots in OpenTelemetry and DogStatsD,
underscores, unit and ``_total`` in Prometheus.
"""

from typing import Final, NamedTuple

__all__ = ["BUCKETS_S", "CATALOGUE", "Kind", "Metric"]

BUCKETS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
"""Upper bounds of the duration buckets that are shown: OpenTelemetry's for HTTP, and two below for caches."""

Kind = str  # "counter", "gauge" or "histogram"


class Metric(NamedTuple):
    """One metric. ``name`` is Prometheus' (histograms without ``_bucket`` and the like), ``dotted`` everybody else's.

    ``each``: what the number of its series grows with.
    """

    name: str
    dotted: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    unit: str = ""
    each: str = ""


_COMMAND: Final = ("resource", "command")

CATALOGUE: Final = (
    Metric(
        "groundfault_command_calls_total",
        "groundfault.command.calls",
        "counter",
        (*_COMMAND, "outcome"),
        "Calls through a command by outcome, those never made included.",
        "{call}",
        "commands x outcomes that occur, of 9",
    ),
    Metric(
        "groundfault_command_duration_seconds",
        "groundfault.command.duration",
        "histogram",
        (*_COMMAND, "outcome"),
        "How long the calls took that were made.",
        "s",
        "commands x outcomes that occur, of 5, x 19",
    ),
    Metric(
        "groundfault_command_active",
        "groundfault.command.active",
        "gauge",
        _COMMAND,
        "Calls in flight.",
        "{call}",
        "commands",
    ),
    Metric(
        "groundfault_command_limit",
        "groundfault.command.limit",
        "gauge",
        _COMMAND,
        "Calls that may be in flight at once, all processes together; absent without a limit.",
        "{call}",
        "commands with a limit",
    ),
    Metric(
        "groundfault_command_fallbacks_total",
        "groundfault.command.fallbacks",
        "counter",
        (*_COMMAND, "result"),
        "Fallbacks by result: served, failed, refused.",
        "{fallback}",
        "commands x results that occur, of 3",
    ),
    Metric(
        "groundfault_command_admitted_ratio",
        "groundfault.command.admitted_ratio",
        "gauge",
        _COMMAND,
        "Share of the calls that is sent to a shedding callee, the least of all processes; 1 in peace.",
        "1",
        "commands",
    ),
    Metric(
        "groundfault_command_saturated",
        "groundfault.command.saturated",
        "gauge",
        _COMMAND,
        "Processes whose callee does nothing but refuse.",
        "{process}",
        "commands",
    ),
    Metric(
        "groundfault_command_unhealthy",
        "groundfault.command.unhealthy",
        "gauge",
        _COMMAND,
        "Processes in which the command's health check says no.",
        "{process}",
        "commands",
    ),
    Metric(
        "groundfault_circuit_state",
        "groundfault.circuit.state",
        "gauge",
        (*_COMMAND, "state"),
        "Processes whose circuit is closed, open, half-open.",
        "{process}",
        "commands x 3",
    ),
    Metric(
        "groundfault_circuit_transitions_total",
        "groundfault.circuit.transitions",
        "counter",
        (*_COMMAND, "from", "to"),
        "Changes of a circuit's state; from closed to open is a trip.",
        "{transition}",
        "commands x transitions that occur, of 5",
    ),
    Metric(
        "groundfault_request_time_in_queue_seconds",
        "groundfault.server.request.time_in_queue",
        "histogram",
        ("service",),
        "How long requests had waited when they were looked at.",
        "s",
        "services x 19",
    ),
    Metric(
        "groundfault_requests_total",
        "groundfault.server.requests",
        "counter",
        ("service", "result", "reason", "criticality"),
        "Requests by result (admitted, shed), reason of the refusal (empty if admitted) and criticality.",
        "{request}",
        "services x reasons and criticalities that occur, of 5 x 4",
    ),
    Metric(
        "groundfault_requests_abandoned_total",
        "groundfault.server.requests.abandoned",
        "counter",
        ("service",),
        "Refused requests whose client had left before they were looked at.",
        "{request}",
        "services",
    ),
    Metric(
        "groundfault_requests_active",
        "groundfault.server.requests.active",
        "gauge",
        ("service",),
        "Requests being served.",
        "{request}",
        "services",
    ),
    Metric(
        "groundfault_shedding",
        "groundfault.server.shedding",
        "gauge",
        ("service",),
        "Processes that are shedding.",
        "{process}",
        "services",
    ),
    Metric(
        "groundfault_stepped_aside",
        "groundfault.server.stepped_aside",
        "gauge",
        ("service",),
        "Processes whose shedder lets everything through after errors of its own.",
        "{process}",
        "services",
    ),
    Metric(
        "groundfault_backlog",
        "groundfault.server.backlog",
        "gauge",
        ("service",),
        "Connections that wait to be accepted, in the fullest queue; absent where the kernel does not say.",
        "{connection}",
        "services",
    ),
    Metric(
        "groundfault_backlog_limit",
        "groundfault.server.backlog.limit",
        "gauge",
        ("service",),
        "Connections that may wait to be accepted; beyond it the kernel turns them away.",
        "{connection}",
        "services",
    ),
    Metric(
        "groundfault_wait_signal",
        "groundfault.server.wait_signal",
        "gauge",
        ("service", "signal"),
        "Processes by where they read the queue wait; none is blind.",
        "{process}",
        "services x signals in use",
    ),
    Metric(
        "groundfault_edge_calls_total",
        "groundfault.edge.calls",
        "counter",
        ("caller", "resource", "outcome"),
        "Calls that this service makes, by resource and outcome: its edges of the service map, seen from here.",
        "{call}",
        "resources x outcomes that occur",
    ),
    Metric(
        "groundfault_edge_requests_total",
        "groundfault.edge.requests",
        "counter",
        ("caller", "service", "result"),
        "Requests that callers with a name have made of this service: the same edges, seen from the other end.",
        "{request}",
        "callers, at most 257, x 2",
    ),
    Metric(
        "groundfault_edge_time_in_queue_seconds_total",
        "groundfault.edge.time_in_queue",
        "counter",
        ("caller", "service", "result"),
        "How long those requests had waited, in all.",
        "s",
        "callers, at most 257, x 2",
    ),
    Metric(
        "groundfault_settings_version",
        "groundfault.settings.version",
        "gauge",
        ("store", "version"),
        "Processes by the version of the live settings that they run.",
        "{process}",
        "stores x versions in use",
    ),
    Metric(
        "groundfault_settings_age_seconds",
        "groundfault.settings.age",
        "gauge",
        ("store",),
        "How long ago the settings in force were last known to be the store's, in the process that is most behind.",
        "s",
        "stores",
    ),
    Metric(
        "groundfault_settings_unreachable",
        "groundfault.settings.unreachable",
        "gauge",
        ("store",),
        "Processes that cannot read the store.",
        "{process}",
        "stores",
    ),
    Metric(
        "groundfault_settings_rejected_total",
        "groundfault.settings.rejected",
        "counter",
        ("store",),
        "Versions of the live settings that a process has rejected.",
        "{version}",
        "stores",
    ),
    Metric(
        "groundfault_internal_errors_total",
        "groundfault.internal_errors",
        "counter",
        ("where",),
        "Errors of GroundFault's own that calls and requests survived.",
        "{error}",
        "places that occur, some twenty",
    ),
    Metric(
        "groundfault_processes",
        "groundfault.processes",
        "gauge",
        ("service",),
        "Processes that report.",
        "{process}",
        "services",
    ),
    Metric(
        "groundfault_report_age_seconds",
        "groundfault.report.age",
        "gauge",
        ("service",),
        "How long ago the living process wrote its report that is most behind; it writes each second.",
        "s",
        "services",
    ),
    Metric(
        "groundfault_reports_unread",
        "groundfault.reports.unread",
        "gauge",
        (),
        "Files of the run directory that cannot be read.",
        "{file}",
        "1",
    ),
)
"""In the order in which they are shown."""
