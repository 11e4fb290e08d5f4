"""The one place where the hub meets what makes views: an observer for each service, and the view of them all."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from groundfault.console.view import HostRow, View
from groundfault.metrics.report import Report

__all__ = ["Observer", "Seeing"]


class Observer(Protocol):
    """Sees the report of a service each second, and remembers what it needs."""

    def see(self, report: Report, now: float) -> None:
        """Take in the newest report. ``now``: seconds since the epoch."""


class Seeing:
    """Makes observers and views. Imported when it is made, so that a command line that never needs it does not wait."""

    def __init__(self) -> None:
        self._observing: Any = import_module("groundfault.console.observing")
        self._views: Any = import_module("groundfault.console.views")

    def observer(self, service: str) -> Observer:
        """Return what will see this service."""
        return cast("Observer", self._observing.Observer(service))

    def view(self, observers: Sequence[Observer], *, hosts: Sequence[HostRow], **more: Any) -> View:
        """Return the view of all of them. ``more``: what :func:`groundfault.console.views.view_of` wants besides."""
        return cast("View", self._views.view_of(observers, kind="hub", hosts=hosts, **more))
