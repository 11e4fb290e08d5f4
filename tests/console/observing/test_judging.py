"""How bad it is, and why, in words."""

import pytest

from groundfault._histogram import Histogram
from groundfault.console.figures import percent, quantiles, short
from groundfault.console.judging import judge_command, judge_server
from groundfault.metrics.report import CommandReport, ServerReport


def command(states=None, **fields):
    return CommandReport("db", "get", states={"closed": 8} if states is None else states, **({"limit": None} | fields))


def judged(seen, counts=None, fallbacks=None):
    counts = counts or {}
    ill = counts.get("failure", 0) + counts.get("timeout", 0)
    judged = ill + counts.get("success", 0)
    return judge_command(seen, counts, fallbacks or {}, ill / judged if judged else 0.0, 10.0)


@pytest.mark.parametrize(
    ("seen", "counts", "level", "why"),
    [
        (command(), {"success": 100}, "ok", []),
        (command({"open": 3, "closed": 5}), {}, "bad", ["circuit open in 3 of 8 processes"]),
        (command({"open": 1}), {}, "bad", ["circuit open"]),
        (command({"half-open": 1, "closed": 7}), {}, "warn", ["circuit half-open in 1 of 8 processes"]),
        (
            command({"open": 3, "half-open": 1, "closed": 4}),
            {"failure": 71, "success": 29, "circuit-open": 9},
            "bad",
            ["circuit open in 3 of 8 processes", "71 % of the calls failed", "circuit half-open in 1 of 8 processes"],
        ),
        (command(), {"failure": 3, "success": 1}, "ok", []),  # too few to say anything
        (command(), {"failure": 10, "success": 10}, "bad", ["50 % of the calls failed"]),
        (
            command(settings={"failure_threshold": 0.9}),
            {"failure": 10, "success": 10},
            "warn",
            ["50 % of the calls failed"],
        ),
        (
            command(settings={"minimum_volume_per_s": 0.1}),
            {"failure": 2},
            "bad",
            ["100 % of the calls failed"],
        ),
        (command(), {"failure": 1, "success": 99}, "ok", []),
        (command(), {"timeout": 1, "success": 99}, "warn", ["1 call timed out"]),
        (command(unhealthy=2), {}, "bad", ["the health check says no in 2 of 8 processes"]),
        (command(saturated=8), {}, "bad", ["the callee does nothing but refuse in 8 of 8 processes"]),
        (
            command(admitted_share=0.22),
            {"shed": 80, "success": 20},
            "warn",
            ["80 % of the calls are shed by the callee", "sends 22 % of the calls"],
        ),
        (command(limit=5, active=5), {"bulkhead-full": 31}, "warn", ["concurrency 5 of 5: 31 calls refused"]),
        (command(limit=5, active=4), {}, "warn", ["concurrency 4 of 5"]),
        (command(limit=5, active=3), {}, "ok", []),
        (command(), {"circuit-open": 7}, "warn", ["7 calls refused by the circuit"]),
        (command(modes={"shadow": 8}), {}, "ok", ["shadow mode in 8 of 8 processes"]),
        (command({"closed": 1}, modes={"shadow": 1}), {}, "ok", ["shadow mode"]),
        (command({"closed": 1}, modes={"force_open": 1}), {}, "warn", ["force open mode"]),
        (command({"closed": 1}, modes={"force_closed": 1}), {}, "warn", ["force closed mode"]),
    ],
)
def test_a_command_is_as_bad_as_the_worst_that_is_said_of_it(seen, counts, level, why):
    found = judged(seen, counts)
    assert found[:2] == (level, why)
    assert (found[2] > 0) == (level != "ok")


def test_fallbacks_that_fail_are_said():
    assert judged(command(), {"success": 9}, {"served": 5, "failed": 2, "refused": 1})[:2] == (
        "warn",
        ["3 fallbacks failed"],
    )


def test_trouble_grows_with_level_and_with_what_goes_wrong():
    trouble = [
        judged(command(), {"success": 10**6})[2],
        judged(command(limit=5, active=5))[2],
        judged(command(), {"shed": 1000})[2],
        judged(command(), {"shed": 10**9})[2],
        judged(command({"open": 1}))[2],
        judged(command({"open": 1}), {"circuit-open": 100})[2],
    ]
    assert trouble == sorted(trouble)
    assert len(set(trouble)) == len(trouble)


def server(**fields):
    return ServerReport("topps", **({"signals": {"tcp-info": 2}, "threshold_s": 0.25} | fields))


@pytest.mark.parametrize(
    ("seen", "counts", "wait_s", "level", "why"),
    [
        (server(), {"admitted": 100}, 0.01, "ok", []),
        (server(), {"admitted": 38, "queue-wait": 62}, 0.5, "bad", ["62 % of the requests are shed: queue-wait"]),
        (
            server(),
            {"admitted": 999, "deadline": 1},
            0.01,
            "warn",
            ["less than 1 % of the requests are shed: deadline"],
        ),
        (
            server(modes={"shadow": 2}),
            {"admitted": 50, "queue-wait": 50},
            0.5,
            "warn",
            ["50 % of the requests would be shed: queue-wait", "shadow mode in 2 of 2 processes"],
        ),
        (server(), {"admitted": 9}, 0.5, "warn", ["requests wait 500 ms (p99); beyond 250 ms they are shed"]),
        (server(backlog=65, backlog_limit=128), {}, None, "warn", ["65 of 128 places before accept are taken"]),
        (server(backlog=5, backlog_limit=128), {}, None, "ok", []),
        (
            server(stepped_aside=1),
            {},
            None,
            "warn",
            ["lets everything through after internal errors in 1 of 2 processes"],
        ),
        (server(modes={"off": 1}), {}, None, "warn", ["off mode in 1 of 2 processes"]),
        (
            server(signals={"none": 2}),
            {"admitted": 1},
            None,
            "ok",
            ["no signal tells how long requests have waited"],
        ),
    ],
)
def test_a_server_is_as_bad_as_the_worst_that_is_said_of_it(seen, counts, wait_s, level, why):
    found = judge_server(seen, counts, abandoned=0, wait_p99_s=wait_s, processes=2)
    assert found[:2] == (level, why)


def test_requests_that_the_client_gave_up_are_said():
    why = judge_server(server(), {"admitted": 1, "deadline": 2}, abandoned=2, wait_p99_s=None, processes=2)[1]
    assert why[1] == "2 of them were given up by the client before"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((0, 0.0), (0.00012345678, 0.0001235), (0.123456, 0.1235), (1.23456, 1.235), (12.3456, 12.35)),
        *((123.456, 123.5), (1234.56, 1235.0), (9999.96, 10_000.0), (123_456.7, 123_457)),
    ],
)
def test_numbers_have_four_digits(value, shown):
    assert short(value) == shown


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0001, "less than 1 %"), (0.014, "1 %"), (0.62, "62 %"), (0.9999, "more than 99 %"), (1.0, "100 %")],
)
def test_shares_in_words_never_say_all_of_almost_all(share, words):
    assert percent(share) == words


def test_quantiles_in_one_pass_are_those_of_the_histogram():
    values = Histogram({0: 3, 17: 5, 24: 90, 40: 1, 71: 2}, 1.0)
    shares = (0.0, 0.01, 0.5, 0.9, 0.99, 1.0)
    found = quantiles(values.buckets, shares)
    assert found[1:] == [values.quantile(share) for share in shares[1:]]
    assert len(found) == len(shares)
