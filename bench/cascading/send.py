"""The generator as a program of its own: ``python -m cascading.send PLAN OUTCOME``."""

import json
import sys
from array import array
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from openloop.generator import Outcome, Plan, drive

__all__ = ["read_outcome", "write_plan"]


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan as JSON."""
    values = {field.name: getattr(plan, field.name) for field in fields(plan)}
    values |= {"due": list(plan.due), "lanes": list(plan.lanes), "requests": [each.decode() for each in plan.requests]}
    path.write_text(json.dumps(values))


def read_plan(path: Path) -> Plan:
    """Read it again."""
    values: dict[str, Any] = json.loads(path.read_text())
    values |= {"due": array("d", values["due"]), "lanes": array("l", values["lanes"])}
    values["requests"] = [each.encode() for each in values["requests"]]
    return Plan(**values)


def write_outcome(outcome: Outcome, path: Path) -> None:
    """Write what became of a plan; nobody sees half of it."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({name: list(values) for name, values in asdict(outcome).items()}))
    draft.replace(path)


def read_outcome(path: Path) -> Outcome:
    """Read it again."""
    values = json.loads(path.read_text())
    return Outcome(**{field.name: array(_code(field.name), values[field.name]) for field in fields(Outcome)})


def _code(name: str) -> str:
    code: str = getattr(Outcome(), name).typecode
    return code


if __name__ == "__main__":
    write_outcome(drive(read_plan(Path(sys.argv[1]))), Path(sys.argv[2]))
