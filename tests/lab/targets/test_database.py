"""The database that thrashes and dies."""

import pytest

from groundfault.lab.targets.database import Queries


def full(count, *, comfortable=8, dies_at=40):
    queries = Queries(comfortable=comfortable, dies_at=dies_at)
    for _ in range(count):
        queries.begin(0.25)
    return queries


@pytest.mark.parametrize(
    ("count", "speed"),
    [(0, 1.0), (1, 1.0), (8, 1.0), (16, 0.25), (32, 0.0625)],
)
def test_each_query_slows_down_with_the_square_of_how_many_are_too_many(count, speed):
    assert full(count).speed == pytest.approx(speed)


def test_more_at_once_get_less_done_in_all():
    done_per_s = [count * full(count).speed for count in (8, 12, 20, 39)]
    assert done_per_s == sorted(done_per_s, reverse=True)
    assert done_per_s[-1] < done_per_s[0] / 4


@pytest.mark.parametrize(("count", "dies_at", "fatal"), [(39, 40, False), (40, 40, True), (500, 0, False)])
def test_it_dies_of_too_many_and_of_nothing_else(count, dies_at, fatal):
    assert full(count, dies_at=dies_at).fatal is fatal


def test_queries_are_done_when_their_work_is():
    queries = Queries(comfortable=2, dies_at=0)
    short, long = queries.begin(0.1), queries.begin(0.3)

    assert queries.run(0.05) == []
    assert queries.run(0.06) == [short]
    assert len(queries) == 1
    assert queries.run(0.2) == [long]


def test_a_death_forgets_them_all():
    queries = full(40)
    queries.clear()
    assert len(queries) == 0
    assert not queries.fatal
