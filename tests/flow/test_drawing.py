"""Flows as text and pictures: the text reads back as the flow, and no name can spoil a picture."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from enum import Enum
from itertools import combinations, pairwise
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
from dependency_injector import providers
from dependency_injector.wiring import Provide
from hypothesis import given
from hypothesis import strategies as st

from aetherflow import BaseFlowContext, ConfigurationError
from aetherflow.engine.graph import Branch, Call, Chain, Chunked, FanOut, Map, Repeat, Step, Sub
from aetherflow.flow.dataflow import data_flow
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.flow.sketch import Sketch, sketch
from aetherflow.telemetry.metrics.accumulators import registry

SVG = "{http://www.w3.org/2000/svg}"


def named(name: str) -> Node[..., Any]:
    return node(name=name)(lambda value=None: value)


def done(output: object) -> bool:
    return bool(output)


class Color(Enum):
    RED = 1


a, b, c, d, e = (named(name) for name in "abcde")
etl = (a >> b).named("etl")

NAMES = [
    '"><script>alert(1)</script>',
    "a]b[c|d{e}f(g)",
    "__init__",
    "_x_",
    "line\nbreak\r\ttab",
    "\x00\x1b[31m\u200b\u2028\ud800",
    "数据 清洗 ✓ é 😀",
    "ﬂ°°60¶ß",
    "1. item",
    "- item",
    "%%{init: {'theme': 'dark'}}%%",
    "#quot; #35; &amp; &lt;",
    "`x` *y* **z** $$w$$",
    r"\N \n \" \\",
    "--> a",
    "end",
    "class",
    "subgraph",
    "fa:fa-car",
    "https://example.org",
    " ",
    "]]>",
    "x" * 500,
]
any_name = pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:20])


def sketched(flow: Node[..., Any]) -> Sketch:
    return sketch(flow.name, flow._step, data_flow(flow.name, flow._step, None))


# --- random flows -------------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """A flow, and by name all that composes it."""

    flow: Node[..., Any]
    names: dict[str, Any]


class Composer:
    """Draws flows of every kind of step, nested, with every option."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.names: dict[str, Any] = {"done": done, "Color": Color}

    def flow(self, depth: int) -> Node[..., Any]:
        made = self.known(named(f"node{len(self.names)}{self.one_of('', '_with_a_long_name')}"))
        beside = (self.fan_out, self.workers, self.map, self.map_batches)
        kinds = (self.then, *beside, self.chunked, self.branch, self.repeat, self.name)
        for extended in self.draw(st.lists(st.sampled_from(kinds), max_size=4)) if depth else ():
            made = extended(made, depth - 1)
        return made

    def known(self, made: Node[..., Any]) -> Node[..., Any]:
        self.names[made.name] = made
        return made

    def one_of(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def options(self) -> dict[str, Any]:
        return {"executor": self.one_of(None, "thread"), "on_error": self.one_of("raise", "collect")}

    def flows(self, depth: int) -> list[Node[..., Any]]:
        return [self.flow(depth) for _ in range(self.one_of(1, 2, 3))]

    def then(self, made: Node[..., Any], depth: int) -> Node[..., Any]:
        return made.then(self.flow(depth))

    def fan_out(self, made: Node[..., Any], depth: int) -> Node[..., Any]:
        return made.fan_out_to(self.flows(depth), max_workers=self.one_of(None, 2), **self.options())

    def workers(self, made: Node[..., Any], depth: int) -> Node[..., Any]:
        limits = {"max_workers": self.one_of(None, 1), "split": self.one_of(None, False, True)}
        return made.fan_out_to([self.flow(depth)] * self.one_of(2, 3), **limits, **self.options())

    def map(self, made: Node[..., Any], depth: int) -> Node[..., Any]:
        return made.map(self.flow(depth), max_concurrency=self.one_of(None, 1, 4), **self.options())

    def chunked(self, made: Node[..., Any], depth: int) -> Node[..., Any]:
        return made.chunked(self.one_of(None, 1, 100))

    def map_batches(self, made: Node[..., Any], depth: int) -> Node[..., Any]:
        return made.map_batches(self.flow(depth), self.one_of(None, 1, 100))

    def branch(self, made: Node[..., Any], depth: int) -> Node[..., Any]:
        choices = dict(zip([1, "x", Color.RED], self.flows(depth), strict=False))
        if self.one_of(False, True):
            choices["same"] = choices[1]
        return made.branch_on(choices, default=self.flow(depth) if self.one_of(False, True) else None)

    def repeat(self, made: Node[..., Any], depth: int) -> Node[..., Any]:
        return made.repeat(self.one_of(1, 2, 100), until=self.one_of(None, done))

    def name(self, made: Node[..., Any], depth: int) -> Node[..., Any]:
        return self.known(made.named(f"flow{len(self.names)}"))


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    composer = Composer(draw)
    return Sample(composer.flow(3), composer.names)


def shape(step: Step) -> tuple[Any, ...]:
    """All that a step says, as plain values."""
    match step:
        case Call(task):
            return ("call", task.name)
        case Sub(name, body):
            return ("sub", name, shape(body))
        case Chain(parts):
            return ("chain", *map(shape, parts))
        case FanOut(branches, executor, workers, collect):
            return ("fan out", *map(shape, branches), executor, workers, collect)
        case Map(body, workers, split, keyed, executor, collect, copies):
            return ("map", shape(body), workers, split, keyed, executor, collect, copies)
        case Chunked(size, body):
            return ("chunked", size, body and shape(body))
        case Branch(choices, default):
            return ("branch", *((key, shape(it)) for key, it in choices.items()), default and shape(default))
        case Repeat(body, times, until):
            return ("repeat", shape(body), times, until)


# --- text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "text"),
    [
        (a, "a"),
        (a >> b >> c, "a >> b >> c"),
        (a >> [b, c] >> d, "a >> [b, c] >> d"),
        (a >> [b >> c, d] >> e, "a >> [b >> c, d] >> e"),
        (a >> [b] * 4 >> c, "a >> [b] * 4 >> c"),
        (a.map(b), "a.map(b)"),
        ((a >> [b, c]).map(d), "(a >> [b, c]).map(d)"),
        ((a >> [b] * 2).map(d) >> e, "(a >> [b] * 2).map(d) >> e"),
        (a.chunked() >> b, "a.chunked() >> b"),
        (a.chunked(100) >> [b] * 2, "a.chunked(100) >> [b] * 2"),
        ((a >> b).map_batches(c >> d, 100) >> e, "a >> b.map_batches(c >> d, 100) >> e"),
        ((a >> [b, c]).map_batches(d), "(a >> [b, c]).map_batches(d)"),
        (a.repeat(3), "a.repeat(3)"),
        ((a >> b).repeat(3, until=done), "(a >> b).repeat(3, until=done)"),
        (a >> b.repeat(3) >> c, "a >> b.repeat(3) >> c"),
        (a.branch_on({"x": b, Color.RED: c}, default=d), "a.branch_on({'x': b, Color.RED: c}, default=d)"),
        (etl >> c, "etl >> c"),
        (etl.repeat(2), "etl.repeat(2)"),
        (a.fan_out_to([b, c], max_workers=2), "a.fan_out_to([b, c], max_workers=2)"),
        (a.fan_out_in([b, c], d, on_error="collect"), "a.fan_out_to([b, c], on_error='collect') >> d"),
        (a.map(b, max_concurrency=4, executor="thread"), "a.map(b, max_concurrency=4, executor='thread')"),
        (named("load data") >> named("class"), "'load data' >> 'class'"),
        (named("a >> b").repeat(2), "'a >> b'.repeat(2)"),
    ],
)
def test_a_flow_is_shown_as_what_composes_it(flow, text):
    """The text is the operators and methods that make the flow; names that are none in Python are in quotes."""
    assert str(flow) == text
    assert repr(flow) == f"<Node {flow.name!r}: {text}>"


@given(samples())
def test_the_text_of_a_flow_composes_it_again(sample):
    """Python reads the text, with its precedence, as the very same flow."""
    again = eval(str(sample.flow), dict(sample.names))
    assert shape(again._step) == shape(sample.flow._step)


@any_name
def test_a_text_is_one_line_whatever_the_names(name):
    """No name breaks the line or hides in it: what is no name in Python is in quotes, with escapes."""
    text = str(named(name) >> a)
    assert text.isprintable()
    assert text in (f"{name} >> a", f"{name!r} >> a")
    assert text.startswith(("'", '"')) or name.isidentifier()


# --- Mermaid ------------------------------------------------------------------------------------------------------


def test_a_flow_as_mermaid():
    """Nodes, a named flow as a subgraph, a fan-out, keys of a branch, a loop: all of it is in the chart."""
    flow = (etl >> [c, d.repeat(3)] >> e).branch_on({"x": named("f"), "y": named("g").map(a)}, default=named("h"))
    assert (
        flow.named("all").to_mermaid()
        == """\
flowchart LR
    subgraph g8["all"]
        direction LR
        subgraph g2["etl"]
            direction LR
            n1["a"]
            n2["b"]
        end
        n3["c"]
        n4["d"]
        n5["e"]
        n6["f"]
        n7["g"]
        n8["a"]
        n9["h"]
    end
    n1 --> n2
    n4 -->|"3 times"| n4
    n7 -->|"each"| n8
    n2 --> n3
    n2 --> n4
    n3 --> n5
    n4 --> n5
    n5 -->|"'x'"| n6
    n5 -->|"'y'"| n7
    n5 -->|"default"| n9"""
    )


def of_mermaid(text: str) -> str:
    """Return a label as Mermaid shows it."""
    return re.sub(r"#(\d+);", lambda found: chr(int(found[1])), text)


def shown(name: str) -> str:
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in name)


@any_name
def test_a_name_is_safe_in_mermaid(name):
    """A label holds letters, digits, spaces and a few signs without a meaning; the rest is numbers of characters."""
    (label,) = re.findall(r'n1\["(.*)"\]', named(name).to_mermaid())
    assert re.fullmatch(r"([^\W_]|[ ,'()=]|#\d+;|(?<=[^\W_])[_.-](?=[^\W_]))+", label)
    assert of_mermaid(label) == shown(name)


@any_name
def test_titles_and_keys_are_safe_in_mermaid(name):
    """So are the names of flows and the keys of branches."""
    chart = a.branch_on({name: b}).named(name).to_mermaid()
    (title,) = re.findall(r'^    subgraph g\d\["(.*)"\]$', chart, re.MULTILINE)
    (key,) = re.findall(r'^    n1 -->\|"(.*)"\| n2$', chart, re.MULTILINE)
    assert of_mermaid(title) == shown(name)
    assert of_mermaid(key) == repr(name)
    assert not re.search(r'["<>`%{}|]', title + key)


# --- Graphviz -----------------------------------------------------------------------------------------------------


def test_a_flow_as_dot():
    """The same in Graphviz's language: a named flow as a cluster, a loop that does not turn the order around."""
    assert (
        (etl >> [c] * 2 >> d.repeat(3)).to_dot()
        == """\
digraph "etl" {
    rankdir=LR
    node [shape=box, style=rounded, fontname="sans-serif"]
    edge [fontname="sans-serif", fontsize=10]
    subgraph cluster_g2 {
        label="etl"; style="rounded,dashed"; fontname="sans-serif"
        n1 [label="a"]
        n2 [label="b"]
    }
    n3 [label="c"]
    n4 [label="d"]
    n1 -> n2
    n4 -> n4 [label="3 times", constraint=false]
    n2 -> n3 [label="2 workers"]
    n3 -> n4
}"""
    )


def of_dot(text: str) -> str:
    """Return a label as Graphviz shows it."""
    return html.unescape(re.sub(r"\\(.)", r"\1", text))


@any_name
def test_a_name_is_safe_in_dot(name):
    """Quotes end where they should, and neither escapes nor entities come to life."""
    (label,) = re.findall(r'n1 \[label="((?:[^"\\]|\\["\\])*)"\]', named(name).to_dot())
    assert of_dot(label) == shown(name)


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_reads_what_we_write():
    """Graphviz's own parser finds each name as it is."""
    flow = (a >> [named(name) for name in NAMES]).named(NAMES[0])
    ran = subprocess.run(["dot", "-Tjson0"], input=flow.to_dot(), capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    found = {item["name"]: item.get("label", "") for item in json.loads(ran.stdout)["objects"]}
    assert [of_dot(found[f"n{index}"]) for index in range(2, 2 + len(NAMES))] == list(map(shown, NAMES))


@given(samples())
def test_charts_have_the_same_edges(sample):
    """Mermaid and Graphviz get each edge of the flow, dashed if no data flows along it, between known nodes."""
    found = sketched(sample.flow).edges()
    expected = [(edge.source.id, edge.is_data, edge.label, edge.target.id) for edge in found]
    mermaid, dot = sample.flow.to_mermaid(), sample.flow.to_dot()
    in_mermaid = re.findall(r'^    (n\d+) (-\.->|-->)(?:\|"(.*)"\|)? (n\d+)$', mermaid, re.MULTILINE)
    assert [(x, arrow == "-->", of_mermaid(label), y) for x, arrow, label, y in in_mermaid] == expected
    in_dot = re.findall(r'^    (n\d+) -> (n\d+)(?: \[(?:label="(.*?)")?(.*)\])?$', dot, re.MULTILINE)
    assert [(x, "style=dashed" not in more, of_dot(label), y) for x, y, label, more in in_dot] == expected
    boxes = set(re.findall(r"^ *(n\d+)[\[(]", mermaid, re.MULTILINE))
    assert boxes == set(re.findall(r"^ *(n\d+) \[", dot, re.MULTILINE))
    assert {x for x, *_ in expected} | {y for *_, y in expected} <= boxes


@given(samples())
def test_every_node_is_reached(sample):
    """Following the edges from the first node leads to every other one."""
    following: dict[str, set[str]] = {}
    for edge in sketched(sample.flow).edges():
        following.setdefault(edge.source.id, set()).add(edge.target.id)
    reached, todo = {"n1"}, ["n1"]
    while todo:
        for target in following.get(todo.pop(), set()) - reached:
            reached.add(target)
            todo.append(target)
    assert reached == set(re.findall(r"^ *(n\d+)[\[(]", sample.flow.to_mermaid(), re.MULTILINE))


# --- edges that data flows along ----------------------------------------------------------------------------------


class Providers(BaseFlowContext):
    service = providers.Object("service")


def made(name: str, function: Callable[..., Any]) -> Node[..., Any]:
    return node(name=name)(function)


def nothing() -> None: ...


first, second = made("first", lambda text: text), made("second", lambda value: value)
DASHED: list[tuple[str, Callable[[], Node[..., Any]], set[str]]] = [
    ("all data flows", lambda: first >> second >> made("third", lambda x: x), set()),
    ("an older output", lambda: first >> second >> made("third", lambda first: first), {"n2 n3"}),
    ("both outputs", lambda: first >> second >> made("third", lambda x, first: first), set()),
    ("keyword-only", lambda: first >> made("third", lambda *, text: text), {"n1 n2"}),
    ("no parameter", lambda: first >> made("third", lambda: 1), {"n1 n2"}),
    ("annotated None", lambda: made("quiet", nothing) >> second, {"n1 n2"}),
    (
        "an alternative annotated None",
        lambda: first.branch_on({1: second, 2: made("quiet", nothing)}) >> made("third", lambda x: x),
        {"n1 n3", "n3 n4"},
    ),
    ("a fan-in by name", lambda: first >> [second, b] >> made("third", lambda b: b), {"n2 n4"}),
    (
        "a fan-in by the key of a longer branch",
        lambda: first >> [second >> c, b] >> made("third", lambda second: second),
        {"n4 n5"},
    ),
    ("all results", lambda: first >> [second, b] >> made("third", lambda parallel_results: 1), set()),
    (
        "an alternative that takes the input",
        lambda: first.branch_on({1: made("handle", lambda text: text), 2: second}),
        {"n1 n2"},
    ),
    ("a map", lambda: first.map(made("each", lambda element: element)), set()),
    ("lists of elements", lambda: first.chunked(2) >> second, set()),
    ("a map that uses no element", lambda: first.map(made("each", lambda *, text: text)), {"n1 n2"}),
    ("a named flow", lambda: (first >> second).named("inner") >> made("third", lambda inner: inner), set()),
    ("rounds", lambda: first >> second.repeat(2), set()),
    ("rounds that take nothing", lambda: first >> made("third", lambda *, text: text).repeat(2), {"n1 n2", "n2 n2"}),
    ("rounds of a node annotated None", lambda: made("quiet", nothing).repeat(2), {"n1 n1"}),
    (
        "through a joint",
        lambda: first >> [second, b] >> [made("third", lambda b: b), made("fourth", lambda second: second)],
        set(),
    ),
    (
        "through a joint, one unused",
        lambda: first >> [second, b] >> [made("third", lambda b: b), made("fourth", lambda *, text: text)],
        {"n2 n6", "n6 n5"},
    ),
]


@pytest.mark.parametrize(("flow", "dashed"), [case[1:] for case in DASHED], ids=[case[0] for case in DASHED])
def test_an_edge_is_solid_if_data_flows_along_it(flow, dashed):
    """In Mermaid, in Graphviz's language and in the picture; otherwise it is dashed."""
    drawn = flow()
    found = re.findall(r'^    (n\d+) -\.->(?:\|".*"\|)? (n\d+)$', drawn.to_mermaid(), re.MULTILINE)
    assert {" ".join(edge) for edge in found} == dashed
    found = re.findall(r"^    (n\d+) -> (n\d+) \[.*style=dashed.*\]$", drawn.to_dot(), re.MULTILINE)
    assert {" ".join(edge) for edge in found} == dashed
    paths = [each.get("class") for each in picture(drawn).iter(f"{SVG}path") if "edge" in (each.get("class") or "")]
    assert sum("order" in kind for kind in paths) == len(dashed)


def test_diagrams_know_providers_from_a_context_only():
    """With a context, a parameter with a provider's name does not take the output; without one, it does."""
    flow = first >> made("third", lambda service: service)
    assert "n1 --> n2" in flow.to_mermaid()
    assert "n1 -.-> n2" in flow.to_mermaid(context=Providers)
    assert "n1 -.-> n2" in flow.to_mermaid(Providers())
    assert "n1 -> n2 [style=dashed]" in flow.to_dot(context=Providers())
    for draw in (flow.to_mermaid, flow.to_dot):
        with pytest.raises(ConfigurationError, match="context='x' is a str"):
            draw(context="x")


def test_drawing_creates_no_metric_series():
    """A flow that is drawn and never run is not in the metrics, and its names cannot spoil them."""
    flow = (named("drawn \ud800") >> named("drawn too").chunked(2)).named("drawn flow") >> c
    before = set(registry._series)
    flow.to_mermaid()
    assert set(registry._series) == before


def test_a_flow_that_cannot_run_can_be_drawn():
    """Missing inputs, markers without a context and generators on workers do not matter to a diagram."""

    @node(executor="process")
    def items(value: Any, service: Any = Provide["nowhere"]) -> Any:
        yield value

    assert "n1 --> n2" in (first >> items).to_mermaid()
    assert "n1 --> n2" in (first >> items).to_mermaid(context=Providers())


def test_a_step_for_several_values_is_drawn_once():
    """One edge bears all the values that lead to it."""
    chart = a.branch_on({1: b, 2: b, 3: c}).to_mermaid()
    assert '-->|"1, 2"| n2' in chart
    assert "n4" not in chart


def test_between_two_fan_outs_edges_meet():
    """In place of an edge from each branch to each, all lead to a joint, and on from there."""
    chart = (a >> [b, c] >> [d, e]).to_mermaid()
    (joint,) = re.findall(r'(n\d)\(\(" "\)\)', chart)
    assert re.findall(rf"(n\d) --> {joint}", chart) == ["n2", "n3"]
    assert len(re.findall(rf"{joint} --> (n\d)", chart)) == 2


# --- SVG ----------------------------------------------------------------------------------------------------------


class Rectangle(NamedTuple):
    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of(cls, element: ElementTree.Element) -> Rectangle:
        return cls(*(float(element.get(name, "")) for name in ("x", "y", "width", "height")))

    def inner(self) -> Rectangle:
        """What is inside by more than a rounding error."""
        return Rectangle(self.x + 0.2, self.y + 0.2, self.width - 0.4, self.height - 0.4)

    def overlaps(self, other: Rectangle) -> bool:
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )

    def surrounds(self, other: Rectangle) -> bool:
        return (
            self.x <= other.x
            and self.y <= other.y
            and other.x + other.width <= self.x + self.width
            and other.y + other.height <= self.y + self.height
        )


def picture(flow: Node[..., Any]) -> ElementTree.Element:
    return ElementTree.fromstring(flow._repr_mimebundle_()["image/svg+xml"])


def rectangles(root: ElementTree.Element, kind: str) -> list[Rectangle]:
    return [Rectangle.of(element) for element in root.iter(f"{SVG}rect") if element.get("class") == kind]


def paths(root: ElementTree.Element) -> list[str]:
    """Return the edges of a picture."""
    return [element.get("d", "") for element in root.iter(f"{SVG}path") if "edge" in (element.get("class") or "")]


def pieces(path: str) -> list[Rectangle]:
    """Return what a path of straight lines and one curve touches, piece by piece."""
    at = (0.0, 0.0)
    found = []
    for command, numbers in re.findall(r"([MHVC])([^MHVC]*)", path):
        values = [float(number) for number in numbers.split()]
        match command:
            case "M":
                at = (values[0], values[1])
                continue
            case "H":
                line = [at, (values[0], at[1])]
            case "V":
                line = [at, (at[0], values[0])]
            case _:
                corners = [at, *zip(values[::2], values[1::2], strict=True)]
                line = [on_curve(corners, part / 24) for part in range(25)]
        found += [bounds(*ends) for ends in pairwise(line)]
        at = line[-1]
    return found


def bounds(one: tuple[float, float], other: tuple[float, float]) -> Rectangle:
    (x, y), (x2, y2) = one, other
    return Rectangle(min(x, x2), min(y, y2), abs(x - x2), abs(y - y2))


def on_curve(corners: list[tuple[float, float]], t: float) -> tuple[float, float]:
    """Return a point on a Bézier curve, by de Casteljau."""
    while len(corners) > 1:
        corners = [(x + t * (x2 - x), y + t * (y2 - y)) for (x, y), (x2, y2) in pairwise(corners)]
    return corners[0]


@given(samples())
def test_nothing_in_a_picture_lies_on_anything_else(sample):
    """All is in view; no box overlaps another, no edge crosses a box, frames nest or stand apart."""
    root = picture(sample.flow)
    view = Rectangle(*map(float, root.get("viewBox", "").split()))
    boxes, frames = rectangles(root, "box"), rectangles(root, "frame")
    assert all(view.surrounds(rectangle) for rectangle in boxes + frames)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    for one, other in combinations(frames, 2):
        assert not one.overlaps(other) or one.surrounds(other) or other.surrounds(one)
    for frame in frames:
        assert all(frame.surrounds(box) or not frame.overlaps(box) for box in boxes)
    lines = [piece for path in paths(root) for piece in pieces(path)]
    assert all(view.surrounds(line) for line in lines)
    assert not any(box.inner().overlaps(line) for box in boxes for line in lines)


@given(samples())
def test_a_picture_has_every_node_and_edge(sample):
    """As many boxes and edges as the flow has, and each name."""
    root = picture(sample.flow)
    graph = sketched(sample.flow)
    texts = [element.text for element in root.iter(f"{SVG}text")]
    chart = sample.flow.to_mermaid()
    assert len(rectangles(root, "box")) == len(re.findall(r"^ *n\d+[\[(]", chart, re.MULTILINE))
    assert len(paths(root)) == len(list(graph.edges()))
    assert set(re.findall(r'n\d+\["(.*)"\]', chart)) <= set(texts)


@any_name
def test_a_name_is_safe_in_a_picture(name):
    """Any name leaves the picture well-formed and is found in it; a long one is cut and told in full on pointing."""
    (text,) = picture(named(name)).iter(f"{SVG}text")
    if len(shown(name)) > 40:
        (full,) = text.iter(f"{SVG}title")
        assert full.text == shown(name)
        assert full.tail == shown(name)[:39] + "…"
    else:
        assert text.text == shown(name)


def test_a_notebook_shows_a_flow_without_a_network():
    """It gets the text and a picture that refers to nothing outside itself."""
    bundle = (etl >> [c, d] >> e)._repr_mimebundle_()
    assert bundle["text/plain"] == "etl >> [c, d] >> e"
    svg = bundle["image/svg+xml"]
    assert set(re.findall(r'https?://[^"\s]+', svg)) == {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"url\((.*?)\)", svg)) == {"#aetherflow-arrow"}
    assert not re.search(r"<(script|image|use|foreignObject)|href|@import", svg)
