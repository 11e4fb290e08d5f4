"""The pages as a browser shows them: its own policy lets it be whole, nothing is too wide, and dark is dark."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_runs import fleet_run, spike_run

from groundfault.lab.reports.making import page_of

pytestmark = pytest.mark.e2e

CHROMIUM = Path("/usr/bin/chromium")
AXE = Path(__file__).parents[2] / "console" / "node_modules" / "axe-core" / "axe.min.js"
SMALLEST = """() => Math.min(...[...document.querySelectorAll(".plot text")]
  .filter((each) => each.checkVisibility())
  .map((each) => [parseFloat(getComputedStyle(each).fontSize), each.getScreenCTM()])
  .map(([size, scale]) => size * Math.hypot(scale.a, scale.b)))"""
SIZES = {"wide": {"width": 1280, "height": 800}, "phone": {"width": 360, "height": 740}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: apt-get install chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pages")
    runs = [spike_run(variant) for variant in ("groundfault", "plain-503", "unprotected")]
    names = [run.variant for run in runs]
    made = {"run": ([fleet_run()], ["x"], {}), "comparison": (runs, names, {names[2]: ["its seed is another"]})}
    for name, arguments in made.items():
        (directory / f"{name}.html").write_text(page_of(*arguments))
    return directory


@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [
        ("run", "phone", "dark"),
        ("run", "wide", "light"),
        ("comparison", "phone", "light"),
        ("comparison", "wide", "dark"),
    ],
)
def test_it_is_whole_fits_and_can_be_read(name, size, scheme, pages, browser):
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)
    page = context.new_page()
    problems, asked = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    address = (pages / f"{name}.html").as_uri()
    page.goto(address)
    assert problems == []
    assert asked == [address]
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(13, 17, 23)" if scheme == "dark" else "rgb(255, 255, 255)")
    shown = page.evaluate("document.querySelector('.plot .wide').checkVisibility()")
    assert shown is (size == "wide")
    smallest = page.evaluate(SMALLEST)
    assert smallest > 9  # pixels: what a phone's reader still reads
    ink = page.evaluate("getComputedStyle(document.querySelector('.plot text')).fill")
    assert ink == ("rgb(230, 237, 243)" if scheme == "dark" else "rgb(31, 35, 40)")
    context.close()


@pytest.mark.parametrize(("name", "scheme"), [("run", "light"), ("comparison", "dark")])
def test_axe_finds_no_barrier(name, scheme, pages, browser):
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm install --prefix tests/console axe-core")
    context = browser.new_context(viewport=SIZES["wide"], color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto((pages / f"{name}.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found["violations"]] == []
    context.close()
