"""The same scenario and seed give the same bytes, wherever they are simulated; nothing of this process is touched."""

import json
import multiprocessing
import os
import subprocess
import sys

import pytest

from groundfault import _context
from groundfault._family import Family, aside
from groundfault.breaker import _ending, _gate
from groundfault.breaker.registry import all_registries
from groundfault.events import internal_errors
from groundfault.lab.simulator import running
from groundfault.lab.simulator.cores import SwitchedOffError
from groundfault.lab.simulator.model import Protection
from groundfault.lab.simulator.scenario import scenario_of
from groundfault.lab.simulator.simulation import Simulation, simulate
from groundfault.shedding._short_ways import ShortWays
from groundfault.shedding.shedder import live_shedders
from groundfault.sinks import default_sinks

_BUSY = """
total_s = 8
[services.topps]
threads = 16
wait = 0.004
[[services.topps.calls]]
to = "saber"
timeout_s = 0.5
retries = {most = 2, backoff_s = 0.05, budget = 0.2}
[[services.topps.calls]]
to = "scores"
together = "both"
probability = 0.5
required = false
cache = {hit = 0.5, warm_s = 2}
[services.saber]
workers = 2
instances = 2
balance = "two-choices"
cpu = {kind = "lognormal", median_s = 0.01, sigma = 0.8}
network = {delay = 0.001, loss = 0.01}
[services.scores]
loop = true
cpu = 0.001
wait = {kind = "bimodal", fast_s = 0.01, slow_s = 0.3, slow_share = 0.01}
[[streams]]
name = "fan"
to = "topps"
points = [[0, 50], [4, 900], [8, 50]]
users = 1000
criticality = {critical = 0.7, sheddable = 0.3}
again = {share = 0.5, delay = 0.3}
[[events]]
at = 3
action = "slow"
service = "saber"
instances = 1
factor = 3.0
for_s = 2.0
"""


def _cli(tmp_path, out, *arguments, hash_seed):
    scenario = tmp_path / "busy.toml"
    scenario.write_text(_BUSY)
    done = subprocess.run(
        [sys.executable, "-m", "groundfault", "simulate", str(scenario), "--out", str(tmp_path / out), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    return done, {each.name: each.read_bytes() for each in sorted((tmp_path / out).glob("*.json"))}


@pytest.mark.e2e
def test_the_same_bytes_in_other_processes_and_with_another_hash_seed(tmp_path):
    asked = ("--seeds", "2", "--variant", "groundfault", "--variant", "plain-503")
    first, alone = _cli(tmp_path, "alone", *asked, hash_seed="1")
    second, together = _cli(tmp_path, "together", *asked, "--jobs", "2", "--json", hash_seed="77")

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert len(alone) == 4
    assert alone == together
    assert json.loads(second.stdout)["variants"]["groundfault"]["seeds"] == ["1", "2"]


def test_another_seed_is_another_run(make_chain):
    scenario = scenario_of(make_chain(spike_s=2.0, before_s=1.0, after_s=1.0))

    assert simulate(scenario, seed="1").as_dict() == simulate(scenario, seed="1").as_dict()
    assert simulate(scenario, seed="1").streams != simulate(scenario, seed="2").streams


def test_the_short_ways_of_the_shedder_change_nothing(monkeypatch, make_chain):
    """They are taken for speed, also for requests with a budget, where it decides nothing."""
    scenario = scenario_of(make_chain(spike_s=3.0, before_s=1.0, after_s=1.0))
    short = simulate(scenario)
    monkeypatch.setattr(ShortWays, "admit_clear", lambda *_: False)
    monkeypatch.setattr(ShortWays, "is_refusing", lambda *_, **__: False)

    assert simulate(scenario).as_dict() == short.as_dict()


def test_nothing_of_this_process_is_touched(make_chain):
    """No kit finds a simulated shedder or command, no sink hears of them, no count moves."""
    events = []

    def heard(event):
        events.append(event)

    heard.prompt = True
    default_sinks().use(heard)
    shedders, registries, gates = set(live_shedders()), set(all_registries()), set(_gate._gates.members())
    failing, errors = dict(_ending._told), internal_errors()
    seen = []
    simulation = Simulation(
        scenario_of(make_chain(spike_s=3.0, before_s=1.0, after_s=1.0)),
        variant=Protection.PLAIN,
        progress=lambda _: seen.append(set(live_shedders())),
    )
    simulation.run()

    assert all(each == shedders for each in seen)
    assert set(live_shedders()) == shedders
    assert set(all_registries()) == registries
    assert set(_gate._gates.members()) == gates
    assert (dict(_ending._told), internal_errors()) == (failing, errors)
    assert _context.serving.get() is None
    assert not events


def test_what_is_made_aside_belongs_to_no_family():
    class Member:
        pass

    family = Family(lambda _: None)
    told = []
    family.tell(told.append)
    with aside():
        one = Member()
        family.add(one)
    other = Member()
    family.add(other)

    assert family.members() == [other]
    assert told == [other]


def test_the_kill_switch_is_said_rather_than_simulated(monkeypatch, make_chain):
    monkeypatch.setenv("GROUNDFAULT_DISABLED", "1")

    with pytest.raises(SwitchedOffError, match="GROUNDFAULT_DISABLED"):
        simulate(scenario_of(make_chain()))


def test_several_seeds_have_a_mean_and_a_spread(make_chain):
    scenario = scenario_of({**make_chain(spike_s=2.0, before_s=1.0, after_s=1.0), "bounds": ["success>=0.99", "shed"]})
    jobs = running.jobs_of(scenario, seed=3, seeds=2, variants=[Protection.GROUNDFAULT])
    seen = []
    runs = list(running.run_all(jobs, progress=seen.append))
    success, shed = running.spreads(runs)

    assert [run.seed for run in runs] == ["3", "4"]
    assert seen[-1] == sum(run.seconds for run in runs)
    assert success.least <= success.mean <= success.most
    assert success.missed == ("3", "4")
    assert shed.deviation > 0
    assert running.verdict_of(runs) == "failed"


@pytest.mark.e2e
def test_a_process_that_dies_ends_the_run(make_chain):
    """The pool would put another in its place and wait for ever for what it was asked."""
    scenario = scenario_of({**make_chain(before_s=3000.0), "spans": {}, "bounds": []})
    jobs = running.jobs_of(scenario, seed=1, seeds=2, variants=[Protection.GROUNDFAULT])

    def end_one(done):
        if done > 0:
            multiprocessing.active_children()[0].kill()

    with pytest.raises(running.ProcessDiedError, match="has died"):
        list(running.run_all(jobs, processes=2, progress=end_one))
    assert not multiprocessing.active_children()
