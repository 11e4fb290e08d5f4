"""Every history of circuit and lease that three callers and a health check can make, by the model checker Spin.

``models/breaker.pml`` is the model. It is right if it holds, and worth something if every broken rule is noticed:
each variant takes one rule away, and the check that this is to trip is named beside it.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from groundfault.breaker._machine import TRANSITIONS, Trigger
from groundfault.vocabulary import Outcome, State

MODEL = Path(__file__).parents[2] / "models" / "breaker.pml"
BOUND_S = 120.0

ONE_PROBE = "leases<=1"
STALE_MOVES_NOTHING = "was_fresh|| !(moved)"
NEUTRAL_MOVES_NOTHING = "|| !(moved))||"
SLOT_COMES_BACK = "!(had_slot)"
STANDSTILL = "invalid end state"
NEVER_CLOSES = "acceptance cycle"

needs_spin = pytest.mark.skipif(
    not (shutil.which("spin") and shutil.which("gcc")), reason="needs spin and gcc (Debian: apt-get install spin gcc)"
)


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def check(place: Path, variant: tuple[str, ...], *, liveness: bool = False, every: bool = False) -> list[str]:
    """Search all histories of a variant; return the errors found, the first only unless ``every``."""
    defines = [f"-D{name}" for name in (*variant, *(["LIVENESS"] if liveness else []))]
    run("spin", *defines, "-a", str(MODEL), cwd=place)
    run("gcc", "-w", "-O0", "-DNFAIR=3" if liveness else "-DSAFETY", "-o", "pan", "pan.c", cwd=place)
    options = ["-A", "-a", "-f"] if liveness else []  # -A: assertions are the other check's; -a -f: fair cycles
    found = run("./pan", "-n", "-m100000", "-w18", *options, *(["-c0"] if every else []), cwd=place)
    errors = re.search(r"errors: (\d+)", found)
    assert errors is not None, found
    assert "max search depth too small" not in found
    problems = re.findall(r"^pan:\d+: (.*) \(at depth \d+\)$", found, re.MULTILINE)
    assert bool(problems) == (errors[1] != "0"), found
    return problems


@needs_spin
@pytest.mark.parametrize(
    "variant",
    [
        pytest.param((), id="the code as it is"),
        pytest.param(("CHECK_PROBES",), id="the health check as the probe"),
        pytest.param(("GENERATION_PER_PROBE",), id="no harm in a generation for each probe but that of the other test"),
        pytest.param(("NO_LEASE", "NOTHING_LOST"), id="no lease is needed where nothing is ever lost"),
    ],
)
def test_nothing_bad_ever_happens(tmp_path, variant):
    """One unexpired lease at most, nothing stale counts, neutral moves nothing, no way off the table, no standstill."""
    assert check(tmp_path, variant) == []


@needs_spin
@pytest.mark.parametrize(
    ("variant", "noticed"),
    [
        (("NO_GATE",), ONE_PROBE),
        (("ANY_PROBE_FREES",), ONE_PROBE),
        (("NO_GENERATION",), STALE_MOVES_NOTHING),
        (("NEUTRAL_CLOSES",), NEUTRAL_MOVES_NOTHING),
        (("NEUTRAL_OPENS",), NEUTRAL_MOVES_NOTHING),
        (("NEUTRAL_KEEPS_SLOT",), SLOT_COMES_BACK),
        (("NO_LEASE",), STANDSTILL),
        (("CHECK_PROBES", "HUNG_CHECK_BLOCKS"), STANDSTILL),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_a_rule_that_is_taken_away_is_missed(tmp_path, variant, noticed):
    (problem,) = check(tmp_path, variant)
    assert noticed in problem


@needs_spin
@pytest.mark.parametrize(
    "variant",
    [
        pytest.param((), id="the code as it is"),
        pytest.param(("CHECK_PROBES",), id="the health check as the probe"),
        pytest.param(("NO_LEASE", "NOTHING_LOST"), id="no lease is needed where nothing is ever lost"),
    ],
)
def test_a_callee_that_is_well_again_is_called_again(tmp_path, variant):
    """Also after probes that were lost, canceled, shed or late, and where every call outlasts its lease."""
    assert check(tmp_path, variant, liveness=True) == []


@needs_spin
@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(("NO_LEASE",), id="without a lease a lost probe wedges"),
        pytest.param(
            ("NO_LEASE", "NOTHING_LOST", "NEUTRAL_KEEPS_SLOT"),
            id="without a lease a neutral ending that keeps the slot wedges",
        ),
        pytest.param(("GENERATION_PER_PROBE",), id="calls that outlast the lease are never believed"),
        pytest.param(("CHECK_PROBES", "HUNG_CHECK_BLOCKS"), id="a health check that hangs wedges"),
    ],
)
def test_without_these_rules_the_circuit_stays_open_for_good(tmp_path, variant):
    assert check(tmp_path, variant, liveness=True) == [NEVER_CLOSES]


@needs_spin
def test_every_row_of_the_table_is_taken(tmp_path):
    """Or the checks above would say nothing about it."""
    assert len(set(check(tmp_path, ("WITNESS",), every=True))) == len(TRANSITIONS)


ROW = re.compile(r":: state == (\w+) && trigger == (\w+) -> state = (\w+)")


def test_the_table_of_the_model_is_the_table_of_the_code():
    _, after = MODEL.read_text().split("/* TRANSITIONS begin */")
    block, _ = after.split("/* TRANSITIONS end */")
    rows = [line.strip() for line in block.splitlines() if line.strip()]
    table = {}
    for row in rows:
        match = ROW.fullmatch(row)
        assert match is not None, row
        old, trigger, new = match.groups()
        table[State[old], Trigger[trigger]] = State[new]
    assert table == TRANSITIONS
    assert len(rows) == len(TRANSITIONS)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("states", {state.name for state in State}),
        ("triggers", {trigger.name for trigger in Trigger}),
        (
            "outcomes",
            {outcome.name for outcome in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.TIMEOUT)}
            | {Outcome.SHED.name, Outcome.IGNORED.name},
        ),
    ],
)
def test_the_model_has_the_words_of_the_code(kind, names):
    declared = re.search(rf"mtype:{kind} = \{{([^}}]*)\}};", MODEL.read_text())
    assert declared is not None
    assert {name.strip() for name in declared[1].split(",")} == names
