"""The reference page says what the code does: drawn from the tables, compared here."""

from dataclasses import fields
from pathlib import Path

from groundfault import events
from groundfault.breaker import BreakerSettings
from groundfault.breaker._machine import TRANSITIONS
from groundfault.vocabulary import Outcome

PAGE = (Path(__file__).parents[2] / "docs/reference/client.md").read_text()


def first_cells(section):
    """Return the first two cells of each row of the tables in a section."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    return {name.strip().strip("`"): cell.strip().strip("`") for name, cell in rows}


def test_the_diagram_is_drawn_from_the_transition_table():
    drawn = "\n".join(f"    {old} --> {new} : {trigger.value}" for (old, trigger), new in TRANSITIONS.items())
    assert f"```mermaid\nstateDiagram-v2\n    [*] --> closed\n{drawn}\n```" in PAGE


def test_every_setting_is_listed_with_its_default():
    defaults = {
        name: repr(getattr(BreakerSettings(), name)) for name in (each.name for each in fields(BreakerSettings))
    }
    defaults["mode"] = repr(BreakerSettings().mode.value)
    assert first_cells("Settings") == defaults


def test_every_outcome_and_event_is_listed():
    assert set(first_cells("The decision")) == set(Outcome)
    elsewhere = {"BacklogWarning", "RequestSeen", "SettingsStoreChanged", "SheddingChanged"}
    known = {each.__name__ for each in events.Event.__args__}
    assert set(first_cells("Events")) == known - elsewhere
