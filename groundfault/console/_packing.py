"""A view as it is kept and sent."""

import gzip
import json
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["packed"]


def packed(view: Mapping[str, Any]) -> bytes:
    """Return a view as compressed JSON; what others look for in it comes first.

    Row by row, so that the threads of the service get their turns in between.
    """
    first = {name: view[name] for name in ("format", "sequence", "interval_s")}
    return gzip.compress("".join(_parts({**first, **view})).encode(), 1, mtime=0)


_dump: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def _parts(view: Mapping[str, Any]) -> list[str]:
    parts: list[str] = []
    for name, value in view.items():
        text = f"[{','.join([_dump(row) for row in value])}]" if isinstance(value, list) else _dump(value)
        parts.append(f"{',' if parts else '{'}{_dump(name)}:{text}")
    return [*parts, "}"]
