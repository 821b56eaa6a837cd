"""Make the pictures of the report for the README, of flows that run for it: python tools/report_pictures.py.

Needs Chromium on PATH, and playwright.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PICTURES: Final = ROOT / "docs" / "pictures"


def main() -> None:
    """Run the shop, draw up its report, and take the pictures."""
    sys.path.insert(0, str(ROOT))
    from tests.report import shop
    from tests.report.browsing import chromium, opened

    from aetherflow.report.gathering import gather
    from aetherflow.report.page import render

    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        shop.run(Path(folder), 40)
        file = Path(folder, "report.html")
        file.write_text(render(gather([folder]), made=datetime.now(UTC)), encoding="utf-8")
        for scheme, tabs in (("light", ("runs", "flow", "latency")), ("dark", ("runs",))):
            size = {"width": 1280, "height": 720}
            with opened(browser, file, viewport=size, color_scheme=scheme) as page:
                page.get_by_label("Find a run").fill("ship")
                page.locator(".run:not(.run-failed)").first.click()
                page.get_by_label("Find a span").fill("read_orders")
                page.keyboard.press("Enter")
                page.get_by_label("Find a span").fill("")
                for tab in tabs:
                    page.click(f"#tab-{tab}")
                    page.wait_for_timeout(300)
                    name = f"report-{tab}{'' if scheme == 'light' else '-dark'}.png"
                    page.screenshot(path=str(PICTURES / name))


if __name__ == "__main__":
    main()
