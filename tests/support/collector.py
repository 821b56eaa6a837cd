"""The collector of otel-collector.yaml, built from its modules at their pinned versions; run this to build it.

It is kept in the user's cache directory, by what it was built from. Building takes minutes: tests build nothing, they
take it from there or are skipped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.request import Request, urlopen

import yaml

ROOT: Final = Path(__file__).resolve().parent.parent.parent
BUILDER: Final = ROOT / "deploy" / "collector" / "builder.yaml"
CONFIGURATION: Final = ROOT / "otel-collector.yaml"


def built_path() -> Path:
    """Where the collector is, or would be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "aetherflow-otel" / f"collector-{hashlib.sha256(BUILDER.read_bytes()).hexdigest()[:16]}"


def why_missing() -> str:
    """Tell why there is no collector; empty where there is one."""
    if built_path().exists():
        return ""
    return "there is no collector: nox -s collector builds it" if shutil.which("go") else "there is no Go on PATH"


def build() -> Path:
    """Build the collector, unless that was done before."""
    target = built_path()
    if target.exists():
        return target
    builder = yaml.safe_load(BUILDER.read_text("utf-8"))
    work = target.with_name(f"{target.name}-{os.getpid()}")
    work.mkdir(parents=True)
    try:
        builder["dist"]["output_path"] = str(work / "dist")
        (work / "builder.yaml").write_text(yaml.safe_dump(builder), encoding="utf-8")
        tool = f"go.opentelemetry.io/collector/cmd/builder@v{builder['dist']['version']}"
        # one package at a time, unless told otherwise, and politely: others may need the machine
        environment = {"GOFLAGS": "-p=1", **os.environ, "CGO_ENABLED": "0"}
        command = ["nice", "-n", "15", "go", "run", tool, "--config", str(work / "builder.yaml")]
        subprocess.run(command, cwd=work, env=environment, check=True, stdin=subprocess.DEVNULL)
        (work / "dist" / builder["dist"]["name"]).replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


@dataclass(frozen=True)
class Collector:
    """A collector that runs: where it listens, and the file that it writes."""

    grpc: str
    http: str
    prometheus: str
    file: Path

    def metrics(self) -> str:
        """What Prometheus would scrape."""
        request = Request(f"http://{self.prometheus}/metrics", headers={"Accept": "application/openmetrics-text"})
        with urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())


@contextmanager
def collector(folder: Path, **variables: str) -> Iterator[Collector]:
    """Run the collector on ports of its own, with these variables."""
    from tests.support.receivers import free_ports, wait_until

    grpc, http, prometheus, own, health = map(str, free_ports(5))
    ports = {
        "OTLP_GRPC_PORT": grpc,
        "OTLP_HTTP_PORT": http,
        "PROMETHEUS_PORT": prometheus,
        "OWN_METRICS_PORT": own,
        "HEALTH_PORT": health,
    }
    file = folder / "collected" / "telemetry.jsonl"
    fast = {"DECISION_WAIT": "1s", "SPAN_METRICS_INTERVAL": "1s", "TELEMETRY_FILE": str(file)}
    command = [str(built_path()), "--config", str(CONFIGURATION)]
    with (folder / "collector.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **ports, **fast, **variables}, stdout=log, stderr=log
        )

    def is_up() -> bool:
        assert process.poll() is None, (folder / "collector.log").read_text("utf-8")
        try:
            with urlopen(f"http://127.0.0.1:{health}/", timeout=5):
                return True
        except OSError:
            return False

    try:
        wait_until(is_up, "the collector")
        host = "127.0.0.1"
        yield Collector(f"http://{host}:{grpc}", f"http://{host}:{http}", f"{host}:{prometheus}", file)
    finally:
        process.terminate()
        process.wait(timeout=20)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped before it was built"))  # and leaves nothing behind
    print(build())
