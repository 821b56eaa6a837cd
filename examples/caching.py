"""Remember what was computed (缓存策略).

Each thread has a service with a cache of its own, so no lock is needed; the price is that each computes for itself.
"""

import hashlib
import threading
from functools import lru_cache

from dependency_injector import providers

from aetherflow import BaseFlowContext, configure, node


class CacheOptimizedService:
    """A service that caches."""

    def __init__(self):
        self.computation_cache = {}
        self.cache_stats = {"hits": 0, "misses": 0}

    @lru_cache(maxsize=1000)  # noqa: B019  # keeps the service alive, which lives as long as its thread anyway
    def expensive_computation(self, input_key: str):
        """Compute something costly, with an LRU cache."""
        digest = hashlib.pbkdf2_hmac("sha256", input_key.encode(), b"salt", 50_000).hex()
        return f"computed_{input_key}_{digest[:8]}"

    def cached_lookup(self, key):
        """Cache by hand."""
        if key in self.computation_cache:
            self.cache_stats["hits"] += 1
            return self.computation_cache[key]

        self.cache_stats["misses"] += 1
        result = self.expensive_computation(key)
        self.computation_cache[key] = result
        return result


class CachedContext(BaseFlowContext):
    cached_service = providers.ThreadLocalSingleton(CacheOptimizedService)


@node
def cache_aware_processor(data, cached_service: CacheOptimizedService):
    """Process what may be cached."""
    results = []

    for item in data["items"]:
        # Nothing is computed twice.
        result = cached_service.cached_lookup(item["key"])
        results.append({"key": item["key"], "result": result})

    return {"results": results, "cache_stats": cached_service.cache_stats}


def main():
    context = CachedContext()
    data = {"items": [{"key": key} for key in ("user", "order", "user", "invoice", "order")]}

    first = cache_aware_processor.run(data, context)
    print(f"first result: {first['results'][0]}")
    print(f"after 1 run: {first['cache_stats']}")  # the service's own mapping: it goes on counting
    print(f"after 2 runs: {cache_aware_processor.run(data, context)['cache_stats']}")

    def elsewhere():
        print(f"another thread: {cache_aware_processor.run(data, context)['cache_stats']}")

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()


if __name__ == "__main__":
    with configure(service_name="caching"):
        main()
