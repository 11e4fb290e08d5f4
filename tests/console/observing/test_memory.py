"""What one observer remembers and another one recalls."""

import json

import pytest

from groundfault.console.observing import Observer
from groundfault.console.views import view_of


def test_another_process_goes_on_with_points_and_timeline_and_without_a_spike(directory):
    directory.be_busy()
    before = directory.view()
    said = json.loads(json.dumps(directory.observer.remembered(), allow_nan=False))
    directory.observer = Observer.recalled(said)
    directory.unread = {}
    directory.look(1.0)
    after = directory.view()
    old = [value for value in before["commands"][0]["spark"] if value is not None]
    kept = [value for value in after["commands"][0]["spark"] if value is not None]
    assert old[: len(kept)] == kept
    assert len(kept) >= len(old) - 1
    assert after["commands"][0]["counts"] == {}
    assert {each["id"] for each in before["timeline"]} <= {each["id"] for each in after["timeline"]}
    assert after["stores"][0]["newest"] == "2-b"
    directory.processes[0].call(10)
    directory.look()
    assert directory.row()["counts"] == {"success": 10}
    assert directory.row()["rate_per_s"] == pytest.approx(10.0)


@pytest.mark.parametrize(
    "said",
    [
        *(None, 7, "x", [], {}, {"format": 99}, {"format": 1}, {"format": 1, "at": "nan"}, {"format": 1, "at": {}}),
    ],
)
def test_garbage_is_forgotten(said):
    observer = Observer.recalled(said, "topps")
    assert observer.service == "topps"
    assert observer.points is None
    assert len(observer.timeline) == 0


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((("at",), value) for value in ("nan", None, [], 1e400)),
        *((("index",), value) for value in ("x", None, 1e400)),
        *((("known",), value) for value in (7, "x", [0] * 3)),
        *((("commands",), value) for value in (7, [[]], [["db"]], [["db", "get", [[1], [2]]]], [["db", "get", 9]])),
        *((("commands", 0, 2, 0, 0), value) for value in ("x", -1.0, float("nan"), {}, [])),
        *((("servers",), value) for value in (7, {"topps": [["x"], None]})),
        *((("timeline",), value) for value in (7, {}, {"at": 1, "number": 1, "lines": [[]]})),
        *((("timeline", "lines", 0, 3, "kind"), value) for value in ("nothing", 7)),
        *((("timeline", "lines", 0, 3, "numbers"), value) for value in (7, {"a": "nan"})),
        *((("timeline", "lines", 0, 3, "what"), value) for value in (7, None)),
        *((("stores",), value) for value in (7, {"file:s": [1, 2]}, {"file:s": [{"v": "nan"}, None, None, None]})),
        *((("processes",), value) for value in (7, [[]], [["x", None, 0]])),
    ],
)
def test_a_memory_that_is_spoiled_anywhere_is_forgotten_as_a_whole(directory, path, value):
    directory.be_busy()
    said = json.loads(json.dumps(directory.observer.remembered()))
    *way, last = path
    place = said
    for step in way:
        place = place[step]
    place[last] = value
    observer = Observer.recalled(said)
    assert len(observer.timeline) == 0
    assert observer.points is None
    observer.see(directory.read(), directory.now)
    json.dumps(view_of([observer], now=directory.now, **FIXED), allow_nan=False)


FIXED = {"kind": "host", "title": "", "host": "", "release": "", "sequence": 0, "interval_s": 1.0}


def test_a_memory_of_the_future_is_begun_anew(directory):
    directory.be_busy()
    said = json.loads(json.dumps(directory.observer.remembered()))
    said["index"] += 10**6
    directory.observer = Observer.recalled(said)
    directory.look()
    directory.processes[0].call(20)
    directory.look()
    assert [value for value in directory.row()["spark"] if value is not None] == [20.0]


def test_memory_is_bounded_by_the_window(directory):
    process = directory.begin(1)
    for _ in range(60):
        process.call(1)
        directory.look()
    assert len(directory.observer.marks) <= 12
    assert len(directory.observer.tracks["db", "get"].held) <= 12
