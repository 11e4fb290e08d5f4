"""The rows about the fleet: who calls whom, which settings are in force, and how GroundFault itself is."""

from typing import Final

from queries import BAD, FAILED, FAILING, JOB, JUDGED, SERVICE, SHED, SHEDDING, Panel, Row, news, per, rate, share

__all__ = ["EDGES", "INTERNALS", "SETTINGS"]

OUT: Final = "groundfault_edge_calls_total"
IN: Final = "groundfault_edge_requests_total"
CALLED: Final = f'{JOB},resource=~"$resource"'
FROM_TO: Final = "caller, resource"
AT: Final = "caller, service"
MEAN_WAIT: Final = (
    f"{rate('groundfault_edge_time_in_queue_seconds_total', SERVICE, AT)} / ({rate(IN, SERVICE, AT)} > 0)"
)

EDGES: Final = Row(
    id=500,
    title="Who calls whom",
    panels=(
        Panel(
            id=501,
            title="As the callers see it",
            says="Each service that calls, and what it calls.",
            queries={
                "calls": rate(OUT, CALLED, FROM_TO),
                "in time": share(OUT, CALLED, FROM_TO, part='outcome="success"'),
                "failing": share(OUT, CALLED, FROM_TO, part=FAILED, whole=JUDGED),
                "shed": share(OUT, CALLED, FROM_TO, part='outcome="shed"'),
            },
            kind="table",
            width=12,
            labels={"caller": "caller", "resource": "resource"},
            units={"calls": "reqps", "in time": "percentunit", "failing": "percentunit", "shed": "percentunit"},
            colored={"failing": FAILING, "shed": SHEDDING},
        ),
        Panel(
            id=502,
            title="As the callees see it",
            says="Each service that is called, by callers that give a name and are trusted. "
            "Wait: how long their requests had waited, on average.",
            queries={
                "requests": rate(IN, SERVICE, AT),
                "shed": share(IN, SERVICE, AT, part=SHED),
                "wait": MEAN_WAIT,
            },
            kind="table",
            width=12,
            labels={"caller": "caller", "service": "service"},
            units={"requests": "reqps", "shed": "percentunit", "wait": "s"},
            colored={"shed": SHEDDING},
        ),
        Panel(
            id=503,
            title="Goodput of each edge",
            says="Calls that succeeded within their timeout.",
            queries={"{{caller}} to {{resource}}": rate(OUT, f'{CALLED},outcome="success"', FROM_TO)},
            unit="reqps",
            width=12,
        ),
        Panel(
            id=504,
            title="Shed by caller",
            says="Whose requests are refused: a caller that sends too much stands out.",
            queries={"{{service}} refuses {{caller}}": rate(IN, f"{SERVICE},{SHED}", AT)},
            unit="reqps",
            width=12,
            empty="none",
        ),
    ),
)

SETTINGS: Final = Row(
    id=600,
    title="Live settings",
    panels=(
        Panel(
            id=601,
            title="Processes by version",
            says="A change is a step from one color to the next. Two colors for long: some processes have not got it.",
            queries={"{{job}} {{store}} {{version}}": per("job, store, version", "groundfault_settings_version", JOB)},
            stacked=True,
            width=12,
            empty="no store",
        ),
        Panel(
            id=602,
            title="Age",
            says="How long ago the settings in force were last known to be the store's, where it is longest.",
            queries={"{{job}} {{store}}": per("job, store", "groundfault_settings_age_seconds", JOB, "max")},
            unit="s",
            width=6,
            empty="no store",
        ),
        Panel(
            id=603,
            title="Unreachable and rejected",
            says="Processes that cannot read the store; versions that processes have rejected since they began.",
            queries={
                "{{job}} {{store}} unreachable": per("job, store", "groundfault_settings_unreachable", JOB),
                "{{job}} {{store}} rejected": per("job, store", "groundfault_settings_rejected_total", JOB),
            },
            width=6,
            steps=BAD,
            empty="no store",
        ),
    ),
)

INTERNALS: Final = Row(
    id=700,
    title="GroundFault itself",
    panels=(
        Panel(
            id=701,
            title="Internal errors",
            says="Errors of GroundFault's own, by place. Calls and requests went on without it.",
            queries={"{{job}} {{where}}": news("groundfault_internal_errors_total", JOB, "job, where")},
            empty="none",
        ),
        Panel(
            id=702,
            title="Stepped aside",
            says="Processes whose shedder lets everything through, after ten errors of its own within a minute.",
            queries={"{{service}}": per("service", "groundfault_stepped_aside", SERVICE)},
            steps=BAD,
        ),
        Panel(
            id=703,
            title="Where the wait is read",
            says="Processes by signal. Those with none have not had a request yet, or are blind.",
            queries={"{{service}} {{signal}}": per("service, signal", "groundfault_wait_signal", SERVICE)},
            stacked=True,
        ),
        Panel(
            id=704,
            title="Processes by service",
            says="Processes that report.",
            queries={"{{job}} {{service}}": per("job, service", "groundfault_processes", JOB)},
        ),
        Panel(
            id=707,
            title="Age of reports",
            says="How long ago the process wrote its report that is most behind. It writes each second; "
            "one that lives and does not, hangs.",
            queries={"{{job}} {{service}}": per("job, service", "groundfault_report_age_seconds", JOB, "max")},
            unit="s",
        ),
        Panel(
            id=708,
            title="Reports unread",
            says="Files in run directories that cannot be read.",
            queries={"{{job}}": per("job", "groundfault_reports_unread", JOB)},
            steps=BAD,
        ),
        Panel(
            id=705,
            title="Instances compared: failed calls",
            says="Share of the calls of each instance that failed or that its own circuit refused. "
            "One line far from the others is a sick node.",
            queries={
                "{{instance}} {{resource}}": share(
                    "groundfault_command_calls_total",
                    CALLED,
                    "instance, resource",
                    part='outcome=~"failure|timeout|circuit-open|unhealthy"',
                )
            },
            unit="percentunit",
            highest=1,
            width=12,
        ),
        Panel(
            id=706,
            title="Instances compared: shed requests",
            says="Share of the requests of each instance that it refused.",
            queries={
                "{{instance}} {{service}}": share("groundfault_requests_total", SERVICE, "instance, service", part=SHED)
            },
            unit="percentunit",
            highest=1,
            width=12,
        ),
    ),
)
