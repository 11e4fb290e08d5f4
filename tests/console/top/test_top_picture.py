from dataclasses import replace
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from groundfault.console._top_checked import checked
from groundfault.console._top_lines import Lines
from groundfault.console._top_state import Looking
from groundfault.console._top_words import ASCII, UNICODE
from groundfault.console.top import Situation, picture

SCREENS = ("commands", "details", "map", "timeline", "about", "help")
HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J",
    "[red]x[/red][link=http://x]y[/link]",
    "\u202eltr\n\r\t",
    "表" * 90,
    "<img onerror=1>",
)


def lines_of(view, looking=Looking(), situation=Situation(), *, width=80, height=24, signs=UNICODE):  # noqa: B008  frozen
    return [line.plain for line in picture(view, looking, situation, width=width, height=height, signs=signs)]


def text_of(view, *args, **more):
    return "\n".join(lines_of(view, *args, **more))


def painted(lines, *, width, no_color=False):
    out = StringIO()
    console = Console(
        file=out, width=width, force_terminal=True, color_system="256", no_color=no_color, markup=False, highlight=False
    )
    console.print(Lines(lines), soft_wrap=True)
    return out.getvalue()


@pytest.mark.parametrize("signs", [UNICODE, ASCII], ids=["unicode", "ascii"])
@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("commands", [0, 1, 40, 400])
@pytest.mark.parametrize(("width", "height"), [(20, 6), (40, 24), (80, 24), (99, 30), (120, 40), (200, 60), (500, 9)])
def test_every_screen_fits_the_terminal(sample, width, height, commands, screen, signs):
    view = sample(commands, spike=True)
    looking = Looking(screen=screen, selected=view["commands"][0]["id"] if commands else None)
    lines = lines_of(view, looking, Situation(9.0, "gone"), width=width, height=height, signs=signs)
    assert len(lines) <= height
    assert max(cell_len(line) for line in lines) <= width
    assert all(line.isprintable() for line in lines)
    if signs is ASCII:
        assert all(line.isascii() for line in lines)


def test_at_eighty_columns_a_spike_is_told_in_words_and_signs(sample):
    text = text_of(sample(40, spike=True))
    for said in ("✖ BAD grouper sheds 62 %", "OPEN 3/8", "SHED 2/2", "310 ms of 20 ms", "2 behind", "71 %"):
        assert said in text


def test_a_quiet_view_says_that_nothing_is_wrong(sample):
    assert "✓ OK nothing is wrong" in text_of(sample(1))
    assert "+ OK nothing is wrong" in text_of(sample(1), signs=ASCII)


@pytest.mark.parametrize(("width", "there"), [(40, 0), (80, 1), (120, 2), (200, 3)])
def test_a_wider_terminal_shows_more_percentiles(sample, width, there):
    title = next(line for line in lines_of(sample(4), width=width) if line.lstrip().startswith("command"))
    assert sum(name in title for name in ("p50", "p90", "p99")) == there


def test_the_rest_is_counted_by_level(sample):
    text = text_of(sample(40, spike=True))
    assert "of 40; the rest: " in text
    assert "28 ok" in text


def test_the_selected_command_stays_in_sight_and_is_pointed_at(sample):
    view = sample(400)
    row = sorted(view["commands"], key=lambda row: (-row["trouble"], row["id"]))[300]
    lines = lines_of(view, Looking(selected=row["id"]))
    assert sum("▸" in line and row["command"] in line for line in lines) == 2


def test_the_worst_commands_reasons_are_shown_in_full(sample):
    assert "circuit open in 3 of 8 processes; 71 % of the calls failed" in text_of(sample(40, spike=True), width=120)


def test_details_hold_all_counters_percentiles_reasons_and_settings(sample):
    view = sample(40, spike=True)
    text = text_of(view, Looking(screen="details", selected=view["commands"][0]["id"]))
    for said in ("failure", "timeout", "circuit-open", "p90", "3 open, 1 half-open, 4 closed", "timeout_s=0.5"):
        assert said in text
    assert "not there any more" in text_of(view, Looking(screen="details", selected="gone"))


def test_the_map_marks_who_suffers_and_who_sheds(sample):
    text = text_of(sample(4, spike=True), Looking(screen="map"))
    assert "topps  suffers" in text
    assert "grouper  sheds" in text
    assert "62 % shed" in text


def test_the_timeline_tells_what_goes_on_first_and_who_changed_settings(sample):
    lines = lines_of(sample(4, spike=True), Looking(screen="timeline"), width=140)
    first = next(number for number, line in enumerate(lines) if "circuit open" in line and "still" in line)
    changed = next(number for number, line in enumerate(lines) if "ada@bastion: database slow, INC-311" in line)
    assert first < changed


def test_what_is_not_known_is_on_the_first_screen_and_on_one_of_its_own(sample):
    view = sample(4, spike=True)
    view["unknown"] = [f"file {number} is damaged" for number in range(9)]
    gone = {"host": "web-2", "state": "gone", "why": "", "age_s": 60.0, "skew_s": 3.0, "release": None}
    view["hosts"] = [{**gone, "services": [], "processes": 0}]
    view["internal_errors"] = {"sink": 3}
    assert "things are not known (u shows them): file 0" in text_of(view)
    about = text_of(view, Looking(screen="about"), height=60)
    for said in ("file 8 is damaged", "internal error sink: 3", "web-2", "16-77b0", "behind: 2", "3 s off"):
        assert said in about


def test_stale_data_is_marked_with_its_age_and_the_cause(sample):
    text = text_of(sample(4), situation=Situation(13.0, "http://127.0.0.1:1/: Connection refused"))
    assert "▲ STALE, nothing new for 13 s: http://127.0.0.1:1/: Connection refused" in text
    assert "STALE" not in text_of(sample(4), situation=Situation(2.0))
    assert "PAUSED for 7 s" in text_of(sample(4), situation=Situation(1.0, None, 7.0))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("screen", SCREENS)
def test_a_hostile_name_is_text_and_nothing_else(sample, name, screen):
    view = sample(8, spike=True)
    for row in view["commands"]:
        row.update(resource=name, command=name, service=name, state=name, why=[name], modes={name: 1}, states={name: 8})
        row.update(counts={name: 3}, settings={name: 1.0})
    for row in view["servers"]:
        row.update(service=name, why=[name], modes={name: 1}, shedding=0)
    for node in view["map"]["nodes"]:
        node.update(name=name, notes=[name])
    for edge in view["map"]["edges"]:
        edge.update(caller=name, callee=name, notes=[name])
    for episode in view["timeline"]:
        episode.update(subject=name, what=name, service=name, by=name, reason=name, numbers={name: 1.0})
    view["headline"].update(words=name, version=name)
    view.update(title=name, host=name, unknown=[name], internal_errors={name: 1})
    view["stores"][0].update(store=name, newest=name, versions={name: 1})
    view["processes"][0].update(host=name, service=name, versions={name: name})
    looking = Looking(screen=screen, selected=view["commands"][0]["id"])
    for width in (40, 80, 200):
        lines = picture(view, looking, Situation(0.0, name), width=width, height=40, signs=UNICODE)
        assert all(line.plain.isprintable() for line in lines)
        shown = painted(lines, width=width)
        assert not any(harm in shown for harm in ("\x1b]", "\x1b[2J", "\x07", "\u202e", "\r", "\t"))
        assert max(cell_len(line.plain) for line in lines) <= width


def test_markup_is_not_read(sample):
    view = sample(1)
    view["commands"][0].update(resource="[red]", command="[link=http://x]y[/link]", why=[])
    assert "[red]/[link=http://x]y[/link]" in text_of(view, width=200)


def test_without_color_the_picture_has_no_color_and_the_same_words(sample):
    lines = picture(sample(8, spike=True), Looking(), Situation(), width=80, height=24, signs=UNICODE)
    plain = painted(lines, width=80, no_color=True)
    assert not any(f"\x1b[{code}m" in plain for code in ("31", "1;91", "33", "35", "36", "32"))
    assert "OPEN 3/8" in plain


def test_the_whole_picture_is_printed_where_nothing_limits_it(sample):
    text = text_of(sample(400), height=None, width=120)
    assert text.count("get_") == 400
    assert "quit" not in text


def test_a_view_with_nothing_but_a_format_is_shown(sample):
    view = checked({"format": 1})
    for screen in SCREENS:
        assert lines_of(view, Looking(screen=screen))
    assert "fields are missing or odd" in text_of(view, width=200)


def test_a_filter_that_nothing_passes_says_so(sample):
    assert "no command that the filter lets through" in text_of(sample(4), Looking(wanted="zzz"))
    assert "filter: zz" in text_of(sample(4), replace(Looking(), wanted="zz", typing=True))
