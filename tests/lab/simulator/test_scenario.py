"""A scenario that makes no sense is refused with the place in it, the bound and the value."""

import copy
import tomllib
from pathlib import Path

import pytest

from groundfault.cli import main
from groundfault.lab.simulator.distributions import Bimodal, Exponential, LogNormal, Pareto, Quantiles, Uniform
from groundfault.lab.simulator.scenario import ScenarioError, changed, read, scenario_of

_WRONG = {
    "services.grouper.calls[0].timeout_s=-1": "services.grouper.calls[0].timeout_s must be a number above 0 and at "
    "most 3600, not -1",
    "services.grouper.calls[0].timeout=1": "services.grouper.calls[0].timeout is unknown; there are ",
    "services.grouper.calls[0].to='nobody'": "services.grouper.calls[0].to must be one of topps, grouper, saber, "
    "not 'nobody'",
    "services.grouper.calls[0].probability=1.5": "services.grouper.calls[0].probability must be a number of at least 0 "
    "and at most 1, not 1.5",
    "services.grouper.calls[0].breaker={failure_threshold=2}": "services.grouper.calls[0].breaker.failure_threshold "
    "must be above 0 and at most 1, not 2.0",
    "services.grouper.calls[0].retries={rule='groundfault', most=3}": "services.grouper.calls[0].retries.most must be "
    "a whole number from 0 to 1, not 3",
    "services.saber.wait={kind='exponential', mean_s=0}": "services.saber.wait.mean_s must be a number above 0",
    "services.saber.wait={kind='gamma'}": "services.saber.wait.kind must be one of fixed, exponential",
    "services.saber.wait={kind='quantiles', points=[[0, 2], [1, 1]]}": "services.saber.wait.points[1] must be at least",
    "services.saber.workers=0": "services.saber.workers must be a whole number from 1 to 10000, not 0",
    "services.saber.workers=true": "services.saber.workers must be a whole number from 1 to 10000, not True",
    "services.saber.loop=true": "services.saber.threads must be left out: an event loop has none, not 2",
    "services.saber.protection='magic'": "services.saber.protection must be one of groundfault, plain-503",
    "streams[0].spike.base_rps=-5": "streams[0].spike: base_rps must be above 0, not -5",
    "streams[0].rate=5": "streams[0] must have one of rate, points, spike, not rate and spike",
    "streams[0].to='nobody'": "streams[0].to must be one of topps, grouper, saber, not 'nobody'",
    "streams[1].name='fan'": "streams[1].name must be another one: 'fan' is taken",
    "streams[0].criticality={critical=0.5}": "streams[0].criticality must add up to 1, not 0.5",
    "bounds=['goodput@nowhere>=1']": "bounds[0]: the span must be one of before, spike, after, not nowhere",
    "bounds=['success.nobody>=1']": "bounds[0]: the stream must be one of fan, innocent, innocent, not nobody",
    "bounds=['beauty>=1']": "bounds[0]: measure must be one of",
    "events=[{at=1, action='slow', service='saber'}]": "events[0].factor must be given: a number above 0",
    "events=[{at=1, action='dance', service='saber'}]": "events[0].action must be one of slow, fail",
    "events=[{at=1, action='down', service='nobody'}]": "events[0].service must be one of",
    "spans={spike=[30, 5]}": "spans.spike must be [start, end] in ascending order within",
    "streams[0].scale=1e6": "streams[0] must have at most 1e+07 requests a second, scaled, not 1.92e+09",
    "streams[0].spike.after_s=1e300": "total_s must be at most 604800, and the longest curve takes 1e+300",
    f"total_s={'9' * 400}": "total_s must be a number above 0",
    "services.saber={instances=100000, workers=10000}": "services.saber must have at most 100000 instances times "
    "workers, not 1000000000",
    "services.saber={workers=1000, threads=100000}": "services.saber must have at most 10000000 instances times "
    "workers times threads, not 100000000",
    "bounds=['success.fan-again>=1']": "bounds[0]: the stream must be one of fan, innocent, innocent, not fan-again",
    "total_s='long'": "total_s must be a number above 0",
    "variant='magic'": "variant must be one of groundfault, plain-503, breakers-only, unprotected, not 'magic'",
    "wholly='new'": "wholly is unknown; there are",
}


@pytest.mark.parametrize("change", _WRONG, ids=_WRONG)
def test_what_makes_no_sense_is_refused_with_its_place(the_chain, change):
    with pytest.raises(ScenarioError) as caught:
        scenario_of(changed(the_chain, [change]))

    assert str(caught.value).startswith(_WRONG[change])


def test_the_scenario_in_the_reference_is_one():
    page = Path(__file__).parents[3] / "docs" / "reference" / "simulator.md"
    block = page.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]

    assert list(scenario_of(tomllib.loads(block)).services) == ["topps", "saber"]


def test_a_cycle_without_a_timeout_is_refused(the_chain):
    the_chain["services"]["saber"]["calls"] = [{"to": "topps"}]
    del the_chain["services"]["topps"]["calls"][0]["timeout_s"]
    del the_chain["services"]["grouper"]["calls"][0]["timeout_s"]
    with pytest.raises(ScenarioError, match=r"calls\[0\]\.timeout_s must be given: .* is a cycle without one"):
        scenario_of(the_chain)

    the_chain["services"]["saber"]["calls"][0]["timeout_s"] = 0.5
    assert scenario_of(the_chain).services["saber"].calls[0].timeout_s == 0.5


def test_users_who_ask_again_are_a_stream_whose_name_is_taken(the_chain):
    the_chain["streams"][0]["again"] = {"share": 0.5}
    the_chain["streams"][1]["name"] = "fan-again"
    with pytest.raises(ScenarioError, match=r"streams\[0\]\.name must be another one: 'fan-again' is taken, too"):
        scenario_of(the_chain)


def test_a_chain_may_be_longer_than_pythons_stack(the_chain):
    links = {f"s{number}": {"calls": [{"to": f"s{number + 1}"}]} for number in range(2000)}
    the_chain["services"] |= {**links, "s2000": {}}
    assert len(scenario_of(the_chain).services) == 2004

    the_chain["services"]["s2000"]["calls"] = [{"to": "s1990"}]
    with pytest.raises(
        ScenarioError, match=r"services\.s2000\.calls\[0\]\.timeout_s .* s1990 -> .* -> s1990 is a cycle"
    ):
        scenario_of(the_chain)


@pytest.mark.parametrize("text", ["x = " + "[" * 20_000, "x = " + "9" * 5000], ids=["nested", "long"])
def test_what_python_cannot_read_is_not_toml(tmp_path, text):
    path = tmp_path / "deep.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match="is not TOML"):
        read(path)


@pytest.mark.parametrize(
    "change",
    ["services.nobody.workers=1", "services.saber.calls[0].to='x'", "nonsense", "services..x=1", "streams[x]=1"],
)
def test_a_change_needs_a_place_that_is_there(the_chain, change):
    before = copy.deepcopy(the_chain)
    with pytest.raises(ScenarioError):
        changed(the_chain, [change])

    assert the_chain == before


def test_changes_are_laid_over_the_scenario(the_chain):
    scenario = scenario_of(
        changed(the_chain, ["services.saber.workers=3", "services.topps.calls[0].timeout_s=0.25", "title=Plain words"])
    )

    assert scenario.services["saber"].workers == 3
    assert scenario.services["topps"].calls[0].timeout_s == 0.25
    assert scenario.title == "Plain words"
    assert scenario.spans == {"before": (0.0, 5.0), "spike": (5.0, 15.0), "after": (15.0, 25.0)}


@pytest.mark.parametrize(
    "distribution",
    [
        Exponential(0.02),
        Uniform(0.01, 0.05),
        LogNormal(0.02, 0.7),
        Pareto(1.5, 0.005, 2.0),
        Pareto(1.0, 0.005, 2.0),
        Pareto(100.0, 1e-5, 2.0),
        Pareto(0.01, 0.005, 0.005000000000000001),
        Bimodal(0.01, 0.5, 0.02),
        Quantiles(((0.0, 0.01), (0.5, 0.02), (0.5, 0.05), (1.0, 0.4))),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_is_drawn_has_the_mean_that_is_said(distribution, dice):
    draw = distribution.draws(dice)
    values = [draw() for _ in range(40_000)]

    assert sum(values) / len(values) == pytest.approx(distribution.mean_s, rel=0.07)
    assert min(values) >= 0


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys):
    scenario = tmp_path / "broken.toml"
    scenario.write_text("title = \n")

    assert main(["simulate", str(scenario), "--out", str(tmp_path / "out")]) == 2
    assert main(["simulate", str(tmp_path / "absent.toml")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "is not TOML" in lines[0]


def test_the_command_ends_with_the_verdict(tmp_path, capsys):
    scenario = tmp_path / "small.toml"
    scenario.write_text(
        'total_s = 3\nbounds = ["success>=0.99"]\n[services.saber]\nthreads = 10\nwait = 0.01\n'
        '[[streams]]\nname = "fan"\nto = "saber"\nrate = 50\n'
    )
    out = str(tmp_path / "out")

    assert read(scenario).name == "small"
    assert main(["simulate", str(scenario), "--out", out]) == 0
    assert "served in time" in capsys.readouterr().out
    assert main(["simulate", str(scenario), "--out", out, "--set", "services.saber.wait=2.0"]) == 1
    assert "MISSED by seed 1" in capsys.readouterr().out
    assert (tmp_path / "out" / "small-groundfault-1.json").exists()
