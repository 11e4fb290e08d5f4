"""What an Envoy configuration does to annotated 503s: bootstrap, one resource, or what its /config_dump says."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from groundfault import wire
from groundfault.doctor.files import UnreadableError, read, unreadable
from groundfault.doctor.finding import Finding, ok, problem, warning
from groundfault.shedding.settings import HEALTH_PATHS

__all__ = ["judge_envoy", "look_at_envoy", "read_envoy"]

_CHECK: Final = "envoy"
_HANDLED: Final = wire.HANDLED.lower()
_STARTS: Final = (wire.REQUEST_START.lower(), wire.QUEUE_START.lower())
_RETRIES: Final[tuple[str, ...]] = ("5xx", "gateway-error")
_SAFE: Final = "retry_on: connect-failure,refused-stream,reset-before-request"
_START: Final = 'request_headers_to_add: X-Request-Start "t=%START_TIME(%s.%3f)%", overwriting'
_DEEPEST: Final = 100
_USUAL_PERCENT: Final = 10
"""Envoy's own default of ``max_ejection_percent``."""


def look_at_envoy(path: str) -> Iterator[Finding]:
    """Read a configuration and judge it."""
    try:
        documents = read_envoy(path)
    except ImportError:
        why = "PyYAML, which reads Envoy's configuration, is not installed"
        yield problem(_CHECK, path, "not looked at", why, "pip install 'groundfault[doctor]'")
        return
    except UnreadableError as error:
        yield unreadable(_CHECK, error)
        return
    yield from judge_envoy(path, documents)


def read_envoy(path: str) -> list[Any]:
    """Return the documents of a YAML or JSON file. Raises :class:`UnreadableError`, and ImportError without PyYAML."""
    text = read(Path(path))
    if text.lstrip().startswith("{"):
        try:
            return [json.loads(text)]
        except (ValueError, RecursionError):  # not JSON after all: the flow style of YAML looks alike
            pass
    import yaml  # noqa: PLC0415  an extra: missed only by whoever asks for envoy

    try:
        return list(yaml.safe_load_all(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(filter(None, (error.context, error.problem)))
        raise UnreadableError(path, f"is not YAML: {said}", mark.line + 1 if mark else 0) from None
    except yaml.YAMLError as error:
        raise UnreadableError(path, f"is not YAML: {' '.join(str(error).split())[:160]}") from None
    except (RecursionError, ValueError):
        raise UnreadableError(path, "is nested beyond reason, or holds a date that is none") from None


def judge_envoy(path: str, documents: list[Any]) -> list[Finding]:
    """Judge what has been read; what is written once and used by several (anchors of YAML) is said once."""
    walker = _Walker(path)
    for document in documents:
        if isinstance(document, Mapping) and {"apiVersion", "kind"} <= set(document):
            why = "Istio makes Envoy's configuration of it, and knows better what becomes of it"
            advice = "istioctl proxy-config all POD -o json > FILE"
            seen = f"is {document['kind']} of Kubernetes, not Envoy's configuration"
            walker.found.append(problem(_CHECK, path, seen, why, advice))
            walker.known = True
        else:
            walker.look(document, (), 0)
    if not walker.known:
        why = "no cluster, no route and no listener is in it"
        walker.found.append(warning(_CHECK, path, "nothing of Envoy's is found", why, "the bootstrap, or /config_dump"))
    elif walker.routes and not walker.starts:
        why = "what a request waits in Envoy is not seen, and a client's own header passes through"
        walker.found.append(warning(_CHECK, path, f"no {wire.REQUEST_START} for the services", why, _START))
    if not walker.found:
        walker.found.append(ok(_CHECK, path, "retries no 503, takes out nobody for one, leaves the header"))
    return walker.found


class _Walker:
    """Walks maps and lists, and knows by which names it came; Envoy's own names are the same in YAML and in JSON."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.found: list[Finding] = []
        self.known = False
        self.routes = False
        self.starts = False
        self.seen: set[int] = set()

    def look(self, value: Any, names: tuple[str, ...], depth: int) -> None:
        if not isinstance(value, Mapping | list) or id(value) in self.seen or depth > _DEEPEST:
            return
        self.seen.add(id(value))
        if isinstance(value, list):
            for number, each in enumerate(value):
                name = each.get("name", number) if isinstance(each, Mapping) else number
                self.look(each, (*names[:-1], f"{names[-1] if names else ''}[{name}]"), depth + 1)
            return
        fields = {_snake(str(key)): held for key, held in value.items()}
        self.known |= bool(
            {"static_resources", "clusters", "listeners", "virtual_hosts", "load_assignment"} & set(fields)
        )
        self.routes |= "virtual_hosts" in fields
        for key, held in fields.items():
            here = (*names, key)
            judge = _JUDGES.get(key)
            if judge is not None and held is not None:
                self.found += judge(f"{self.path}: {'.'.join(here[-4:])}", held)
            if key == "request_headers_to_add":
                self.starts |= any(name in _STARTS for name, _ in _headers(held))
            self.look(held, here, depth + 1)


def _snake(name: str) -> str:
    """Return ``retry_on`` for ``retryOn``: Envoy takes both, and its dumps have the one or the other."""
    return "".join(f"_{each.lower()}" if each.isupper() else each for each in name)


def _fields(value: Any) -> dict[str, Any]:
    return {_snake(str(key)): held for key, held in value.items()} if isinstance(value, Mapping) else {}


def _number(value: Any, default: int) -> int:
    try:
        return default if value is None else int(value)
    except (TypeError, ValueError):
        return default


def _retries(where: str, value: Any) -> Iterator[Finding]:
    policy = _fields(value)
    said = {each.strip() for each in str(policy.get("retry_on") or "").split(",")}
    listed = policy.get("retriable_status_codes")
    codes = {_number(each, 0) for each in listed} if isinstance(listed, list) else set()
    causes = [each for each in _RETRIES if each in said]
    if "retriable-status-codes" in said and wire.SHED_STATUS in codes:
        causes.append(f"retriable-status-codes with {wire.SHED_STATUS}")
    matched = policy.get("retriable_headers")
    if "retriable-headers" in said and isinstance(matched, list):
        names = [str(_fields(each).get("name", "")) for each in matched]
        causes += [f"retriable-headers with {name}" for name in names if name.lower().startswith(_HANDLED)]
    again = _number(policy.get("num_retries"), 1)
    if causes and again > 0:
        seen = f"retry_on {', '.join(causes)}: up to {again + 1} requests of one"
        why = "a shed request is sent again to a service that sheds; several hops that do so multiply"
        yield warning(_CHECK, where, seen, why, _SAFE)


def _outliers(where: str, value: Any) -> Iterator[Finding]:
    detection = _fields(value)
    causes = [
        f"{name} {_number(detection.get(name), usual)}"
        for name, usual, enforcing, share in (
            ("consecutive_5xx", 5, "enforcing_consecutive_5xx", 100),
            ("consecutive_gateway_failure", 5, "enforcing_consecutive_gateway_failure", 0),
            ("success_rate_minimum_hosts", 5, "enforcing_success_rate", 100),
            ("failure_percentage_threshold", 85, "enforcing_failure_percentage", 0),
        )
        if _number(detection.get(enforcing), share) > 0 and _number(detection.get(name), usual) > 0
    ]
    if not causes:
        return
    percent = _number(detection.get("max_ejection_percent"), _USUAL_PERCENT)
    seen = f"takes hosts out by {', '.join(causes)}; up to {percent} %"
    why = "a host that sheds is healthy, but its 503s count: the others get its load, and are the next"
    advice = (
        "enforcing_consecutive_5xx: 0, enforcing_success_rate: 0 and the others; consecutive_local_origin_failure stays"
    )
    kind = problem if percent > _USUAL_PERCENT else warning
    yield kind(_CHECK, where, seen, why, advice)


def _health(where: str, value: Any) -> Iterator[Finding]:
    for check in value if isinstance(value, list) else ():
        path = _fields(_fields(check).get("http_health_check")).get("path")
        if path is not None and str(path).partition("?")[0] not in HEALTH_PATHS:
            why = "a path that is shed in an overload takes the host out, and the others get its load"
            advice = f"path: /healthz, or {path} among the shedder's health_paths"
            yield warning(_CHECK, where, f"health check of {path}", why, advice)


def _headers(value: Any) -> Iterator[tuple[str, str]]:
    for each in value if isinstance(value, list) else ():
        header = _fields(_fields(each).get("header"))
        yield str(header.get("key", "")).lower(), str(header.get("value", ""))


def _added(where: str, value: Any) -> Iterator[Finding]:
    for name, said in _headers(value):
        if name == _HANDLED and "%" not in said:
            why = "Envoy's own 503s, and every plain one, look handled: no circuit opens when everything is down"
            yield problem(_CHECK, where, f"adds {wire.HANDLED}: {said}", why, "take it out")


def _removed(where: str, value: Any) -> Iterator[Finding]:
    if isinstance(value, list) and _HANDLED in [str(each).lower() for each in value]:
        why = "the mark of every shed is taken off: circuits of callers count it as a failure, and trip"
        yield problem(_CHECK, where, f"removes {wire.HANDLED}", why, "take it out")


_JUDGES: Final = {
    "retry_policy": _retries,
    "outlier_detection": _outliers,
    "health_checks": _health,
    "response_headers_to_add": _added,
    "headers_to_add": _added,
    "response_headers_to_remove": _removed,
}
