"""Lean spans in OTLP, as protobuf and as JSON: what never changes is encoded once, the rest is put around it.

Both functions return what ``wire.encode_span()`` and ``wire_json.encode_span()`` return for the same span.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from opentelemetry.trace import Link, Status

from aetherflow.telemetry.conventions import RUN_ID
from aetherflow.telemetry.encoding import wire, wire_json
from aetherflow.telemetry.observation import ThreadFacts
from aetherflow.telemetry.tracing.lean import LeanSpan
from aetherflow.telemetry.tracing.lean_parts import Rest, Template, Trace

__all__ = ["encode_lean", "encode_lean_json"]

_ids: Final = struct.Struct(">2sQ2sQ").pack
"""The ids of a span and of its parent (fields 2 and 4)."""
_id: Final = struct.Struct(">2sQ").pack
"""The id of a root (field 2)."""
_times: Final = struct.Struct("<BQBQ").pack
"""Start and end (fields 7 and 8)."""
_UNSET: Final = Status()
_LOCAL: Final = wire.flags(None)
_RUN: Final = wire.key_value(RUN_ID, f"{0:016x}")[:-16]
"""A run's identifier but for its 16 digits."""
_heads: Final[dict[int, bytes]] = {}
"""What is before spans by their length, of which there are few."""


def encode_lean(span: LeanSpan) -> bytes:
    """Encode an ended span as a field of its scope.

    Args:
        span: The span.

    Raises:
        Exception: It cannot be encoded.
    """
    rest = span.rest
    if rest is not None and _is_otherwise(span):
        return wire.encode_span(span)
    trace, above, template, thread = span.trace, span.above, span.template, span.thread
    flags = _LOCAL
    if above is None:
        ids = _id(b"\x12\x08", span.span_id)
    else:
        ids = _ids(b"\x12\x08", span.span_id, b"\x22\x08", above.span_id)
        if above.is_remote:
            flags = wire.flags(span.parent)
    parts = (
        trace.wire or _trace(trace),
        ids,
        _times(0x39, span.started, 0x41, span.ended),
        template.wire or _template(template),
        b"" if thread is None else thread.wire or _thread(thread),
        _RUN + b"%016x" % span.run if span.run else b"",
        b"" if rest is None else _own(rest),
        flags,
    )
    body = b"".join(parts)
    size = len(body)
    return (_heads.get(size) or _head(size)) + body


def _head(size: int) -> bytes:
    _heads[size] = made = b"\x12" + wire.varint(size)
    return made


def _own(rest: Rest) -> bytes:
    """Encode what few spans have; most that have anything have the identifier of their run alone."""
    extra = rest.extra
    if extra is not None and len(extra) == 1 and RUN_ID in extra:
        own = wire.new_text(RUN_ID, extra[RUN_ID])  # type: ignore[arg-type]  # new_run_id() makes no other
    else:
        own = wire.attributes(extra)
    if rest.late:
        own += wire.attributes(rest.late)
    return own + b"".join(map(wire.bare_link, rest.links)) if rest.links else own


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


def _trace(trace: Trace) -> bytes:
    trace.wire = made = b"\x0a\x10" + trace.trace_id.to_bytes(16, "big") + wire.trace_state(trace.state)
    return made


def encode_lean_json(span: LeanSpan) -> bytes:
    """Encode an ended span as an element of its scope's list; arguments and errors as in :func:`encode_lean`."""
    if _is_otherwise(span):
        return wire_json.encode_span(span)
    trace, above, template, thread, rest = span.trace, span.above, span.template, span.thread, span.rest
    head, state = trace.json or _trace_json(trace)
    parent = "" if above is None else wire_json.parent_id(above.span_id)
    flags = wire_json.flags(span.parent if above is not None and above.is_remote else None)
    constant = template.json or _template_json(template)
    told = "" if thread is None else f",{thread.json or _thread_json(thread)}"
    run = f",{_pairs({RUN_ID: f'{span.run:016x}'})}" if span.run else ""
    own = links = ""
    if rest is not None:
        own = "".join(f",{pairs}" for pairs in map(_pairs, (rest.extra, rest.late)) if pairs)
        links = wire_json.listed("links", [wire_json.link(Link(context)) for context in rest.links])
    middle = f"{state}{parent}{flags}{wire_json.times(span.started, span.ended)}"
    text = f'{head}{span.span_id:016x}"{middle}{constant}{told}{run}{own}]{links},"status":{{}}}}'
    return text.encode("ascii")


def _trace_json(trace: Trace) -> tuple[str, str]:
    trace.json = made = f'{{"traceId":"{trace.trace_id:032x}","spanId":"', wire_json.trace_state(trace.state)
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
