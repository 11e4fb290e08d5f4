"""What the console's page costs the browser: first paint, main thread at one view per second, and bytes.

    python bench/console_page.py [--commands N] [--seconds S] [--spike] [--json]

Chromium opens the page from a loopback server that makes a new view each second, in which every number of every
command differs from the one before. First paint is the browser's own entry (``first-contentful-paint``), the smallest
of several loads, for noise only adds; main-thread time is ``TaskDuration`` of the DevTools protocol over the seconds
that were watched, once with the page at its top and once while somebody reads at its middle.
"""

import argparse
import gzip
import json
import sys
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from playwright.sync_api import Page, sync_playwright

from groundfault._clock import wall

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "console"))  # its files are no package

sample_view = import_module("sample_views").sample_view
Served = import_module("serving").Served


LOADS = 5


def moving(commands: int, *, spike: bool) -> Any:
    """Return a callable that makes the next view: the curves move on, and every number changes a little."""
    random = Random(3)
    view: Any = sample_view(commands, spike=spike, now=wall())
    full = gzip.compress(json.dumps(view).encode())
    made = 0.0

    def newest() -> bytes:
        nonlocal full, made
        if wall() - made < 0.9:
            return full
        made = wall()
        view["made_at"] = made
        view["sequence"] += 1
        for row in (view["headline"], *view["servers"], *view["commands"]):
            change = random.uniform(0.9, 1.1)
            row["rate_per_s"] *= change
            if view["sequence"] % 2 == 0:  # a point is two seconds
                for name in ("spark", "bad"):
                    row[name] = [*row[name][1:], row[name][-1] * change]
        for row in view["commands"]:
            row["counts"] = {name: number + random.randrange(9) for name, number in row["counts"].items()}
            for name in ("p50_s", "p90_s", "p99_s"):
                row[name] *= random.uniform(0.95, 1.05)
            row["in_flight"] = random.randrange(row["limit"] or 9)
        full = gzip.compress(json.dumps(view).encode())
        return full

    return newest


def first_paint_ms(page: Page, url: str) -> float:
    """Return the time from navigation to the first contentful paint."""
    page.goto(url)
    page.wait_for_selector("body[data-drawn]")
    return float(
        page.evaluate(
            "performance.getEntriesByType('paint').find((e) => e.name === 'first-contentful-paint').startTime"
        )
    )


def main_thread(page: Page, seconds: float) -> dict[str, float]:
    """Return the share of one core that each kind of work on the main thread took."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def read() -> dict[str, float]:
        return {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}

    page.wait_for_timeout(2000)
    before = read()
    page.wait_for_timeout(seconds * 1000)
    after = read()
    span = after["Timestamp"] - before["Timestamp"]
    kinds = ("TaskDuration", "ScriptDuration", "LayoutDuration", "RecalcStyleDuration")
    return {kind: round((after[kind] - before[kind]) / span, 4) for kind in kinds} | {
        "JSHeapUsedMB": round(after["JSHeapUsedSize"] / 1e6, 1),
        "Nodes": after["Nodes"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--commands", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--spike", action="store_true")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with Served(moving(chosen.commands, spike=chosen.spike)) as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        found: dict[str, Any] = {"commands": chosen.commands, "spike": chosen.spike}
        paints = []
        for _ in range(LOADS):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            paints.append(first_paint_ms(page, served.url))
            page.close()
        found["first_paint_ms"] = round(min(paints), 1)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        first_paint_ms(page, served.url)
        found["at the top"] = main_thread(page, chosen.seconds)
        page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
        found["in the middle"] = main_thread(page, chosen.seconds)
        found["compressed_bytes"] = served.sizes()
        found["compressed_bytes_total"] = sum(found["compressed_bytes"].values())
        browser.close()
    if chosen.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
