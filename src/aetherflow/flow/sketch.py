"""What a picture of a flow consists of, whichever language it is drawn in: boxes and groups of them, edges between.

Flows are made of rows and columns, nothing else: a chain is a row, what lies side by side is a column. Edges need not
be kept, they follow from that: in a row, all that ends one item leads to all that begins the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import count, pairwise

from aetherflow.engine.graph import Branch, Call, Chain, Chunked, FanOut, Map, Repeat, Step, Sub

__all__ = ["Box", "Edge", "Group", "Item", "edges", "entries", "exits", "key_text", "sketch", "until_text"]


@dataclass(slots=True, eq=False)
class Box:
    """A node; without a label a joint, where edges meet."""

    id: str
    label: str
    on_entry: str = ""
    """What is written on edges that lead to it."""


@dataclass(slots=True, eq=False)
class Group:
    """Items one after the other, or side by side.

    Args:
        id: Tells the group from all others and from every box.
        items: What is in it, at least one.
        is_row: Whether they come one after the other.
        title: What is written on its frame; without one it has no frame.
        loop: What is written on the edge from its end back to its beginning; without it there is none.
        on_entry: What is written on edges that lead to it.
    """

    id: str
    items: list[Item]
    is_row: bool = True
    title: str = ""
    loop: str = ""
    on_entry: str = ""


Item = Box | Group


@dataclass(frozen=True, slots=True)
class Edge:
    """A line from a box to another, or back."""

    source: Box
    target: Box
    label: str = ""
    is_loop: bool = False


def sketch(name: str, step: Step) -> Group:
    """Return what the picture of a flow consists of; a name that is not its first node's is on a frame around it."""
    sketcher = _Sketcher()
    return sketcher.group([sketcher.draw(step)], title=_shown(name) if name != step.name else "")


def entries(item: Item) -> list[tuple[Box, str]]:
    """Return the boxes that edges to an item lead to, and what is written on those edges."""
    if isinstance(item, Box):
        return [(item, item.on_entry)]
    found = [entry for part in (item.items[:1] if item.is_row else item.items) for entry in entries(part)]
    return [(box, item.on_entry or label) for box, label in found]


def exits(item: Item) -> list[Box]:
    """Return the boxes that edges from an item begin at."""
    if isinstance(item, Box):
        return [item]
    return [box for part in (item.items[-1:] if item.is_row else item.items) for box in exits(part)]


def edges(item: Item) -> Iterator[Edge]:
    """Yield the edges within an item."""
    if isinstance(item, Box):
        return
    for part in item.items:
        yield from edges(part)
    if item.is_row:
        for before, after in pairwise(item.items):
            for source in exits(before):
                yield from (Edge(source, target, label) for target, label in entries(after))
    if item.loop:
        for source in exits(item):
            yield from (Edge(source, target, item.loop, is_loop=True) for target, _ in entries(item))


def key_text(key: object) -> str:
    """Return how the value that a branch stands for is written."""
    return f"{type(key).__name__}.{key.name}" if isinstance(key, Enum) and key.name else repr(key)


def until_text(step: Repeat) -> str:
    """Return the name of what ends the rounds; empty where their number does."""
    return "" if step.until is None else getattr(step.until, "__name__", None) or repr(step.until)


class _Sketcher:
    def __init__(self) -> None:
        self._boxes = count(1)
        self._groups = count(1)

    def group(self, items: list[Item], *, is_row: bool = True, title: str = "", loop: str = "") -> Group:
        return Group(f"g{next(self._groups)}", items, is_row, title, loop)

    def _box(self, label: str) -> Box:
        return Box(f"n{next(self._boxes)}", label)

    def draw(self, step: Step) -> Item:
        match step:
            case Call(task):
                return self._box(_shown(task.name))
            case Chain(steps):
                return self._row([self.draw(part) for part in steps])
            case FanOut(branches):
                return self.group([self.draw(branch) for branch in branches], is_row=False)
            case Map():
                return self._map(step)
            case Chunked():
                return self._chunked(step)
            case Branch():
                return self._branch(step)
            case Repeat(body):
                return self._repeat(step, self.draw(body))
            case Sub(name, body):
                return self.group([self.draw(body)], title=_shown(name))

    def _row(self, items: list[Item]) -> Group:
        row = items[:1]
        for item in items[1:]:
            if len(exits(row[-1])) > 1 and len(entries(item)) > 1:  # in place of an edge from each to each
                row.append(self._box(""))
            row.append(item)
        return self.group(row)

    def _map(self, step: Map) -> Item:
        if step.keyed:
            label = f"{step.copies} times" if step.split is False else f"{step.workers} workers"
        else:
            label = "each" if step.workers is None else f"each, {step.workers} at once"
        return self._labelled(self.draw(step.body), label)

    def _chunked(self, step: Chunked) -> Item:
        label = "in batches" if step.size is None else f"in batches of {step.size}"
        if step.body is None:
            return self._box(label)
        return self._labelled(self.draw(step.body), label)

    def _labelled(self, body: Item, label: str) -> Item:
        if isinstance(body, Group) and not body.title:
            return self.group([body], title=label)
        body.on_entry = label
        return body

    def _branch(self, step: Branch) -> Group:
        chosen_by: dict[int, list[str]] = {}
        steps: dict[int, Step] = {}
        cases = [(key_text(key), choice) for key, choice in step.choices.items()]
        if step.default is not None:
            cases.append(("default", step.default))
        for text, choice in cases:  # a step that stands for several values is drawn once
            steps[id(choice)] = choice
            chosen_by.setdefault(id(choice), []).append(text)
        items = []
        for identity, choice in steps.items():
            item = self.draw(choice)
            item.on_entry = _shown(", ".join(chosen_by[identity]))
            items.append(item)
        return self.group(items, is_row=False)

    def _repeat(self, step: Repeat, body: Item) -> Group:
        until = until_text(step)
        loop = f"until {until}, at most {step.times} times" if until else f"{step.times} times"
        if len(exits(body)) > 1:
            body = self.group([body, self._box("")])
        return self.group([body], loop=_shown(loop))


def _shown(text: str) -> str:
    """Return a text with all that has no picture of its own, such as a line break, written as an escape."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in text
    )
