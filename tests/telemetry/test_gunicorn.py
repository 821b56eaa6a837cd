"""A gunicorn server whose workers are forked, killed and restarted: every request is counted once."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.receivers import HttpReceiver, free_ports, wait_until

pytestmark = pytest.mark.process_heavy

pytest.importorskip("gunicorn", reason="gunicorn runs where there is fork")

WORKERS = 4

APPLICATION = """
import os
from aetherflow import configure, node

telemetry = configure("served")

@node
def answer(path):
    return f"{os.getpid()}"

def application(environ, start_response):
    said = answer.run({"path": environ["PATH_INFO"]})
    if environ["PATH_INFO"] == "/flushed":
        assert telemetry.force_flush()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [said.encode()]
"""


class Server:
    """A running server.

    Args:
        process: Its master process.
        port: Where it listens.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self._port = port
        self.answered: Counter[int] = Counter()
        """Requests that were answered, by the process that did."""

    def get(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200
            worker = int(answer.read())
        finally:
            connection.close()
        self.answered[worker] += 1
        return worker

    def is_up(self) -> bool:
        assert self.process.poll() is None
        try:
            self.get("/flushed")
        except OSError:
            return False
        return True

    def get_from_all(self, path: str) -> set[int]:
        """Make requests until each worker has answered two."""
        seen: Counter[int] = Counter()

        def enough() -> bool:
            seen[self.get(path)] += 1
            return len(seen) == WORKERS and min(seen.values()) > 1

        wait_until(enough, f"answers of {WORKERS} workers")
        return set(seen)


@contextmanager
def serving(folder: Path, *options: str, **environment: str):
    (folder / "served.py").write_text(APPLICATION)
    (port,) = free_ports(1)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-W", "ignore", "-m", "gunicorn", "-w", str(WORKERS), "-b", f"127.0.0.1:{port}"]
    with (folder / "gunicorn.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--graceful-timeout", "10", *options, "served:application"],
            cwd=folder, env=inherited | environment, stdout=log, stderr=log,
        )  # fmt: skip
    server = Server(process, port)
    try:
        wait_until(server.is_up, "gunicorn to listen")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def kill_and_restart(server: Server) -> None:
    """Serve, lose a worker, have all workers restarted, serve, and stop."""
    first = server.get_from_all("/flushed")
    victim = min(first)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not alive(victim), "a worker to be gone")
    second = server.get_from_all("/")
    assert second - first, "nobody has taken the place of the worker that was killed"
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not any(map(alive, second)), "the workers to be restarted", timeout=30)
    third = server.get_from_all("/")
    assert not third & second


@pytest.mark.parametrize("options", [("--preload",), ()], ids=["configured before the fork", "configured by each"])
def test_every_request_arrives_once(tmp_path, options):
    """At an OTLP receiver: a worker that is killed has flushed each request, the others export as they stop."""
    with HttpReceiver() as receiver:
        with serving(tmp_path, *options, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint) as server:
            kill_and_restart(server)
        spans = receiver.spans
        counts = [point.count for (point,) in receiver.last_points("aetherflow.node.duration").values()]
    assert [span.name for span in spans] == ["answer"] * server.answered.total()
    assert len({span.span_id for span in spans}) == len(spans)
    assert sorted(counts) == sorted(server.answered.values())


def test_every_request_is_in_a_file_once(tmp_path):
    """In files the same holds, one a worker, each with what that worker has answered."""
    with serving(tmp_path, "--preload") as server:
        kill_and_restart(server)
    for worker, answered in server.answered.items():
        (traces,) = tmp_path.glob(f".aetherflow/traces-*-{worker}.jsonl")
        assert traces.read_text().count('"name":"answer"') == answered
        (measures,) = tmp_path.glob(f".aetherflow/metrics-*-{worker}.jsonl")
        (resource,) = json.loads(measures.read_text().splitlines()[-1])["resourceMetrics"]
        metrics = {metric["name"]: metric for scope in resource["scopeMetrics"] for metric in scope["metrics"]}
        (point,) = metrics["aetherflow.node.duration"]["exponentialHistogram"]["dataPoints"]
        assert int(point["count"]) == answered
    assert len(list(tmp_path.glob(".aetherflow/traces-*"))) == len(server.answered)
