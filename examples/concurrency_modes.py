"""Choose the concurrency mode by the scenario (场景驱动的模式选择).

Frequent, light work gets an object a thread, so that nothing is locked; rare, heavy work shares one object that is
costly to make. Every span says which it was: `aetherflow.provider.scope` is `thread_local` or `singleton`.
"""

import threading

from dependency_injector import providers

from aetherflow import BaseFlowContext, configure, node

THREADS = 4
CALLS = 250


class FastProcessor:
    """Counts words; it keeps a tally without a lock, which is right as long as one thread has it to itself."""

    def __init__(self):
        self.calls = 0

    def fast_process(self, data):
        self.calls += 1
        return len(data.split())


class ExpensiveResource:
    """The primes below 100,000: costly to find, cheap to ask, never changed, and so safe to share."""

    def __init__(self):
        sieve = bytearray([1]) * 100_000
        sieve[:2] = b"\0\0"
        for number in range(2, 317):
            if sieve[number]:
                sieve[number * number :: number] = bytes(len(range(number * number, len(sieve), number)))
        self.sieve = sieve

    def heavy_process(self, data):
        return sum(self.sieve[:data])


# Frequent and light: isolated by thread.
class HighFrequencyContext(BaseFlowContext):
    """The context for frequent work."""

    state = providers.ThreadLocalSingleton(dict)
    processor = providers.ThreadLocalSingleton(FastProcessor)


@node
def high_frequency_task(data, processor: FastProcessor):
    # Light, and called thousands of times a second.
    return processor.fast_process(data)


# Rare and heavy: sharing is fine.
class LowFrequencyContext(BaseFlowContext):
    """The context for rare work."""

    # Made without a lock: threads that race to the first use may make two. Where that hurts: ThreadSafeSingleton.
    expensive_resource = providers.Singleton(ExpensiveResource)


@node
def low_frequency_task(data, expensive_resource: ExpensiveResource):
    # Heavy, and called a few times a minute.
    return expensive_resource.heavy_process(data)


def main():
    frequent = HighFrequencyContext()
    used = []

    def worker():
        for _ in range(CALLS):
            high_frequency_task.run({"data": "the quick brown fox"}, frequent)
        used.append(frequent.processor())

    threads = [threading.Thread(target=worker) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{THREADS} threads, each {CALLS} light calls: {len(set(used))} processors")
    print(f"calls counted by each, without a lock: {[processor.calls for processor in used]}")

    rare = LowFrequencyContext()
    for limit in (100, 1_000, 100_000):
        print(f"primes below {limit:,}: {low_frequency_task.run({'data': limit}, rare):,}")
    print(f"all by the same resource: {rare.expensive_resource() is rare.expensive_resource()}")


if __name__ == "__main__":
    with configure(service_name="concurrency-modes"):
        main()
