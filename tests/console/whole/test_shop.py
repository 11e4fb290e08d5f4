"""The whole of it: a real shop under gunicorn, a crowd, and an engineer's browser on its page."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import sleep
from urllib.parse import urlsplit

import pytest

from groundfault._clock import monotonic
from groundfault.lab.processes import free_port

pytestmark = pytest.mark.e2e

TOKEN = "a-token-of-this-test-alone"  # noqa: S105  opens nothing else
FANS = 40
"""Fans who ask again as soon as they have an answer: ten times what two workers of two threads do at once."""


@pytest.fixture
def shop(tmp_path):
    """Run the shop, and give its address."""
    port = free_port()
    environment = {
        **os.environ,
        "GROUNDFAULT_RUN_DIR": str(tmp_path / "run"),
        "GROUNDFAULT_SETTINGS": f"sqlite:///{tmp_path / 'settings.db'}",
        "GROUNDFAULT_CONSOLE_TOKEN": TOKEN,
    }
    options = ["--workers=2", "--worker-class=gthread", "--threads=2", "--graceful-timeout=1", "--no-control-socket"]
    command = [sys.executable, "-m", "gunicorn", f"--bind=127.0.0.1:{port}", *options, "shop:app"]
    log = tmp_path / "gunicorn.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parent, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        until(lambda: asked(port, "/groundfault/snapshot.json")[0] == 200, f"the shop answers; {log}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def until(happens, what, *, within_s=30.0):
    give_up = monotonic() + within_s
    while not happens():
        assert monotonic() < give_up, what
        sleep(0.1)


def asked(port, path, method="GET", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


class Crowd:
    """Asks until it leaves."""

    def __init__(self, port, how_many):
        self._port, self._left = port, threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(how_many)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_):
        self._left.set()
        for thread in self._threads:
            thread.join(10)

    def _ask(self):
        while not self._left.is_set():
            asked(self._port, "/")


def view(port):
    return json.loads(asked(port, "/groundfault/snapshot.json")[1])


def test_an_engineer_sees_a_spike_changes_a_setting_and_loses_a_worker(shop, browser):
    port = urlsplit(shop).port
    page = browser.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{shop}/groundfault")  # without the slash, as people type it
    assert page.url.endswith("/groundfault/")

    with Crowd(port, FANS):  # a spike shows up
        page.locator(".tile", has_text="wallet").wait_for(timeout=30_000)
        page.locator("#headline", has_text="sheds").wait_for(timeout=30_000)
        until(lambda: view(port)["headline"]["shed_share"] > 0.05, "and how much")
        until(lambda: view(port)["commands"][0]["counts"]["success"] > 20, "while others are served")

        # a setting changes behavior, by the page itself
        page.locator(".tile", has_text="wallet").get_by_role("button", name="Tune").click()
        dialog = page.locator("dialog[open]")
        dialog.wait_for(timeout=10_000)
        dialog.get_by_label("Setting", exact=False).first.select_option("max_concurrent")
        dialog.get_by_label("Value", exact=False).first.fill("1")
        dialog.get_by_label("Reason", exact=False).first.fill("the wallet is slow")
        dialog.get_by_label("Token", exact=False).first.fill(TOKEN)
        dialog.get_by_role("button", name="Preview").click()
        apply = dialog.get_by_role("button", name="Apply")
        until(apply.is_enabled, "the preview is there")
        apply.click()
        until(lambda: view(port)["commands"][0]["counts"].get("bulkhead-full", 0) > 0, "one at a time in each process")
        until(lambda: view(port)["commands"][0]["limit"] == 2, "so in both")
    assert any(each["kind"] == "settings" for each in view(port)["timeline"])
    made = page.locator("#timeline li", has_text="in force", has=page.get_by_text("the wallet is slow"))
    made.first.wait_for(timeout=10_000)  # who reads the incident back sees who did what, and why

    # a worker that is killed ages out, and its totals stay
    pids = {each["pid"] for each in view(port)["processes"]}
    os.kill(min(pids), signal.SIGKILL)
    until(lambda: min(pids) not in {each["pid"] for each in view(port)["processes"]}, "it is gone from the page")
    until(lambda: any(each["kind"] == "process" for each in view(port)["timeline"]), "and the page says so")

    # who may not steer
    change = json.dumps({"changes": [], "reason": "no", "based_on": "0"}).encode()
    kind = {"Content_Type": "application/json"}
    wrong = asked(port, "/groundfault/settings/change", "POST", change, X_GroundFault_Token="x" * 20, **kind)
    assert wrong[0] == 403
    right = {"X_GroundFault_Token": TOKEN, **kind}
    assert asked(port, "/groundfault/settings/change", "POST", change, Origin="http://evil.test", **right)[0] == 403
    assert asked(port, "/groundfault/snapshot.json", Host="evil.test")[0] == 403
    assert complaints == []
    page.close()
