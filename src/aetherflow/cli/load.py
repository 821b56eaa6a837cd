"""``aetherflow load``: call a flow from more and more threads, and export how it went."""

from __future__ import annotations

import argparse
import contextlib
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from rich.text import Text

from aetherflow.cli.command import Command, Consoles, ExitCode, UsersOwnError, add_input_arguments, at_least, number
from aetherflow.cli.load_driver import LoadResult, arrivals, drive
from aetherflow.cli.loading import entered, load_flow, read_inputs
from aetherflow.cli.terminal import format_count
from aetherflow.errors import AetherFlowError
from aetherflow.telemetry import active
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.export.destination import Destination
from aetherflow.telemetry.export.files import ProcessFile, export_directory
from aetherflow.telemetry.observation import is_marked_expected

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

    from aetherflow.flow.node import Node

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("flow", metavar="MODULE:FLOW", help="the flow, for example shop.flows:checkout")
    parser.add_argument(
        "--threads",
        type=_levels,
        default=[1, 2, 4, 8],
        metavar="N,N,…",
        help="how many threads call it (default: 1,2,4,8)",
    )
    parser.add_argument(
        "--duration", type=number(above=0), default=2.0, metavar="S", help="seconds of each load (default: %(default)g)"
    )
    parser.add_argument(
        "--repeats",
        type=at_least(1),
        default=3,
        metavar="N",
        help="loads of each number of threads (default: %(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=number(above=0),
        metavar="R",
        help="start R runs a second, at random, whether or not those before have ended; latency counts from when a run "
        "was due (default: each thread starts the next run when its own has ended)",
    )
    add_input_arguments(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="where the metrics go (default: .aetherflow/load)")


def _levels(text: str) -> list[int]:
    try:
        levels = [int(part) for part in text.split(",")]
    except ValueError:
        levels = []
    if not levels or min(levels) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers above 0, such as 1,2,4,8")
    return sorted(set(levels))


def _run(arguments: argparse.Namespace, consoles: Consoles) -> ExitCode:
    from aetherflow.flow.running import NO_INPUT  # not for the other commands, which start without the engine

    flow, given = load_flow(arguments.flow, arguments.context)
    inputs = read_inputs(arguments.inputs)
    folder = arguments.output or export_directory() / "load"
    with entered(given) as context:

        def run() -> object:
            return flow.run(inputs or NO_INPUT, context, extra_inputs=arguments.extra_inputs)

        try:
            run()  # whatever is made once is made now
        except AetherFlowError:
            raise
        except Exception as error:
            if not is_marked_expected(error):
                raise UsersOwnError from error
        _load_all(flow, run, arguments, folder, consoles)
    told = f"metrics are in {folder}; 'aetherflow capacity {folder}' tells what they say"
    consoles.out.print(Text(told, style="dim"), soft_wrap=True)
    return ExitCode.FINE


def _load_all(
    flow: Node[..., Any], call: Callable[[], object], arguments: argparse.Namespace, folder: Path, consoles: Consoles
) -> None:
    """Do all loads, up and down again, so that what drifts meets all levels alike."""
    series = uuid4().hex
    for repeat in range(arguments.repeats):
        for threads in arguments.threads if repeat % 2 == 0 else reversed(arguments.threads):
            said = {
                names.PIPELINE_RUN_ID: f"load-{series}-{threads}-{repeat + 1}",
                names.LOAD_CONCURRENCY: f"{threads}",
            }
            schedule = None
            if arguments.rate:
                said[names.LOAD_RATE] = f"{arguments.rate:g}"
                schedule = arrivals(arguments.rate, arguments.duration, random.Random(repeat))
            with _exported(folder, said) as provider:
                result = drive(call, threads, arguments.duration, schedule)
                _record(provider, flow.name, result)
            _tell(threads, result, consoles)


@contextlib.contextmanager
def _exported(folder: Path, attributes: dict[str, str]) -> Iterator[MeterProvider]:
    """Export the metrics of one load as those of a process of its own."""
    from aetherflow.telemetry.setup.providers import make_meter_provider

    file = ProcessFile(folder, "metrics", datetime.now(UTC))
    provider = make_meter_provider([Destination("file")], file, None, None, attributes)
    before = active.providers
    active.set_active(active.Providers(before.tracer_provider if before else None, provider))
    try:
        yield provider
    finally:
        active.set_active(before)
        provider.shutdown()


def _record(provider: MeterProvider, flow: str, result: LoadResult) -> None:
    meter = provider.get_meter(names.SCOPE_NAME)
    attributes = {names.FLOW_NAME: flow}
    latency = meter.create_histogram(names.LOAD_LATENCY.name, names.LOAD_LATENCY.unit, names.LOAD_LATENCY.description)
    for call in result.calls:
        failed = {} if call.error is None else {names.ERROR_TYPE: type(call.error).__qualname__}
        latency.record(call.latency, attributes | failed)
    for waited in result.unserved:
        latency.record(waited, attributes | {names.ERROR_TYPE: names.UNSERVED})
    spent = meter.create_counter(names.LOAD_TIME.name, names.LOAD_TIME.unit, names.LOAD_TIME.description)
    spent.add(result.seconds, attributes)


def _tell(threads: int, result: LoadResult, consoles: Consoles) -> None:
    failed = [call.error for call in result.calls if call.error is not None]
    rate = (len(result.calls) - len(failed)) / result.seconds if result.seconds else 0.0
    told = [f"{format_count(threads, 'thread')}: {rate:,.1f} runs/s"]
    if failed:
        told.append(f"{len(failed):,} failed ({type(failed[0]).__qualname__}: {failed[0]})")
    if result.unserved:
        told.append(f"{len(result.unserved):,} were due and never started")
    consoles.err.print(Text(", ".join(told), style="yellow" if failed or result.unserved else "dim"), soft_wrap=True)


COMMAND: Final = Command(
    name="load",
    summary="call a flow from more and more threads",
    description="Call a flow from more and more threads and export the metrics of each load, traces aside. Every\n"
    "thread calls again when its run has ended; with --rate, runs start at random when they are due, and latencies\n"
    "count from then, so that a slow run does not hide how long those behind it waited.",
    add_arguments=_add_arguments,
    run=_run,
    examples=(
        "aetherflow load shop.flows:checkout --threads 1,2,4,8,16 --duration 5 --input order=17",
        "aetherflow load shop.flows:checkout --context shop.flows:ShopContext --rate 200 --threads 8",
    ),
)
