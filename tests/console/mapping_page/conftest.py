"""A browser, and the console's page with a view that a test may change at will."""

import gzip
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from groundfault.console.answering import Console
from groundfault.console.asking import Asked
from groundfault.console.guarding import Guard

sys.path.extend(str(Path(__file__).parents[up]) for up in (0, 1))  # for the samples


class Served:
    """A page of the console in a browser. ``view``: what it gets when it asks next."""

    def __init__(self, context: Any) -> None:
        self.view: Any = {}
        self.errors: list[str] = []
        self._console = Console(lambda: gzip.compress(json.dumps(self.view).encode()), guard=Guard())
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.page = context.new_page()
        self.page.on("console", lambda said: self._is_ours(said) and self.errors.append(said.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    @staticmethod
    def _is_ours(said: Any) -> bool:
        return said.type in {"error", "warning"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        console = self._console

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, named, body = console.answer(Asked("GET", self.path, headers))
                self.send_response(status)
                for name, value in named:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class calls it so
                """Say nothing."""

        return Handler

    def look_at(self, view: Any) -> Any:
        """Open the page with a view; return the page."""
        self.view = view
        self.page.goto(f"http://127.0.0.1:{self._server.server_port}/")
        self.page.wait_for_selector("#map p:not(:empty)")
        self.page.wait_for_selector("#timeline p:not(:empty)")
        return self.page

    def hand(self, view: Any) -> None:
        """Hand the parts of the page a further view, without the second that it takes to ask for one."""
        self.view = view
        self.page.evaluate(
            """async (view) => {
                const { $map, $timeline } = await import("./page/console.js");
                for (const part of [$map, $timeline]) part.show(view);
            }""",
            view,
        )

    def close(self) -> None:
        """Take it all down."""
        self.page.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    made = browser.new_context(
        viewport={"width": 1440, "height": 900},
        timezone_id="Europe/Vienna",
        locale="en-GB",
        permissions=["clipboard-read", "clipboard-write"],
    )
    yield made
    made.close()


@pytest.fixture
def served(context: Any) -> Iterator[Served]:
    """Yield the page; at the end nothing may stand on the browser's console."""
    made = Served(context)
    yield made
    made.close()
    assert made.errors == []


@pytest.fixture
def axe() -> str:
    places = (
        Path(__file__).parents[1] / "node_modules",
        Path("/tmp/axe/node_modules"),  # noqa: S108  where a machine without a checkout of its own has it
    )
    for place in places:
        script = place / "axe-core" / "axe.min.js"
        if script.is_file():
            return script.read_text(encoding="utf-8")
    pytest.skip("axe-core is missing: npm install axe-core in tests/console")
