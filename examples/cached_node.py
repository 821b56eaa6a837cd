"""Results that are kept: by a node itself, and by a cache that is injected.

The guide writes a cache by hand, one a thread; see caching.py. A cached node computes a key once also when many ask for
it at the same moment, and says on each span whether the result was there.
"""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from dependency_injector import providers

from aetherflow import BaseFlowContext, CachePolicy, CacheService, configure, node

computed: list[str] = []


def expensive_computation(input_key: str) -> str:
    computed.append(input_key)
    return hashlib.pbkdf2_hmac("sha256", input_key.encode(), b"salt", 50_000).hex()[:8]


@node(cache=CachePolicy(maxsize=1000, ttl=60))
def fingerprint(key: str) -> str:
    """Compute something costly, once a key and minute."""
    return expensive_computation(key)


# A list has no hash, and the order of tags does not matter: `key` says what does.
@node(cache=CachePolicy(key=frozenset))
def tag_line(tags: list[str]) -> str:
    """Join tags, in the order they were first asked for."""
    return ", ".join(tags)


class SharedContext(BaseFlowContext):
    cache = providers.Singleton(CacheService[str], maxsize=1000, ttl=60, name="fingerprints")


@node
def fingerprints(keys: list[str], cache: CacheService[str]) -> list[str]:
    """Look many keys up within one execution, in a cache of the context."""
    return [cache.get_or_compute(key, partial(expensive_computation, key)) for key in keys]


def main():
    start = threading.Barrier(8)

    def ask(key):
        start.wait()  # all at once, so that nobody finds it there
        return fingerprint(key)

    with ThreadPoolExecutor(8) as threads:
        answers = set(threads.map(ask, ["user"] * 8))
    print(f"8 threads ask at once: {len(answers)} answer, computed {len(computed)} time")

    fingerprint("user")
    fingerprint.cache.invalidate("user")
    fingerprint("user")
    print(f"invalidated, it is computed again: {len(computed)} times")
    statistics = fingerprint.cache.statistics()
    print(f"requests: {statistics.requests}, computed: {statistics.misses}, entries: {statistics.entries}")

    print(f"tags: {tag_line(['a', 'b'])} and {tag_line(['b', 'a'])}")

    context = SharedContext()
    computed.clear()
    fingerprints.run({"keys": ["user", "order", "user"]}, context)
    fingerprints.run({"keys": ["order", "invoice"]}, context)
    shared = context.cache().statistics()
    print(f"injected: {shared.requests} requests, {shared.hits} hits, computed {computed}")


if __name__ == "__main__":
    with configure(service_name="cached-node"):
        main()
