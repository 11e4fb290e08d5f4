"""A real browser that looks at the page, as a console serves it."""

from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from serving import Served, packed

from groundfault._clock import monotonic, wall
from groundfault.console.bundling import scripts
from groundfault.console.pages import LATER, SCRIPT

AXE = Path(__file__).parent.parent / "node_modules" / "axe-core" / "axe.min.js"
WIDE = {"width": 1440, "height": 900}
PATIENCE_MS = 15_000
LISTEN = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.blockedURI));
"""


def _with(others: dict[str, str]) -> str:
    """Return the page's script with some of its modules replaced."""
    place = files("groundfault.console") / "page"

    def source(module: str) -> str:
        name = f"{module}.js"
        return others[name] if name in others else (place / name).read_text(encoding="utf-8")

    return scripts("main", source, as_file=SCRIPT, later=LATER)[0]


def _instead(source: str) -> Callable[[Any], None]:
    return lambda route: route.fulfill(body=source, content_type="text/javascript")


class Shown:
    """A page that shows a view; another one can be put in its place.

    ``view``: a callable instead of a view is asked at each look, and may raise. ``problems``: what the browser
    complained about. ``beyond``: requests to anything but the console.
    """

    def __init__(
        self, browser: Any, view: Any, *, scripts: dict[str, str], served: dict[str, Any], **context: Any
    ) -> None:
        self.problems: list[str] = []
        self.beyond: list[str] = []
        self._sequence = 0
        self.look_up: Callable[[], bytes] = bytes
        self.served = Served(self._newest, **served)
        self.served.__enter__()
        self.prepare(view)
        self._context = browser.new_context(**{"viewport": WIDE, **context})
        self.page = page = self._context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._complained)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith(self.served.url) or self.beyond.append(asked.url))
        page.add_init_script(LISTEN)
        if scripts:
            page.route(f"**/page/{SCRIPT}", _instead(_with(scripts)))

    def open(self, hash: str = "") -> "Shown":  # noqa: A002  the address's own word
        """Load the page, and wait until it has drawn the view."""
        self.page.goto(self.served.url + hash)
        self.page.wait_for_selector("body[data-drawn]", state="attached")
        return self

    def _newest(self) -> bytes:
        return self.look_up()

    def prepare(self, view: Any) -> None:
        if callable(view):
            self.look_up = view
            return
        self._sequence += 1
        if isinstance(view, dict) and view:
            view = {**view, "sequence": self._sequence, "made_at": wall()}
        body = packed(view)
        self.look_up = lambda: body

    def put(self, view: Any) -> None:
        """Show another view from now on; wait until it is drawn."""
        self.prepare(view)
        self.look()
        self.page.wait_for_selector(f'body[data-drawn="{self._sequence}"]', state="attached")

    def _complained(self, said: Any) -> None:
        # No store of settings is none of the page's troubles, but the browser notes every 404.
        if said.type in {"error", "warning"} and not said.location["url"].endswith("/settings.json"):
            self.problems.append(said.text)

    def until(self, expression: str) -> None:
        """Wait until an expression is true in the page; its policy forbids Playwright's own way of waiting."""
        end = monotonic() + PATIENCE_MS / 1000
        while not self.page.evaluate(expression):
            assert monotonic() < end, f"never true: {expression}"
            self.page.wait_for_timeout(50)

    def look(self) -> None:
        """Let the page ask at once, as it does when its tab is looked at."""
        self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    def texts(self, selector: str) -> list[str]:
        """Return the texts of what a selector finds, in the window or beyond it."""
        return self.page.locator(selector).all_text_contents()

    def accessibility(self) -> list[str]:
        """Return what axe-core has against the page, each with the first place."""
        if not AXE.exists():
            pytest.skip("axe-core is not installed: npm install --prefix tests/console axe-core")
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{each['id']}: {each['nodes'][0]['html']} {each['nodes'][0]['failureSummary']}"
            for each in found["violations"]
        ]

    def overflows(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def close(self) -> None:
        """Close all, and hold that the policy forbade nothing, because nothing forbidden was tried."""
        violations = self.page.evaluate("window.violations")
        self._context.close()
        self.served.stop()
        assert violations == []
        assert self.beyond == []


@pytest.fixture
def page_of(browser: Any) -> Iterator[Callable[..., Shown]]:
    """Return a callable that opens the page with a view: ``page_of(view, hash="#q=saber", color_scheme="dark")``.

    Whatever the page tries that its policy forbids, any request to elsewhere, and, unless ``tolerate`` says that they
    are wanted, any error in the browser's console, fails the test.
    """
    opened: list[tuple[Shown, bool]] = []

    def open_page(
        view: Any,
        *,
        hash: str = "",  # noqa: A002  the address's own word
        tolerate: bool = False,
        scripts: dict[str, str] | None = None,
        served: dict[str, Any] | None = None,
        before: str = "",
        **context: Any,
    ) -> Shown:
        shown = Shown(browser, view, scripts=scripts or {}, served=served or {}, **context)
        opened.append((shown, tolerate))
        if before:
            shown.page.add_init_script(before)
        return shown.open(hash)

    yield open_page
    for shown, _ in opened:
        shown.close()
    for shown, tolerated in opened:
        assert tolerated or shown.problems == []
