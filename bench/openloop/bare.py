"""The cheapest refusals Python can send: what a protection may cost at least. ``bare.py bare-sync|bare-loop PORT``."""

import asyncio
import contextlib
import socket
import sys

_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 5\r\nConnection: close\r\n\r\nbusy\n"
)


def sync(port: int) -> None:
    """Accept, read, send, close."""
    with socket.create_server(("127.0.0.1", port), backlog=2048) as listener:
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(8192)
                connection.sendall(_ANSWER)


class _Refusing(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:  # noqa: ARG002  asyncio's signature
        transport = self._transport
        if isinstance(transport, asyncio.Transport) or hasattr(transport, "write"):
            transport.write(_ANSWER)
            transport.close()


async def loop(port: int) -> None:
    """Do the same in an event loop's protocol."""
    server = await asyncio.get_running_loop().create_server(_Refusing, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "bare-sync":
        sync(int(sys.argv[2]))
    else:
        import uvloop

        uvloop.run(loop(int(sys.argv[2])))
