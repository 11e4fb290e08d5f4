"""The page on the commands names all of them, with all options, and every way to end."""

import argparse
from pathlib import Path

import pytest

from groundfault.settingscli import ending, running
from groundfault.settingscli.arguments import add_to

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "settings-cli.md").read_text()


def actions():
    parser = argparse.ArgumentParser()
    add_to(parser.add_subparsers(dest="command"))
    (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    settings = commands.choices["settings"]
    (found,) = (each for each in settings._actions if isinstance(each, argparse._SubParsersAction))
    return found.choices


@pytest.mark.parametrize("name", list(running._ACTIONS))
def test_each_command_and_each_of_its_options_is_on_the_page(name):
    assert f"| `{name} " in PAGE or f"| `{name}`" in PAGE
    options = [text for each in actions()[name]._actions for text in each.option_strings]
    assert [text for text in options if text not in {"-h", "--help"} and text not in PAGE] == []


def test_what_can_be_asked_for_is_what_can_be_run():
    assert set(actions()) == set(running._ACTIONS)


@pytest.mark.parametrize(
    "code",
    [
        *(ending.DONE, ending.REFUSED, ending.USAGE, ending.CONFLICT, ending.UNREACHABLE, ending.STOPPED),
        running._PIPE_CLOSED,
    ],
)
def test_each_exit_code_is_on_the_page(code):
    assert f"\n| {code} | " in PAGE
