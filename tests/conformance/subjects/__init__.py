"""The libraries that are asked: one adapter each, imported only when it is wanted."""

from importlib import import_module

from conformance.subject import Subject

NAMES = ["groundfault", "interlock", "pybreaker", "circuitbreaker", "aiobreaker", "purgatory", "hyx", "aioresilience"]


def load(name: str) -> type[Subject]:
    """Return an adapter's subject. Raises ImportError if its library is not installed."""
    subject: type[Subject] = import_module(f"conformance.subjects.{name}").SUBJECT
    return subject
