import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.shedding._routes import OTHER, Baseline, Rate, Route, Routes, route_of


@pytest.mark.parametrize(
    ("method", "path", "label"),
    [
        ("GET", "/", "GET /"),
        ("GET", "", "GET /"),
        ("GET", "/users", "GET /users"),
        ("GET", "/users/", "GET /users/"),
        ("GET", "/users/42", "GET /users/*"),
        ("GET", "/users/42/orders", "GET /users/*/orders"),
        ("POST", "/v2/users", "POST /*/users"),
        ("GET", "/a/b/c/d", "GET /a/b/c/d"),
        ("GET", "/a/b/c/d/e/f", "GET /a/b/c/d/**"),
        ("GET", "/" + "x" * 32, "GET /" + "x" * 32),
        ("GET", "/" + "x" * 33, "GET /*"),
        ("GET", "/caf\xe9", "GET /*"),
        ("GET", '/"><script>', "GET /*"),
        ("GET", "/a b", "GET /*"),
        ("BREW", "/pot", "OTHER /pot"),
        ("get", "/users", "OTHER /users"),
    ],
)
def test_the_label_of_a_route(method, path, label):
    assert route_of(method, path) == label


@given(st.text(max_size=20), st.text(max_size=600))
def test_any_request_line_has_a_short_and_plain_label(method, path):
    label = route_of(method, path)
    assert len(label) <= 8 + 5 * 33
    assert label.isascii()
    assert label.isprintable()
    assert not any(sign in label for sign in "\"'<>=,\\")


def test_a_rate_is_the_second_highest_of_the_last_eight_buckets():
    rate = Rate()
    for count, bucket in [(1, 0), (5, 1), (9, 2), (3, 3)]:
        for _ in range(count):
            rate.count(100 + bucket / 8)
    assert rate.per_s(100.5) == 5 * 8
    assert rate.per_s(101.0 + 1 / 8) == 3 * 8  # the first two buckets are out: 9 and 3 are left
    assert rate.per_s(101.0 + 3 / 8) == 0.0  # one bucket alone is no rate
    assert rate.per_s(500.0) == 0.0


def test_a_rate_survives_a_clock_that_does_not_move():
    rate = Rate()
    assert rate.per_s(0.0) == 0.0
    rate.count(5.0)
    rate.count(4.0)  # another thread read its clock a little earlier
    assert rate.per_s(5.0) == 0.0


def test_the_baseline_is_the_least_median_of_a_minute():
    baseline = Baseline(0.0)
    assert baseline.service_s == 0.02

    def five_seconds(start, seconds, samples=10):
        for number in range(samples):
            baseline.sample(start + number * 4.9 / samples, seconds)

    five_seconds(0, 0.1)
    assert baseline.service_s == 0.02  # the first five seconds are not over
    five_seconds(5, 0.05)
    assert baseline.service_s == pytest.approx(0.1, rel=0.1)
    five_seconds(10, 0.3)
    assert baseline.service_s == pytest.approx(0.05, rel=0.1)
    five_seconds(15, 0.01, samples=4)  # too few to be a median: they count with those that come
    five_seconds(20, 0.3)
    assert baseline.service_s == pytest.approx(0.05, rel=0.1)
    for start in range(25, 85, 5):
        five_seconds(start, 0.3)
    assert baseline.service_s == pytest.approx(0.3, rel=0.1)


def test_a_baseline_waits_for_ten_samples_up_to_a_minute():
    baseline = Baseline(0.0)
    for number in range(1, 10):
        baseline.sample(number * 1.5, 0.5)
    assert baseline.service_s == 0.02
    baseline.sample(15.0, 0.5)  # the tenth, and the next one looks
    baseline.sample(16.5, 0.5)
    assert baseline.service_s == pytest.approx(0.5, rel=0.1)
    rare = Baseline(0.0)
    for number in range(30):
        rare.sample(number * 10.0, 0.5)
    assert rare.service_s == 0.02


def test_a_baseline_outlives_silence():
    baseline = Baseline(0.0)
    for number in range(20):
        baseline.sample(number / 10, 0.2)
    baseline.sample(1000.0, 0.4)
    assert baseline.service_s == pytest.approx(0.2, rel=0.1)
    baseline.sample(2000.0, 0.4)
    assert baseline.service_s == pytest.approx(0.2, rel=0.1)


@given(st.lists(st.floats(0, 1e6), min_size=10, max_size=50))
def test_a_baseline_is_within_a_tenth_of_the_median(samples):
    baseline = Baseline(0.0)
    for sample in samples:
        baseline.sample(0.0, sample)
    baseline.sample(6.0, 0.0)
    median = sorted(samples)[(len(samples) - 1) // 2]
    assert baseline.service_s == pytest.approx(min(max(median, 1e-5), 41.0), rel=0.1)


def test_a_route_knows_its_natural_time():
    route = Route("r", 0.0)
    assert route.natural_s == math.inf
    route.complete(1.0, 0.1)
    assert route.service_s == 0.1
    assert route.natural_s == 0.1
    route.complete(2.0, 0.9)
    assert route.service_s == pytest.approx(0.1 + 0.8 / 8)
    assert route.natural_s == 0.1
    route.complete(3.0, None)  # a failure is a completion, not a time
    assert route.service_s == pytest.approx(0.2)


def test_what_is_natural_follows_a_change_that_lasts_but_no_overload_that_lasts():
    """After ten minutes a new time is natural, unless requests were refused meanwhile."""
    calm, refusing = Route("calm", 0.0), Route("refusing", 0.0)
    for route in (calm, refusing):
        route.complete(1.0, 0.1)
        for second in range(2, 1200):
            if route is refusing and second > 100:
                route.note_refusal(float(second))
            route.complete(float(second), 0.5)
    assert calm.natural_s == pytest.approx(0.5, rel=0.01)
    assert refusing.natural_s == 0.1


def test_a_route_counts_what_is_open():
    route = Route("r", 0.0)
    route.enter(5.0)
    assert (route.open, route.done_at) == (1, 5.0)  # patience begins with the first that is open
    route.enter(6.0)
    assert (route.open, route.done_at) == (2, 5.0)
    route.leave()
    route.leave()
    route.leave()
    assert route.open == 0


def test_routes_beyond_256_share_one_state():
    routes = Routes(0.0)
    for number in range(300):
        routes.learn(f"GET /{number}", 0.0)
    assert routes.find("GET /255").name == "GET /255"
    assert routes.find("GET /256").name == OTHER
    assert routes.find("GET /never").name == OTHER


def test_redirects_and_errors_leave_half_of_the_places():
    """Before a login every path is answered with a redirect."""
    routes = Routes(0.0)
    for number in range(300):
        routes.learn(f"GET /{number}", 0.0, sure=False)
    assert routes.find("GET /127").name == "GET /127"
    assert routes.find("GET /128").name == OTHER
    routes.learn("GET /real", 0.0)
    assert routes.find("GET /real").name == "GET /real"


def test_idle_routes_make_room_and_busy_ones_stay():
    routes = Routes(0.0)
    for number in range(256):
        routes.learn(f"GET /{number}", 0.0)
    routes.find("GET /1").enter(0.0)
    routes.find("GET /2").used_at = 200.0
    routes.learn("GET /new", 250.0)
    assert routes.find("GET /new").name == OTHER
    routes.learn("GET /new", 301.0)
    assert routes.find("GET /new").name == "GET /new"
    assert routes.find("GET /1").name == "GET /1"
    assert routes.find("GET /2").name == "GET /2"
    assert routes.find("GET /3").name == OTHER


def test_what_may_be_no_route_drives_none_out():
    routes = Routes(0.0)
    for number in range(130):
        routes.learn(f"GET /{number}", 0.0)
    routes.learn("GET /login-wall", 1000.0, sure=False)
    assert routes.find("GET /0").name == "GET /0"
    assert routes.find("GET /login-wall").name == OTHER


def test_the_calm_time_is_a_mean_of_many_where_times_differ_much():
    """The least mean of a few is far below it; a crowd, and times far above it, leave it as it is."""
    dice = random.Random(1)
    route = Route("r", 0.0)
    for n in range(4000):
        route.complete(n / 100, dice.expovariate(10.0))
    assert route.natural_s < 0.05
    assert route.calm_s == pytest.approx(0.1, rel=0.3)
    calm_s = route.calm_s
    for n in range(4000, 4100):
        route.complete(n / 100, 3.0)
    assert route.calm_s <= 1.5 * calm_s
    route.note_refusal(41.0)
    at_onset_s = route.calm_s
    for n in range(4100, 4200):
        route.complete(n / 100, at_onset_s)
    assert route.calm_s == at_onset_s


def test_the_calm_time_of_a_new_route():
    route = Route("new", 0.0)
    assert route.calm_s == math.inf
    for n, seconds in enumerate((0.1, 0.2, 0.3)):
        route.complete(float(n), seconds)
    assert route.calm_s == pytest.approx(0.2)


def test_the_mean_rate_leaves_out_the_bucket_that_is_not_over():
    rate = Rate()
    for n in range(80):
        rate.count(10.0 + n / 80)
    assert rate.mean_per_s(11.01) == pytest.approx(80.0)
    assert rate.mean_per_s(11.5) == pytest.approx(80 * 3 / 7)
    assert rate.mean_per_s(13.0) == 0.0
