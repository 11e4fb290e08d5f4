"""The screens of ``groundfault top`` beside its tables: one command, the map, what happened, what is known, help."""

from collections.abc import Iterable, Mapping
from typing import Final

from rich.text import Text

from groundfault.console._top_lines import BAD, HEAD, SHED, SOFT, STRONG, STYLES, WARN, Cell, Drawing, wrapped
from groundfault.console._top_rows import name_of, state_of
from groundfault.console._top_words import clock_time, count, share, spark, time
from groundfault.console.view import CommandRow, Episode, MapEdge, MapNode, View

__all__ = ["about", "details", "help_lines", "service_map", "timeline"]

_OUTCOMES: Final = {
    "success": "green",
    "failure": BAD,
    "timeout": BAD,
    "shed": SHED,
    "circuit-open": WARN,
    "bulkhead-full": WARN,
    "throttled": WARN,
    "unhealthy": WARN,
}
_DAY_S: Final = 86_400.0


def _title(draw: Drawing, text: str) -> Text:
    return draw.line(Cell(text.ljust(draw.width)), style=HEAD)


def details(draw: Drawing, row: CommandRow, view: View) -> list[Text]:
    """Return everything about one command."""
    sign = draw.signs.levels[row["level"]]
    lines = [_title(draw, name_of(row, with_service=True))]
    why = row["why"] or ["nothing is wrong"]
    for reason in why[:4]:
        lines += [
            draw.line(Cell(f"{sign} {part}", STYLES[row["level"]]))
            for part in wrapped(draw.safe(reason), draw.width - 2)
        ]
    state = state_of(row)
    circuit = ", ".join(f"{times:g} {name}" for name, times in row["states"].items()) or "no process"
    limit = "no limit" if row["limit"] is None else f"of {row['limit']:g}"
    lines += [_fact(draw, "circuit", f"{circuit}   ({state.text})", state.style)]
    lines.append(_fact(draw, "in flight", f"{row['in_flight']:g} {limit}, in {row['processes']:g} processes"))
    odd = {"saturated": row["saturated"], "unhealthy": row["unhealthy"], **row["modes"]}
    said = [f"{name} in {times:g}" for name, times in odd.items() if times]
    if row["admitted_share"] < 1:
        said.append(f"sends {share(row['admitted_share'])} of the calls")
    if said:
        lines.append(_fact(draw, "processes", ", ".join(said), WARN))
    percentiles = {"p50": row["p50_s"], "p90": row["p90_s"], "p99": row["p99_s"]}
    taken = "   ".join(f"{name} {time(seconds, draw.signs)}" for name, seconds in percentiles.items())
    lines.append(_fact(draw, "duration", taken))
    lines += _counters(draw, row, view["window_s"])
    lines += _curves(draw, row, view["point_s"])
    set_to = (f"{name}={value:g}" for name, value in row["settings"].items())
    lines += _many(draw, "settings", set_to)
    return lines


def _fact(draw: Drawing, name: str, value: str, style: str = "") -> Text:
    return draw.line(Cell(f"{name:<11}", SOFT), Cell(value, style))


def _many(draw: Drawing, name: str, values: Iterable[str]) -> list[Text]:
    text = draw.safe("  ".join(values)) or "none known"
    return [_fact(draw, name if not number else "", part) for number, part in enumerate(wrapped(text, draw.width - 11))]


def _counters(draw: Drawing, row: CommandRow, window_s: float) -> list[Text]:
    total = sum(row["counts"].values()) or 1.0
    lines = [_title(draw, f"{count(row['rate_per_s'])} calls per second, over the last {window_s:g} s")]
    wide = max(10, min(40, draw.width - 36))
    for outcome, times in sorted(row["counts"].items(), key=lambda pair: -pair[1]):
        part = times / total
        bar = (draw.signs.blocks[-1] if not draw.signs.is_ascii else "#") * max(1, round(part * wide))
        style = _OUTCOMES.get(outcome, "")
        cells = [Cell(f"{outcome:<14} ", style), Cell(f"{count(times):>7} {share(part):>7}  "), Cell(bar, style)]
        lines.append(draw.line(*cells))
    if row["fallbacks"]:
        lines.append(draw.line(Cell(f"{'fallbacks':<14} {count(row['fallbacks']):>7}", SOFT)))
    judged = f"errors {share(row['error_share'])} of the calls that were made and judged"
    lines.append(draw.line(Cell(judged, BAD if row["error_share"] >= 0.05 else SOFT)))  # noqa: PLR2004  as in the table
    return lines


def _curves(draw: Drawing, row: CommandRow, point_s: float) -> list[Text]:
    points = max(len(row["spark"]), len(row["bad"]), 1)
    wide = points // -(-points // max(10, draw.width - 32))  # as many as can be pooled without a rest
    lines = [_title(draw, f"the last {time(len(row['spark']) * point_s, draw.signs)}")]
    for name, curved, style in (("calls", row["spark"], "cyan"), ("gone badly", row["bad"], "red")):
        known = [each for each in curved if each is not None]
        if known and max(known) > 0:
            curve = Cell(spark(curved, wide, draw.signs), style)
            lines.append(draw.line(Cell(f"{name:<11}", SOFT), curve, Cell(f"  at most {count(max(known))} per s")))
    return lines if len(lines) > 1 else []


def service_map(draw: Drawing, view: View) -> list[Text]:
    """Return who calls whom: the services layer by layer, callers first, then each edge, the worst first."""
    drawn = view["map"]
    if not drawn["nodes"]:
        return [_title(draw, "who calls whom"), draw.line(Cell("nothing has called anything yet", SOFT))]
    lines = [_title(draw, "who calls whom, callers first")]
    layers: dict[float, list[MapNode]] = {}
    for node in drawn["nodes"]:
        layers.setdefault(node["layer"], []).append(node)
    for number, (_, nodes) in enumerate(sorted(layers.items())):
        mark = "  " * min(number, 8) + (f"{draw.signs.arrow} " if number else "")
        for place, node in enumerate(sorted(nodes, key=lambda each: each["row"])):
            lines.append(_node(draw, mark if not place else " " * len(mark), node))
    lines.append(_title(draw, "calls"))
    widest = max((len(draw.safe(edge["caller"])) for edge in drawn["edges"]), default=0)
    order = {"bad": 0, "warn": 1, "ok": 2}
    edges = sorted(drawn["edges"], key=lambda each: (order[each["level"]], -each["rate_per_s"]))
    lines += [_edge(draw, edge, min(widest, max(10, draw.width // 4))) for edge in edges]
    lines += [draw.line(Cell(f"? {note}", SOFT)) for note in drawn["notes"]]
    return lines


def _node(draw: Drawing, mark: str, node: MapNode) -> Text:
    style = STYLES[node["level"]]
    cells = [Cell(mark, SOFT), Cell(f"{draw.signs.levels[node['level']]} ", style), Cell(node["name"], STRONG)]
    if node["sheds"]:
        cells.append(Cell("  sheds", SHED))
    if node["suffers"]:
        cells.append(Cell("  suffers", BAD))
    if node["notes"]:
        cells.append(Cell(f"  {'; '.join(node['notes'])}", SOFT))
    return draw.line(*cells)


def _edge(draw: Drawing, edge: MapEdge, widest: int) -> Text:
    style = STYLES[edge["level"]]
    caller = draw.safe(edge["caller"])
    cells = [Cell(f"{draw.signs.levels[edge['level']]} ", style), Cell(caller.ljust(widest)[: max(widest, 1)])]
    cells += [Cell(f" {draw.signs.arrow} ", SOFT), Cell(edge["callee"]), Cell(f"  {count(edge['rate_per_s'])}/s")]
    shares: Mapping[str, tuple[float, str]] = {
        "failed": (edge["failed_share"], BAD),
        "shed": (edge["shed_share"], SHED),
        "not sent": (edge["not_sent_share"], WARN),
    }
    cells += [Cell(f"  {share(part)} {what}", how) for what, (part, how) in shares.items() if part]
    if edge["wait_s"] is not None:
        cells.append(Cell(f"  waited {time(edge['wait_s'], draw.signs)}", SOFT))
    if edge["notes"]:
        cells.append(Cell(f"  {'; '.join(edge['notes'])}", SOFT))
    return draw.line(*cells)


def timeline(draw: Drawing, view: View) -> list[Text]:
    """Return what happened, the newest first; what goes on still comes before what has ended."""
    lines = [_title(draw, "what happened, the newest first")]
    if not view["timeline"]:
        return [*lines, draw.line(Cell("nothing, as far as anybody has looked", SOFT))]
    newest_first = sorted(view["timeline"], key=lambda each: (each["ended_at"] is not None, -each["began_at"]))
    return lines + [_episode(draw, episode, view["made_at"]) for episode in newest_first]


def _episode(draw: Drawing, episode: Episode, now: float) -> Text:
    began, ended = episode["began_at"], episode["ended_at"]
    at = clock_time(began, "%H:%M:%S" if abs(now - began) < _DAY_S else "%d %b %H:%M")
    if ended is None:
        lasted = f"for {time(max(0.0, now - began), draw.signs)}, still"
    else:
        lasted = "" if ended <= began else f"for {time(ended - began, draw.signs)}"
    style = STYLES[episode["level"]]
    cells = [Cell(f"{draw.signs.levels[episode['level']]} ", style), Cell(f"{at} ", SOFT), Cell(f"{lasted:<17} ")]
    where = f"{episode['service']}: " if episode["service"] and episode["service"] != episode["subject"] else ""
    cells += [Cell(f"{where}{episode['subject']} ", STRONG), Cell(episode["what"], style)]
    if episode["numbers"]:
        cells.append(Cell("  " + ", ".join(_number(draw, *pair) for pair in episode["numbers"].items()), SOFT))
    who = [text for text in (episode.get("by"), episode.get("reason")) if text]
    if who:
        cells.append(Cell(f"  ({': '.join(who)})", SOFT))
    return draw.line(*cells)


def _number(draw: Drawing, name: str, value: float) -> str:
    if name.endswith("_s"):
        return f"{name[:-2].replace('_', ' ')} {time(value, draw.signs)}"
    return f"{name.replace('_', ' ')} {count(value)}"


def about(draw: Drawing, view: View) -> list[Text]:
    """Return from whom all this is, and what nobody knows."""
    lines = [_title(draw, "what is not known")]
    unknown = view["unknown"] or ["nothing that ought to be known"]
    for text in unknown:
        lines += [
            draw.line(Cell(part, WARN if view["unknown"] else SOFT)) for part in wrapped(draw.safe(text), draw.width)
        ]
    for error, times in view["internal_errors"].items():
        lines.append(draw.line(Cell(f"internal error {error}: {times:g}", WARN)))
    for store in view["stores"]:
        lines.append(_title(draw, f"settings of {store['store']}"))
        runs = ", ".join(f"{times:g} run {name}" for name, times in store["versions"].items()) or "nobody runs any"
        lines.append(draw.line(Cell(f"{runs}; newest {store['newest'] or 'not known'}")))
        wrong = {"behind": store["behind"], "cannot read it": store["unreachable"], "rejected": store["rejected"]}
        lines += [draw.line(Cell(f"{what}: {times:g}", WARN)) for what, times in wrong.items() if times]
    if view["hosts"]:
        lines.append(_title(draw, "hosts"))
    for host in view["hosts"]:
        told = f"{host['state']}, {time(host['age_s'], draw.signs)} old, {host['processes']:g} processes  "
        skew = f"  its clock is {time(abs(host['skew_s']), draw.signs)} off" if host["skew_s"] else ""
        cells = [Cell(f"{host['host']}  ", STRONG), Cell(told, "" if host["state"] == "live" else WARN)]
        lines.append(draw.line(*cells, Cell(", ".join(host["services"]) + skew), Cell(f"  {host['why']}", SOFT)))
    lines.append(_title(draw, "processes"))
    for process in view["processes"]:
        versions = ", ".join(each or "what code declares" for each in process["versions"].values())
        stale = "  STALE" if process["stale"] else ""
        age = f"{time(process['age_s'], draw.signs)} old{stale}"
        told = f"{process['pid']:>8.0f}  {process['service'] or 'no name'}  {age}"
        lines.append(draw.line(Cell(told, WARN if stale else ""), Cell(f"  {process['host'] or ''}  {versions}", SOFT)))
    return lines


_HELP: Final = (
    ("j k, arrows", "choose a command; PgUp PgDn Home End go further"),
    ("Enter", "everything about that command; Enter or Esc goes back"),
    ("s", "sort by trouble, errors, volume, p99, name"),
    ("/", "filter: words that must all be in the name, the state or the level"),
    ("Esc", "back, and without a filter again"),
    ("m", "who calls whom"),
    ("t", "what happened"),
    ("u", "what is not known, and from whom the rest is"),
    ("p", "hold the picture, and go on"),
    ("q", "quit; Ctrl-Z stops for a while"),
)


def help_lines(draw: Drawing, view: View) -> list[Text]:
    """Return what keys and words mean."""
    signs = draw.signs.levels
    lines = [_title(draw, "keys")]
    lines += [draw.line(Cell(f"{key:<13}", STRONG), Cell(what)) for key, what in _HELP]
    lines.append(_title(draw, "words"))
    said = (
        f"{signs['bad']} bad: users suffer, or are refused, now   {signs['warn']} warn: near a limit, or held back",
        f"per s, errors, p50, p99: of the last {view['window_s']:g} s; errors: of the calls made and judged",
        "OPEN 3/8: the circuit is open in 3 of 8 processes; half-open: it tries again with one call",
        "FULL: the limit of calls in flight is reached; SATURATED: the callee only refuses",
        "sends 22 %: the callee sheds, so most calls are not even made",
        "good: requests admitted and not given up; wait p99, limit: how long they waited; who waits longer is refused",
    )
    for text in said:
        lines += [draw.line(Cell(part)) for part in wrapped(text, draw.width)]
    return lines
