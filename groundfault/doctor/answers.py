"""Asks a URL once, and looks at what comes: its clock, and what a proxy has left of GroundFault's headers."""

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from groundfault import wire
from groundfault._clock import monotonic, wall
from groundfault.doctor.clock import SKEW
from groundfault.doctor.finding import Finding, ok, problem, warning

__all__ = ["Answer", "ask_url", "judge_answer", "look_at_url"]

_CHECK: Final = "url"
_TIMEOUT_S: Final = 3.0
_NOT_HEAD: Final = frozenset({404, 405, 501})
_UNAVAILABLE: Final = 503
_DATE_S: Final = 1.0
"""A Date header says the second, and some servers make one a second: so much it may be older than the answer."""
_MOST_SKEW_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. ``headers``: names in lower case. ``asked``: our clock before; ``took_s``: until its head came."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    asked: float = 0.0
    took_s: float = 0.0


def look_at_url(url: str) -> Iterator[Finding]:
    """Ask with HEAD, or with GET if that is not understood; nothing is followed, and no body is read."""
    try:
        parts = urlsplit(url)
        shown = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except ValueError:
        parts, shown = urlsplit(""), "this URL"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        why = "nobody can be asked"
        yield problem(_CHECK, shown, "is no URL of http or https", why, "--url http://host:port/healthz")
        return
    try:
        answer = ask_url(url, "HEAD")
        if answer.status in _NOT_HEAD:
            answer = ask_url(url, "GET")
    except (OSError, HTTPException, ValueError) as failure:
        said = " ".join(f"{failure}".split()) or type(failure).__name__
        yield problem(
            _CHECK, shown, f"no answer within {_TIMEOUT_S:g} s: {said[:160]}", "nothing is known", "is it up?"
        )
        return
    yield from judge_answer(shown, answer)


def ask_url(url: str, method: str) -> Answer:
    """Make one request, without a proxy. Raises OSError, HTTPException, and ValueError for odd characters."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: HTTPConnection = (
        HTTPSConnection(host, parts.port, timeout=_TIMEOUT_S, context=ssl.create_default_context())
        if parts.scheme == "https"
        else HTTPConnection(host, parts.port, timeout=_TIMEOUT_S)
    )
    try:
        connection.connect()
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        asked, began = wall(), monotonic()
        connection.request(method, target, headers={"User-Agent": "groundfault-doctor", "Connection": "close"})
        response = connection.getresponse()
        took_s = monotonic() - began
        headers = {name.lower(): value for name, value in response.getheaders()}
        response.close()
    finally:
        connection.close()
    return Answer(response.status, headers, asked, took_s)


def judge_answer(where: str, answer: Answer) -> Iterator[Finding]:
    """Judge one answer."""
    yield _skew(where, answer)
    yield _annotation(where, answer)
    after = answer.headers.get("retry-after")
    if answer.status == _UNAVAILABLE and after is not None:
        why = "urllib3 makes four requests of one such GET by default, and many clients come back in the same second"
        advice = "leave it out, or let it vary: retry_after of the shedder, or whoever answers here"
        yield warning(_CHECK, where, f"503 with Retry-After: {after[:40]}", why, advice)


def _skew(where: str, answer: Answer) -> Finding:
    said = answer.headers.get("date")
    try:
        date = parsedate_to_datetime(said or "").timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return ok(_CHECK, where, "its answer has no usable Date: nothing is known of its clock")
    ours = answer.asked + answer.took_s / 2
    # The second that it names has begun, and may have ended while the server still used it.
    earliest, latest = date - answer.took_s / 2, date + _DATE_S + _DATE_S + answer.took_s / 2
    skew_s = max(earliest - ours, ours - latest, 0.0)
    if skew_s > _MOST_SKEW_S:
        which = "ahead of" if earliest > ours else "behind"
        seen = f"its clock is at least {skew_s:.0f} s {which} this one"
        return warning(_CHECK, where, seen, SKEW, "NTP on both: the check `clock` says whether this one has it")
    return ok(_CHECK, where, "its clock agrees with this one, as far as a Date header can say (a second or two)")


def _annotation(where: str, answer: Answer) -> Finding:
    status, headers = answer.status, answer.headers
    who = f", Server: {headers['server'][:60]}" if headers.get("server") else ""
    handled = headers.get(wire.HANDLED.lower())
    if handled is None and status == _UNAVAILABLE:
        why = (
            "circuits count a plain 503 as a failure: it is not GroundFault who answers, or a proxy took the header off"
        )
        return warning(
            _CHECK, where, f"503 without {wire.HANDLED}{who}", why, "ask the service itself, without a proxy"
        )
    if handled is None:
        return ok(_CHECK, where, f"{status}{who}")
    if status != _UNAVAILABLE:
        why = "the header belongs to a 503, and GroundFault sends it with no other: somebody adds it to all"
        return problem(_CHECK, where, f"{status} with {wire.HANDLED}: {handled[:40]}{who}", why, "look at the proxies")
    reason = headers.get(wire.REASON.lower(), "no reason")
    return ok(_CHECK, where, f"it sheds just now, and says so: {wire.HANDLED}: {handled[:40]}, {reason[:40]}{who}")
