"""Points of which little or nothing is known at first."""

import pytest

from groundfault.console.tracks import Points, Spark
from groundfault.console.view import POINTS


def test_points_that_were_pending_are_filled_only_as_far_as_a_step_reaches():
    points, spark = Points(0), Spark()
    spark.add(10, 0, points, points.fill(1.0))
    for _ in range(4):
        spark.close(points.close())
    filled = points.fill(5.0)
    spark.spread(filled)
    spark.add(50, 0, points, filled)
    assert filled == (2, pytest.approx(0.2), 5.0)
    assert spark.shown(points)[0][-5:] == [10.0, None, 10.0, 10.0, 10.0]


def test_a_point_of_which_little_is_known_is_told_together_with_the_next():
    """One of eight processes has written, and it has all the traffic: that is not eight times as much."""
    points, spark = Points(0), Spark()
    spark.add(100, 50, points, points.fill(1 / 8))
    assert spark.shown(points) == ([None] * POINTS, [None] * POINTS)
    spark.close(points.close())
    assert spark.shown(points)[0] == [None] * POINTS
    filled = points.fill(23 / 8)
    spark.spread(filled)
    spark.add(200, 100, points, filled)
    assert spark.shown(points)[0][-2:] == [100.0, 100.0]
    assert spark.shown(points)[1][-2:] == [50.0, 50.0]


def test_what_was_pending_before_a_gap_stays_unknown():
    points, spark = Points(0), Spark()
    spark.add(10, 0, points, points.fill(1.0))
    for _ in range(3):
        spark.close(points.close())
    points.forget()
    filled = points.fill(4.0)
    spark.spread(filled)
    spark.add(40, 0, points, filled)
    assert spark.shown(points)[0][-4:] == [10.0, None, None, 10.0]
