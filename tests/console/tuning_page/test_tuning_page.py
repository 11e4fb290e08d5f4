"""Tuning in a real browser: previewed, applied, counted until it is in force; and all the ways in which it is not."""

import http.client
import json

import pytest

from groundfault import wire
from groundfault.settings.store import Change

pytestmark = pytest.mark.e2e

TOKEN = "correct-horse-battery"  # noqa: S105  of the tests alone
MINUS = "\N{MINUS SIGN}"
HOSTILE = '<img src=x onerror=alert(1)>";alert(2)\u202e'


def open_row(page, which="view.commands[0]"):
    page.evaluate(
        """async (which) => {
          const tuning = (await import(new URL("page/console.js", document.baseURI))).$tuning;
          await tuning.open(which === "server" ? tuning.state.view.servers[0] : tuning.state.view.commands[which]);
        }""",
        "server" if which == "server" else 0,
    )
    page.wait_for_selector("#tune[open]")


def fill(page, *, value=None, reason="db is slow", token=TOKEN, name=None, scope=None):
    if scope is not None:
        page.get_by_label("Where").select_option("another scope…")
        page.get_by_label("Scope", exact=True).fill(scope)
    if name is not None:
        page.get_by_label("Setting", exact=True).select_option(name)
    if value is not None:
        page.get_by_label("Value").fill(value)
    page.get_by_label("Reason").fill(reason)
    page.get_by_label("Token").fill(token)


def preview(page):
    page.get_by_role("button", name="Preview", exact=True).click()
    page.wait_for_selector("#tune:not([aria-busy])")


def button(page, name):
    return page.locator("#tune").get_by_role("button", name=name, exact=True)


def held(desk):
    return {f"{each.scope}:{each.name}": each.value for each in desk.store.load(None).entries}


def violations(page, axe):
    page.evaluate(axe)
    found = page.evaluate("axe.run(document.querySelector('#tune') ?? '#settings')")["violations"]
    return [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found]


def test_what_is_previewed_is_applied_and_counted_until_it_is_in_force_everywhere(desk_of, page_at, axe):
    desk = desk_of()
    page = page_at(desk)
    page.wait_for_selector("#settings td")
    assert violations(page, axe) == []
    change = page.get_by_role("button", name="Change timeout_s at topps/contest-db")
    change.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#tune[open]")
    fill(page, value="0.8")
    assert button(page, "Apply").is_disabled()
    preview(page)
    assert page.locator(".preview .minus").inner_text() == f"{MINUS} 0.5"
    assert page.locator(".preview .plus").inner_text() == "+ 0.8"
    assert "Touches 3 commands in 1 service" in page.locator(".preview").inner_text()
    assert held(desk)["topps/contest-db:timeout_s"] == 0.5
    assert violations(page, axe) == []
    page.get_by_label("Value").fill("0.9")
    assert button(page, "Apply").is_disabled()
    preview(page)
    desk.behind = 3
    button(page, "Apply").click()
    state = page.locator("#tune .state")
    state.get_by_text("In force in 5 of 8 processes").wait_for()
    assert "Behind: topps 4000 on web-1" in state.inner_text()
    assert held(desk)["topps/contest-db:timeout_s"] == 0.9
    assert violations(page, axe) == []
    desk.behind = 0
    state.get_by_text("In force in all 8 processes").wait_for()
    assert desk.store.history()[0].reason == "db is slow"
    page.keyboard.press("Escape")
    page.locator("#settings").get_by_text("0.9", exact=True).wait_for()
    open_row(page)
    assert page.get_by_label("Token").input_value() == TOKEN  # of this page, and of nothing that lasts
    kept = page.evaluate("[document.cookie, location.href, JSON.stringify({...localStorage}), {...sessionStorage}]")
    assert TOKEN not in json.dumps(kept)


def test_what_is_wrong_is_told_at_its_field_and_the_focus_goes_there(desk_of, page_at, axe):
    desk = desk_of()
    page = page_at(desk)
    open_row(page)
    assert page.locator("#tune").get_by_label("Setting", exact=True).input_value() == "timeout_s"
    fill(page, value="-1", reason="")
    preview(page)
    assert "reason must be a text of 1 to 500" in page.locator(".field.reason .error").inner_text()
    assert page.evaluate("document.activeElement === document.querySelector('.field.reason input')")
    fill(page, value="-1")
    preview(page)
    assert "must be a number between 0.001 and 300, not -1" in page.locator(".field.value .error").inner_text()
    assert page.get_by_label("Value").get_attribute("aria-invalid") == "true"
    fill(page, value="2", token="wrong-horse-battery")  # noqa: S106  wrong on purpose
    preview(page)
    assert "is missing or another" in page.locator(".field.token .error").inner_text()
    assert violations(page, axe) == []
    fill(page, value="2", scope="TOPPS/x")
    preview(page)
    assert "the scope must be service" in page.locator(".field.free .error").inner_text()
    assert desk.store.history() == []


def test_somebody_who_was_faster_is_shown_and_the_change_can_go_on_from_there(desk_of, page_at):
    desk = desk_of()
    page = page_at(desk)
    open_row(page)
    fill(page, value="0.8")
    preview(page)
    faster = Change("topps/contest-db", "max_concurrent", 7)
    desk.store.write([faster], reason="fewer at once", actor="grace", based_on="1")
    button(page, "Apply").click()
    errors = page.locator("#tune .errors")
    errors.get_by_text("Version 2 by grace: fewer at once").wait_for()
    assert "+ 7" in errors.inner_text()
    assert desk.store.load(None).version == "2"
    button(page, "Preview again on version 2").click()
    page.locator(".preview .plus").wait_for()
    button(page, "Apply").click()
    page.get_by_text("Version 3 is stored").wait_for()
    assert held(desk)["topps/contest-db:max_concurrent"] == 7


def test_a_version_is_rolled_back_to_and_an_override_ends(desk_of, page_at):
    desk = desk_of()
    page = page_at(desk)
    desk.store.write([Change("*", "failure_threshold", 0.9)], reason="oops", actor="ada", based_on="1")
    desk.store.write([Change("topps", "mode", "shadow")], reason="oops again", actor="ada", based_on="2")
    page.locator("#settings summary").get_by_text("oops again").wait_for()
    page.locator("#settings summary").click()
    page.get_by_role("button", name="Roll back to version 2").click()
    page.wait_for_selector("#tune[open]")
    fill(page)
    preview(page)
    assert page.locator(".preview .minus").inner_text() == f'{MINUS} "shadow"'
    button(page, "Apply").click()
    page.get_by_text("Version 4 is stored").wait_for()
    assert "topps:mode" not in held(desk)
    button(page, "Close").click()
    open_row(page, "server")
    fill(page, name="server.serve_half_closed")
    page.get_by_label("Value").check()
    page.get_by_label("For how long").select_option("another time…")
    page.get_by_label("Minutes").fill("20")
    preview(page)
    button(page, "Apply").click()
    page.get_by_text("Version 5 is stored").wait_for()
    (entry,) = (each for each in desk.store.load(None).entries if each.name == "server.serve_half_closed")
    assert (entry.scope, entry.value) == (desk.view["servers"][0]["service"], True)
    button(page, "Close").click()
    page.locator("#settings").get_by_text("20 min left").wait_for()


def test_names_of_anybody_are_text_and_no_scope(desk_of, page_at):
    desk = desk_of(settings={"*": {"timeout_s": 1, HOSTILE: HOSTILE}})
    desk.view["commands"][0] |= {"service": HOSTILE, "resource": HOSTILE, "command": HOSTILE}
    desk.store.write([Change("*", "mode", "enforce")], reason=HOSTILE, actor=HOSTILE, based_on="1")
    page = page_at(desk)
    page.wait_for_selector("#settings td")
    open_row(page)
    assert "<img src=x" in page.locator("#tune h2").inner_text()
    assert page.get_by_label("Where").locator("option").all_inner_texts() == ["another scope…"]
    fill(page, scope=HOSTILE, value="1")
    preview(page)
    assert "the scope must be" in page.locator(".field.free .error").inner_text()
    assert page.locator("#settings img, #tune img").count() == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [({"token": None}, "This console is read-only"), ({"steers": False}, "there is no store of live settings")],
)
def test_where_nothing_can_be_steered_the_page_says_how_to_turn_it_on(desk_of, page_at, axe, options, words):
    desk = desk_of(**options)
    page = page_at(desk)
    page.locator("#settings").get_by_text(words).wait_for()
    assert page.locator("#settings button").count() == 0
    open_row(page)
    assert words in page.locator("#tune").inner_text()
    assert "timeout_s" in page.locator("#tune dl").inner_text()
    assert page.locator("#tune button").all_inner_texts() == ["Close"]
    assert violations(page, axe) == []


def test_a_page_from_elsewhere_changes_nothing(desk_of):
    desk = desk_of()
    body = {"reason": "r", "based_on": "1", "changes": [{"scope": "*", "name": "timeout_s", "value": 1}]}
    connection = http.client.HTTPConnection("127.0.0.1", desk.server.server_port, timeout=10)
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{desk.server.server_port + 1}"):
        headers = {"Content-Type": "application/json", wire.TOKEN: TOKEN, "Origin": origin}
        connection.request("POST", "/settings/change", json.dumps(body), headers)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (403, b"the Origin must be this console's own\n")
        connection.close()
    assert desk.store.history() == []
