"""Reads what Prometheus has kept, through its HTTP API."""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from math import isfinite
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from groundfault.advise.distribution import Distribution
from groundfault.advise.observed import Observed, Rates
from groundfault.advise.sources import Reading, SourceError
from groundfault.advise.wording import bounded_text
from groundfault.metrics.catalogue import CATALOGUE

__all__ = ["Prometheus", "read_prometheus"]

TIMEOUT_S: Final = 30.0
_MOST_BYTES: Final = 64 * 2**20
_WINDOW: Final = re.compile(r"(?:\d+(?:ms|[smhdwy]))+\Z")
_RATE_OVER: Final = "5m"
_RATE_OVER_S: Final = 300.0
_SAID: Final = 300

_NAMES: Final = {metric.dotted: metric.name for metric in CATALOGUE}
DURATION: Final = _NAMES["groundfault.command.duration"]
CALLS: Final = _NAMES["groundfault.command.calls"]
LIMIT: Final = _NAMES["groundfault.command.limit"]
STATE: Final = _NAMES["groundfault.circuit.state"]

_Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A server, by its address; a name and password in it are sent as basic authentication and never shown."""

    url: str
    timeout_s: float = TIMEOUT_S

    @property
    def shown(self) -> str:
        """The address without credentials."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))

    def ask(self, query: str) -> Iterator[tuple[_Labels, float]]:
        """Yield labels and value of each series that a query gives now. Raises SourceError, naming server and cause."""
        held = self._answer(query)
        data = held.get("data") if isinstance(held, dict) else None
        if not isinstance(data, dict) or held.get("status") != "success" or data.get("resultType") != "vector":
            raise SourceError(f"{self.shown} does not answer as Prometheus does: {_said(held)}")
        try:
            for series in data["result"]:
                value = float(series["value"][1])
                if isfinite(value):
                    yield dict(series["metric"]), value
        except (KeyError, TypeError, ValueError, IndexError):
            raise SourceError(f"{self.shown} does not answer as Prometheus does: {_said(held)}") from None

    def _answer(self, query: str) -> Any:
        parts = urlsplit(self.url)
        request = Request(  # noqa: S310  the scheme has been checked
            f"{self.shown}/api/v1/query",
            urlencode({"query": query, "timeout": f"{self.timeout_s:g}s"}).encode(),
            {"Accept": "application/json"},
        )
        if parts.username:
            pair = f"{parts.username}:{parts.password or ''}".encode()
            request.add_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
        try:
            with urlopen(request, timeout=self.timeout_s) as answer:  # noqa: S310  as above
                text = answer.read(_MOST_BYTES + 1)
        except HTTPError as error:
            with error:
                raise SourceError(f"{self.shown} answers {error.code}: {_error_of(error.read(_MOST_BYTES))}") from None
        except (OSError, HTTPException) as error:
            cause = getattr(error, "reason", None) or error
            raise SourceError(f"{self.shown} cannot be asked: {cause}") from None
        if len(text) > _MOST_BYTES:
            raise SourceError(f"{self.shown} answers more than {_MOST_BYTES >> 20} MiB; a --select narrows it down")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise SourceError(
                f"{self.shown} does not answer in JSON: {_said(text.decode('utf-8', 'replace'))}"
            ) from None


def _error_of(body: bytes) -> str:
    try:
        held = json.loads(body)
    except (ValueError, RecursionError):
        held = None
    text = held.get("error") if isinstance(held, dict) else None
    return _said(text or body.decode("utf-8", "replace"))


def _said(held: object) -> str:
    return bounded_text(held.strip() if isinstance(held, str) else json.dumps(held), _SAID)


def read_prometheus(url: str, *, window: str, select: str | None, timeout_s: float = TIMEOUT_S) -> Reading:
    """Ask a server for all commands over a window such as ``1d``, and return what it knows.

    ``select``: what else the series must match, such as ``job="topps"``. Raises SourceError.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise SourceError(
            f"{bounded_text(url.rpartition('@')[2], 100)} is no address of a Prometheus: http://host:9090"
        )
    if not _WINDOW.match(window):
        raise SourceError(f"{bounded_text(window, 30)!r} is no window of time: 1d, 6h, 90m")
    server = Prometheus(url, timeout_s)
    matching = f"{{{(select or '').strip().strip('{}')}}}"
    by = "sum by (resource, command"
    counted = f"{DURATION}_count{matching}"
    spans: dict[tuple[str, str, str], dict[float, float]] = {}
    for labels, value in server.ask(f"{by}, outcome, le) (increase({DURATION}_bucket{matching}[{window}]))"):
        bound = _bound(labels.get("le", ""))
        if bound is not None:
            spans.setdefault((*_key(labels), labels.get("outcome", "")), {})[bound] = value
    found: dict[tuple[str, str], Observed] = {}
    sums = {
        (*_key(labels), labels.get("outcome", "")): value
        for labels, value in server.ask(f"{by}, outcome) (increase({DURATION}_sum{matching}[{window}]))")
    }
    for (resource, command, outcome), below in sorted(spans.items()):
        seen = found.setdefault((resource, command), Observed(resource=resource, command=command))
        seen.durations[outcome] = Distribution.of_bounds(below, sums.get((resource, command, outcome)))
    calls: dict[tuple[str, str], dict[str, int]] = {}
    for labels, value in server.ask(f"{by}, outcome) (increase({CALLS}{matching}[{window}]))"):
        calls.setdefault(_key(labels), {})[labels.get("outcome", "")] = round(value)
    rate = f"({by}) (rate({counted}[{_RATE_OVER}])) > 0)[{window}:{_RATE_OVER}]"
    usual = _by_key(server, f"quantile_over_time(0.5, {rate})")
    peak = _by_key(server, f"max_over_time({rate})")
    processes = _by_key(server, f"{by}) ({STATE}{matching})")
    limits = _by_key(server, f"{by}) ({LIMIT}{matching})")
    for key, seen in found.items():
        seen.calls = calls.get(key, {})
        if peak.get(key):
            seen.rates = Rates(usual.get(key, 0.0), peak[key], _RATE_OVER_S)
        seen.processes = round(processes.get(key, 0.0)) or None
        if limits.get(key) and seen.processes:
            seen.settings = {"max_concurrent": max(1, round(limits[key] / seen.processes))}
    notes = [
        f"{server.shown}, the last {window}: durations are known as exactly as its buckets are fine",
        f"the busiest time is one of {_RATE_OVER}; shorter peaks are not seen, --peak-factor allows for them",
    ]
    hint = "" if found else f"{server.shown} knows no {DURATION}_bucket of the last {window}"
    return Reading(list(found.values()), notes if found else [], hint)


def _key(labels: _Labels) -> tuple[str, str]:
    return bounded_text(labels.get("resource", ""), 100), bounded_text(labels.get("command", ""), 100)


def _by_key(server: Prometheus, query: str) -> dict[tuple[str, str], float]:
    return {_key(labels): value for labels, value in server.ask(query)}


def _bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    return bound if bound > 0 else None
