"""Running a flow for someone who watches: its result or its exception, then its trace, then where the trace is."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from aetherflow.analysis.spans import Span, read_spans
from aetherflow.analysis.traces import summarise_traces
from aetherflow.cli.command import Consoles, ExitCode
from aetherflow.cli.terminal import NoReaderError
from aetherflow.cli.trace_view import TraceView
from aetherflow.errors import ConfigurationError, MissingInputError, UnknownInputError, UnusedOutputWarning
from aetherflow.flow.extra_inputs import ExtraInputs
from aetherflow.flow.node import FlowRun, Node
from aetherflow.flow.running import NO_INPUT
from aetherflow.telemetry.setup.configuring import configure
from aetherflow.telemetry.setup.handle import Telemetry

__all__ = ["print_exception", "run_watched", "warnings_without_place"]

_PACKAGE: Final = Path(__file__).parent.parent


def run_watched(
    flow: Node[..., Any],
    inputs: dict[str, Any],
    context: Any,
    *,
    arguments: argparse.Namespace,
    consoles: Consoles,
    show: Callable[[Any], None],
    watching: contextlib.AbstractContextManager[object] | None = None,
    extra_inputs: ExtraInputs | None = None,
) -> ExitCode:
    """Run a flow once, and show how it went.

    Args:
        flow: What to run.
        inputs: Its inputs by name; empty for none.
        context: What it is injected from.
        arguments: Those of `add_export_arguments` and `add_display_arguments`, and ``quiet``.
        consoles: Where to print.
        show: Prints the output.
        watching: Is entered while the flow runs, for example to show progress.
        extra_inputs: The treatment of inputs that no parameter takes; None for the flow's own.

    Returns:
        Whether it ran, or failed with an exception of its own.

    Raises:
        MissingInputError: Nothing fills a parameter.
        UnknownInputError: No parameter takes an input.
        ConfigurationError: A setting has a value that is not allowed.
        NoReaderError: Nobody reads the output any more.
    """
    failure: Exception | None = None
    done: FlowRun[Any] | None = None
    with configure(exporter=arguments.exporter) as telemetry, warnings_without_place(consoles):
        try:
            with watching or contextlib.nullcontext():
                done = flow.execute(inputs or NO_INPUT, context, extra_inputs=extra_inputs)
            show(done.output)
        except (MissingInputError, UnknownInputError, ConfigurationError, NoReaderError):
            raise
        except Exception as error:  # noqa: BLE001  # whatever a node raises is the user's to see
            failure = error
        # Spans in a file are shown right away; those that go elsewhere are waited for no longer than at any exit.
        delivered = telemetry.force_flush() if telemetry.path else telemetry.shutdown()
        if failure is not None:
            print_exception(failure, consoles)
        if not arguments.quiet:
            trace_id = done.trace_id if done else None
            if telemetry.path:
                _show_trace(telemetry.path, trace_id, arguments, consoles)
            else:
                told = _where_it_went(telemetry, trace_id, delivered=delivered)
                consoles.out.print(Text(told, style="dim"), soft_wrap=True)
    return ExitCode.FINE if failure is None else ExitCode.FAILED


def warnings_without_place(consoles: Consoles) -> contextlib.AbstractContextManager[object]:
    """Within ``with``, print an `UnusedOutputWarning` without the file that it points at, which is this program's."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        original = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, UnusedOutputWarning):
                consoles.err.print(Text(f"warning: {message}", style="yellow"), soft_wrap=True)
            else:
                original(message, category, *place, **more)

        warnings.showwarning = show
        return stack.pop_all()


def print_exception(error: BaseException, consoles: Consoles) -> None:
    """Print an exception as Python does, without the frames of AetherFlow that say nothing of the user's code."""
    told = traceback.TracebackException.from_exception(error)
    for each in _chained(told):
        own = [frame for frame in each.stack if not _is_of_machinery(frame)]
        # What is of ours alone keeps the place it was raised at; groups are made by us and hold what was raised.
        each.stack[:] = own or each.stack[-1:] if each.exceptions is None else own
    consoles.err.print(Text("".join(told.format()).rstrip(), style="red"), soft_wrap=True)


def _chained(told: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield an exception and all that are printed with it: causes, contexts, members of groups."""
    waiting: list[traceback.TracebackException | None] = [told]
    while waiting:
        each = waiting.pop()
        if each is not None:
            yield each
            waiting += [each.__cause__, each.__context__, *(each.exceptions or ())]


def _is_of_machinery(frame: traceback.FrameSummary) -> bool:
    """Whether a frame is of AetherFlow or of the import system."""
    file = Path(frame.filename)
    if frame.filename.startswith("<frozen importlib") or file == Path(importlib.__file__):
        return True
    return file.is_relative_to(_PACKAGE) and not file.name.startswith("demo_")


def _show_trace(file: Path, trace_id: str | None, arguments: argparse.Namespace, consoles: Consoles) -> None:
    """Print the trace of the run from the file it was written to, and say where that is."""
    out = consoles.out
    spans = _spans(file, trace_id)
    if not spans:
        out.print(
            Text("no spans were recorded: the run failed before, or was left out by OTEL_TRACES_SAMPLER", style="dim")
        )
        return
    out.print()
    out.print(TraceView(spans, show_all=arguments.all))
    out.print()
    out.print(Text.assemble(("trace file    ", "dim"), str(_short(file))), soft_wrap=True)
    out.print(Text.assemble(("see it again  ", "dim"), "aetherflow trace"), soft_wrap=True)


def _spans(file: Path, trace_id: str | None) -> list[Span]:
    """Read the spans of the run; of one that failed, those of the newest trace."""
    if not file.exists():
        return []
    if trace_id is None:
        trace_id = summarise_traces(read_spans(file))[-1].trace_id
    return [span for span in read_spans(file) if span.trace_id == trace_id]


def _where_it_went(telemetry: Telemetry, trace_id: str | None, *, delivered: bool) -> str:
    name = f"trace {trace_id}" if trace_id else "the trace"
    match telemetry.exporter:
        case "none":
            return "nothing was exported: --exporter none, OTEL_TRACES_EXPORTER=none or OTEL_SDK_DISABLED is set"
        case "application":
            return f"{name} went where the application's own TracerProvider sends it; there is no local file to show"
        case "console":
            return f"{name} was printed by the console exporter; there is no local file to show"
        case _ if not delivered:
            return f"{name} was not taken in time by {telemetry.endpoint}: is a collector listening there?"
        case _:
            return f"{name} went to {telemetry.endpoint}; there is no local file to show"


def _short(path: Path) -> Path:
    """Write a path below the working directory relative to it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
