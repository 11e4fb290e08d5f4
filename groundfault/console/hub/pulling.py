"""Asks consoles for their reports: each once a second, all at the same time, none for longer than it may take.

The addresses come from whoever starts the hub, and from nobody else. Nothing that is answered leads anywhere: no
redirect is followed, no proxy is asked, and the answer is a report or it is nothing.
"""

import asyncio
import os
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from random import Random
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from groundfault.console.hub.accepting import LARGEST_SENT
from groundfault.errors import SettingsError

__all__ = ["Address", "NoAnswerError", "Puller", "address_of", "fetch"]

LONGEST_S: Final = 4.0
MAX_CONSOLES: Final = 500
_INTERVAL_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 10.0
_MAX_LINE: Final = 8 * 1024
_MAX_LINES: Final = 100
_SHOWN: Final = 160
_OK: Final = 200

_random: Final = Random()


class NoAnswerError(Exception):
    """A console could not be asked, or did not answer with a report. The message says why."""


class Address(NamedTuple):
    """Where a console is. ``name``: as it is shown, without credentials."""

    name: str
    host: str
    port: int
    is_secure: bool
    path: str
    netloc: str
    authorization: str | None


def address_of(url: str) -> Address:
    """Return the address of the console at that URL. Raises SettingsError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"a console's address must be a URL: {error}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise SettingsError(f"a console's address must be as http://web-1:9731/, not {_without_secrets(url)!r}")
    if any(each.isspace() or not each.isprintable() for each in url) or not url.isascii():
        raise SettingsError("a console's address must be ASCII without spaces")
    is_secure = parts.scheme == "https"
    netloc = parts.netloc.rpartition("@")[2]
    given = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        given = f"Basic {b64encode(pair.encode()).decode()}"
    path = f"{parts.path.rstrip('/')}/report"
    return Address(netloc, parts.hostname, port or (443 if is_secure else 80), is_secure, path, netloc, given)


def _without_secrets(url: str) -> str:
    head, found, rest = url.rpartition("@")
    return f"...@{rest}" if found and head else url


async def fetch(
    address: Address,
    *,
    largest: int = LARGEST_SENT,
    longest_s: float = LONGEST_S,
    context: ssl.SSLContext | None = None,
) -> bytes:
    """Return the report of the console there, as it was sent. Raises NoAnswerError.

    ``context``: whom to trust over TLS; None: one is made for this question, which takes tens of milliseconds.
    """
    try:
        async with asyncio.timeout(longest_s):
            return await _fetched(address, largest, context)
    except TimeoutError:
        raise NoAnswerError(f"no answer within {longest_s:g} s") from None
    except OSError as error:
        raise NoAnswerError(_spoken(error)[:_SHOWN]) from None
    except (asyncio.IncompleteReadError, EOFError):
        raise NoAnswerError("its answer ended before it was whole") from None
    except UnicodeError:  # before anybody was asked: a part of it is empty, or has more than 63 characters
        raise NoAnswerError("there can be no host of that name") from None
    except (asyncio.LimitOverrunError, ValueError):
        raise NoAnswerError("its answer is no HTTP") from None


def _spoken(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or type(error).__name__}"
    # asyncio's own text names the address, which is said already.
    named = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror
    return named or str(error) or type(error).__name__


async def _fetched(address: Address, largest: int, context: ssl.SSLContext | None) -> bytes:
    context = (context or ssl.create_default_context()) if address.is_secure else None
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context, limit=_MAX_LINE)
    try:
        lines = [
            f"GET {address.path} HTTP/1.1",
            f"Host: {address.netloc}",
            "Accept-Encoding: gzip",
            "Connection: close",
            "User-Agent: groundfault-hub",
        ]
        if address.authorization is not None:
            lines.append(f"Authorization: {address.authorization}")
        writer.write("\r\n".join((*lines, "", "")).encode("ascii"))
        await writer.drain()
        status, headers = await _head(reader)
        body = await _body(reader, headers, largest)
    finally:
        writer.close()
        with suppress(OSError):
            # Closed by hand at once: who does not read what it was sent must not hold the connection for long.
            writer.transport.abort()
    if status != _OK:
        said = "".join(each for each in body[:_SHOWN].decode("utf-8", "replace").strip() if each.isprintable())
        compressed = headers.get("content-encoding") == "gzip"
        raise NoAnswerError(f"it answers {status}" + (f": {said}" if said and not compressed else ""))
    return body


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    version, _, rest = (await reader.readuntil(b"\n")).decode("latin-1").strip().partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not status.isdecimal():
        raise ValueError(version)
    headers: dict[str, str] = {}
    for _ in range(_MAX_LINES):
        line = (await reader.readuntil(b"\n")).decode("latin-1").strip()
        if not line:
            return int(status), headers
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    raise ValueError("headers without end")


async def _body(reader: asyncio.StreamReader, headers: dict[str, str], largest: int) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _chunks(reader, largest)
    length = headers.get("content-length")
    if length is not None:
        if not length.isdecimal() or len(length) > 12:  # noqa: PLR2004  digits of more than any report has
            raise ValueError(length)
        _must_fit(int(length), largest)
        return await reader.readexactly(int(length))
    body = bytearray()
    while part := await reader.read(_MAX_LINE):
        body += part
        _must_fit(len(body), largest)
    return bytes(body)


async def _chunks(reader: asyncio.StreamReader, largest: int) -> bytes:
    body = bytearray()
    while True:
        size = int((await reader.readuntil(b"\n")).partition(b";")[0], 16)
        if size <= 0:
            return bytes(body)
        _must_fit(len(body) + size, largest)
        body += await reader.readexactly(size)
        await reader.readuntil(b"\n")


def _must_fit(size: int, largest: int) -> None:
    if size > largest:
        raise NoAnswerError(f"its report has more than {largest} bytes")


class Puller:
    """Asks the consoles at these addresses. ``arrived(address, body)`` and ``missed(address, why)`` are awaited."""

    def __init__(
        self,
        addresses: Iterable[Address],
        *,
        arrived: Callable[[Address, bytes], Awaitable[None]],
        missed: Callable[[Address, str], Awaitable[None]],
    ) -> None:
        self._addresses = list(dict.fromkeys(addresses))
        if len(self._addresses) > MAX_CONSOLES:
            raise SettingsError(f"a hub pulls from at most {MAX_CONSOLES} consoles, not {len(self._addresses)}")
        # One for all, or fifty consoles would cost the event loop a second of each second.
        self._context = ssl.create_default_context() if any(each.is_secure for each in self._addresses) else None
        self._arrived = arrived
        self._missed = missed

    async def run(self) -> None:
        """Ask until it is cancelled."""
        if self._addresses:
            async with asyncio.TaskGroup() as group:
                for number, address in enumerate(self._addresses):
                    group.create_task(self._ask(address, number / len(self._addresses) * _INTERVAL_S))

    async def _ask(self, address: Address, after_s: float) -> None:
        """Ask one console again and again: not all in the same moment, and one that does not answer more rarely."""
        loop = asyncio.get_running_loop()
        failures = 0
        await asyncio.sleep(after_s)
        while True:
            began = loop.time()
            try:
                body = await fetch(address, context=self._context)
            except NoAnswerError as error:
                failures += 1
                await self._missed(address, str(error))
            else:
                failures = 0
                await self._arrived(address, body)
            pause_s = min(_LONGEST_PAUSE_S, _INTERVAL_S * 2.0 ** min(failures, 5)) * _random.uniform(0.9, 1.0)
            await asyncio.sleep(max(0.05, began + (_INTERVAL_S if not failures else pause_s) - loop.time()))
