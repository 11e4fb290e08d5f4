"""The built-in scenarios by name, and which scenario a word on the command line means."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from groundfault.lab.simulator import scenario
from groundfault.lab.simulator.model import Scenario
from groundfault.lab.simulator.scenarios import cascades, demo_chain, draftkings
from groundfault.lab.simulator.table import ScenarioError

__all__ = ["BUILT_IN", "chosen", "document"]

BUILT_IN: Final[Mapping[str, str]] = {**demo_chain.TITLES, **draftkings.TITLES, **cascades.TITLES}
"""What each of them is, in words."""


def document(name: str) -> dict[str, Any]:
    """Return a built-in scenario, as a scenario file holds it. KeyError for a name that is not in BUILT_IN."""
    if name in demo_chain.TITLES:
        return demo_chain.document(name)
    return draftkings.document(name) if name in draftkings.TITLES else cascades.document(name)


def chosen(word: str, changes: Iterable[str] = ()) -> Scenario:
    """Return the scenario that a word means: a built-in one, or a file; with changes laid over it.

    A file is meant if it is there, or by anything that looks like a path. Raises ScenarioError and OSError.
    """
    return scenario.scenario_of(scenario.changed(said(word), changes))


def said(word: str) -> dict[str, Any]:
    """Return the document that a word means. Raises ScenarioError and OSError."""
    path = Path(word)
    if path.suffix == ".toml" or "/" in word or path.is_file():
        return scenario.load(path)
    if word not in BUILT_IN:
        raise ScenarioError(f"{word!r:.80} is no file, and no built-in scenario; those are {', '.join(BUILT_IN)}")
    return document(word)
