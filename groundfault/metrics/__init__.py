"""Everything that GroundFault counts, under the names that the world knows it by.

:func:`start` has this process report to a run directory, so that all of a service's can be seen together.
:class:`MetricsApp` and :class:`WSGIMetricsApp` are ``/metrics``. :func:`read` returns what all have counted.
"""

from groundfault.metrics.app import MetricsApp, WSGIMetricsApp
from groundfault.metrics.catalogue import CATALOGUE
from groundfault.metrics.report import Report
from groundfault.metrics.rundir import RunDirError, read
from groundfault.metrics.writer import scrape, start

__all__ = ["CATALOGUE", "MetricsApp", "Report", "RunDirError", "WSGIMetricsApp", "read", "scrape", "start"]
