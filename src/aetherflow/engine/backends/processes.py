"""Worker processes of this machine, started afresh rather than forked: threads and locks do not survive a fork."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Final

from aetherflow.config import perf_config
from aetherflow.engine.backends.worker import execute
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.metrics import gauges

__all__ = ["ProcessBackend"]

_ATTRIBUTES: Final = {names.EXECUTOR_NAME: "process"}

GRACE: Final = 2.0
"""Seconds that workers get to end by themselves when the process leaves."""


class ProcessBackend:
    """A pool of ``AETHER_THREAD_POOL_SIZE`` processes, made on first use and anew after a worker was lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._unfinished: set[Future[bytes]] = set()
        gauges.observe(names.EXECUTOR_QUEUE, self, _queue_readings)
        gauges.observe(names.EXECUTOR_WORKERS, self, _worker_readings)
        self._owner = os.getpid()
        # An atexit handler would come too late: the interpreter first joins the pool's own thread, which waits for
        # whatever still runs.
        threading._register_atexit(self._leave)  # type: ignore[attr-defined]  # not public, nor has it a substitute

    def submit(self, payload: bytes) -> Future[bytes]:
        """Have a worker process carry out an execution."""
        future = self._submitted(payload)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    def load(self) -> tuple[int, int]:
        """Return how many workers there are, and how many executions are not done."""
        pool = self._pool
        if os.getpid() != self._owner:  # a forked child can neither look at its parent's workers nor call them its own
            return 0, 0
        return 0 if pool is None else len(_processes(pool)), len(self._unfinished)

    def _submitted(self, payload: bytes) -> Future[bytes]:
        with self._lock:
            # A worker that has ended was killed: its pool is about to find out, and loses what it is given till then.
            if self._pool is not None and all(process.is_alive() for process in _processes(self._pool)):
                with suppress(BrokenProcessPool):
                    return self._pool.submit(execute, payload)
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(perf_config.thread_pool_size, context, _prepare)
            return self._pool.submit(execute, payload)

    def cancel(self, future: Future[bytes]) -> bool:
        """Take an execution out of the queue."""
        return future.cancel()

    def _leave(self) -> None:
        """End the workers: those that are idle by themselves, so that their contexts are closed, others by force."""
        pool = self._pool
        if pool is None or os.getpid() != self._owner:  # a forked child leaves its parent's workers alone
            return
        running = {process.sentinel: process for process in _processes(pool)}
        pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + GRACE
        while running and (left := deadline - time.monotonic()) > 0:
            for sentinel in wait(list(running), left):
                del running[sentinel]  # type: ignore[arg-type]  # it was given to wait()
        for process in running.values():
            process.kill()


def _queue_readings(backend: ProcessBackend) -> list[gauges.Reading]:
    workers, unfinished = backend.load()
    return [(max(unfinished - workers, 0), _ATTRIBUTES)] if workers else []


def _worker_readings(backend: ProcessBackend) -> list[gauges.Reading]:
    workers, unfinished = backend.load()
    used = min(unfinished, workers)
    states = {"idle": workers - used, "used": used} if workers else {}
    return [(count, {**_ATTRIBUTES, names.EXECUTOR_STATE: state}) for state, count in states.items()]


def _processes(pool: ProcessPoolExecutor) -> list[BaseProcess]:
    found: dict[int, BaseProcess] | None = pool._processes  # type: ignore[assignment]  # none after it broke
    return list((found or {}).values())


def _prepare() -> None:
    """Make a worker leave with its parent, however that ends, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), name="aetherflow-follow", daemon=True).start()


def _follow(parent: int) -> None:
    wait([parent])
    os._exit(1)
