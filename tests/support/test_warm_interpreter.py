"""Programs in forks of the warm interpreter behave as programs of a new interpreter do."""

from __future__ import annotations

import os
import signal

import pytest
from tests.support.warm_interpreter import run_program


def test_output_code_and_arguments_are_the_programs(tmp_path):
    """A program has its own arguments, folder, variables and output, and its exit code is reported."""
    program = (
        "import os, sys; print(sys.argv[1:], os.getcwd(), sorted(os.environ)); print('e', file=sys.stderr); sys.exit(7)"
    )
    done = run_program(program, "a", "b", cwd=tmp_path, env={"ONLY": "1"})
    assert done.returncode == 7
    assert done.stdout.startswith(f"['a', 'b'] {tmp_path} ['ONLY'")
    assert done.stderr == "e\n"


def test_a_time_limit_ends_a_program():
    """A program that does not end is killed after its time limit, and stderr shows where it was."""
    done = run_program("import threading; threading.Event().wait()", timeout=1)
    assert done.returncode == -signal.SIGALRM
    assert "in wait" in done.stderr


def test_a_server_that_was_killed_is_replaced():
    """A program that kills the interpreter it was forked from fails alone; the next one runs."""
    with pytest.raises(RuntimeError, match="the warm interpreter has ended with -9"):
        run_program("import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
    assert run_program("print('next')").stdout == "next\n"


def test_an_interrupted_call_leaves_nothing_for_the_next():
    """After an interrupted call the next program gets its own exit code, and the interrupted program is gone."""

    def interrupt(number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(TimeoutError):
            run_program(f"import os, time; os.kill({os.getpid()}, {signal.SIGUSR1}); time.sleep(30)")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert run_program("import sys; sys.exit(9)").returncode == 9
