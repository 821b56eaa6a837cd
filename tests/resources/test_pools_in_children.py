"""Object pools in forked children, which must not touch what their parent uses."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

COMMON = """
import asyncio, gc, os, threading
from aetherflow.resources.pooling import ObjectPool, PoolReleaseError

class Connection:
    def __init__(self):
        self.made_by = os.getpid()
        self.resets = 0

    def reset(self):
        self.resets += 1

    def close(self):
        assert self.made_by == os.getpid(), "closed by a child"

    def __del__(self):
        self.close()

def in_child(check):
    if (child := os.fork()) == 0:
        status = 1
        try:
            check()
            gc.collect()
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0

"""


def run(code: str) -> None:
    """Run a program that forks."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", COMMON + code]
    done = subprocess.run(command, check=False, timeout=50, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_child_starts_with_an_empty_pool():
    """The child makes objects of its own, counts from nothing, and never gets an idle object of its parent."""
    run("""
pool = ObjectPool(Connection, 2, block=True, timeout=1)
pool.release(pool.acquire())
before = pool.statistics()

def check():
    statistics = pool.statistics()
    counts = (statistics.idle, statistics.used, statistics.waiting, statistics.created, statistics.acquired)
    assert counts == (0, 0, 0, 0, 0)
    assert statistics.discarded == {}
    leases = [pool.acquire(), pool.acquire()]
    assert [each.made_by for each in leases] == [os.getpid()] * 2
    for each in leases:
        pool.release(each)
    assert pool.statistics().idle == 2
    pool.close()

in_child(check)
assert pool.statistics() == before
assert pool.acquire().made_by == os.getpid()
""")


def test_what_threads_of_the_parent_hold_takes_no_room_in_a_child():
    """Objects that other threads hold, callers that wait, and a lock that another thread holds are not in the child."""
    run("""
pool = ObjectPool(Connection, 1, block=True, timeout=1)
held, go = threading.Event(), threading.Event()

def hold():
    with pool.lease():
        held.set()
        go.wait()

def wait():
    ObjectPool.acquire(pool)

threads = [threading.Thread(target=hold)]
threads[0].start()
held.wait()
pool._timeout = 30
threads.append(threading.Thread(target=wait))
threads[1].start()
while not pool.statistics().waiting:
    pass
pool._timeout = 1

def check():
    with pool.lease() as connection:
        assert connection.made_by == os.getpid()
    assert (pool.statistics().waiting, pool.statistics().idle) == (0, 1)

with pool._lending._lock:
    in_child(check)
assert (pool.statistics().waiting, pool.statistics().used) == (1, 1)
go.set()
for thread in threads:
    thread.join()
""")


def test_what_the_forking_thread_holds_can_be_released_in_a_child():
    """Releasing an inherited object changes nothing: it is not reset, not closed and not lent, in either process."""
    run("""
pool = ObjectPool(Connection, 3, block=True, timeout=1)
acquired = pool.acquire()
resets = acquired.resets

with pool.lease() as leased:
    def check():
        pool.release(acquired)
        try:
            pool.release(acquired)
        except PoolReleaseError as error:
            assert "was released already" in str(error)
        else:
            raise AssertionError("released twice")
        assert pool.statistics().idle == pool.statistics().used == 0
        assert acquired.resets == resets
        assert pool.acquire().made_by == os.getpid()
        in_child(lambda: None)

    in_child(check)
    assert pool.statistics().used == 2

lease = pool.lease()
lease.__enter__()

def end():
    lease.__exit__(None, None, None)
    assert pool.statistics().idle == 0

in_child(end)
lease.__exit__(None, None, None)

async def main():
    lease = pool.lease()
    await lease.__aenter__()
    if os.fork() == 0:
        await lease.__aexit__(None, None, None)
        os._exit(0 if pool.statistics().idle == 0 else 1)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    await lease.__aexit__(None, None, None)

asyncio.run(main())
pool.release(acquired)
pool.close()
""")


def test_a_lease_that_is_lost_in_a_child_frees_no_room():
    """A lease of the parent that is garbage collected in the child is no object of the child's pool."""
    run("""
pool = ObjectPool(Connection, 1, block=True, timeout=1)
leases = [pool.lease()]
leases[0].__enter__()

def check():
    import warnings
    warnings.simplefilter("ignore", ResourceWarning)
    leases.clear()
    gc.collect()
    pool.acquire()
    assert dict(pool.statistics().discarded) == {}
    assert (pool.statistics().used, pool._lending._rooms) == (1, 1)

in_child(check)
leases[0].__exit__(None, None, None)
""")


def test_a_fork_in_the_factory_leaves_a_pool_that_works():
    """A factory that forks makes an object for each of the two processes."""
    run("""
children = []

def fork_and_connect():
    if not children:
        children.append(os.fork())
    return Connection()

pool = ObjectPool(fork_and_connect, 1, block=True, timeout=0)
connection = pool.acquire()
assert (pool.statistics().used, pool._lending._rooms) == (1, 1)
pool.release(connection)
assert pool.statistics().idle == 1
if children[0] == 0:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
""")
