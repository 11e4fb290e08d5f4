"""One settings value and what follows from it."""

import os
from hashlib import blake2b
from typing import Final

from groundfault.shedding._trust import Trust
from groundfault.shedding.settings import ShedderSettings
from groundfault.vocabulary import Mode

__all__ = ["Rules"]

_SALT: Final = os.urandom(16)  # made at import, so that workers forked from one parent make the same keys
_HOUR_S: Final = 3600


class Rules:
    """Swapped as a whole and read once per decision. With ``killed`` the mode is off, whatever the settings say."""

    __slots__ = ("_salt", "health", "mode", "off", "settings", "trust")

    def __init__(self, settings: ShedderSettings, *, killed: bool) -> None:
        self.settings = settings
        self.mode = Mode.OFF if killed else settings.mode
        self.off = self.mode is Mode.OFF
        self.health = frozenset(settings.health_paths)
        self.trust = Trust(settings.trusted_callers)
        salt = _SALT if settings.key_salt is None else settings.key_salt.encode(errors="replace")
        self._salt = blake2b(salt, digest_size=32).digest()

    def key_of(self, identity: str, wall_now: float) -> str:
        """Return the key of a user or session in this hour: 16 hexadecimal digits that tell nothing of it."""
        text = f"{int(wall_now // _HOUR_S)}:{identity}"
        return blake2b(text.encode(errors="replace"), key=self._salt, digest_size=8).hexdigest()
