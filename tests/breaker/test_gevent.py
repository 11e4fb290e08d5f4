"""Greenlets in place of threads, with the standard library patched before and after GroundFault is imported."""

import subprocess
import sys

import pytest

_PROGRAM = """
from gevent import monkey
if {before}:
    monkey.patch_all()
from groundfault import BulkheadFullError, CommandTimeoutError, Outcome, Resource
if not {before}:
    monkey.patch_all()
import time
import gevent

resource = Resource("saber", sinks=[])
five = resource.command("five", max_concurrent=5)
running = most = refused = 0

def work():
    global running, most
    running += 1
    most = max(most, running)
    time.sleep(0.2)
    running -= 1

def one():
    global refused
    try:
        five.call(work)
    except BulkheadFullError:
        refused += 1

gevent.joinall([gevent.spawn(one) for _ in range(50)], raise_error=True)
assert (most, refused) == (5, 45), (most, refused)
assert five.snapshot().in_flight == 0

killed = [gevent.spawn(five.call, time.sleep, 60) for _ in range(5)]
gevent.sleep(0.05)
assert five.snapshot().in_flight == 5
gevent.killall(killed)
snapshot = five.snapshot()
assert (snapshot.in_flight, snapshot.totals[Outcome.IGNORED], snapshot.totals[Outcome.FAILURE]) == (0, 5, 0)

isolated = resource.command("isolated", isolation="thread", timeout_s=0.05)
assert isolated.call(lambda: 7) == 7
ticks = 0

def tick():
    global ticks
    while True:
        gevent.sleep(0.005)
        ticks += 1

ticking = gevent.spawn(tick)
try:
    isolated.call(time.sleep, 0.4)
except CommandTimeoutError:
    pass
else:
    raise AssertionError("was not given up")
if {before}:  # patched afterwards, `threading` as imported by GroundFault is patched in place all the same
    assert ticks, "the hub stood still"
ticking.kill()

answers = []
checked = resource.command("checked", health_check=lambda: answers.append(1) or True)
assert checked.call(lambda: 8) == 8
gevent.sleep(0.1)
assert answers == [1] and checked.snapshot().healthy
"""


@pytest.mark.parametrize("before", [True, False])
def test_a_command_is_right_among_greenlets(before):
    program = _PROGRAM.format(before=before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
