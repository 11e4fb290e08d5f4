"""The decision in front of gunicorn's parser: whom to ask, what to read, and the bytes of a refusal."""

import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from random import random
from struct import Struct
from struct import error as StructError  # noqa: N812  a class, whatever its name
from threading import local
from typing import TYPE_CHECKING, Any, Final

from gunicorn import SERVER
from gunicorn.util import http_date

from groundfault import wire
from groundfault._clock import monotonic
from groundfault.shedding._connection import connection_of_wsgi
from groundfault.shedding._head import CHUNKED, Form, Limits, noting, read_head, read_plainest
from groundfault.shedding._listener import note_listener
from groundfault.shedding._request import HINTS, VISIT, Visit, arrive, refuse_outright, retry_after
from groundfault.shedding._rules import Rules
from groundfault.shedding._socket import Connection, read, self_test
from groundfault.shedding._wait import Bracket
from groundfault.shedding.shedder import Shedder, live_shedders
from groundfault.shedding.wsgi import WSGILoadShedder
from groundfault.vocabulary import Reason

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Answer", "Gate", "is_read_to_end", "limits_of"]

CLEAR_S: Final = 0.002
"""A wait up to this is none: the control law admits it whatever happens, so the parser may have it at once."""
_PEEKED: Final = 8192  # gunicorn's own first read; a longer head is left to it
_NOW: Final = socket.MSG_PEEK | socket.MSG_DONTWAIT

# Of struct tcp_info: tcpi_last_data_sent and tcpi_last_data_recv, in ms. Only whether a closer look is worth while.
_WAITS: Final = Struct("=44xI4xI")
_TCP_INFO: Final = getattr(socket, "TCP_INFO", 0)

_FOLDED_HINTS: Final = frozenset(map(str.lower, HINTS))
_ATTRIBUTE: Final = "groundfault_connection"
_MAX_ANSWERS: Final = 256

_DEFAULT_LINE: Final = 8190  # gunicorn's MAX_REQUEST_LINE and DEFAULT_MAX_HEADERFIELD_SIZE, for 0 and beyond
_DEFAULT_FIELDS: Final = 32_768


Answer = tuple[bytes, int, bool, bool]
"""A refusal: what to send, how many bytes its request takes up in the socket's buffer, all of them there; whether it is
whole and nothing else is there, so that the connection may be closed at once; and whether the connection is kept.

Without names, and so without a microsecond of each refusal.
"""


def limits_of(cfg: Any) -> Limits:
    """Return what this configuration of gunicorn allows of a request's head."""
    line = cfg.limit_request_line
    fields = cfg.limit_request_fields
    field = cfg.limit_request_field_size
    # Two that differ about the scheme are an error of the client's.
    single = frozenset({"host", "content-type", *map(str.lower, cfg.secure_scheme_headers)})
    return Limits(
        line=line if 0 < line < _DEFAULT_LINE else _DEFAULT_LINE,
        fields=fields if 0 < fields < _DEFAULT_FIELDS else _DEFAULT_FIELDS,
        field=field if field > 0 else _DEFAULT_LINE,
        single=single,
        hints=_FOLDED_HINTS,
        noted=noting(single | _FOLDED_HINTS),
        prefix=os.environ.get("SCRIPT_NAME", "").encode("latin-1", "replace"),
    )


def _is_plain(cfg: Any) -> bool:
    """Return whether what comes over the sockets is HTTP/1 from its first byte on."""
    if cfg.is_ssl or getattr(cfg, "protocol", "http") != "http" or "h2" in getattr(cfg, "http_protocols", ()):
        return False
    return cfg.proxy_protocol in {False, "off"}  # a flag up to gunicorn 24, a mode since


class Gate:
    """Decides for one worker. ``look`` may be called from any of its threads.

    ``threads``: it serves several requests of a connection.
    ``shedder``: the application's, or that of its outermost middleware where that can be seen; None where there are
    several otherwise, and each middleware decides for itself.
    """

    def __init__(self, worker: Any, *, threads: bool) -> None:
        self._log = worker.log
        self._threads = threads
        self._cfg = worker.cfg
        self._limits = limits_of(worker.cfg)
        self._handed = local()
        self.shedder: Shedder | None = None
        self.is_plain = sys.platform == "linux" and _is_plain(worker.cfg)
        self.draining = False
        self._waiting = False  # the last reading showed a wait: then the bytes are worth a look first
        self._refused: Counter[Reason] = Counter()
        self._refused_since = 0.0
        self._second = -1
        self._date = ""
        self._answers: dict[_Whole, bytes] = {}  # of this second

    def around(self, app: "WSGIApplication") -> "WSGIApplication":
        """Find the application's shedder, or protect it with one of our own, and hand over what is decided here."""
        self._limits = limits_of(self._cfg)  # by now the worker has the environment that its configuration gives it
        shedders = live_shedders()
        if not shedders:
            app = WSGILoadShedder(app)
        if isinstance(app, WSGILoadShedder):
            self.shedder = app.shedder
        elif len(shedders) == 1:
            self.shedder = shedders[0]
        else:
            self._log.info("groundfault: %d shedders in one application; each decides behind the parser", len(shedders))
        self_test.start()
        return _HandingOver(app, self._handed)

    def drain(self) -> None:
        """Let every shedder of the application refuse what comes from now on."""
        self.draining = True
        for shedder in live_shedders():
            shedder.drain()

    def look(self, sock: Any, addr: Any, conn: Any = None, *, may_keep: Callable[[], bool] | None = None) -> "_Verdict":
        """Decide about the request whose first bytes lie on ``sock``; None leaves it to the parser and the middleware.

        ``conn``: gunicorn's own object for a connection that may have served requests before.
        ``may_keep``: asked whether the connection may be kept after a refusal; None: it is closed.
        Nothing is consumed. Never raises. An admitted one has to be handed over (:meth:`hand_over`).
        """
        shedder = self.shedder
        if shedder is None or not self.is_plain or shedder.bypassed:
            return None
        try:
            return self._decide(shedder, sock, addr, conn, may_keep)
        except Exception as error:  # noqa: BLE001  an error of ours must not cost the request
            shedder.failed("gunicorn gate", error)
            return None

    def _decide(  # noqa: C901, PLR0911, PLR0912  one piece, because each call in it costs each refusal
        self, shedder: Shedder, sock: Any, addr: Any, conn: Any, may_keep: Callable[[], bool] | None
    ) -> "_Verdict":
        if not (self._waiting or self.draining) and _is_clear(sock):
            return None
        if conn is not None and not _is_between_requests(conn):
            return None
        # The bytes first and the reading after them: had they come in between, it would speak of the handshake.
        try:
            data = sock.recv(_PEEKED, _NOW)
        except OSError:  # nothing there yet, or reset
            return None
        reading = read(sock)
        self._waiting = isinstance(reading, Bracket) and reading.lower_s > CLEAR_S
        if not (self._waiting or self.draining):
            return None
        plainest, head, u = None, None, None
        if len(data) < _PEEKED and shedder.is_refusing(on_loop=False):
            plainest = read_plainest(data, self._limits)
        if plainest is None:
            head = read_head(data, self._limits)
            if head is None:
                return None
        if conn is None:
            note_listener(sock)
        else:  # what came before counts; asked only now, because the middleware would ask again after a None
            reading = self._kept(sock, conn).read()
        if plainest is not None:
            path, keeps, form = plainest
            u = random()
            reason = refuse_outright(shedder, "", path, reading, u, on_loop=False)
            if reason is not None:
                keeps = keeps and may_keep is not None and may_keep()
                return self._bytes(shedder.rules, reason, form, keep=keeps), len(data), True, keeps
            head = read_head(data, self._limits)
        if head is None:
            return None
        peer = addr[0] if isinstance(addr, tuple) else None
        visit = arrive(
            shedder,
            method=head.method,
            path=head.path,
            headers=head,
            hinted=head.hinted,
            peer=peer,
            via=peer,
            reading=reading,
            on_loop=False,
            u=u,
        )
        if visit.reason is None or not visit.refused:
            return visit
        whole = head.body != CHUNKED and head.size + head.body == len(data) < _PEEKED
        keeps = whole and head.keeps and may_keep is not None and may_keep()
        form = (head.method == "HEAD", head.minor, head.get("Accept"))
        return self._bytes(visit.rules, visit.reason, form, keep=keeps), len(data), whole, keeps

    def _kept(self, sock: Any, conn: Any) -> Connection:
        known = getattr(conn, _ATTRIBUTE, None)
        if isinstance(known, Connection):
            return known
        made = connection_of_wsgi({"gunicorn.socket": sock, "wsgi.multithread": True})
        with suppress(AttributeError):
            setattr(conn, _ATTRIBUTE, made)
        return made

    def hand_over(self, visit: Visit | None) -> None:
        """Give the next call of the application in this thread what has been decided about it; None takes it back."""
        self._handed.visit = visit

    def _bytes(self, rules: Rules, reason: Reason, form: Form, *, keep: bool) -> bytes:
        """Return the annotated 503, byte for byte what the middleware's becomes in gunicorn, and count it."""
        now = monotonic()
        second = int(now)
        if second != self._second:
            self._second = second
            self._date = http_date()
            self._answers = {}
        if not self._refused:
            self._refused_since = now
        self._refused[reason] += 1
        settings = rules.settings
        later = None if settings.retry_after_s is None else retry_after(rules, reason)  # drawn anew each time
        whole = (reason, settings.service, later, keep, form)
        known = self._answers.get(whole)
        if known is None:
            known = _bytes_of(whole, self._date)
            if len(self._answers) < _MAX_ANSWERS:
                self._answers[whole] = known
        return known

    def log_refusals(self, now: float, *, due_s: float = 0.0) -> None:
        """Say how many have been refused here, if the first of them was so long ago: they are in no access log."""
        since = now - self._refused_since
        if self._refused and since >= due_s:
            counted, self._refused = self._refused, Counter()
            by_reason = ", ".join(f"{count} {reason.value}" for reason, count in sorted(counted.items()))
            self._log.info("groundfault: refused %s before parsing, in %.0f s", by_reason, since)


class _HandingOver:
    """The application, given a decision that was made before the request was parsed."""

    def __init__(self, app: "WSGIApplication", handed: local) -> None:
        self._app = app
        self._handed = handed

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        visit = getattr(self._handed, "visit", None)
        if visit is not None:
            self._handed.visit = None
            environ[VISIT] = visit
        return self._app(environ, start_response)

    def __getattr__(self, name: str) -> Any:
        """Whatever else a hook of the user's looks for on ``worker.wsgi``."""
        if name == "_app":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self._app, name)


def _is_clear(sock: Any) -> bool:
    """Return whether what lies there has not waited, or nobody can say how long: one system call, no more."""
    try:
        sent_ms, recv_ms = _WAITS.unpack(sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _WAITS.size))
    except (OSError, StructError):  # a unix socket, or gone
        return True
    return bool(min(recv_ms, sent_ms) / 1e3 <= CLEAR_S)


_Verdict = Answer | Visit | None
_Whole = tuple[Reason, str, tuple[str, str] | None, bool, Form]
"""What an answer depends on, but for the date: reason, service, when to try again, whether it is kept, and its form."""


def _bytes_of(whole: _Whole, date: str) -> bytes:
    reason, service, later, keep, (head, minor, accept) = whole
    answer = wire.answer(reason, service, accept=accept, head=head)
    lines = [
        f"HTTP/1.{minor.decode()} {wire.SHED_STATUS} Service Unavailable",
        f"Server: {SERVER}",
        f"Date: {date}",
        f"Connection: {'keep-alive' if keep else 'close'}",
        *(f"{name}: {value}" for name, value in answer.headers),
        *(() if later is None else (": ".join(later),)),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body


def _is_between_requests(conn: Any) -> bool:
    """Return whether the next bytes on the socket begin a request: nothing of the last one is left anywhere."""
    parser = None if conn is None else conn.parser
    if parser is None:
        return True
    last = getattr(parser, "mesg", conn)
    if last is conn or parser.unreader.buf.getvalue():  # HTTP/2 keeps no message; or a pipelined request
        return False
    return last is None or (is_read_to_end(last) and not last.should_close())


def is_read_to_end(request: Any) -> bool:
    """Return whether no byte of this request can be left in the kernel or still be on its way."""
    try:
        reader, unreader = request.body.reader, request.unreader
        if hasattr(reader, "length"):
            # What the parser has read ahead is out of the kernel. More than the body is another request's.
            return bool(len(unreader.buf.getvalue()) == reader.length)
        return hasattr(reader, "req") and reader.parser is None and not unreader.buf.getvalue()  # chunked, to its end
    except AttributeError:  # HTTP/2, or a parser unknown here: then it is closed with care
        return False
