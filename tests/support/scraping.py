"""A real Prometheus for the tests, and the tool that comes with it; Debian's package ``prometheus`` has both."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from tests.support.receivers import free_ports, wait_until

__all__ = ["Prometheus", "needs_prometheus", "promtool"]

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("prometheus")), reason="there is no prometheus on PATH"
)


def promtool(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run the tool, which must be content, and return what it says."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=50, cwd=cwd
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Prometheus:
    """Scrapes targets every half second, and answers queries.

    Args:
        folder: Where its configuration and its data are.
        targets: ``host:port`` by job.
        rules: What a rule file says.
    """

    def __init__(self, folder: Path, targets: dict[str, str], rules: dict[str, Any] | None = None) -> None:
        self._folder = folder
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        (folder / "rules.yaml").write_text(json.dumps(rules or {"groups": []}), encoding="utf-8")
        jobs = [
            {"job_name": job, "honor_labels": True, "static_configs": [{"targets": [target]}]}
            for job, target in targets.items()
        ]
        every = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        configuration = {"global": every, "rule_files": ["rules.yaml"], "scrape_configs": jobs}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression gives now."""
        found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return found

    def exemplars(self, expression: str) -> list[dict[str, Any]]:
        """Return the exemplars of the series in an expression."""
        found: list[dict[str, Any]] = self._get("query_exemplars", query=expression, start="0", end="9999999999")
        return found

    def _get(self, what: str, **parameters: str) -> Any:
        with urlopen(f"http://{self.address}/api/v1/{what}?{urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def __enter__(self) -> Self:
        command = [
            "prometheus", "--config.file=prometheus.yaml", f"--web.listen-address={self.address}",
            "--storage.tsdb.path=data", "--enable-feature=exemplar-storage", "--log.level=warn",
        ]  # fmt: skip
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        try:
            wait_until(self._is_ready, "prometheus")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
