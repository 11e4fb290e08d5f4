"""Views, the text of pictures, and a console that answers whatever a test says."""

import gzip
import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("sample_views", Path(__file__).parent.parent / "sample_views.py")
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)


@pytest.fixture
def sample():
    """Return what makes a view: ``sample(commands, spike=...)``."""
    return _MODULE.sample_view


class Answers:
    """A console on a port of its own. ``answer`` is given the handler, and does what a test wants of it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answer = lambda handler: self.send(handler, b"{}")

    def says(self, view, *, packed: bool = True, date: str | None = None) -> None:
        """Answer with that view."""
        body = json.dumps(view).encode()
        coding = {"Content-Encoding": "gzip"} if packed else {}
        dated = {"Date": date} if date else {}
        self.answer = lambda handler: self.send(handler, gzip.compress(body) if packed else body, **coding, **dated)

    @staticmethod
    def send(handler, body: bytes, status: int = 200, **headers: str) -> None:
        handler.send_response_only(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def console() -> Iterator[Answers]:
    """Return a console that listens on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answers.asked.append((self.path, dict(self.headers)))
            try:
                answers.answer(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        answers = Answers(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield answers
        finally:
            server.shutdown()
            thread.join()
