"""The scenario files, read without Locust: it would patch this process."""

import runpy
import sys
from argparse import ArgumentParser
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from groundfault.lab.load.options import add_options, plan

FILES = Path(__file__).resolve().parents[3] / "locustfiles"
NAMES = (
    "trial_by_query",
    "thundering_herd",
    "replica_failover",
    "nfl_sunday",
    "retry_storm",
    "rolling_deploy",
    "sick_node",
)


class ArrivalUser:
    """Stands for the kit's."""


@cache
def loaded(name):
    """Return what a scenario file defines."""
    stand_in = ModuleType("groundfault.lab.load.locusting")
    stand_in.ArrivalUser = ArrivalUser
    before = sys.modules.get(stand_in.__name__)
    sys.modules[stand_in.__name__] = stand_in
    try:
        return runpy.run_path(str(FILES / f"{name}.py"))
    finally:
        if before is None:
            del sys.modules[stand_in.__name__]
        else:
            sys.modules[stand_in.__name__] = before


@pytest.fixture
def files():
    """Return where the scenario files are."""
    return FILES


@pytest.fixture
def names():
    """Return the scenarios that the suite knows."""
    return NAMES


@pytest.fixture
def load():
    """Return what reads one by its name."""
    return loaded


@pytest.fixture
def sunday(options):
    """Return what plans an NFL Sunday with these options."""

    def planned(*words):
        scenario = loaded("nfl_sunday")["SCENARIO"]
        return plan(scenario, options(scenario, *words))

    return planned


@pytest.fixture(params=NAMES)
def name(request):
    """Return every scenario, one after the other."""
    return request.param


@pytest.fixture
def scenario(name):
    """Return what that file plays."""
    return loaded(name)["SCENARIO"]


@pytest.fixture
def options():
    """Return what parses a scenario's options as Locust's command line would."""

    def parse(scenario, *words):
        parser = ArgumentParser()
        add_options(parser.add_argument_group(scenario.name), scenario)
        return parser.parse_args(words)

    return parse
