"""The map, drawn together from both ends of each edge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.servicemap.graph import OTHER, OUTSIDE, Seen, draw_up

NAMES = st.sampled_from(["topps", "grouper", "saber", "contest-db", "a.b"])
COUNTS = st.dictionaries(st.sampled_from(["success", "failure", "shed"]), st.integers(0, 1000), min_size=1)
RESULTS = st.dictionaries(st.sampled_from(["admitted", "shed"]), st.integers(0, 1000), min_size=1)
LABELS = st.one_of(NAMES, st.builds("{}/{}.{}".format, NAMES, NAMES, st.sampled_from(["get", "get.all"])))


def edges_of(seen, **options):
    return {(edge.caller, edge.callee): edge for edge in draw_up(seen, **options).edges}


def notes_of(drawn, name):
    return " ".join(note for node in drawn.nodes for note in node.notes if node.name == name)


def test_both_ends_of_an_edge_become_one():
    seen = Seen(
        calls={("topps", "saber"): {"success": 90, "shed": 10}},
        requests={
            ("topps/saber.get", "saber"): {"admitted": 60},
            ("topps/saber.list", "saber"): {"admitted": 30, "shed": 10},
        },
        waits_s={("topps/saber.get", "saber"): 1.0, ("topps/saber.list", "saber"): 3.0},
        totals={"saber": {"admitted": 90, "shed": 10}},
    )
    (edge,) = draw_up(seen).edges
    assert (edge.caller, edge.callee, edge.resource) == ("topps", "saber", "saber")
    assert edge.calls == {"success": 90, "shed": 10}
    assert edge.requests == {"admitted": 90, "shed": 10}
    assert edge.wait_s == pytest.approx(0.04)
    assert edge.notes == ()


def test_the_label_tells_which_service_a_resource_is():
    seen = Seen(
        calls={("topps", "contest-api"): {"success": 5}},
        requests={("topps/contest-api.get", "saber"): {"admitted": 5}},
        totals={"saber": {"admitted": 5}},
    )
    (edge,) = draw_up(seen).edges
    assert (edge.callee, edge.resource, edge.calls) == ("saber", "contest-api", {"success": 5})


def test_a_resource_that_is_two_services_is_divided_as_their_requests_are():
    seen = Seen(
        calls={("topps", "api"): {"success": 40}},
        requests={("topps/api.a", "left"): {"admitted": 30}, ("topps/api.b", "right"): {"admitted": 10}},
    )
    edges = edges_of(seen)
    assert edges["topps", "left"].calls == {"success": 30}
    assert edges["topps", "right"].calls == {"success": 10}
    assert "stands for 2 services" in edges["topps", "left"].notes[0]


def test_a_name_with_dots_is_split_as_its_caller_does():
    seen = Seen(calls={("a", "x.y"): {"success": 1}}, requests={("a/x.y.get.all", "s"): {"admitted": 1}})
    (edge,) = draw_up(seen).edges
    assert edge.resource == "x.y"


def test_a_caller_that_names_no_resource_is_joined_by_the_name_of_the_service():
    seen = Seen(calls={("a", "s"): {"success": 4}}, requests={("a", "s"): {"admitted": 4}})
    (edge,) = draw_up(seen).edges
    assert (edge.calls, edge.requests, edge.resource) == ({"success": 4}, {"admitted": 4}, "s")


SILENT = [
    pytest.param(
        Seen(calls={("topps", "redis"): {"success": 3}}),
        "redis",
        "does not report",
        id="a callee without GroundFault",
    ),
    pytest.param(
        Seen(requests={("legacy", "saber"): {"admitted": 3}}, totals={"saber": {"admitted": 3}}),
        "legacy",
        "only its name is known",
        id="a caller that does not report",
    ),
    pytest.param(
        Seen(totals={"saber": {"admitted": 3}}),
        OUTSIDE,
        "a hop without GroundFault",
        id="requests without a caller",
    ),
    pytest.param(
        Seen(calls={("cron", "redis"): {"success": 3}}),
        "cron",
        "serves nobody",
        id="a job that only calls",
    ),
]


@pytest.mark.parametrize(("seen", "name", "said"), SILENT)
def test_where_one_end_is_silent_the_map_says_why(seen, name, said):
    assert said in notes_of(draw_up(seen), name)


def test_a_callee_that_does_not_know_its_caller_says_what_may_be_the_matter():
    seen = Seen(calls={("cron", "saber"): {"success": 3}}, totals={"saber": {"admitted": 3}})
    edge = edges_of(seen)["cron", "saber"]
    assert "trusted_callers of saber" in edge.notes[0]


def test_a_caller_whose_calls_go_past_its_commands_is_told():
    seen = Seen(
        calls={("topps", "redis"): {"success": 3}},
        requests={("topps", "saber"): {"admitted": 9}},
        totals={"saber": {"admitted": 9}},
    )
    assert "go past its commands" in edges_of(seen)["topps", "saber"].notes[0]


def test_beyond_the_limit_the_least_used_edges_are_folded_and_nothing_is_lost():
    calls = {("topps", f"r{number}"): {"success": number} for number in range(1, 11)}
    drawn = draw_up(Seen(calls=calls), limit=3)
    assert len(drawn.edges) == 4
    assert [edge.calls for edge in drawn.edges if edge.callee == OTHER] == [{"success": sum(range(1, 8))}]
    assert drawn.notes == (f"7 edges beyond the 3 most used are folded into {OTHER}",)


def test_many_callers_beyond_the_limit_become_one_edge():
    drawn = draw_up(Seen(requests={(f"c{number}", "s"): {"admitted": 1} for number in range(5000)}), limit=10)
    assert len(drawn.edges) == 11
    assert sum(edge.volume for edge in drawn.edges) == 5000


@given(
    st.dictionaries(st.tuples(NAMES, NAMES), COUNTS),
    st.dictionaries(st.tuples(LABELS, NAMES), RESULTS),
    st.integers(1, 9),
)
def test_no_call_and_no_request_is_lost_or_doubled(calls, requests, limit):
    drawn = draw_up(Seen(calls=calls, requests=requests), limit=limit)
    assert sum(sum(edge.calls.values()) for edge in drawn.edges) == pytest.approx(
        sum(sum(c.values()) for c in calls.values())
    )
    assert sum(sum(edge.requests.values()) for edge in drawn.edges) == sum(sum(c.values()) for c in requests.values())
    names = {node.name for node in drawn.nodes}
    assert {edge.caller for edge in drawn.edges} | {edge.callee for edge in drawn.edges} <= names


def test_what_came_between_two_looks():
    earlier = Seen(calls={("a", "b"): {"success": 10}}, waits_s={("a", "b"): 1.0}, totals={"b": {"admitted": 50}})
    later = Seen(
        calls={("a", "b"): {"success": 16, "shed": 2}}, waits_s={("a", "b"): 1.5}, totals={"b": {"admitted": 7}}
    )
    between = later.since(earlier, 2.0)
    assert between.calls == {("a", "b"): {"success": 6, "shed": 2}}
    assert between.waits_s == {("a", "b"): 0.5}
    assert between.totals == {"b": {"admitted": 7}}  # it has begun anew: all of it came between
    assert between.span_s == 2.0


def test_json_gives_rates_only_with_a_span():
    calls = {("a", "b"): {"success": 30}}
    assert draw_up(Seen(calls=calls)).as_dict()["edges"][0]["rate_per_s"] is None
    assert draw_up(Seen(calls=calls, span_s=10.0)).as_dict()["edges"][0]["rate_per_s"] == 3.0
