"""The switch that takes everything out of the way: the environment variable ``GROUNDFAULT_DISABLED``."""

import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

__all__ = ["NAME", "is_killed", "is_nonsense"]

NAME: Final = "GROUNDFAULT_DISABLED"

_ON: Final = frozenset({"1", "true", "yes", "on"})
_OFF: Final = frozenset({"", "0", "false", "no", "off"})


def is_killed(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether an environment switches everything off: ``GROUNDFAULT_DISABLED`` is 1, true, yes or on."""
    said = environ.get(NAME, "").strip().lower()
    if is_nonsense(said):
        _warn(said)
    return said in _ON


def is_nonsense(said: str) -> bool:
    """Return whether a value of the switch, stripped and in lower case, means neither on nor off."""
    return said not in _ON | _OFF


@lru_cache(maxsize=8)  # once for each value: every command and every shedder asks
def _warn(said: str) -> None:
    """Tell who reaches for a kill switch that it did nothing."""
    logging.getLogger("groundfault").warning(
        "GROUNDFAULT_DISABLED=%s switches nothing off: it must be 1, true, yes or on", ascii(said[:40])
    )
