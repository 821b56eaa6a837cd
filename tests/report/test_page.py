"""The report in a real browser: it shows what there is, to eyes and keyboards, and runs nothing that it was told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.analysis.metric_samples import exponential, message, node_durations, of_node, save
from tests.analysis.otlp_samples import MS, SECOND, TRACE, attribute, line, span, write
from tests.report import shop as sample
from tests.report.browsing import chromium, needs_chromium, opened

from aetherflow.cli.main import main
from aetherflow.telemetry import conventions as names

pytestmark = [pytest.mark.browser, needs_chromium]

TABS = ("runs", "flow", "latency", "health", "profiles", "usage")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a shop whose flows really ran."""
    folder = tmp_path_factory.mktemp("shop")
    command = [sys.executable, "-W", "error", sample.__file__, str(folder / "telemetry"), "8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    return report(folder / "telemetry")


def report(*telemetry: Path) -> Path:
    page = telemetry[0].parent / "report.html"
    assert main(["report", *map(str, telemetry), "-o", str(page)]) == 0
    return page


def rows(page: Any, label: str) -> list[str]:
    """What the rows of a table tell, row by row."""
    found: list[str] = page.get_by_label(label, exact=True).locator("tbody tr").all_inner_texts()
    return [" ".join(row.split()) for row in found]


def test_a_real_program_is_shown_whole(browser: Any, shop: Path) -> None:
    """Runs, graph, latencies, health, profiles, batches and caches of flows that ran are all on the page."""
    with opened(browser, shop) as page:
        assert page.locator(".figures").inner_text().split("\n")[1] == "10"
        page.get_by_label("Find a run").fill("ship")
        assert page.get_by_text("8 of 10").is_visible()
        page.click("#tab-flow")
        names = page.locator(".node-name").all_text_contents()
        assert {"load_orders", "check", "invoice", "label", "ship"} <= set(names)
        page.click("#tab-latency")
        assert any(row.startswith("ship-orders run ship-orders 8 ") for row in rows(page, "Latencies"))
        assert page.locator(".plot canvas").is_visible()
        page.click("#tab-health")
        assert any("node check error rate" in row for row in rows(page, "Checks"))
        page.click("#tab-profiles")
        assert page.get_by_role("treeitem").count() > 1
        page.click("#tab-usage")
        assert rows(page, "Batches")[0].startswith("look_up_stock ")
        assert rows(page, "Caches")[0].startswith("find_customer ")
        assert rows(page, "Executors")


def test_parts_and_runs_are_reached_by_keyboard(browser: Any, shop: Path) -> None:
    """Arrow keys go through the tabs and the runs; the tab key reaches the list."""
    with opened(browser, shop) as page:
        focused = page.locator(":focus")
        page.locator("#tab-runs").focus()
        page.keyboard.press("ArrowRight")
        assert focused.inner_text().startswith("Flow graph")
        assert page.locator("#panel-flow").is_visible()
        page.keyboard.press("Home")
        for _ in range(6):
            page.keyboard.press("Tab")
            if focused.get_attribute("role") == "listbox":
                break
        page.keyboard.press("End")
        assert page.locator('.run[aria-selected="true"]').count() == 1


def test_spans_are_walked_and_folded_by_keyboard(browser: Any, shop: Path) -> None:
    """In the waterfall arrow keys go up, down and in; what is folded can be unfolded; plus looks closer."""
    with opened(browser, shop) as page:
        focused = page.locator(":focus")
        page.get_by_role("treegrid").focus()
        assert focused.evaluate("each => getComputedStyle(each).outlineStyle") == "solid"
        before = page.get_by_role("row").count()
        page.keyboard.press("ArrowDown")
        details = page.locator(".details h3")
        assert details.inner_text() == "load_orders"
        page.keyboard.press("Home")
        page.keyboard.press("ArrowLeft")
        assert page.get_by_role("row").count() == 1 < before
        page.keyboard.press("ArrowRight")
        page.keyboard.press("+")
        assert page.locator(".map-window").is_visible()


def test_tables_and_frames_are_walked_by_keyboard(browser: Any, shop: Path) -> None:
    """In tables arrow keys choose a row, in flame graphs a frame, and Enter looks into it."""
    with opened(browser, shop) as page:
        focused = page.locator(":focus")
        page.click("#tab-latency")
        page.locator("[aria-label=Latencies] tr[tabindex='0']").focus()
        chosen = page.locator(".chart h2")
        first = chosen.inner_text()
        page.keyboard.press("ArrowDown")
        assert chosen.inner_text() != first
        page.click("#tab-profiles")
        page.get_by_role("treeitem").first.focus()
        page.keyboard.press("ArrowDown")
        assert focused.get_attribute("aria-level") == "2"
        page.keyboard.press("Enter")
        assert focused.get_attribute("aria-selected") == "true"


def test_light_and_dark(browser: Any, shop: Path) -> None:
    """The page follows the system, until the button says otherwise; and text can be read on its ground in both."""
    measure = """() => {
      const light = (name) => {
        const [r, g, b] = getComputedStyle(document.querySelector(name[0]))[name[1]].match(/[\\d.]+/g).map((each) => {
          const part = each / 255;
          return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const [ink, paper] = [light([".note", "color"]), light(["header", "backgroundColor"])];
      return [paper, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)];
    }"""
    with opened(browser, shop, color_scheme="dark") as page:
        dark, contrast = page.evaluate(measure)
        assert dark < 0.1
        assert contrast > 4.5
        button = page.get_by_label("Theme:")
        button.click()
        light, contrast = page.evaluate(measure)
        assert button.inner_text().endswith("light")
        assert light > 0.9
        assert contrast > 4.5


def test_hostile_names_are_text(browser: Any, tmp_path: Path) -> None:
    """Markup in names, values, events, ids of flows, titles and errors is shown as it was written, and never runs."""
    evil = f"<script>broken = 1</script>{sample.MARKUP}<img src=x onerror=broken=1>&lt;\"'\\u2028{{data}}\ud800"
    told = [
        attribute("aetherflow.flow.name", {"stringValue": evil}),
        attribute("aetherflow.node.name", {"stringValue": evil}),
        attribute(evil, {"stringValue": evil}),
    ]
    events = [{"name": evil, "timeUnixNano": str(SECOND), "attributes": told}]
    events.append({"name": "aetherflow.profile", "attributes": profile(evil)})
    run = span(1, name=evil, attributes=[*told[::2], attribute("aetherflow.flow.nodes", {"intValue": "1"})])
    node = span(2, 1, name=evil, attributes=told, events=events, status={"code": 2, "message": evil})
    file = write(tmp_path / "evil.jsonl", line(run, node).replace('"shop"', '"</title><script>broken=1</script>"'))
    page_file = tmp_path / "evil.html"
    assert main(["report", str(file), "-o", str(page_file), "--title", evil]) == 0
    with opened(browser, page_file) as page:
        assert page.locator("h1").inner_text() == evil
        page.get_by_role("treegrid").focus()
        page.keyboard.press("End")
        for tab in TABS:
            page.click(f"#tab-{tab}")
            assert "<script>broken = 1</script></script><script>window.broken" in page.locator("body").inner_text()
        assert page.evaluate("typeof window.broken") == "undefined"
        assert page.locator("img").count() == 0


def profile(name: str) -> list[dict[str, Any]]:
    values = {"functions": ("stringValue", name), "self_time": ("doubleValue", 0.5)}
    values |= {"cumulative_time": ("doubleValue", 1.0), "calls": ("intValue", "3")}
    told = [
        attribute(f"aetherflow.profile.{key}", {"arrayValue": {"values": [{kind: value}]}})
        for key, (kind, value) in values.items()
    ]
    return [*told, attribute("aetherflow.profile.profiler", {"stringValue": name})]


def chain(length: int) -> list[dict[str, Any]]:
    """A trace as deep as it has spans."""
    end = str(SECOND + 10_000 * MS)
    return [span(number, number - 1 or None, endTimeUnixNano=end) for number in range(1, length + 1)]


LINK = {"traceId": TRACE, "spanId": f"{2:016x}"}
ORPHANS = [
    span(2, 1, name="orphan"),
    span(3, 2, name="unfinished", endTimeUnixNano="0"),
    span(4, 5, name="circle"),
    span(5, 4, name="circle"),
    span(6, 2, name="backwards", endTimeUnixNano=str(SECOND)),
    span(7, 2, name="linked", links=[LINK, LINK | {"traceId": "f" * 32}]),
]
ODD: dict[str, tuple[list[dict[str, Any]], int]] = {
    "nothing": ([], 0),
    "one span": ([span(1)], 1),
    "a chain 3,000 deep": (chain(3_000), 3_000),
    "orphans and unfinished spans": (ORPHANS, 6),
    "10,000 runs": ([span(1, traceId=f"{number:032x}") for number in range(1, 10_001)], 1),
}


@pytest.mark.parametrize("case", ODD)
def test_whatever_was_exported_is_shown(browser: Any, tmp_path: Path, case: str) -> None:
    """Every tab opens on telemetry that is empty, tiny, deep, numerous or broken; only rows in sight are elements."""
    spans, count = ODD[case]
    with opened(browser, report(write(tmp_path / "odd.jsonl", line(*spans)))) as page:
        for tab in TABS:
            page.click(f"#tab-{tab}")
            assert page.locator(f"#panel-{tab}").inner_text().strip()
        page.click("#tab-runs")
        assert page.locator(".rows-row").count() < 100
        if count:
            assert page.get_by_role("treegrid").get_attribute("aria-rowcount") == str(count)
            page.get_by_role("treegrid").focus()
            page.keyboard.press("End")
            assert page.locator(".span.active").is_visible()


def test_an_expected_exception_is_not_shown_as_an_error(browser: Any, tmp_path: Path) -> None:
    """Its span is marked as expected, with the type in the details, and neither it nor its run counts as failed."""
    about = {names.NODE_NAME: "find", names.NODE_RESULT: "expected", names.EXPECTED_TYPE: "shop.SoldOut"}
    expected = span(1, attributes=[attribute(key, {"stringValue": value}) for key, value in about.items()])
    with opened(browser, report(write(tmp_path / "traces-1.jsonl", line(expected)))) as page:
        row = page.get_by_role("treegrid").get_by_role("row").first
        assert "expected shop.SoldOut" in row.get_attribute("aria-label")
        assert page.locator(".span-failed, .run-failed").count() == 0
        row.click()
        assert "◌ expected shop.SoldOut" in page.locator(".details").inner_text()


def test_hits_alone_have_no_histogram(browser: Any, tmp_path: Path) -> None:
    """Latencies of a node that was never computed are dashes, and its row says that it was cached."""
    point = of_node(exponential([0.00002] * 50), "n", **{names.EXECUTION_KIND: "cache_hit"})
    with opened(browser, report(save(tmp_path / "metrics-1.jsonl", message(node_durations(point))))) as page:
        page.click("#tab-latency")
        assert rows(page, "Latencies")[0].split()[:6] == ["n", "node", "flow", "50", "100", "%"]
        assert page.locator("#panel-latency .plot").count() == 0
        assert "0 measured of 50" in page.locator("#panel-latency").inner_text()


def test_links_and_the_critical_path_are_drawn(browser: Any, shop: Path) -> None:
    """A fan-in has arrows from its branches; a link to another trace leads there; the path alone can be looked at."""
    with opened(browser, shop) as page:
        page.get_by_label("Find a run").fill("prices")
        page.locator(".run").first.click()
        page.get_by_label("Find a span").fill("read_orders")
        page.keyboard.press("Enter")
        assert page.locator(".arrow").count() == 8
        assert page.locator(".critical").count() > 2
        everything = int(page.get_by_role("treegrid").get_attribute("aria-rowcount"))
        page.get_by_label("critical path only").check()
        assert 1 < int(page.get_by_role("treegrid").get_attribute("aria-rowcount")) < everything
        page.get_by_label("critical path only").uncheck()
        page.get_by_label("Find a run").fill("ship")
        page.locator(".run").last.click()
        page.get_by_label("Find a span").fill("look_up_stock")
        page.keyboard.press("Enter")
        page.locator(".details .go", has_text="look_up_stock batch").click()
        assert page.locator(".trace h2").inner_text() == "look_up_stock batch"
        address = page.evaluate("location.hash")
    with opened(browser, shop, fragment=address) as page:
        assert page.locator(".trace h2").inner_text() == "look_up_stock batch"


def test_the_policy_allows_what_is_in_the_page_alone(browser: Any, shop: Path) -> None:
    """A script that is put into the page, an attribute that holds one, and a request are all refused."""
    text = shop.read_text("utf-8")
    assert "Content-Security-Policy\" content=\"default-src 'none'; script-src 'sha256-" in text
    spoiled = shop.with_name("spoiled.html")
    added = '<script>window.added = 1</script><p onclick="window.added = 1"></p>'
    spoiled.write_text(text.replace("<body>", f"<body>{added}"), encoding="utf-8")
    page = browser.new_page()
    page.goto(spoiled.as_uri())
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate("typeof window.added") == "undefined"
    assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'let through', () => 'refused')") == "refused"
    page.close()
