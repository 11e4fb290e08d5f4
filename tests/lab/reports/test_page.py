"""The page of a run and of several: self-contained, small, and whole whatever the run lacks."""

import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from made_runs import fleet_run, spike_run, sunday_run

from groundfault.lab.curves import Spike
from groundfault.lab.look import DARK, LIGHT, darkened
from groundfault.lab.reports.making import image_of, page_of
from groundfault.lab.runs.record import Check, Edge, Mark, Run, Service, Stream

VARIANTS = ("groundfault", "plain-503", "unprotected")
MOST_BYTES = 1_500_000


class Seen(HTMLParser):
    """What a browser would load, every id, every tag, and the text."""

    LOADING = frozenset({"src", "srcset", "href", "xlink:href", "data", "action", "poster"})

    def __init__(self, page):
        super().__init__()
        self.loads, self.ids, self.styles, self.tags, self.texts = [], [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in self.LOADING]
        self.ids += [value for name, value in attrs if name == "id"]
        self.styles += [value for name, value in attrs if name == "style"]

    def handle_data(self, data):
        self.texts.append(data)


def text_of(page):
    body = page[page.index("<body>") :]
    return re.sub(r"\s+", " ", "".join(Seen(body).texts))


@pytest.fixture(scope="module")
def failed():
    return page_of([spike_run("plain-503")], ["plain-503"], {})


@pytest.fixture(scope="module")
def compared():
    tuned = {"spike": 8, "queue": {"max_wait_s": 0.5, "workers": [2, 16]}, "retries": None}
    runs = [spike_run(), spike_run("plain-503", settings=tuned), spike_run("unprotected")]
    return page_of(runs, VARIANTS, {"unprotected": ["its seed is <b>x</b>"]})


@pytest.fixture(params=["failed", "compared"])
def page(request):
    return request.getfixturevalue(request.param)


def test_it_needs_nothing_from_elsewhere_and_says_so_in_its_policy(page):
    seen = Seen(page)
    assert [link for link in seen.loads if not link.startswith("#")] == []
    assert not {"script", "link", "iframe", "img", "object", "embed", "form"} & set(seen.tags)
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert f"style-src 'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'" in page
    assert "default-src 'none'" in page
    assert seen.styles == []


def test_its_plots_do_not_share_ids(page):
    seen = Seen(page)
    assert len(seen.ids) == len(set(seen.ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(seen.ids)


def test_each_plot_is_there_for_wide_and_narrow_screens_with_a_table(page):
    plots = page.count('<figure class="plot">')
    assert plots >= 4
    assert page.count('<div class="wide"><svg') == page.count('<div class="narrow"><svg') == plots
    assert page.count("<details>") == plots
    assert page.count('role="img" aria-label="Plot: ') == 2 * plots


def test_every_color_of_the_drawings_has_one_for_dark_surroundings(page):
    drawn = set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]{6})"', page))
    turned = set(re.findall(r'\.plot \[(?:fill|stroke)="(#[0-9a-f]{6})"\]', page))
    assert drawn <= turned
    assert LIGHT.paper in drawn or LIGHT.ink in drawn


def test_no_light_color_would_have_to_turn_into_two_dark_ones():
    rules = darkened(".plot").splitlines()
    assert len(rules) == len({rule.partition("{")[0] for rule in rules})
    pairs = zip((*LIGHT.several, *LIGHT.fates.values()), (*DARK.several, *DARK.fates.values()), strict=True)
    for light, dark in pairs:
        assert f'.plot [fill="{light}"] {{ fill: {dark}; }}' in rules


def test_the_verdict_stands_on_top_in_words(failed):
    text = text_of(failed)
    assert "✗ Failed: 3 of 5 bounds are missed." in text
    assert "goodput, share of what could be had, spike: 33.8 %, and must be at least 85 %" in text
    assert failed.index("Failed: 3 of 5") < failed.index("<svg")
    assert text.count("✗ missed") == 3
    assert text.count("✓ met") == 2


def test_what_it_tells_besides(failed):
    text = text_of(failed)
    for words in ("seed: gronk", "capacity: 20.0/s", "queue.max_wait_s", "0.25", "groundfault 0.1.0 · python 3.13.5"):
        assert words.replace(": ", "") in text.replace(": ", "")
    assert "10 s: touchdown" in text
    assert "grouper -> saber" in text
    assert "its own lag, p99" in text
    assert "grouper → saber" in text


def test_a_void_run_judges_nothing():
    text = text_of(page_of([spike_run("unprotected", void=["busy <b>"], services=[], edges=[])], ["x"], {}))
    assert "⊘ Void: this run says nothing" in text
    assert "busy <b>" in text
    assert "✗ missed" not in text
    assert "✓ met" not in text


def bare(seconds=5, **changes):
    zero, nothing = [0] * seconds, [None] * seconds
    names = ("due", "sent", "arrived", "good", "late", "shed", "failed", "unsent")
    fields = {name: changes.pop(name, zero) for name in names}
    stream = Stream(name="fan", **fields, p50_ms=nothing, p99_ms=nothing)
    return Run(
        **{
            "name": "n",
            "title": "t",
            "source": "s",
            "seconds": seconds,
            "deadline_s": 1.0,
            "streams": [stream],
            **changes,
        }
    )


LONG = "a-service-whose-name-goes-on-and-on-and-on-for-no-good-reason-at-all"


MANY = bare(
    services=[Service(name=f"$x_{LONG}$ {n}", arrived=[9] * 5, shed=[n % 9] * 5, answered=[1] * 5) for n in range(70)],
    edges=[Edge(caller=f"{n}", callee=LONG, trips=[1.0, -3.0, 99.0], open=[(1.0, 99.0)]) for n in range(70)],
)
ODD = {
    "one second": bare(1),
    "nothing due": bare(),
    "no stream": bare(streams=[]),
    "nothing good": bare(due=[5] * 5, failed=[5] * 5, capacity_rps=0.0),
    "spans and marks beyond it": bare(
        capacity_rps=10.0,
        spans={"spike": (0.0, 99.0), "": (7.0, 8.0)},
        marks=[Mark(t=-5, text=""), Mark(t=1e300, text="x")],
    ),
    "empty services": bare(
        services=[Service(name=LONG, arrived=[], shed=[], answered=[])], edges=[Edge(caller="", callee=LONG)]
    ),
    "more than fit": MANY,
    "markup": bare(
        title="<script>alert(1)</script>\x00",
        variant="$\\frac{",
        notes=["\x1b[31m & <i>"],
        settings={"a": {"b": [{"c": None}]}},
    ),
    "other scripts": bare(title="触地得分", started_at=1e300, versions={"<x>": "&"}, void=["\u202eodd"]),
    "huge figures": bare(
        checks=[Check(measure="m", title="t", value=None, at_least=1.0), Check(measure="x", title="<y>", value=1e300)]
    ),
    "no capacity": replace(spike_run(), capacity_rps=None, lag_p99_ms=None, spans={}, marks=[], services=[], edges=[]),
    "innocents only": replace(spike_run(), streams=spike_run().streams[1:], services=[], edges=[]),
}


@pytest.mark.parametrize("run", ODD.values(), ids=ODD)
def test_it_is_whole_whatever_the_run_lacks(run):
    page = page_of([run], ["x"], {})
    seen = Seen(page)
    assert page.rstrip().endswith("</html>")
    assert "script" not in seen.tags
    assert "\x00" not in page
    assert not re.search(r' (?:d|x|y|points|transform)="[^"]*(?:nan|inf)', page)
    assert len(page.encode()) < MOST_BYTES
    assert ("&lt;script&gt;alert(1)" in page) is run.title.startswith("<script>")


def test_several_runs_that_cannot_really_be_compared_still_make_a_page():
    runs = [spike_run(), bare(7, due=[1] * 7), spike_run(curve=Spike(base_rps=5, before_s=2, spike_s=3, after_s=4))]
    page = page_of(runs, ["a", "b", "c"], {"b": ["it is another"]})
    assert "it is another" in text_of(page)


def test_a_day_by_the_second_is_small_and_shows_its_spikes_near_by():
    run = sunday_run()
    page = page_of([run], ["x"], {})
    assert len(page.encode()) < MOST_BYTES
    text = text_of(page)
    assert "A point stands for 180 seconds" in text
    assert all(f"Near by: spike-{number}" in text for number in (1, 2, 3))
    assert "12:00:00: touchdown 1" in text


def test_many_services_show_the_worst():
    page = page_of([fleet_run()], ["x"], {})
    assert len(page.encode()) < MOST_BYTES
    assert "The 6 services with the lowest are not drawn." in text_of(page)
    assert re.search(r">1-\d+</text>", page)  # marks too near to each other share a flag


def test_a_table_of_services_has_no_empty_column(failed):
    heads = re.findall(r'<th scope="col">([^<]*)</th>', failed[failed.index("<h2>Services</h2>") :])
    assert heads[:5] == ["service", "came", "shed", "longest queue wait, p95", "busiest second"]
    assert "instances" not in heads


def test_the_comparison_says_what_is_better_and_worse(compared):
    text = text_of(compared)
    assert "worse by 66.0 points" in text
    assert "▼ worse: not within the run" in text
    assert text.count("✗ Failed: 3 of 5 bounds are missed.") == 2
    assert "its seed is <b>x</b>" in text
    for variant in VARIANTS:
        assert f'<th scope="col">{variant}</th>' in compared


def test_only_settings_that_differ_are_compared(compared):
    after = text_of(compared).partition("What was set otherwise")[2]
    assert re.search(r"queue\.max_wait_s\s*0\.25\s*0\.5\s*0\.25", after)
    assert "workers" not in after


@pytest.mark.parametrize(("variants", "dark"), [(VARIANTS[:1], False), (VARIANTS, True)])
def test_pictures_have_the_same_bytes_for_the_same_runs(variants, dark):
    def made(suffix):
        return image_of([spike_run(variant) for variant in variants], variants, suffix, dark=dark)

    svg, png = made(".svg"), made(".png")
    assert (svg, png) == (made(".svg"), made(".png"))
    assert png.startswith(b"\x89PNG")
    assert b"capacity, 20/s" in svg
    assert (DARK if dark else LIGHT).paper.encode() in svg


def test_pages_have_the_same_bytes_for_the_same_run():
    run = bare(due=[9] * 5, good=[9] * 5, capacity_rps=10.0)
    assert page_of([run], ["x"], {}) == page_of([run], ["x"], {})
