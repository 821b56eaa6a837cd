"""Selection and order of the tests, and what every test gets: a fresh process state and reproducible examples."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import sys
import tomllib
import unittest
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from opentelemetry import _logs, context, metrics, propagate, trace
from opentelemetry.util._once import Once
from packaging.requirements import Requirement

from aetherflow import config
from aetherflow.telemetry import active
from aetherflow.telemetry.setup import configuring as setup

ROOT = Path(__file__).resolve().parent.parent

# The interpreters that tests start share compiled modules, whatever the shell says: otherwise each of them would spend
# more time on compiling the package than on what is tested.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A crash of such an interpreter leaves a trace on its stderr, which the failing test shows.
os.environ["PYTHONFAULTHANDLER"] = "1"
# A shell starts a job in the background with SIGINT ignored, which would pass on to the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Deadlines are timing asserts, and a busy machine makes examples slow to draw: neither says anything about the code.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Tests run in a folder of their own, so that the database needs an absolute place to find failures again.
settings.register_profile("dev", _COMMON, database=DirectoryBasedExampleDatabase(ROOT / ".hypothesis" / "examples"))
settings.register_profile("ci", _COMMON, derandomize=True, database=None, print_blob=True)
settings.register_profile("brief", settings.get_profile("ci"), max_examples=30)
settings.register_profile("fast", _COMMON, max_examples=10)
settings.register_profile("thorough", _COMMON, max_examples=2_000, database=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

_OURS = ("OTEL_", "AETHER_")
_FOR_TESTS = "AETHER_TEST_"
"""Variables that tell the tests themselves about the machine, such as a database to use."""


_LEFT_OUT = ("slow", "stress", "browser", "process_heavy", "backend")
"""The markers of tests that run only if asked for; `pytest --markers` describes them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the whole suite."""
    parser.addoption("--all", action="store_true", help=f"run also the tests marked {', '.join(_LEFT_OUT)}")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to run the whole suite without the packages that it needs, instead of skipping their tests."""
    if config.option.all and not hasattr(config, "workerinput") and (missing := _missing_packages()):
        raise pytest.UsageError(f"--all needs the extra 'dev' (pip install -e '.[dev]'): {', '.join(missing)}")


def _missing_packages() -> list[str]:
    """Return the requirements of the extra `dev` that are not installed here, of those that belong here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pending, requirements = ["dev"], []
    while pending:
        for requirement in map(Requirement, project["optional-dependencies"][pending.pop()]):
            if requirement.name == project["name"]:
                pending += requirement.extras
            else:
                requirements.append(requirement)
    return [
        str(requirement)
        for requirement in requirements
        if (requirement.marker is None or requirement.marker.evaluate()) and not _is_installed(requirement)
    ]


def _is_installed(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Return one worker more than there are cores, since tests wait a third of their time; None for xdist's own."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else (os.cpu_count() or 1) + 1


def pytest_sessionstart(session: pytest.Session) -> None:
    """Print how to repeat this order, since quiet output lacks pytest-randomly's header, and what is left out."""
    config = session.config
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if hasattr(config, "workerinput") or terminal is None or config.option.verbose >= 0:
        return
    seed = getattr(config.option, "randomly_seed", None)
    order = "as written" if seed is None else f"random; to repeat it: pytest -p randomly --randomly-seed={seed}"
    terminal.write_line(f"order: {order}")
    if not (config.option.all or config.option.markexpr):
        terminal.write_line(f"left out: tests marked {', '.join(_LEFT_OUT)}; --all runs them")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse unfit tests, then deselect those that run only if asked for: by `--all`, by `-m` or by their own id."""
    _refuse_silent(items)
    _refuse_addresses(items)
    if config.option.all or config.option.markexpr:
        return
    kept, left_out = [], []
    for item in items:
        optional = any(item.get_closest_marker(marker) for marker in _LEFT_OUT)
        (left_out if optional and not _is_named(item, config) else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def _is_named(item: pytest.Item, config: pytest.Config) -> bool:
    """Return whether an argument of pytest is the id of the test, of all its cases, or of its class."""
    for argument in config.args:
        file, separator, name = argument.partition("::")
        if separator and (config.invocation_params.dir / file).resolve() == item.path:
            test = item.nodeid.partition("::")[2]
            if test == name or test.startswith((f"{name}[", f"{name}::")):
                return True
    return False


def _refuse_silent(items: Sequence[pytest.Item]) -> None:
    """Refuse a test that does not state its promise; a hypothesis state machine states it in its class."""
    silent = [
        item.nodeid
        for item in items
        if isinstance(item, pytest.Function)
        and not item.function.__doc__
        and not (item.cls and issubclass(item.cls, unittest.TestCase))
    ]
    if silent:
        raise pytest.UsageError("tests without a docstring that states their promise: " + ", ".join(silent))


def _refuse_addresses(items: Sequence[pytest.Item]) -> None:
    """Refuse an id that differs from process to process: pytest-xdist could not hand the test out."""
    ids = [item.nodeid for item in items if re.search(r"\b0x[0-9a-f]{6,}", item.nodeid)]
    if ids:
        raise pytest.UsageError("ids of tests that contain an address in memory: " + ", ".join(ids))


def pytest_collection_finish() -> None:
    """Exempt what collection created from garbage collection: full collections were half of the suite's CPU time."""
    _freeze_heap()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Exempt what is left after the last test of a module too, so that collections that tests ask for stay short."""
    if nextitem is None or nextitem.path != item.path:
        _freeze_heap()


def _freeze_heap() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


@pytest.fixture
def _empty_folder(request: pytest.FixtureRequest, _shared_folder: Path) -> Iterator[Path]:
    """The test's own folder if it asks for one; else a shared one that is emptied again, since creating costs more."""
    if "tmp_path" in request.fixturenames:
        yield request.getfixturevalue("tmp_path")
        return
    yield _shared_folder
    for left in _shared_folder.iterdir():
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


@pytest.fixture(autouse=True)
def _fresh_process(_empty_folder: Path) -> Iterator[None]:
    """Run the test without global providers, a current span or settings, in an empty folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(_OURS) and not name.startswith(_FOR_TESTS):
                patch.delenv(name)
        patch.chdir(_empty_folder)
        _forget_providers(patch)
        # The default settings become ordinary ones once anything reads them, be it pytest while it collects.
        object.__setattr__(config.perf_config, "__class__", config._ReadOnFirstUse)
        token = context.attach(context.Context())
        yield
        context.detach(token)
        if setup._state.current is not None:
            setup._state.current.shutdown()
        active.set_active(None)
        active.set_profiling(None)


def _forget_providers(patch: pytest.MonkeyPatch) -> None:
    """Put OpenTelemetry's API back to where no provider was ever set; it has no public way to."""
    patch.setattr(propagate, "_HTTP_TEXT_FORMAT", propagate._HTTP_TEXT_FORMAT)  # back again after the test
    for api, kind, proxy in (
        (trace, "TRACER", trace.ProxyTracerProvider),
        (metrics._internal, "METER", metrics._internal._ProxyMeterProvider),
        (_logs._internal, "LOGGER", _logs._internal.ProxyLoggerProvider),
    ):
        patch.setattr(api, f"_{kind}_PROVIDER", None)
        patch.setattr(api, f"_{kind}_PROVIDER_SET_ONCE", Once())
        patch.setattr(api, f"_PROXY_{kind}_PROVIDER", proxy())
