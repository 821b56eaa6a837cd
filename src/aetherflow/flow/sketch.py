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
from aetherflow.flow.dataflow import DataFlow

__all__ = ["Box", "Edge", "Group", "Item", "Sketch", "entries", "exits", "key_text", "sketch", "until_text"]


@dataclass(slots=True, eq=False)
class Box:
    """A node; without a label a joint, where edges meet.

    Args:
        id: Tells the box from all others and from every group.
        label: The text in it.
        on_entry: The text on edges that lead to it.
        origins: The number of the node; for a joint, those of the nodes before it.
        targets: The number of the node; for a joint, those of the nodes behind it, if they are known.
    """

    id: str
    label: str
    on_entry: str = ""
    origins: frozenset[int] = frozenset()
    targets: frozenset[int] = frozenset()


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
        is_loop_data: Whether data flows along the edge from its end back to its beginning.
    """

    id: str
    items: list[Item]
    is_row: bool = True
    title: str = ""
    loop: str = ""
    on_entry: str = ""
    is_loop_data: bool = True


Item = Box | Group


@dataclass(frozen=True, slots=True)
class Edge:
    """A line from a box to another, or back.

    Args:
        source: The box where it begins.
        target: The box where it ends.
        label: The text on it.
        is_loop: Whether it leads back, to the next round.
        is_data: Whether data flows along it. If not, it shows the order of steps only, and is dashed.
    """

    source: Box
    target: Box
    label: str = ""
    is_loop: bool = False
    is_data: bool = True


def sketch(name: str, step: Step, flow: DataFlow) -> Sketch:
    """Return the parts of a flow's picture; a name that is not its first node's is on a frame around it.

    Args:
        name: The flow's name.
        step: Its graph.
        flow: Its data flow.
    """
    sketcher = _Sketcher(flow)
    group = sketcher.group([sketcher.draw(step)], title=_shown(name) if name != step.name else "")
    return Sketch(group, flow)


@dataclass(frozen=True, slots=True)
class Sketch:
    """The picture of a flow.

    Args:
        group: All boxes, in groups.
        flow: The data flow between them.
    """

    group: Group
    flow: DataFlow

    def edges(self) -> Iterator[Edge]:
        """Yield the edges between the boxes."""
        return edges(self.group, self.flow)


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


def edges(item: Item, flow: DataFlow) -> Iterator[Edge]:
    """Yield the edges within an item.

    Args:
        item: The item.
        flow: The data flow of the picture that it is part of.
    """
    if isinstance(item, Box):
        return
    for part in item.items:
        yield from edges(part, flow)
    if item.is_row:
        for before, after in pairwise(item.items):
            for source in exits(before):
                for target, label in entries(after):
                    yield Edge(source, target, label, is_data=_carries_data(source, target, flow))
    if item.loop:
        for source in exits(item):
            for target, _ in entries(item):
                yield Edge(source, target, item.loop, is_loop=True, is_data=item.is_loop_data)


def _carries_data(source: Box, target: Box, flow: DataFlow) -> bool:
    """Return whether a node behind an edge takes the output of one before it."""
    return not target.targets or any(source.origins & flow.sources[number] for number in target.targets)


def key_text(key: object) -> str:
    """Return how the value that a branch stands for is written."""
    return f"{type(key).__name__}.{key.name}" if isinstance(key, Enum) and key.name else repr(key)


def until_text(step: Repeat) -> str:
    """Return the name of what ends the rounds; empty where their number does."""
    return "" if step.until is None else getattr(step.until, "__name__", None) or repr(step.until)


class _Sketcher:
    def __init__(self, flow: DataFlow) -> None:
        self._boxes = count(1)
        self._groups = count(1)
        self._nodes = count(0)
        self._loops = iter(flow.loops)

    def group(self, items: list[Item], *, is_row: bool = True, title: str = "", loop: str = "") -> Group:
        return Group(f"g{next(self._groups)}", items, is_row, title, loop)

    def _box(self, label: str) -> Box:
        number = frozenset((next(self._nodes),))
        return Box(f"n{next(self._boxes)}", label, origins=number, targets=number)

    def _joint(self, before: Item, after: Item | None = None) -> Box:
        """Return a box in which the edges from one item meet, and those to the next begin."""
        origins = frozenset().union(*(box.origins for box in exits(before)))
        targets = frozenset().union(*(box.targets for box, _ in entries(after))) if after is not None else frozenset()
        return Box(f"n{next(self._boxes)}", "", origins=origins, targets=targets)

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
                row.append(self._joint(row[-1], item))
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
            body = self.group([body, self._joint(body)])
        group = self.group([body], loop=_shown(loop))
        group.is_loop_data = next(self._loops)
        return group


def _shown(text: str) -> str:
    """Return a text with all that has no picture of its own, such as a line break, written as an escape."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in text
    )
