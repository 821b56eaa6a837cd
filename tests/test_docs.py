"""The pages in docs/ keep their promises: their listings run, their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.warm_interpreter import run_program

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = (
    "advice", "batching", "caching", "capacity", "configuration", "health", "hybrid-contexts", "logs",
    "operations", "pools",
    "profiling", "regression", "report", "serving", "settings", "streams",
)  # fmt: skip
REFERENCES = ("binding", "exceptions")
"""Pages that state rules, and not when to use a part."""
GUIDE = ("performance-guide", "performance-guide.zh")
"""The same chapters in two languages, with the same listings."""
LISTING = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def listings(page: str) -> list[str]:
    return LISTING.findall((DOCS / f"{page}.md").read_text("utf-8"))


@pytest.mark.parametrize(
    "listing",
    [
        pytest.param(listing, id=f"{page}-{number}")
        for page in (*PAGES, *REFERENCES, GUIDE[0])
        for number, listing in enumerate(listings(page), 1)
    ],
)
def test_listings_run(listing: str) -> None:
    """Every Python listing runs as it stands, warning of nothing."""
    done = run_program(listing)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_no_listing_is_forgotten() -> None:
    """A page with a Python listing is among those whose listings are run."""
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    assert {page for page in pages if listings(page)} <= {*PAGES, *REFERENCES, *GUIDE}


@pytest.mark.parametrize("page", [*PAGES, *GUIDE, "index", "performance", "telemetry"])
def test_links_lead_somewhere(page: str) -> None:
    """What a page links to within the repository is there."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (DOCS / f"{page}.md").read_text("utf-8"))
    assert targets
    assert not [target for target in targets if not (DOCS / target).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_when_not_to(page: str) -> None:
    """Each page says when to use its part, and when not."""
    text = (DOCS / f"{page}.md").read_text("utf-8")
    assert "**Use it**" in text
    assert "**Do not**" in text


def test_the_guide_is_the_same_in_both_languages() -> None:
    """The guide in Chinese has the listings of the English one, chapter by chapter, and the same pages to go on to."""
    english, chinese = ((DOCS / f"{page}.md").read_text("utf-8") for page in GUIDE)
    assert listings(GUIDE[0]) == listings(GUIDE[1])
    outlines = [re.findall(r"^## (\d+)\.|^(```\w+)|`advise`", text, re.MULTILINE) for text in (english, chinese)]
    assert outlines[0] == outlines[1]
    targets = [
        set(re.findall(r"\]\(([\w/-]+\.md)", text)) - {f"{page}.md" for page in GUIDE} for text in (english, chinese)
    ]
    assert targets[0] == targets[1]


@pytest.mark.parametrize("page", GUIDE)
def test_figures_of_the_guide_are_measured(page: str) -> None:
    """A figure that the guide tells is one of the page that says which program measured it."""
    figures = re.findall(r"(\d[\d.,]*) µs", (DOCS / f"{page}.md").read_text("utf-8"))
    assert figures
    measured = (DOCS / "performance.md").read_text("utf-8")
    assert not [figure for figure in figures if f" {figure} |" not in measured]
