import pytest
from rich.cells import cell_len

from groundfault.console._top_words import ASCII, UNICODE, count, fitted, harmless, pool, share, signs_for, spark, time


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.04, "0.04"),
        (0.0001, "<.001"),
        (9.99, "9.99"),
        (999.4, "999"),
        (9999, "9999"),
        (12_300, "12.3k"),
        (2_000_000, "2M"),
        (3e9, "3G"),
    ],
)
def test_counts_are_short(value, shown):
    assert count(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "—"),
        (0, "0 ms"),
        (5e-6, "5 µs"),
        (0.0123, "12.3 ms"),
        (0.31, "310 ms"),
        (1.5, "1.5 s"),
        (119, "119 s"),
        (180, "3 min"),
        (7200, "2 h"),
        (200_000, "2 d"),
    ],
)
def test_times_have_units(seconds, shown):
    assert time(seconds, UNICODE) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 %"), (0.0004, "<0.1 %"), (0.034, "3.4 %"), (0.9999, ">99.9 %"), (1, "100 %"), (0.625, "62.5 %")],
)
def test_a_share_is_neither_nothing_nor_all_unless_it_is(value, shown):
    assert share(value) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("saber", "saber"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\tb\nc\rd", "a\\tb\\nc\\rd"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202egnp", "\\u202egnp"),
        ("\ud800", "\\ud800"),
        ("Größe 表", "Größe 表"),
        ("[red]x[/red] [link=http://x]y[/link]", "[red]x[/red] [link=http://x]y[/link]"),
    ],
)
def test_text_comes_out_harmless(text, shown):
    assert harmless(text, UNICODE) == shown


def test_text_is_ascii_where_the_terminal_is():
    assert harmless("Größe", ASCII) == "Gr\\xf6\\xdfe"


@pytest.mark.parametrize("text", ["", "saber", "saber/" + "x" * 90, "表" * 40, "e\u0301" * 40, "🙂" * 30])
@pytest.mark.parametrize("width", [0, 1, 2, 5, 17, 40])
@pytest.mark.parametrize("middle", [False, True])
@pytest.mark.parametrize("signs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_a_text_has_the_cells_that_it_must_have(text, width, middle, signs):
    assert cell_len(fitted(text, width, signs, middle=middle)) == width


def test_a_long_name_keeps_both_ends():
    assert fitted("contest-db/get_more_entrants", 16, UNICODE, middle=True) == "contest-…ntrants"


@pytest.mark.parametrize(
    ("encoding", "environ", "signs"),
    [
        ("utf-8", {"LANG": "en_US.UTF-8"}, UNICODE),
        ("UTF8", {}, UNICODE),
        ("ascii", {"LANG": "en_US.UTF-8"}, ASCII),
        ("latin-1", {}, ASCII),
        (None, {}, ASCII),
        ("utf-8", {"LC_ALL": "C", "LANG": "en_US.UTF-8"}, ASCII),
        ("utf-8", {"LC_ALL": "C.UTF-8"}, UNICODE),
        ("utf-8", {"LANG": "C", "LC_CTYPE": "C.UTF-8"}, ASCII),
        ("utf-8", {"LANG": "C"}, ASCII),
        ("utf-8", {"LANG": "C", "LC_CTYPE": "de_DE.UTF-8"}, UNICODE),
    ],
)
def test_signs_follow_what_the_terminal_can_show(encoding, environ, signs):
    assert signs_for(encoding, environ) is signs


def test_a_steady_curve_stays_at_half_the_height_and_a_peak_reaches_the_top():
    assert set(spark([5.0] * 12, 12, UNICODE)) <= set("▄▅")
    assert spark([1.0] * 10 + [50.0], 11, UNICODE).endswith("█")
    assert spark([1.0] * 10 + [50.0], 11, UNICODE).startswith("▂")


def test_what_is_not_known_is_a_gap_and_nothing_is_the_lowest_sign():
    assert spark([None, 0.0, None], 3, UNICODE) == " ▁ "
    assert spark([], 4, ASCII) == "    "
    assert spark([None, 0.0], 2, ASCII) == " _"


@pytest.mark.parametrize("width", [1, 7, 10, 12, 30, 60, 90])
@pytest.mark.parametrize("points", [0, 1, 13, 59, 60])
def test_points_are_pooled_into_what_there_is_room_for(width, points):
    pooled = pool([1.0] * points, width)
    assert len(pooled) <= width
    assert set(pooled) <= {1.0}
    assert bool(pooled) == bool(points)
