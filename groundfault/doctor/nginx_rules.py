"""What an nginx configuration does to annotated 503s, and whether it says when a request came."""

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Final

from groundfault import wire
from groundfault.doctor.files import UnreadableError, unreadable
from groundfault.doctor.finding import Finding, ok, problem, warning
from groundfault.doctor.nginx import Directive, Place, places, read_nginx, walk
from groundfault.shedding.settings import HEALTH_PATHS

__all__ = ["judge_nginx", "look_at_nginx"]

_CHECK: Final = "nginx"
_HANDLED: Final = wire.HANDLED.lower()
_UPSTREAM_HANDLED: Final = "$upstream_http_" + _HANDLED.replace("-", "_")
_STARTS: Final = (wire.REQUEST_START.lower(), wire.QUEUE_START.lower())
_START_PARAMETERS: Final = tuple("http_" + name.replace("-", "_") for name in _STARTS)
_SET_START: Final = 'proxy_set_header X-Request-Start "t=${msec}";'
_LIMITS: Final = (("limit_req", "limit_req_status"), ("limit_conn", "limit_conn_status"))
_SHED: Final = "503"
_HOST: Final = re.compile(r"(?:[a-z]+://)?(?P<host>unix:|\[[^\]]*\]|[^:/]+)")


def look_at_nginx(path: str) -> Iterator[Finding]:
    """Read a configuration and judge it."""
    try:
        tree = read_nginx(path)
    except ImportError:
        why = "crossplane, which reads nginx's configuration, is not installed"
        yield problem(_CHECK, path, "not looked at", why, "pip install 'groundfault[doctor]'")
        return
    except UnreadableError as error:
        yield unreadable(_CHECK, error)
        return
    yield from judge_nginx(path, tree)


def judge_nginx(path: str, tree: Sequence[Directive]) -> list[Finding]:
    """Judge a whole configuration; what one line does in many places is said once."""
    passing = places(tree)
    upstreams = {
        each.words[0]: [server for server in each.block or () if server.name == "server"]
        for each, _ in walk(tree)
        if each.name == "upstream" and each.words
    }
    found: list[Finding] = []
    for place in passing:
        found += _next_upstream(place, upstreams)
        found += _headers(place)
        found += _intercepted(place)
        found += _cached(place)
        found += _limited(place)
    for each, _ in walk(tree):
        found += _said_by_nginx(each)
        found += _health(each)
    found = list(dict.fromkeys(found)) + list(_starts(path, passing, upstreams))
    if not passing:
        why = "there is nothing in it that GroundFault could stand behind"
        return [*found, warning(_CHECK, path, "passes no request on", why, "name the file that has proxy_pass in it")]
    if not any(each.verdict != "ok" for each in found):
        found.append(ok(_CHECK, path, f"{len(passing)} places pass requests on; 503s come through as they are"))
    return found


def _next_upstream(place: Place, upstreams: dict[str, list[Directive]]) -> Iterator[Finding]:
    for given in place.of_family("next_upstream"):
        alone, patient, number = _peers(place, upstreams)
        if alone:
            continue
        tries = [int(each.words[0]) for each in place.of_family("next_upstream_tries") if each.words[0].isdigit()]
        most = min(limit for limit in (*tries, number) if limit) if tries or number else 0
        if most == 1:
            continue
        hits = f"up to {most} requests of one" if most else "as many requests of one as there are servers"
        seen = f"{given.name} with http_{_SHED}: {hits}"
        if f"http_{_SHED}" in given.words and patient:
            why = "a shed request is sent on to servers that shed as well, at once and without a budget"
            yield warning(_CHECK, given.where, seen, why, f"{given.name} error timeout, which is the default")
        elif f"http_{_SHED}" in given.words:
            why = "each shed counts for max_fails: soon every server is `down`, and all get a plain 502"
            yield problem(_CHECK, given.where, seen, why, f"{given.name} error timeout, which is the default")
        if "non_idempotent" in given.words:
            why = "what timed out once in an overload is work for a second server, and may be done twice"
            advice = "leave it out, unless every POST may be made twice"
            yield warning(_CHECK, given.where, f"{given.name} with non_idempotent", why, advice)


def _peers(place: Place, upstreams: dict[str, list[Directive]]) -> tuple[bool, bool, int]:
    """Return whether there is but one server, whether none is ever taken for down, and how many there are or 0."""
    match = _HOST.match(place.given.words[0])
    host = match["host"] if match else ""
    servers = upstreams.get(host)
    if servers is None:
        return _is_one(host), False, 0
    names = [_HOST.match(server.words[0]) for server in servers if server.words]
    each_one = all(name is not None and _is_one(name["host"]) for name in names)
    patient = bool(servers) and all("max_fails=0" in server.words for server in servers)
    return each_one and len(servers) == 1, patient, len(servers) if each_one else 0


def _is_one(host: str) -> bool:
    """Whether it is one address: a name may stand for several."""
    if host == "unix:":
        return True
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _headers(place: Place) -> Iterator[Finding]:
    for given in place.of_family("hide_header"):
        name = given.words[0].lower() if given.words else ""
        if name == _HANDLED:
            why = "the mark of every shed is taken off: circuits of callers count it as a failure, and trip"
            yield problem(_CHECK, given.where, f"{given.name} {given.words[0]}", why, "take the line out")
        elif name == wire.REASON.lower():
            why = "callers no longer learn what may be tried again, and a refusal from below looks like this service's"
            yield warning(_CHECK, given.where, f"{given.name} {given.words[0]}", why, "take the line out")


def _said_by_nginx(each: Directive) -> Iterator[Finding]:
    words = [word.lower() for word in each.words]
    if each.name == "add_header" and words[:1] == [_HANDLED] and "always" in words and not words[1].startswith("$"):
        why = "nginx's own 502s and 503s, and every plain 503, look handled: no circuit opens when everything is down"
        yield problem(_CHECK, each.where, " ".join(("add_header", *each.words)), why, "take the line out")


def _intercepted(place: Place) -> Iterator[Finding]:
    if not place.is_on("intercept_errors"):
        return
    for page in place.effective("error_page"):
        target, codes = page.words[-1], page.words[:-1]
        if _SHED not in codes:
            continue
        changed = next((word for word in codes if word.startswith("=")), "")
        seen = f"error_page {_SHED} with {place.family}_intercept_errors on"
        if changed and changed != f"={_SHED}":
            why = f"callers are told {changed.lstrip('=') or 'something else'}: a refusal that they cannot see as one"
            yield warning(
                _CHECK, page.where, seen, why, "a fallback belongs to the caller, which knows what it asked for"
            )
            continue
        location = _location(place, target)
        added = location.effective("add_header") if location else []
        if not any(_keeps(each) for each in added):
            why = f"nginx answers in the service's place, without {wire.HANDLED}: circuits of callers count a failure"
            advice = f"leave {_SHED} out, or in {target}: add_header {wire.HANDLED} {_UPSTREAM_HANDLED} always;"
            yield problem(_CHECK, page.where, seen, why, advice)


def _keeps(added: Directive) -> bool:
    words = [word.lower() for word in added.words]
    return words[:2] == [_HANDLED, _UPSTREAM_HANDLED] and "always" in words


def _location(place: Place, target: str) -> Place | None:
    """Return the location that an error page leads to: by its name, or the longest prefix; None if there is none."""
    for block in reversed(place.around):
        fitting = [
            each
            for each in block
            if each.name == "location" and each.block is not None and each.words and _fits(each.words, target)
        ]
        if fitting:
            best = max(fitting, key=lambda each: len(each.words[-1]))
            around = (*place.around[: place.around.index(block) + 1], best.block or ())
            return Place(best, place.family, around)
    return None


def _fits(words: tuple[str, ...], target: str) -> bool:
    if words[0] in {"~", "~*"}:
        return False
    return target == words[-1] or (words[0] != "=" and target.startswith("/") and target.startswith(words[-1]))


def _cached(place: Place) -> Iterator[Finding]:
    if not any(each.words[:1] not in ((), ("off",)) for each in place.of_family("cache")):
        return
    ignored = {word.lower() for each in place.of_family("ignore_headers") for word in each.words}
    for given in place.of_family("cache_valid"):
        if "cache-control" in ignored and {_SHED, "any"} & set(given.words[:-1]):
            why = "one refusal is served to everybody for so long, from a service that has long been well again"
            advice = (
                f"name the codes to keep, without {_SHED}; Cache-Control: no-store of the answer would do, if obeyed"
            )
            seen = " ".join((given.name, *given.words)) + ", and Cache-Control is ignored"
            yield problem(_CHECK, given.where, seen, why, advice)


def _limited(place: Place) -> Iterator[Finding]:
    for name, status in _LIMITS:
        limits = place.effective(name)
        said = [each.words[0] for each in place.effective(status) if each.words] or [_SHED]
        if limits and said[-1] == _SHED:
            why = "beyond the limit nginx answers a plain 503, which circuits of callers count as a failure"
            yield warning(_CHECK, limits[0].where, f"{name} answers {_SHED}", why, f"{status} 429;")


def _health(each: Directive) -> Iterator[Finding]:
    if each.name != "health_check":
        return
    uri = next((word.removeprefix("uri=") for word in each.words if word.startswith("uri=")), "/")
    if uri.partition("?")[0] not in HEALTH_PATHS:
        why = "a path that is shed in an overload takes the server out, and the others get its load"
        advice = f"uri=/healthz, or {uri} among the shedder's health_paths"
        yield warning(_CHECK, each.where, f"health_check of {uri}", why, advice)


def _starts(path: str, passing: Sequence[Place], upstreams: dict[str, list[Directive]]) -> Iterator[Finding]:
    missing: dict[bool, list[Place]] = {}
    for place in passing:
        given = _start(place)
        if given is None:
            missing.setdefault(_is_unix(place, upstreams), []).append(place)
        elif "$http_" in given.words[1].lower() or "$" not in given.words[1]:
            why = "a client says itself when its request came; nginx's time is to replace that"
            yield warning(_CHECK, given.where, " ".join((given.name, *given.words)), why, _SET_START)
    for unix, without in missing.items():
        lines = ", ".join(dict.fromkeys(str(place.given.line) for place in without))
        file = without[0].given.file or path
        seen = f"no {wire.REQUEST_START} to {'a unix socket' if unix else 'the service'}, line {lines}"
        why = "what a request waits in nginx is not seen, and a client's own header passes through"
        if unix:
            why = "the kernel keeps no times for unix sockets: no wait is seen, and nothing is shed"
        hidden = [place for place in without if _is_replaced(place)]
        if hidden:
            inner = hidden[0].effective(_setter(hidden[0]))[0].line
            why += f"; one further out is void here, because line {inner} starts a list of its own"
        yield warning(_CHECK, f"{file}:{without[0].given.line}", seen, why, _SET_START)


def _setter(place: Place) -> str:
    return f"{place.family}_set_header" if place.family in {"proxy", "grpc"} else f"{place.family}_param"


def _start(place: Place) -> Directive | None:
    found = [each for each in place.effective(_setter(place)) if _sets_start(each)]
    return found[-1] if found else None


def _sets_start(each: Directive) -> bool:
    return len(each.words) > 1 and each.words[0].lower() in (*_STARTS, *_START_PARAMETERS)


def _is_replaced(place: Place) -> bool:
    """Whether an outer level says when a request came, and an inner one with other headers makes that void."""
    setter = _setter(place)
    return any(each.name == setter and _sets_start(each) for block in place.around for each in block)


def _is_unix(place: Place, upstreams: dict[str, list[Directive]]) -> bool:
    match = _HOST.match(place.given.words[0])
    host = match["host"] if match else ""
    servers = upstreams.get(host, [])
    return host == "unix:" or any(server.words and server.words[0].startswith("unix:") for server in servers)
