"""Every case, in the order of the page."""

from conformance.case import Case
from conformance.cases import (
    basics,
    callables,
    clocks,
    errors,
    generators,
    half_open,
    interruptions,
    limits,
    neutral,
    processes,
    settings,
    stale,
    user_code,
)

GROUPS = [
    basics.group,
    half_open.group,
    stale.group,
    neutral.group,
    interruptions.group,
    errors.group,
    user_code.group,
    callables.group,
    generators.group,
    limits.group,
    processes.group,
    clocks.group,
    settings.group,
]

CASES: dict[str, Case] = {case.id: case for group in GROUPS for case in group.cases}
