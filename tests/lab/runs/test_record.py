"""run.json: that it comes back as it was written, and that everything else is refused with its place."""

import json
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_runs import full_run, stream

from groundfault.lab.runs.record import Check, Mark, Run, RunError, Verdict


def minimal(**changes):
    fields = {"name": "n", "title": "t", "source": "locust", "seconds": 4, "deadline_s": 1.0, "streams": [stream()]}
    return Run(**{**fields, **changes})


def test_it_comes_back_as_it_was_written(tmp_path):
    run = full_run()
    run.write(tmp_path / "run.json")
    back = Run.read(tmp_path / "run.json")
    assert back == run
    assert back.streams[0].histogram(0, 4) == run.streams[0].histogram(0, 4)


def test_the_same_run_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        full_run().write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


counts = st.lists(st.integers(0, 2**40), min_size=3, max_size=3)
maybe = st.lists(st.none() | st.floats(0, 1e6), min_size=3, max_size=3)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


@st.composite
def runs(draw):
    fates = {name: draw(counts) for name in ("due", "sent", "arrived", "good", "late", "shed", "failed", "unsent")}
    one = stream(draw(texts), innocent=draw(st.booleans()), seconds=3, **fates)
    return minimal(
        title=draw(texts),
        variant=draw(texts),
        seconds=3,
        streams=[one],
        deadline_s=draw(st.floats(0.001, 100)),
        capacity_rps=draw(st.none() | st.floats(0, 1e9)),
        spans={draw(texts): (0.0, draw(st.floats(0, 1e6)))},
        marks=[Mark(t=draw(st.floats(-1e6, 1e6)), text=draw(texts))],
        void=draw(st.lists(texts, max_size=2)),
        settings=draw(st.dictionaries(texts, st.none() | st.integers() | texts | maybe, max_size=3)),
    )


@given(runs())
def test_any_run_comes_back(run):
    assert Run.from_dict(json.loads(json.dumps(run.as_dict()))) == run


def test_what_a_later_release_added_is_passed_over():
    said = json.loads(json.dumps(full_run().as_dict()))
    said["weather"] = "fair"
    said["streams"][0]["color"] = "red"
    assert Run.from_dict(said) == full_run()


def test_what_an_earlier_release_did_not_have_gets_its_default():
    said = minimal().as_dict()
    for name in ("spans", "marks", "services", "edges", "checks", "void", "settings", "versions", "variant"):
        del said[name]
    assert Run.from_dict(said) == minimal()


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("format",), "har", 'it is no run: "format" must be "groundfault-run"'),
        (("version",), 2, "version must be 1, not 2"),
        (("version",), True, "version must be 1, not True"),
        (("seconds",), 0, "seconds must be a whole number from 1 to 604800, not 0"),
        (("seconds",), 10**9, "seconds must be a whole number from 1 to 604800, not 1000000000"),
        (("seconds",), 4.0, "seconds must be a whole number, not 4.0"),
        (("seconds",), True, "seconds must be a whole number, not True"),
        pytest.param(("seconds",), 10**5000, "seconds must be a whole number, not a number that long", id="digits"),
        pytest.param(("version",), 10**5000, "version must be 1, not a number that long", id="version-digits"),
        (("name",), 7, "name must be a text, not 7"),
        (("name",), "\ud800", "name must be a text that UTF-8 can write"),
        (("title",), None, "title must be a text, not None"),
        (("deadline_s",), 0, "deadline_s must be above 0, not 0"),
        (("deadline_s",), float("nan"), "deadline_s must be a number, not nan"),
        pytest.param(("deadline_s",), 10**400, "deadline_s must be a number, not 1000", id="huge"),
        (("capacity_rps",), -1, "capacity_rps must be at least 0, not -1"),
        (("capacity_rps",), 1e308, "capacity_rps must be a number, not 1e+308"),
        (("capacity_rps",), "lots", "capacity_rps must be a number, not 'lots'"),
        (("streams",), {}, "streams must be a list, not an object"),
        (("streams", 0), [], "streams[0] must be an object, not a list"),
        (("streams", 0, "due"), [1, 2], "streams[0].due must hold 4 values, one for each second, not 2"),
        (("streams", 0, "due"), [], "streams[0].due must hold 4 values, one for each second, not 0"),
        (("streams", 0, "due"), [1, 2, "3", 4], "streams[0].due[2] must be a whole number, not '3'"),
        (("streams", 0, "due"), [1, 2, None, 4], "streams[0].due[2] must be a whole number, not None"),
        (("streams", 0, "good"), [1, 2, -3, 4], "streams[0].good[2] must be at least 0, not -3"),
        (("streams", 0, "innocent"), "no", "streams[0].innocent must be true or false, not 'no'"),
        (("streams", 0, "p99_ms"), [None, 1, float("inf"), 1], "streams[0].p99_ms[2] must be a number, not inf"),
        (("streams", 0, "latencies"), {"4": {"1": 1}}, "latencies: '4' must be a second of the run, from 0 to 3"),
        (("streams", 0, "latencies"), {"٣": {"1": 1}}, "must be a second of the run"),
        (("streams", 0, "latencies"), {"0": {"72": 1}}, "latencies.0: '72' must be a bucket from 0 to 71"),
        (("streams", 0, "latencies"), {"0": {"7": -1}}, "latencies.0.7 must be at least 0, not -1"),
        (("streams", 0, "latencies"), {"0": 1}, "streams[0].latencies.0 must be an object, not 1"),
        (("streams", 1, "name"), "fan", "streams[1]: 'fan' is there twice"),
        (("spans",), [], "spans must be an object, not a list"),
        (("spans", "spike"), [1], "spans.spike must be a list of 2 values, not a list"),
        (("spans", "spike"), [3, 1], "spans.spike must go from at least 0 to no earlier, not from 3 to 1"),
        (("marks", 0, "t"), None, "marks[0].t must be a number, not None"),
        (("services", 0, "shed"), [1], "services[0].shed must hold 4 values"),
        (("edges", 0, "trips"), ["x"], "edges[0].trips[0] must be a number, not 'x'"),
        (("edges", 0, "open"), [[2, 1]], "edges[0].open[0] must end no earlier than 2, not at 1"),
        (("edges", 0, "open"), [7], "edges[0].open[0] must be a list of 2 values, not 7"),
        (("checks", 0, "at_most"), 1, "checks[0] must have at_least or at_most, not both"),
        (("void",), "busy", "void must be a list, not 'busy'"),
        (("void",), [7], "void[0] must be a text, not 7"),
        (("settings",), [], "settings must be an object, not a list"),
        (("versions", "python"), 3, "versions.python must be a text, not 3"),
    ],
)
def test_what_is_no_run_is_refused_with_its_place(place, value, words):
    said = deepcopy(full_run().as_dict())
    at = said
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    with pytest.raises(RunError) as caught:
        Run.from_dict(said)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_field_without_a_default_must_be_there():
    said = full_run().as_dict()
    del said["streams"][1]["due"]
    with pytest.raises(RunError, match=r"^streams\[1\]\.due is missing$"):
        Run.from_dict(said)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "it is no run"),
        (b"null", "it is no run"),
        (b'{"format": "groundfault-run", "version": 1, "deadline_s": NaN}', "NaN is no number"),
        (b"1" * 5000, "is not JSON"),
    ],
)
def test_a_file_that_is_no_run_is_named(content, words, tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        Run.read(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def places(said, so_far=()):
    """Yield the way to each value of a document."""
    steps = said.items() if isinstance(said, dict) else enumerate(said) if isinstance(said, list) else ()
    for step, value in steps:
        yield (*so_far, step)
        yield from places(value, (*so_far, step))


SAID = json.loads(json.dumps(full_run().as_dict()))
PLACES = list(places(SAID))


@given(st.sampled_from(PLACES), json_values)
def test_whatever_stands_somewhere_in_it_is_read_or_refused(place, value):
    said = deepcopy(SAID)
    at = said
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    try:
        run = Run.from_dict(said)
    except RunError:
        return
    assert Run.from_dict(run.as_dict()) == run


@pytest.mark.parametrize(
    ("value", "at_least", "at_most", "met"),
    [
        (1.0, None, None, None),
        (None, None, None, None),
        (None, 0.0, None, False),
        (None, None, 0.0, False),
        (0.85, 0.85, None, True),
        (0.84, 0.85, None, False),
        (4.0, None, 4.0, True),
        (4.1, None, 4.0, False),
    ],
)
def test_when_a_bound_is_met(value, at_least, at_most, met):
    assert Check(measure="m", title="t", value=value, at_least=at_least, at_most=at_most).met is met


def test_the_verdict():
    missed = Check(measure="m", title="t", value=0.1, at_least=0.2)
    assert minimal().verdict is Verdict.PASSED
    assert minimal(checks=[missed]).verdict is Verdict.FAILED
    assert minimal(checks=[missed], void=["busy"]).verdict is Verdict.VOID
