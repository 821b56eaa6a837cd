"""Workers of a Ray cluster: the one that is connected, or else one on this machine."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import ray

from aetherflow.engine.backends.worker import execute

__all__ = ["RayBackend"]


class RayBackend:
    """The connected cluster; without one, what ``ray.init()`` gives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # An execution whose worker dies may have had effects: it is not begun again.
        self._execute = ray.remote(max_retries=0)(execute)

    def submit(self, payload: bytes) -> Future[bytes]:
        """Have a worker of the cluster carry out an execution."""
        with self._lock:
            if not ray.is_initialized():
                ray.init()
        reference = self._execute.remote(payload)
        future: Future[bytes] = reference.future()
        future.add_done_callback(lambda done: ray.cancel(reference) if done.cancelled() else None)
        return future
