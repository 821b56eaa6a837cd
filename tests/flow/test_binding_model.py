"""Random flows whose names collide: the library binds arguments as a plain interpreter of docs/binding.md does."""

from __future__ import annotations

import inspect
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from itertools import islice
from typing import Any
from zlib import crc32

import pytest
from dependency_injector import providers
from hypothesis import assume, event, given, note, reject
from hypothesis import strategies as st

from aetherflow import Failure
from aetherflow.errors import CompositionError, MissingInputError, UnknownInputError
from aetherflow.flow.decorating import node
from aetherflow.flow.node import Node
from aetherflow.flow.running import NO_INPUT
from aetherflow.resources.context import BaseFlowContext
from aetherflow.telemetry import conventions
from aetherflow.telemetry.capture import CapturedTelemetry

NODES = ("a", "b", "c", "d")
INPUTS = ("a", "b", "x", "state")
PARAMETERS = (*NODES, "e", "k", "x", "y", "state", "parallel_results")
LONGEST = 400
"""An output whose text is longer shows only a checksum of it."""
MOST_PATHS = 60
"""A flow with more possible runs than this is not drawn."""


class Context(BaseFlowContext):
    c = providers.Object("provider c")
    x = providers.Object("provider x")


OWN_PROVIDERS = {"c": "provider c", "x": "provider x"}
PROVIDERS = {**OWN_PROVIDERS, "state": {}}


# --- flows --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    name: str
    is_keyword_only: bool = False
    has_default: bool = False


@dataclass(frozen=True, eq=False)
class Function:
    name: str
    parameters: tuple[Parameter, ...] = ()
    returns_none: bool = False
    fails: bool = False
    is_annotated: bool = True
    choices: int = 0
    """The number of values to choose from, if it chooses an alternative."""

    def value(self, arguments: Mapping[str, Any]) -> Any:
        """Return the output: it shows what it was made of, or it chooses."""
        output = (self.name, tuple(sorted(arguments.items(), key=lambda item: item[0])))
        if self.choices:
            return f"{self.name} {crc32(repr(output).encode()) % self.choices}"
        if self.returns_none:
            return None
        text = repr(output)
        return output if len(text) < LONGEST else (self.name, crc32(text.encode()))


@dataclass(frozen=True, eq=False)
class Chain:
    steps: tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class Named:
    name: str
    body: Step


@dataclass(frozen=True, eq=False)
class Rounds:
    body: Step
    times: int


@dataclass(frozen=True, eq=False)
class FanOut:
    branches: tuple[Step, ...]
    is_collect: bool


@dataclass(frozen=True, eq=False)
class Mapped:
    source: Function
    body: Step


@dataclass(frozen=True, eq=False)
class Choice:
    chooser: Function
    alternatives: tuple[Step, ...]
    has_default: bool
    """True if the last alternative is given as ``default=``."""


Step = Function | Chain | Named | Rounds | FanOut | Mapped | Choice


def first_of(step: Step) -> Step:
    """Return the function, or the named flow, that a step begins with."""
    match step:
        case Chain(steps):
            return first_of(steps[0])
        case Rounds(body):
            return first_of(body)
        case Mapped(source):
            return source
        case Choice(chooser):
            return chooser
    return step


def key_of(step: Step) -> str:
    first = first_of(step)
    assert isinstance(first, Function | Named)
    return first.name


def first_function(step: Step) -> Function:
    first = first_of(step)
    while isinstance(first, Named):
        first = first_of(first.body)
    assert isinstance(first, Function)
    return first


def steps_of(step: Step) -> Iterator[Step]:
    """Yield a step and every step in it."""
    yield step
    parts: Sequence[Step] = ()
    match step:
        case Chain(parts) | FanOut(parts):
            pass
        case Named(_, body) | Rounds(body):
            parts = (body,)
        case Mapped(first, body):
            parts = (first, body)
        case Choice(first, others):
            parts = (first, *others)
    for part in parts:
        yield from steps_of(part)


def visible_names(step: Step) -> set[str]:
    """Return the names that have an output after a step."""
    match step:
        case Function(name) | Named(name):
            return {name}
        case Chain(parts):
            return set().union(*map(visible_names, parts))
        case FanOut(parts):
            return {key_of(part) for part in parts}.union(*map(visible_names, parts))
        case Rounds(body):
            return visible_names(body)
        case Mapped(first, body):
            return {first.name, key_of(body)}
        case Choice(first, parts):
            return {first.name}.union(*map(visible_names, parts))


@st.composite
def functions(draw: st.DrawFn, name: str) -> Function:
    names = draw(st.lists(st.sampled_from(PARAMETERS), max_size=3, unique=True))
    positional = draw(st.integers(0, len(names)))
    required = draw(st.integers(0, min(positional, 1)))
    parameters = tuple(
        Parameter(each, index >= positional, index >= required and (index < positional or draw(st.integers(0, 2)) > 0))
        for index, each in enumerate(names)
    )
    returns_none = name in "bc" and draw(st.sampled_from((False, False, True)))
    is_annotated = draw(st.sampled_from((True, True, False)))
    choices = draw(st.integers(1, 2)) if name == "k" else 0
    return Function(name, parameters, returns_none, name == "bad", is_annotated, choices)


class Drawing:
    """Draws a flow; in each scope, a name belongs to one function, since composing refuses others."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.functions: dict[str, Function] = {}

    def function(self, *names: str) -> Function:
        name = self.draw(st.sampled_from(names))
        if name not in self.functions:
            self.functions[name] = self.draw(functions(name))
        return replace(self.functions[name])

    def chain(self, depth: int, first: str = "", *, fails: bool = False) -> Chain:
        length = self.draw(st.integers(1, 4 if depth == 3 else 3 if depth else 2))
        parts: list[Step] = [self.function(first) if first else self.step(depth, is_first=True)]
        parts += [self.step(depth, is_first=False) for _ in range(1, length)]
        if fails:
            parts.insert(self.draw(st.integers(1, length)), self.function("bad"))
        return Chain(tuple(parts))

    def step(self, depth: int, *, is_first: bool) -> Step:
        kinds = ["function", "function", *(["named", "rounds", "mapped", "choice"] if depth else [])]
        match self.draw(st.sampled_from(kinds if is_first or not depth else [*kinds, "fan-out", "collect"])):
            case "named":
                body = Drawing(self.draw).chain(depth - 1)
                if isinstance(body.steps[0], Function) and len(body.steps) == 1:  # a node under another name
                    return replace(body.steps[0], name="e")
                free = [name for name in "defg" if name not in self.functions]
                name = self.draw(st.sampled_from(free or [f"f{len(self.functions)}"]))
                self.functions[name] = Function(name)  # from here on the name belongs to the flow
                return Named(name, body)
            case "rounds":
                return Rounds(self.chain(depth - 1), self.draw(st.integers(2, 3)))
            case "mapped":
                return Mapped(self.function("a", "d"), self.chain(depth - 1))
            case "choice":
                chooser = self.function("k")
                alternatives = tuple(self.chain(depth - 1) for _ in range(chooser.choices))
                return Choice(chooser, alternatives, chooser.choices > 1 and self.draw(st.booleans()))
            case "fan-out":
                return self.fan_out(depth, is_collect=False)
            case "collect":
                return self.fan_out(depth, is_collect=True)
        return self.function(*NODES)

    def fan_out(self, depth: int, *, is_collect: bool) -> FanOut:
        first = self.chain(depth - 1, fails=is_collect and self.draw(st.booleans()))
        second = self.chain(depth - 1)
        if key_of(first) == key_of(second):
            start = self.function(*(name for name in NODES if name != key_of(first)))
            second = Chain((start, *second.steps))
        return FanOut((first, second), is_collect)


@st.composite
def flows(draw: st.DrawFn) -> Chain:
    return Drawing(draw).chain(3)


class Recorder:
    """Makes nodes of functions, and records their calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.nodes: dict[tuple[Any, ...], Node[..., Any]] = {}

    def node(self, function: Function) -> Node[..., Any]:
        key = astuple(function)
        if key not in self.nodes:
            self.nodes[key] = self.new_node(function)
        return self.nodes[key]

    def new_node(self, function: Function) -> Node[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            bound = signature.bind(*args, **named)
            bound.apply_defaults()
            arguments = plain(bound.arguments)
            self.calls.append((function.name, arguments))
            if function.fails:
                raise ArithmeticError(function.name)
            return function.value(arguments)

        kinds = {False: inspect.Parameter.POSITIONAL_OR_KEYWORD, True: inspect.Parameter.KEYWORD_ONLY}
        signature = inspect.Signature(
            [
                inspect.Parameter(
                    each.name,
                    kinds[each.is_keyword_only],
                    default=f"default {each.name}" if each.has_default else inspect.Parameter.empty,
                    annotation=tuple if function.is_annotated else inspect.Parameter.empty,
                )
                for each in function.parameters
            ],
            return_annotation=None if function.returns_none else inspect.Signature.empty,
        )
        call.__signature__ = signature  # type: ignore[attr-defined]
        return node(name=function.name)(call)

    def flow(self, step: Step, before: Node[..., Any] | None = None) -> Node[..., Any]:
        """Return a step as a flow, after another one if there is one."""
        match step:
            case Chain(parts):
                for part in parts:
                    before = self.flow(part, before)
                assert before is not None
                return before
            case FanOut(parts, is_collect):
                assert before is not None
                branches = [self.flow(part) for part in parts]
                return before.fan_out_to(branches, on_error="collect" if is_collect else "raise")
            case Mapped(source, body):
                return self.flow(source, before).map(self.flow(body))
            case Choice(chooser, parts, has_default):
                alternatives = {f"{chooser.name} {index}": self.flow(part) for index, part in enumerate(parts)}
                default = alternatives.popitem()[1] if has_default else None
                return self.flow(chooser, before).branch_on(alternatives, default)
            case Function():
                flow = self.node(step)
            case Named(name, body):
                flow = self.flow(body).named(name)
            case Rounds(body, times):
                flow = self.flow(body).repeat(times)
        return flow if before is None else before >> flow


def plain(value: Any) -> Any:
    """Return a value in which failures and mappings are equal if they read the same."""
    if isinstance(value, Failure):
        return "failure"
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return type(value)(map(plain, value)) if isinstance(value, list | tuple) else value


# --- the interpreter ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Output:
    """A value that a parameter can take; ``upstream`` names the nodes that returned it, None if one of them failed."""

    value: Any
    upstream: frozenset[str] | None = frozenset()
    parts: tuple[Output, ...] = ()
    is_silent: bool = False

    def includes(self, other: Output) -> bool:
        return other is self or any(part is other for part in self.parts)


AMBIGUOUS = Output("ambiguous")
Scope = dict[str, Output]


@dataclass(frozen=True)
class Entry:
    """What the first function of a step starts from."""

    previous: Output | None = None
    is_first: bool = False
    is_alternative: bool = False
    is_default: bool = False
    rounds: Mapping[str, Output] | None = None
    """From the second round on, the parameters that take the output of the round before."""
    label: str = ""


class CollectedError(Exception):
    """A function in a branch of a fan-out that collects failures has failed."""


@dataclass
class Interpreter:
    """Evaluates a flow as docs/binding.md reads, with a dictionary of outputs for each scope."""

    flow: Step
    inputs: Any
    has_context: bool
    decisions: list[int] | None = None
    """The alternatives and failures of an imagined run; None for those of the real one."""

    calls: list[tuple[str, Any]] = field(default_factory=list)
    upstream: list[tuple[str, frozenset[str] | None]] = field(default_factory=list)
    filled: set[tuple[Function, str]] = field(default_factory=set)
    missing: set[tuple[Function, str]] = field(default_factory=set)
    is_ambiguous: bool = False
    takes_mapping: bool = False
    taken_inputs: set[str] = field(default_factory=set)
    unused: set[tuple[str, str]] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    taken_in_first_round: dict[Function, set[str]] = field(default_factory=dict)
    open_decisions: list[int] = field(default_factory=list)
    collecting: int = 0
    misses_in_collect: bool = False

    def __post_init__(self) -> None:
        self.mapping = self.inputs if isinstance(self.inputs, Mapping) else {}
        self.providers = PROVIDERS if self.has_context else {}
        self.own_providers = OWN_PROVIDERS if self.has_context else {}
        self.names = {
            each.name for step in steps_of(self.flow) if isinstance(step, Function) for each in step.parameters
        }

    def decide(self, count: int) -> int:
        """Return a decision of an imagined run; without one, 0, and the number of other runs is kept."""
        assert self.decisions is not None
        place = len(self.open_decisions)
        self.open_decisions.append(count)
        return self.decisions[place] if place < len(self.decisions) else 0

    def evaluate(self, step: Step, scope: Scope, entry: Entry) -> Output:
        """Return the output of a step, and add the outputs in it to the scope."""
        match step:
            case Function():
                return self.call(step, scope, entry)
            case Chain(parts):
                for part in parts:
                    output = self.evaluate(part, scope, entry)
                    entry = Entry(output, label=label_of(part))
                return output
            case Named(name, body):
                inner = self.evaluate(body, dict(scope), entry)
                scope[name] = Output(inner.value, frozenset({name}), is_silent=inner.is_silent)
                return scope[name]
            case Rounds():
                return self.repeat(step, scope, entry)
            case FanOut():
                return self.fan_out(step, scope, entry)
            case Mapped(source, body):
                whole = self.call(source, scope, entry)
                elements = whole.value if self.decisions is None else whole.value[:1]
                results = []
                for element in elements:
                    part = Output(element, whole.upstream)
                    within = {**scope, source.name: part}
                    results.append(self.evaluate(body, within, Entry(part, label=source.name)))
                scope["parallel_results"] = scope[key_of(body)] = self.gather(
                    [each.value for each in results], results, ()
                )
                return scope["parallel_results"]
            case Choice(chooser, parts, has_default):
                value = self.call(chooser, scope, entry)
                count = len(parts)
                index = int(value.value.split()[1]) if self.decisions is None else self.decide(count)
                is_default = has_default and index == count - 1
                start = Entry(value, is_alternative=True, is_default=is_default, label=chooser.name)
                return self.evaluate(parts[index], scope, start)

    def gather(self, value: Any, results: Sequence[Output], parts: Sequence[Output]) -> Output:
        names = [each.upstream for each in results]
        return Output(value, None if None in names else frozenset().union(*filter(None, names)), tuple(parts))

    def repeat(self, step: Rounds, scope: Scope, entry: Entry) -> Output:
        first = first_function(step)
        within, start, output = dict(scope), entry, Output(None)
        for number in range(step.times):
            within = dict(scope)
            try:
                output = self.evaluate(step.body, within, start)
            except CollectedError:
                scope.update(within)
                raise
            if not number:
                feeds = self.taken_in_first_round[first]
            start = entry if output.is_silent else replace(entry, rounds=dict.fromkeys(feeds, output))
        scope.update(within)
        return output

    def fan_out(self, step: FanOut, scope: Scope, entry: Entry) -> Output:
        results: list[Output] = []
        before = dict(scope)
        keys = [key_of(branch) for branch in step.branches]
        for branch in step.branches:
            within = dict(before)
            self.collecting += step.is_collect
            try:
                results.append(self.evaluate(branch, within, entry))
            except CollectedError:
                if not step.is_collect:
                    raise
                results.append(Output("failure", None))
            finally:
                self.collecting -= step.is_collect
            scope.update({name: output for name, output in within.items() if before.get(name) is not output})
        names = Counter(name for branch in step.branches for name in visible_names(branch))
        scope.update(dict.fromkeys((name for name, count in names.items() if count > 1), AMBIGUOUS))
        scope.update(zip(keys, results, strict=True))
        values = {key: result.value for key, result in zip(keys, results, strict=True)}
        scope["parallel_results"] = self.gather(values, results, results)
        return scope["parallel_results"]

    def call(self, function: Function, scope: Scope, entry: Entry) -> Output:
        recipient = self.recipient(function, scope)
        arguments = {each.name: self.argument(function, each, recipient, scope, entry) for each in function.parameters}
        self.note_use(function, recipient, arguments, scope, entry)
        values = {name: output.value for name, output in arguments.items()}
        self.calls.append((function.name, values))
        took = self.gather(None, list(arguments.values()), ())
        self.upstream.append((function.name, took.upstream))
        if function.fails if self.decisions is None else self.collecting and self.decide(2):
            raise CollectedError
        output = Output(function.value(values), frozenset({function.name}), is_silent=function.returns_none)
        scope[function.name] = output
        return output

    def recipient(self, function: Function, scope: Scope) -> Parameter | None:
        """Return the parameter that takes the previous output by position, if none takes it by name."""
        skips = False
        for parameter in positional_of(function):
            if parameter.name in scope:
                return None
            if parameter.name not in self.own_providers:
                return None if skips and parameter.has_default else parameter
            skips = True
        return None

    def allows_mapping(self, function: Function) -> bool:
        is_unknown = isinstance(self.inputs, Mapping) and (not self.inputs or self.inputs.keys() - self.names)
        return bool(is_unknown) and not function.is_annotated

    def argument(  # noqa: PLR0911  # one branch for each rule, in their order
        self, function: Function, parameter: Parameter, recipient: Parameter | None, scope: Scope, entry: Entry
    ) -> Output:
        name, previous = parameter.name, entry.previous
        takes_previous = (
            previous is not None
            and not previous.is_silent
            and parameter is recipient
            and not any(previous.includes(scope[each.name]) for each in function.parameters if each.name in scope)
        )
        if (function, name) not in self.missing:
            self.filled.add((function, name))
        if entry.rounds is not None and name in entry.rounds:
            return entry.rounds[name]
        if scope.get(name) is AMBIGUOUS:
            self.is_ambiguous = True
        elif name in scope:
            return scope[name]
        elif takes_previous and not entry.is_alternative:
            return previous  # type: ignore[return-value]  # it takes one
        elif entry.is_first and self.has_value() and parameter is value_parameter(function, self.has_context):
            return Output(self.inputs)
        elif name in self.mapping:
            self.taken_inputs.add(name)
            return Output(self.mapping[name])
        elif name in self.providers:
            return Output(self.providers[name])
        elif takes_previous:
            return previous  # type: ignore[return-value]
        elif parameter.has_default:
            return Output(f"default {name}")
        elif entry.is_first and parameter is self.mapping_parameter(function) and self.allows_mapping(function):
            self.takes_mapping = True
            return Output(self.inputs)
        self.filled.discard((function, name))
        self.missing.add((function, name))
        self.misses_in_collect |= self.collecting > 0
        return Output("missing")

    def has_value(self) -> bool:
        return self.inputs is not NO_INPUT and not isinstance(self.inputs, Mapping)

    def mapping_parameter(self, function: Function) -> Parameter | None:
        positional = [each for each in positional_of(function) if not each.has_default]
        return next((each for each in positional if each.name not in self.providers), None)

    def note_use(
        self,
        function: Function,
        recipient: Parameter | None,
        arguments: Mapping[str, Output],
        scope: Scope,
        entry: Entry,
    ) -> None:
        """Note which parameters take the previous output, and what is to be warned of."""
        previous = entry.previous
        if entry.rounds is not None:
            self.taken_in_first_round[function] = set(entry.rounds)
            if not entry.rounds and positional_of(function):
                self.unused.add((function.name, "round"))
            return
        feeds = {name for name, output in arguments.items() if output is previous}
        if previous is None:
            feeds = {each.name for each in (value_parameter(function, self.has_context),) if each is not None}
        elif not any(map(previous.includes, arguments.values())):
            if (entry.is_alternative or previous.is_silent) and recipient is not None:
                feeds = {recipient.name}
            if entry.is_default and recipient is not None:
                self.unused.add((function.name, entry.label))
            if positional_of(function) and not previous.is_silent and not entry.is_alternative:
                self.unused.add((function.name, entry.label))
        elif recipient is not None and arguments[recipient.name] is previous and recipient.name in self.mapping:
            older = (scope[each.name] for each in function.parameters if each.name in scope)
            if not all(map(previous.includes, older)):
                self.doubtful.add(function.name)
        self.taken_in_first_round[function] = feeds


def positional_of(function: Function) -> list[Parameter]:
    return [each for each in function.parameters if not each.is_keyword_only]


def value_parameter(function: Function, has_context: bool) -> Parameter | None:
    """Return the parameter that a single value goes to."""
    skipped = OWN_PROVIDERS if has_context else {}
    return next((each for each in positional_of(function) if each.name not in skipped), None)


def label_of(step: Step) -> str:
    """Return a step as a warning names it."""
    match step:
        case Function(name) | Named(name):
            return name
        case Chain(parts):
            return label_of(parts[-1])
        case Rounds(body):
            return label_of(body)
        case FanOut(parts):
            return f"[{', '.join(map(key_of, parts))}]"
        case Mapped(_, body):
            return key_of(body)
        case Choice(_, parts):
            return "|".join(dict.fromkeys(map(key_of, parts)))


def imagined_runs(flow: Step, inputs: Any, has_context: bool) -> Iterator[Interpreter]:
    """Yield every run that the alternatives and the failures of collected branches allow."""
    waiting: list[list[int]] = [[]]
    while waiting:
        decisions = waiting.pop()
        run = Interpreter(flow, inputs, has_context, decisions)
        run.evaluate(flow, {}, Entry(is_first=True))
        yield run
        for place in range(len(decisions), len(run.open_decisions)):
            chosen = [*decisions, *[0] * (place - len(decisions))]
            waiting += [[*chosen, other] for other in range(1, run.open_decisions[place])]


# --- the properties -----------------------------------------------------------------------------------------------

INPUTS_OF_RUNS = st.one_of(
    st.just(NO_INPUT),
    st.just("value"),
    st.sets(st.sampled_from(INPUTS)).map(lambda names: {name: f"input {name}" for name in sorted(names)}),
)
_UNUSED = re.compile(
    r"node `(.+?)` (?:is given as default= and )?does not (?:always )?use the output of (.+?)(?: before it)?: "
)
_DOUBTFUL = re.compile(r"parameter `.+?` of node `(.+?)` takes the output of")


@dataclass
class Outcome:
    """What the library did with a flow."""

    error: BaseException | None = None
    output: Any = None
    unused: set[tuple[str, str]] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    spans: list[tuple[str, frozenset[str]]] = field(default_factory=list)


def first_error(error: BaseException) -> BaseException:
    """Return an error, or the first one of a group: several executions of a map may fail."""
    return first_error(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def run_by_library(flow: Node[..., Any], inputs: Any, has_context: bool, is_strict: bool) -> Outcome:
    outcome = Outcome()
    with warnings.catch_warnings(record=True) as caught, CapturedTelemetry() as telemetry:
        warnings.simplefilter("always")
        try:
            outcome.output = plain(
                flow.run(inputs, Context() if has_context else None, extra_inputs="raise" if is_strict else "ignore")
            )
        except* (MissingInputError, UnknownInputError) as group:
            outcome.error = first_error(group)
    for text in (str(each.message) for each in caught):
        if match := _UNUSED.search(text):
            outcome.unused.add((match[1], "round" if match[2] == "the round" else match[2].strip("`")))
        else:
            match = _DOUBTFUL.search(text)
            assert match is not None, text
            outcome.doubtful.add(match[1])
    for span in telemetry.spans:
        attributes = span.attributes or {}
        if conventions.NODE_TYPE in attributes:
            names: Any = attributes.get(conventions.NODE_UPSTREAM, ())
            outcome.spans.append((str(attributes[conventions.NODE_NAME]), frozenset(names)))
    return outcome


def unknown_inputs(real: Interpreter, possible: Sequence[Interpreter]) -> set[str]:
    if any(run.takes_mapping for run in possible):
        return set()
    return set(real.mapping).difference(*(run.taken_inputs for run in possible))


def check_error(
    outcome: Outcome, ran: bool, real: Interpreter, possible: Sequence[Interpreter], is_strict: bool
) -> None:
    """The interpreter has the same problem, and nodes ran only if it depends on the run."""
    missing = set().union(*(run.missing for run in possible)) - set().union(*(run.filled for run in possible))
    is_ambiguous = any(run.is_ambiguous for run in possible)
    unknown = unknown_inputs(real, possible) if is_strict else set()
    if outcome.error is None:
        assert not missing
        assert not unknown
        assert not real.missing or real.misses_in_collect
    elif isinstance(outcome.error, UnknownInputError):
        assert not ran
        assert set(outcome.error.inputs) == unknown
    elif ran:
        assert not missing
        assert not unknown
        assert real.missing
    else:
        assert missing or is_ambiguous


@pytest.mark.timeout(900)
@given(flows(), INPUTS_OF_RUNS, st.booleans(), st.booleans())
def test_the_library_binds_arguments_as_the_interpreter_does(
    flow: Chain, inputs: Any, has_context: bool, is_strict: bool
) -> None:
    """The output, executions, upstream, warnings and errors of a run are those of the documents."""
    if isinstance(inputs, str) and value_parameter(first_function(flow), has_context) is None:
        inputs = NO_INPUT  # a value that no parameter takes is a ConfigurationError
    real = Interpreter(flow, inputs, has_context)
    output = real.evaluate(flow, {}, Entry(is_first=True))
    possible = [*islice(imagined_runs(flow, inputs, has_context), MOST_PATHS)]
    assume(len(possible) < MOST_PATHS)
    recorder = Recorder()
    try:
        composed = recorder.flow(flow)
    except CompositionError:
        reject()
    outcome = run_by_library(composed, inputs, has_context, is_strict)
    note(f"{composed}\n{flow}\ninputs: {inputs}, context: {has_context}\n{outcome}\n{recorder.calls}\n{real}")
    check_error(outcome, bool(recorder.calls), real, possible, is_strict)
    if outcome.error is not None or real.misses_in_collect:
        event(f"{type(outcome.error).__name__}{' in a run' if recorder.calls else ''}")
        return
    event("output")
    assert outcome.output == plain(output.value)
    if any(isinstance(step, FanOut | Mapped) for step in steps_of(flow)):
        assert sorted(map(repr, recorder.calls)) == sorted(map(repr, real.calls))
    else:
        assert recorder.calls == real.calls
    unused, doubtful = (set().union(*(getattr(run, name) for run in possible)) for name in ("unused", "doubtful"))
    assert outcome.unused <= unused
    assert {name for name, _ in real.unused} <= {name for name, _ in outcome.unused}
    assert real.doubtful <= outcome.doubtful | {name for name, _ in outcome.unused}
    assert outcome.doubtful <= doubtful
    if all(names is not None for _, names in real.upstream):
        assert Counter(outcome.spans) == Counter(real.upstream)
