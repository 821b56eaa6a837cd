"""Lean spans in OTLP, as protobuf and as JSON: what never changes is encoded once, the rest is put around it.

Both functions return what ``wire.encode_span()`` and ``wire_json.encode_span()`` return for the same span.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from opentelemetry.trace import Link, Status

from aetherflow.telemetry import wire, wire_json
from aetherflow.telemetry.conventions import RUN_ID
from aetherflow.telemetry.lean import LeanSpan
from aetherflow.telemetry.lean_parts import Frame, Rest, Template
from aetherflow.telemetry.observation import ThreadFacts

__all__ = ["encode_lean", "encode_lean_json"]

_VARYING: Final = struct.Struct("<2s8sBQBQ").pack
"""Span id (field 2), start (field 7) and end (field 8)."""
_UNSET: Final = Status()


def encode_lean(span: LeanSpan) -> bytes:
    """Encode an ended span as a field of its scope.

    Args:
        span: The span.

    Raises:
        Exception: It cannot be encoded.
    """
    template, frame, rest = span.template, span.frame, span.rest
    if rest is not None and _is_otherwise(span):
        return wire.encode_span(span)
    head, tail = frame.wire or _frame(frame)
    span_id = span.span_id.to_bytes(8, "big")
    varying = _VARYING(b"\x12\x08", span_id, 0x39, span.started, 0x41, span.ended)
    own = b"" if rest is None else _own(rest)
    return wire.delimited(2, b"".join((head, varying, template.wire or _template(template), own, tail)))


def _own(rest: Rest) -> bytes:
    """Encode what few spans have; most that have anything have the identifier of their run alone."""
    extra = rest.extra
    if extra is not None and len(extra) == 1 and RUN_ID in extra:
        own = wire.new_text(RUN_ID, extra[RUN_ID])  # type: ignore[arg-type]  # new_run_id() makes no other
    else:
        own = wire.attributes(extra)
    if rest.late:
        own += wire.attributes(rest.late)
    return own + b"".join(map(wire.link, map(Link, rest.links))) if rest.links else own


def _is_otherwise(span: LeanSpan) -> bool:
    """Tell whether a span is the SDK's by now, or one attribute takes another's place."""
    rest, constant = span.rest, span.template.attributes
    if rest is None:
        return False
    if rest.full is not None or (rest.extra and not constant.keys().isdisjoint(rest.extra)):
        return True
    return bool(rest.late) and not rest.late.keys().isdisjoint(span.given())


def _template(template: Template) -> bytes:
    fields = (wire.name_and_kind(template.name, template.kind), wire.attributes(template.attributes))
    template.wire = made = b"".join((*fields, wire.status(_UNSET)))
    return made


def _thread(thread: ThreadFacts) -> bytes:
    thread.wire = made = wire.attributes(thread.attributes)
    return made


def _frame(frame: Frame) -> tuple[bytes, bytes]:
    parent, thread = frame.parent, frame.thread
    told = b"" if thread is None else thread.wire or _thread(thread)
    above = b"" if parent is None else wire.parent_id(parent.span_id)
    tail = b"".join((wire.trace_state(frame.state), above, told, wire.flags(parent)))
    frame.wire = made = b"\x0a\x10" + frame.trace_id.to_bytes(16, "big"), tail
    return made


def encode_lean_json(span: LeanSpan) -> bytes:
    """Encode an ended span as an element of its scope's list; arguments and errors as in :func:`encode_lean`."""
    template, frame, rest = span.template, span.frame, span.rest
    if _is_otherwise(span):
        return wire_json.encode_span(span)
    head, middle, thread = frame.json or _frame_json(frame)
    constant = template.json or _template_json(template)
    own = links = ""
    if rest is not None:
        own = "".join(f",{pairs}" for pairs in map(_pairs, (rest.extra, rest.late)) if pairs)
        links = wire_json.listed("links", [wire_json.link(Link(context)) for context in rest.links])
    times = wire_json.times(span.started, span.ended)
    return f'{head}{span.span_id:016x}"{middle}{times}{constant}{thread}{own}]{links},"status":{{}}}}'.encode("ascii")


def _frame_json(frame: Frame) -> tuple[str, str, str]:
    parent, thread = frame.parent, frame.thread
    above = "" if parent is None else wire_json.parent_id(parent.span_id)
    head = f'{{"traceId":"{frame.trace_id:032x}","spanId":"'
    told = "" if thread is None else f",{thread.json or _thread_json(thread)}"
    frame.json = made = head, f"{wire_json.trace_state(frame.state)}{above}{wire_json.flags(parent)}", told
    return made


def _template_json(template: Template) -> str:
    """Encode the name, the kind, and the beginning of the attributes; no node and no run is without any."""
    name = wire_json.name_and_kind(template.name, template.kind)
    template.json = made = f'{name},"attributes":[{_pairs(template.attributes)}'
    return made


def _thread_json(thread: ThreadFacts) -> str:
    thread.json = made = _pairs(thread.attributes)
    return made


def _pairs(attributes: Mapping[str, object] | None) -> str:
    field = wire_json.attributes(attributes)
    return field.removeprefix(',"attributes":[').removesuffix("]")
