"""The client half: calls to a dependency through one chokepoint."""

from groundfault.breaker.attempt import Attempt
from groundfault.breaker.command import Command
from groundfault.breaker.registry import Registry, Resource, registry
from groundfault.breaker.settings import BreakerSettings
from groundfault.breaker.snapshot import CommandSnapshot

__all__ = ["Attempt", "BreakerSettings", "Command", "CommandSnapshot", "Registry", "Resource", "registry"]
