"""Where metrics are is told apart, and reading them leaves the program as it was."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from aetherflow.analysis.prometheus_api import PrometheusSource
from aetherflow.cli.sources import missing, source, without_collections


def test_paths_and_servers_are_told_apart(tmp_path: Path) -> None:
    """What begins as an address does is a server; all else is a path, which may be missing."""
    server, there, gone = source("http://h:9/"), source(str(tmp_path)), source("http:/h")
    assert isinstance(server, PrometheusSource)
    assert server.url == "http://h:9"
    assert missing([server, there, gone]) == [Path("http:/h")]


@pytest.mark.parametrize("enabled", [True, False])
def test_collections_are_held_off_and_no_longer(enabled: bool) -> None:
    """Collections are off meanwhile, and afterwards as they were, also after an error."""
    seen: list[bool] = []

    @without_collections()
    def fail() -> None:
        seen.append(gc.isenabled())
        raise LookupError

    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(LookupError):
            fail()
        assert (seen, gc.isenabled()) == ([False], enabled)
    finally:
        gc.enable()
