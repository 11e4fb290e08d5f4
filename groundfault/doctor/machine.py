"""What this machine can tell about waiting requests, whatever server runs on it."""

import os
import platform
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from groundfault.shedding._listener import overflows
from groundfault.shedding._sockdiag import sock_diag
from groundfault.shedding._socket import SelfTest

__all__ = ["Machine", "examine"]

_PREFIX: Final = "GROUNDFAULT_"
_PASSWORD: Final = re.compile(r"(://[^/@:]*:)[^/@]*@")  # within an address, as of a settings store
_SECRET: Final = ("SALT", "KEY", "TOKEN", "PASSWORD", "SECRET")


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts, in the order in which they are shown. ``None`` where this system does not say.

    ``tick_s``: the resolution of the kernel's word on a wait, as measured. ``self_test``: why it cannot be trusted.
    ``sock_diag``: why it cannot be asked about connections by name.
    ``somaxconn``: how long an accept queue may be, whatever backlog a server asks for.
    ``overflows``: connections that found one full, in this network namespace since it was made.
    """

    system: str
    python: str
    tick_s: float | None
    self_test: str | None
    sock_diag: str | None
    somaxconn: int | None
    overflows: int | None
    environment: dict[str, str]


def examine() -> Machine:
    """Look at this machine; takes about a tenth of a second, and raises nothing."""
    test = SelfTest()
    test.run()
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        tick_s=test.tick_s,
        self_test=test.failure,
        sock_diag=_sock_diag(),
        somaxconn=_number(Path("/proc/sys/net/core/somaxconn")),
        overflows=overflows(),
        environment={
            name: "(hidden)" if any(word in name for word in _SECRET) else _PASSWORD.sub(r"\1***@", value)
            for name, value in sorted(os.environ.items())
            if name.startswith(_PREFIX)
        },
    )


def _sock_diag() -> str | None:
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
            client.connect(listener.getsockname())
            sock_diag.tcp_info(client.getsockname(), client.getpeername())
            return None if sock_diag.accepting(listener.getsockname()[1]) else "it shows no listening socket"
    except OSError as failure:
        return failure.strerror or "refused"


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
