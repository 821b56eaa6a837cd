"""Programs in processes of their own, without the time that a new interpreter takes to import the package.

One interpreter per test process has imported the package and nothing else. Each program runs in a fork of it, with its
own folder, variables and output, and exits as a normal interpreter does. On a system without fork it is a new
interpreter. Variables that Python or a library reads when it starts, such as `PYTHONUTF8`, have no effect.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["run_program"]

_SERVER = """
import faulthandler, json, os, runpy, signal, sys
import aetherflow

os.environ.clear()
for line in sys.stdin:
    job = json.loads(line)
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    signal.alarm(job["timeout"])  # ends a program that hangs; faulthandler shows where, on its stderr
    faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
    for number, name in ((0, os.devnull), (1, job["out"]), (2, job["err"])):
        opened = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.argv[:] = job["argv"]
    sys.path[0] = job["path"]
    if job["module"]:
        runpy.run_module(job["module"], run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = type(sys)("__main__")
        main.__file__ = job["argv"][0]
        exec(compile(job["code"], job["argv"][0], "exec"), vars(main))
    break
"""


class _Server:
    """The interpreter that has imported the package."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that it can be killed with the programs that it has started
        )
        atexit.register(self.close)

    def run(self, job: Mapping[str, object]) -> int:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            status = self._process.stdout.readline()
            if not status:
                raise RuntimeError(f"the warm interpreter has ended with {self._process.wait(5)}")
            return int(status)
        except BaseException:  # a time limit of the test, say: the next job gets another server
            _server.cache_clear()
            self.close()
            raise

    def close(self) -> None:
        """End the server and the program that it waits for."""
        atexit.unregister(self.close)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


@cache
def _server(process: int) -> _Server:
    return _Server()


def run_program(
    program: Path | str,
    *arguments: str,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: int = 50,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with warnings as errors.

    Args:
        program: The file of the program, its text, or `-m` and the name of a module.
        arguments: Its arguments.
        cwd: Its folder; this process's if left out.
        env: Its environment variables; this process's if left out.
        timeout: Seconds after which SIGALRM ends it, with a trace of every thread on its stderr.
    """
    module = program.removeprefix("-m ") if isinstance(program, str) and program.startswith("-m ") else ""
    env = dict(os.environ if env is None else env)
    if not hasattr(os, "fork"):
        start = ["-m", module] if module else [str(program)] if isinstance(program, Path) else ["-c", program]
        command = [sys.executable, "-W", "error", *start, *arguments]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    name = str(program) if isinstance(program, Path) else "-c"
    code = "" if module else program.read_text("utf-8") if isinstance(program, Path) else program
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        job = {
            "module": module,
            "code": code,
            "argv": [name, *arguments],
            "path": str(program.parent) if isinstance(program, Path) else "",
            "out": str(out),
            "err": str(err),
            "cwd": str(cwd or Path.cwd()),
            "env": env,
            "timeout": timeout,
        }
        returncode = _server(os.getpid()).run(job)
        output = [file.read_text("utf-8", errors="replace") if file.exists() else "" for file in (out, err)]
    return subprocess.CompletedProcess([name, *arguments], returncode, *output)
