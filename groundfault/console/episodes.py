"""The timeline: what began and ended when, to read an incident back afterwards. Pure.

An episode is *held* at each look for as long as it goes on, and ends at the first look at which it is not. What begins
again within five seconds goes on: a circuit that flaps is one line and not a hundred.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast, get_args

from groundfault.console.figures import number, short
from groundfault.console.view import Episode, EpisodeKind, Level

__all__ = ["FLAP_S", "FOLD_S", "KEPT", "KEPT_S", "Timeline"]

FLAP_S: Final = 5.0
"""What begins again so soon has not ended."""

FOLD_S: Final = 10.0
"""Moments of the same kind no farther apart are told as one."""

KEPT: Final = 500
KEPT_S: Final = 86_400.0
RESUMED_S: Final = 60.0
"""After a longer pause what goes on is told as another episode."""

Numbers = Mapping[str, float]
Key = tuple[EpisodeKind, str]


class _Line:
    """One episode. ``counted``: it is known by what is counted, so a look that counts nothing new cannot end it."""

    __slots__ = ("counted", "episode", "held", "key")

    def __init__(self, key: Key, episode: Episode, *, counted: bool) -> None:
        self.key = key
        self.episode = episode
        self.counted = counted
        self.held = True


class Timeline:
    """Episodes of one service. Times are seconds since the epoch.

    At each look: what goes on by :meth:`hold`, what happens by :meth:`note`, and at last :meth:`settle`.
    """

    def __init__(self) -> None:
        self._lines: list[_Line] = []  # in the order in which they began
        self._newest: dict[Key, _Line] = {}
        self._number = 0
        self._looked_at: float | None = None  # recalled: when was last looked

    def __len__(self) -> int:
        return len(self._lines)

    def resume(self, now: float) -> None:
        """End what was going on when this was remembered, if that is too long ago."""
        then, self._looked_at = self._looked_at, None
        if then is None or 0 <= now - then <= RESUMED_S:
            return
        for line in self._lines:
            if line.episode["ended_at"] is None:
                line.episode["ended_at"] = max(then, line.episode["began_at"])
        self._newest.clear()

    def hold(
        self,
        kind: EpisodeKind,
        subject: str,
        now: float,
        *,
        level: Level,
        what: str,
        service: str | None = None,
        peaks: Numbers | None = None,
        leasts: Numbers | None = None,
        sums: Numbers | None = None,
        part: str = "",
        counted: bool = False,
    ) -> Episode:
        """Say that something goes on: begins it, or goes on with it. Returns the episode.

        ``part``: tells episodes of one kind and subject apart. Of ``peaks`` the greatest is kept, of ``leasts`` the
        least, ``sums`` are added up. ``counted``: it is known by a count, see :meth:`settle`.
        """
        key = kind, f"{part}|{subject}"
        line = self._newest.get(key)
        if line is None or not _goes_on(line.episode, now, FLAP_S):
            line = self._begin(key, now, level=level, what=what, service=service, subject=subject, counted=counted)
        line.held = True
        episode = line.episode
        episode["ended_at"], episode["level"], episode["what"] = None, level, what
        numbers = episode["numbers"]
        for name, value in (peaks or {}).items():
            numbers[name] = short(max(value, numbers.get(name, value)))
        for name, value in (leasts or {}).items():
            numbers[name] = short(min(value, numbers.get(name, value)))
        for name, value in (sums or {}).items():
            numbers[name] = numbers.get(name, 0) + value
        return episode

    def let_go(self, kind: EpisodeKind, subject: str, part: str = "") -> None:
        """Say that this look is the last of an episode that it has held: it ends now."""
        line = self._newest.get((kind, f"{part}|{subject}"))
        if line is not None:
            line.held = False

    def is_open(self, kind: EpisodeKind, subject: str, part: str = "") -> bool:
        """Return whether such an episode was going on at the last look."""
        line = self._newest.get((kind, f"{part}|{subject}"))
        return line is not None and line.episode["ended_at"] is None

    def note(
        self,
        kind: EpisodeKind,
        subject: str,
        now: float,
        *,
        level: Level,
        what: str,
        service: str | None = None,
        part: str = "",
        times: int = 1,
        several: str = "",
        fold_s: float = FOLD_S,
    ) -> Episode:
        """Say that something has happened. Once more within ``fold_s`` it is the same line.

        ``several``: what to say of more than one, with ``{}`` for how many. ``times`` are counted as ``times``.
        """
        key = kind, f"{part}|" if several else f"{part}|{subject}"
        line = self._newest.get(key)
        if line is None or not _goes_on(line.episode, now, fold_s):
            line = self._begin(key, now, level=level, what=what, service=service, subject=subject, counted=False)
        line.held = False
        episode = line.episode
        episode["ended_at"] = max(now, episode["began_at"])
        count = episode["numbers"].get("times", 0) + times
        episode["numbers"]["times"] = count
        if several and count > 1:
            episode["what"] = several.format(round(count))
        return episode

    def _begin(
        self,
        key: Key,
        now: float,
        *,
        level: Level,
        what: str,
        service: str | None,
        subject: str,
        counted: bool,
    ) -> _Line:
        self._number += 1
        kind = key[0]
        episode: Episode = {
            "id": f"{kind}-{max(0, int(now * 1000)):x}-{self._number}",
            "kind": kind,
            "level": level,
            "service": service,
            "subject": subject,
            "what": what,
            "began_at": now,
            "ended_at": None,
            "numbers": {},
        }
        line = _Line(key, episode, counted=counted)
        self._newest[key] = line
        self._lines.append(line)
        return line

    def settle(self, now: float, *, counts: bool = True) -> None:
        """End what was not held since the last time. ``counts``: whether this look has counted anything new."""
        for line in self._lines:
            episode = line.episode
            if episode["ended_at"] is None and not line.held and (counts or not line.counted):
                episode["ended_at"] = max(now, episode["began_at"])
            line.held = False
        self._prune(now)

    def _prune(self, now: float) -> None:
        lines = self._lines
        if len(lines) > KEPT:
            # The oldest that have ended go first; where none has, the oldest.
            ended = [line for line in lines if line.episode["ended_at"] is not None]
            going = [line for line in lines if line.episode["ended_at"] is None]
            gone = {id(line) for line in (ended + going)[: len(lines) - KEPT]}
            self._keep([line for line in lines if id(line) not in gone])
        if lines and (lines[0].episode["ended_at"] or now) < now - KEPT_S:
            self._keep([line for line in lines if (line.episode["ended_at"] or now) >= now - KEPT_S])

    def _keep(self, lines: list[_Line]) -> None:
        self._lines = lines
        kept = {id(line) for line in lines}
        self._newest = {key: line for key, line in self._newest.items() if id(line) in kept}

    def newest_first(self) -> list[Episode]:
        """Return all episodes, those that began last first; they are the caller's own."""
        lines = sorted(self._lines, key=lambda line: line.episode["began_at"], reverse=True)
        return [{**line.episode, "numbers": dict(line.episode["numbers"])} for line in lines]

    def remembered(self, now: float) -> dict[str, Any]:
        """Return what JSON can hold, for :meth:`recalled`."""
        lines = [[*line.key, line.counted, line.episode] for line in self._lines]
        return {"at": now, "number": self._number, "lines": lines}

    @classmethod
    def recalled(cls, said: Any) -> "Timeline":
        """Return the timeline that said so. Raises ValueError, TypeError or LookupError for anything else."""
        made = cls()
        made._looked_at = number(said["at"])
        made._number = int(said["number"])
        for kind, part, counted, episode in said["lines"][-KEPT:]:
            line = _Line((cast("EpisodeKind", str(kind)), str(part)), _episode(episode), counted=bool(counted))
            line.held = False
            made._lines.append(line)
            made._newest[line.key] = line
        return made


def _goes_on(episode: Episode, now: float, within_s: float) -> bool:
    ended_at = episode["ended_at"]
    return ended_at is None or now - ended_at <= within_s


def _text(said: Any, among: Iterable[str] | None = None) -> str:
    if not isinstance(said, str) or (among is not None and said not in among):
        raise ValueError("this must be a text that is known")
    return said


def _episode(said: Any) -> Episode:
    """Return the episode; what is in it may have been written by another release, or by nobody."""
    ended_at = said["ended_at"]
    made = {
        "id": _text(said["id"]),
        "kind": _text(said["kind"], get_args(EpisodeKind)),
        "level": _text(said["level"], get_args(Level)),
        "service": None if said["service"] is None else _text(said["service"]),
        "subject": _text(said["subject"]),
        "what": _text(said["what"]),
        "began_at": number(said["began_at"]),
        "ended_at": None if ended_at is None else number(ended_at),
        "numbers": {_text(name): number(value) for name, value in said["numbers"].items()},
    }
    made |= {name: _text(said[name]) for name in ("by", "reason") if name in said}
    return cast("Episode", made)
