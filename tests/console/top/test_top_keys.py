import pytest

from groundfault.console._top_keys import Decoder
from groundfault.console._top_state import SORTS, Looking, chosen, pressed


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"qj/", ["q", "j", "/"]),
        (b"\r\n\x7f\x08", ["enter", "enter", "backspace", "backspace"]),
        (b"\x1b[A\x1bOB\x1b[5~\x1b[6~\x1b[H\x1bOF", ["up", "down", "page-up", "page-down", "home", "end"]),
        (b"\x1b[1;5A\x1b[200~x", ["x"]),
        (b"\x1b[<0;3;4Mx", ["x"]),
        ("ü表".encode(), ["ü", "表"]),
        (b"\xff\x00\x01", ["\ufffd"]),
        (b"\x1bq", ["escape", "q"]),
    ],
)
def test_bytes_of_a_terminal_become_keys(sent, keys):
    decoder = Decoder()
    assert list(decoder.feed(sent)) == keys
    assert not decoder.is_amid


def test_a_sequence_that_comes_in_pieces_is_one_key():
    decoder = Decoder()
    assert [*decoder.feed(b"\x1b"), *decoder.feed(b"["), *decoder.feed(b"A")] == ["up"]
    assert [*decoder.feed("ü".encode()[:1]), *decoder.feed("ü".encode()[1:])] == ["ü"]


def test_an_escape_that_nothing_follows_is_the_escape_key():
    decoder = Decoder()
    assert list(decoder.feed(b"\x1b")) == []
    assert decoder.is_amid
    assert list(decoder.end()) == ["escape"]
    assert not decoder.is_amid


def after(keys, rows, looking=None):
    looking = looking or Looking()
    for key in keys:
        looking = pressed(looking, key, rows)
    return looking


@pytest.fixture
def rows(sample):
    return chosen(sample(12, spike=True), Looking())


def test_arrows_choose_a_command_and_stop_at_the_ends(rows):
    ids = [row["id"] for row in rows]
    assert after(["j"], rows).selected == ids[0]
    assert after(["j", "down", "k"], rows).selected == ids[0]
    assert after(["k", "k"], rows).selected == ids[0]
    assert after(["j", "end", "j"], rows).selected == ids[-1]
    assert after(["j", "page-down"], rows).selected == ids[10]
    assert after(["j"], []).selected is None


def test_the_selection_follows_the_command_when_the_order_changes(sample):
    view = sample(12, spike=True)
    looking = after(["j", "j", "s"], chosen(view, Looking()))
    assert looking.selected == chosen(view, Looking())[1]["id"]
    assert looking.sort == "errors"


def test_enter_opens_the_details_of_the_selected_or_the_first_and_leads_back(rows):
    assert after(["enter"], rows).screen == "details"
    assert after(["enter"], rows).selected == rows[0]["id"]
    assert after(["enter", "j"], rows).selected == rows[1]["id"]
    assert after(["enter", "enter"], rows).screen == "commands"
    assert after(["enter"], []).screen == "commands"


@pytest.mark.parametrize(("key", "screen"), [("m", "map"), ("t", "timeline"), ("?", "help"), ("u", "about")])
def test_a_key_opens_a_screen_and_closes_it_again(rows, key, screen):
    assert after([key], rows).screen == screen
    assert after([key, key], rows).screen == "commands"
    assert after([key, "escape"], rows).screen == "commands"
    assert after([key, "j", "j", "k"], rows).first == 1


def test_a_filter_is_typed_kept_and_taken_away(rows):
    typing = after(["/", "q", "u", "backspace"], rows)
    assert (typing.typing, typing.wanted, typing.left) == (True, "q", False)
    assert after(["enter"], rows, typing).wanted == "q"
    assert not after(["enter"], rows, typing).typing
    assert after(["escape"], rows, typing).wanted == ""
    assert after(["enter", "escape"], rows, typing).wanted == ""
    assert len(after(["x"] * 500, rows, typing).wanted) == 80


def test_all_words_of_a_filter_must_be_there(sample):
    view = sample(40, spike=True)
    found = chosen(view, Looking(wanted="OPEN checkout"))
    assert [row["command"] for row in found] == ["get_003"]
    assert chosen(view, Looking(wanted="bad")) == found


@pytest.mark.parametrize("sort", SORTS)
def test_every_order_keeps_all_commands(sample, sort):
    view = sample(40, spike=True)
    rows = chosen(view, Looking(sort=sort))
    assert {row["id"] for row in rows} == {row["id"] for row in view["commands"]}
    if sort == "volume":
        assert rows[0]["rate_per_s"] == max(row["rate_per_s"] for row in rows)


def test_other_keys_do_what_they_say(rows):
    assert after(["q"], rows).left
    assert after(["p"], rows).paused
    assert not after(["p", "p"], rows).paused
    assert after(["s"] * len(SORTS), rows).sort == "trouble"
    assert after(["x", "\ufffd", "ü"], rows) == Looking()
