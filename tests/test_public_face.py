"""What `import aetherflow` gives, and what it must not do."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import aetherflow


def ruff_order(name: str) -> tuple[int, str]:
    """Return the key by which ruff sorts `__all__`: constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


def public_callables() -> Iterator[tuple[str, object]]:
    """Every callable of the face, and every public method and property of its classes."""
    for name in aetherflow.__all__:
        value = getattr(aetherflow, name)
        if callable(value):
            yield name, value
        if inspect.isclass(value):
            for member_name, member in vars(value).items():
                is_code = callable(member) or isinstance(member, property | classmethod | staticmethod)
                if is_code and not member_name.startswith("_") and not inspect.isclass(member):
                    yield f"{name}.{member_name}", getattr(value, member_name)


def test_names_are_sorted_and_there() -> None:
    """`__all__` is sorted, has no name twice, and every name in it can be imported."""
    assert aetherflow.__all__ == sorted(set(aetherflow.__all__), key=ruff_order)
    assert not [name for name in aetherflow.__all__ if not hasattr(aetherflow, name)]


def test_nothing_public_is_undeclared() -> None:
    """What the face defines or imports under a public name stands in `__all__`; rooms and modules aside."""
    present = {
        name
        for name, value in vars(aetherflow).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert present <= set(aetherflow.__all__)


def test_every_public_callable_is_documented() -> None:
    """Whoever asks for help on a public function, class or method gets some."""
    assert not [name for name, value in public_callables() if not inspect.getdoc(value)]


def test_classes_speak_for_themselves() -> None:
    """A public class has a docstring of its own, not that of its base."""
    classes = [value for name in aetherflow.__all__ if inspect.isclass(value := getattr(aetherflow, name))]
    assert not [value.__name__ for value in classes if not vars(value).get("__doc__")]


def test_the_promised_names() -> None:
    """The names that the guide's listings start from are on the face."""
    from aetherflow import (  # noqa: F401
        BaseFlowContext,
        Node,
        ObjectPool,
        PerformanceConfig,
        PerformanceMonitor,
        configure,
        node,
    )


QUIET = """
import sys, threading, warnings
warnings.simplefilter("error")
# Where these are installed, dependency-injector imports them, whoever asks.
sys.modules |= dict.fromkeys(("fastapi", "starlette"))
heard = []
sys.addaudithook(lambda event, args: heard.append(event) if event.startswith(("socket.", "subprocess.")) else None)
import aetherflow
from opentelemetry import metrics, trace
assert trace._TRACER_PROVIDER is None, "a tracer provider was set"
assert metrics._internal._METER_PROVIDER is None, "a meter provider was set"
assert threading.active_count() == 1, threading.enumerate()
assert not set(heard) - {"socket.gethostname"}, heard
loaded = {name for name, found in sys.modules.items() if found}
foreign = {"distributed", "ray", "starlette", "uvicorn", "grpc"} & loaded
assert not foreign, foreign
"""


def test_importing_is_quiet() -> None:
    """Importing sets no global provider, starts no thread, opens no socket, warns of nothing and loads no extra."""
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr


WITHOUT_EXTRAS = """
import importlib.abc, sys
class Extras(importlib.abc.MetaPathFinder):
    names = {"pydantic", "pydantic_settings", "starlette", "uvicorn", "prometheus_client", "yaml", "fastapi", "otava"}
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Extras())
from aetherflow.cli.main import main
sys.exit(main(["regress", "--config", "regress.toml", "--baseline", ".", "--candidate", "."]))
"""


def test_the_base_install_needs_no_extra() -> None:
    """Package and command line are imported without the packages of any extra; a feature that needs one names it."""
    Path("regress.toml").write_text("limit = 0.2\n")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 2
    assert "reading regress.toml needs pydantic: pip install 'aetherflow-otel[gate]'" in " ".join(done.stderr.split())


@pytest.mark.parametrize("name", ["nowhere", "Nodes"])
def test_no_lazy_magic(name: str) -> None:
    """A name that is not there is an AttributeError at once: the face has no `__getattr__`."""
    assert "__getattr__" not in vars(aetherflow)
    with pytest.raises(AttributeError):
        getattr(aetherflow, name)
