"""The options that every scenario has, and what is wrong with those that were given. Knows argparse, not Locust."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Any, Final
from urllib.parse import urlsplit

from groundfault.lab.curves import Curve
from groundfault.lab.load.scenario import Lane, Options, Played, Scenario
from groundfault.lab.load.targets import VARIANTS
from groundfault.lab.runs.measures import Bound, evaluate
from groundfault.lab.runs.record import Run, Stream
from groundfault.lab.runs.tally import Tally

__all__ = ["OptionError", "Plan", "add_options", "host_of", "plan"]

LAG_LIMIT_MS: Final = 10.0
MAX_OPEN: Final = 5_000
MAX_RUN_S: Final = 7 * 86_400


class OptionError(ValueError):
    """An option makes no sense; the message names it, its bound and what it was."""


def add_options(group: Options, scenario: Scenario) -> None:
    """Add the kit's options and the scenario's own."""
    group.add_argument("--deadline", type=float, default=scenario.deadline_s, help="seconds after which one gives up")
    group.add_argument("--seed", default="gronk", help="the same seed gives the same arrivals")
    group.add_argument("--scale-time", type=float, default=1.0, help="multiplies all times: 0.1 plays it in a tenth")
    group.add_argument(
        "--capacity",
        type=float,
        default=None,
        help="good answers a second that the scarce service can give; by default what the scenario's own target says",
    )
    group.add_argument(
        "--variant",
        choices=VARIANTS,
        default=VARIANTS[0],
        help="what protects the scenario's own target; with --host, a word for the report",
    )
    group.add_argument("--gate", action="append", default=[], metavar="EXPR", help="one more bound: shed@spike<=0.5")
    group.add_argument("--run-file", default="", metavar="FILE", help="write the run to this file, as JSON")
    group.add_argument("--result-file", default="", metavar="FILE", help="write one JSON line per request to this file")
    group.add_argument(
        "--max-lag-ms",
        type=float,
        default=LAG_LIMIT_MS,
        help="the run is void if 1 %% of the requests are sent later than this",
    )
    group.add_argument(
        "--max-open", type=int, default=MAX_OPEN, help="requests that a process may have open; others are not sent"
    )
    group.add_argument("--insecure", action="store_true", help="do not verify the certificate of an https target")
    scenario.options(group)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A scenario with its options: what is going to happen. ``curve``, ``spans`` and ``timeline`` are stretched."""

    lanes: tuple[Lane, ...]
    curve: Curve
    spans: dict[str, tuple[float, float]]
    bounds: tuple[Bound, ...]
    timeline: tuple[tuple[float, str, str], ...]
    deadline_s: float
    time: float

    @property
    def total_s(self) -> float:
        """When the last arrival may be due, in seconds."""
        own = [lane.curve.total_s * self.time for lane in self.lanes if lane.curve is not None]
        return max([self.curve.total_s, *own])

    @property
    def grace_s(self) -> float:
        """How long after that an answer may still be waited for."""
        return max([self.deadline_s, *(lane.deadline_s for lane in self.lanes if lane.deadline_s is not None)])

    @property
    def seconds(self) -> int:
        """How many whole seconds it fills."""
        return max(1, ceil(self.total_s))


def plan(scenario: Scenario, options: Namespace) -> Plan:
    """Return what is going to happen. Raises OptionError."""
    for name, value in (("deadline", options.deadline), ("scale-time", options.scale_time)):
        _above(name, value)
    _above("capacity", 1.0 if options.capacity is None else options.capacity)
    _above("max-lag-ms", options.max_lag_ms)
    if options.max_open < 1:
        raise OptionError(f"max-open must be at least 1, not {options.max_open}")
    try:
        return _made(scenario, options)
    except OptionError:
        raise
    except ValueError as error:
        raise OptionError(str(error)) from error


def host_of(text: str) -> str:
    """Return the user's target as it is sent to. Raises OptionError if nothing could be sent there.

    The message never repeats what may be a password.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise OptionError(f"host must be a URL such as http://127.0.0.1:8000: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise OptionError("host must be a URL without a name or a password: nothing would be done with them")
    wrong = parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or parts.query or parts.fragment
    if wrong or not text.isascii() or any(letter <= " " or letter == "\x7f" for letter in text):
        said = "what was given" if "@" in text else f"{text!r:.200}"
        raise OptionError(f"host must be a URL such as http://127.0.0.1:8000, not {said}")
    return text.rstrip("/")


def _above(name: str, value: float) -> None:
    if not (isfinite(value) and value > 0):
        raise OptionError(f"{name} must be above 0, not {value:g}")


def _made(scenario: Scenario, options: Namespace) -> Plan:
    time = options.scale_time
    lanes = tuple(scenario.lanes(options) if callable(scenario.lanes) else scenario.lanes)
    names = [lane.name for lane in lanes]
    if len(set(names)) != len(names) or not names:
        raise OptionError(f"lanes must be at least one, each with a name of its own, not {', '.join(names) or 'none'}")
    texts = [*(scenario.bounds(options) if callable(scenario.bounds) else scenario.bounds), *options.gate]
    made = Plan(
        lanes=lanes,
        curve=Played(scenario.curve(options), time),
        spans={name: (start * time, end * time) for name, (start, end) in scenario.spans(options).items()},
        bounds=tuple(Bound.parse(text) for text in texts),
        timeline=tuple(sorted((t * time, action, text) for t, action, text in scenario.timeline(options))),
        deadline_s=options.deadline,
        time=time,
    )
    if made.total_s > MAX_RUN_S:
        raise OptionError(f"the run must last at most {MAX_RUN_S} s, not {made.total_s:.0f}; see --scale-time")
    empty = Run(
        name=scenario.name,
        title="",
        source="",
        seconds=made.seconds,
        deadline_s=made.deadline_s,
        streams=streams(made, {}),
        spans=made.spans,
    )
    for bound in made.bounds:  # asks for a stream or a span that there is not: better said now than after the run
        evaluate(empty, bound)
    return made


def streams(made: Plan, tallies: dict[str, Tally]) -> list[Stream]:
    """Return what was counted on each lane that anybody arrives on."""
    return [
        Stream.of(lane.name, tallies.get(lane.name, Tally()), made.seconds, innocent=lane.innocent)
        for lane in made.lanes
        if lane.share > 0
    ]


def own_settings(scenario: Scenario, options: Namespace) -> dict[str, Any]:
    """Return what run.json keeps of the options: the scenario's own, or what it says itself."""
    if scenario.settings is not None:
        return dict(scenario.settings(options))
    gathered = _Names()
    scenario.options(gathered)
    kept = {"deadline", "scale_time", "capacity", "seed", "variant", *gathered.names}
    return {name: value for name, value in vars(options).items() if name in kept and _plain(value)}


class _Names:
    """Takes the place of a parser, to learn how a scenario's options are called."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def add_argument(self, *names: str, **settings: Any) -> None:
        """Note the option's name."""
        long = next((name for name in names if name.startswith("--")), names[0])
        self.names.add(settings.get("dest") or long.lstrip("-").replace("-", "_"))


def _plain(value: Any) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    return value is None or isinstance(value, str | int) or _plain_list(value)


def _plain_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, bytes) and all(_plain(each) for each in value)
