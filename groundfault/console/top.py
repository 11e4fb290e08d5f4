"""What ``groundfault top`` shows: a view and where somebody looks, made into lines. Pure; it waits for nothing.

Only what fits is made: a line costs the same whether there are 40 commands or 400.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from groundfault.console._top_lines import BAD, SHED, SOFT, STRONG, STYLES, WARN, Cell, Drawing, wrapped
from groundfault.console._top_rows import command_columns, name_of, server_columns
from groundfault.console._top_screens import about, details, help_lines, service_map, timeline
from groundfault.console._top_state import Looking, chosen
from groundfault.console._top_words import Signs, clock_time, count, share, spark, time
from groundfault.console.view import CommandRow, ServerRow, View

__all__ = ["Situation", "picture"]

STALE_S: Final = 5.0
"""What is older is marked; and in any case what has missed three of its turns."""

_WIDEST: Final = 400
_NARROWEST: Final = 20
_NARROW: Final = 60
_ROOMY: Final = 100


@dataclass(frozen=True, slots=True)
class Situation:
    """How the view came: ``age_s`` old, and ``trouble`` since; ``paused_s``: since when nothing new is shown."""

    age_s: float = 0.0
    trouble: str | None = None
    paused_s: float | None = None

    def is_stale(self, view: View) -> bool:
        """Whether nobody should take what is shown for what is."""
        return self.age_s > max(STALE_S, 3 * view["interval_s"])


def picture(
    view: View, looking: Looking, situation: Situation, *, width: int, height: int | None, signs: Signs
) -> list[Text]:
    """Return the lines of the picture, at most ``height``; None: all there are, and no hints for keys."""
    draw = Drawing(min(max(width, _NARROWEST), _WIDEST), signs)
    if height is None:
        head = [*_head(draw, view, situation), *_servers(draw, view, None)]
        return [*head, *_commands(draw, view, looking, None), *_unknown(draw, view, None)]
    foot = _foot(draw, view, looking)
    head = [] if looking.screen == "help" else _head(draw, view, situation)
    if looking.screen == "commands":
        head += _servers(draw, view, height)
    room = max(0, height - len(head) - len(foot))
    body = _body(draw, view, looking, room)[:room]
    lines = [*head, *body, *[Text(end="")] * (room - len(body)), *foot]
    return lines[: height - 1] + lines[-1:] if len(lines) > height else lines


def _body(draw: Drawing, view: View, looking: Looking, room: int) -> list[Text]:
    if looking.screen == "commands":
        unknown = _unknown(draw, view, room)
        return [*_commands(draw, view, looking, room - len(unknown)), *unknown]
    if looking.screen == "details":
        row = next((row for row in view["commands"] if row["id"] == looking.selected), None)
        return details(draw, row, view) if row else [draw.line(Cell("this command is not there any more", SOFT))]
    lines = {"map": service_map, "timeline": timeline, "about": about}.get(looking.screen, help_lines)(draw, view)
    first = max(0, min(looking.first, len(lines) - room))
    return lines[first:]


def _head(draw: Drawing, view: View, situation: Situation) -> list[Text]:
    head = view["headline"]
    level = head["level"]
    sign = draw.signs.levels[level]
    lines = [_title(draw, view, situation)]
    if situation.is_stale(view) or situation.trouble:
        since = f"nothing new for {time(round(situation.age_s), draw.signs)}"
        why = f": {situation.trouble}" if situation.trouble else ""
        lines.append(draw.line(Cell(f"{draw.signs.levels['warn']} STALE, {since}{why}", "reverse yellow")))
    words = wrapped(draw.safe(f"{sign} {level.upper()} {head['words']}"), draw.width)
    lines += [draw.line(Cell(text, STYLES[level] if level != "ok" else "bold green")) for text in words[:2]]
    return lines + draw.segments(_numbers(draw, view))


def _title(draw: Drawing, view: View, situation: Situation) -> Text:
    head = view["headline"]
    many = f", {head['hosts']:g} hosts" if view["kind"] == "hub" else f" on {view['host']}"
    left = [Cell("GroundFault ", STRONG), Cell(view["title"] + many)]
    stale = f", {head['stale']:g} stale" if head["stale"] else ""
    processes = "1 process" if head["processes"] == 1 else f"{head['processes']:g} processes"
    left.append(Cell(f"  {processes}{stale}", SOFT if not stale else WARN))
    age = f"{clock_time(view['made_at'])}, {time(situation.age_s, draw.signs) if situation.age_s >= 1 else 'now'}"
    if situation.paused_s is not None:
        age = f"PAUSED for {time(round(situation.paused_s), draw.signs)}, {clock_time(view['made_at'])}"
    return draw.both_ends(left, [Cell(age, WARN if situation.paused_s is not None else SOFT)])


def _numbers(draw: Drawing, view: View) -> list[Cell]:
    head, signs = view["headline"], draw.signs
    found = [Cell(f"goodput {count(head['goodput_per_s'])}/s of {count(head['rate_per_s'])}/s", STRONG)]
    found.append(Cell(f"shed {share(head['shed_share'])}", SHED if head["shed_share"] else ""))
    if head["wait_p99_s"] is not None:
        beyond = head["threshold_s"] is not None and head["wait_p99_s"] > head["threshold_s"]
        limit = "" if head["threshold_s"] is None else f" of {time(head['threshold_s'], signs)}"
        found.append(Cell(f"wait p99 {time(head['wait_p99_s'], signs)}{limit}", WARN if beyond else ""))
    found.append(Cell(f"open circuits {head['open_circuits']:g}", BAD if head["open_circuits"] else ""))
    found.append(Cell(f"saturated {head['saturated']:g}", WARN if head["saturated"] else ""))
    if head["behind"]:
        lag = f" for {time(head['lag_s'], signs)}" if head["lag_s"] else ""
        found.append(Cell(f"settings: {head['behind']:g} behind{lag}", WARN))
    elif head["version"]:
        found.append(Cell(f"settings {head['version'][:24]}", SOFT))
    if draw.width >= _ROOMY and any(point is not None for point in head["spark"]):  # else it takes a line of its own
        found.append(Cell(spark(head["spark"], 30, signs), "cyan"))
    return found


def _servers(draw: Drawing, view: View, height: int | None) -> list[Text]:
    if not view["servers"]:
        return []
    servers = sorted(view["servers"], key=lambda row: (-_GRAVITY[row["level"]], -row["rate_per_s"], row["service"]))
    most = len(servers) if height is None else max(1, (height - 6) // 6)
    shown = servers if len(servers) <= most else servers[: most - 1] if most > 1 else servers[:1]
    columns = server_columns(draw, max(cell_len(draw.safe(row["service"])) for row in servers))
    lines = [draw.titles(columns), *(draw.row(columns, row) for row in shown)]
    rest = servers[len(shown) :]
    if rest and most > 1:
        lines.append(draw.line(Cell(f"  {len(rest)} more services, {_levels(rest)}", SOFT)))
    return lines


_GRAVITY: Final = {"ok": 0, "warn": 1, "bad": 2}


def _levels(rows: Sequence[CommandRow] | Sequence[ServerRow]) -> str:
    levels = [row["level"] for row in rows]
    said = [f"{levels.count(level)} {level}" for level in ("bad", "warn", "ok") if level in levels]
    return "all ok" if said == [f"{len(levels)} ok"] else ", ".join(said)


def _commands(draw: Drawing, view: View, looking: Looking, room: int | None) -> list[Text]:
    rows = chosen(view, looking)
    columns = command_columns(draw, view, rows)
    lines = [draw.titles(columns)]
    if not rows:
        none = "no command that the filter lets through" if looking.wanted else "no command has been called yet"
        return [*lines, draw.line(Cell(f"  {none}", SOFT))]
    fits = len(rows) if room is None else max(0, room - 1)
    if fits < len(rows):
        fits = max(1, fits - 1)  # for the line that counts the rest
    at = next((place for place, row in enumerate(rows) if row["id"] == looking.selected), None)
    first = 0 if at is None else max(0, min(at - fits // 2, len(rows) - fits))
    for place, row in enumerate(rows[first : first + fits], first):
        lines.append(draw.row(columns, row, selected=place == at))
    rest = [*rows[:first], *rows[first + fits :]]
    if rest:
        lines.append(
            draw.line(Cell(f"  {first + 1} to {first + fits} of {len(rows)}; the rest: {_levels(rest)}", SOFT))
        )
    return lines


def _unknown(draw: Drawing, view: View, room: int | None) -> list[Text]:
    said = list(view["unknown"])
    if view["hidden"]:
        said.append(f"{view['hidden']:g} commands are left out: there are too many")
    wrong = sum(view["internal_errors"].values())
    if wrong:
        said.append(f"{wrong:g} internal errors of GroundFault: {', '.join(view['internal_errors'])}")
    gone = [f"{each['host']} is {each['state']}" for each in view["hosts"] if each["state"] != "live"]
    if gone:
        said.append(f"{len(gone)} of {len(view['hosts'])} hosts do not report: {', '.join(gone)}")
    most = len(said) if room is None else max(1, room // 10)
    lines = [draw.line(Cell(f"? {text}", WARN)) for text in said[:most]]
    if len(said) > most:
        lines[-1] = draw.line(Cell(f"? {len(said)} things are not known (u shows them): {said[0]}", WARN))
    return lines


def _foot(draw: Drawing, view: View, looking: Looking) -> list[Text]:
    if looking.typing:
        return [draw.line(Cell("filter: ", STRONG), Cell(looking.wanted), Cell(" ", "reverse"))]
    lines = []
    if looking.screen == "commands":
        lines += _why(draw, view, looking)
    hints = [
        ("q", "quit"),
        ("s", f"sort: {looking.sort}"),
        ("/", f"filter: {looking.wanted}" if looking.wanted else "filter"),
    ]
    hints += [
        (draw.signs.enter, "details" if looking.screen == "commands" else "back"),
        ("m", "map"),
        ("t", "timeline"),
    ]
    hints += [("?", "help"), ("p", "go on" if looking.paused else "pause")]
    cells: list[Cell] = []
    used = 0
    for key, what in hints:
        said = f" {what}" if draw.width >= _NARROW else ""
        if used + len(key + said) <= draw.width:  # a hint that is cut off says nothing
            cells += [Cell(key, STRONG), Cell(said, SOFT), Cell("  ")]
            used += len(key + said) + 2
    return [*lines, draw.line(*cells)]


def _why(draw: Drawing, view: View, looking: Looking) -> list[Text]:
    """Return a line with every reason of the command that is selected, or else of the worst."""
    rows = view["commands"]
    worst = max(rows, key=lambda row: row["trouble"], default=None)
    row = next((row for row in rows if row["id"] == looking.selected), worst)
    if row is None or (row is worst and not row["why"] and row["id"] != looking.selected):
        return []
    name = f"{draw.signs.pointer} {name_of(row, with_service=True)} "
    why = "; ".join(row["why"]) or "nothing is wrong"
    style = STYLES[row["level"]]
    return [draw.line(Cell(name, STRONG), Cell(f"{draw.signs.levels[row['level']]} ", style), Cell(why, style))]
