"""The libraries that are asked: one adapter each, imported only when it is wanted."""

from importlib import import_module

from conformance.subject import Subject

LABELS = {
    "groundfault": "GroundFault",
    "interlock": "interlock-cb",
    "pybreaker": "pybreaker",
    "circuitbreaker": "circuitbreaker",
    "aiobreaker": "aiobreaker",
    "purgatory": "purgatory",
    "hyx": "hyx",
    "aioresilience": "aioresilience",
}
"""What each is called on PyPI and in the table, by the name of its adapter."""

NAMES = list(LABELS)


def load(name: str) -> type[Subject]:
    """Return an adapter's subject. Raises ImportError if its library is not installed."""
    subject: type[Subject] = import_module(f"conformance.subjects.{name}").SUBJECT
    return subject
