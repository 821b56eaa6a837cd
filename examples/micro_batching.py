"""Callers that each have one order, and one transaction for many of them.

The guide's batches are cut by hand out of a list that is there already; see batching.py. Here the orders come one by
one, from tasks, threads and runs that know nothing of each other.
"""

import asyncio
import sqlite3
import threading

from dependency_injector import providers

from aetherflow import BaseFlowContext, BatchItemError, BatchPolicy, configure, node


class Orders:
    """A table in memory, and how many transactions were committed to it."""

    def __init__(self):
        self.sqlite = sqlite3.connect(":memory:", check_same_thread=False)
        self.sqlite.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY)")
        self.lock = threading.Lock()
        self.commits = 0

    def insert(self, numbers):
        with self.lock, self.sqlite as transaction:
            transaction.executemany("INSERT INTO orders VALUES (?)", [(number,) for number in numbers])
            self.commits += 1

    def count(self):
        return self.sqlite.execute("SELECT count(*) FROM orders").fetchone()[0]


class ShopContext(BaseFlowContext):
    orders = providers.Singleton(Orders)


# The function takes a list; the node takes one. What is injected is shared by the batch.
@node(batch=BatchPolicy(size=100, max_wait=0.05))
def place(numbers: list[int], orders: Orders) -> list[str | BatchItemError]:
    """Place orders, one transaction for all of them; whoever ordered nothing is told so."""
    orders.insert([number for number in numbers if number])
    return [f"order-{number:04}" if number else BatchItemError("no number") for number in numbers]


def main():
    context = ShopContext()
    orders = context.orders()

    placed = list(place.run_many(range(1, 251), context))
    print(f"{len(placed)} runs, from {placed[0]} to {placed[-1]}: {orders.commits} transactions")

    async def customers():
        return await asyncio.gather(*[place.arun({"numbers": number}, context) for number in range(251, 301)])

    orders.commits = 0
    print(f"{len(asyncio.run(customers()))} tasks: {orders.commits} transaction, not full, begun after 50 ms")

    async def some_wrong():
        # 7 is in the table already: the transaction fails, and each item is tried alone. 0 is refused for itself.
        numbers = (301, 7, 0, 302)
        runs = [place.arun({"numbers": number}, context) for number in numbers]
        return await asyncio.gather(*runs, return_exceptions=True)

    results = asyncio.run(some_wrong())
    print(", ".join(result if isinstance(result, str) else type(result).__name__ for result in results))
    print(f"orders in the table: {orders.count()}")

    statistics = place.batcher.statistics()
    print(f"batches: {statistics.batches}, full: {statistics.full}, tried item by item: {statistics.retried}")
    print(f"items: {statistics.ended}, failed: {statistics.failed}")
    orders.sqlite.close()


if __name__ == "__main__":
    with configure(service_name="micro-batching"):
        main()
