"""What is going to happen, and what is refused."""

import argparse

import pytest

from groundfault.lab.curves import Points, Spike
from groundfault.lab.load.options import OptionError, add_options, host_of, own_settings, plan
from groundfault.lab.load.scenario import Lane, Scenario


def scenario(**changes):
    settings = {
        "name": "try",
        "lanes": (Lane("fan", "/{n}"), Lane("lobby", "/", innocent=True)),
        "curve": lambda options: Spike(base_rps=options.base_rps, before_s=2, spike_s=4, after_s=2),
        "spans": lambda _: {"spike": (2, 6)},
        "bounds": ("goodput@spike>=0.5",),
        "timeline": lambda _: [(6, "heal", "well again"), (2, "", "touchdown")],
        "options": lambda group: group.add_argument("--base-rps", type=float, default=10.0),
    }
    return Scenario(**(settings | changes))


def parsed(tested, *words):
    parser = argparse.ArgumentParser()
    add_options(parser, tested)
    return parser.parse_args(words)


def test_all_times_are_stretched_and_rates_are_not():
    made = plan(scenario(), parsed(scenario(), "--scale-time=0.5"))
    assert (made.total_s, made.seconds, made.curve.peak_rps) == (4, 4, 80)
    assert made.spans == {"spike": (1, 3)}
    assert made.timeline == ((1, "", "touchdown"), (3, "heal", "well again"))


def test_a_run_lasts_as_long_as_its_longest_lane():
    late = Lane("query", "/all", curve=Points(((0, 1), (30, 1))), deadline_s=5)
    made = plan(scenario(lanes=(Lane("fan", "/"), late)), parsed(scenario()))
    assert (made.total_s, made.grace_s) == (30, 5)


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        (["--deadline=0"], {}, "deadline must be above 0, not 0"),
        (["--deadline=nan"], {}, "deadline must be above 0, not nan"),
        (["--scale-time=-1"], {}, "scale-time must be above 0, not -1"),
        (["--scale-time=1e9"], {}, "the run must last at most 604800 s"),
        (["--capacity=0"], {}, "capacity must be above 0, not 0"),
        (["--max-lag-ms=0"], {}, "max-lag-ms must be above 0, not 0"),
        (["--max-open=0"], {}, "max-open must be at least 1, not 0"),
        (["--base-rps=0"], {}, "base_rps must be above 0, not 0"),
        (["--gate=nonsense>=1"], {}, "measure must be one of goodput"),
        (["--gate=shed@night<=1"], {}, "span must be one of spike, not night"),
        (["--gate=shed.nobody<=1"], {}, "stream must be one of fan, lobby, not nobody"),
        (["--gate=shed<=lots"], {}, "the bound of 'shed<=lots' must be a number, not 'lots'"),
        ([], {"lanes": (Lane("a", "/"), Lane("a", "/b"))}, "lanes must be at least one, each with a name of its own"),
        ([], {"lanes": ()}, "lanes must be at least one"),
    ],
)
def test_nonsense_is_refused_in_one_line_that_names_it(words, changes, message):
    tested = scenario(**changes)
    with pytest.raises(OptionError) as caught:
        plan(tested, parsed(tested, *words))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000", "localhost", "ftp://127.0.0.1", "http://", "http://:8000", "http://127.0.0.1:99999",
        "http://127.0.0.1:port", "http://127.0.0.1:0", "http://127.0.0.1/a b", "http://h\u00f6st", "http://[::1", "",
        "http://127.0.0.1/?a=1", "http://127.0.0.1/#top", "fan:sesame@127.0.0.1:8000",
        "http://fan:sesame@127.0.0.1:8000", "http://fan@127.0.0.1",
    ],
)  # fmt: skip
def test_a_host_that_nothing_can_be_sent_to_is_refused_in_one_line_without_its_password(host):
    with pytest.raises(OptionError, match="host must be a URL") as caught:
        host_of(host)
    assert "\n" not in str(caught.value)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("host", ["http://127.0.0.1:8000", "https://[::1]:8443/app", "http://localhost"])
def test_a_host_is_taken_without_its_last_slash(host):
    assert host_of(host) == host_of(f"{host}/") == host


def test_gates_are_added_to_the_scenarios_own_bounds():
    made = plan(scenario(), parsed(scenario(), "--gate", "shed.innocent@spike<=0", "--gate", "trips"))
    assert [str(bound) for bound in made.bounds] == ["goodput@spike", "shed.innocent@spike", "trips"]


def test_the_run_keeps_the_scenarios_options_and_no_others():
    options = parsed(scenario(), "--base-rps=7")
    options.web_login = "secret"
    kept = own_settings(scenario(), options)
    assert kept == {
        "base_rps": 7.0,
        "deadline": 1.0,
        "seed": "gronk",
        "scale_time": 1.0,
        "capacity": None,
        "variant": "groundfault",
    }
    assert own_settings(scenario(settings=lambda _: {"log": "a"}), options) == {"log": "a"}
