"""How long a report takes to make, and to open in Chromium: 50,000 spans must be on the screen within three seconds.

Run it with ``python benchmarks/report.py``; it needs Chromium on PATH, and playwright.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aetherflow.report.gathering import gather
from aetherflow.report.page import render
from aetherflow.telemetry import conventions as names

LIMIT: Final = 3.0
"""Seconds from the navigation to a page that can be used."""

_START: Final = 1_700_000_000_000_000_000
_MS: Final = 1_000_000
_LINES: Final = 500
_DRAWN: Final = """() => new Promise(
    (done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"""


def _attribute(key: str, value: str | int) -> dict[str, Any]:
    kind, text = ("intValue", str(value)) if isinstance(value, int) else ("stringValue", value)
    return {"key": key, "value": {kind: text}}


def _trace(number: int, spans: int) -> Iterator[dict[str, Any]]:
    """Yield a run whose nodes fan out, four wide and some levels deep, with attributes as AetherFlow's spans have."""
    start = _START + number * 1_000 * _MS
    for index in range(spans):
        parent = (index - 1) // 4
        begin = start + index * _MS // 8
        span: dict[str, Any] = {
            "traceId": f"{number + 1:032x}",
            "spanId": f"{number + 1:08x}{index + 1:08x}",
            "name": f"node_{index % 40}" if index else "run flow",
            "kind": 1,
            "startTimeUnixNano": str(begin),
            "endTimeUnixNano": str(begin + max(1, spans - index) * _MS // 8),
            "attributes": [
                _attribute(names.FLOW_NAME, "flow"),
                _attribute(names.RUN_ID, f"{number:016x}")
                if not index
                else _attribute(names.NODE_NAME, f"node_{index % 40}"),
                _attribute(names.FLOW_NODES, 40) if not index else _attribute(names.BATCH_INDEX, index),
                _attribute(names.THREAD_NAME, f"worker-{index % 8}"),
                _attribute(names.PROVIDER_SCOPE, "thread_local"),
            ],
            "status": {"code": 2, "message": "no answer"} if index % 97 == 96 else {},
        }
        if index:
            span["parentSpanId"] = f"{number + 1:08x}{parent + 1:08x}"
        if index % 50 == 49:
            span["links"] = [{"traceId": span["traceId"], "spanId": f"{number + 1:08x}{index - 5:08x}"}]
        yield span


def _write(file: Path, traces: int, spans: int) -> None:
    with file.open("w", encoding="utf-8") as stream:
        for number in range(traces):
            whole = list(_trace(number, spans))
            for at in range(0, len(whole), _LINES):
                scoped = [{"scope": {"name": names.SCOPE_NAME}, "spans": whole[at : at + _LINES]}]
                resource = {"attributes": [_attribute("service.name", "benchmark")]}
                stream.write(json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": scoped}]}) + "\n")


def _opened(file: Path, times: int) -> list[float]:
    """Give the seconds from navigation to a drawn page, each in a page of its own."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as driver:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=sandbox)
        for _ in range(times):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(file.as_uri(), wait_until="commit")
            page.wait_for_selector("html[data-ready]", timeout=60_000)
            # `performance.now()` counts from the navigation; two frames later the page is on the screen.
            found.append(page.evaluate(_DRAWN) / 1_000)
            page.close()
        browser.close()
    return found


def main() -> None:
    """Measure, and end with an error where the limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=50_000)
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for traces in (1, 500, 10_000):
            file, page = Path(folder, f"{traces}.jsonl"), Path(folder, f"{traces}.html")
            _write(file, traces, max(1, arguments.spans // traces))
            before = time.perf_counter()
            gathered = gather([file])
            read = time.perf_counter() - before
            page.write_text(render(gathered, made=datetime.now(UTC)), encoding="utf-8")
            made = time.perf_counter() - before - read
            times = _opened(page, arguments.times)
            slowest = max(slowest, statistics.median(times))
            print(
                f"{arguments.spans:,} spans in {traces:,} traces: {file.stat().st_size / 1e6:.1f} MB "
                f"read in {read:.1f} s, "
                f"drawn up in {made:.1f} s, {page.stat().st_size / 1e6:.2f} MB of page; "
                f"opened in {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"
            )
    if slowest > LIMIT:
        raise SystemExit(f"too slow: {slowest:.2f} s, where at most {LIMIT:.0f} s are allowed")


if __name__ == "__main__":
    main()
