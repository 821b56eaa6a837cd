"""Spans of any kind, many at a time, as bytes that only have to be joined to a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from aetherflow.telemetry.encoding import wire, wire_json

__all__ = [
    "MAX_REQUEST_BYTES",
    "MAX_REQUEST_SPANS",
    "ChunkEncoder",
    "EncodedChunk",
    "Encoding",
    "Group",
    "Piece",
    "SpanEncoder",
    "json_encoder",
    "protobuf_encoder",
]

MAX_REQUEST_SPANS: Final = 8192
MAX_REQUEST_BYTES: Final = 3_500_000
"""What a request holds at most, uncompressed; a larger span goes alone. Receivers drop what is larger, over gRPC from
4 MiB on."""

T = TypeVar("T")
_MOST_GROUPS: Final = 256
_NOWHERE: Final = object()


class Group(NamedTuple):
    """Where spans come from, encoded: what they have around them in a request."""

    resource: bytes
    scope: bytes


class Piece(NamedTuple):
    """Encoded spans of one group: at most what a request may hold.

    Args:
        group: Where they come from.
        data: They themselves, to be joined with others of their group.
        spans: How many they are.
    """

    group: Group
    data: bytes
    spans: int


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """What came of encoding spans.

    Args:
        pieces: Those that could be encoded.
        failed: How many could not.
        error: Why the first of those could not.
    """

    pieces: tuple[Piece, ...] = ()
    failed: int = 0
    error: Exception | None = field(default=None, compare=False)


class SpanEncoder(Protocol):
    """What a pipeline needs of an encoder; called by many threads at once."""

    def encode(self, items: Sequence[object]) -> EncodedChunk:
        """Encode spans; one that cannot be encoded is counted, and never raises."""
        ...

    def request(self, pieces: Iterable[Piece]) -> bytes:
        """Return the request that holds pieces."""
        ...


class Encoding(Protocol):
    """What the modules ``wire`` and ``wire_json`` are."""

    def encode_span(self, span: ReadableSpan) -> bytes:
        """Encode a span."""
        ...

    def resource_head(self, resource: Resource) -> bytes:
        """Encode what the spans of a resource have around them."""
        ...

    def scope_head(self, scope: InstrumentationScope | None) -> bytes:
        """Encode what the spans of a scope have around them."""
        ...

    def request(self, resources: Mapping[bytes, Mapping[bytes, Iterable[bytes]]]) -> bytes:
        """Encode a request."""
        ...


def _unknown(span: object) -> None:
    """Tell nothing of where a span comes from: its group has to be asked for."""


class _Kind(NamedTuple):
    """How spans of one type are encoded, and where such a span comes from: see :meth:`ChunkEncoder.register`."""

    encode: Callable[[Any], bytes]
    group: Callable[[Any], Group]
    origin: Callable[[Any], object]


class ChunkEncoder:
    """Encodes the SDK's spans, and those of every type that is registered.

    Args:
        encoding: The module that encodes one span and what is around it: ``wire`` or ``wire_json``.
        separator: What is between two spans.
        max_bytes: How large a piece may be, in bytes; one span may be larger.
    """

    __slots__ = ("_encoding", "_groups", "_kinds", "_max_bytes", "_other", "_separator")

    def __init__(self, encoding: Encoding, separator: bytes, max_bytes: int = MAX_REQUEST_BYTES) -> None:
        self._encoding = encoding
        self._separator = separator
        self._max_bytes = max_bytes
        self._kinds: dict[type, _Kind] = {}
        self._groups: dict[tuple[int, int], tuple[object, object, Group]] = {}
        self._other = _Kind(encoding.encode_span, self._group_of, _unknown)

    def register(
        self,
        kind: type[T],
        encode: Callable[[T], bytes],
        group: Callable[[T], Group] | None = None,
        origin: Callable[[T], object] | None = None,
    ) -> None:
        """Have spans of one type, and not of its subclasses, encoded in a way of their own.

        Args:
            kind: The type.
            encode: Returns one span as :func:`encode_span` of the encoding would.
            group: Returns where a span comes from, as :meth:`group` made it; by default from its ``resource`` and
                ``instrumentation_scope``.
            origin: Returns an object that spans one after the other share only if they come from the same place:
                for all of them ``group`` is called once.
        """
        self._kinds[kind] = _Kind(encode, group or self._group_of, origin or _unknown)

    def group(self, resource: Resource, scope: InstrumentationScope | None) -> Group:
        """Return what spans of a resource and a scope have around them, encoded once."""
        key = (id(resource), id(scope))
        if (known := self._groups.get(key)) is not None:
            return known[2]
        if len(self._groups) >= _MOST_GROUPS:  # somebody makes scopes as they go
            self._groups.clear()
        made = Group(self._encoding.resource_head(resource), self._encoding.scope_head(scope))
        self._groups[key] = (resource, scope, made)  # which keeps the two ids theirs
        return made

    def _group_of(self, span: ReadableSpan) -> Group:
        return self.group(span.resource, span.instrumentation_scope)

    def encode(self, items: Sequence[object]) -> EncodedChunk:
        """Encode spans; one that cannot be encoded is counted, and never raises."""
        groups: dict[Group, list[bytes]] = {}
        kinds, other, failed, error = self._kinds, self._other, 0, None
        last, spans = _NOWHERE, []
        for item in items:
            try:
                kind = kinds.get(type(item), other)
                encoded, origin = kind.encode(item), kind.origin(item)
                if origin is not last or origin is None:
                    spans, last = groups.setdefault(kind.group(item), []), origin
            except Exception as failure:  # noqa: BLE001  # whatever a span does to its encoder, the others go on
                failed, error = failed + 1, error or failure
                continue
            spans.append(encoded)
        pieces = [piece for group, found in groups.items() for piece in self._pieces(group, found)]
        return EncodedChunk(tuple(pieces), failed, error)

    def _pieces(self, group: Group, spans: list[bytes]) -> Iterator[Piece]:
        """Cut encoded spans into pieces that a request can hold."""
        room = self._max_bytes - len(group.resource) - len(group.scope)
        if sum(map(len, spans)) + len(spans) * len(self._separator) <= room:
            yield Piece(group, self._separator.join(spans), len(spans))
            return
        start = size = 0
        for index, span in enumerate(spans):
            grown = size + len(span) + len(self._separator)
            if index > start and grown > room:
                yield Piece(group, self._separator.join(spans[start:index]), index - start)
                start, grown = index, len(span)
            size = grown
        yield Piece(group, self._separator.join(spans[start:]), len(spans) - start)

    def request(self, pieces: Iterable[Piece]) -> bytes:
        """Return the request that holds pieces."""
        resources: dict[bytes, dict[bytes, list[bytes]]] = {}
        for (resource, scope), data, _ in pieces:
            resources.setdefault(resource, {}).setdefault(scope, []).append(data)
        return self._encoding.request(resources)


def protobuf_encoder(max_bytes: int = MAX_REQUEST_BYTES) -> ChunkEncoder:
    """Return an encoder to OTLP's protobuf; the argument is that of :class:`ChunkEncoder`."""
    return ChunkEncoder(wire, b"", max_bytes)


def json_encoder(max_bytes: int = MAX_REQUEST_BYTES) -> ChunkEncoder:
    """Return an encoder to lines of OTLP JSON; the argument is that of :class:`ChunkEncoder`."""
    return ChunkEncoder(wire_json, b",", max_bytes)
