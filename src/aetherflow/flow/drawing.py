"""Flows as text and as pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from keyword import iskeyword
from typing import Final

from aetherflow.engine.graph import Branch, Call, Chain, Chunked, FanOut, Map, Repeat, Step, Sub
from aetherflow.flow.dataflow import data_flow
from aetherflow.flow.sketch import Box, Edge, Item, Sketch, key_text, sketch, until_text
from aetherflow.flow.svg import to_svg
from aetherflow.resources.context import AnyContext

__all__ = ["to_dot", "to_mermaid", "to_mimebundle", "to_text"]

_SIGN: Final = re.compile(r"[^\w ,'()=.-]|(?<![^\W_])[_.-]|[_.-](?![^\W_])")
"""What is not safe in Mermaid; ``_``, ``.`` and ``-`` are between two letters or digits."""


# --- as text -----------------------------------------------------------------------------------------------------


def to_text(step: Step) -> str:
    """Return a step as the line of Python that composes it, nodes and named flows by their names."""
    return " >> ".join(_operands(step))


def _operands(step: Step) -> list[str]:
    """Return what stands between the ``>>`` of a step's text."""
    match step:
        case Call() | Sub():
            return [step.name if step.name.isidentifier() and not iskeyword(step.name) else repr(step.name)]
        case Chain(steps):
            return _linked(steps)
        case Repeat(body, times):
            until = until_text(step)
            operands = _operands(body)
            text = operands[0] if len(operands) == 1 else f"({' >> '.join(operands)})"
            return [f"{text}.repeat({times}{f', until={until}' if until else ''})"]
        case _:
            return _linked([step])


def _linked(steps: Sequence[Step]) -> list[str]:
    operands: list[str] = []
    is_list = False  # a list has no methods, what ends in one does once it is in parentheses
    for step in steps:
        is_list, before = False, is_list
        match step:
            case FanOut() | Map(keyed=True):
                branches, options = _branches(step)
                if not options:
                    is_list = True
                    operands.append(branches)
                    continue
                call = f".fan_out_to({branches}{options})"
            case Map(body, workers):
                call = f".map({to_text(body)}{_options(step, max_concurrency=workers)})"
            case Chunked(size, body):
                arguments = [*([] if body is None else [to_text(body)]), *([] if size is None else [str(size)])]
                call = f".{'chunked' if body is None else 'map_batches'}({', '.join(arguments)})"
            case Branch(choices, default):
                cases = ", ".join(f"{key_text(key)}: {to_text(choice)}" for key, choice in choices.items())
                call = f".branch_on({{{cases}}}{'' if default is None else f', default={to_text(default)}'})"
            case _:
                operands.extend(_operands(step))
                continue
        if before:
            operands = [f"({' >> '.join(operands)})"]
        operands[-1:] = [f"{operands[-1] if operands else ''}{call}"]
    return operands


def _branches(step: FanOut | Map) -> tuple[str, str]:
    """Return the list of a fan-out and what else is said of it."""
    if isinstance(step, FanOut):
        return f"[{', '.join(map(to_text, step.branches))}]", _options(step, max_workers=step.max_workers)
    limit = step.workers if step.workers != step.copies else None
    return f"[{to_text(step.body)}] * {step.copies}", _options(step, max_workers=limit, split=step.split)


def _options(step: FanOut | Map, **options: object) -> str:
    options |= {"executor": step.executor, "on_error": "collect" if step.collect else None}
    return "".join(f", {name}={value!r}" for name, value in options.items() if value is not None)


# --- as pictures -------------------------------------------------------------------------------------------------


def _sketch_of(name: str, step: Step, context: AnyContext | None) -> Sketch:
    return sketch(name, step, data_flow(name, step, context))


def to_mermaid(name: str, step: Step, context: AnyContext | None = None) -> str:
    """Return a flow as a Mermaid flowchart.

    Args:
        name: The flow's name.
        step: Its graph.
        context: A context, or a context class, whose providers fill parameters; None for no providers.
    """
    picture = _sketch_of(name, step, context)
    return "\n".join(["flowchart LR", *_mermaid_item(picture.group, 1), *map(_mermaid_edge, picture.edges())])


def _mermaid_item(item: Item, depth: int) -> Iterator[str]:
    margin = "    " * depth
    if isinstance(item, Box):
        yield f'{margin}{item.id}["{_mermaid_text(item.label)}"]' if item.label else f'{margin}{item.id}((" "))'
        return
    if item.title:
        yield f'{margin}subgraph {item.id}["{_mermaid_text(item.title)}"]'
        yield f"{margin}    direction LR"
    for part in item.items:
        yield from _mermaid_item(part, depth + bool(item.title))
    if item.title:
        yield f"{margin}end"


def _mermaid_edge(edge: Edge) -> str:
    arrow = "-->" if edge.is_data else "-.->"
    label = f'|"{_mermaid_text(edge.label)}"|' if edge.label else ""
    return f"    {edge.source.id} {arrow}{label} {edge.target.id}"


def _mermaid_text(text: str) -> str:
    """Return a text with all but letters, digits and what joins them as numbers of characters.

    Mermaid reads labels as Markdown, as HTML and in search of directives, so that nearly any sign may mean something.
    """
    return _SIGN.sub(lambda found: f"#{ord(found[0])};", text)


def to_dot(name: str, step: Step, context: AnyContext | None = None) -> str:
    """Return a flow in Graphviz's language.

    Args:
        name: The flow's name.
        step: Its graph.
        context: A context, or a context class, whose providers fill parameters; None for no providers.
    """
    picture = _sketch_of(name, step, context)
    return "\n".join(
        [
            f"digraph {_dot_text(name)} {{",
            "    rankdir=LR",
            '    node [shape=box, style=rounded, fontname="sans-serif"]',
            '    edge [fontname="sans-serif", fontsize=10]',
            *_dot_item(picture.group, 1),
            *map(_dot_edge, picture.edges()),
            "}",
        ]
    )


def _dot_item(item: Item, depth: int) -> Iterator[str]:
    margin = "    " * depth
    if isinstance(item, Box):
        yield f"{margin}{item.id} [{f'label={_dot_text(item.label)}' if item.label else 'shape=point'}]"
        return
    if item.title:
        yield f"{margin}subgraph cluster_{item.id} {{"
        yield f'{margin}    label={_dot_text(item.title)}; style="rounded,dashed"; fontname="sans-serif"'
    for part in item.items:
        yield from _dot_item(part, depth + bool(item.title))
    if item.title:
        yield f"{margin}}}"


def _dot_edge(edge: Edge) -> str:
    attributes = [
        *([f"label={_dot_text(edge.label)}"] if edge.label else []),
        *([] if edge.is_data else ["style=dashed"]),
        *(["constraint=false"] if edge.is_loop else []),
    ]
    listed = f" [{', '.join(attributes)}]" if attributes else ""
    return f"    {edge.source.id} -> {edge.target.id}{listed}"


def _dot_text(text: str) -> str:
    """Return a text in quotes; Graphviz reads escapes of its own and HTML entities in them."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;") + '"'


def to_mimebundle(name: str, step: Step) -> dict[str, str]:
    """Return a flow as Jupyter shows it, without a network: as text, and as an SVG picture.

    Args:
        name: The flow's name.
        step: Its graph.
    """
    return {"text/plain": to_text(step), "image/svg+xml": to_svg(_sketch_of(name, step, None), to_text(step))}
