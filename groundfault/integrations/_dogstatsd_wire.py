"""DogStatsD's datagrams: what a line looks like, how many fit into a packet, and where packets go.

The protocol is Datadog's, version 1.0 (docs.datadoghq.com/developers/dogstatsd/datagram_shell): every agent has it.
"""

import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

__all__ = ["UDP_BYTES", "UDS_BYTES", "Address", "address_of", "event_line", "line", "packed", "tags_of", "valid_prefix"]

UDP_BYTES: Final = 1432
"""Bytes of a packet that fit into one Ethernet frame, as Datadog's clients count them."""
UDS_BYTES: Final = 8192
"""Bytes of a datagram that the agent reads from its unix socket."""

_PORT: Final = 8125
_HOST: Final = "localhost"
_LONGEST_VALUE: Final = 200
_NOT_OF_A_TAG: Final = re.compile(r"[^\w\-:./]")
_PREFIX: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9_.]*)?")
_EVENT_BYTES: Final = 4000


class Address(NamedTuple):
    """Where packets go: ``path`` of a unix socket, or else ``host`` and ``port``."""

    host: str = _HOST
    port: int = _PORT
    path: str | None = None

    @property
    def packet_bytes(self) -> int:
        """How large a packet may be."""
        return UDP_BYTES if self.path is None else UDS_BYTES

    def connect(self, timeout_s: float) -> socket.socket:
        """Return a socket to send to. Raises OSError, at once where an agent's unix socket is not there."""
        if self.path is not None:
            return _connected(socket.AF_UNIX, self.path, timeout_s)
        known = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)
        # The agent listens on all addresses or on one of version 4; `localhost` may name one of version 6 first.
        family, _, _, _, address = min(known, key=lambda each: each[0] != socket.AF_INET)
        return _connected(family, address, timeout_s)


def _connected(family: int, address: object, timeout_s: float) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.settimeout(timeout_s)
        made.connect(address)  # type: ignore[arg-type]  # that of the family
    except BaseException:
        made.close()
        raise
    return made


def address_of(url: str | None, environ: Mapping[str, str]) -> Address:
    """Return where packets go: ``url``, else as the environment says, else to this host. Raises ValueError."""
    name = "url" if url else "DD_DOGSTATSD_URL"
    url = url or environ.get("DD_DOGSTATSD_URL")
    if url:
        try:
            return _address_of_url(url)
        except ValueError as error:
            raise ValueError(f"{name} must be udp://host:port or unix:///path, not {url!r}") from error
    port = environ.get("DD_DOGSTATSD_PORT") or str(_PORT)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise ValueError(f"DD_DOGSTATSD_PORT must be a port from 1 to 65535, not {port!r}")
    return Address(environ.get("DD_AGENT_HOST") or _HOST, int(port))


def _address_of_url(url: str) -> Address:
    parts = urlsplit(url)
    if parts.scheme in {"unix", "unixgram"} and parts.path and not parts.netloc:
        return Address(path=parts.path)
    if parts.scheme == "udp" and parts.hostname:
        return Address(parts.hostname, parts.port or _PORT)
    raise ValueError(url)


def tags_of(tags: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of every line: as the environment says, and ``tags``, which go before."""
    said = {}
    for each in (environ.get("DD_TAGS") or "").replace(",", " ").split():
        name, _, value = each.partition(":")
        said[name] = value
    service = environ.get("DD_SERVICE") or environ.get("GROUNDFAULT_SERVICE")
    unified = {"env": environ.get("DD_ENV"), "service": service, "version": environ.get("DD_VERSION")}
    said |= {name: value for name, value in unified.items() if value}
    if environ.get("DD_ENTITY_ID"):  # by which the agent finds the container, where packets do not say it themselves
        said["dd.internal.entity_id"] = environ["DD_ENTITY_ID"]
    return said | dict(tags)


def valid_prefix(prefix: str) -> bool:
    """Return whether names may begin so."""
    return _PREFIX.fullmatch(prefix) is not None


def line(name: str, value: float, kind: str, tags: Mapping[str, str], *, times: int = 1) -> bytes:
    """Return one line. ``times``: how many values like this one it stands for."""
    # A hair below 1 / times: the agent cuts 1 / rate to an integer, and must not find one less.
    rate = "" if times == 1 else f"|@{(1.0 - 1e-9) / times:.12g}"
    return f"{name}:{value:.9g}|{kind}{rate}{_tags(tags)}".encode()


def event_line(title: str, text: str, *, warning: bool, key: str, at: float, tags: Mapping[str, str]) -> bytes:
    """Return an event, for the agent's event stream. ``key``: of those that belong together. ``at``: Unix seconds."""
    title_bytes, text_bytes = (_of_an_event(each) for each in (title, text))
    head = f"_e{{{len(title_bytes)},{len(text_bytes)}}}:".encode()
    alert = "warning" if warning else "success"
    tail = f"|d:{int(at)}|k:{_tame(key)}|t:{alert}{_tags(tags)}".encode()
    return head + title_bytes + b"|" + text_bytes + tail


def _of_an_event(text: str) -> bytes:
    return text.replace("\n", "\\n").replace("|", "/").encode(errors="replace")[:_EVENT_BYTES]


def _tags(tags: Mapping[str, str]) -> str:
    return "|#" + ",".join(f"{_tame(name)}:{_tame(value) or 'none'}" for name, value in tags.items()) if tags else ""


def _tame(text: str) -> str:
    """Return the text as Datadog would make a tag of it; what has a meaning in a line among others."""
    return _NOT_OF_A_TAG.sub("_", text.encode(errors="replace").decode())[:_LONGEST_VALUE]


def packed(lines: Iterable[bytes], limit: int) -> Iterator[tuple[bytes, int]]:
    """Yield packets of at most ``limit`` bytes, each with the number of its lines. A longer line has one for itself."""
    packet: list[bytes] = []
    size = 0
    for each in lines:
        if packet and size + 1 + len(each) > limit:
            yield b"\n".join(packet), len(packet)
            packet, size = [], 0
        size += len(each) + (1 if packet else 0)
        packet.append(each)
    if packet:
        yield b"\n".join(packet), len(packet)
