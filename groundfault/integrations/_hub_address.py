"""Where a hub is, what is shown to it, and whom to believe that it is the hub. Read once; nothing is connected to."""

import os
import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from groundfault.errors import SettingsError

__all__ = ["PORTS", "Address", "address_of", "checked_token", "context_for"]

PORTS: Final = {"http": 80, "https": 443}
"""Where a hub is that names no port."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a hub is. ``name``: the address without credentials. ``authorization``: of HTTP, from user and password."""

    name: str
    scheme: str
    host: str
    port: int
    prefix: str
    authorization: str | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


def address_of(url: str) -> Address:
    """Return where a hub is. Raises SettingsError for what is no address of one; the message holds no credentials."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except (ValueError, AttributeError):
        raise _no_address(url) from None
    wrong = parts.query or parts.fragment or not url.isascii() or not url.isprintable() or " " in url
    if parts.scheme not in PORTS or not host or port == 0 or wrong:
        raise _no_address(url)
    user = None if parts.username is None else f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    prefix = parts.path.rstrip("/")
    place = parts.netloc.rpartition("@")[2]
    return Address(
        f"{parts.scheme}://{place}{prefix}",
        parts.scheme,
        host,
        port or PORTS[parts.scheme],
        prefix,
        None if user is None else f"Basic {b64encode(user.encode()).decode()}",
        _secrets_of(parts),
    )


def _no_address(url: object) -> SettingsError:
    shown = ascii(url)
    if "@" in shown:
        shown = f"...{shown[shown.rindex('@') :]}"
    return SettingsError(f"a hub's address must be as in http://hub:9733 or https://hub/groundfault, not {shown[:200]}")


def _secrets_of(parts: SplitResult) -> tuple[str, ...]:
    password = parts.password or ""
    return tuple({each for each in (password, unquote(password)) if each})


def checked_token(token: str | None, variable: str = "GROUNDFAULT_HUB_TOKEN") -> str | None:
    """Return the token to show to a hub; None: what the environment's ``variable`` holds, if anything.

    Raises SettingsError for one that no header can carry.
    """
    token = token if token is not None else os.environ.get(variable) or None
    if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
        raise SettingsError("the token for the hub must be printable ASCII without spaces; it is a secret, not shown")
    return token


def context_for(address: Address) -> ssl.SSLContext | None:
    """Return how TLS is spoken with a hub; None: not at all.

    ``GROUNDFAULT_HUB_CA`` names a file with the only authorities to trust; without it those of the system are.
    Raises SettingsError for a file that is none.
    """
    if address.scheme != "https":
        return None
    authorities = os.environ.get("GROUNDFAULT_HUB_CA") or None
    try:
        return ssl.create_default_context(cafile=authorities)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"GROUNDFAULT_HUB_CA must name a file of certificates, not {authorities!r}: {error}"
        ) from None
