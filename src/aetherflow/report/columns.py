"""Spans as columns of numbers: compact to store, and quick to read in a browser.

Every text is stored once, and so is every set of attributes; spans stand in the order of the waterfall, trace after
trace, and times are nanoseconds since the start of their trace.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aetherflow.analysis.critical_path import critical_path
from aetherflow.analysis.otlp_fields import AttributeValue
from aetherflow.analysis.spans import Span, SpanEvent, SpanKind, StatusCode
from aetherflow.report.gathering import Trace
from aetherflow.telemetry import conventions as names

__all__ = ["Columns", "columns_of", "shown"]

_MAX_VALUE: Final = 4_000
"""Signs of an attribute's value, or of a name; the rest is cut off, and told as a number."""

_OTHER, _RUN, _BATCH = 0, 1, 2
_NO_PARENT: Final = -1
_PARENT_ELSEWHERE: Final = -2
_STATUS: Final[dict[StatusCode, int]] = {"unset": 0, "ok": 1, "error": 2}
_KINDS: Final[tuple[SpanKind, ...]] = ("unspecified", "internal", "server", "client", "producer", "consumer")


class _Table:
    """Things stored once, each known by its number."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, item: Any, key: Any = None) -> int:
        """Give the number of something; ``key`` is what tells it apart where it cannot be a key itself."""
        key = item if key is None else key
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self.items)
            self.items.append(item)
        return found


@dataclass(slots=True)
class Columns:
    """All spans of a report.

    Attributes:
        base: Start of the first trace, in nanoseconds since the epoch.
        traces: A row each: id, name, start, length, spans, errors, index of its first span, spans here, spans that had
            no room, and whether it is a run (1), a batch (2) or something else (0); names are numbers of texts.
        critical: For each trace, flat: the index of a span, where its stretch begins, and how long it is.
        spans: The columns.
        events: By index of the span: name, time, set of attributes.
        links: By index of the span: index of the other span or -1, its trace's id, its id, set of attributes.
        messages: Status messages, by index of the span.
        where: The index of each span, by trace and id.
    """

    base: int = 0
    traces: list[list[Any]] = field(default_factory=list)
    critical: list[list[int]] = field(default_factory=list)
    spans: dict[str, list[int]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    events: dict[int, list[list[int]]] = field(default_factory=dict)
    links: dict[int, list[list[Any]]] = field(default_factory=dict)
    messages: dict[int, int] = field(default_factory=dict)
    where: dict[tuple[str, str], int] = field(default_factory=dict)
    texts: _Table = field(default_factory=_Table)
    pairs: _Table = field(default_factory=_Table)
    sets: _Table = field(default_factory=_Table)
    resources: _Table = field(default_factory=_Table)

    def as_json(self) -> dict[str, Any]:
        """Give what JSON is made of."""
        return {
            "base": str(self.base),
            "kinds": _KINDS,
            "texts": self.texts.items,
            "pairs": self.pairs.items,
            "sets": self.sets.items,
            "resources": self.resources.items,
            "traces": self.traces,
            "critical": self.critical,
            "spans": self.spans,
            "ids": "".join(self.ids),
            "events": self.events,
            "links": self.links,
            "messages": self.messages,
        }

    def text(self, text: str) -> int:
        """Give the number of a text."""
        return self.texts.number(_cut(text))

    def set_of(self, attributes: Mapping[str, AttributeValue]) -> int:
        """Give the number of a set of attributes."""
        pairs = tuple(self.pairs.number((self.text(key), self.text(shown(value)))) for key, value in attributes.items())
        return self.sets.number(pairs)


def columns_of(traces: Sequence[Trace]) -> Columns:
    """Put the spans of traces into columns.

    Args:
        traces: By start.
    """
    columns = Columns(base=traces[0].summary.start if traces else 0)
    columns.set_of({})
    for name in ("name", "parent", "start", "length", "status", "kind", "thread", "resource", "set"):
        columns.spans[name] = []
    ordered: list[Span] = []
    for trace in traces:
        spans = list(trace.tree.walk())
        _add_trace(columns, trace, spans)
        ordered += spans
    for index, span in enumerate(ordered):
        if span.links:
            columns.links[index] = [
                [
                    columns.where.get((link.trace_id, link.span_id), -1),
                    columns.text(link.trace_id),
                    columns.text(link.span_id),
                    columns.set_of(link.attributes),
                ]
                for link in span.links
            ]
    return columns


def _add_trace(columns: Columns, trace: Trace, spans: Sequence[Span]) -> None:
    first, summary = len(columns.ids), trace.summary
    columns.where |= {(span.trace_id, span.span_id): index for index, span in enumerate(spans, first)}
    parents = {child.span_id: parent for parent, below in trace.tree.children.items() for child in below}
    for index, span in enumerate(spans, first):
        parent = parents.get(span.span_id)
        if parent is not None:
            number = columns.where[span.trace_id, parent]
        else:
            number = _NO_PARENT if span.parent_id is None else _PARENT_ELSEWHERE
        _add_span(columns, index, span, number, summary.start)
    columns.critical.append(_path(columns, trace))
    columns.traces.append(
        [
            summary.trace_id,
            columns.text(summary.name),
            summary.start - columns.base,
            max(0, summary.end - summary.start),
            summary.spans,
            summary.errors,
            first,
            len(spans),
            trace.left_out,
            _kind_of(trace),
        ]
    )


def _add_span(columns: Columns, index: int, span: Span, parent: int, start: int) -> None:
    spans = columns.spans
    resource = columns.set_of(span.resource.attributes)
    columns.ids.append(span.span_id)
    spans["name"].append(columns.text(span.name))
    spans["parent"].append(parent)
    spans["start"].append(span.start - start)
    spans["length"].append(max(0, span.end - span.start) if span.end else -1)
    spans["status"].append(_STATUS[span.status.code])
    spans["kind"].append(_KINDS.index(span.kind))
    thread = span.attributes.get(names.THREAD_NAME) or span.attributes.get(names.THREAD_ID) or ""
    spans["thread"].append(columns.text(shown(thread)))
    spans["resource"].append(columns.resources.number((columns.text(span.resource.service), resource)))
    spans["set"].append(columns.set_of(span.attributes))
    if span.status.message:
        columns.messages[index] = columns.text(span.status.message)
    if span.events:
        columns.events[index] = [_event(columns, event, start) for event in span.events]


def _event(columns: Columns, event: SpanEvent, start: int) -> list[int]:
    return [columns.text(event.name), event.time - start, columns.set_of(event.attributes)]


def _kind_of(trace: Trace) -> int:
    tops = [span.attributes for span in trace.tree.roots]
    if any(names.RUN_ID in top or names.FLOW_NODES in top for top in tops):
        return _RUN
    return _BATCH if all(names.BATCH_SIZE in top and names.FLOW_NAME not in top for top in tops) else _OTHER


def _path(columns: Columns, trace: Trace) -> list[int]:
    """Give the critical path of the longest root: the others of a trace are not waited for by it."""
    roots = [span for span in trace.tree.roots if span.parent_id is None] or list(trace.tree.roots)
    longest = max(roots, key=lambda span: span.end - span.start)
    flat = []
    for span, start, end in critical_path(trace.tree, longest):
        flat += [columns.where[span.trace_id, span.span_id], start - trace.summary.start, end - start]
    return flat


def shown(value: AttributeValue | Iterable[object]) -> str:
    """Write an attribute's value for people: a text as it is, all else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.hex() if isinstance(value, bytes) else value


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}… ({len(text):,} signs)"
