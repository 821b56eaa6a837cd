"""``aetherflow run`` runs anyone's flow, and shows how it went."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from aetherflow.cli.main import main
from aetherflow.cli.run import format_output

FLOWS = """
import threading
from pathlib import Path

from dependency_injector import providers

from aetherflow import BaseFlowContext, node


def paper():
    yield "A4"
    Path("closed").write_text("paper")


class Context(BaseFlowContext):
    paper = providers.Resource(paper)


ready = Context()


@node
def fetch(order, copies=1):
    return {"order": order, "copies": copies}


@node
def put(fetch, paper="none"):
    return {**fetch, "paper": paper}


flow = (fetch >> put).named("printing")


@node
def jam(fetch):
    try:
        raise KeyError("tray [2]")
    except KeyError as error:
        raise OSError("out of\\npaper") from error


unused = (fetch >> put >> node(lambda fetch: fetch, name="last")).named("unused")


jammed = (fetch >> jam).named("jammed")


meeting = threading.Barrier(2, timeout=30)


@node
def no_ink(fetch):
    meeting.wait()
    raise ValueError("no ink")


@node
def no_power(fetch):
    meeting.wait()
    raise OSError("no power")


both = fetch.fan_out_to([no_ink, no_power]).named("both")


@node
def pages(count=3):
    for number in range(count):
        yield {"page": number}


@node
def long():
    return list(range(200))


@node
def closing():
    raise BrokenPipeError("of the printer")
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run something in the module above; gives exit code, output and errors."""
    monkeypatch.setenv("COLUMNS", "120")
    name = module(FLOWS)

    def run_it(what: str, *arguments: str) -> tuple[int, str, str]:
        code = main(["run", f"{name}:{what}", *(argument.replace("MODULE", name) for argument in arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_it


def test_result_trace_and_file_are_shown(run: Run, tmp_path: Path) -> None:
    """The result comes as JSON, then the trace of just this run, then the file that it is in."""
    run("pages")
    code, out, err = run("flow", "--input", "order=17", "--input", "copies=2")
    assert (code, err) == (0, "")
    result, blank, page = out.partition("\n\n")
    assert blank
    assert json.loads(result) == {"order": 17, "copies": 2, "paper": "none"}
    assert page.startswith("run printing  ")
    assert " · 3 spans · 1 thread\n" in page
    assert [line.split()[1] for line in page.splitlines()[4:7]] == ["printing", "fetch", "put"]
    [file] = [line.split()[-1] for line in page.splitlines() if line.startswith("trace file")]
    assert (tmp_path / file).is_file()


def test_quiet_prints_the_result_only(run: Run) -> None:
    """For a script, the output is the result and nothing else."""
    _, out, err = run("flow", "--input", "order=17", "--quiet")
    assert json.loads(out) == {"order": 17, "copies": 1, "paper": "none"}
    assert err == ""


@pytest.mark.parametrize("context", ["Context", "ready"], ids=["class", "instance"])
def test_a_context_is_injected_and_closed(run: Run, tmp_path: Path, context: str) -> None:
    """A context class or instance fills parameters, and its resources are shut down at the end."""
    _, out, _ = run("flow", "--input", "order=1", "--context", f"MODULE:{context}", "--quiet")
    assert json.loads(out)["paper"] == "A4"
    assert (tmp_path / "closed").read_text(encoding="utf-8") == "paper"


def test_inputs_come_from_a_file(run: Run, tmp_path: Path) -> None:
    """A JSON object gives several inputs."""
    (tmp_path / "order.json").write_text('{"order": "x", "copies": 4}', encoding="utf-8")
    assert json.loads(run("flow", "--input", "@order.json", "--quiet")[1])["copies"] == 4


def test_a_stream_is_printed_item_by_item(run: Run) -> None:
    """What a generator node yields is a line of JSON each, and its span is in the trace, whole."""
    code, out, _ = run("pages", "--input", "count=4")
    assert code == 0
    assert [json.loads(line)["page"] for line in out.splitlines()[:4]] == [0, 1, 2, 3]
    assert "4 items" in out


def test_a_long_result_leaves_the_trace_in_sight(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets the beginning of a long result, a pipe all of it."""
    _, piped, _ = run("long", "--quiet")
    assert json.loads(piped) == list(range(200))
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, shown, progress = run("long", "--quiet")
    assert shown.startswith(piped[:100])
    assert "… 142 more lines" in shown
    assert "running long" in progress


def test_a_failing_flow_shows_its_exception_and_its_trace(run: Run) -> None:
    """The exception is printed as Python does, with its cause and without frames of ours; then the trace."""
    code, out, err = run("jammed", "--input", "order=1")
    assert code == 1
    assert "KeyError: 'tray [2]'" in err
    assert "OSError: out of\npaper\n" in err
    assert "in jam\n" in err
    assert "/engine/" not in err
    assert "run jammed" in out
    assert "✗ jam  OSError: out of …" in out


def test_all_failures_of_a_fan_out_are_shown(run: Run) -> None:
    """Of several branches that fail, each exception is told."""
    code, out, err = run("both", "--input", "order=1")
    assert code == 1
    assert "ValueError: no ink" in err
    assert "OSError: no power" in err
    assert "/engine/" not in err
    assert "✗ no_ink  ValueError: no ink" in out
    assert "✗ no_power  OSError: no power" in out


def test_a_broken_pipe_of_a_node_is_its_own_failure(run: Run) -> None:
    """Only a reader of ours that went away ends the program in silence."""
    code, _, err = run("closing")
    assert code == 1
    assert "BrokenPipeError: of the printer" in err


def test_an_input_that_is_missing_is_a_bad_argument(run: Run, tmp_path: Path) -> None:
    """One line names the parameter and says how to give it; nothing was recorded."""
    code, out, err = run("flow")
    assert (code, out) == (2, "")
    assert "'order'" in err
    assert "--input order=" in err
    assert err.count("\n") == 1
    assert list(tmp_path.glob(".aetherflow/*")) == []


@pytest.mark.filterwarnings("default::aetherflow.UnusedOutputWarning")
def test_an_unused_output_is_warned_of_in_one_line(run: Run) -> None:
    """The line says what the warning says, and names no file of this program."""
    code, _, err = run("unused", "--input", "order=17")
    assert code == 0
    assert err.splitlines()[0].startswith("warning: flow 'unused': node `last` does not use the output of `put`")
    assert ".py" not in err


def test_an_input_that_no_parameter_takes_is_a_bad_argument(run: Run) -> None:
    """The message has the nearest spelling and the option that ignores such inputs; with the option, the flow runs."""
    code, _, err = run("flow", "--input", "order=17", "--input", "copeis=2")
    assert code == 2
    assert "no parameter takes the input 'copeis'. Did you mean `copies` instead of `copeis`?" in err
    assert err.rstrip().endswith("On the command line: --extra-inputs ignore")
    code, out, _ = run("flow", "--input", "order=17", "--input", "copeis=2", "--extra-inputs", "ignore")
    assert code == 0
    assert '"copies": 1' in out


def test_a_module_that_fails_shows_its_exception(
    module: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception in the user's module is shown from that module on."""
    name = module("def f():\n    1 / 0\nf()\n")
    assert main(["run", f"{name}:flow"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    assert "line 2, in f" in err
    assert "importlib" not in err


@pytest.mark.parametrize("command", ["run", "load"])
def test_a_context_that_cannot_be_made_shows_its_exception(
    command: str, module: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception while the user's context is made is shown as the user's own, not as a defect of the program."""
    name = module(
        "from aetherflow import BaseFlowContext, node\nflow = node(abs)\nclass Broken(BaseFlowContext):\n"
        "    def __new__(cls):\n        raise LookupError('no database')\n"
    )
    assert main([command, f"{name}:flow", "--context", f"{name}:Broken"]) == 1
    err = capsys.readouterr().err
    assert err.endswith("LookupError: no database\n")
    assert "aetherflow/cli" not in err


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        (("--exporter", "none"), {}, "nothing was exported"),
        ((), {"OTEL_SDK_DISABLED": "true"}, "nothing was exported"),
        ((), {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none"}, "console exporter"),
        ((), {"OTEL_TRACES_SAMPLER": "always_off"}, "no spans were recorded"),
    ],
)
def test_a_trace_that_is_in_no_file_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], variables: dict[str, str], told: str
) -> None:
    """The result is shown all the same, and where the trace went instead."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, out, _ = run("long", *arguments)
    assert code == 0
    assert told in out
    assert "trace file" not in out


def test_providers_of_the_application_are_kept(run: Run, module: Callable[[str], str]) -> None:
    """A module that sets its own TracerProvider keeps it, and is told that there is no file."""
    own = module(
        "from opentelemetry import trace\nfrom opentelemetry.sdk.trace import TracerProvider\n"
        "trace.set_tracer_provider(TracerProvider())\nfrom aetherflow import BaseFlowContext as Context\n"
    )
    code, out, _ = run("long", "--context", f"{own}:Context")
    assert code == 0
    assert "the application's own TracerProvider" in out


def test_settings_that_are_not_allowed_are_bad_arguments(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable with a bad value is named, in one line."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "pigeon")
    code, _, err = run("long")
    assert code == 2
    assert "'pigeon'" in err
    assert err.count("\n") == 1


@dataclass
class Point:
    x: int
    y: object


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"a": [1, "é"]}, '{"a": [1, "é"]}'),
        (None, "null"),
        ("text", '"text"'),
        (Point(1, Point(2, None)), '{"x": 1, "y": {"x": 2, "y": null}}'),
        (MappingProxyType({"p": Path("a/b")}), '{"p": "a/b"}'),
        ({"s": {1, 2}}, "{'s': {1, 2}}"),
        ({("a", 1): 2}, "{('a', 1): 2}"),
        (Point, f"<class '{__name__}.Point'>"),
        (math.nan, "NaN"),
    ],
)
def test_an_output_is_json_or_python(output: object, expected: str) -> None:
    """JSON says it where it can, dataclasses as objects; else it is as Python shows it."""
    assert format_output(output, indent=None) == expected


def test_an_output_that_holds_itself_is_shown() -> None:
    """A circle in a result does not hang the program."""
    circle: list[object] = [1]
    circle.append(circle)
    assert format_output(circle).startswith("[1, <Recursion")
