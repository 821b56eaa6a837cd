"""A flow as a self-contained SVG picture, from left to right.

Rows and columns nest, so each item can be measured by itself and put beside the others without overlap. What a column
item has to its right is its own, so that edges that run there straight before they bend cross no box.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final, NamedTuple
from unicodedata import east_asian_width

from aetherflow.flow.sketch import Box, Edge, Group, Item, Sketch, entries, exits

__all__ = ["to_svg"]

# All in pixels. Monospaced, so that the room that a text takes is known without a font.
CHAR: Final = 7.25
LABEL_CHAR: Final = 6.05
MAX_CHARS: Final = 40
BOX_HEIGHT: Final = 30
JOINT: Final = 8
GAP: Final = 40
LANE_GAP: Final = 14
PAD: Final = 12
TITLE: Final = 24
LOOP: Final = 28

HEAD: Final = """\
<style>
.aetherflow text{font:12px monospace;fill:#1b2733}
.aetherflow .note{font-size:10px;fill:#51606e}
.aetherflow .note,.aetherflow .title{paint-order:stroke;stroke:#fff;stroke-width:3px}
.aetherflow .box{fill:#eaf1fb;stroke:#3f6aa3}
.aetherflow .frame{fill:none;stroke:#8795a3;stroke-dasharray:4 3}
.aetherflow .edge{fill:none;stroke:#51606e;marker-end:url(#aetherflow-arrow)}
.aetherflow .order{stroke-dasharray:4 3}
</style>
<defs>
<marker id="aetherflow-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0L8 4L0 8z" fill="#51606e"/>
</marker>
</defs>
<rect x="-12" y="-12" width="100%" height="100%" rx="6" fill="#fff"/>"""
# In classes of its own, because a page of many pictures has one style; on white, because pages may be dark.


class _Size(NamedTuple):
    width: float
    height: float
    axis: float  # from the top to where edges come in and go out


class _Place(NamedTuple):
    x: float
    y: float
    width: float
    height: float


def to_svg(picture: Sketch, description: str) -> str:
    """Return a picture as SVG.

    Args:
        picture: What it consists of.
        description: What it shows, for those who cannot see it.
    """
    layout = _Layout(picture.group)
    width, height = (round(side) + 2 * PAD for side in layout.size(picture.group)[:2])
    box = f'width="{width}" height="{height}" viewBox="{-PAD} {-PAD} {width} {height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="aetherflow" role="img" {box}>',
            f"<title>{escape(description)}</title>",
            HEAD,
            *layout.frames(),
            *(line for edge in picture.edges() if not edge.is_loop for line in layout.edge(edge)),
            *layout.loops(),
            *layout.boxes(),
            *layout.titles(),
            "</svg>",
        ]
    )


class _Layout:
    """Where everything in a picture is."""

    def __init__(self, picture: Group) -> None:
        self._sizes: dict[Item, _Size] = {}
        self._places: dict[Item, _Place] = {}
        self._bends: dict[Box, float] = {}  # where edges to a box begin to bend
        self._put(picture, 0, 0)

    # --- where things are ----------------------------------------------------------------------------------

    def size(self, item: Item) -> _Size:
        """Return the room that an item takes."""
        if item not in self._sizes:
            self._sizes[item] = _box_size(item) if isinstance(item, Box) else self._group_size(item)
        return self._sizes[item]

    def _group_size(self, group: Group) -> _Size:
        sizes = [self.size(item) for item in group.items]
        if group.is_row:
            axis = max(size.axis for size in sizes)
            width = sum(size.width for size in sizes) + sum(map(_gap, group.items[1:]))
            height = axis + max(size.height - size.axis for size in sizes)
        else:
            width = max(size.width for size in sizes)
            height = sum(size.height for size in sizes) + LANE_GAP * (len(sizes) - 1)
            axis = height / 2
        if group.loop:
            width, height, axis = max(width, _text_width(group.loop, LABEL_CHAR)), height + LOOP, axis + LOOP
        if group.title:
            width = max(width, _text_width(group.title, CHAR)) + 2 * PAD
            height, axis = height + TITLE + PAD, axis + TITLE
        return _Size(width, height, axis)

    def _put(self, item: Item, x: float, y: float) -> None:
        size = self.size(item)
        self._places[item] = _Place(x, y, size.width, size.height)
        if isinstance(item, Box):
            return
        if item.title:
            x, y = x + PAD, y + TITLE
        if item.loop:
            y += LOOP
        if item.is_row:
            self._put_row(item, x, y)
            return
        for part in item.items:
            self._put(part, x, y)
            y += self.size(part).height + LANE_GAP

    def _put_row(self, row: Group, x: float, y: float) -> None:
        axis = max(self.size(part).axis for part in row.items)
        for index, part in enumerate(row.items):
            if index:
                self._bends.update((box, x) for box, _ in entries(part))
                x += _gap(part)
            self._put(part, x, y + axis - self.size(part).axis)
            x += self.size(part).width

    # --- what is drawn there -------------------------------------------------------------------------------

    def frames(self) -> Iterator[str]:
        """Yield the frames of groups with a title, from the outermost in."""
        for item, (x, y, width, height) in self._places.items():
            if isinstance(item, Group) and item.title:
                yield f'<rect class="frame" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8"/>'

    def titles(self) -> Iterator[str]:
        """Yield what is written on the frames; it comes last, on whatever crosses it."""
        for item, (x, y, _, _) in self._places.items():
            if isinstance(item, Group) and item.title:
                yield _text(item.title, x + PAD, y + 16, "title")

    def edge(self, edge: Edge) -> Iterator[str]:
        """Yield an edge: straight on within its lane, bent in the gap before its target."""
        source, target = self._places[edge.source], self._places[edge.target]
        x, y = source.x + source.width, source.y + source.height / 2
        end_x, end_y = target.x, target.y + target.height / 2
        bend, middle, bent = (self._bends[edge.target] + part * GAP for part in (0, 0.5, 1))
        path = f"M{x:g} {y:g}H{bend:g}C{middle:g} {y:g} {middle:g} {end_y:g} {bent:g} {end_y:g}H{end_x:g}"
        yield f'<path class="edge{"" if edge.is_data else " order"}" d="{path}"/>'
        if edge.label:
            yield _text(edge.label, bent, end_y - 4, "note")

    def loops(self) -> Iterator[str]:
        """Yield the edges back, in the room above their groups."""
        for item, (x, y, width, _) in self._places.items():
            if not isinstance(item, Group) or not item.loop:
                continue
            top = y + 16
            for source in map(self._places.__getitem__, exits(item)):
                for target in (self._places[box] for box, _ in entries(item)):
                    depth = max(1, round((target.y - top) / LOOP))  # loops within loops stand apart
                    aside = 0.5 * depth / (depth + 1)
                    begin, end = source.x + source.width * (0.5 + aside), target.x + target.width * (0.5 - aside)
                    path = f"M{begin:g} {source.y:g}V{top:g}H{end:g}V{target.y:g}"
                    order = "" if item.is_loop_data else " order"
                    yield f'<path class="edge loop{order}" d="{path}"/>'
            yield _text(item.loop, x + (width - _text_width(item.loop, LABEL_CHAR)) / 2, y + 12, "note")

    def boxes(self) -> Iterator[str]:
        """Yield the nodes and joints."""
        for item, (x, y, width, height) in self._places.items():
            if isinstance(item, Box):
                radius = 6 if item.label else JOINT / 2
                place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"'
                yield f'<rect class="box" {place}/>'
                if item.label:
                    yield _text(item.label, x + PAD, y + 19)


def _box_size(box: Box) -> _Size:
    if not box.label:
        return _Size(JOINT, JOINT, JOINT / 2)
    return _Size(_text_width(box.label, CHAR) + 2 * PAD, BOX_HEIGHT, BOX_HEIGHT / 2)


def _gap(item: Item) -> float:
    """Return the room before an item in a row, for edges to bend in and for what is written on them."""
    return GAP + max(_text_width(label, LABEL_CHAR) + PAD if label else 0 for _, label in entries(item))


def _text_width(text: str, char: float) -> float:
    return char * sum(2 if east_asian_width(sign) in "FW" else 1 for sign in _cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 1]}…"


def _text(text: str, x: float, y: float, kind: str = "") -> str:
    """Return a text that begins at a point; a long one is cut and told in full to whoever points at it."""
    told = f"<title>{escape(text)}</title>" if len(text) > MAX_CHARS else ""
    chosen = f' class="{kind}"' if kind else ""
    return f'<text{chosen} x="{x:g}" y="{y:g}" xml:space="preserve">{told}{escape(_cut(text))}</text>'
