"""Worker processes of this machine, started afresh rather than forked: threads and locks do not survive a fork."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Final

from aetherflow.config import perf_config
from aetherflow.engine.backends.worker import execute

__all__ = ["ProcessBackend"]

GRACE: Final = 2.0
"""Seconds that workers get to end by themselves when the process leaves."""


class ProcessBackend:
    """A pool of ``AETHER_THREAD_POOL_SIZE`` processes, made on first use and anew after a worker was lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        # An atexit handler would come too late: the interpreter first joins the pool's own thread, which waits for
        # whatever still runs.
        threading._register_atexit(self._leave)  # type: ignore[attr-defined]  # not public, nor has it a substitute

    def submit(self, payload: bytes) -> Future[bytes]:
        """Have a worker process carry out an execution."""
        with self._lock:
            if self._pool is not None:
                try:
                    return self._pool.submit(execute, payload)
                except BrokenProcessPool:  # a worker died since
                    pass
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(perf_config.thread_pool_size, context, _prepare)
            return self._pool.submit(execute, payload)

    def _leave(self) -> None:
        """End the workers: those that are idle by themselves, so that their contexts are closed, others by force."""
        pool = self._pool
        if pool is None:
            return
        running = {process.sentinel: process for process in list((pool._processes or {}).values())}
        pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + GRACE
        while running and (left := deadline - time.monotonic()) > 0:
            for sentinel in wait(list(running), left):
                del running[sentinel]  # type: ignore[arg-type]  # it was given to wait()
        for process in running.values():
            process.kill()


def _prepare() -> None:
    """Make a worker leave with its parent, however that ends, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), name="aetherflow-follow", daemon=True).start()


def _follow(parent: int) -> None:
    wait([parent])
    os._exit(1)
