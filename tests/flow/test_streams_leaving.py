"""Streams of a process that leaves: interrupted by Ctrl-C, or at its end with a stream that is still open."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from textwrap import dedent

import pytest

pytestmark = pytest.mark.process_heavy

STAGES = """
    import asyncio, os, time
    from aetherflow import node

    def say(text):
        os.write(1, f"{text}\\n".encode())  # at once, as stages on threads are closed at the same time

    @node
    def source():
        try:
            for item in range(10**9):
                yield item
                if item == 5:
                    say("ready")
                time.sleep(0.001)
        finally:
            say("source closed")

    @node
    def stage(items):
        try:
            for item in items:
                yield item
        finally:
            say("stage closed")

    @node
    async def source_apart():
        try:
            for item in range(10**9):
                yield item
                if item == 5:
                    say("ready")
                await asyncio.sleep(0.001)
        finally:
            await asyncio.sleep(0)
            say("source closed")

    @node
    async def stage_apart(items):
        try:
            async for item in items:
                yield item
        finally:
            await asyncio.sleep(0)
            say("stage closed")
"""

flows = pytest.mark.parametrize(
    "flow", ["source >> stage", "source_apart >> stage_apart", "source_apart >> stage", "source >> stage_apart"]
)

INTERRUPTED = """
    buffer = {buffer}
    flow = {flow}

    async def main():
        async for item in flow.astream(buffer=buffer):
            pass

    try:
        if {awaited}:
            asyncio.run(main())
        else:
            for item in flow.stream(buffer=buffer):
                pass
    except KeyboardInterrupt:
        say("interrupted")
"""

FORGOTTEN = """
    stream = {flow}.stream(buffer={buffer})
    say(next(stream))
"""


def start(script: str, **values: object) -> subprocess.Popen[str]:
    code = dedent(STAGES) + dedent(script).format(**values)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is not a signal that can be sent to one process there")
@pytest.mark.parametrize("awaited", [False, True], ids=["stream", "astream"])
@pytest.mark.parametrize("buffer", [None, 4])
@flows
def test_ctrl_c_reaches_every_stage(flow: str, buffer: int | None, awaited: bool) -> None:
    """A real SIGINT: every stage has run its ``finally`` clause when the process leaves, and nothing complains."""
    process = start(INTERRUPTED, flow=f"({flow})", buffer=buffer, awaited=awaited)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert sorted(output.splitlines()) == ["interrupted", "source closed", "stage closed"]


@pytest.mark.parametrize("buffer", [None, 2])
@flows
def test_a_process_leaves_with_a_stream_open(flow: str, buffer: int | None) -> None:
    """Nothing keeps it, nothing complains; every stage runs its ``finally`` clause, on threads and loops too."""
    process = start(FORGOTTEN, flow=f"({flow})", buffer=buffer)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    said = output.splitlines()
    assert said[0] == "0"
    assert {"source closed", "stage closed"} <= set(said)
