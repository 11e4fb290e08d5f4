"""The proxy as a process of its own, told from another one."""

import json
import subprocess
import sys

import pytest

from groundfault.lab.faults.control import Remote
from groundfault.lab.faults.fault import Fault, FaultError, Kind

pytestmark = pytest.mark.e2e
PATIENCE_S = 30.0
COMMAND = [sys.executable, "-m", "groundfault.lab.faults"]


def test_it_says_its_ports_does_what_it_is_told_and_ends_when_told():
    with subprocess.Popen([*COMMAND, "--route", "saber=127.0.0.1:9"], stdout=subprocess.PIPE) as process:
        try:
            said = json.loads(process.stdout.readline())
            with Remote(said["control"]) as remote:
                port = remote.route("grouper", ("127.0.0.1", 9))
                remote.set("grouper", Fault(kind=Kind.BLACKHOLE))
                look = remote.look()
                assert {name: each["fault"]["kind"] for name, each in look.items()} == {
                    "saber": "none",
                    "grouper": "blackhole",
                }
                assert (look["saber"]["port"], look["grouper"]["port"]) == (said["routes"]["saber"], port)
                remote.heal("grouper")
                assert remote.look()["grouper"]["fault"]["kind"] == "none"
                with pytest.raises(FaultError, match="no route 'topps'"):
                    remote.heal("topps")
                remote.stop()
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--route", "a=10.0.0.1:80"], "loopback"),
        (["--listen", "10.0.0.1"], "loopback"),
        (["--route", "a"], "HOST:PORT"),
    ],
)
def test_what_it_may_not_do_ends_it_with_the_reason(words, reason):
    ended = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 2
    assert reason in ended.stderr
