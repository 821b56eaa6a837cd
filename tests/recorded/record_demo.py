"""Records what ``demo/`` beside it holds: jobs of the real demo, plain and with one node slowed by a fifth.

Run it with ``python tests/recorded/record_demo.py`` from the root of a checkout. Each job is a process that runs the
demo's own flow over some of the standard library's middling files, and writes its metrics as the file exporter does.
The jobs are recorded in turn: of the baseline, of the same code again, and with a delay in ``imports``. That
node is slowed because its time goes with that of the others here; ``parse``, slowed by a fifth, was ``inconclusive``.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

JOBS = {"baseline": 12, "same": 8, "slower": 8}
RUNS = 60
FILES = 8
DELAY = 0.2


def run_demo(folder: Path, delay: float) -> None:
    """Be one job."""
    from aetherflow.cli import demo_flow
    from aetherflow.cli.demo_source import list_sources
    from aetherflow.telemetry.setup.configuring import configure

    sources = sorted(list_sources(limit=None, tests=False), key=lambda source: source.size)
    third = len(sources) // 3
    demo_flow.list_sources = lambda **_: sources[third : third + FILES]  # type: ignore[attr-defined]
    flow = demo_flow.make_flow(workers=1)  # several would mostly measure how they share the interpreter's lock
    with configure(exporter="none"), demo_flow.DemoContext() as context:
        modules = flow.execute({}, context).outputs["gather"]
    if delay:
        slow_down_imports(modules, delay)
    with configure(exporter="file", service_name="demo", directory=folder), demo_flow.DemoContext() as context:
        for _ in range(RUNS):
            flow.run({}, context)


def slow_down_imports(modules: object, delay: float) -> None:
    """Make the node ``imports`` take longer by a share, by a delay after the larger part of its work."""
    from aetherflow.cli import demo_flow

    components = demo_flow._components
    spent = {"part": 0.0, "whole": 0.0}

    def timed(graph: Any) -> Any:
        began = time.perf_counter()
        found = components(graph)
        spent["part"] += time.perf_counter() - began
        return found

    demo_flow._components = timed
    for _ in range(200):
        began = time.perf_counter()
        demo_flow.imports.func(modules)
        spent["whole"] += time.perf_counter() - began
    share = delay * spent["whole"] / spent["part"]

    def slower(graph: Any) -> Any:
        began = time.perf_counter()
        found = components(graph)
        end = time.perf_counter() + share * (time.perf_counter() - began)
        while time.perf_counter() < end:  # a sleep would be as long as the scheduler likes
            pass
        return found

    demo_flow._components = slower


def record(kind: str, number: int, into: Path) -> None:
    """Record one job."""
    with tempfile.TemporaryDirectory() as folder:
        delay = DELAY if kind == "slower" else 0.0
        env = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        subprocess.run([sys.executable, __file__, folder, str(delay)], check=True, env=env)
        (metrics,) = Path(folder).glob("metrics-*.jsonl")
        target = into / kind / f"{number}.jsonl.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(metrics.read_bytes(), mtime=0))


def main() -> None:
    """Record all jobs, one kind after the other, again and again."""
    into = Path(__file__).parent / "demo"
    for number in range(max(JOBS.values())):
        for kind, wanted in JOBS.items():
            if number < wanted:
                record(kind, number + 1, into)
                print(kind, number + 1, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_demo(Path(sys.argv[1]), float(sys.argv[2]))
    else:
        main()
