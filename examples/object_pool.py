"""Lend objects instead of making them (内存池管理).

The guide writes an `ObjectPool` of its own; AetherFlow has it, with the same `acquire` and `release`. Released objects
are `reset()` and lent again.
"""

import zlib

from dependency_injector import providers

from aetherflow import BaseFlowContext, ObjectPool, configure, node


def expensive_processing(data):
    return len(zlib.compress(data.encode(), level=9))


class PooledProcessor:
    """A processor that can be lent over and over."""

    def __init__(self):
        self.operation_count = 0
        self.temporary_data = []

    def process(self, data):
        """Process data."""
        self.operation_count += 1
        self.temporary_data.append(data)

        # The work itself.
        return expensive_processing(data)

    def reset(self):
        """Make ready for the next one."""
        self.temporary_data.clear()
        # operation_count stays, for statistics.


class MemoryOptimizedContext(BaseFlowContext):
    """A context that saves memory."""

    processor_pool = providers.Singleton(ObjectPool, factory_func=PooledProcessor, max_size=8)


@node
def memory_efficient_processor(data, processor_pool: ObjectPool[PooledProcessor]):
    """Process with a borrowed processor."""
    processor = processor_pool.acquire()

    try:
        result = processor.process(data)
        return {"result": result, "processor_operations": processor.operation_count}
    finally:
        processor_pool.release(processor)


@node
def leasing_processor(data, processor_pool: ObjectPool[PooledProcessor]):
    """The same with a lease, which cannot be forgotten."""
    with processor_pool.lease() as processor:
        return {"result": processor.process(data), "processor_operations": processor.operation_count}


def main():
    context = MemoryOptimizedContext()
    pool = context.processor_pool()

    for _ in range(20):
        latest = memory_efficient_processor.run({"data": "aether" * 100}, context)
    print(f"20 runs in turn: {pool.statistics().created} processor, {latest['processor_operations']} operations")
    print(f"600 characters, compressed: {latest['result']} bytes")

    with pool.lease() as processor, pool.lease():
        print(f"what the last run left in it: {processor.temporary_data}")
        leasing_processor.run({"data": "flow"}, context)
        print(f"two more held meanwhile: {pool.statistics().created} processors, {pool.statistics().used} in use")
    print(f"all back: {pool.statistics().idle} idle, {pool.statistics().used} in use")


if __name__ == "__main__":
    with configure(service_name="object-pool"):
        main()
