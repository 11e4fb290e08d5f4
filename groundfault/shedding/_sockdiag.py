"""What the kernel tells of sockets that are not at hand, by NETLINK_SOCK_DIAG: no privilege is needed. Linux only.

Two questions: TCP_INFO of a connection named by its two addresses, for servers written in another language,
and how full the queue in front of a listening port is. Each is one message and its answer, without waiting:
the kernel answers within the system call. 3 to 10 µs for a connection; a listener costs a walk over all of them.
"""

import errno
import os
import socket
from functools import lru_cache
from struct import Struct
from struct import error as struct_error
from threading import Lock
from typing import Any, ClassVar, Final, NamedTuple

__all__ = ["Accepting", "Address", "SockDiag", "TcpByName", "sock_diag", "towards"]

Address = tuple[str, int]

_NETLINK: Final = getattr(socket, "AF_NETLINK", None)
_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG; also NETLINK_INET_DIAG
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_ERROR: Final = 2  # NLMSG_ERROR
_REQUEST, _DUMP = 0x1, 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_INFO: Final = 2  # INET_DIAG_INFO, which is struct tcp_info
_LISTEN: Final = 1 << 10
_ANY_STATE: Final = 0xFFFFFFFF

_HEADER: Final = Struct("=IHHII")  # struct nlmsghdr
_ASK: Final = Struct("=BBBBI")  # struct inet_diag_req_v2, up to its id
_PORTS: Final = Struct("!HH")
_PORT: Final = Struct("!H")
_REST_OF_ID: Final = Struct("=III")  # interface and cookie: any
_NO_COOKIE: Final = _REST_OF_ID.pack(0, 0xFFFFFFFF, 0xFFFFFFFF)
_QUEUES: Final = Struct("=4xH46xIIII")  # of struct inet_diag_msg: source port; expires, rqueue, wqueue, uid
_DPORT_AT: Final = slice(_HEADER.size + 6, _HEADER.size + 8)
_ATTRIBUTES_AT: Final = _HEADER.size + 72
_ATTRIBUTE: Final = Struct("=HH")
_BUFFER: Final = 32_768
_DISCARD: Final = 9  # any port will do


class Accepting(NamedTuple):
    """One listening socket: how many connections wait to be accepted, and how many may."""

    depth: int
    limit: int


class SockDiag:
    """One netlink socket, made when it is first needed and again in the child of a fork. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._socket: socket.socket | None = None
        self._number = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Leave the parent's socket to it: answers to both would be mixed up."""
        self._lock = Lock()
        self._socket = None

    def tcp_info(self, local: Address, remote: Address) -> bytes:
        """Return ``struct tcp_info`` of the connection between two addresses of this network namespace.

        Raises OSError: ENOENT where there is no such connection; whatever else where the kernel cannot be asked.
        """
        family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
        ends = b"".join(socket.inet_pton(family, host).ljust(16, b"\0") for host, _ in (local, remote))
        name = _PORTS.pack(local[1], remote[1]) + ends + _NO_COOKIE
        with self._lock:
            self._send(_REQUEST, _ASK.pack(family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, _ANY_STATE) + name)
            answer = self._receive()
        if answer[_DPORT_AT] != _PORT.pack(
            remote[1]
        ):  # the kernel finds a listening socket for whatever does not exist
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        at = _ATTRIBUTES_AT
        while at + _ATTRIBUTE.size <= len(answer):
            length, kind = _ATTRIBUTE.unpack_from(answer, at)
            if kind == _INFO:
                return answer[at + _ATTRIBUTE.size : at + length]
            at += max((length + 3) & ~3, _ATTRIBUTE.size)
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))

    def accepting(self, port: int) -> list[Accepting]:
        """Return the listening sockets of a port in this network namespace; raises OSError."""
        found = []
        with self._lock:
            for family in (socket.AF_INET, socket.AF_INET6):
                name = _PORTS.pack(port, 0) + bytes(32) + _NO_COOKIE
                self._send(_REQUEST | _DUMP, _ASK.pack(family, socket.IPPROTO_TCP, 0, 0, _LISTEN) + name)
                while True:
                    answer = self._receive()
                    more = _listeners(answer, port)
                    found += more[0]
                    if more[1]:
                        break
        return found

    def _send(self, flags: int, body: bytes) -> None:
        if _NETLINK is None:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        if self._socket is None:
            self._socket = socket.socket(_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)
            self._socket.setblocking(False)  # noqa: FBT003  the name of the standard library
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, flags, self._number, 0) + body)

    def _receive(self) -> bytes:
        """Return one answer to the question asked last; older ones, left by a failure, are skipped."""
        while True:
            answer = self._socket.recv(_BUFFER) if self._socket is not None else b""
            try:
                _, kind, _, number, _ = _HEADER.unpack_from(answer)
                if number != self._number:
                    continue
                code = int.from_bytes(answer[16:20], "little", signed=True) if kind == _ERROR else 0
            except struct_error:
                raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG)) from None
            if code:
                raise OSError(-code, os.strerror(-code))
            return answer


def _listeners(answer: bytes, port: int) -> tuple[list[Accepting], bool]:
    """Return what one datagram of a dump holds, and whether it was the last."""
    found: list[Accepting] = []
    at = 0
    while at + _HEADER.size <= len(answer):
        length, kind, *_ = _HEADER.unpack_from(answer, at)
        if kind != _BY_FAMILY or at + _ATTRIBUTES_AT > len(answer) or length < _ATTRIBUTES_AT:  # NLMSG_DONE usually
            return found, True
        number, _, depth, limit, _ = _QUEUES.unpack_from(answer, at + _HEADER.size)
        if socket.ntohs(number) == port:
            found.append(Accepting(depth, limit))
        at += (length + 3) & ~3
    return found, False


sock_diag: Final = SockDiag()
"""The process's one."""


@lru_cache(maxsize=1024)  # hosts; 10 µs each
def towards(host: str) -> str:
    """Return the address that this machine has towards another, as its routes say; raises OSError. Nothing is sent.

    A server bound to all addresses names none as its end of a connection; this one it is, but on a machine with
    several on the same way.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((host, _DISCARD))
        return str(asking.getsockname()[0])


class TcpByName:
    """Stands in the place of a socket that is out of reach: knows it by its two addresses."""

    __slots__ = ("_local", "_remote", "family")

    is_possible: ClassVar[bool] = _NETLINK is not None

    def __init__(self, local: Address, remote: Address) -> None:
        self._local = local
        self._remote = remote
        self.family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET

    def getsockopt(self, _level: int, _option: Any, _length: int) -> bytes:
        """Return ``struct tcp_info``, the only option there is; raises OSError."""
        return sock_diag.tcp_info(self._local, self._remote)

    def getpeername(self) -> Address:
        """Return the address at the other end, if there is such a connection at all; raises OSError otherwise."""
        sock_diag.tcp_info(self._local, self._remote)
        return self._remote

    def getsockname(self) -> Address:
        """Return the address at this end."""
        return self._local
