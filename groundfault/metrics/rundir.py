"""The run directory: one file for each process of a service, one for all that have died, and what they say together.

Each process puts its report there once a second, see :mod:`groundfault.metrics.writer`.
Whoever wants to know of all of them calls :func:`read`.

A process is dead when the kernel has let go of its lock, see :mod:`groundfault.metrics._place`. Its totals are then
*folded* into ``totals.json``, exactly once, whatever is killed meanwhile: that file holds the totals together with the
names of the files that are in them, and replaces the one before in one step. A file is taken away only after its name
is in there, and counts no more from then on.

All this happens under the directory's lock, which readers share. So the sum never misses a process nor holds it twice,
and no counter goes backwards from one scrape to the next, whichever process answers it.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from groundfault.events import note_internal_error
from groundfault.metrics._bounds import bounded
from groundfault.metrics._coding import CodingError, decode, encode, parse
from groundfault.metrics._place import Place, RunDirError, place_of, read_file, replace_file
from groundfault.metrics.report import Report

__all__ = ["RUN_DIR", "TOTALS", "RunDirError", "fold", "named_directory", "read"]

RUN_DIR: Final = "GROUNDFAULT_RUN_DIR"
"""The environment variable that names the directory."""

TOTALS: Final = "totals.json"
_SPOILED: Final = "totals.spoiled"
_NAME: Final = re.compile(r"\d+-[0-9a-f]{16}\.json")
_PATIENCE_S: Final = 2.0  # so long a reader waits for who folds
_KEPT_S: Final = 86_400.0  # so long a dead process's file stays that cannot be read
_REMAINS_S: Final = 60.0  # so old is a file that nobody is writing any more

own_files: Final[dict[str, bytes]] = {}
"""What this process has written, by name. It must not open these: it would let go of its lock."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=own_files.clear)


@dataclass(slots=True)
class _Found:
    """One process's file; ``report`` is None if it could not be read, for the reason ``why``."""

    path: Path
    lives: bool
    report: Report | None = None
    why: str = ""


def named_directory(directory: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the directory given, else the one that ``GROUNDFAULT_RUN_DIR`` names, else None."""
    named = os.environ.get(RUN_DIR, "") if directory is None else os.fspath(directory)
    return Path(named) if named else None


def read(directory: str | os.PathLike[str], now: float, *, timeout_s: float = _PATIENCE_S) -> Report:
    """Return what all processes have counted, the dead included, and what the living say of themselves.

    ``now``: seconds since the epoch. Of the living each has its :class:`~groundfault.metrics.report.ProcessInfo`,
    and ``Report.stale`` names those that have not written for a while. What cannot be read is in ``Report.unread``.
    The dead are folded by the way, if this user owns the directory.

    Raises RunDirError if the directory is not there, belongs to somebody else, or is busy for ``timeout_s`` (2 s).
    """
    place = place_of(directory)
    place.check()
    with place.locked(shared=True, timeout_s=timeout_s):
        totals, folded, unread = _read_totals(place)
        found = _scan(place, folded)
    dead = False
    for each in found:
        if each.report is None:
            unread[each.path.name] = each.why
            continue
        if not each.lives:
            dead = True
            each.report.bury()
        totals.take(each.report)
    if dead or any(each.path.name in folded for each in found):
        fold(directory, now, timeout_s=0.0)
    totals.unread = unread
    return totals


def fold(directory: str | os.PathLike[str], now: float, *, timeout_s: float = _PATIENCE_S) -> None:
    """Add the totals of processes that have died to those of the dead, and take their files away.

    Does nothing where another one is at it for longer than ``timeout_s``, or where another user owns the directory.
    Never raises an Exception: what goes wrong is counted as an internal error.
    """
    place = place_of(directory)
    try:
        if not place.is_mine:
            return
        with place.locked(shared=False, timeout_s=timeout_s):
            _fold(place, now)
    except RunDirError as error:
        if timeout_s:
            note_internal_error("run directory", error)
    except Exception as error:  # noqa: BLE001  the dead stay where they are, and are counted from there
        note_internal_error("run directory", error)


def _fold(place: Place, now: float) -> None:
    totals, folded, unread = _read_totals(place)
    if TOTALS in unread:
        if unread[TOTALS].startswith("its format"):  # of a later version, which can read them
            return
        (place.path / TOTALS).replace(place.path / _SPOILED)
    dead = [each for each in _scan(place, folded, living=False) if not each.lives]
    readable = [each for each in dead if each.report is not None]
    new = [each for each in readable if each.path.name not in folded]
    for each in new:
        if each.report is not None:
            each.report.bury()
            totals.take(each.report)
    if new:
        names = [each.path.name for each in readable]
        replace_file(place.path / TOTALS, encode(bounded(totals), folded=names))
    for each in readable:
        each.path.unlink(missing_ok=True)
    _clear_away(place, (each.path for each in dead if each.report is None), now)


def _clear_away(place: Place, unreadable: Iterable[Path], now: float) -> None:
    """Take away what dead processes have left half-written or spoiled, once it is old."""
    for path in unreadable:
        _unlink_old(path, now - _KEPT_S)
    for path in place.path.glob(".*.tmp"):
        _unlink_old(path, now - _REMAINS_S)


def _unlink_old(path: Path, before: float) -> None:
    with suppress(FileNotFoundError):
        if path.lstat().st_mtime < before:
            path.unlink()


def _read_totals(place: Place) -> tuple[Report, frozenset[str], dict[str, str]]:
    """Return the totals of the dead, the names of the files that are in them, and what is wrong with them if anything.

    Nothing is wrong with totals that are not there.
    """
    try:
        data, _ = read_file(place.path / TOTALS, place.path.stat().st_uid, probe=False)
        said = parse(data)
        return decode(said), frozenset(said.get("folded", ())), {}
    except FileNotFoundError:
        return Report(), frozenset(), {}
    except (OSError, ValueError) as error:
        return Report(), frozenset(), {TOTALS: _why(error)}


def _scan(place: Place, folded: frozenset[str], *, living: bool = True) -> list[_Found]:
    """Return the processes' files, if not ``living`` those of the dead alone.

    Of those in ``folded`` the content is none: it is in the totals.
    """
    owner = place.path.stat().st_uid
    found = []
    for name in sorted(os.listdir(place.path)):  # noqa: PTH208  twice as fast
        if not _NAME.fullmatch(name):
            continue
        each = _Found(place.path / name, lives=False)
        try:
            own = own_files.get(name)
            data, each.lives = (own, True) if own is not None else read_file(each.path, owner, probe=True)
            if each.lives and not living:
                continue
            each.report = Report() if name in folded else decode(parse(data))
        except FileNotFoundError:  # a process that has nothing to say any more has taken it back
            continue
        except (OSError, ValueError) as error:
            each.why = _why(error)
        found.append(each)
    return found


def _why(error: Exception) -> str:
    if isinstance(error, CodingError) or not isinstance(error, OSError):
        return str(error)
    return error.strerror or type(error).__name__
