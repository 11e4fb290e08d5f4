"""What the page does when views stop, are of another release, or come by another way; and what it weighs."""

import time

import pytest
from sample_views import sample_view
from serving import Served

from groundfault._clock import wall
from groundfault.console.answering import RefusedError
from groundfault.console.lean import lean

pytestmark = pytest.mark.e2e

BUDGET = 40 * 1024
HIDE = """
let hidden = false;
Object.defineProperty(document, "hidden", {get: () => hidden});
window.hide = (yes) => {
  hidden = yes;
  document.dispatchEvent(new Event("visibilitychange"));
};
"""


def refuses() -> bytes:
    raise RefusedError(503, "the recorder has not begun")


def test_when_no_view_comes_the_page_says_how_old_it_is_and_when_it_is_new_again(page_of):
    shown = page_of(sample_view(4), tolerate=True)
    page = shown.page
    stale = page.locator("#stale")
    assert stale.is_hidden()
    view = shown.look_up
    shown.look_up = refuses
    page.wait_for_selector("body.is-stale")
    assert "No new data since" in stale.inner_text()
    assert "it answers 503" in stale.inner_text()
    assert "the recorder has not begun" in stale.inner_text()
    assert " s old" in stale.inner_text()
    shown.look_up = view
    shown.put(sample_view(4))
    page.wait_for_selector("body:not(.is-stale)")
    assert "new again" in stale.inner_text()


def test_a_view_that_stands_still_is_stale_and_one_that_was_old_already_is_so_at_once(page_of):
    shown = page_of(sample_view(2), tolerate=True)
    shown.page.wait_for_selector("body.is-stale")
    assert "stands still" in shown.page.locator("#stale").inner_text()
    shown.served.shift_s = 600.0  # the server's clock, not the browser's, says how old a view is
    shown.prepare({**sample_view(2)})
    shown.until("document.querySelector('#stale').innerText.includes('10 min old')")
    shown.served.stop()
    shown.until("document.querySelector('#stale').innerText.includes('it cannot be reached')")


def test_a_view_of_another_format_asks_for_a_reload_and_is_not_drawn(page_of):
    shown = page_of(sample_view(2))
    shown.prepare({**sample_view(9), "format": 99, "release": "9.0"})
    shown.look()
    shown.page.wait_for_selector("body.is-stale")
    assert "older than the service (release 9.0, format 99)" in shown.page.locator("#stale").inner_text()
    assert shown.page.get_by_role("button", name="Reload").is_visible()
    assert shown.page.locator(".tile").count() == 2


BARE = (
    {"headline": {}, "commands": [{}, {"command": "only"}], "servers": [{}], "processes": [{}]},
    {"headline": None, "commands": None, "map": None, "timeline": None, "unknown": ["it is late"]},
    {
        "commands": [{"counts": None, "why": None, "states": None, "spark": [None, 2], "bad": None, "new": 1}],
        "hosts": [{"host": "a"}],
        "stores": "b",
        "headline": {"level": "fatal", "later": []},
    },
)


def test_a_view_with_missing_fields_is_shown_as_far_as_it_goes(page_of):
    shown = page_of({})
    assert "No command has been called yet" in shown.page.locator("#commands").inner_text()
    for view in BARE:
        shown.put(view)
        assert shown.page.locator(".failed").count() == 0
        assert shown.page.locator(".tile:visible").count() == len(view["commands"] or [])


def test_a_part_that_fails_says_so_and_the_others_go_on(page_of):
    broken = "export function show(view) { throw new Error('no such node'); }"
    shown = page_of(sample_view(3), scripts={"map.js": broken})
    assert "cannot be drawn: Error: no such node" in shown.page.locator("#map").inner_text()
    assert shown.page.locator(".tile").count() == 3


def test_a_hidden_tab_asks_seldom_and_looks_at_once_when_it_is_seen_again(page_of):
    shown = page_of(sample_view(2), before=HIDE)
    page = shown.page
    page.evaluate("hide(true)")
    page.wait_for_timeout(1100)
    asked = shown.served.asked.count("/snapshot.json")
    page.wait_for_timeout(1300)
    assert shown.served.asked.count("/snapshot.json") == asked
    page.evaluate("hide(false)")
    page.wait_for_timeout(500)
    assert shown.served.asked.count("/snapshot.json") > asked


def test_a_hub_streams_what_has_changed_and_the_page_asks_again_when_the_stream_breaks(page_of):
    whole = {**sample_view(3), "made_at": wall(), "sequence": 1}
    first, second, third = whole["commands"]
    changed = {**second, "level": "bad", "why": ["circuit open"], "states": {"open": 8}, "state": "open"}
    fresh = {**first, "id": "new", "command": "fresh"}
    order = [changed["id"], "new", third["id"]]
    change = {
        "sequence": 2,
        "made_at": wall(),
        "title": "fleet",
        "commands": {"set": [changed, fresh], "gone": [first["id"]], "order": order},
    }

    def events():
        yield "view", whole
        yield "change", change
        time.sleep(1.5)

    shown = page_of({**whole, "title": "polled"}, served={"live": "events", "events": events}, tolerate=True)
    page = shown.page
    shown.until("document.title.includes('fleet')")
    assert "/snapshot.json" not in shown.served.asked
    shown.until("document.querySelectorAll('.tile').length === 3")
    assert "OPEN" in page.locator(".tile").first.inner_text()
    assert sorted(shown.texts(".tile .command")) == sorted([changed["command"], "fresh", third["command"]])
    shown.prepare({**whole, "title": "polled"})
    shown.until("document.title.includes('polled')")
    assert "/snapshot.json" in shown.served.asked


def test_the_whole_page_weighs_at_most_forty_kilobytes_as_it_is_sent():
    served = Served(bytes)
    sizes = served.sizes()
    served._server.server_close()
    assert min(sizes.values()) > 0
    assert sum(sizes.values()) <= BUDGET, sizes


@pytest.mark.parametrize(
    ("source", "sent"),
    [
        ("// why\n  const a = 1; // kept\n\n", "const a = 1; // kept\n"),
        ("/* one line */\np { color: red; }", "p { color: red; }\n"),
        ("/* a */ b /* c */", "/* a */ b /* c */\n"),
        ('  const u = "//not a comment";', 'const u = "//not a comment";\n'),
    ],
)
def test_only_lines_for_readers_of_the_source_are_left_out(source, sent):
    assert lean(source.encode()) == sent.encode()
