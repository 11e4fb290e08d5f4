"""Server-sent events: a whole view first, then once a second what has changed.

Nothing is queued for anybody. Whoever has sent the last edition waits for the next one; who was too slow for some of
them gets the newest whole. So a slow client costs what one client costs.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from groundfault.console.hub.editions import Edition

__all__ = ["MAX_STREAMS", "Streams"]

MAX_STREAMS: Final = 20
HEARTBEAT_S: Final = 15.0

_HEARTBEAT: Final = b": still here\n\n"
_AGAIN: Final = b"retry: 3000\n\n"  # so long a browser waits before it tries again, in milliseconds

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]


class Streams:
    """All who listen. Of one event loop. ``whole(edition)`` returns a view's frame, made where it delays nobody."""

    def __init__(
        self, whole: Callable[[Edition], Awaitable[bytes]], *, heartbeat_s: float = HEARTBEAT_S, most: int = MAX_STREAMS
    ) -> None:
        self._whole = whole
        self._heartbeat_s = heartbeat_s
        self._most = most
        self._newest: Edition | None = None
        self._news = asyncio.Event()
        self._ended = False
        self.open = 0

    @property
    def is_full(self) -> bool:
        """Whether nobody else may listen."""
        return self.open >= self._most

    def publish(self, edition: Edition) -> None:
        """Tell everybody of a new edition."""
        self._newest = edition
        self._wake()

    def end(self) -> None:
        """End all streams, at once and for good."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def serve(self, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        """Answer one request, until the client goes or all ends."""
        self.open += 1
        try:
            gone = asyncio.ensure_future(_gone(receive))
            telling = asyncio.ensure_future(self._tell(send, headers))
            try:
                await asyncio.wait({gone, telling}, return_when=asyncio.FIRST_COMPLETED)
                if telling.done():
                    telling.result()
            finally:
                for task in (gone, telling):
                    task.cancel()
                    with suppress(asyncio.CancelledError, OSError):
                        await task
        finally:
            self.open -= 1

    async def _tell(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _AGAIN, "more_body": True})
        told: int | None = None
        while not self._ended:
            news, newest = self._news, self._newest
            if newest is not None and newest.sequence != told:
                frame = newest.change if told is not None and newest.follows == told else await self._whole(newest)
                told = newest.sequence
            else:
                try:
                    await asyncio.wait_for(news.wait(), self._heartbeat_s)
                except TimeoutError:
                    frame = _HEARTBEAT
                else:
                    continue
            await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
