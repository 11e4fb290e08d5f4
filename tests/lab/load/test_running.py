"""Scenarios on real Locust processes against a small server: what is sent, told apart, and made void."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from time import sleep

import psutil
import pytest

from groundfault._clock import monotonic
from groundfault.lab.curves import Spike, arrivals
from groundfault.lab.processes import free_port

pytestmark = pytest.mark.e2e

SERVICE = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] != "http":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    status, headers = {"shed": (503, [(b"x-groundfault", b"handled")]), "plain": (503, []), "gone": (404, [])}.get(
        scope["path"].split("/")[1], (200, []))
    if scope["path"] == "/never":
        await asyncio.sleep(5)
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"2"), *headers]})
    await send({"type": "http.response.body", "body": b"ok"})
"""

SCENARIO = """
from groundfault.lab.curves import Spike
from groundfault.lab.load.locusting import ArrivalUser
from groundfault.lab.load.scenario import Lane, Scenario

class Fans(ArrivalUser):
    scenario = Scenario(
        name="try",
        lanes=(
            Lane("good", "/ok/{n}"), Lane("shed", "/shed", share=0.5), Lane("plain", "/plain", share=0.5),
            Lane("never", "/never", share=0.5, deadline_s=0.3), Lane("gone", "/gone", success=frozenset({404})),
        ),
        curve=lambda options: Spike(
            base_rps=options.rps, factor=2, before_s=0.5, spike_s=0.5, after_s=options.after, rise_s=0
        ),
        options=lambda group: [
            group.add_argument("--rps", type=float, default=40.0),
            group.add_argument("--after", type=float, default=0.5),
        ],
        bounds=("success.good>=0.5",),
    )
"""


QUICK = """
from locust import runners
runners.HEARTBEAT_INTERVAL = 0.3
"""
"""Notices a dead worker within a second; too soon for a test that a pause of the machine must not fail."""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    directory = tmp_path_factory.mktemp("service")
    (directory / "service.py").write_text(SERVICE)
    port = free_port()
    words = ["uvicorn", "service:app", f"--port={port}", "--no-access-log", "--log-level=warning"]
    process = subprocess.Popen([sys.executable, "-m", *words, "--timeout-graceful-shutdown=1"], cwd=directory)
    with subprocess_ended(process):
        assert wait_for(lambda: listening(port), 20)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def subprocess_ended(process):
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(10)


def listening(port):
    return any(each.laddr.port == port and each.status == "LISTEN" for each in psutil.net_connections("tcp"))


def wait_for(condition, within_s):
    give_up = monotonic() + within_s
    while not condition() and monotonic() < give_up:
        sleep(0.05)
    return condition()


def command(directory, *options, before=""):
    directory.mkdir(exist_ok=True)
    (directory / "scenario.py").write_text(before + SCENARIO)
    words = ["locust", "-f", "scenario.py", "--only-summary", "--loglevel=WARNING", "--max-lag-ms=100000"]
    port = free_port()
    return [sys.executable, "-m", *words, f"--master-bind-port={port}", f"--master-port={port}", *options]


def ended(words_by_directory):
    """Run all of these at once, for starting them takes the most time; return code, stdout and stderr of each."""
    with ExitStack() as stack:
        processes = []
        for directory, words in words_by_directory.items():
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            processes.append(stack.enter_context(subprocess_ended(subprocess.Popen(words, cwd=directory, **pipes))))
        said = [process.communicate(timeout=60) for process in processes]
        assert not any("Traceback" in stderr for _, stderr in said), said
        return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def sums(directory):
    run = json.loads((directory / "run.json").read_text())
    names = ("due", "sent", "good", "shed", "failed", "late", "unsent")
    return {stream["name"]: {name: sum(stream[name]) for name in names} for stream in run["streams"]}


def test_exactly_what_was_drawn_is_sent_and_each_fate_told_apart_by_one_process_and_by_two_workers(service, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    words = ["--headless", "--host", service, "-u", "3", "--run-file=run.json"]
    for directory, (code, stdout, _) in zip(
        (alone, shared),
        ended({alone: command(alone, *words), shared: command(shared, *words, "--processes=2")}),
        strict=True,
    ):
        assert_exact(directory, code, json.loads(stdout.splitlines()[-1]))


def assert_exact(directory, code, said):
    # A machine that stands still for a moment moves requests from one second to the next: void, and still exact.
    assert (code, said["verdict"]) in {(0, "passed"), (3, "void")}
    assert all("more than 1 % off" in reason for reason in said["void"])
    curve = Spike(base_rps=40, factor=2, before_s=0.5, spike_s=0.5, after_s=0.5, rise_s=0)
    shares = {"good": 1, "shed": 0.5, "plain": 0.5, "never": 0.5, "gone": 1}
    due = {name: sum(1 for _ in arrivals(curve, scale=share, seed=f"gronk/{name}")) for name, share in shares.items()}
    counts = sums(directory)
    assert {name: count["due"] for name, count in counts.items()} == due
    assert {name: count["sent"] for name, count in counts.items()} == due
    fates = {"good": "good", "shed": "shed", "plain": "failed", "never": "late", "gone": "good"}
    for name, fate in fates.items():
        others = due[name] - counts[name][fate]
        assert others == 0 or (fate == "good" and counts[name]["late"] == others), counts[name]


def test_a_target_that_is_not_there_makes_the_run_void_in_one_line(tmp_path):
    words = ["--headless", "--host", f"http://127.0.0.1:{free_port()}", "--run-file=run.json"]
    ((code, stdout, stderr),) = ended({tmp_path: command(tmp_path, *words)})
    said = json.loads(stdout.splitlines()[-1])
    assert (code, said["verdict"]) == (3, "void")
    assert "connection refused" in said["void"][0]
    assert sum(count["failed"] for count in sums(tmp_path).values()) == said["requests"]["failed"] > 0
    assert stderr.count("void: nothing answered at") == 1


def test_a_worker_that_is_killed_makes_the_run_void_and_leaves_nothing_running(service, tmp_path):
    words = command(tmp_path, "--headless", "--processes=2", "--host", service, "--after=60", before=QUICK)
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess_ended(process):
        master = psutil.Process(process.pid)
        assert wait_for(lambda: len(master.children()) == 2, 20)
        workers = master.children()
        assert wait_for(lambda: sends(workers[0], service), 20)
        os.kill(workers[0].pid, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=40)
    said = json.loads(stdout.splitlines()[-1])
    assert (process.returncode, said["verdict"]) == (3, "void"), stderr
    assert any("went missing during the run" in reason for reason in said["void"])
    assert not [each for each in workers if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def sends(worker, url):
    port = int(url.rpartition(":")[2])
    return any(each.raddr and each.raddr.port == port for each in worker.net_connections())


def test_stopping_it_by_hand_is_no_verdict_on_the_service(service, tmp_path):
    words = command(tmp_path, "--headless", "--host", service, "--after=60")
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess_ended(process):
        assert wait_for(lambda: sends(psutil.Process(process.pid), service), 20)
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=40)
    assert process.returncode == 3
    assert json.loads(stdout.splitlines()[-1])["void"][0] == "it was stopped before its end"


def test_nonsense_is_refused_before_anything_starts(tmp_path):
    nonsense = {
        "--host=127.0.0.1:9": "host must be a URL such as http://127.0.0.1:8000, not '127.0.0.1:9'",
        "--deadline=1": "try has no target of its own; name one with --host",
    }
    places = [tmp_path / str(number) for number in range(len(nonsense))]
    words = {
        place: command(place, "--headless", "--processes=2", option)
        for place, option in zip(places, nonsense, strict=True)
    }
    for (code, _, stderr), expected in zip(ended(words), nonsense.values(), strict=True):
        assert code == 2
        assert stderr.splitlines()[-1].endswith(expected)


CABLE = """
        ip link set lo up
        unshare -n sleep 50 & other=$!
        until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
        ip link add cable0 type veth peer name cable1
        ip link set cable1 netns $other
        ip addr add 10.77.0.1/24 dev cable0 && ip link set cable0 up
        there="nsenter --net=/proc/$other/ns/net"
        $there ip addr add 10.77.0.2/24 dev cable1; $there ip link set cable1 up; $there ip link set lo up
"""
"""Lays a cable from this network namespace to another, where ``$there`` runs what comes behind it."""


def may_lay_cables():
    """Return whether there may be two network namespaces here, joined by a cable."""
    try_it = "unshare -n true && ip link add cable0 type veth peer name cable1"
    try:
        tried = subprocess.run(["unshare", "-n", "sh", "-c", try_it], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return tried.returncode == 0


def test_master_and_worker_on_two_hosts(tmp_path):
    """Two namespaces joined by a cable: the worker's host has the service, the master knows neither.

    Where a container gives no right to that, two addresses of the loopback device stand for the hosts.
    """
    cable = may_lay_cables()
    here, there = ("10.77.0.1", "10.77.0.2") if cable else ("127.0.0.1", "127.0.0.2")
    port, bind = (8000, 5557) if cable else (free_port(), free_port())
    (tmp_path / "service.py").write_text(SERVICE)
    words = command(tmp_path, "--headless", "--master", "--expect-workers=1", f"--host=http://{there}:{port}")
    master = [word if not word.startswith("--master-bind-port") else f"--master-bind-port={bind}" for word in words]
    quoted = " ".join(f"'{word}'" for word in master)
    worker = f"-m locust -f scenario.py --worker --master-host={here} --master-port={bind} --loglevel=WARNING"
    script = f"""
        set -e
        trap 'kill -KILL $other $server $worker 2>/dev/null; wait' EXIT
        {CABLE if cable else ""}
        $there {sys.executable} -m uvicorn service:app --host={there} --port={port} --log-level=warning & server=$!
        $there {sys.executable} {worker} & worker=$!
        {quoted} --run-file=run.json
    """
    begun = ["unshare", "-n", "bash", "-c", script] if cable else ["bash", "-c", script]
    done = subprocess.run(begun, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["requests"]["good"] > 0, (said, done.stderr)
    counts = sums(tmp_path)
    assert all(count["sent"] == count["due"] > 0 for count in counts.values())
    assert all("more than 1 % off" in reason for reason in said["void"])
