"""The headline, and the row of the server half."""

from typing import Final

from queries import (
    BAD,
    CALLS,
    COMMAND,
    EACH,
    FAILED,
    FAILING,
    JOB,
    JUDGED,
    NOT_CLOSED,
    REQUESTS,
    SERVICE,
    SHED,
    SHEDDING,
    WAIT,
    Panel,
    Row,
    per,
    quantile,
    rate,
    share,
    worst,
)

__all__ = ["HEADLINE", "SERVER"]

WAITING: Final = ((None, "green"), (0.25, "yellow"), (0.75, "red"))

HEADLINE: Final = Row(
    id=100,
    title="Headline",
    panels=(
        Panel(
            id=101,
            title="Admitted",
            says="Requests taken on by all services that are chosen: goodput as far as a server knows it. "
            "Each was begun with time left to answer.",
            queries={"admitted": rate(REQUESTS, f'{SERVICE},result="admitted"')},
            unit="reqps",
            kind="stat",
            width=3,
            height=4,
        ),
        Panel(
            id=102,
            title="Shed, worst service",
            says="Share of the requests that is refused at the door. In a spike that is protection at work; "
            "for long, it is capacity that is missing.",
            queries={
                "shed": worst(
                    share(REQUESTS, SERVICE, "job, service", part=SHED), rate(REQUESTS, SERVICE, "job, service")
                )
            },
            empty="quiet",
            unit="percentunit",
            kind="stat",
            width=3,
            height=4,
            steps=SHEDDING,
            decimals=1,
        ),
        Panel(
            id=103,
            title="Wait p99, worst service",
            says="Of a hundred requests, 99 had waited no longer than this before anybody looked at them.",
            queries={"p99": f"max({quantile(0.99, WAIT, SERVICE, 'job, service')})"},
            unit="s",
            kind="stat",
            width=3,
            height=4,
            steps=WAITING,
        ),
        Panel(
            id=104,
            title="Failing, worst command",
            says="Of the calls that speak for or against a callee, the share that failed or timed out.",
            queries={
                "failing": worst(
                    share(CALLS, COMMAND, EACH, part=FAILED, whole=JUDGED), rate(CALLS, f"{COMMAND},{JUDGED}", EACH)
                )
            },
            empty="quiet",
            unit="percentunit",
            kind="stat",
            width=3,
            height=4,
            steps=FAILING,
            decimals=1,
        ),
        Panel(
            id=105,
            title="Commands cut off",
            says="Commands whose circuit is open or half-open in at least one process.",
            queries={"cut off": f"count({NOT_CLOSED} > 0) or vector(0)"},
            kind="stat",
            width=3,
            height=4,
            steps=BAD,
        ),
        Panel(
            id=106,
            title="Commands saturated",
            says="Commands whose callee does nothing but refuse, as at least one process sees it.",
            queries={"saturated": f"count({per(EACH, 'groundfault_command_saturated', COMMAND)} > 0) or vector(0)"},
            kind="stat",
            width=3,
            height=4,
            steps=BAD,
        ),
        Panel(
            id=107,
            title="Versions of settings",
            says="How many versions of one store's live settings are in use within one service. "
            "One, but for the seconds that a change takes.",
            queries={
                "versions": "max(count by (job, store) "
                f"({per('job, store, version', 'groundfault_settings_version', JOB)} > 0))"
            },
            kind="stat",
            width=3,
            height=4,
            steps=((None, "green"), (2, "orange")),
            empty="no store",
        ),
        Panel(
            id=108,
            title="Processes",
            says="Processes that report.",
            queries={"processes": f"sum(groundfault_processes{{{JOB}}})"},
            kind="stat",
            width=3,
            height=4,
        ),
        Panel(
            id=109,
            title="Requests",
            says="Under overload, the green part stays as high as before, whatever is stacked upon it.",
            queries={"{{result}}": rate(REQUESTS, SERVICE, "result")},
            unit="reqps",
            stacked=True,
        ),
        Panel(
            id=110,
            title="Queue wait",
            says="How long requests had waited before anybody looked at them. "
            "Where shedding works, it stays below what callers have patience for.",
            queries={f"p{100 * which:g}": quantile(which, WAIT, SERVICE) for which in (0.5, 0.95, 0.99)},
            unit="s",
        ),
        Panel(
            id=111,
            title="Calls",
            says="What became of the calls. Shed speaks neither for the callee nor against it; "
            "circuit-open, bulkhead-full, throttled and unhealthy are calls that were never made.",
            queries={"{{outcome}}": rate(CALLS, COMMAND, "outcome")},
            unit="reqps",
            stacked=True,
        ),
        Panel(
            id=112,
            title="Alerts",
            says="Pending and firing, if the rules of contrib/prometheus are loaded into this Prometheus.",
            queries={"alerts": f'ALERTS{{alertname=~"GroundFault.+",{JOB}}}'},
            kind="table",
            width=24,
            height=5,
            empty="none",
            labels={
                "alertstate": "state",
                "alertname": "alert",
                "job": "job",
                "service": "service",
                "instance": "instance",
                "resource": "resource",
                "command": "command",
                "store": "store",
            },
        ),
    ),
)

SERVER: Final = Row(
    id=200,
    title="Server half",
    panels=(
        Panel(
            id=201,
            title="Requests by service",
            says="Admitted and shed.",
            queries={"{{service}} {{result}}": rate(REQUESTS, SERVICE, "service, result")},
            unit="reqps",
        ),
        Panel(
            id=202,
            title="Shed by reason",
            says="queue-wait: there is a standing queue. deadline: it could not have been answered in time any more. "
            "concurrency: the limit that was set. draining: the process is stopping.",
            queries={"{{service}} {{reason}}": rate(REQUESTS, f"{SERVICE},{SHED}", "service, reason")},
            unit="reqps",
            stacked=True,
            empty="none",
        ),
        Panel(
            id=203,
            title="Shed by criticality",
            says="Share of each class. sheddable goes first, critical-plus last.",
            queries={"{{criticality}}": share(REQUESTS, SERVICE, "criticality", part=SHED)},
            unit="percentunit",
            highest=1,
        ),
        Panel(
            id=204,
            title="Queue wait by service",
            says="Of a hundred requests, 99 had waited no longer.",
            queries={"{{service}}": quantile(0.99, WAIT, SERVICE, "service")},
            unit="s",
        ),
        Panel(
            id=205,
            title="Queue wait, all of it",
            says="How many requests waited how long: the stronger the color, the more.",
            queries={"{{le}}": f"sum by (le) (increase({WAIT}_bucket{{{SERVICE}}}[$__rate_interval]))"},
            unit="s",
            kind="heatmap",
        ),
        Panel(
            id=206,
            title="Requests being served",
            says="In flight, all processes together.",
            queries={"{{service}}": per("service", "groundfault_requests_active", SERVICE)},
        ),
        Panel(
            id=207,
            title="Backlog",
            says="How full the fullest accept queue is. Beyond 100 % the kernel turns connections away.",
            queries={
                "{{service}}": f"max by (service) (groundfault_backlog{{{SERVICE}}}"
                f" / (groundfault_backlog_limit{{{SERVICE}}} > 0))"
            },
            unit="percentunit",
            highest=1,
            steps=((None, "green"), (0.5, "red")),
        ),
        Panel(
            id=208,
            title="Processes shedding",
            says="Of all processes of the service.",
            queries={
                "{{service}}": per("service", "groundfault_shedding", SERVICE),
                "{{service}}, of": per("service", "groundfault_processes", SERVICE),
            },
        ),
        Panel(
            id=209,
            title="Abandoned",
            says="Refused requests whose client had left before anybody looked at them: work that was spared.",
            queries={"{{service}}": rate("groundfault_requests_abandoned_total", SERVICE, "service")},
            unit="reqps",
        ),
    ),
)
