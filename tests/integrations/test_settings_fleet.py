"""A change in a store, and when it is in force in each of four gunicorn workers."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from groundfault._clock import monotonic
from groundfault.integrations.sql import SQLStore
from groundfault.settings.opening import open_store
from groundfault.settings.store import NOTHING_YET, Change

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
WORKERS = 4
LIVE_S = 2.0
START_S = 30.0


@pytest.fixture(params=["sqlite", "postgres", "redis", "hub"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/settings.db"
    return request.getfixturevalue(request.param).url


def told_by(told):
    """Return by timeout that came into force, when that was, in each process."""
    seen = {}
    for line in told.read_text().splitlines():
        each = json.loads(line)
        seen.setdefault(each["timeout_s"], {})[each["pid"]] = each["at"]
    return seen


def await_all(told, timeout_s, processes, seconds, log):
    end = monotonic() + seconds
    while len(told_by(told).get(timeout_s, ())) < processes:
        assert monotonic() < end, (told.read_text(), log.read_text())
        time.sleep(0.02)
    return told_by(told)[timeout_s]


def set_timeout(store, value, based_on):
    return store.write(
        [Change("topps/contest-*", "timeout_s", value)], reason="the fleet test", actor="gronk", based_on=based_on
    )


def test_a_change_is_live_in_every_worker_within_two_seconds(url, tmp_path, capsys):
    store = open_store(url)
    if isinstance(store, SQLStore):
        store.create_tables()
    before = store.load(None).version if isinstance(store, SQLStore) else NOTHING_YET
    version = set_timeout(store, 1.0, before)
    told, log = tmp_path / "told", tmp_path / "log"
    told.touch()
    preloaded = url.startswith("sqlite")  # then the master follows the store before it forks, and after
    with log.open("w") as out:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", "-w", str(WORKERS), "--chdir", str(HERE)),
                *(["--preload"] if preloaded else []),
                "settings_served:served",
            ],
            env={
                **os.environ,
                "PYTHONPATH": str(HERE.parent.parent),
                "GROUNDFAULT_SETTINGS": url,
                "TOLD": str(told),
            },
            stdout=out,
            stderr=out,
        )
    try:
        processes = WORKERS + preloaded
        await_all(told, 1.0, 1 if preloaded else WORKERS, START_S, log)  # a forked child has it in force already
        end = monotonic() + START_S
        while log.read_text().count("Booting worker") < WORKERS:
            assert monotonic() < end, log.read_text()
            time.sleep(0.02)
        slowest = []
        for value in (1.1, 1.3):
            time.sleep(0.4)  # somewhere between two looks
            version = set_timeout(store, value, version)
            written = monotonic()
            live_at = await_all(told, value, processes, START_S, log)
            slowest.append(max(live_at.values()) - written)
        port = int(log.read_text().partition("http://127.0.0.1:")[2].split()[0].strip(")"))
        answers = [json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=9)) for _ in range(8)]
        assert {answer["timeout_s"] for answer in answers} == {1.3}
        with capsys.disabled():
            shown = ", ".join(f"{max(0.0, each):.2f} s" for each in slowest)
            print(f"\n{store.name.partition(':')[0]}: in all of {processes} processes after {shown}")  # noqa: T201  measured
        assert max(slowest) < LIVE_S
    finally:
        store.close()
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(12)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
    assert "internal error" not in log.read_text()
