"""The console behind a server of the standard library, for a browser on this machine: its real answers and headers."""

import json
import threading
from collections.abc import Callable
from email.utils import formatdate
from gzip import compress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from groundfault._clock import wall
from groundfault.console.answering import Console
from groundfault.console.asking import Asked
from groundfault.console.guarding import Guard
from groundfault.console.pages import SCRIPT, STYLE


class Served:
    """Serves the page, and what ``view()`` returns at the time: JSON, compressed with gzip.

    ``shift_s``: by how much the clock of the server is ahead. ``events``: what ``/events`` sends, a piece at a time.
    """

    def __init__(
        self, view: Callable[[], bytes], *, live: str = "poll", events: Callable[[], Any] | None = None
    ) -> None:
        self.console = Console(view, guard=Guard(), live=live)
        self.asked: list[str] = []
        self.shift_s = 0.0
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.asked.append(self.path)
                if self.path == "/events" and events is not None:
                    self._stream(events())
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = served.console.answer(Asked("GET", self.path, headers))
                self.send_response_only(answer.status)
                self.send_header("Date", formatdate(served.now(), usegmt=True))
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def _stream(self, pieces: Any) -> None:
                self.send_response_only(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for name, value in pieces:
                    self.wfile.write(f"event: {name}\ndata: {json.dumps(value)}\n\n".encode())
                    self.wfile.flush()

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  the base class names it so
                """Keep the test's output to itself."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Browsers go away in the middle of an answer."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def now(self) -> float:
        """Return the time by the server's clock."""
        return wall() + self.shift_s

    def sizes(self) -> dict[str, int]:
        """Return the compressed size of each file that the page loads, as it is sent."""
        paths = {"/": "/", **{name: f"/page/{name}" for name in (SCRIPT, STYLE, "icon.svg")}}
        asked = {"host": "localhost", "accept-encoding": "gzip"}
        return {name: len(self.console.answer(Asked("GET", path, asked)).body) for name, path in paths.items()}

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self.stop()


def packed(view: Any) -> bytes:
    """Return a view as a console hands it out."""
    return compress(json.dumps(view).encode(), 1)
