"""What happened, on the page: in order, still or over, filtered, copied, and never moved under the reader's eyes."""

from typing import Any

import pytest
from sample_views import sample_view

pytestmark = pytest.mark.e2e

NOW = 1_763_930_000.0


def episode(name: str, ago: float, lasted: float | None, kind: str = "circuit", **more: Any) -> dict[str, Any]:
    ended = None if lasted is None else NOW - ago + lasted
    fixed = {"id": name, "kind": kind, "level": "bad", "service": "grouper", "subject": f"db/{name}", "what": "open"}
    return {**fixed, "began_at": NOW - ago, "ended_at": ended, "numbers": {}, **more}


def with_timeline(*episodes: Any, now: float = NOW) -> Any:
    return {**sample_view(3, now=now), "timeline": list(episodes)}


def shown(page: Any) -> list[str]:
    found: list[str] = page.locator(".past-list li:visible").evaluate_all("(all) => all.map((each) => each.dataset.id)")
    return found


def texts(page: Any, part: str) -> list[str]:
    found: list[str] = page.locator(f".past-list li:not([hidden]) .past-{part}").all_text_contents()
    return found


def test_an_incident_reads_newest_first_and_says_what_is_still_so(served: Any) -> None:
    page = served.look_at(sample_view(3, spike=True, now=NOW))
    assert shown(page) == ["e9", "e7", "e8"]
    assert texts(page, "when") == ["21:33:01", "21:32:55", "21:32:52"]
    assert texts(page, "lasted") == ["still, for 19 s", "still, for 25 s", "still, for 28 s"]
    assert texts(page, "kind") == ["✖ circuit", "▲ held back", "✖ shedding"]
    assert texts(page, "what")[0] == "circuit open · 3 processes, 4 trips"
    assert texts(page, "what")[2] == "shedding · refused 14,880, wait p99 310 ms"
    assert page.locator(".past-when").first.get_attribute("title") == "2025-11-23T20:33:01.000Z"
    page.get_by_role("button", name="6 h").click()
    assert shown(page) == ["e9", "e7", "e8", "e1", "e2", "e3"]
    assert texts(page, "by")[3] == "by ada@bastion: “database slow, INC-311”"
    assert texts(page, "lasted")[3:] == ["", "31 s", ""]
    marks = [page.locator(f".past-track .{kind}").count() for kind in ("open", "span", "moment")]
    assert marks == [3, 1, 2]


def test_what_ends_is_no_longer_still(served: Any) -> None:
    page = served.look_at(with_timeline(episode("a", 60, None)))
    assert texts(page, "lasted") == ["still, for 1 min"]
    served.hand(with_timeline(episode("a", 60, 45.0)))
    assert texts(page, "lasted") == ["45 s"]
    assert page.locator(".past-track .open").count() == 0


def test_entries_are_filtered_by_kind_text_and_time(served: Any) -> None:
    page = served.look_at(
        with_timeline(
            episode("a", 60, 5.0),
            episode("b", 500, 60.0, "shedding", what="shedding"),
            episode("c", 3000, 0.0, "settings", by="ada", reason="INC-311"),
            episode("d", 80_000, 10.0, "rebooting"),
        )
    )
    assert shown(page) == ["a", "b", "c"]
    page.get_by_label("circuit").uncheck()
    assert shown(page) == ["b", "c"]
    page.get_by_label("Filter what happened").fill("ADA inc-")
    assert shown(page) == ["c"]
    page.get_by_role("button", name="15 min").click()
    assert shown(page) == []
    page.get_by_role("button", name="All", exact=True).click()
    assert shown(page) == ["c"]
    page.get_by_label("Filter what happened").fill("")
    assert shown(page) == ["b", "c", "d"]
    assert texts(page, "kind")[2] == "✖ rebooting"


def test_the_time_of_an_entry_leads_there_and_back(served: Any) -> None:
    page = served.look_at(with_timeline(episode("a", 60, 5.0), episode("b", 40_000, 300.0)))
    page.get_by_role("button", name="24 h").click()
    page.locator("[data-id=b] .past-when").click()
    assert shown(page) == ["b"]
    page.get_by_role("button", name="Back to now").click()
    assert shown(page) == ["a"]


def test_what_is_shown_is_copied_as_lines_the_oldest_first(served: Any) -> None:
    cleaned = "db\ufffd2025-01-01T00:00:00.000Z | forged\ufffd"
    forged = "db\n2025-01-01T00:00:00.000Z | forged\u202e"
    page = served.look_at(
        with_timeline(
            episode("new", 10, None, subject=forged, numbers={"refused": 1200}),
            episode("old", 50, 0.0, "settings", level="ok", by="ada", reason="spike"),
        )
    )
    page.get_by_role("button", name="Copy as text").click()
    page.get_by_text("Copied", exact=True).wait_for()
    assert page.evaluate("navigator.clipboard.readText()").splitlines() == [
        "topps (web-1), 2025-11-23T19:33:20.000Z to 2025-11-23T20:33:20.000Z",
        "2025-11-23T20:32:30.000Z | at once | ok: settings | grouper | db/old | open | by ada: “spike”",
        f"2025-11-23T20:33:10.000Z | still, for 10 s | bad: circuit | grouper | {cleaned} | open | refused 1,200",
    ]
    page.evaluate("() => { navigator.clipboard.writeText = async () => { throw new Error('no'); }; }")
    page.get_by_role("button", name="Copy as text").click()
    page.locator(".past-copied").wait_for()
    assert page.locator(".past-copied").input_value().count("\n") == 3


def test_the_list_keeps_its_elements_and_the_focus_when_more_happens(served: Any) -> None:
    page = served.look_at(with_timeline(episode("b", 20, None), episode("a", 60, 5.0)))
    page.locator("[data-id=a] .past-when").focus()
    assert page.locator(".held").evaluate_all("(all) => all.map((each) => each.localName)") == ["i", "li"]
    page.evaluate("window.kept = document.querySelector('li[data-id=a]')")
    served.hand(with_timeline(episode("c", 1, None), episode("b", 20, None), episode("a", 60, 5.0)))
    assert shown(page) == ["c", "b", "a"]
    assert page.evaluate("kept.isConnected && kept.contains(document.activeElement)")
    page.locator(".past-track [data-id=b]").hover()
    assert page.locator("li.held").get_attribute("data-id") == "b"
    served.hand(with_timeline(episode("b", 20, None)))
    assert shown(page) == ["b"]
    assert page.locator(".past-track i").count() == 1


def test_at_most_500_entries_are_kept_and_names_stay_text(served: Any) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    many = [episode(f"e{number}", number, 1.0, subject=hostile) for number in range(600)]
    page = served.look_at(with_timeline(*many))
    assert page.locator(".past-list li").count() == 500
    assert texts(page, "subject")[0] == hostile
    assert page.locator("#timeline img").count() == 0


def test_what_is_not_known_is_said(served: Any) -> None:
    page = served.look_at(with_timeline())
    assert "Nothing has happened" in page.locator("#timeline").inner_text()
    view = with_timeline()
    del view["timeline"]
    served.hand(view)
    assert "Unknown: this view holds no timeline." in page.locator("#timeline").inner_text()
    served.hand(with_timeline({"began_at": NOW - 5}, {"id": "x"}, None))
    assert page.locator(".past-list li").count() == 1
