"""Who may look, and who may steer.

Against a page of somebody else's in the engineer's browser (T6 of the threat model): a name that was made to point
here (DNS rebinding) is refused by its Host, a form or a script from elsewhere by its Origin and for want of a header
that no form can send.
"""

import logging
import re
from base64 import b64decode
from collections.abc import Callable, Iterable
from hashlib import sha256
from hmac import compare_digest
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from groundfault import wire
from groundfault._clock import Clock, monotonic
from groundfault.console.asking import JSON, Answer, Asked, plain
from groundfault.errors import SettingsError

__all__ = ["Auth", "BasicAuth", "Guard", "basic_auth", "checked_token"]

_log = logging.getLogger("groundfault")

SHORTEST_TOKEN: Final = 16
_LOOPBACK: Final = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]")
# One authority, whatever else a Host may be: several of them come here with a comma between.
_AUTHORITY: Final = re.compile(r"([a-z0-9_](?:[a-z0-9_.-]{0,252})|\[[0-9a-f:.]{2,45}\])(?::([0-9]{0,5}))?")
_PORTS: Final = {"http": "80", "https": "443"}
_LOG_INTERVAL_S: Final = 10.0
_MAX_SHOWN: Final = 64  # bytes of a header's value

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


class BasicAuth:
    """Lets one user in, by name and password. Made by :func:`basic_auth`."""

    def __init__(self, user: str, password: str) -> None:
        if not user or ":" in user or not password:
            raise SettingsError("basic_auth needs a user, without a colon in the name, and a password")
        self._wanted = _digest(f"{user}:{password}".encode())

    def __repr__(self) -> str:
        return "<BasicAuth>"

    def __call__(self, asked: Asked) -> bool:
        """Whether the request carries them. Takes as long whatever it carries."""
        scheme, _, given = asked.headers.get("authorization", "").partition(" ")
        try:
            found = b64decode(given.strip(), validate=True) if scheme.lower() == "basic" else b""
        except ValueError:
            found = b""
        return compare_digest(_digest(found), self._wanted)


def basic_auth(user: str, password: str) -> Auth:
    """Return what to hand to ``auth=``: the browser asks for a name and a password.

    They travel in the clear, so only behind TLS or on loopback. Raises SettingsError for an empty one.
    """
    return BasicAuth(user, password)


def _digest(secret: bytes) -> bytes:
    """Return what secrets are compared by: of one length, so that none shows in how long that takes."""
    return sha256(secret).digest()


class _Authority(NamedTuple):
    name: str
    port: str

    @classmethod
    def of(cls, text: str) -> "_Authority | None":
        """Return what a Host names, None if that is not one sensible name."""
        match = _AUTHORITY.fullmatch(text.strip().lower())
        if match is None:
            return None
        name = match[1].removesuffix(".")
        return cls(name, match[2] or "") if name else None


class Guard:
    """``hosts``: names, besides those of the loopback interface, that the console may be addressed by; ``*``: any.

    ``auth``: asked before anything is answered; None: everybody may look. ``token``: None: nobody may steer.

    A request without a Host is answered over a unix socket only, where no browser asks.
    """

    def __init__(
        self,
        *,
        hosts: Iterable[str] = (),
        auth: Auth | None = None,
        token: str | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self._hosts = frozenset(_named(host) for host in hosts)
        self.auth = auth
        token = checked_token(token)
        self._token = None if token is None else _digest(token.encode())
        self._clock = clock
        self._logged_at: float | None = None
        self._unlogged = 0

    @property
    def steers(self) -> bool:
        """Whether there is a token at all."""
        return self._token is not None

    def refusal(self, asked: Asked) -> Answer | None:
        """Return why the request is not answered, or None if it is to be."""
        why = self._refusal(asked)
        if why is not None and asked.method not in {"GET", "HEAD"}:
            self._log_refusal(asked, why)
        return why

    def _refusal(self, asked: Asked) -> Answer | None:
        if not self._is_known(asked):
            return plain(403, "this console does not answer to that Host; allow it with hosts=, or --allow-host")
        if self.auth is not None and not self.auth(asked):
            return plain(401, "who are you?", ("WWW-Authenticate", 'Basic realm="groundfault", charset="UTF-8"'))
        if asked.method in {"GET", "HEAD"}:
            return None
        return self._no_writing(asked)

    def _no_writing(self, asked: Asked) -> Answer | None:  # noqa: PLR0911  one line for each rule
        if asked.method != "POST":
            return plain(405, "use GET, or POST to steer", ("Allow", "GET, HEAD, POST"))
        origin = asked.headers.get("origin")
        if origin is not None and not _is_same(origin, asked.headers.get("host", "")):
            return plain(403, "the Origin must be this console's own")
        if asked.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            return plain(403, "the page that asks must be this console's own")
        if asked.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            return plain(415, f"the Content-Type must be {JSON}")
        if self._token is None:
            return plain(403, "this console is read-only: it was started without a token")
        given = asked.headers.get(wire.TOKEN.lower(), "")
        if not compare_digest(_digest(given.encode("utf-8", "replace")), self._token):
            return plain(403, f"the token in {wire.TOKEN} is missing or another")
        return None

    def _is_known(self, asked: Asked) -> bool:
        host = asked.headers.get("host", "")
        if not host:
            return asked.unix
        authority = _Authority.of(host)
        if authority is None:
            return False
        return "*" in self._hosts or authority.name in self._hosts or bool(_LOOPBACK.fullmatch(authority.name))

    def _log_refusal(self, asked: Asked, why: Answer) -> None:
        """Log, once in a while, who was not let write. What it carried for a token is not shown."""
        now = self._clock()
        if self._logged_at is not None and now - self._logged_at < _LOG_INTERVAL_S:
            self._unlogged += 1
            return
        more, self._unlogged, self._logged_at = self._unlogged, 0, now
        shown = [asked.headers.get(name, "")[:_MAX_SHOWN] for name in ("host", "origin", "content-type")]
        _log.warning(
            "console: a change was refused with %d: %s (%r, Host %r, Origin %r, Content-Type %r; %d more before)",
            why.status,
            why.body.decode().rstrip(),
            asked.method[:_MAX_SHOWN],
            *shown,
            more,
        )


def _named(host: str) -> str:
    """Return a name as it is compared. Raises SettingsError if it is none."""
    if host == "*":
        return host
    authority = _Authority.of(f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host)
    if authority is None:
        raise SettingsError(f"hosts must hold names such as console.example.com, or *, not {host!r}")
    return authority.name


def _is_same(origin: str, host: str) -> bool:
    """Whether a page from there is this console's own, by what it was addressed by."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.scheme not in _PORTS or parts.path or parts.query or parts.fragment:
        return False
    theirs, ours = _Authority.of(parts.netloc), _Authority.of(host)
    if theirs is None or ours is None or theirs.name != ours.name:
        return False
    usual = _PORTS[parts.scheme]
    # A server behind one that speaks TLS does not know its own scheme, so what is usual is that of the page.
    return (theirs.port or usual) == (ours.port or usual)
