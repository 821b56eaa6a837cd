"""A real Chromium, headless, that looks at reports."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: on Debian, apt install chromium")


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a browser, for as many pages as wanted."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium has none for root
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, file: Path, *, ready: bool = True, fragment: str = "", **options: Any) -> Iterator[Any]:
    """Open a page and hold it to two promises all the while: it tells of no error, and asks nothing of a network."""
    options = {"viewport": {"width": 1440, "height": 860}} | options
    page = browser.new_page(**options)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri() + fragment)
    if ready:
        page.wait_for_selector("html[data-ready]", timeout=20_000)
    try:
        yield page
        assert said == []
        assert asked == [file.as_uri()]
    finally:
        page.close()
