"""Workers of a Dask cluster: the client's that is current, or else a cluster on this machine."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import dask
import distributed

from aetherflow.config import perf_config
from aetherflow.engine.backends.worker import execute

__all__ = ["DaskBackend"]


class DaskBackend:
    """The current client's cluster; without one, ``AETHER_THREAD_POOL_SIZE`` processes of one thread each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own: distributed.Client | None = None

    def submit(self, payload: bytes) -> Future[bytes]:
        """Have a worker of the cluster carry out an execution."""
        future: Future[bytes] = self._client().get_executor(pure=False).submit(execute, payload)
        return future

    def _client(self) -> distributed.Client:
        with self._lock:
            try:
                return distributed.default_client()
            except ValueError:  # there is none
                pass
            # An execution whose worker dies may have had effects: it is not begun again.
            dask.config.set({"distributed.scheduler.allowed-failures": 0})
            cluster = distributed.LocalCluster(
                n_workers=perf_config.thread_pool_size, threads_per_worker=1, processes=True, dashboard_address=None
            )
            self._own = distributed.Client(cluster)
            return self._own
