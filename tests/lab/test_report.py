"""The report of a recorded demo."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from groundfault.lab import report
from groundfault.lab.parts import Phase
from groundfault.lab.session import summary


@pytest.fixture(scope="module")
def results(recorded):
    return summary(recorded)


@pytest.fixture(scope="module")
def page(recorded, results):
    return report.page(recorded, results)


class Links(HTMLParser):
    """Everything a browser would load, and every id."""

    LOADING = frozenset({"src", "srcset", "href", "xlink:href", "data", "action", "poster"})

    def __init__(self):
        super().__init__()
        self.loads = []
        self.ids = []
        self.tags = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [value for name, value in attrs if name in self.LOADING]
        self.ids += [value for name, value in attrs if name == "id"]


def test_the_recorded_numbers(results):
    """Reckoned by hand from the recording of conftest.py."""
    unprotected, plain, protected = (results["phases"][phase.value] for phase in Phase)
    assert unprotected["goodput_share_in_spike"] == 0
    assert unprotected["innocents_success_in_spike"] == 1
    assert plain["innocents_success_in_spike"] == 0
    assert plain["trips"] == 2
    assert plain["trips_by_edge"] == {"grouper -> saber": 1, "topps -> grouper": 1}
    assert protected["goodput_share_in_spike"] == pytest.approx(1.0, abs=0.03)
    assert protected["recovery_s"] == 0
    assert protected["shed_share_in_spike"] == pytest.approx(0.5, abs=0.02)
    assert results["capacity_rps"] == 10
    assert results["targets_missed"] == []
    assert {"python", "gunicorn", "uvicorn", "locust"} <= set(results["versions"])


def test_it_says_the_numbers_in_words_and_in_a_table(page):
    text = re.sub(r"\s+", " ", page)
    assert "can answer 10 requests a second and is asked for 48" in text
    assert "not within the run" in text
    for phase in Phase:
        assert f'<th scope="col">{phase.value}</th>' in text
    assert "≥ 85.0%" in text
    assert 'class="met"' in text
    assert 'class="missed"' not in text


def test_it_needs_nothing_from_elsewhere(page):
    links = Links()
    links.feed(page)
    assert [link for link in links.loads if not link.startswith("#")] == []
    assert not links.tags & {"script", "link", "iframe", "img", "object", "embed"}
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []


def test_its_plots_do_not_share_ids(page):
    links = Links()
    links.feed(page)
    assert len(links.ids) == len(set(links.ids))
    referred = set(re.findall(r'(?:href="|url\()#([^")]+)', page))
    assert referred <= set(links.ids)


def test_light_and_dark(page):
    assert page.count('class="only-light"') == page.count('class="only-dark"') == 5
    assert "prefers-color-scheme: dark" in page


def test_plots_are_text_that_can_be_searched(page):
    assert ">grouper → saber<" in page or "plain-503: grouper → saber" in page
    assert "answers in time, per second" in page


def test_a_void_run_says_so_at_the_top(recorded, results):
    phases = results["phases"]
    void = {**phases["groundfault"], "void": ["the host's CPU was 99% busy, more than 85% <b>"]}
    text = report.page(recorded, {**results, "phases": {**phases, "groundfault": void}})
    assert "is void:</strong> the host&#39;s CPU was 99% busy, more than 85% &lt;b&gt;" in text
    assert text.index("is void:") < text.index("<svg")
    assert "1 of the three: see above." in text


def test_a_missed_target_is_marked(recorded, results):
    phases = results["phases"]
    tripped = {**phases["groundfault"], "trips": 3}
    text = report.page(recorded, {**results, "phases": {**phases, "groundfault": tripped}})
    assert '<td class="missed">3 ✗ missed</td>' in text


def test_the_files_it_writes(recorded, results, tmp_path):
    report.write(tmp_path, recorded, results)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"report.html", "headline.svg", "headline-dark.svg", "headline.png"}
    assert (tmp_path / "headline.png").read_bytes().startswith(b"\x89PNG")
    for name in ("headline.svg", "headline-dark.svg"):
        texts = "".join(ET.parse(tmp_path / name).getroot().itertext())  # noqa: S314  a file written two lines above
        assert "capacity, 10/s" in texts
        assert "plain 503s and circuit breakers" in texts
