"""The map on the page: who suffers and who sheds, in words, in place, and as a table."""

from typing import Any

import pytest
from sample_maps import edge, node, sample_map
from sample_views import sample_view

pytestmark = pytest.mark.e2e

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    '";alert(1)//',
    "__proto__",
    "\u202egnirts",
    "tab\tnew\nline",
    "long-" * 30,
    '["topps","grouper","grouper"]',
)

NONE = "\u2013"

OVERLAPS = """
() => {
    const all = (what) => [...document.querySelectorAll(what)];
    const boxes = all(".map-label:not([hidden]), .map-node").map((each) => each.getBoundingClientRect());
    const labels = all(".map-label:not([hidden])").length;
    let over = 0;
    boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b) => {
        if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1) over++;
    }));
    return [labels, over];
}
"""


def with_map(nodes: list[Any], edges: list[Any], notes: tuple[str, ...] = ()) -> Any:
    return {**sample_view(3), "map": {"nodes": nodes, "edges": edges, "notes": list(notes)}}


def box(page: Any, name: str) -> Any:
    return page.locator(".map-node", has=page.get_by_text(name, exact=True))


def rows(page: Any) -> list[list[str]]:
    found: list[list[str]] = page.evaluate(
        "[...document.querySelectorAll('.map-table tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return found


def test_a_spike_says_in_words_who_suffers_and_who_sheds(served: Any) -> None:
    page = served.look_at(sample_view(3, spike=True))
    assert box(page, "topps").inner_text().split("\n") == ["topps", "▲ suffers"]
    assert box(page, "grouper").inner_text().split("\n") == ["grouper", "✖ sheds 62 %"]
    said = box(page, "grouper").get_attribute("aria-label")
    assert said == "grouper ✖ sheds 62 %: service, in trouble, sheds 62 %; called by 2, calls 1"
    assert "2400/s · 62 % shed\nwaits 120 ms" in page.locator(".map-label[data-end=shed]").all_inner_texts()
    served.hand(sample_view(3))
    assert box(page, "grouper").inner_text().split("\n") == ["grouper", "✓ 311/s"]
    assert page.locator(".map-label[data-end=shed]").count() == 0


def test_a_silent_end_is_dashed_and_called_so(served: Any) -> None:
    page = served.look_at(sample_view(3))
    assert "silent" in box(page, "wallet").inner_text()
    assert box(page, "wallet").evaluate("(box) => getComputedStyle(box).borderTopStyle") == "dashed"
    assert page.locator(".map-edge[data-silent]").count() == 2
    assert "wallet: does not report: a database, or somebody else's service" in page.locator(".map-notes").inner_text()


def test_the_table_says_what_the_map_draws(served: Any) -> None:
    view = sample_view(3, spike=True)
    page = served.look_at(view)
    page.locator(".map-table summary").click()
    page.wait_for_selector(".map-table tbody tr")
    assert [row[:3] for row in rows(page)] == [[e["caller"], e["callee"], e["resource"]] for e in view["map"]["edges"]]
    assert rows(page)[2] == ["topps", "grouper", "grouper", "2400/s", "0 %", "62 %", "0 %", "120 ms", ""]
    assert page.locator(".map-edge").count() == len(rows(page)) == 8
    view["map"]["edges"][2]["shed_share"] = 0.5
    del view["map"]["edges"][0]
    served.hand(view)
    assert rows(page)[1][5] == "50 %"
    assert page.locator(".map-edge").count() == len(rows(page)) == 7


def test_edges_that_lead_back_or_nowhere_else_are_drawn_round(served: Any) -> None:
    nodes = [node("a"), node("b", 1), node("c", 1, 1)]
    edges = [edge("a", "b"), edge("b", "a", back=True), edge("b", "b", back=True), edge("b", "c", back=True)]
    page = served.look_at(with_map(nodes, [*edges, edge("a", "gone"), edge("a", "b", 99.0)]))
    assert page.locator(".map-edge").count() == 4, "neither the edge to an unknown node, nor the same edge twice"
    heights = page.evaluate("[...document.querySelectorAll('.map-edge')].map((edge) => edge.getBBox().height)")
    assert heights[0] < 30
    assert all(height > 20 for height in heights[1:])
    assert page.locator(".map-label:not([hidden])").count() == 4
    assert page.evaluate(OVERLAPS) == [4, 0]


@pytest.mark.parametrize("width", [1440, 390])
def test_labels_cover_neither_boxes_nor_each_other_and_the_page_does_not_scroll_sideways(
    served: Any, width: int
) -> None:
    served.page.set_viewport_size({"width": width, "height": 900})
    for shown in (sample_view(3, spike=True)["map"], sample_map(40, 60, spike=True), sample_map(150, 300, spike=True)):
        page = served.look_at({**sample_view(3, spike=True), "map": shown})
        labels, over = page.evaluate(OVERLAPS)
        assert (labels > 0, over) == (True, 0)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        smallest = page.evaluate(
            "Math.min(...[...document.querySelectorAll('#map *')].filter((each) => each.textContent)"
            ".map((each) => parseFloat(getComputedStyle(each).fontSize)))"
        )
        assert smallest >= 11
    assert page.locator(".map-node").count() == 150
    assert page.locator(".map-edge").count() == 300


def test_an_unchanged_map_of_150_nodes_touches_nothing_but_numbers(served: Any) -> None:
    view = {**sample_view(3), "map": sample_map(150, 300)}
    page = served.look_at(view)
    page.evaluate(
        """() => {
            window.touched = [];
            new MutationObserver((all) => touched.push(...all.map((each) => each.type + " " + each.attributeName)))
                .observe(document.getElementById("map"),
                    {subtree: true, childList: true, attributes: true, characterData: true});
        }"""
    )
    served.hand(view)
    assert page.evaluate("touched") == []
    view["map"]["edges"][0]["rate_per_s"] *= 1.01
    served.hand(view)
    assert page.evaluate("touched.length") <= 4


def test_names_stay_text(served: Any) -> None:
    nodes = [node(name, number % 3, number // 3, notes=[name]) for number, name in enumerate(HOSTILE)]
    edges = [edge(HOSTILE[0], name, resource=HOSTILE[0]) for name in HOSTILE[1:]]
    page = served.look_at(with_map(nodes, edges, (HOSTILE[0],)))
    page.locator(".map-table summary").click()
    page.wait_for_selector(".map-table tbody tr")
    assert page.locator(".map-node bdi").all_text_contents() == list(HOSTILE)
    assert [row[:3] for row in rows(page)] == [[HOSTILE[0], name, HOSTILE[0]] for name in HOSTILE[1:]]
    assert page.locator("#map img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1440


def test_a_box_that_is_looked_at_brings_its_edges_forward_and_keeps_the_focus(served: Any) -> None:
    view = sample_view(3, spike=True)
    page = served.look_at(view)
    page.locator(".map-node[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    name = "document.activeElement.querySelector('bdi').textContent"
    assert page.evaluate(name) == "grouper"
    assert page.locator(".map-edge.near").count() == 3
    assert "called by topps (2400/s, 62 % shed, waits 120 ms)" in page.locator(".map-said").inner_text()
    view["map"]["nodes"].append(node("late", 4, 1))
    served.hand(view)
    assert page.evaluate(name) == "grouper"
    assert page.locator(".map-edge.near").count() == 3
    page.keyboard.press("Enter")
    page.evaluate("document.activeElement.blur()")
    assert page.locator(".map-node[aria-pressed=true]").count() == 1
    assert page.locator(".map-edge.near").count() == 3
    page.locator(".map-node[aria-pressed=true]").press("Escape")
    page.evaluate("document.activeElement.blur()")
    assert page.locator(".looking").count() == 0


def test_what_is_not_known_is_said(served: Any) -> None:
    view = with_map([], [])
    page = served.look_at(view)
    assert "No calls and no requests have been seen" in page.locator("#map").inner_text()
    served.hand({**view, "map": None})
    assert "Unknown: this view holds no map." in page.locator("#map").inner_text()
    bare = {
        "nodes": [{"name": "a"}, {"name": "b", "kind": "new", "layer": 1}],
        "edges": [{"caller": "a", "callee": "b"}],
    }
    served.hand({**view, "map": bare})
    page.locator(".map-table summary").click()
    page.wait_for_selector(".map-table tbody tr")
    assert rows(page) == [["a", "b", NONE, "rate unknown", "unknown", "unknown", "unknown", NONE, ""]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(served: Any, axe: str, scheme: str) -> None:
    served.page.emulate_media(color_scheme=scheme)
    page = served.look_at({**sample_view(3, spike=True), "map": sample_map(40, 30, spike=True)})
    page.locator(".map-table summary").click()
    page.evaluate(axe)
    found = page.evaluate("axe.run({include: ['#map', '#timeline']}).then((run) => run.violations)")
    assert [(each["id"], [bad["html"][:120] for bad in each["nodes"][:3]]) for each in found] == []
