"""Who may send to the hub, and who may read the settings it keeps. People's way in is the console's own Guard.

Hosts show the hub's token; they are programs, so the name they call the hub by does not matter then. Without a token
only this machine's own processes may, and of those no browser with somebody else's page: such a request has an Origin,
or a Host that was made to point here.
"""

from base64 import b64decode
from collections.abc import Iterable
from hmac import compare_digest
from ipaddress import ip_address
from typing import Final

from groundfault import wire
from groundfault.console.asking import JSON, Answer, Asked, plain
from groundfault.console.guarding import Auth, Guard, checked_token

__all__ = ["Gate", "basic", "is_loopback"]

_BASIC: Final = "basic "


class Gate:
    """``token``: the hub's; ``steering``: the one of people who may change settings. None: there is none.

    ``hosts``: names, besides those of the loopback interface, that the hub may be addressed by.
    """

    def __init__(self, *, token: str | None, steering: str | None, hosts: Iterable[str] = ()) -> None:
        self._names = Guard(hosts=hosts)
        self._token = checked_token(token, "GROUNDFAULT_HUB_TOKEN")
        self._steering = checked_token(steering, "GROUNDFAULT_CONSOLE_TOKEN")

    def refusal(self, asked: Asked, peer: str) -> Answer | None:
        """Return why a host may neither push nor read settings, or None. ``peer``: the address it comes from."""
        if self._token is not None:
            if self._shows(asked, self._token) or (self._steering is not None and self._shows(asked, self._steering)):
                return None
            return plain(403, f"the token in {wire.TOKEN} is missing or another")
        if not is_loopback(peer):
            return plain(403, "this hub has no GROUNDFAULT_HUB_TOKEN, so it takes from this machine alone")
        return self._own_machine(asked)

    def refusal_of_change(self, asked: Asked) -> Answer | None:
        """Return why settings may not be changed, or None: that takes the token of people, who know what they do."""
        if self._steering is None:
            return plain(403, "this hub is read-only: it was started without GROUNDFAULT_CONSOLE_TOKEN")
        if not self._shows(asked, self._steering):
            return plain(403, f"a change takes the console's token in {wire.TOKEN}; it is missing or another")
        if asked.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            return plain(415, f"the Content-Type must be {JSON}")
        return plain(403, "a page has nothing to send here") if "origin" in asked.headers else None

    def _own_machine(self, asked: Asked) -> Answer | None:
        if "origin" in asked.headers:
            return plain(403, "a page has nothing to send here")
        return self._names.refusal(asked._replace(method="GET"))  # which looks at the Host alone

    @staticmethod
    def _shows(asked: Asked, token: str) -> bool:
        given = asked.headers.get(wire.TOKEN.lower(), "")
        return compare_digest(given.encode("utf-8", "replace"), token.encode())


def is_loopback(address: str) -> bool:
    """Return whether that is an address of this machine's own, or ``localhost``."""
    if address == "localhost":
        return True
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (found if mapped is None else mapped).is_loopback


def basic(password: str) -> Auth:
    """Return what asks a browser for this password, under whatever user's name."""

    def auth(asked: Asked) -> bool:
        given = asked.headers.get("authorization", "")
        if not given.lower().startswith(_BASIC):
            return False
        try:
            said = b64decode(given[len(_BASIC) :], validate=True)
        except ValueError:
            return False
        return compare_digest(said.partition(b":")[2], password.encode())

    return auth
