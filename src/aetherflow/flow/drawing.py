"""Flows as text and as pictures."""

from __future__ import annotations

from aetherflow.engine.graph import Branch, Call, Chain, FanOut, Map, Repeat, Step, Sub

__all__ = ["to_dot", "to_mermaid", "to_mimebundle", "to_text"]


def to_text(step: Step) -> str:
    """Return a step as one line, in the operators that compose it."""
    match step:
        case Call(task):
            return task.name
        case Sub(name):
            return name
        case Chain(steps):
            return " >> ".join(map(to_text, steps))
        case FanOut(branches):
            return f"[{', '.join(map(to_text, branches))}]"
        case Map(body, workers, _, keyed):
            return f"[{to_text(body)}] * {workers}" if keyed else f"map({to_text(body)})"
        case Branch(choices, default):
            cases = [f"{key!r}: {to_text(choice)}" for key, choice in choices.items()]
            if default is not None:
                cases.append(f"default: {to_text(default)}")
            return "{" + ", ".join(cases) + "}"
        case Repeat(body, times):
            return f"repeat({to_text(body)}, {times})"


def to_mermaid(name: str, step: Step) -> str:
    raise NotImplementedError


def to_dot(name: str, step: Step) -> str:
    raise NotImplementedError


def to_mimebundle(name: str, step: Step) -> dict[str, str]:
    raise NotImplementedError
