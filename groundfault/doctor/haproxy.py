"""What an HAProxy configuration does to annotated 503s. Reads its sections and lines; ``haproxy -c`` checks them."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from groundfault import wire
from groundfault.doctor.files import UnreadableError, read, unreadable
from groundfault.doctor.finding import Finding, ok, problem, warning
from groundfault.shedding.settings import HEALTH_PATHS

__all__ = ["Line", "Section", "judge_haproxy", "look_at_haproxy", "read_haproxy"]

_CHECK: Final = "haproxy"
_HANDLED: Final = wire.HANDLED.lower()
_PROXIES: Final = ("defaults", "frontend", "backend", "listen")
_OTHERS: Final = (
    *("global", "peers", "resolvers", "userlist", "cache", "program", "mailers", "ring", "http-errors", "fcgi-app"),
    *("crt-store", "traces", "log-forward", "log-profile", "acme"),
)
_STARTS: Final = ([wire.REQUEST_START.lower()], [wire.QUEUE_START.lower()])
_SHED: Final = "503"
_START: Final = "http-request set-header X-Request-Start t=%[date(0,ms)]"
_SET: Final = ("set-header", "add-header", "replace-header", "replace-value")
_ANSWERS: Final = ("http-response", "http-after-response")


@dataclass(frozen=True, slots=True)
class Line:
    """One statement, in words."""

    number: int
    words: tuple[str, ...]

    def starts(self, *words: str) -> bool:
        """Whether it begins so."""
        return self.words[: len(words)] == words


@dataclass(slots=True)
class Section:
    """One section. ``inherited``: the lines of the ``defaults`` that hold for it."""

    kind: str
    name: str
    number: int
    lines: list[Line] = field(default_factory=list)
    inherited: list[Line] = field(default_factory=list)

    def last(self, *words: str) -> Line | None:
        """Return the line that begins so and holds; ``no option x`` takes an ``option x`` away."""
        for lines in (self.lines, self.inherited):
            for line in reversed(lines):
                if line.starts(*words):
                    return line
                if line.starts("no", *words):
                    return None
        return None

    def all(self, *words: str) -> list[Line]:
        """Return the lines that begin so: its own, or else those inherited."""
        own = [line for line in self.lines if line.starts(*words)]
        return own or [line for line in self.inherited if line.starts(*words)]


def look_at_haproxy(path: str) -> Iterator[Finding]:
    """Read a configuration and judge it."""
    try:
        sections = read_haproxy(path, read(Path(path)))
    except UnreadableError as error:
        yield unreadable(_CHECK, error)
        return
    yield from judge_haproxy(path, sections)


def read_haproxy(path: str, text: str) -> list[Section]:
    """Return the sections. Raises :class:`UnreadableError` for what is no configuration of HAProxy's."""
    sections: list[Section] = []
    defaults: dict[str, list[Line]] = {}
    unnamed: list[Line] = []
    for number, raw in enumerate(text.splitlines(), 1):
        try:
            words = tuple(shlex.split(raw, comments=True))
        except ValueError as error:
            raise UnreadableError(
                path, f"is not HAProxy's: {error}".lower().replace("haproxy", "HAProxy"), number
            ) from None
        if not words or words[0].startswith("."):  # .if, .endif: what they hold is taken as it stands
            continue
        if words[0] in _OTHERS or words[0] in _PROXIES:
            name = words[1] if len(words) > 1 and words[1] != "from" else ""
            section = Section(words[0], name, number)
            if "from" in words[:-1]:
                section.inherited = list(defaults.get(words[words.index("from") + 1], ()))
            elif words[0] in _PROXIES and words[0] != "defaults":
                section.inherited = list(unnamed)
            if words[0] == "defaults":
                unnamed = section.lines
                section.lines += section.inherited
                defaults[name] = section.lines
            sections.append(section)
        elif sections:
            sections[-1].lines.append(Line(number, words))
        else:
            raise UnreadableError(path, f"is not HAProxy's: {words[0][:40]!r} stands outside of any section", number)
    return sections


def judge_haproxy(path: str, sections: Sequence[Section]) -> list[Finding]:
    """Judge all sections; what ``defaults`` say for several of them is said once."""
    found: list[Finding] = []
    served = [each for each in sections if each.kind in {"backend", "listen"}]
    proxies = [each for each in sections if each.kind in _PROXIES]
    for section in served:
        mode = section.last("mode")
        if mode is not None and mode.words[1:2] == ("http",):
            found += _retries(path, section)
            found += _observed(path, section)
            found += _checked(path, section)
    for section in proxies:
        found += _pages(path, section)
        found += _rules(path, section)
    found = list(dict.fromkeys(found))
    if not served:
        why = "there is nothing in it that GroundFault could stand behind"
        return [*found, warning(_CHECK, path, "no backend and no listen section", why, "name the file that has them")]
    if not any(_sets_start(line) for section in proxies for line in section.lines):
        why = "what a request waits in HAProxy, in the queue of maxconn say, is not seen; a client's own header passes"
        found.append(warning(_CHECK, path, f"no {wire.REQUEST_START} for the services", why, _START))
    if all(each.verdict == "ok" for each in found):
        found.append(ok(_CHECK, path, f"{len(served)} backends; 503s come through as they are"))
    return found


def _at(path: str, line: Line) -> str:
    return f"{path}:{line.number}"


def _retries(path: str, section: Section) -> Iterator[Finding]:
    given, retries = section.last("retry-on"), section.last("retries")
    causes = [word for word in (given.words[1:] if given else ()) if word in {_SHED, "all-retryable-errors"}]
    again = int(retries.words[1]) if retries and retries.words[1:] and retries.words[1].isdigit() else 3
    if given and causes and again:
        other = ", on other servers as well" if section.last("option", "redispatch") else ""
        seen = f"retry-on {' '.join(causes)}: up to {again + 1} requests of one{other}"
        why = "a shed request is sent again to servers that shed, at once and without a budget"
        yield warning(_CHECK, _at(path, given), seen, why, "retry-on conn-failure, which is the default")


def _observed(path: str, section: Section) -> Iterator[Finding]:
    usual: tuple[str, ...] = ()
    for line in (*section.inherited, *section.lines):
        if line.words[0] == "default-server":
            usual += line.words[1:]
            continue
        if line.words[0] not in {"server", "server-template"}:
            continue
        words = (*usual, *line.words[3:])
        if _after(words, "observe") != "layer7" or "check" not in words:
            continue
        then, errors = _after(words, "on-error") or "fail-check", _after(words, "error-limit") or "10"
        seen = f"{section.kind} {section.name}: observe layer7, on-error {then} after {errors} in a row"
        why = "a server that sheds is healthy, but its 503s count: the others get its load, and are the next"
        kind = problem if then in {"mark-down", "sudden-death"} else warning
        yield kind(_CHECK, _at(path, line), seen, why, "observe layer4, and a health check of /healthz")
        return


def _after(words: Sequence[str], name: str) -> str:
    """Return the word behind the last ``name``, "" if there is none."""
    return next((words[at + 1] for at in range(len(words) - 2, -1, -1) if words[at] == name), "")


def _checked(path: str, section: Section) -> Iterator[Finding]:
    asked = section.last("option", "httpchk")
    lines = [*section.inherited, *section.lines]
    checked = any(
        "check" in line.words for line in lines if line.words[0] in {"server", "server-template", "default-server"}
    )
    if asked is None or not checked:
        return
    uri = next((word for word in asked.words[2:4] if word.startswith("/")), "/")
    where = asked
    for sent in section.all("http-check", "send"):
        if _after(sent.words, "uri"):
            uri, where = _after(sent.words, "uri"), sent
    if uri.partition("?")[0] not in HEALTH_PATHS:
        seen = f"the health check asks for {uri}"
        why = "a path that is shed in an overload takes the server out, and the others get its load"
        advice = f"option httpchk GET /healthz, or {uri} among the shedder's health_paths"
        yield warning(_CHECK, _at(path, where), seen, why, advice)


def _pages(path: str, section: Section) -> Iterator[Finding]:
    """Error pages stand for HAProxy's own answers only; one that says `handled` makes an outage look like a shed."""
    for line in section.lines:
        own = line.starts("http-error", "status", _SHED)
        marked = own and any(word.lower() == _HANDLED for word in line.words)
        if line.starts("errorfile", _SHED) and len(line.words) > len(("errorfile", _SHED)):
            own = True
            try:
                page = read(Path(line.words[2]))
            except UnreadableError:
                page = ""
            marked = f"\n{_HANDLED}:" in page.lower()
        if marked:
            why = "when every server is down its 503 looks handled: no circuit opens"
            yield problem(
                _CHECK, _at(path, line), f"HAProxy's own 503 carries {wire.HANDLED}", why, "take the header out"
            )
        elif own:
            yield ok(_CHECK, _at(path, line), "an error page for HAProxy's own 503s; it does not replace a service's")


def _rules(path: str, section: Section) -> Iterator[Finding]:
    for line in section.lines:
        words = tuple(word.lower() for word in line.words)
        if words[0] not in _ANSWERS or len(words) < len(("http-response", "return")):
            continue
        shown = " ".join(line.words[:4])
        if words[1] == "del-header" and words[2:3] == (_HANDLED,):
            why = "the mark of every shed is taken off: circuits of callers count it as a failure, and trip"
            yield problem(_CHECK, _at(path, line), shown, why, "take the line out")
        elif words[1] in _SET and words[2:3] == (_HANDLED,):
            why = "HAProxy's 503s, or plain ones, look handled: no circuit opens when everything is down"
            yield problem(_CHECK, _at(path, line), shown, why, "take the line out")
        elif words[1] in {"return", "deny"} and _is_about_503(words):
            why = f"HAProxy answers in the service's place, without {wire.HANDLED}: circuits of callers count a failure"
            advice = f"leave out what is marked: !{{ res.hdr({wire.HANDLED}) -m found }}"
            yield problem(_CHECK, _at(path, line), f"{shown} ...", why, advice)


def _is_about_503(words: Sequence[str]) -> bool:
    condition = words[words.index("if") :] if "if" in words else ()
    marked = any(_HANDLED in word for word in words)
    return not marked and "status" in condition and any(word in {_SHED, "500", "500:599", "5xx"} for word in condition)


def _sets_start(line: Line) -> bool:
    words = [word.lower() for word in line.words]
    return words[:2] == ["http-request", "set-header"] and words[2:3] in _STARTS
