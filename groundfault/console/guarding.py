"""Who may look, and who may steer.

Against a page of somebody else's in the engineer's browser (T6 of the threat model): a name that was made to point
here (DNS rebinding) is refused by its Host, a form or a script from elsewhere by its Origin and for want of a header
that no form can send.
"""

import re
from collections.abc import Callable, Iterable
from hmac import compare_digest
from typing import Final
from urllib.parse import urlsplit

from groundfault import wire
from groundfault.console.asking import JSON, Answer, Asked, plain
from groundfault.errors import SettingsError

__all__ = ["Auth", "Guard", "checked_token"]

SHORTEST_TOKEN: Final = 16
_LOOPBACK: Final = re.compile(r"localhost|127(?:\.\d{1,3}){3}|\[::1\]")

Auth = Callable[[Asked], bool]


def checked_token(token: str | None, where: str = "token") -> str | None:
    """Return the token. Raises SettingsError for one that can be guessed, or that no header can carry."""
    if token is None:
        return None
    if len(token) < SHORTEST_TOKEN or not (token.isascii() and token.isprintable() and " " not in token):
        raise SettingsError(
            f"{where} must be at least {SHORTEST_TOKEN} ASCII characters without spaces, not one of {len(token)}"
        )
    return token


class Guard:
    """``hosts``: names, besides those of the loopback interface, that the console may be addressed by; ``*``: any.

    ``auth``: asked before anything is answered; None: everybody may look. ``token``: None: nobody may steer.
    """

    def __init__(self, *, hosts: Iterable[str] = (), auth: Auth | None = None, token: str | None = None) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._auth = auth
        self._token = checked_token(token)

    @property
    def steers(self) -> bool:
        """Whether there is a token at all."""
        return self._token is not None

    def refusal(self, asked: Asked) -> Answer | None:
        """Return why the request is not answered, or None if it is to be."""
        if not self._is_known(asked.headers.get("host", "")):
            return plain(403, "this console does not answer to that Host; allow it with hosts=, or --allow-host")
        if self._auth is not None and not self._auth(asked):
            return plain(401, "who are you?", ("WWW-Authenticate", 'Basic realm="groundfault", charset="UTF-8"'))
        if asked.method in {"GET", "HEAD"}:
            return None
        return self._no_writing(asked)

    def _no_writing(self, asked: Asked) -> Answer | None:
        if asked.method != "POST":
            return plain(405, "use GET, or POST to steer", ("Allow", "GET, HEAD, POST"))
        origin = asked.headers.get("origin")
        if origin is not None and not _is_same(origin, asked.headers.get("host", "")):
            return plain(403, "the Origin must be this console's own")
        if asked.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            return plain(415, f"the Content-Type must be {JSON}")
        if self._token is None:
            return plain(403, "this console is read-only: it was started without a token")
        given = asked.headers.get(wire.TOKEN.lower(), "")
        if not compare_digest(given.encode("utf-8", "replace"), self._token.encode()):
            return plain(403, f"the token in {wire.TOKEN} is missing or another")
        return None

    def _is_known(self, host: str) -> bool:
        name = host.lower()
        if not name.endswith("]"):
            head, colon, port = name.rpartition(":")
            name = head if colon and port.isdecimal() else name
        return bool(_LOOPBACK.fullmatch(name)) or name in self._hosts or ("*" in self._hosts and bool(name))


def _is_same(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
