"""OTLP messages to write files with, in the plain JSON that exporters write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aetherflow.analysis.spans import Resource, Scope, Span

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SECOND = 1_700_000_000_000_000_000
"""Nanoseconds since the epoch at which the samples begin."""
MS = 1_000_000


def span(number: int, parent: int | None = None, **fields: Any) -> dict[str, Any]:
    """One span as JSON: its id, and its parent's, are the numbers in hexadecimal; it lasts a millisecond."""
    data: dict[str, Any] = {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "name": f"n{number}",
        "kind": 1,
        "startTimeUnixNano": str(SECOND + number * MS),
        "endTimeUnixNano": str(SECOND + (number + 1) * MS),
    }
    if parent is not None:
        data["parentSpanId"] = f"{parent:016x}"
    return data | fields


RESOURCE, SCOPE = Resource({"service.name": "shop"}), Scope("test", "1")


def made(number: int, parent: int | None = None, start: int = 0, end: int = 1, **fields: Any) -> Span:
    """One span as it is read, ids as in `span`."""
    parent_id = None if parent is None else f"{parent:016x}"
    given = {"name": f"n{number}", "kind": "internal", "resource": RESOURCE, "scope": SCOPE} | fields
    return Span("a" * 32, f"{number:016x}", parent_id, start=start, end=end, **given)


def attribute(key: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {"key": key, "value": value}


def document(*spans: Mapping[str, Any], service: str = "shop") -> dict[str, Any]:
    """One export request."""
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": [attribute("service.name", {"stringValue": service})]},
                "scopeSpans": [{"scope": {"name": "aetherflow", "version": "1"}, "spans": list(spans)}],
            }
        ]
    }


def line(*spans: Mapping[str, Any]) -> str:
    return json.dumps(document(*spans)) + "\n"


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(lines), encoding="utf-8")
    return path
