"""Object pools under load: threads and async tasks at once, and not one object or operation unaccounted for."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Final

import pytest

from aetherflow.resources.pooling import ObjectPool

pytestmark = pytest.mark.stress

THREADS: Final = 16
TASKS: Final = 5
OPERATIONS: Final = 100_000


class Tally:
    """Counts its uses without a lock, which is right only while it has one holder at a time."""

    def __init__(self) -> None:
        self.holder: int | None = None
        self.uses = 0
        self.resets = 0
        self.closed = 0
        self.fails = cycle([False] * 99 + [True])

    def use(self) -> None:
        assert self.holder is None
        self.holder = threading.get_ident()
        uses = self.uses
        assert self.holder == threading.get_ident()
        self.uses = uses + 1
        self.holder = None

    def reset(self) -> None:
        self.resets += 1
        if next(self.fails):
            raise OSError("worn out")

    def close(self) -> None:
        self.closed += 1


def lease(pool: ObjectPool[Tally], count: int) -> None:
    for _ in range(count):
        with pool.lease() as tally:
            tally.use()


def acquire(pool: ObjectPool[Tally], count: int) -> None:
    for _ in range(count):
        tally = pool.acquire()
        try:
            tally.use()
        finally:
            pool.release(tally)


def lease_in_tasks(pool: ObjectPool[Tally], count: int) -> None:
    async def task() -> None:
        for number in range(count // TASKS):
            async with pool.lease() as tally:
                tally.use()
                if number % 10 == 0:  # held on to while the other tasks run
                    await asyncio.sleep(0)

    async def tasks() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(task())

    asyncio.run(tasks())


@pytest.fixture(autouse=True)
def _restless() -> Iterator[None]:
    """Have threads take turns far more often than they usually do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("block", [True, False])
def test_nothing_is_lost_or_shared_under_load(block: bool, caplog: pytest.LogCaptureFixture) -> None:
    """16 threads, half of them with event loops, do 100,000 operations; every use, object and discard adds up."""
    caplog.set_level("CRITICAL")
    made: list[Tally] = []

    def make() -> Tally:
        made.append(Tally())
        return made[-1]

    pool = ObjectPool(make, max_size=8, block=block)
    work = [lease, lease_in_tasks, acquire, lease_in_tasks] * (THREADS // 4)
    with ThreadPoolExecutor(THREADS) as threads:
        for done in [threads.submit(each, pool, OPERATIONS // THREADS) for each in work]:
            done.result()

    statistics = pool.statistics()
    assert (statistics.used, statistics.waiting, statistics.timeouts) == (0, 0, 0)
    assert statistics.acquired == sum(tally.uses for tally in made) == sum(tally.resets for tally in made) == OPERATIONS
    assert statistics.created == len(made) == statistics.idle + sum(statistics.discarded.values())
    assert statistics.discarded.get("reset", 0) == sum(tally.resets // 100 for tally in made)
    assert set(statistics.discarded) <= ({"reset"} if block else {"reset", "full"})
    pool.close()
    assert [tally.closed for tally in made] == [1] * len(made)
