"""What is sent to a hub: read if it makes sense, refused with a reason if not, and never able to do harm."""

import gzip
import json
from zlib import crc32

import pytest
from hub_reports import START, pushed, report_of
from hypothesis import given
from hypothesis import strategies as st

from groundfault.console.hub.accepting import LARGEST, UnreadableError, accepted, is_host, unpacked
from groundfault.metrics._coding import encode
from groundfault.metrics.report import StoreReport


def written(said, version=1):
    """Return a report as somebody wrote it who knows the format, whatever it says."""
    body = json.dumps(said).encode()
    return json.dumps({"version": version, "crc32": crc32(body)}).encode() + b"\n" + body


def said_by(calls=None, **more):
    """Return what a plain report says, with fields of another value."""
    text = encode(report_of(calls or {"get": 3}), host="web-1", title="topps", directory="/run/topps", sent_at=START)
    return {**json.loads(text.partition(b"\n")[2]), **more}


def test_a_report_comes_with_who_sent_it_when():
    arrival = accepted(pushed({"get": 3}, at=START, later="what a later release adds"))
    assert arrival[:5] == ("web-1", "topps", "/run/topps", "0.1.0", START)
    assert arrival.report.commands["db", "get"].calls == {"success": 3}
    assert accepted(gzip.decompress(pushed({"get": 3}))).host == "web-1"


def test_what_is_not_said_is_not_known():
    arrival = accepted(encode(report_of({"get": 1}), host="web-1"))
    assert arrival[:5] == ("web-1", "topps", "", None, None)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is no report"),
        (b"\x00\xff" * 40, "it is no report"),
        (b"[]\n[]", "it is no report"),
        (b"[" * 100_000, "it is no report"),
        (pushed({"get": 1})[:-9], "ends before it is whole"),
        (pushed({"get": 1})[:40] + bytes(200), "damaged"),
        (gzip.compress(b"0" * (LARGEST + 1)), f"at most {LARGEST} bytes when it is unpacked"),
        (written([]), "it is no report"),
        (written(said_by(host="web 1")), "host must match"),
        (written(said_by(host="<img onerror=x>")), "host must match"),
        (written(said_by(host=None)), "host must match"),
        (written(said_by(host="x" * 65)), "host must match"),
        (written(said_by(commands=[["db", "get"]])), "no report"),
        (written(said_by(commands=[["db", "get", {"success": -1}, {}, {}, 0, 5, 0]])), "from 0 to"),
        (written(said_by(commands=[["db", "get", {"success": 1.5}, {}, {}, 0, 5, 0]])), "from 0 to"),
        (written(said_by(commands=[["db", "get", {"success": True}, {}, {}, 0, 5, 0]])), "from 0 to"),
        (written(said_by(commands=[["db", "get", {"success": "1"}, {}, {}, 0, 5, 0]])), "no report"),
        (written(said_by(commands=[["db", "get", {"success": 2**63}, {}, {}, 0, 5, 0]])), "from 0 to"),
        (written(said_by(commands=[["db", "get", {}, {"success": [float("nan"), 3, 1]}, {}, 0, 5, 0]])), "finite"),
        (written(said_by(commands=[["db", "get", {}, {"success": [10**400, 3, 1]}, {}, 0, 5, 0]])), "no report"),
        (written(said_by(commands=[["db", "get", {}, {"success": [1.0, 999, 1]}, {}, 0, 5, 0]])), "buckets"),
        (written(said_by(commands=[["db", "get", {}, {"success": [1.0, "3", 1]}, {}, 0, 5, 0]])), "buckets"),
        (written(said_by(commands=[["db", "get", {str(n): 1 for n in range(99)}, {}, {}, 0, 5, 0]])), "at most 40"),
        (written(said_by(processes=[["7", "topps", START]])), "no report"),
        (written(said_by(processes=[[7, 3, START]])), "a text"),
        (written(said_by(processes=[[7, "topps", float("inf")]])), "finite"),
        (written(said_by(processes=[[n, "topps", START] for n in range(2001)])), "at most 2000 processes, not 2001"),
        (written(said_by(processes=[[7, "topps", START, [["store", 3, 1.0]]]])), "no report"),
    ],
)
def test_what_is_no_report_is_refused_with_a_reason(data, why):
    with pytest.raises(UnreadableError, match=why):
        accepted(data)


def test_a_format_of_another_version_says_whose_it_is():
    with pytest.raises(UnreadableError, match="its format has version '2', not 1") as caught:
        accepted(gzip.compress(written({"host": "web-9", "commands": "in another way"}, version=2)))
    assert caught.value.host == "web-9"
    with pytest.raises(UnreadableError) as caught:
        accepted(written({"host": "<b>"}, version=2))
    assert caught.value.host is None


def test_a_bomb_is_not_unpacked_any_further_than_it_may():
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 60_000
    with pytest.raises(UnreadableError, match="at most 1000 bytes"):
        unpacked(bomb, 1000)
    assert unpacked(gzip.compress(b"x" * 1000), 1000) == b"x" * 1000


@given(st.binary(max_size=300))
def test_whatever_bytes_are_sent_only_that_error_comes(data):
    with pytest.raises(UnreadableError):
        accepted(data)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda some: st.lists(some, max_size=4) | st.dictionaries(st.text(max_size=5), some, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(["commands", "servers", "stores", "errors", "processes", "edges", "title"]), JSON_VALUES)
def test_whatever_is_said_in_a_known_place_it_is_read_or_that_error_comes(name, value):
    try:
        arrival = accepted(written(said_by(**{name: value})))
    except UnreadableError:
        return
    encode(arrival.report)  # and what was read can be written


def test_hostile_names_are_cut_and_cleaned():
    report = report_of({"\x1b[31m\u202eget" + "x" * 500: 3})
    report.stores["st\x00re"] = StoreReport("st\x00re", {"v\n1": 1})
    report.internal_errors["a\nb"] = 1
    arrival = accepted(encode(report, host="web-1", title="to\npps"))
    ((_, command),) = arrival.report.commands
    assert command == "\ufffd[31m\ufffdget" + "x" * (200 - 9)
    assert arrival.service == "to\ufffdpps"
    assert list(arrival.report.stores) == ["st\ufffdre"]
    assert list(arrival.report.internal_errors) == ["a\ufffdb"]
    assert all("\ufffd" in resource or resource == "db" for _, resource, _ in arrival.report.edges)


@pytest.mark.parametrize(
    ("name", "known"), [("web-1.eu_2", True), ("", False), ("a" * 65, False), ("ä", False), (3, False)]
)
def test_what_a_host_may_be_called(name, known):
    assert is_host(name) is known
