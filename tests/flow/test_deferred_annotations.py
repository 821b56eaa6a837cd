"""Functions whose annotations have names that only type checkers import, without `from __future__ import annotations`.

Python 3.14 and later evaluate such annotations when they are first read, and fail; before, the module itself fails.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from aetherflow import BatchPolicy, CachePolicy, Node, node
from aetherflow.cli.main import main

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated with the definition")

SOURCE = """
def plain(n: Missing) -> Missing:
    return n + 1

async def coroutine(n: Missing) -> Missing:
    return n + 1

def variadic(n: Missing, *rest: Missing) -> Missing:
    return n + 1

def batch(items: list[Missing]) -> list[Missing]:
    return [item + 1 for item in items]

class Adder:
    def method(self, n: Missing) -> Missing:
        return n + 1
"""


def defined() -> dict[str, Any]:
    """Return the functions, compiled without this module's future import."""
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(compile(SOURCE, __file__, "exec", dont_inherit=True), namespace)
    return namespace


KINDS: dict[str, Callable[[dict[str, Any]], Node[..., Any]]] = {
    "function": lambda found: node(found["plain"]),
    "coroutine function": lambda found: node(found["coroutine"]),
    "variadic function": lambda found: node(found["variadic"]),
    "method": lambda found: node(found["Adder"]().method),
    "cached": lambda found: node(found["plain"], cache=CachePolicy(maxsize=2)),
    "batched": lambda found: node(found["batch"], batch=BatchPolicy(size=1)),
    "flow": lambda found: (node(found["plain"]) >> node(lambda n: n, name="same")).named("flow"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_is_not_defined_is_no_obstacle(kind: str) -> None:
    """A node of every kind runs, and can be called with a positional or a named argument."""
    step = KINDS[kind](defined())
    parameter = "items" if kind == "batched" else "n"
    assert step.run({parameter: 1}) == 2
    assert asyncio.run(step.arun({parameter: 1})) == 2
    calls = [step(1), step(**{parameter: 1})] if kind != "coroutine function" else []
    assert calls in ([2, 2], [])


def test_a_function_is_served(tmp_path, monkeypatch, capsys) -> None:
    """`aetherflow serve` reads the signature of a function, and refuses only one that needs arguments."""
    (tmp_path / "deferred_program.py").write_text("def main(n: Missing): ...\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(SystemExit) as exit_code:
        sys.exit(main(["serve", "deferred_program:main"]))
    assert exit_code.value.code == 2
    assert "missing a required argument: 'n'" in " ".join(capsys.readouterr().err.split())
    sys.modules.pop("deferred_program", None)
