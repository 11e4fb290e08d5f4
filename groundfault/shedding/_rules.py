"""One settings value and what follows from it."""

import os
from hashlib import blake2b
from typing import Any, Final

from groundfault.errors import SettingsError
from groundfault.events import note_internal_error
from groundfault.shedding._trust import Trust
from groundfault.shedding.criticality import Classifier, CriticalityRule, RequestInfo
from groundfault.shedding.settings import ShedderSettings
from groundfault.vocabulary import Criticality, Mode
from groundfault.wire import NAME_GRAMMAR, valid_name

__all__ = ["Rules", "named_by_environment"]

_SALT: Final = os.urandom(16)  # made at import, so that workers forked from one parent make the same keys
_HOUR_S: Final = 3600


def named_by_environment(changes: dict[str, Any]) -> dict[str, Any]:
    """Return settings with the service that ``GROUNDFAULT_SERVICE`` names, if they name none and it does.

    Raises SettingsError if it is no name.
    """
    named = os.environ.get("GROUNDFAULT_SERVICE")
    if not named or "service" in changes:
        return changes
    if not valid_name(named):
        raise SettingsError(f"GROUNDFAULT_SERVICE must be a name that matches {NAME_GRAMMAR}, not {named!r}")
    return {"service": named, **changes}


class Rules:
    """Swapped as a whole and read once per decision. With ``killed`` the mode is off, whatever the settings say."""

    __slots__ = ("_salt", "classes", "enforced", "health", "mode", "off", "plain", "settings", "trust")

    def __init__(self, settings: ShedderSettings, *, killed: bool) -> None:
        self.settings = settings
        self.mode = Mode.OFF if killed else settings.mode
        self.off = self.mode is Mode.OFF
        self.enforced = self.mode is Mode.ENFORCE
        given = settings.criticality
        self.classes: tuple[CriticalityRule | Classifier, ...] = (given,) if callable(given) else given or ()
        # Whether a request that says nothing of itself is judged by its wait alone.
        self.plain = (
            self.enforced and not self.classes and settings.identity is None and settings.max_concurrency is None
        )
        self.health = frozenset(settings.health_paths)
        self.trust = Trust(settings.trusted_callers)
        salt = _SALT if settings.key_salt is None else settings.key_salt.encode(errors="replace")
        self._salt = blake2b(salt, digest_size=32).digest()

    def criticality_of(self, info: RequestInfo, said: Criticality | None, *, trusted: bool) -> Criticality | None:
        """Return what the first rule that matches says, else ``said``: what the request's own header does.

        For a peer that is not trusted a rule on a header decides nothing: the rules after it are asked,
        and their result is lowered to the least of what such rules on the way have said.
        So whatever headers such a peer adds, it never gains by them. A callable that raises has no opinion.
        """
        found, lowest = said, None
        for rule in self.classes:
            named = _named(rule, info)
            if named is None:
                continue
            if trusted or not isinstance(rule, CriticalityRule) or rule.header is None:
                found = named
                break
            lowest = named if lowest is None else min(lowest, named, key=_worth)
        return found if lowest is None else min(found or Criticality.CRITICAL, lowest, key=_worth)

    def key_of(self, identity: str, wall_now: float) -> str:
        """Return the key of a user or session in this hour: 16 hexadecimal digits that tell nothing of it."""
        text = f"{int(wall_now // _HOUR_S)}:{identity}"
        return blake2b(text.encode(errors="replace"), key=self._salt, digest_size=8).hexdigest()


def _named(rule: CriticalityRule | Classifier, info: RequestInfo) -> Criticality | None:
    try:
        if isinstance(rule, CriticalityRule):
            return Criticality(rule.criticality) if rule.matches(info.method, info.path, info.headers) else None
        answer = rule(info)
        return None if answer is None else Criticality(answer)
    except Exception as error:  # noqa: BLE001  the user's callable; without it the request is an ordinary one
        note_internal_error("criticality", error)
        return None


def _worth(criticality: Criticality) -> int:
    return -criticality.rank
