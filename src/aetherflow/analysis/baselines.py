"""Runs that are kept to compare later ones with: one file for each kind of machine, one line a run."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aetherflow.analysis.metrics import Job, read_jobs
from aetherflow.analysis.otlp_files import UnreadableTelemetryError
from aetherflow.analysis.otlp_writing import job_line
from aetherflow.telemetry.conventions import PIPELINE_RUN_ID, VCS_REVISION

__all__ = ["BaselineFile", "Machine", "add_runs", "find_baselines", "prune_runs", "this_machine"]

_SUFFIX: Final = ".baseline.jsonl"
_REVISIONS: Final = ("GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT", "BUILDKITE_COMMIT", "CIRCLE_SHA1")
"""Where CI systems say which commit they run."""


@dataclass(frozen=True, slots=True, order=True)
class Machine:
    """A kind of machine, within which runs can be compared; each part is safe in a file name.

    Attributes:
        runner: The class of the runner, such as ``github-linux-x64``.
        python: The implementation and version of Python, such as ``cpython-3.11``.
        cpu: The processor and how many there are, such as ``amd-epyc-7763-4``.
    """

    runner: str
    python: str
    cpu: str

    def __str__(self) -> str:
        return f"{self.runner}, {self.python}, {self.cpu}"


@dataclass(frozen=True, slots=True)
class BaselineFile:
    """The runs of one kind of machine."""

    machine: Machine
    path: Path

    def jobs(self) -> list[Job]:
        """Read the runs, by start."""
        return read_jobs([self.path])


def this_machine(environ: Mapping[str, str], *, runner: str | None = None) -> Machine:
    """Tell what kind of machine this is.

    Args:
        environ: The environment variables, in which CI systems describe their runners.
        runner: The class of the runner, where it is known better.
    """
    version = f"{platform.python_implementation()}-{sys.version_info.major}.{sys.version_info.minor}"
    cpu = f"{_processor()}-{os.cpu_count() or 1}"
    return Machine(*map(_slug, (runner or _runner(environ), version, cpu)))


def _runner(environ: Mapping[str, str]) -> str:
    if "GITHUB_ACTIONS" in environ:
        return "github-" + "-".join(filter(None, map(environ.get, ("RUNNER_OS", "RUNNER_ARCH", "ImageOS"))))
    if "GITLAB_CI" in environ:
        return "gitlab-" + (environ.get("CI_RUNNER_TAGS") or environ.get("CI_RUNNER_EXECUTABLE_ARCH") or "runner")
    return f"{platform.system()}-{platform.machine()}"


def _processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower().replace("(r)", "").replace("(tm)", "")).strip("-.") or "unknown"


def find_baselines(folder: Path) -> list[BaselineFile]:
    """Find the baselines that are kept in a folder.

    Args:
        folder: The folder; one that is not there has none.

    Returns:
        The baselines, by machine.
    """
    found = folder.glob(f"*/*/*{_SUFFIX}")
    files = (
        BaselineFile(Machine(path.parent.parent.name, path.parent.name, path.name.removesuffix(_SUFFIX)), path)
        for path in found
    )
    return sorted(files, key=lambda file: file.machine)


def add_runs(folder: Path, machine: Machine, jobs: Iterable[Job], environ: Mapping[str, str]) -> list[Job]:
    """Append runs to the baseline of a machine; those that are in it already are left out.

    Args:
        folder: Where baselines are kept.
        machine: What they ran on.
        jobs: The runs.
        environ: The environment variables, in which CI systems tell the commit.

    Returns:
        Those that were appended.

    Raises:
        UnreadableTelemetryError: The file cannot be read or written.
    """
    file = BaselineFile(machine, folder / machine.runner / machine.python / f"{machine.cpu}{_SUFFIX}")
    known = {job.name for job in file.jobs()} if file.path.exists() else set()
    revision = next((environ[name] for name in _REVISIONS if environ.get(name)), None)
    added, lines = [], []
    for job in jobs:
        name = _name(job)
        if name not in known:
            known.add(name)
            added.append(job)
            told = dict(job.resource).get(VCS_REVISION) or revision
            lines.append(job_line(job, {PIPELINE_RUN_ID: name} | ({VCS_REVISION: str(told)} if told else {})))
    try:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        if file.path.exists() and not file.path.read_bytes().endswith(b"\n"):
            _rewrite(file, file.jobs())  # whoever wrote last was killed: a line added to the rest of that would be lost
        with file.path.open("a", encoding="utf-8") as stream:
            stream.write("".join(lines))
    except OSError as error:
        raise UnreadableTelemetryError(file.path, None, error.strerror or str(error)) from error
    return added


def prune_runs(file: BaselineFile, keep: int) -> int:
    """Forget the oldest runs of a baseline.

    Args:
        file: The baseline.
        keep: How many are kept.

    Returns:
        How many were forgotten.

    Raises:
        UnreadableTelemetryError: The file cannot be read or written.
    """
    jobs = file.jobs()
    kept = jobs[max(0, len(jobs) - keep) :]
    if len(kept) < len(jobs):
        _rewrite(file, kept)
    return len(jobs) - len(kept)


def _rewrite(file: BaselineFile, jobs: Iterable[Job]) -> None:
    """Write a file anew beside the old one, and let it take its place at once: nobody reads half of it."""
    fresh = file.path.with_name(f"{file.path.name}.new")
    try:
        with fresh.open("w", encoding="utf-8") as stream:
            stream.writelines(job_line(job, {}) for job in jobs)
        fresh.replace(file.path)
    except OSError as error:
        raise UnreadableTelemetryError(fresh, None, error.strerror or str(error)) from error


def _name(job: Job) -> str:
    """Name a run for good: files of the same name come again, but not with the same start."""
    if dict(job.resource).get(PIPELINE_RUN_ID):
        return job.name
    return f"{Path(job.name).name}-{job.started}"
