"""``aetherflow serve`` keeps something running and tells how it does, until it is told to end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.program import code_of, run, start
from tests.serving.asking import ask
from tests.support.receivers import wait_until

FLOW = """
from aetherflow import node

@node
def greet(name):
    if name == "nobody":
        raise LookupError("nobody is there")
    return f"Hello, {name}."

@node
def letters(text):
    yield from text
"""
PROGRAM = """
import threading
from pathlib import Path
from aetherflow import HealthMonitor

monitor = HealthMonitor()
monitor.add_check("told", lambda: "error", views=["live"])

def main():
    try:
        Path("started").touch()
        threading.Event().wait()
    finally:
        Path("ended").touch()

async def amain():
    import asyncio
    try:
        Path("started").touch()
        await asyncio.Event().wait()
    finally:
        Path("ended").touch()

def short():
    print("done")

def failing():
    raise LookupError("nobody is there")

def greedy(argument):
    pass

class Thing:
    pass
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "flows.py").write_text(FLOW, "utf-8")
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    sys.path_importer_cache.pop(str(tmp_path), None)
    yield
    for name in ("flows", "program"):
        sys.modules.pop(name, None)


@contextmanager
def serving(*arguments: str, env: dict[str, str] | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve on a free port; give the URL, and the process, which is gone afterwards."""
    with start("serve", *arguments, "--port", "0", env=env) as process:
        assert process.stderr
        try:
            told = process.stderr.readline()
            assert " at http://" in told, told + process.stderr.read()
            yield told.partition(" at ")[2].split()[0], process
        finally:
            process.kill()


def end(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    process.send_signal(number)
    assert process.stderr
    told = process.stderr.read()
    return process.wait(timeout=20), told


def count(url: str, **labels: str) -> float:
    lines = ask(f"{url}/metrics").body.splitlines()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    found = [line for line in lines if "node_duration_seconds_count" in line and all(each in line for each in wanted)]
    return sum(float(line.rpartition(" ")[2]) for line in found)


@pytest.mark.process_heavy
def test_a_flow_is_run_again_and_again():
    """A flow with its inputs runs as often as was asked for, and its metrics, with exemplars, are served."""
    with serving("flows:greet", "--input", "name=you", "--every", "0.01") as (url, process):
        wait_until(lambda: count(url, aetherflow_node_name="greet") > 3, "a few runs")
        assert 'trace_id="' in ask(f"{url}/metrics").body
        assert ask(f"{url}/health").json["status"] == "pass"
        assert end(process, signal.SIGTERM) == (0, "")


@pytest.mark.process_heavy
def test_runs_that_fail_are_told_and_go_on():
    """An error of a run is told and counted, and the next one is tried."""
    with serving("flows:greet", "--input", "name=nobody", "--every", "0.01", "--exporter", "none") as (url, process):
        wait_until(lambda: count(url, error_type="LookupError") > 1, "two failures")
        assert "greet failed: LookupError: nobody is there\n" in end(process, signal.SIGTERM)[1]


@pytest.mark.process_heavy
def test_a_stream_is_pulled_to_its_end():
    """A flow that ends in a stream has its items made."""
    with serving("flows:letters", "--input", "text=abc", "--every", "0.01", "--exporter", "none") as (url, _):
        wait_until(lambda: "stream_items_total{" in ask(f"{url}/metrics").body, "items")


@pytest.mark.process_heavy
@pytest.mark.parametrize("program", ["program:main", "program:amain"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_program_ends_in_order(tmp_path, program, number, code):
    """SIGTERM and Ctrl-C both run the program's ``finally`` clauses, and leave no traceback."""
    with serving(program) as (url, process):
        assert ask(f"{url}/livez").status == 200
        wait_until((tmp_path / "started").exists, "the program")
        ended, told = end(process, number)
    assert (ended, told) == (code, "interrupted\n" if code else "")
    assert (tmp_path / "ended").exists()


def test_a_program_that_returns_ends_it():
    """When the function is done, so is serving."""
    done = run("serve", "program:short", "--port", "0")
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_a_program_that_fails_fails_it():
    """What the function raises is shown as Python shows it, and the exit code says that it failed."""
    done = run("serve", "program:failing", "--port", "0")
    assert done.returncode == 1
    assert "LookupError: nobody is there" in done.stderr
    assert "aetherflow/cli" not in done.stderr


@pytest.mark.process_heavy
def test_a_monitor_of_ones_own_is_asked():
    """A HealthMonitor is served as it is, and is that of the process."""
    with serving("program:monitor", "--exporter", "none") as (url, _):
        assert ask(f"{url}/livez").status == 503
        assert 'aetherflow_health_status{aetherflow_health_state="unhealthy"} 1.0' in ask(f"{url}/metrics").body


@pytest.mark.process_heavy
def test_a_token_is_taken_from_its_variable():
    """With ``AETHER_SERVE_TOKEN`` metrics ask for it, and it is printed nowhere."""
    with serving("program:main", env={"AETHER_SERVE_TOKEN": "secret-7"}) as (url, process):
        assert ask(f"{url}/metrics").status == 401
        assert ask(f"{url}/metrics", Authorization="Bearer secret-7").status == 200
        assert "secret-7" not in end(process, signal.SIGTERM)[1]


@pytest.mark.process_heavy
def test_being_open_to_others_is_told():
    """Listening on all addresses without a token is allowed, and said."""
    with serving("program:main", "--host", "0.0.0.0") as (_, process):
        assert process.stderr
        assert process.stderr.readline().endswith("set AETHER_SERVE_TOKEN to ask for a token\n")


def test_a_port_that_is_taken_is_one_clear_error():
    """The second of two on one port says so in one line, before it runs anything."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "program:failing", "--port", str(port))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"aetherflow serve: cannot listen on 127.0.0.1:{port} (Address already in use);")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "the following arguments are required: MODULE:OBJECT"),
        (["program"], "write it as module:name"),
        (["nothing:main"], "there is no module 'nothing'"),
        (["program:nothing"], "there is no 'nothing' in module 'program'"),
        (["program:Thing"], "'Thing' is no flow, monitor or function"),
        (["program:greedy"], "program:greedy is called without arguments, and has a missing a required argument"),
        (["program:main", "--input", "a=1"], "--input and --context are for flows, and program:main is none"),
        (["program:main", "--port", "70000"], "port is 70000; allowed: a whole number, 0 to 65535"),
        (["program:main", "--port", "x"], "'x' is not a whole number"),
        (["program:main", "--every", "-1"], "'-1' is not a number at least 0"),
        (["program:main", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1:"),
        (["flows:greet", "--port", "0"], "nothing fills parameter 'name'"),
        (["flows:greet", "--port=0", "--input=name=1", "--input=more=2"], "no parameter takes the input 'more'"),
        (["flows:greet", "--port", "0", "--context", "program:Thing"], "'Thing' is no context"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(monkeypatch, capsys, arguments, told):
    """A bad argument ends with exit code 2 and one line that says what is wrong."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert code_of("serve", *arguments) == 2
    printed = capsys.readouterr().err
    assert told in printed.splitlines()[-1]
    assert "Traceback" not in printed


@pytest.mark.parametrize("command", [["serve", "program:main"], ["top", "--once"]])
def test_a_missing_extra_is_named(command):
    """Without its packages the command says what to install."""
    code = (
        "import sys; sys.modules.update(uvicorn=None, prometheus_client=None);"
        f"from aetherflow.cli.main import main; sys.exit(main({command!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 2
    assert done.stderr.endswith("pip install 'aetherflow-otel[serve]'\n")
    assert done.stderr.count("\n") == 1
