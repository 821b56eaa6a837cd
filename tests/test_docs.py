"""The pages in docs/ keep their promises: their listings run, their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = (
    "advice", "batching", "caching", "capacity", "configuration", "health", "hybrid-contexts", "logs", "pools",
    "profiling", "regression", "settings", "streams",
)  # fmt: skip
LISTING = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def listings(page: str) -> list[str]:
    return LISTING.findall((DOCS / f"{page}.md").read_text("utf-8"))


@pytest.mark.parametrize(
    "listing",
    [
        pytest.param(listing, id=f"{page}-{number}")
        for page in PAGES
        for number, listing in enumerate(listings(page), 1)
    ],
)
def test_listings_run(listing: str) -> None:
    """Every Python listing runs as it stands, warning of nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", listing], capture_output=True, text=True, check=False, timeout=50
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("page", PAGES)
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
