"""The report: one HTML page with everything in it, that asks nothing of any network.

What telemetry says is in the page once, as gzipped JSON in base64, which no text in it can break out of; the scripts
only ever make text of it. The page's policy allows the very scripts and styles that are in it, by their hashes.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Final

from aetherflow.analysis.flow_graph import FlowGraph, flow_graphs
from aetherflow.analysis.spans import Span
from aetherflow.report.columns import columns_of
from aetherflow.report.figures import latencies, usage
from aetherflow.report.gathering import Gathered
from aetherflow.report.healths import MIN_SAMPLES, health
from aetherflow.report.profiles import profiles_of

__all__ = ["render"]

_LIBRARIES: Final = ("vendor/uPlot.iife.min.js", "vendor/dagre.min.js")
_STYLES: Final = ("vendor/uPlot.min.css", "page.css")
_MODULES: Final = (
    "format.js", "dom.js", "data.js", "rows.js", "table.js", "histogram.js", "runs.js", "waterfall.js", "details.js",
    "flow.js", "latency.js", "health.js", "profiles.js", "usage.js", "main.js",
)  # fmt: skip
"""In an order in which each stands after what it imports."""

_IMPORT: Final = re.compile(r"^import (\{.*\}) from (\"\./\w+\.js\");$", re.MULTILINE)
_EXPORT: Final = re.compile(r"^export (async function|function|class|const) (\w+)", re.MULTILINE)
_SOURCE_MAP: Final = re.compile(r"^//# sourceMappingURL=.*\n?", re.MULTILINE)


def render(gathered: Gathered, *, made: datetime, title: str | None = None) -> str:
    """Draw up the report.

    Args:
        gathered: What was read.
        made: When, aware; it is told on the page.
        title: Of the page; the names of the services by default.

    Returns:
        The page.
    """
    data = _data(gathered, made, title)
    packed = base64.b64encode(gzip.compress(json.dumps(data, separators=(",", ":")).encode(), mtime=0)).decode()
    scripts, styles = list(_scripts()), ["\n".join(map(_asset, _STYLES))]
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; "
        "base-uri 'none'; form-action 'none'"
    )
    filled = {
        "csp": policy,
        "title": escape(data["title"]),
        "styles": f"<style>{styles[0]}</style>",
        "data": packed,
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    return re.sub(r"\{(\w+)\}", lambda found: filled[found[1]], _asset("page.html"))


def _data(gathered: Gathered, made: datetime, title: str | None) -> dict[str, Any]:
    columns = columns_of(gathered.traces)
    spans = [span for trace in gathered.traces for span in trace.tree.walk()]
    found = latencies(gathered.jobs, spans)
    services = sorted({span.resource.service for span in spans} - {""})
    graphs = flow_graphs([list(trace.tree.walk()) for trace in gathered.traces])
    return {
        "title": title or ", ".join(services[:3]) or "AetherFlow report",
        "made": str(int(made.timestamp()) * 1_000_000_000),
        "files": len(gathered.files),
        "notes": list(_notes(gathered, spans)),
        "spans": columns.as_json(),
        "flows": [_flow(name, graph) for name, graph in sorted(graphs.items(), key=lambda item: -item[1].seconds)],
        "latencies": found,
        "health": health(gathered.jobs, found),
        "minimum": MIN_SAMPLES,
        "profiles": profiles_of(spans, columns.where),
        "usage": usage(gathered.jobs, spans),
    }


def _notes(gathered: Gathered, spans: list[Span]) -> Iterator[str]:
    if gathered.traces_left_out:
        yield (
            f"Only the newest {len(gathered.traces):,} traces are shown, with {len(spans):,} spans; "
            f"{gathered.traces_left_out:,} older ones had no room. Figures from metrics are of all."
        )
    if spans and not gathered.jobs:
        yield "There are no metrics: latencies, health, batches and caches are counted from the spans shown here."


def _flow(name: str, graph: FlowGraph) -> dict[str, Any]:
    return {
        "name": name,
        "runs": graph.runs,
        "errors": graph.errors,
        "seconds": graph.seconds,
        "nodes": [
            {
                "name": node,
                "executions": seen.executions,
                "errors": seen.errors,
                "seconds": seen.seconds,
                "mean": seen.mean,
                "slowest": seen.slowest if seen.computed else None,
                "flow": seen.is_flow,
            }
            for node, seen in graph.nodes.items()
        ],
        "edges": [[*ends, times] for ends, times in graph.edges.items()],
        "order": [[*ends, times] for ends, times in graph.order.items() if ends not in graph.edges],
    }


def _scripts() -> Iterator[str]:
    """Yield the scripts of the page: the libraries, and our modules as one: a page in a file cannot import."""
    yield from map(_asset, _LIBRARIES)
    yield "\n".join(['"use strict";', "(() => {", "const modules = {};", *map(_scoped, _MODULES), "})();", ""])


def _scoped(module: str) -> str:
    """Give a module as a function of its own that returns what the module exports."""
    source = _asset(module)
    exported = ", ".join(found[2] for found in _EXPORT.finditer(source))
    body = _EXPORT.sub(r"\1 \2", _IMPORT.sub(r"const \1 = modules[\2];", source))
    return f'modules["./{module}"] = (() => {{\n{body}return {{ {exported} }};\n}})();'


@cache
def _asset(name: str) -> str:
    return _SOURCE_MAP.sub("", (files("aetherflow.report") / "assets" / name).read_text("utf-8"))


def _hashes(blocks: list[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
