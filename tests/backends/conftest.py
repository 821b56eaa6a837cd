"""Executors to test: one suite over all of them."""

from __future__ import annotations

import pytest

REMOTE = ["process"]


@pytest.fixture(params=["thread", *REMOTE])
def executor(request: pytest.FixtureRequest) -> str:
    """Every executor."""
    return request.param


@pytest.fixture(params=REMOTE)
def remote(request: pytest.FixtureRequest) -> str:
    """Every executor whose workers are other processes."""
    return request.param
