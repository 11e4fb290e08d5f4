"""The documentation's own claims: its examples run, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def examples():
    for page in PAGES:
        for number, block in enumerate(
            re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        ):
            yield pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize("block", list(examples()))
def test_an_example_runs_as_it_stands(block):
    exec(compile(block, "example", "exec"), {"__name__": "example"})  # noqa: S102  our own documentation


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page):
    text = page.read_text()
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", text) + re.findall(
        r'(?:src|srcset)="(?!https?://)([^"]+)"', text
    )
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_every_page_can_be_reached_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+\.md)", page.read_text())
        waiting += [(page.parent / target).resolve() for target in targets]
    assert set(PAGES) - seen == set()
