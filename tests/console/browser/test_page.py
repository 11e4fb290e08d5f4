"""What one sees on the page: quiet and in a spike, with one command and with hundreds, wide and narrow."""

import pytest
from sample_views import sample_view

pytestmark = pytest.mark.e2e

PHONE = {"width": 390, "height": 844}
ZOOMED = {"width": 720, "height": 450}  # 1440 x 900 at 200 %
LONG = "a_command_with_a_name_that_goes_on_" * 4
TUNING = """
export const ready = () => %s;
export const show = () => {};
export const open = (row) => { window.tuned = row.id; };
"""
HOSTILE = (
    "<img src=x onerror='window.pwned=1'>",
    '";window.pwned=1;//',
    "<script>window.pwned=1</script>",
    "javascript:window.pwned=1",
    "\u202egnihton\u0007\n\t",
    LONG,
)


def test_a_spike_is_told_in_the_headline_the_title_and_the_first_tile(page_of):
    shown = page_of(sample_view(40, spike=True))
    page = shown.page
    assert page.title() == "✖ 1 open · topps"
    assert page.locator("link[rel=icon]").get_attribute("href") == "page/icon-bad.svg"
    assert "grouper sheds 62 % of its requests" in page.locator("h1").inner_text()
    strip = page.locator(".strip").inner_text()
    for said in ("1512/s", "62 %", "310 ms", "over 20 ms", "of 40 commands", "17-3f2a", "2 behind for 1.4 s"):
        assert said in strip
    first = page.locator(".tile").first.inner_text()
    for said in ("contest-db", "get_003", "OPEN in 3 of 8 workers, half-open in 1", "71 %", "of 5 in flight", "p99"):
        assert said in first
    counters = page.locator(".tile").first.locator(".counter").all_inner_texts()
    assert "circuit open\n2100" in [text.strip() for text in counters]
    assert "circuit open in 3 of 8 processes" in first
    grouper = next(text for text in shown.texts(".service") if "grouper" in text)
    for said in ("62 %", "queue-wait 55.8 %", "over 20 ms, deadline 1 s", "of 128"):
        assert said in grouper
    assert "damaged" in page.locator("#about").inner_text()
    assert "went badly" in str(page.locator(".tile svg").first.get_attribute("aria-label"))


@pytest.mark.parametrize(
    ("commands", "spike", "scheme", "size"),
    [(1, False, "dark", PHONE), (12, True, "light", ZOOMED), (63, True, "dark", PHONE)],
)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(page_of, commands, spike, scheme, size):
    shown = page_of(sample_view(commands, spike=spike), color_scheme=scheme)
    assert shown.accessibility() == []
    shown.page.set_viewport_size(size)
    assert shown.overflows() == 0


def test_where_there_are_many_the_healthy_take_a_line_each_and_density_can_be_chosen(page_of):
    shown = page_of({**sample_view(400, spike=True), "hidden": 12})
    page = shown.page
    assert page.locator(".tile").count() == 60
    assert page.locator(".line").count() == 340
    assert "12 more left out" in page.locator("#commands-title").inner_text()
    page.locator("#commands").get_by_label("Show").select_option("lines")
    assert page.locator(".tile").count() == 0
    assert page.locator(".line").count() == 400
    assert "form=lines" in page.url
    page.set_viewport_size(PHONE)
    assert shown.overflows() == 0


def test_names_are_text_whatever_they_say(page_of):
    view = sample_view(12, spike=True)
    for number, row in enumerate(view["commands"]):
        row["resource"] = row["command"] = row["service"] = HOSTILE[number % len(HOSTILE)]
        row["id"] = f"{number}{row['command']}"
        row["why"] = [*HOSTILE]
    view["title"] = view["host"] = view["headline"]["words"] = HOSTILE[0]
    view["headline"]["version"] = LONG
    view["servers"][0]["service"] = view["servers"][0]["why"][:] or HOSTILE[0]
    view["unknown"] = [*HOSTILE]
    view["internal_errors"] = {HOSTILE[2]: 3}
    dialogs: list[str] = []
    shown = page_of(view, viewport=PHONE)
    shown.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    assert shown.overflows() == 0
    assert HOSTILE[0] in shown.page.locator("h1").inner_text()
    assert HOSTILE[2] in shown.page.locator("#about").inner_text()
    shown.page.set_viewport_size({"width": 1440, "height": 900})
    assert shown.overflows() == 0
    assert shown.page.evaluate("window.pwned") is None
    assert shown.page.locator("main img, main script, header script").count() == 0
    assert dialogs == []


def test_the_filter_the_order_and_the_density_are_in_the_address(page_of):
    view = sample_view(40, spike=True)
    shown = page_of(view, hash="#q=get_00&sort=volume")
    page = shown.page
    names = shown.texts(".tile .command")
    assert sorted(names) == [f"get_00{number}" for number in range(10)]
    rates = {row["command"]: row["rate_per_s"] for row in view["commands"]}
    assert names == sorted(names, key=lambda name: -rates[name])
    assert "10 of 40 shown" in page.locator(".found").inner_text()
    page.keyboard.press("/")
    page.keyboard.type("wallet ")
    assert "q=wallet" in page.url
    assert set(shown.texts(".tile .resource")) == {"wallet"}
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Troubled").click()
    page.get_by_role("button", name="grouper", exact=True).click()
    assert "only=trouble" in page.url
    assert "service=grouper" in page.url
    wanted = [row for row in view["commands"] if row["level"] != "ok" and row["service"] == "grouper"]
    assert page.locator(".tile").count() == len(wanted)
    page.evaluate("location.hash = '#sort=name'")
    shown.until("document.querySelectorAll('.tile').length === 40")
    assert page.get_by_label("Sort").input_value() == "name"
    page.get_by_label("Filter by service, resource or command").fill("no such thing")
    assert "No command passes" in page.locator("#commands").inner_text()


def test_the_keyboard_does_it_all_and_the_focus_survives_new_views(page_of):
    view = sample_view(40, spike=True)
    shown = page_of(view, scripts={"tuning.js": TUNING % "true"})
    page = shown.page
    where = "document.activeElement.querySelector('.command')?.textContent"
    page.keyboard.press("j")
    assert page.evaluate(where) == "get_003"
    page.keyboard.press("ArrowDown")
    second = page.evaluate(where)
    assert second != "get_003"
    for row in view["commands"]:
        row["trouble"] = 1000 - row["trouble"]
    shown.put(view)
    assert page.evaluate(where) == second
    page.keyboard.press("k")
    assert page.evaluate(where) == "get_003"
    page.keyboard.press("Enter")
    assert "get_003" in page.evaluate("window.tuned")
    page.keyboard.press("s")
    assert "sort=errors" in page.url
    assert page.evaluate(where) == "get_003"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Tune"
    page.keyboard.press("?")
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "commands"


def test_there_is_nothing_to_tune_where_tuning_says_so(page_of):
    shown = page_of(sample_view(3), scripts={"tuning.js": TUNING % "false"})
    assert shown.page.get_by_role("button", name="Tune").count() == 0


def test_a_spike_shows_in_place_while_somebody_points_at_the_tiles(page_of):
    quiet, spike = sample_view(40), sample_view(40, spike=True)
    for row in quiet["commands"]:
        row["level"], row["trouble"] = "ok", 0.0
    shown = page_of(quiet)
    page = shown.page
    before = shown.texts(".tile .command")
    assert page.locator("#spoken").text_content() == ""
    page.locator(".tile").nth(1).hover()
    shown.put(spike)
    assert shown.texts(".tile .command") == before
    assert page.title().startswith("✖ 1 open")
    assert "Now bad: grouper sheds" in str(page.locator("#spoken").text_content())
    tile = page.locator(".tile", has_text="get_003")
    tile.scroll_into_view_if_needed()
    assert "OPEN in 3 of 8 workers" in tile.inner_text()
    page.get_by_role("button", name="sort now").click()
    assert shown.texts(".tile .command")[0] == "get_003"
    few = {**spike, "commands": spike["commands"][:5]}
    page.locator(".tile").nth(1).hover()
    shown.put(few)
    assert page.locator(".is-gone").count() == 35
    shown.put(spike)
    assert page.locator(".is-gone").count() == 0
    page.mouse.move(5, 5)
    shown.put(few)
    shown.until("document.querySelectorAll('.tile').length === 5")


def test_nothing_moves_and_nothing_is_drawn_twice_for_those_who_want_it_quiet(page_of):
    shown = page_of(sample_view(40, spike=True), reduced_motion="reduce")
    shown.put(sample_view(40))
    assert shown.page.evaluate("document.getAnimations().length") == 0
    assert shown.page.locator(".tile").count() == 40
