"""Worker processes from their first to their last moment, seen from outside: each test runs a program of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tests.backends import samples
from tests.backends.samples import given, numbers, twice

pytestmark = pytest.mark.process_heavy

NODES = """
    import os, pathlib, signal, sys, time
    from aetherflow.flow.decorating import node

    @node
    def count(n=4):
        return list(range(n))

    @node
    def double(x):
        return 2 * x

    @node
    def pid(x):
        return os.getpid()

    @node
    def hangs(x):
        pathlib.Path(f"busy-{os.getpid()}").touch()
        time.sleep(600)
"""

ROOT = Path(__file__).resolve().parents[2]


def start(source: str, *, nodes: str = NODES) -> subprocess.Popen[str]:
    """Start a program in the current folder."""
    Path("program.py").write_text(textwrap.dedent(nodes) + textwrap.dedent(source))
    return subprocess.Popen(
        [sys.executable, "-W", "error", "program.py"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT / "src", ROOT]))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(program: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what a program has printed and what it complained of, when it has ended."""
    with program:
        return program.communicate(timeout=50)


def wait_until(condition) -> None:
    """Wait until something is true; the timeout of the test bounds it."""
    while not condition():
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text() if Path(f"/proc/{pid}").exists() else False


def has_ended(child: int) -> bool:
    """Tell whether a child has ended with all its threads; it is left for its parent to be told of."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def busy_workers() -> list[int]:
    return [int(path.name.removeprefix("busy-")) for path in Path().glob("busy-*")]


def test_nodes_of_a_script():
    """Nodes defined in the script that is run work, and the program leaves without complaint."""
    program = start(
        """
        if __name__ == "__main__":
            print(count.map(double, executor="process").run())
        """
    )
    assert finish(program) == ("[0, 2, 4, 6]\n", "")


def test_a_script_that_runs_flows_when_imported():
    """The error tells that `if __name__ == '__main__':` is missing."""
    _, complaint = finish(start("count.map(double, executor='process').run({'n': 1})"))
    assert complaint.splitlines()[-1] == "aetherflow: raised by node 'double' of flow 'count'"
    assert "WorkerLostError: node 'double': its process worker was lost" in complaint
    assert "if __name__ == '__main__':" in complaint


def test_nodes_that_exist_interactively_only():
    """A node typed into an interpreter cannot be imported by a worker, and the error says so."""
    source = textwrap.dedent(NODES) + "\ncount.map(double, executor='process').run()"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert "NotImportableError: node 'double' cannot run on a worker" in done.stderr
    assert "it is defined interactively; define it in a module" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent(number):
    """However a program is ended while its workers are busy, they end too."""
    program = start(
        """
        if __name__ == "__main__":
            count.map(hangs, executor="process").run({"n": 2})
        """
    )
    wait_until(lambda: len(busy_workers()) == 2)
    program.send_signal(number)
    finish(program)
    assert program.returncode == -number
    wait_until(lambda: not any(map(is_alive, busy_workers())))


def test_ctrl_c_at_a_terminal():
    """An interruption that reaches the whole process group is the parent's alone: no worker complains of it."""
    source = """
        if __name__ == "__main__":
            os.setsid()
            try:
                count.map(hangs, executor="process").run({"n": 2})
            except KeyboardInterrupt:
                print("interrupted")
    """
    program = start(source)
    wait_until(lambda: len(busy_workers()) == 2)
    os.killpg(program.pid, signal.SIGINT)
    assert finish(program) == ("interrupted\n", "")
    wait_until(lambda: not any(map(is_alive, busy_workers())))


def test_leaving_does_not_wait_for_abandoned_work():
    """A program whose run was cancelled leaves, though a worker is still at it."""
    program = start(
        """
        import asyncio

        async def main():
            running = asyncio.create_task(count.map(hangs, executor="process").arun({"n": 1}))
            while not list(pathlib.Path().glob("busy-*")):
                await asyncio.sleep(0.01)
            running.cancel()

        if __name__ == "__main__":
            asyncio.run(main())
            print("left")
        """
    )
    assert finish(program) == ("left\n", "")
    wait_until(lambda: not any(map(is_alive, busy_workers())))


def test_contexts_are_closed_with_their_worker(tmp_path):
    """What a worker's context has opened is shut down when the program leaves."""
    program = start(
        f"""
        from tests.backends.samples import Sample, uses_resource

        if __name__ == "__main__":
            ctx = Sample()
            ctx.config.from_dict({{"folder": {str(tmp_path)!r}}})
            with ctx:
                ((_, worker),) = count.map(uses_resource, executor="process").run({{"n": 1}}, ctx)
                print(worker)
        """
    )
    worker, complaint = finish(program)
    assert complaint == ""
    assert (tmp_path / f"closed-{worker.strip()}").exists()


def test_a_forked_child_has_workers_of_its_own():
    """After a fork the child starts a pool anew, and the parent's goes on."""
    program = start(
        """
        from tests.support.forking import fork

        if __name__ == "__main__":
            flow = count.map(pid, executor="process")
            before = set(flow.run({"n": 1}))
            if (child := fork()) == 0:
                mine = set(flow.run({"n": 1}))
                print("child", mine.isdisjoint(before), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            print("parent", set(flow.run({"n": 1})) == before)
        """
    )
    assert finish(program) == ("child True\nparent True\n", "")


def test_a_forked_child_does_not_count_the_workers_of_its_parent():
    """What a child says of its workers is of its own alone: an inherited pool counts nothing."""
    program = start(
        """
        if __name__ == "__main__":
            from aetherflow.engine.backends.base import backend
            from tests.support.forking import fork

            count.map(pid, executor="process").run({"n": 1})
            pool = backend("process")
            if (child := fork()) == 0:
                print("child", pool.load(), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            print("parent", pool.load()[0] > 0)
        """
    )
    assert finish(program) == ("child (0, 0)\nparent True\n", "")


def test_a_worker_with_a_provider_of_its_own():
    """Where the application gives workers a provider, spans are emitted there, with real ids in the same trace."""
    program = start(
        """
        import json, multiprocessing
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

        class Print(SpanExporter):
            def export(self, spans):
                for span in spans:
                    ids = [span.context.trace_id, span.context.span_id, span.parent.span_id if span.parent else None]
                    links = [link.context.span_id for link in span.links]
                    sys.stdout.write(json.dumps([span.name, os.getpid(), *ids, links]) + "\\n")
                    sys.stdout.flush()
                return SpanExportResult.SUCCESS

        @node
        def gather(parallel_results):
            with trace.get_tracer("mine").start_as_current_span("inside"):
                return double(sum(parallel_results))

        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(Print()))
        trace.set_tracer_provider(provider)

        if __name__ == "__main__":
            flow = count.map(double, executor="process").then(node(executor="process", name="gather")(gather.func))
            assert flow.run({"n": 1}) == 0
        """
    )
    output, complaint = finish(program)
    assert complaint == ""
    spans = {name: rest for name, *rest in map(json.loads, output.splitlines()) if name != "double"}
    doubles = [rest for name, *rest in map(json.loads, output.splitlines()) if name == "double"]
    worker, trace_id, gather_id, above, links = spans["gather"]
    assert worker != spans["run count"][0]
    assert above == spans["submit gather"][2]
    assert spans["inside"][3] == gather_id
    assert links == [doubles[0][2]]
    assert [double[3] for double in doubles] == [spans["submit double"][2], spans["inside"][2]]
    assert {trace_id, *(rest[1] for rest in [*spans.values(), *doubles])} == {trace_id}


def test_a_new_pool_after_a_worker_was_lost_while_idle():
    """A worker that is killed while nothing runs is not noticed by the next run."""
    (worker,) = set(given.map(samples.where, executor="process").run({"value": [1]})[0][:1])
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: has_ended(worker))
    assert numbers.map(twice, executor="process").run({"count": 2}) == [0, 2]
