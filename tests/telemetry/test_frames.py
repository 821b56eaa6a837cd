"""Looking at what threads are at, without stopping them."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

from aetherflow.telemetry.frames import current_frames


def test_every_thread_is_told() -> None:
    """Each by its identifier, with the frame it is in."""
    entered, leave = threading.Event(), threading.Event()

    def inside() -> None:
        entered.set()
        leave.wait(30)

    thread = threading.Thread(target=inside)
    thread.start()
    assert entered.wait(30)
    frames = current_frames()
    leave.set()
    thread.join()
    frame = frames[thread.ident or 0]
    while frame.f_code is not inside.__code__:
        assert frame.f_back is not None
        frame = frame.f_back
    assert threading.get_ident() in frames


def test_collections_go_on_as_they_were() -> None:
    """Held off for the moment, never left off, and not turned on where the host has turned them off."""
    current_frames()
    assert gc.isenabled()
    gc.disable()
    try:
        current_frames()
        assert not gc.isenabled()
    finally:
        gc.enable()


PROGRAM = """
import gc, sys
from aetherflow.telemetry.frames import current_frames

class Garbage:
    def __init__(self):
        self.itself = self
    def __del__(self):
        sys._current_frames()  # needs the lock that the interpreter holds while it lists frames

gc.set_threshold(1, 1, 1)
for _ in range(2000):
    Garbage()
    current_frames()
print("done")
"""


def test_a_garbage_collection_does_not_stop_the_process() -> None:
    """Whatever finalizers do: CPython 3.11 would wait for itself for good."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")
