"""Work in batches (批处理优化).

Every operation here pays for a transaction. Item by item that is one for each; in batches one for a hundred.
"""

import sqlite3
from math import ceil

from aetherflow import configure, node


class Orders:
    """A table in memory, and how many transactions were committed to it."""

    def __init__(self):
        self.sqlite = sqlite3.connect(":memory:")
        self.sqlite.execute("CREATE TABLE orders (number INTEGER, label TEXT)")
        self.commits = 0

    def insert(self, numbers):
        rows = [(number, f"order-{number:04}") for number in numbers]
        with self.sqlite as transaction:
            transaction.executemany("INSERT INTO orders VALUES (?, ?)", rows)
        self.commits += 1
        return [label for _, label in rows]


orders = Orders()


def expensive_operation(item):
    return orders.insert([item])[0]


def expensive_batch_operation(batch):
    return orders.insert(batch)


# Slow: one by one.
@node
def inefficient_processor(data_items):
    results = []
    for item in data_items["items"]:
        result = expensive_operation(item)  # pays the overhead every time
        results.append(result)
    return {"results": results}


# Fast: in batches.
@node
def batch_optimized_processor(data_items, batch_size=100):
    """Process in batches."""
    results = []
    items = data_items["items"]

    for i in range(0, len(items), batch_size):
        batch = items[i : i + batch_size]
        # One batch pays the overhead once.
        batch_results = expensive_batch_operation(batch)
        results.extend(batch_results)

    # Not the guide's `len(results) // batch_size + 1`: that counts one too many where the last batch is full.
    return {"results": results, "batches_processed": ceil(len(results) / batch_size)}


def main():
    items = list(range(250))

    slow = inefficient_processor.run({"items": items})
    one_by_one, orders.commits = orders.commits, 0
    print(f"one by one: {len(slow['results'])} results, {one_by_one} transactions")

    fast = batch_optimized_processor.run({"items": items})
    print(f"in batches: {len(fast['results'])} results, {orders.commits} transactions")
    print(f"batches processed: {fast['batches_processed']}")
    print(f"same results: {slow['results'] == fast['results']}")

    # With the input named, the other parameters can be given too.
    smaller = batch_optimized_processor.run({"data_items": {"items": items}, "batch_size": 50})
    print(f"batches of 50: {smaller['batches_processed']}")
    orders.sqlite.close()


if __name__ == "__main__":
    with configure(service_name="batching"):
        main()
