"""The house keeps its floors: who may import whom, and where names are spelled.

The rules read source text, so that each is also held against small snippets that break it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from aetherflow.telemetry import conventions

PACKAGE = "aetherflow"
SOURCE = Path(__file__).resolve().parent.parent / "src" / PACKAGE

FLOORS = {
    "errors": 1,
    "protocols": 1,
    "user_exceptions": 1,
    "config": 2,
    "validation": 2,
    "telemetry": 3,
    "resources": 4,
    "analysis": 4,
    "operations": 4,
    "engine": 5,
    "report": 5,
    "flow": 6,
    "testing": 7,
    "cli": 7,
    "serving": 7,
    "__main__": 8,
    "__init__": 8,
}
"""Rooms by floor; imports point down, and rooms on one floor do not see each other."""

NEIGHBOURS = {("cli", "serving")}
"""Imports between rooms of one floor that are meant: `aetherflow serve` runs the ASGI app."""

SDK_MODULES = ("aetherflow.telemetry.*", "aetherflow.testing")
EXPORTER_MODULES = ("aetherflow.telemetry.setup.*", "aetherflow.telemetry.export.*")
CONVENTIONS = "aetherflow.telemetry.conventions"


@dataclass(frozen=True)
class Import:
    """One imported thing, by its full dotted name: ``from a.b import c`` is ``a.b.c``."""

    target: str
    line: int

    def inside(self, package: str) -> bool:
        """Tell whether the thing is the package or lies in it."""
        return f"{self.target}.".startswith(f"{package}.")


@dataclass(frozen=True)
class Module:
    """A module of the package under test: its dotted name and its parsed source."""

    name: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The first name below the package; the face is a room of its own."""
        return room_of(self.name)

    def imports(self) -> Iterator[Import]:
        """Every import: top-level, function-local, under TYPE_CHECKING, and by literal name."""
        for found in ast.walk(self.tree):
            match found:
                case ast.Import(names=aliases):
                    yield from (Import(alias.name, found.lineno) for alias in aliases)
                case ast.ImportFrom(module=base, names=aliases, level=0):
                    yield from (Import(f"{base}.{alias.name}", found.lineno) for alias in aliases)
                case ast.ImportFrom(level=level):
                    yield Import("." * level, found.lineno)
                case ast.Call(
                    func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                    args=[ast.Constant(value=str(target)), *_],
                ):
                    yield Import(target, found.lineno)


Modules = Mapping[str, Module]
Rule = Callable[[Modules], Iterator[str]]


def room_of(dotted: str) -> str:
    """Return the room that a dotted name of the package lies in."""
    return dotted.split(".")[1] if "." in dotted else "__init__"


def module_of(target: str, modules: Modules) -> str | None:
    """Return the module that an imported thing is, or is defined in."""
    while target not in modules:
        target, dot, _ = target.rpartition(".")
        if not dot:
            return None
    return target


def upward_imports(modules: Modules) -> Iterator[str]:
    """Imports of a higher floor, or of another room on the same floor."""
    for module in modules.values():
        if module.room not in FLOORS:
            yield f"{module.name}: the room {module.room!r} has no floor"
            continue
        for found in module.imports():
            if found.target.startswith("."):
                yield f"{module.name}:{found.line}: relative import"
            elif found.target.startswith(f"{PACKAGE}."):
                room = room_of(found.target)
                here, there = FLOORS[module.room], FLOORS.get(room, 0)
                level = here == there and room != module.room and (module.room, room) not in NEIGHBOURS
                if there > here or level:
                    yield f"{module.name}:{found.line}: {module.room} (floor {here}) imports {room} (floor {there})"


def circles(modules: Modules) -> Iterator[str]:
    """A circle of imports between modules, whether or not Python would get through it."""
    graph = {
        module.name: {module_of(found.target, modules) for found in module.imports()} - {module.name, PACKAGE, None}
        for module in modules.values()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield "circle: " + " <- ".join(error.args[1])


def face_imports(modules: Modules) -> Iterator[str]:
    """Imports of the public face from inside the package."""
    for module in modules.values():
        for found in module.imports():
            is_room = room_of(found.target) in FLOORS.keys() - {"__init__"}
            if found.inside(PACKAGE) and not is_room and module.room != "__init__":
                yield f"{module.name}:{found.line}: imports the face ({found.target})"


def sdk_imports(modules: Modules) -> Iterator[str]:
    """Imports of the OpenTelemetry SDK or of an exporter where they have no business."""
    for package, allowed in (("opentelemetry.sdk", SDK_MODULES), ("opentelemetry.exporter", EXPORTER_MODULES)):
        for module in modules.values():
            if any(fnmatchcase(module.name, pattern) for pattern in allowed):
                continue
            for found in module.imports():
                if found.inside(package):
                    yield f"{module.name}:{found.line}: imports {found.target}"


def emitted_names() -> Set[str]:
    """Return every attribute, event and metric name that the conventions define."""
    constants = (value for key, value in vars(conventions).items() if key.isupper() and isinstance(value, str))
    dotted = {value for value in constants if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", value)}
    return dotted | {metric.name for metric in conventions.ALL_METRICS}


def spelled_names(modules: Modules) -> Iterator[str]:
    """Attribute and metric names written out where their constant should be."""
    names = emitted_names()
    for module in modules.values():
        if module.name == CONVENTIONS:
            continue
        for found in ast.walk(module.tree):
            if isinstance(found, ast.Constant) and found.value in names:
                yield f"{module.name}:{found.lineno}: spells {found.value!r}"


RULES: tuple[Rule, ...] = (upward_imports, circles, face_imports, sdk_imports, spelled_names)


@cache
def package_modules() -> Modules:
    """Parse every module of the package, once."""
    modules = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, ast.parse(path.read_text("utf-8"), str(path)))
    return modules


def snippets(**sources: str) -> Modules:
    """Parse snippets named by path within the package, such as ``telemetry__setup``; the face is always there."""
    parsed = {PACKAGE: Module(PACKAGE, ast.parse(""))}
    for key, source in sources.items():
        name = f"{PACKAGE}.{key.replace('__', '.')}"
        parsed[name] = Module(name, ast.parse(source))
    return parsed


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    """No module of the package breaks a rule of the house."""
    assert not list(rule(package_modules()))


def test_the_package_is_read_whole() -> None:
    """Every module file is under the rules, so that an empty reading cannot pass for a clean one."""
    modules = package_modules()
    assert len(modules) == len(list(SOURCE.rglob("*.py")))
    assert {PACKAGE, "aetherflow.errors", CONVENTIONS} <= set(modules)
    assert any(found.inside("opentelemetry") for module in modules.values() for found in module.imports())


def test_the_names_are_those_of_the_conventions() -> None:
    """The rule on spelled names knows attributes, events, metrics and borrowed names, and no span templates."""
    names = emitted_names()
    assert {
        conventions.NODE_NAME,
        conventions.RETRY_EVENT,
        conventions.NODE_DURATION.name,
        conventions.ERROR_TYPE,
        conventions.THREAD_ID,
    } <= names
    assert not names & {conventions.SCOPE_NAME, conventions.RUN_SPAN}


UPWARD = {
    "top level": "from aetherflow.flow.node import Node",
    "plain import": "import aetherflow.flow.node",
    "of a room": "from aetherflow import flow",
    "function-local": "def late():\n    from aetherflow.flow.node import Node",
    "type-checking only": "if TYPE_CHECKING:\n    from aetherflow.flow.node import Node",
    "by literal name": "importlib.import_module('aetherflow.flow.node')",
    "relative": "from ..flow import node",
}


@pytest.mark.parametrize("source", UPWARD.values(), ids=UPWARD)
def test_an_upward_import_is_found(source: str) -> None:
    """An import of a higher floor is found wherever and however it is written."""
    assert list(upward_imports(snippets(engine__walk=source)))


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("engine__walk", "from aetherflow.telemetry.observer import Site", True),
        ("flow__node", "from aetherflow.flow.binding import plan", True),
        ("resources__pooling", "from aetherflow.analysis.advice import advise", False),
        ("analysis__advice", "import aetherflow.engine.walk", False),
        ("errors", "from aetherflow.config import PerformanceConfig", False),
        ("cli__serve", "from aetherflow.serving import app", True),
        ("serving", "from aetherflow.cli.main import main", False),
        ("cli__demo", "from aetherflow.testing import capture_telemetry", False),
        ("attic", "import os", False),
    ],
)
def test_floors_and_neighbours(module: str, source: str, allowed: bool) -> None:
    """A room sees the floors below and itself, its neighbours only where that is meant, and has a floor."""
    assert bool(list(upward_imports(snippets(**{module: source})))) is not allowed


def test_the_face_sees_every_room() -> None:
    """The face stands on all rooms."""
    modules = dict(snippets(flow__node=""))
    modules[PACKAGE] = Module(
        PACKAGE, ast.parse("from aetherflow.flow.decorating import node\nimport aetherflow.cli.main")
    )
    assert not [problem for rule in RULES for problem in rule(modules)]


def test_a_circle_is_found() -> None:
    """Modules of one room that import each other in a circle are named, also when one import is function-local."""
    modules = snippets(
        engine__graph="from aetherflow.engine.walk import walk",
        engine__walk="from aetherflow.engine import linear",
        engine__linear="def late():\n    import aetherflow.engine.graph",
    )
    (problem,) = circles(modules)
    assert all(name in problem for name in ("engine.graph", "engine.walk", "engine.linear"))


def test_a_diamond_is_no_circle() -> None:
    """Two ways down to one module are fine."""
    modules = snippets(
        engine__walk="from aetherflow.engine import graph, linear",
        engine__linear="from aetherflow.engine.graph import Call",
        engine__graph="",
    )
    assert not list(circles(modules))


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("import aetherflow", False),
        ("import aetherflow as af", False),
        ("from aetherflow import node", False),
        ("from aetherflow import *", False),
        ("from aetherflow import telemetry", True),
        ("from aetherflow.telemetry import setup", True),
        ("import aetherflow_plugins", True),
    ],
)
def test_the_face_is_not_for_the_inside(source: str, allowed: bool) -> None:
    """No module inside imports the face, though it may import a room."""
    modules = snippets(cli__main=source, telemetry="", telemetry__setup="")
    assert bool(list(face_imports(modules))) is not allowed


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("telemetry__setup__configuring", "from opentelemetry.sdk.trace import TracerProvider", True),
        ("testing", "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter", True),
        ("engine__walk", "from opentelemetry.sdk.trace import TracerProvider", False),
        ("engine__walk", "from opentelemetry import sdk", False),
        ("engine__walk", "from opentelemetry import trace", True),
        ("telemetry__setup__configuring", "from opentelemetry.exporter.otlp.proto.http import Compression", True),
        ("telemetry__export__http", "from opentelemetry.exporter.otlp.proto.http import Compression", True),
        ("telemetry__observer", "from opentelemetry.exporter.otlp.proto.http import Compression", False),
        ("testing", "import opentelemetry.exporter.otlp.proto.http", False),
    ],
)
def test_the_sdk_stays_in_telemetry(module: str, source: str, allowed: bool) -> None:
    """The SDK is imported in telemetry and testing alone, an exporter where telemetry is set up or exported alone."""
    assert bool(list(sdk_imports(snippets(**{module: source})))) is not allowed


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("engine__walk", "span.set_attribute('aetherflow.node.name', 1)", False),
        ("engine__walk", "histogram('aetherflow.node.duration')", False),
        ("analysis__spans", "match kind:\n    case 'thread.id': pass", False),
        ("telemetry__conventions", "NODE_NAME = 'aetherflow.node.name'", True),
        ("engine__walk", "logging.getLogger('aetherflow.engine')", True),
        ("engine__walk", "'''Sets aetherflow.node.name on the span.'''", True),
    ],
)
def test_names_are_spelled_once(module: str, source: str, allowed: bool) -> None:
    """An emitted name is a string in the conventions alone; elsewhere it is the constant."""
    assert bool(list(spelled_names(snippets(**{module: source})))) is not allowed
