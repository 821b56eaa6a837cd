"""``aetherflow top`` shows what a process does, in any terminal, whether or not it answers."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading

import pytest
from rich.console import Console
from tests.cli.program import code_of, environment, run
from tests.support.receivers import closed_port, free_ports, wait_until

from aetherflow.analysis.scrapes import Change, read_scrape
from aetherflow.cli.top_frame import Frame
from aetherflow.cli.top_rows import activities
from aetherflow.flow.decorating import node
from aetherflow.resources.batching import BatchPolicy
from aetherflow.resources.caching import CachePolicy
from aetherflow.resources.pooling import ObjectPool
from aetherflow.serving import serve
from aetherflow.serving.openmetrics import Exposition
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.health.monitor import HealthMonitor
from aetherflow.telemetry.metrics.accumulators import registry
from aetherflow.telemetry.setup.configuring import configure


@node
def greet(name: str) -> str:
    if name == "nobody":
        raise LookupError(name)
    return name


@node(cache=CachePolicy(maxsize=4))
def kept(greet: str) -> str:
    return greet


@node(batch=BatchPolicy(size=2, max_wait=0.001))
def placed(names: list[str]) -> list[str]:
    return names


NONE = "\N{EN DASH}"
hello = (greet >> [kept, placed]).named("hello")


def looked_at(*callers: str, pool: ObjectPool | None = None) -> Change:
    """Two scrapes, two seconds apart by what they say, between which a flow ran for each name."""
    exposition = Exposition()

    def look(at: float):
        return read_scrape(exposition.render("")[0].decode(), at)

    before = look(0.0)
    for name in callers:
        try:
            hello.run({"name": name})
        except LookupError:
            continue
    return Change(before, look(2.0))


def drawn(change: Change | None, width: int = 120, height: int | None = None, trouble: str = "") -> str:
    console = Console(width=width, no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(Frame(change, "http://here/metrics", trouble, height))
    return capture.get()


def line_of(text: str, start_of_line: str) -> list[str]:
    (line,) = (each for each in text.splitlines() if each.startswith(start_of_line))
    return line.removeprefix(start_of_line).split()


def test_every_part_has_its_rates():
    """Nodes, flows, executors, pools, caches and batches are there, with what they did a second."""
    pool = ObjectPool(object, max_size=3, name="things")
    monitor = HealthMonitor()
    monitor.add_check("told", lambda: "ok")
    monitor.check()
    with configure("shop", "file", health=monitor), pool.lease(), pool.lease():
        text = drawn(looked_at(*"stuvwxyz", "nobody", "nobody"))
    assert line_of(text, "hello greet")[:2] == ["5.0", "1.0"]
    assert line_of(text, "hello kept")[:2] == ["4.0", NONE]
    assert line_of(text, "hello  ")[:2] == ["5.0", "1.0"]
    assert line_of(text, "pool things")[:3] == ["2", "0", "0"]
    assert line_of(text, "kept  ")[1] == "0%"
    assert line_of(text, "placed")[0] == "4.0"
    assert "executor thread" in text
    assert "shop" in text.splitlines()[0]
    assert text.splitlines()[1].startswith("healthy ")


def test_numbers_are_those_of_the_time_between():
    """What was before the first look is in the total, and in no rate."""
    exposition = Exposition()
    for _ in range(4):
        greet.run({"name": "a"})
    first = read_scrape(exposition.render("")[0].decode(), 0.0)
    text = drawn(Change(first, read_scrape(exposition.render("")[0].decode(), 1.0)))
    assert line_of(text, "greet") == [NONE, NONE, NONE, NONE, "0", NONE, NONE, NONE, "4"]


def test_durations_are_those_of_computed_executions():
    """Hits and retried executions are in the rates, and as a share of hits, and in no quantile."""
    exposition = Exposition()
    before = read_scrape(exposition.render("")[0].decode(), 0.0)
    for kind, seconds, count in (("", 0.03, 10), ("cache_hit", 0.00002, 80), ("retried", 20.0, 10)):
        about = {names.FLOW_NAME: "priced", names.NODE_NAME: "priced"}
        about |= {names.EXECUTION_KIND: kind} if kind else {}
        series = registry.series(names.NODE_DURATION, about)
        for _ in range(count):
            series.add(round(seconds * 1e9))
    change = Change(before, read_scrape(exposition.render("")[0].decode(), 2.0))
    (row,) = (each for each in activities(change, names.NODE_DURATION, names.NODE_NAME) if each.name == ("priced",))
    assert (row.rate, row.total, row.levels["hits"]) == (50.0, 100, 0.8)
    assert row.busy == pytest.approx(100.15, abs=0.01)
    assert 0.025 <= row.p50 <= row.p95 <= 0.05
    assert line_of(drawn(change), "priced")[-3] == "80%"


@pytest.mark.parametrize("width", [20, 30, 40, 50, 60, 80, 100, 200])
def test_no_line_is_longer_than_the_terminal(width):
    """Columns are left out where there is no room, and the name and the rate stay."""
    text = drawn(looked_at("a"), width)
    assert max(map(len, text.splitlines())) <= width
    if width >= 30:
        assert "hello greet" in text


def test_tables_are_cut_to_the_height():
    """In a low terminal tables say how much they leave out."""
    change = looked_at("a")
    assert len(drawn(change, height=200).splitlines()) > 15
    low = drawn(change, height=12)
    assert len(low.splitlines()) <= len(drawn(change).splitlines())


def test_names_cannot_take_the_terminal_over():
    """A node's name with escape sequences and markup is shown, and does nothing."""
    odd = greet.named("\x1b[31m[bold]evil\nline")
    exposition = Exposition()
    before = read_scrape(exposition.render("")[0].decode(), 0.0)
    odd.run({"name": "a"})
    text = drawn(Change(before, read_scrape(exposition.render("")[0].decode(), 1.0)))
    assert "\x1b" not in text
    assert "[bold]evil" in text


def test_a_process_without_metrics_of_ours_is_told():
    """Where there is nothing of AetherFlow, the frame says so."""
    nothing = read_scrape("# EOF\n", 0.0)
    assert "no metrics of AetherFlow there yet" in drawn(Change(nothing, nothing))


def test_once_prints_one_frame():
    """``--once`` looks twice, prints what it saw and ends; without colours into a pipe."""
    with serve(port=0, monitor=HealthMonitor()) as url:
        done = threading.Event()

        def work() -> None:
            while not done.wait(0.01):
                greet.run({"name": "a"})

        worker = threading.Thread(target=work)
        worker.start()
        found = run("top", url, "--once", "--interval", "0.5")
        done.set()
        worker.join()
    assert (found.returncode, found.stderr) == (0, "")
    assert "\x1b" not in found.stdout
    assert float(line_of(found.stdout, "greet")[0]) > 1


def test_once_fails_where_nobody_answers():
    """One line says who does not answer and why, with exit code 2."""
    with closed_port() as port:
        found = run("top", f"127.0.0.1:{port}", "--once")
    assert (found.returncode, found.stdout) == (2, "")
    told = f"aetherflow top: http://127.0.0.1:{port}/metrics: cannot be reached (Connection refused)\n"
    assert found.stderr == told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["file:///etc/passwd"], "write it as http://host:port/metrics"),
        (["http://"], "write it as http://host:port/metrics"),
        (["http://a:b/"], "write it as http://host:port/metrics"),
        (["http://a b/"], "write it as http://host:port/metrics"),
        ([""], "write it as http://host:port/metrics"),
        (["--interval", "0"], "'0' is not a number at least 0.1"),
        (["--interval", "nan"], "'nan' is not a number"),
    ],
)
def test_a_bad_argument_is_told_in_one_line(capsys, arguments, told):
    """What is no address, or no interval, ends with exit code 2."""
    assert code_of("top", *arguments) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)


def test_a_token_is_shown_to_who_asks_for_it():
    """The variable that the server takes its token from is the one that is shown."""
    with serve(port=0, token="secret-7") as url:
        without = run("top", url, "--once", "--interval", "0.1")
        found = run("top", url, "--once", "--interval", "0.1", AETHER_SERVE_TOKEN="secret-7")
    assert (without.returncode, found.returncode) == (2, 0)
    assert without.stderr.endswith("answers 401 Unauthorized; it asks for a token\n")
    assert "secret-7" not in found.stdout + found.stderr


class Terminal:
    """The program in a terminal of its own, and all that it has written there."""

    def __init__(self, *arguments: str, **env: str) -> None:
        ours, theirs = pty.openpty()
        variables = {"TERM": "xterm-256color", "LINES": "40", **env}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "aetherflow", "top", *arguments],
            env=environment(**variables), stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(theirs)
        self._ours = ours
        self.text = ""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            while data := os.read(self._ours, 65536):
                self.text += data.decode("utf-8", "replace")
        except OSError:  # the other end is closed
            pass

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        assert self.process.stderr
        self.errors = self.process.stderr.read()
        self.process.stderr.close()
        code = self.process.wait(timeout=20)
        self._thread.join()
        os.close(self._ours)
        return code


@pytest.mark.process_heavy
def test_it_goes_on_whether_or_not_anybody_answers():
    """It says who does not answer and keeps trying; it shows the process once there is one; Ctrl-C is how to leave."""
    (port,) = free_ports(1)
    terminal = Terminal(f"127.0.0.1:{port}", "--interval", "0.2")
    wait_until(lambda: "cannot be reached" in terminal.text, "trouble")
    with serve(port=port, monitor=HealthMonitor()):
        greet.run({"name": "a"})
        wait_until(lambda: "greet" in terminal.text, "the node")
    seen = len(terminal.text)
    wait_until(lambda: "trying again" in terminal.text[seen:], "trouble again")
    assert "greet" in terminal.text[seen:]
    assert (terminal.end(), terminal.errors) == (0, "")
    assert "\x1b[?1049l" in terminal.text  # the terminal's own screen is back
    assert "\x1b[?25h" in terminal.text  # and so is the cursor


@pytest.mark.process_heavy
def test_colours_are_left_out_where_that_is_asked_for():
    """With NO_COLOR nothing in the terminal is coloured."""
    with serve(port=0, monitor=HealthMonitor()) as url:
        greet.run({"name": "a"})
        terminal = Terminal(url, "--interval", "0.2", NO_COLOR="1")
        wait_until(lambda: "greet" in terminal.text, "the node")
        terminal.end()
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.text)
