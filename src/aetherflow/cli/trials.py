"""Running two versions of a program in turn, each run with a folder of its own for its metrics."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from aetherflow.cli.command import UsageError
from aetherflow.telemetry.conventions import PIPELINE_RUN_ID
from aetherflow.telemetry.export.files import DIRECTORY_VARIABLE
from aetherflow.telemetry.setup.declarative import VARIABLE as CONFIG_FILE

__all__ = ["Trial", "checked_out", "find_commit", "interleaved", "run_trial", "toplevel"]

_GRACE: Final = 5.0
"""Seconds that a program has to end when it is told to."""
_SHOWN: Final = 20
"""Lines of output of a program that failed."""
_RESOURCE: Final = "OTEL_RESOURCE_ATTRIBUTES"


@dataclass(frozen=True, slots=True)
class Trial:
    """One side: what is run, and where.

    Attributes:
        side: What it is called.
        command: For the shell.
        folder: The working directory.
        root: The folder whose code it shall run; None where that is left to the command.
    """

    side: str
    command: str
    folder: Path
    root: Path | None = None


def interleaved(pairs: int) -> Iterator[tuple[int, int]]:
    """Yield the order of runs, A B B A and so on, so that what drifts meets both sides alike.

    Args:
        pairs: How many there are.

    Yields:
        The number of the pair, and the side, 0 or 1.
    """
    for pair in range(pairs):
        yield from ((pair, side) for side in ((0, 1) if pair % 2 == 0 else (1, 0)))


def run_trial(trial: Trial, export: Path) -> float:
    """Run a program to its end.

    Args:
        trial: The program.
        export: An empty folder, which its metrics are written to.

    Returns:
        Seconds that it took.

    Raises:
        UsageError: It failed; shows the end of what it printed.
    """
    export.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (
        tempfile.TemporaryFile() as output,
        _started(trial, _environment(trial, export), output.fileno()) as process,
    ):
        code = process.wait()
        output.seek(0)
        lines = output.read().decode(errors="replace").splitlines()[-_SHOWN:]
    if code != 0:
        shown = "\n".join(f"  {line}" for line in lines)
        raise UsageError(f"the {trial.side} ended with exit code {code}: {trial.command}\n{shown}".rstrip())
    return time.monotonic() - began


@contextlib.contextmanager
def _started(trial: Trial, env: Mapping[str, str], output: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program in a session of its own, of which nothing is left when this ends."""
    process = subprocess.Popen(
        trial.command,
        shell=True,
        cwd=trial.folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:  # kindly first
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
        with contextlib.suppress(ProcessLookupError):  # and what it left behind
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment(trial: Trial, export: Path) -> dict[str, str]:
    """Give the variables of a run: metrics to files, no traces, and the code of its side first."""
    env = {name: value for name, value in os.environ.items() if not _says_where_telemetry_goes(name)}
    env[DIRECTORY_VARIABLE] = str(export)
    env["OTEL_TRACES_EXPORTER"] = "none"
    run = f"{PIPELINE_RUN_ID}=ab-{trial.side}-{uuid4().hex}"
    env[_RESOURCE] = ",".join(filter(None, (env.get(_RESOURCE), run)))
    env["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), env.get("PATH", os.defpath)))
    if trial.root is not None:
        env["PYTHONPATH"] = os.pathsep.join(_search_path(trial.root, env.get("PYTHONPATH", "")))
    return env


def _says_where_telemetry_goes(name: str) -> bool:
    return name in ("OTEL_SDK_DISABLED", CONFIG_FILE) or (name.startswith("OTEL_") and "EXPORTER" in name)


def _search_path(root: Path, current: str) -> Iterator[str]:
    """Give where modules are found: below the root first, and there too for what is in the repository here."""
    source = root / "src"
    yield str(source if source.is_dir() else root)
    here = _toplevel(Path.cwd())
    for entry in filter(None, current.split(os.pathsep)):
        inside = here is not None and Path(entry).absolute().is_relative_to(here)
        yield str(root / Path(entry).absolute().relative_to(here)) if here is not None and inside else entry


def find_commit(reference: str) -> str | None:
    """Give the commit that a reference of the repository here names; None where there is none."""
    done = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{reference}^{{commit}}")
    return done.stdout.strip() if done.returncode == 0 else None


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Have a commit in a folder of its own, which is gone afterwards.

    Args:
        commit: The commit, of the repository of the working directory.

    Yields:
        The root of its files.

    Raises:
        UsageError: Git cannot check it out.
    """
    with tempfile.TemporaryDirectory(prefix="aetherflow-ab-") as temporary:
        root = Path(temporary) / "baseline"
        try:
            done = _git("worktree", "add", "--detach", "--quiet", str(root), commit)
            if done.returncode != 0:
                raise UsageError(f"git cannot check out {commit}: {done.stderr.strip()}")
            yield root
        finally:
            _git("worktree", "remove", "--force", str(root))


def toplevel() -> Path:
    """Give the root of the repository of the working directory; that itself where it is in none."""
    return _toplevel(Path.cwd()) or Path.cwd()


def _toplevel(folder: Path) -> Path | None:
    done = _git("-C", str(folder), "rev-parse", "--show-toplevel")
    return Path(done.stdout.strip()) if done.returncode == 0 and done.stdout.strip() else None


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git, out of reach of an interrupt from the terminal, so that cleaning up is not cut short."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, start_new_session=True)
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, 127, "", "git is not installed")
