"""The isolation that every other test relies on; two tests in any order, each leaving behind what the other refuses."""

from __future__ import annotations

import os
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
