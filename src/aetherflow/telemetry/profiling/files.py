"""Profiles in full, as files: pstats for ``pstats`` and snakeviz, and JSON for speedscope.

A file appears under its name when it is complete.
"""

from __future__ import annotations

import json
import marshal
import os
import re
import time
from datetime import UTC, datetime
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any, Final

from aetherflow.telemetry.profiling.event import Function
from aetherflow.telemetry.profiling.sampling import Samples, Stack

__all__ = ["new_file", "pstats_of", "speedscope_of", "write_atomically"]

_MAX_NAME: Final = 80
_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"
_numbers: Final = count(1)


def new_file(directory: Path, node: str) -> Path:
    """Return the path of a new pstats file; its name tells node, time, process and a number.

    Args:
        directory: Where it is to be; made where it is missing.
        node: The node's name; what is not safe in a file's name is replaced.

    Raises:
        OSError: The directory cannot be made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", node)[:_MAX_NAME]
    now = datetime.fromtimestamp(time.time(), UTC)
    return directory / f"{safe}-{now:%Y%m%dT%H%M%S}Z-{os.getpid()}-{next(_numbers)}.pstats"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place and then put it there.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def pstats_of(samples: Samples) -> bytes:
    """Return samples in the format that :class:`pstats.Stats` loads; calls are the samples a function was found in."""
    own: dict[Function, list[Any]] = {}
    callers: dict[Function, dict[Function, list[Any]]] = {}
    for stack, seconds, times in samples.stacks():
        functions = list(stack)
        for function in dict.fromkeys(functions):
            _add(own.setdefault(function, [0, 0, 0.0, 0.0]), times, 0.0, seconds)
            callers.setdefault(function, {})
        for caller, function in dict.fromkeys(pairwise(functions)):
            is_leaf = (caller, function) == tuple(functions[-2:])
            entry = callers[function].setdefault(caller, [0, 0, 0.0, 0.0])
            _add(entry, times, seconds if is_leaf else 0.0, seconds)
        own[functions[-1]][2] += seconds
    return marshal.dumps(
        {
            function: (*entry, {caller: tuple(each) for caller, each in callers[function].items()})
            for function, entry in own.items()
        }
    )


def _add(entry: list[Any], times: int, self_time: float, cumulative_time: float) -> None:
    entry[0] += times
    entry[1] += times
    entry[2] += self_time
    entry[3] += cumulative_time


def speedscope_of(samples: Samples, name: str) -> str:
    """Return samples as the JSON that speedscope opens: each stack once, in the order of their first being found.

    Args:
        samples: The samples.
        name: How speedscope calls the profile.
    """
    found: list[tuple[Stack, float]] = [(stack, seconds) for stack, seconds, _ in samples.stacks()]
    functions = dict.fromkeys(chain.from_iterable(stack for stack, _ in found))
    indexes = {each: index for index, each in enumerate(functions)}
    weights = [seconds for _, seconds in found]
    frames = [{"name": called, "file": file, "line": line} for file, line, called in functions]
    profile = {
        "type": "sampled",
        "name": name,
        "unit": "seconds",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": [[indexes[each] for each in stack] for stack, _ in found],
        "weights": weights,
    }
    file = {"$schema": _SCHEMA, "shared": {"frames": frames}, "profiles": [profile], "name": name}
    return json.dumps({**file, "activeProfileIndex": 0, "exporter": "aetherflow"})
