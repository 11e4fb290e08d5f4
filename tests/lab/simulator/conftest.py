"""Scenarios of the talk's chain, small enough for a test."""

import random
from typing import Any

import pytest


def exponential(mean_s: float) -> dict[str, Any]:
    """Return a distribution as a scenario file holds it."""
    return {"kind": "exponential", "mean_s": mean_s}


def chain(*, spike_s: float = 10.0, before_s: float = 5.0, after_s: float = 10.0) -> dict[str, Any]:
    """Return three services of which the last is scarce, 400 a second, and a spike of eight times the usual traffic."""
    spike = {"factor": 8, "before_s": before_s, "spike_s": spike_s, "after_s": after_s}
    return {
        "name": "chain",
        "deadline_s": 2.0,
        "capacity_rps": 400.0,
        "services": {
            "topps": {
                "workers": 4,
                "threads": 64,
                "wait": exponential(0.003),
                "deadline_s": 2.0,
                "calls": [{"to": "grouper", "timeout_s": 2.0}],
            },
            "grouper": {
                "workers": 4,
                "threads": 32,
                "wait": exponential(0.005),
                "deadline_s": 1.5,
                "calls": [{"to": "saber", "timeout_s": 1.5, "routes": ["fan"]}],
            },
            "saber": {"workers": 4, "threads": 2, "wait": exponential(0.020), "shed_cost_s": 0.0004},
        },
        "streams": [
            {"name": "fan", "to": "topps", "spike": {"base_rps": 240, **spike}},
            {"name": "innocent", "innocent": True, "to": "topps", "spike": {"base_rps": 80, **spike}},
        ],
    }


@pytest.fixture
def the_chain() -> dict[str, Any]:
    return chain()


@pytest.fixture
def make_chain():
    """Return what makes a chain with a spike of another length, and other times around it."""
    return chain


@pytest.fixture
def dice() -> random.Random:
    return random.Random("dice")
