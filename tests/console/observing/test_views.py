"""The whole view: its form, its sentence, several services in one, what it leaves out, what is remembered of it."""

import json
from typing import Literal, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from groundfault.console.observing import Observer
from groundfault.console.view import POINTS, View
from groundfault.console.views import COMMANDS, view_of
from groundfault.metrics.report import CommandReport, ProcessInfo, Report

HOSTILE = [
    '<img src=x onerror="alert(1)">',
    '";alert(1)//',
    "a|b",
    "\\|",
    "\x00\x1b[2J",
    "\u202egnp",
    "x" * 200,
    "\ud800",
]


def conform(value, kind, where="view"):
    """Check a value against a type, down to the last field."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        hints = get_type_hints(kind, include_extras=True)
        wanted = {name for name, hint in hints.items() if get_origin(hint) is not NotRequired}
        assert wanted <= value.keys() <= hints.keys(), f"{where}: {value.keys() ^ hints.keys()}"
        for name, each in value.items():
            hint = hints[name]
            conform(each, get_args(hint)[0] if get_origin(hint) is NotRequired else hint, f"{where}.{name}")
    elif origin is Literal:
        assert value in arguments, where
    elif origin is list:
        assert isinstance(value, list), where
        for number, each in enumerate(value):
            conform(each, arguments[0], f"{where}[{number}]")
    elif origin is dict:
        for key, each in value.items():
            conform(key, arguments[0], f"{where} key")
            conform(each, arguments[1], f"{where}[{key!r}]")
    elif arguments:  # a union
        assert any(fits(value, each) for each in arguments), f"{where}: {value!r}"
    else:
        assert fits(value, kind), f"{where}: {value!r} is no {kind}"


def fits(value, kind):
    if kind in {float, int}:
        return isinstance(value, kind | int) and not isinstance(value, bool)
    return isinstance(value, kind)


@pytest.mark.parametrize("state", ["nothing seen", "nothing counted", "one look", "busy", "recalled"])
def test_a_view_has_the_form_that_was_agreed_upon(directory, state):
    if state == "nothing counted":
        directory.observer.see(Report(), directory.now)
    elif state == "one look":
        directory.begin(1).call(3)
        directory.look()
    elif state in {"busy", "recalled"}:
        directory.be_busy()
    if state == "recalled":
        directory.observer = Observer.recalled(json.loads(json.dumps(directory.observer.remembered())))
    view = directory.view()
    conform(view, View)
    json.dumps(view, allow_nan=False)
    for row in (*view["commands"], *view["servers"], view["headline"]):
        assert len(row["spark"]) == POINTS
        assert len(row["bad"]) in {0, POINTS}


def test_a_view_of_nothing_says_so(directory):
    assert directory.view()["unknown"] == ["nothing has been read of topps yet"]
    directory.observer.see(Report(), directory.now)
    assert directory.view()["headline"]["words"] == "nothing has been counted yet"
    assert directory.view()["headline"]["level"] == "ok"


def test_what_is_not_known_is_not_called_well(directory):
    process = directory.begin(1)
    directory.look()
    process.call(100)
    directory.look()
    view = directory.view(unknown=["/run/shop cannot be read: it belongs to somebody else"])
    assert (view["headline"]["level"], view["headline"]["words"]) == (
        "warn",
        "1 thing is not known; nothing else is wrong",
    )


def test_a_quiet_view_says_that_nothing_is_wrong(directory):
    process = directory.begin(1)
    directory.look()
    process.call(100)
    directory.look()
    headline = directory.view()["headline"]
    assert headline["words"] == "nothing is wrong"
    assert (headline["rate_per_s"], headline["goodput_per_s"]) == (100.0, 100.0)
    assert headline["wait_p99_s"] is None


def test_the_headline_of_a_bad_moment_names_the_worst_first(directory):
    directory.be_busy()
    view = directory.view()
    headline = view["headline"]
    assert headline["words"] == (
        "topps sheds 60 % of its requests; 2 circuits are open; 1 of 2 processes is not at the newest settings; "
        "2 of 2 processes report nothing"
    )
    assert headline["level"] == "bad"
    assert (headline["open_circuits"], headline["version"], headline["shed_share"]) == (2, "2-b", 0.6)
    assert (headline["rate_per_s"], headline["goodput_per_s"]) == pytest.approx((100.0, 40.0))
    assert max(value or 0.0 for value in headline["bad"]) == pytest.approx(60.0)
    assert view["internal_errors"] == {"sink": 2}
    assert "9-00ff00ff00ff00ff.json says nothing: it is damaged" in view["unknown"]
    assert [row["id"] for row in view["commands"]] == ["topps|db|get", "topps|saber|put"]
    assert view["commands"][0]["why"][:2] == ["circuit open", "80 % of the calls failed"]


def test_a_command_without_an_open_circuit_that_fails_is_named(directory):
    process = directory.begin(1)
    directory.look()
    process.call(50, "failure")
    directory.look()
    assert directory.view()["headline"]["words"] == "db/get: 100 % of the calls failed"


def test_commands_are_sorted_by_trouble(directory):
    process = directory.begin(1)
    for name in "abc":
        process.call(1, name=name)
    directory.look()
    process.call(100, "shed", name="b")
    process.call(50, "failure", name="c")
    directory.look()
    assert [row["command"] for row in directory.view()["commands"]] == ["c", "b", "a"]


def test_services_stand_together_and_their_points_are_summed(directory):
    other = type(directory)()
    other.observer = Observer("grouper")
    mine, theirs = directory.begin(1), other.begin(1, service="grouper")
    for each in (directory, other):
        each.look()
    for _ in range(6):
        mine.request(10)
        theirs.request(5)
        mine.call(2)
        theirs.call(1)
        for each in (directory, other):
            each.look()
    view = directory.view(other.observer)
    assert [row["service"] for row in view["servers"]] == ["grouper", "topps"]
    assert {row["id"] for row in view["commands"]} == {"topps|db|get", "grouper|db|get"}
    assert [value for value in view["headline"]["spark"] if value is not None] == [15.0] * 3
    assert view["headline"]["processes"] == 2


def test_services_that_are_called_the_same_have_ids_of_their_own(directory):
    other = type(directory)()
    for each in (directory, other):
        each.begin(1).call(1)
        each.look()
        each.begin(2)
        each.look()
    view = directory.view(other.observer)
    assert len({row["id"] for row in view["commands"]}) == 2
    assert len({each["id"] for each in view["timeline"]}) == len(view["timeline"]) == 2


def test_hostile_names_go_through_as_they_are_and_ids_stay_unique(directory):
    process = directory.begin(1)
    for resource in HOSTILE:
        for name in HOSTILE:
            process.call(1, resource=resource, name=name)
    directory.look()
    process.call(50, "failure", resource=HOSTILE[0], name=HOSTILE[6])
    directory.look()
    view = directory.view()
    assert len({row["id"] for row in view["commands"]}) == len(HOSTILE) ** 2
    assert {row["resource"] for row in view["commands"]} == set(HOSTILE)
    assert len(view["headline"]["words"]) < 200
    json.dumps(view, allow_nan=False)


def test_of_too_many_commands_the_least_used_are_left_out(directory):
    process = directory.begin(1)
    for number in range(COMMANDS + 7):
        process.call(1, name=f"c{number:04}")
    directory.look()
    for number in range(COMMANDS + 7):
        process.call(1 if number < 7 else 2, name=f"c{number:04}")
    process.call(1, "timeout", name="c0000")
    directory.look()
    view = directory.view()
    assert (len(view["commands"]), view["hidden"]) == (COMMANDS, 7)
    assert view["headline"]["commands"] == COMMANDS + 7
    names = {row["command"] for row in view["commands"]}
    assert "c0000" in names
    assert not names & {f"c{number:04}" for number in range(1, 7)}


def test_numbers_that_json_cannot_hold_are_left_out():
    report = Report(processes=[ProcessInfo(1, "s", 1000.0)])
    report.add_command(
        CommandReport("db", "get", states={"closed": 1}, settings={"timeout_s": float("inf"), "slow_call_s": 1.0})
    )
    observer = Observer()
    observer.see(report, 1000.0)
    fixed = {"title": "", "host": "", "release": "", "sequence": 0, "interval_s": 1.0}
    view = view_of([observer], now=1000.0, kind="process", **fixed, unknown=["the store is not known"])
    json.dumps(view, allow_nan=False)
    assert view["commands"][0]["settings"] == {"slow_call_s": 1.0}
    assert view["commands"][0]["service"] == "s"
    assert view["unknown"] == ["the store is not known"]


def test_a_whole_service_that_is_behind_another_one_is_counted(directory):
    other = type(directory)()
    for each, version in ((directory, "2-b"), (other, "1-a")):
        process = each.begin(1)
        process.stores = {"file:s": "1-a"}
        each.look()
        process.stores = {"file:s": version}
        each.look()
        each.look()
    [store] = directory.view(other.observer)["stores"]
    assert (store["newest"], store["behind"], store["lag_s"]) == ("2-b", 1, 1.0)


def test_the_map_says_who_suffers_and_who_sheds(directory):
    other = type(directory)()
    other.observer = Observer("grouper")
    caller, callee = directory.begin(1), other.begin(2, service="grouper")
    callee.request(1)
    for each in (directory, other):
        each.look()
    for _ in range(5):
        caller.call(50, resource="grouper")
        caller.call(50, "shed", resource="grouper")
        caller.call(30, resource="wallet")
        caller.request(100)
        callee.request(50)
        callee.request(50, "queue-wait")
        for each in (directory, other):
            each.look()
        server = other.processes[0].written.servers["grouper"]
        server.callers = {}
    view = directory.view(other.observer)
    nodes = {node["name"]: node for node in view["map"]["nodes"]}
    assert set(nodes) == {"(no name)", "topps", "grouper", "wallet"}
    assert (nodes["topps"]["suffers"], nodes["topps"]["sheds"]) == (True, False)
    assert (nodes["grouper"]["sheds"], nodes["grouper"]["level"]) == (True, "bad")
    assert nodes["grouper"]["notes"][0] == "sheds 50 % of its requests"
    assert (nodes["wallet"]["suffers"], nodes["wallet"]["level"]) == (False, "ok")
    assert [nodes[name]["layer"] for name in ("(no name)", "topps", "wallet", "grouper")] == [0, 1, 2, 2]
    edges = {(edge["caller"], edge["callee"]): edge for edge in view["map"]["edges"]}
    assert edges["topps", "grouper"]["rate_per_s"] == pytest.approx(100.0)
    assert edges["topps", "grouper"]["shed_share"] == 0.5
    assert edges["topps", "wallet"]["level"] == "ok"


def test_what_was_counted_before_the_first_look_or_before_a_gap_is_no_edge_with_a_rate(directory):
    process = directory.begin(1)
    process.call(9000)
    directory.look()
    directory.look()
    assert [edge["rate_per_s"] for edge in directory.view()["map"]["edges"]] == [0.0]
    process.calls[("db", "get")] = {"success": 20}
    directory.look()
    assert [edge["rate_per_s"] for edge in directory.view()["map"]["edges"]] == [0.0]


def test_edges_of_processes_long_dead_leave_the_map(directory):
    process = directory.begin(1)
    directory.begin(2)
    directory.look()
    process.call(10)
    directory.look()
    assert directory.view()["map"]["edges"]
    directory.die(process)
    for _ in range(140):
        directory.look()
        view = directory.view()
    assert view["map"]["edges"] == []


def test_layers_are_found_anew_only_when_something_comes_or_goes(directory, monkeypatch):
    from groundfault.console import mapping  # noqa: PLC0415  to look behind it

    mapping._places.cache_clear()
    found = []
    monkeypatch.setattr(mapping, "layered", _counting(found))
    process = directory.begin(1)
    process.call(1)
    for _ in range(10):
        process.call(1)
        directory.look()
        directory.view()
    assert len(found) == 1
    process.call(1, resource="new")
    directory.look()
    directory.view()
    assert len(found) == 2


def _counting(found):
    from groundfault.servicemap.layout import layered  # noqa: PLC0415  what is counted

    def counted(names, edges):
        found.append(1)
        return layered(names, edges)

    return counted
