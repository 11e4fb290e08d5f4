"""The real page on loopback over a store in memory, with a view that a test can bend; and Debian's Chromium."""

import importlib.util
import json
import threading
from gzip import compress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from groundfault.console.answering import Console
from groundfault.console.asking import Asked
from groundfault.console.guarding import Guard
from groundfault.console.steering import Steering
from groundfault.settings.memory import MemoryStore

_HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("sample_views", _HERE.parent / "sample_views.py")
sample_views = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sample_views)

TOKEN = "correct-horse-battery"  # noqa: S105  of the tests alone
SETTINGS = {
    "*": {"failure_threshold": 0.4, "server.deadline_s": 0.8},
    "topps/contest-db": {"timeout_s": 0.5},
}


class Desk:
    """A console, its store, and the view: ``behind`` of its eight processes still run what was there before."""

    def __init__(self, *, steers=True, token=TOKEN, settings=SETTINGS):
        self.store = MemoryStore(settings)
        self.behind = 0
        self.view = sample_views.sample_view(40)
        self.console = Console(
            self._shown,
            guard=Guard(token=token),
            steers=Steering(self.store, reports=list) if steers else None,
        )
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.console))
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def _shown(self):
        version = self.store.load(None).version
        old = str(max(1, int(version) - 1))
        versions = {version: 8 - self.behind, old: self.behind} if self.behind else {version: 8}
        row = self.view["stores"][0]
        row |= {"store": self.store.name, "newest": version, "versions": versions, "behind": self.behind, "lag_s": 1.4}
        for at, each in enumerate(self.view["processes"]):
            each["versions"] = {self.store.name: old if at < self.behind else version}
        self.view["sequence"] += 1
        return compress(json.dumps(self.view).encode(), 1)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


def _handler(console):
    class Handler(BaseHTTPRequestHandler):
        def _answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, given, content = console.answer(Asked(self.command, self.path, headers, body))
            self.send_response(status)
            for pair in given:
                self.send_header(*pair)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815  as http.server calls them

        def log_message(self, *_):
            pass

    return Handler


@pytest.fixture
def desk_of():
    """Return a function that opens a desk."""
    made = []

    def make(**options):
        made.append(Desk(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def page_at(browser):
    """Return a function that opens the page of a desk; nothing on it may have gone wrong in the end."""
    contexts, complaints = [], []

    def open_page(desk, **options):
        context = browser.new_context(viewport={"width": 1200, "height": 900}, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if _is_breach(said.text) else None)
        page.on("dialog", lambda dialog: complaints.append(f"executed: {dialog.message}"))
        page.goto(desk.url)
        page.wait_for_selector("#settings .stores li")
        return page

    yield open_page
    for each in contexts:
        each.close()
    assert complaints == []


def _is_breach(text):
    return "Content Security" in text and "/icon" not in text  # the icon is not this panel's


@pytest.fixture
def axe():
    """Return axe-core's script."""
    places = [_HERE.parent / "node_modules/axe-core/axe.min.js", Path("/tmp/axe/node_modules/axe-core/axe.min.js")]  # noqa: S108
    found = next((place for place in places if place.exists()), None)
    if found is None:
        pytest.skip("axe-core is not installed in tests/console/node_modules")
    return found.read_text()
