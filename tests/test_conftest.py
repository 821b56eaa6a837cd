"""The isolation that every other test relies on; two tests in any order, each leaving behind what the other refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import context, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from aetherflow.config import perf_config
from aetherflow.telemetry.setup.configuring import configure

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("turn", ["first", "second"])
def test_starts_as_a_fresh_process(turn: str) -> None:
    """No provider, current span, setting or file of one test is seen by the next."""
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    assert not isinstance(metrics.get_meter_provider(), MeterProvider)
    assert not trace.get_current_span().get_span_context().is_valid
    assert "AETHER_MAX_THREADS" not in os.environ
    assert Path.cwd() != ROOT
    assert not list(Path.cwd().iterdir())

    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    assert trace.get_tracer_provider() is provider
    metrics.set_meter_provider(MeterProvider())
    context.attach(trace.set_span_in_context(provider.get_tracer("test").start_span(turn)))
    os.environ["AETHER_MAX_THREADS"] = "3"
    Path("left-behind").touch()


@pytest.mark.parametrize("turn", ["first", "second"])
def test_configuration_does_not_leak(turn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test configures, the next may configure otherwise."""
    monkeypatch.setenv("AETHER_CACHE_SIZE", str(len(turn)))
    assert perf_config.cache_size == len(turn)
    assert configure(turn, "none").tracer_provider is trace.get_tracer_provider()


def run_pytest(folder: Path, source: str, *options: str) -> str:
    """Run a test module with the options of this project, and return all output."""
    (folder / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest"]
    done = subprocess.run(
        [*command, "-q", "-c", ROOT / "pyproject.toml", f"--rootdir={folder}", "test_it.py", *options],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    return done.stdout


@pytest.mark.slow
def test_a_crash_is_located(tmp_path: Path) -> None:
    """After a segmentation fault the output has the order, the test, its worker and the line that crashed."""
    source = 'import faulthandler\n\ndef test_crash():\n    "Crash."\n    faulthandler._sigsegv()\n'
    output = run_pytest(tmp_path, source, "--numprocesses=2", "--randomly-seed=7")
    assert "Segmentation fault" in output
    assert re.search(r'File ".*test_it.py", line 5 in test_crash', output)
    assert re.search(r"worker 'gw\d' crashed while running 'test_it.py::test_crash'", output)


@pytest.mark.slow
def test_a_hang_is_located(tmp_path: Path) -> None:
    """A test that never ends fails after its time limit, with the line at which each thread waits."""
    source = 'import threading\n\ndef test_hang():\n    "Hang."\n    threading.Event().wait()\n'
    output = run_pytest(tmp_path, source, "-o", "timeout=1")
    assert re.search(r"test_it.py:5: $", output, re.MULTILINE)
    assert "Timeout (>1.0s)" in output


def test_quiet_output_begins_with_the_order() -> None:
    """The first lines say how to repeat the order, which quiet output does not otherwise, and what is left out."""
    command = [sys.executable, "-m", "pytest", "-q", ROOT / "tests" / "test_errors.py", "-n0", "-p", "randomly"]
    done = subprocess.run(
        [*command, "--randomly-seed=7", "--collect-only"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=50, check=False,
    )  # fmt: skip
    order, left_out = done.stdout.splitlines()[:2]
    assert order == "order: random; to repeat it: pytest -p randomly --randomly-seed=7"
    assert left_out.startswith("left out: tests marked slow, ")
