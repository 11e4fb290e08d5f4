"""Overload protection for Python services: shed load on purpose, say so, and trip nobody's circuit breaker.

The server half is :class:`LoadShedder` (ASGI) and :class:`WSGILoadShedder`.
The client half is :class:`Resource`, which makes a :class:`Command` for each kind of call;
adapters for client libraries are in ``groundfault.integrations``.
"""

from importlib.metadata import version as _version

from groundfault.breaker import Attempt, BreakerSettings, Command, Registry, Resource, registry
from groundfault.errors import (
    BulkheadFullError,
    CircuitOpenError,
    CommandTimeoutError,
    GroundFaultError,
    RejectedError,
    SettingsError,
    ShedError,
    ThrottledError,
    UnhealthyError,
)
from groundfault.retries import RetryBudget, retryable
from groundfault.shedding.asgi import LoadShedder
from groundfault.shedding.criticality import CriticalityRule
from groundfault.shedding.settings import ShedderSettings
from groundfault.shedding.shedder import Shedder
from groundfault.shedding.wsgi import WSGILoadShedder
from groundfault.sinks import default_sinks
from groundfault.vocabulary import Criticality, Mode, Outcome, Reason, State

__all__ = [
    "Attempt",
    "BreakerSettings",
    "BulkheadFullError",
    "CircuitOpenError",
    "Command",
    "CommandTimeoutError",
    "Criticality",
    "CriticalityRule",
    "GroundFaultError",
    "LoadShedder",
    "Mode",
    "Outcome",
    "Reason",
    "Registry",
    "RejectedError",
    "Resource",
    "RetryBudget",
    "SettingsError",
    "ShedError",
    "Shedder",
    "ShedderSettings",
    "State",
    "ThrottledError",
    "UnhealthyError",
    "WSGILoadShedder",
    "__version__",
    "default_sinks",
    "registry",
    "retryable",
]

__version__ = _version("groundfault")
