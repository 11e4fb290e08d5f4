"""What posts to a webhook: little of what urllib would do by itself, and an answer has an end in time."""

import socket
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from io import BufferedReader, RawIOBase
from typing import Any
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
)

from groundfault._clock import monotonic

__all__ = ["opener_of"]


def opener_of(*, proxies: bool) -> OpenerDirector:
    """Return what posts: without files, redirects, cookies and whatever else urllib would do."""
    opener = OpenerDirector()
    for handler in (
        *((ProxyHandler(),) if proxies else ()),
        _PlainHandler(),
        _SecureHandler(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


class _Bounded(RawIOBase):
    """Reads from a socket for as long in all as the socket would otherwise wait for each piece."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rb", buffering=0)  # it holds the socket open
        wait_s = sock.gettimeout()
        self._until = None if wait_s is None else monotonic() + wait_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._until is not None:
            left_s = self._until - monotonic()
            if left_s <= 0.0:
                raise TimeoutError("the answer takes too long")
            self._sock.settimeout(left_s)
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Answer(HTTPResponse):
    """One that comes byte by byte would hold up all later alerts: each byte is in time by itself."""

    def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp.close()
        self.fp = BufferedReader(_Bounded(sock))


class _PlainConnection(HTTPConnection):
    response_class = _Answer


class _SecureConnection(HTTPSConnection):
    response_class = _Answer


class _PlainHandler(HTTPHandler):
    def do_open(self, http_class: Any, req: Any, **http_conn_args: Any) -> HTTPResponse:
        del http_class  # its answers have no end in time
        return super().do_open(_PlainConnection, req, **http_conn_args)


class _SecureHandler(HTTPSHandler):
    def do_open(self, http_class: Any, req: Any, **http_conn_args: Any) -> HTTPResponse:
        del http_class  # as above
        return super().do_open(_SecureConnection, req, **http_conn_args)
