"""The rows of the client half: commands, and the throttle."""

from typing import Final

from queries import (
    BAD,
    CALLS,
    COMMAND,
    EACH,
    FAILED,
    FAILING,
    JUDGED,
    NOT_CLOSED,
    SHEDDING,
    STATE,
    Panel,
    Row,
    news,
    per,
    quantile,
    rate,
    share,
)

__all__ = ["COMMANDS", "THROTTLE"]

DURATION: Final = "groundfault_command_duration_seconds"
NAMED: Final = "{{resource}}/{{command}}"
SUCCEEDED: Final = f'{COMMAND},outcome="success"'
OF_ALL: Final = per(EACH, STATE, COMMAND)
OPEN_OF_ALL: Final = (
    f'label_join(count_values by ({EACH}) ("not_closed", {NOT_CLOSED}) * on ({EACH}) group_left (processes)'
    f' count_values by ({EACH}) ("processes", {OF_ALL}), "circuits", " of ", "not_closed", "processes")'
)
"""A circuit in many processes as text, which is a label: in "3 of 8" of them it is open or half-open."""

FULL: Final = ((None, "green"), (0.8, "orange"), (1, "red"))

COMMANDS: Final = Row(
    id=300,
    title="Commands",
    panels=(
        Panel(
            id=301,
            title="Commands",
            says="One line for each. Circuits: in how many processes the circuit is open or half-open, of all.",
            queries={
                "circuits": OPEN_OF_ALL,
                "calls": rate(CALLS, COMMAND, EACH),
                "failing": share(CALLS, COMMAND, EACH, part=FAILED, whole=JUDGED),
                "shed": share(CALLS, COMMAND, EACH, part='outcome="shed"'),
                "never made": share(
                    CALLS, COMMAND, EACH, part='outcome=~"circuit-open|bulkhead-full|throttled|unhealthy"'
                ),
                "p99": quantile(0.99, DURATION, SUCCEEDED, EACH),
                "in flight": per(EACH, "groundfault_command_active", COMMAND),
                "limit": per(EACH, "groundfault_command_limit", COMMAND),
                "sent": per(EACH, "groundfault_command_admitted_ratio", COMMAND, "min"),
            },
            kind="table",
            width=24,
            labels={"job": "job", "resource": "resource", "command": "command", "circuits": "circuits not closed"},
            units={
                "calls": "reqps",
                "failing": "percentunit",
                "shed": "percentunit",
                "never made": "percentunit",
                "p99": "s",
                "sent": "percentunit",
            },
            colored={"failing": FAILING, "shed": SHEDDING, "never made": SHEDDING},
        ),
        Panel(
            id=302,
            title="Traffic",
            says="Calls by command, those never made included.",
            queries={NAMED: rate(CALLS, COMMAND, "resource, command")},
            unit="reqps",
        ),
        Panel(
            id=303,
            title="Error share",
            says="Of the calls that speak for or against the callee. A circuit trips at its failure_threshold, 50 % by "
            "default.",
            queries={NAMED: share(CALLS, COMMAND, "resource, command", part=FAILED, whole=JUDGED)},
            unit="percentunit",
            highest=1,
        ),
        Panel(
            id=306,
            title="Circuits not closed",
            says="Share of the processes. Green: closed in all of them. Red: open in all of them.",
            queries={NAMED: f"{NOT_CLOSED} / {OF_ALL}"},
            unit="percentunit",
            kind="state-timeline",
            steps=((None, "green"), (0.0001, "orange"), (0.9999, "red")),
        ),
        Panel(
            id=304,
            title="Duration p50",
            says="Of two successful calls, one took no longer.",
            queries={NAMED: quantile(0.5, DURATION, SUCCEEDED, "resource, command")},
            unit="s",
        ),
        Panel(
            id=310,
            title="Duration p95",
            says="Of a hundred successful calls, 95 took no longer. Near timeout_s, a slow day is one of timeouts.",
            queries={NAMED: quantile(0.95, DURATION, SUCCEEDED, "resource, command")},
            unit="s",
        ),
        Panel(
            id=311,
            title="Duration p99",
            says="Of a hundred successful calls, 99 took no longer.",
            queries={NAMED: quantile(0.99, DURATION, SUCCEEDED, "resource, command")},
            unit="s",
        ),
        Panel(
            id=305,
            title="In flight, of the limit",
            says="Of the fullest instance. From 80 % on the command says so (command concurrency high), "
            "at 100 % it refuses. Commands without a limit are not here.",
            queries={
                NAMED: f"max by (resource, command) (groundfault_command_active{{{COMMAND}}}"
                f" / (groundfault_command_limit{{{COMMAND}}} > 0))"
            },
            unit="percentunit",
            highest=1,
            steps=FULL,
        ),
        Panel(
            id=307,
            title="Changes of circuits",
            says="From closed to open is a trip. Each change is one of one process.",
            queries={
                f"{NAMED} {{{{from}}}} to {{{{to}}}}": news(
                    "groundfault_circuit_transitions_total", COMMAND, "resource, command, from, to"
                )
            },
            empty="none",
        ),
        Panel(
            id=308,
            title="Fallbacks",
            says="served instead of an answer; failed: it raised or took too long; refused: too many were running.",
            queries={
                f"{NAMED} {{{{result}}}}": rate(
                    "groundfault_command_fallbacks_total", COMMAND, "resource, command, result"
                )
            },
            unit="reqps",
            empty="none",
        ),
        Panel(
            id=309,
            title="Health checks that say no",
            says="Processes that refuse their calls for it.",
            queries={NAMED: per("resource, command", "groundfault_command_unhealthy", COMMAND)},
            steps=BAD,
        ),
    ),
)

THROTTLE: Final = Row(
    id=400,
    title="Throttle",
    panels=(
        Panel(
            id=401,
            title="Share that is sent",
            says="100 % in peace. Where a callee sheds, its callers hold calls back; the least of all processes.",
            queries={NAMED: per("resource, command", "groundfault_command_admitted_ratio", COMMAND, "min")},
            unit="percentunit",
            highest=1,
        ),
        Panel(
            id=402,
            title="Shed and throttled",
            says="Calls that the callee refused, and those that were held back so that it need not.",
            queries={
                "{{resource}} {{outcome}}": rate(CALLS, f'{COMMAND},outcome=~"shed|throttled"', "resource, outcome")
            },
            unit="reqps",
            empty="none",
        ),
        Panel(
            id=403,
            title="Saturated",
            says="Processes whose callee has done nothing but refuse, for handled_patience_s.",
            queries={NAMED: per("resource, command", "groundfault_command_saturated", COMMAND)},
            steps=BAD,
        ),
    ),
)
