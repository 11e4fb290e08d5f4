"""GroundFault passes every case of the suite."""

import pytest

from conformance.case import PASS
from conformance.cases import CASES
from conformance.runner import run_apart, run_here


@pytest.mark.parametrize("case", [case.id for case in CASES.values() if not case.apart])
def test_groundfault_passes(case):
    result = run_here("groundfault", case)
    assert result.verdict == PASS, result.text


@pytest.mark.e2e
@pytest.mark.parametrize("case", [case.id for case in CASES.values() if case.apart])
def test_groundfault_passes_in_a_process_of_its_own(case):
    result = run_apart("groundfault", case)
    assert result.verdict == PASS, result.text
