"""The demo's flow: what the standard library is made of, found by parsing all of it.

``aetherflow demo`` runs it with a fitting presentation, and ``aetherflow run aetherflow.cli.demo_flow:flow
--context aetherflow.cli.demo_flow:DemoContext`` like any other flow.
"""

from __future__ import annotations

import platform
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dependency_injector import providers

from aetherflow.cli.demo_source import Function, Module, Parser, SourceFile, list_sources
from aetherflow.errors import AetherFlowError
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.resources.context import BaseFlowContext

__all__ = ["Complexity", "DemoContext", "Imports", "Report", "Watcher", "flow", "make_flow"]

_SHOWN: Final = 8
"""Functions and modules that the report names."""


class Watcher:
    """Is told how far the parsing is; this one does nothing with it. Any thread calls it."""

    def expect(self, files: int) -> None:
        """So many files will be parsed."""

    def parsed(self, source: SourceFile) -> None:
        """One file was parsed."""


class DemoContext(BaseFlowContext):
    """What the nodes are injected with: one watcher for all, and a parser for each thread."""

    watcher = providers.ThreadSafeSingleton(Watcher)
    parser = providers.ThreadLocalSingleton(Parser, watcher.provided.parsed)


@dataclass(frozen=True, slots=True)
class Complexity:
    """How intricate the functions are: of how many, the median, and the most complex ones."""

    functions: int
    median: float
    most_complex: tuple[Function, ...]


@dataclass(frozen=True, slots=True)
class Imports:
    """Who imports whom: how many such pairs, the most imported modules, and the largest circle."""

    edges: int
    most_imported: tuple[tuple[str, int], ...]
    largest_circle: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What the standard library is made of; the same for every run over the same files."""

    python: str
    files: int
    lines: int
    classes: int
    unparsed: tuple[str, ...]
    complexity: Complexity
    imports: Imports


@node
def find_sources(limit: int | None = None, tests: bool = False) -> list[SourceFile]:
    """List the source files."""
    found = list_sources(limit=limit, tests=tests)
    if not found:
        raise AetherFlowError("this Python has no source files of its standard library to read")
    return found


@node
def partition(find_sources: Sequence[SourceFile], watcher: Watcher, partitions: int = 8) -> list[list[SourceFile]]:
    """Share the files out, so that each part has about as many bytes."""
    watcher.expect(len(find_sources))
    parts: list[list[SourceFile]] = [[] for _ in range(min(partitions, len(find_sources)))]
    sizes = [0] * len(parts)
    for source in sorted(find_sources, key=lambda source: (-source.size, source.module)):
        lightest = sizes.index(min(sizes))
        parts[lightest].append(source)
        sizes[lightest] += source.size
    return parts


@node
def parse(partition: Sequence[SourceFile], parser: Parser) -> list[Module]:
    """Parse one part of the files."""
    return [parser.parse(source) for source in partition]


@node
def gather(parallel_results: Mapping[str, list[Module]]) -> list[Module]:
    """Put the parts together again."""
    return sorted((module for part in parallel_results.values() for module in part), key=lambda module: module.name)


@node
def complexity(gather: Sequence[Module]) -> Complexity:
    """Find the most intricate functions."""
    functions = [function for module in gather for function in module.functions]
    ranked = sorted(functions, key=lambda function: (-function.complexity, function.module, function.line))
    median = statistics.median(function.complexity for function in functions) if functions else 0.0
    return Complexity(len(functions), median, tuple(ranked[:_SHOWN]))


@node
def imports(gather: Sequence[Module]) -> Imports:
    """Draw who imports whom when it is imported itself, and find the circles in that."""
    known = {module.name for module in gather}
    graph = {
        module.name: sorted({_module_of(name, known) for name in module.imports} - {"", module.name})
        for module in gather
    }
    counts = Counter(name for targets in graph.values() for name in targets)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    circle = max(_components(graph), key=lambda names: (len(names), names), default=())
    return Imports(counts.total(), tuple(ranked[:_SHOWN]), circle if len(circle) > 1 else ())


@node
def report(parallel_results: Mapping[str, Any], gather: Sequence[Module]) -> Report:
    """Say it all in one piece."""
    return Report(
        python=platform.python_version(),
        files=len(gather),
        lines=sum(module.lines for module in gather),
        classes=sum(module.classes for module in gather),
        unparsed=tuple(module.name for module in gather if module.problem),
        complexity=parallel_results["complexity"],
        imports=parallel_results["imports"],
    )


def make_flow(workers: int = 4) -> Node[..., Report]:
    """Compose the flow.

    Args:
        workers: How many threads parse.
    """
    parsed = find_sources.then(partition).fan_out_to([parse] * workers).fan_in(gather)
    return parsed.fan_out_in([complexity, imports], report).named("standard_library")


flow = make_flow()


def _module_of(name: str, known: Iterable[str]) -> str:
    """The module that an imported name is, or is in; empty where it is none of the known ones."""
    if name in known:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in known else ""


def _components(graph: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """The strongly connected components: sets of modules each of which leads to all others. Tarjan's, with a stack."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    open_names: dict[str, None] = {}
    found: list[tuple[str, ...]] = []
    for root in graph:
        if root in order:
            continue
        path = [(root, iter(graph[root]))]
        while path:
            name, targets = path[-1]
            if name not in order:
                order[name] = low[name] = len(order)
                open_names[name] = None
            target = next((each for each in targets if each not in order or each in open_names), None)
            if target is None:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[name])
                if low[name] == order[name]:
                    component: list[str] = []
                    while not component or component[-1] != name:
                        component.append(open_names.popitem()[0])
                    found.append(tuple(sorted(component)))
            elif target in order:
                low[name] = min(low[name], order[target])
            else:
                path.append((target, iter(graph[target])))
    return found
