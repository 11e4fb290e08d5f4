"""A rate curve from a CSV file with a line ``t_seconds,rps`` at its head."""

import csv
from pathlib import Path
from typing import Final

from groundfault.lab.curves import Points

__all__ = ["HEAD", "RatesError", "read_rates"]

HEAD: Final = ["t_seconds", "rps"]
_MOST: Final = 200_000


class RatesError(Exception):
    """The file holds no curve. The message names the file, the line and what is wrong."""


def read_rates(path: Path) -> Points:
    """Return the curve through a file's points, ``t`` seconds ascending from 0, rates in requests per second.

    Columns behind the first two are passed over, and so are empty lines and those that begin with ``#``.
    Raises RatesError for whatever is no such file, and OSError for one that cannot be opened.
    """
    points: list[tuple[float, float]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        try:
            head = [word.strip() for word in next(rows, [])]
            if head[:2] != HEAD:
                raise RatesError(f"{path}:1: the first line must be t_seconds,rps, not {','.join(head)!r:.80}")
            for row in rows:
                if not row or row[0].lstrip().startswith("#"):
                    continue
                points.append(_point(row, f"{path}:{rows.line_num}"))
                if len(points) > _MOST:
                    raise RatesError(f"{path}:{rows.line_num}: there must be at most {_MOST} points")
        except (csv.Error, UnicodeDecodeError) as error:
            raise RatesError(f"{path}: it is no CSV: {error}") from error
    try:
        return Points(tuple(points))
    except ValueError as error:
        raise RatesError(f"{path}: {error}") from error


def _point(row: list[str], where: str) -> tuple[float, float]:
    try:
        return float(row[0]), float(row[1])
    except (IndexError, ValueError):
        raise RatesError(f"{where}: a line must be two numbers, not {','.join(row)!r:.80}") from None
