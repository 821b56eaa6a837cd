"""Functions and a context that worker processes import for the tests of argument binding."""

from __future__ import annotations

from dependency_injector import providers
from dependency_injector.wiring import Provide

from aetherflow.resources.context import BaseFlowContext


class Context(BaseFlowContext):
    service = providers.Object("service")


def strip(text):
    return text.strip()


def lower(text):
    return text.lower()


def upper(text):
    return text.upper()


def with_default(text="default"):
    return f"<{text}>"


def by_name(low, strip):
    return f"{low}+{strip}"


def input_behind_name(text, strip):
    return f"{text!r}+{strip}"


def keyword_only(value, *, text):
    return f"{value}+{text!r}"


def passed_over(service, text):
    return f"{service}+{text}"


def built_in(state):
    return f"<{state}>"


def marked(text, service=Provide["service"]):
    return f"{text}+{service}"


def describe(request):
    return " ".join(sorted(request))


def var_keyword(text, **more):
    return f"{text.strip()}+{sorted(more.items())}"


def quiet(text) -> None:
    text.strip()


def count(text, limit=1):
    return f"{text}{limit}"


def join(text):
    return "+".join(f"{key}={text[key]}" for key in sorted(text))


def join_by_key(upper, lower):
    return f"{upper}+{lower}"


def classify(text):
    return "long" if len(text) > 3 else "short"


def handle(text):
    return f"handled {text!r}"


def grow(text):
    return text + "!"


def improve(prompt, strip):
    return f"{strip}+{prompt}"


def split(text):
    return text.split()
