"""TELEMETRY.md as code: what a span may say, must say and must not say, and traces as outlines to compare."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import get_args

from aetherflow.analysis.spans import Span
from aetherflow.telemetry import conventions as names

RUN_MUST = {names.FLOW_NAME, names.RUN_ID, names.FLOW_NODES}
RUN_MAY = {names.RUN_RESULT, names.ERROR_TYPE}
NODE_MUST = {
    names.FLOW_NAME, names.NODE_NAME, names.NODE_TYPE, names.PROVIDER_SCOPE, names.CODE_FUNCTION_NAME,
    names.THREAD_ID, names.THREAD_NAME,
}  # fmt: skip
NODE_MAY = {
    names.RUN_ID, names.NODE_UPSTREAM, names.NODE_ATTEMPT, names.NODE_RESULT, names.ERROR_TYPE, names.PROVIDER_NAMES,
    names.PROVIDER_SCOPES, names.BATCH_INDEX, names.BATCH_COUNT, names.BATCH_SIZE, names.STREAM_ITEMS,
    names.LINK_DROPPED_COUNT, names.NODE_CACHE_HIT, names.BATCH_WAIT, names.EXECUTION_KIND, names.RETRY_WAIT,
    names.EXPECTED_TYPE,
}  # fmt: skip
BATCH_MUST = {names.NODE_NAME, names.CODE_FUNCTION_NAME, names.BATCH_SIZE, names.THREAD_ID, names.THREAD_NAME}
BATCH_MAY = {
    names.NODE_RESULT, names.NODE_ATTEMPT, names.ERROR_TYPE, names.LINK_DROPPED_COUNT, names.EXPECTED_TYPE,
}  # fmt: skip
TYPES = {
    names.FLOW_NODES: int, names.NODE_ATTEMPT: int, names.THREAD_ID: int, names.BATCH_INDEX: int,
    names.BATCH_COUNT: int, names.BATCH_SIZE: int, names.STREAM_ITEMS: int, names.LINK_DROPPED_COUNT: int,
    names.BATCH_WAIT: float, names.NODE_CACHE_HIT: bool, names.RETRY_WAIT: float,
    names.NODE_UPSTREAM: tuple, names.PROVIDER_NAMES: tuple, names.PROVIDER_SCOPES: tuple,
}  # fmt: skip
"""Attributes that are no strings."""


def check_contract(spans: Sequence[Span]) -> None:
    """Hold every span to what is said of all spans; fails with the span and what is wrong with it."""
    assert spans
    for span in spans:
        is_run = names.FLOW_NODES in span.attributes
        is_batch = span.name == names.BATCH_SPAN.format(node=span.attributes.get(names.NODE_NAME))
        present = set(span.attributes)
        must, may = (RUN_MUST, RUN_MAY) if is_run else (BATCH_MUST, BATCH_MAY) if is_batch else (NODE_MUST, NODE_MAY)
        assert must <= present <= must | may, f"{span.name}: {present ^ must}"
        for name, value in span.attributes.items():
            assert isinstance(value, TYPES.get(name, str)), f"{span.name}: {name}={value!r}"
        if is_run:
            assert span.name == f"run {span.attributes[names.FLOW_NAME]}"
            assert span.links == ()
        elif is_batch:
            assert span.parent_id is None
        else:
            assert span.name == span.attributes[names.NODE_NAME]
            _check_node(span)
        assert span.kind == "internal"
        assert span.scope.name == "aetherflow"
        _check_end(span, names.RUN_RESULT if is_run else names.NODE_RESULT)
    _check_exceptions(spans)


def _check_node(span: Span) -> None:
    told = span.attributes
    assert told[names.NODE_TYPE] in ("sync", "async", "stream", "batch")
    assert (told[names.NODE_TYPE] == "stream") == (names.STREAM_ITEMS in told)
    placed = {names.BATCH_SIZE, names.BATCH_INDEX, names.BATCH_WAIT, names.BATCH_COUNT} & set(told)
    if told[names.NODE_TYPE] == "batch":  # those whose batch never began, or whose result was cached, were nowhere
        assert placed in (set(), {names.BATCH_SIZE, names.BATCH_INDEX, names.BATCH_WAIT})
    else:
        partition = {names.BATCH_INDEX, names.BATCH_COUNT}
        of_stream = {names.BATCH_INDEX, names.BATCH_SIZE}  # how many there will be is not known
        assert placed in (set(), partition, partition | {names.BATCH_SIZE}, of_stream)
    injected, scopes = (told.get(name, ()) for name in (names.PROVIDER_NAMES, names.PROVIDER_SCOPES))
    assert len(injected) == len(scopes)  # type: ignore[arg-type]  # both are sequences
    assert (told[names.PROVIDER_SCOPE] == "none") == (not injected)
    assert told.get(names.NODE_UPSTREAM) != ()
    assert names.LINK_DROPPED_COUNT not in told or len(span.links) == names.MAX_LINKS
    kind = told.get(names.EXECUTION_KIND)
    assert kind in (None, *get_args(names.ExecutionKind))
    assert (kind == "retried") == (names.RETRY_WAIT in told)


def _check_end(span: Span, result_name: str) -> None:
    """A result only where it was no success; the status and ``error.type`` only where that was an error."""
    result = span.attributes.get(result_name)
    assert result in (None, *get_args(names.NodeResult))
    is_expected_node = result == "expected" and result_name == names.NODE_RESULT
    assert (names.EXPECTED_TYPE in span.attributes) == is_expected_node
    assert (span.status.code == "error") == (result in ("failure", "timeout")) == (names.ERROR_TYPE in span.attributes)
    assert span.status.code != "ok"
    assert {event.name for event in span.events} <= {"exception", names.RETRY_EVENT}


def _check_exceptions(spans: Sequence[Span]) -> None:
    """An exception is recorded on the node that raised it alone."""
    by_id = {span.span_id: span for span in spans}
    for span in spans:
        exceptions = [event for event in span.events if event.name == "exception"]
        assert len(exceptions) <= 1
        if exceptions:
            assert span.failed
            assert names.FLOW_NODES not in span.attributes
            above = by_id.get(span.parent_id or "")
            while above is not None:
                said = [event.attributes for event in above.events if event.name == "exception"]
                assert exceptions[0].attributes not in said
                above = by_id.get(above.parent_id or "")


def outline(spans: Sequence[Span]) -> str:
    """Return a trace as lines, indented by depth: ``name[index] <- upstream ~ linked``, siblings by name."""
    below: defaultdict[str | None, list[Span]] = defaultdict(list)
    by_id = {span.span_id: span for span in spans}
    for span in spans:
        below[span.parent_id if span.parent_id in by_id else None].append(span)

    def labels_below(span: Span) -> list[str]:
        # Which of two runs of one flow begins first is the threads' affair; they differ in the elements they take.
        return sorted(map(_label, below[span.span_id])) if span.name.startswith("run ") else []

    def lines(parent: str | None, indent: str) -> list[str]:
        found = []
        for span in sorted(below[parent], key=lambda span: (_label(span), labels_below(span), span.start)):
            upstream = ", ".join(span.attributes.get(names.NODE_UPSTREAM, ()))  # type: ignore[arg-type]  # strings
            linked = ", ".join(sorted(by_id[link.span_id].name for link in span.links))
            line = _label(span) + (f" <- {upstream}" if upstream else "") + (f" ~ {linked}" if linked else "")
            found += [indent + line, *lines(span.span_id, indent + "  ")]
        return found

    return "\n".join(lines(None, ""))


def _label(span: Span) -> str:
    index = span.attributes.get(names.BATCH_INDEX)
    return span.name if index is None else f"{span.name}[{index}]"
