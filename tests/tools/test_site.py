"""The site builds without a warning, and is all there for readers who are cut off from every network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.report.browsing import chromium, needs_chromium

import aetherflow

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]  # the first test builds the site
ENTRY = re.compile(r"^::: aetherflow\.(\w+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as CI and contributors do."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Where the site is served, on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_every_page_is_there(site: Path) -> None:
    """Every page is built, no link is broken, none is outside the navigation, and the README's sections are in."""
    pages = {path.relative_to(site).parent.as_posix() for path in site.rglob("index.html")}
    written = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    wanted = {path.parent.as_posix() if path.name in ("README", "index") else path.as_posix() for path in written}
    assert wanted <= pages
    assert "word_count" in (site / "index.html").read_text("utf-8")
    assert "MissingInputError" in (site / "concepts" / "index.html").read_text("utf-8")
    assert "HealthMonitor" in (site / "examples" / "health.py" / "index.html").read_text("utf-8")
    assert not [path for path in site.rglob("*.html") if "<!-- README" in path.read_text("utf-8")]


def test_every_public_name_is_in_the_api(site: Path) -> None:
    """The API page has each name of the package once, with what its docstring says."""
    assert sorted(ENTRY.findall((ROOT / "docs" / "api.md").read_text("utf-8"))) == sorted(aetherflow.__all__)
    page = (site / "api" / "index.html").read_text("utf-8")
    shown = set(re.findall(r'id="aetherflow\.([\w.]+)"', page))
    assert shown >= {*aetherflow.__all__, "Node.run", "Node.then", "ObjectPool.lease"}
    assert ":meth:" not in page


def test_the_chinese_page_says_so(site: Path) -> None:
    """Browsers choose fonts and voices by the language of a page."""
    languages = {
        page: re.findall(r"<html lang=\"([\w-]+)\"", (site / page / "index.html").read_text("utf-8"))
        for page in ("performance-guide", "performance-guide.zh")
    }
    assert languages == {"performance-guide": ["en"], "performance-guide.zh": ["zh-Hans"]}


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    """Scripts, styles, fonts and pictures of every page are the site's own."""
    loads = re.compile(r"""<(?:script|img|iframe|source)[^>]+src="?(?:https?:)?//|<link[^>]+href="?(?:https?:)?//""")
    styles = re.compile(r"(?:url\(|@import )[\"']?(?:https?:)?//")
    assert not [path for path in site.rglob("*.html") if loads.search(path.read_text("utf-8"))]
    assert not [path for path in site.rglob("*.css") if styles.search(path.read_text("utf-8"))]


@pytest.mark.browser
@needs_chromium
def test_a_browser_asks_only_the_site(address: str) -> None:
    """In a real browser, the search included, every request goes to where the site is served, and is answered."""
    with chromium() as browser:
        page = browser.new_page()
        asked: list[str] = []
        answered: list[int] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("response", lambda response: answered.append(response.status))
        for path in ("", "api/", "telemetry/", "performance-guide.zh/"):
            page.goto(address + path, wait_until="networkidle")
        page.locator("input[name=query]").press_sequentially("cache")
        page.wait_for_selector(".md-search-result__link")
    assert len(asked) > 10
    assert not [url for url in asked if not url.startswith((address, "data:"))]
    assert set(answered) <= {200, 304}
