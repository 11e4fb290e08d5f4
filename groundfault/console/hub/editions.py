"""One view, as it is sent: whole or as what has changed, encoded once, for however many look at it."""

import gzip
import json
import threading
from typing import Any, Final

from groundfault.console.hub.difference import difference
from groundfault.console.view import View

__all__ = ["Edition"]

_dump: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_QUICKLY: Final = 1  # of gzip's levels: the hub has more to do


class Edition:
    """A view and its bytes. ``before``: the one that it followed, None for the first. Safe for threads."""

    def __init__(self, view: View, before: "Edition | None" = None) -> None:
        self.view: Final = view
        self.sequence: Final = view["sequence"]
        self.follows: Final = None if before is None else before.sequence
        # Encoded at once, for nearly everybody who listens wants it; and so the old view can go.
        self.change: Final = b"" if before is None else _frame("change", _dump(difference(before.view, view)))
        self._lock = threading.Lock()  # guards the two below, and that they are made once
        self._text: str | None = None
        self._compressed: bytes | None = None

    def whole(self) -> bytes:
        """Return the frame of a stream that holds the whole view."""
        return _frame("view", self._json())

    def compressed(self) -> bytes:
        """Return the view as JSON that is compressed with gzip."""
        text = self._json()
        with self._lock:
            if self._compressed is None:
                self._compressed = gzip.compress(text.encode(), _QUICKLY, mtime=0)
            return self._compressed

    def _json(self) -> str:
        with self._lock:
            if self._text is None:
                self._text = _dump(self.view)
            return self._text


def _frame(event: str, data: Any) -> bytes:
    return f"event: {event}\ndata: {data}\n\n".encode()
