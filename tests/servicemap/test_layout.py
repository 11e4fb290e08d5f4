"""Layers of the map: callers first, circles broken, few crossings, the same each time."""

from itertools import pairwise
from random import Random
from time import thread_time

import pytest

from groundfault.servicemap.graph import OTHER, Edge, Node, Seen, ServiceMap, draw_up
from groundfault.servicemap.layout import NODES, folded, layered


def layers(names, edges):
    return {name: place.layer for name, place in layered(names, edges).items()}


@pytest.mark.parametrize(
    ("edges", "found"),
    [
        ([], {}),
        ([("a", "b"), ("b", "c")], {"a": 0, "b": 1, "c": 2}),
        ([("a", "b"), ("b", "c"), ("a", "c")], {"a": 0, "b": 1, "c": 2}),  # the longest path
        ([("a", "b"), ("b", "a")], {"a": 0, "b": 1}),
        ([("a", "a")], {"a": 0}),
        ([("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")], {"a": 0, "b": 1, "c": 2, "d": 3}),
        ([("z", "b"), ("b", "a"), ("a", "b")], {"z": 0, "b": 1, "a": 2}),  # from whom nobody calls
        ([("a", "b"), ("c", "d")], {"a": 0, "b": 1, "c": 0, "d": 1}),
        ([("a", "b"), ("a", "b"), ("b", "b")], {"a": 0, "b": 1}),
    ],
)
def test_each_node_stands_below_its_lowest_caller(edges, found):
    assert layers({name for edge in edges for name in edge}, edges) == found


def test_edges_of_unknown_names_are_ignored():
    assert layers(["a"], [("a", "b"), ("c", "a")]) == {"a": 0}


@pytest.mark.parametrize("seed", range(20))
def test_only_edges_of_circles_lead_back_and_places_are_unique(seed):
    random = Random(seed)
    names = [f"s{number}" for number in range(40)]
    edges = [(random.choice(names), random.choice(names)) for _ in range(70)]
    places = layered(names, edges)
    assert len(set(places.values())) == len(names)
    for layer in {place.layer for place in places.values()}:
        rows = sorted(place.row for place in places.values() if place.layer == layer)
        assert rows == list(range(len(rows)))
    reached = {name: reach(name, edges) for name in names}
    for caller, callee in edges:
        if places[callee].layer <= places[caller].layer:
            assert caller == callee or caller in reached[callee]


def reach(begin, edges):
    found, todo = set(), [begin]
    while todo:
        name = todo.pop()
        for caller, callee in edges:
            if caller == name and callee not in found:
                found.add(callee)
                todo.append(callee)
    return found


def test_the_order_of_what_is_given_changes_nothing():
    random = Random(1)
    names = [f"s{number}" for number in range(60)]
    edges = [(random.choice(names), random.choice(names)) for _ in range(150)]
    first = layered(names, edges)
    random.shuffle(names)
    random.shuffle(edges)
    assert layered(names, edges) == first


def test_crossings_are_taken_away_where_they_can_be():
    edges = [("a1", "b3"), ("a2", "b2"), ("a3", "b1")]
    places = layered({name for edge in edges for name in edge}, edges)
    upper = [callee for _, callee in sorted((places[caller].row, callee) for caller, callee in edges)]
    assert [places[callee].row for callee in upper] == sorted(places[callee].row for callee in upper)


def test_hostile_names_are_names():
    names = ['<img src=x onerror="alert(1)">', '";alert(1)//', "\x00\x1b[2J", "\u202egnp", "x" * 5000, ""]
    edges = [*pairwise(names), (names[-1], names[0])]
    assert sorted(layers(names, edges).values()) == list(range(len(names)))


def test_a_thousand_edges_and_a_chain_as_long_as_that_are_laid_out_in_a_moment():
    random = Random(3)
    names = [f"s{number:04}" for number in range(1000)]
    chain = list(pairwise(names))
    wild = [(random.choice(names[:150]), random.choice(names[:150])) for _ in range(1000)]
    took = []
    for edges in (chain, wild):
        before = thread_time()
        layered(names, edges)
        took.append(thread_time() - before)
    assert max(took) < 1.0  # some milliseconds
    assert layers(names, chain)[names[-1]] == 999


def test_the_least_used_of_many_nodes_are_one_and_it_is_said():
    calls = {("hub", f"r{number:03}"): {"success": 1000 - number} for number in range(400)}
    calls[OTHER, "r399"] = {"success": 1}
    drawn = folded(draw_up(Seen(calls=calls, span_s=10.0)))
    assert len(drawn.nodes) == NODES
    names = [node.name for node in drawn.nodes]
    assert "hub" in names
    assert "r000" in names
    assert "r399" not in names
    assert drawn.notes == (f"{402 - 1 - (NODES - 1)} nodes beyond the {NODES - 1} most used are folded into {OTHER}",)
    assert sum(edge.volume for edge in drawn.edges) == sum(sum(each.values()) for each in calls.values())
    assert all(edge.caller in names and edge.callee in names for edge in drawn.edges)


def test_waits_of_folded_edges_are_means_by_requests():
    nodes = tuple(Node(name, "service") for name in ("a", "b", "c"))
    edges = (
        Edge("a", "b", None, {}, {"admitted": 30}, 1.0),
        Edge("a", "c", None, {}, {"admitted": 10}, 2.0),
    )
    [edge] = folded(ServiceMap(nodes, edges, 10.0), 2).edges
    assert (edge.caller, edge.callee, edge.requests, edge.wait_s) == ("a", OTHER, {"admitted": 40}, 1.25)


def test_a_small_map_is_left_as_it_is():
    drawn = draw_up(Seen(calls={("a", "b"): {"success": 1}}))
    assert folded(drawn) is drawn
