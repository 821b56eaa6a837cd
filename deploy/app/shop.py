"""A small shop that uses every part of AetherFlow, for as long as it is left to: something to look at.

Customers order: some have no money, the clerk does not always listen, and prices are asked for over and over. Stop it
with SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dependency_injector import providers

from aetherflow import (
    BaseFlowContext,
    BatchPolicy,
    CachePolicy,
    HealthMonitor,
    ObjectPool,
    RetryPolicy,
    configure,
    node,
    perf_monitor,
)

CUSTOMERS = 3
INATTENTION = 0.2


class Connection:
    """What asking the stock takes; there are few of them."""

    def amount(self, item: str) -> int:
        """Ask how many there are."""
        time.sleep(random.uniform(0.001, 0.02))
        return len(item)


class Clerk:
    """Works on one thread at a time."""

    def rate(self, item: str) -> float:
        """Say how well an item is liked."""
        return len(item) / 10


class ShopContext(BaseFlowContext):
    """What the shop's nodes are injected with, in several scopes."""

    connections = providers.Singleton(ObjectPool[Connection], Connection, max_size=2, block=True, name="connections")
    clerk = providers.ThreadLocalSingleton(Clerk)


@node
def receive(item: str, money: int) -> str:
    """Take an order."""
    if money < 1:
        raise ValueError("no money")
    return item


@node(cache=CachePolicy(maxsize=100, ttl=5))
def price(receive: str) -> int:
    """Look the price up."""
    time.sleep(0.002)
    return 10 * len(receive)


@node
def stock(receive: str, connections: ObjectPool[Connection]) -> int:
    """Ask the stock, over a connection of the pool."""
    with connections.lease() as connection:
        return connection.amount(receive)


@node(retry=RetryPolicy(TimeoutError, attempts=3, wait_initial=0.001, wait_max=0.002, wait_jitter=0))
def rating(receive: str, clerk: Clerk) -> float:
    """Ask a clerk, who does not always listen."""
    if random.random() < INATTENTION:
        raise TimeoutError("the clerk did not listen")
    return clerk.rate(receive)


@node(batch=BatchPolicy(size=10, max_wait=0.01))
def place(offers: list[Mapping[str, Any]]) -> list[str]:
    """Place the orders of many customers at once."""
    with perf_monitor.measure("place"):
        return [f"order of {len(offer)}" for offer in offers]


@node
def items(shelf: int) -> Iterator[str]:
    """Yield what is on a shelf."""
    for number in range(shelf):
        yield f"item {number}"


@node
def labels(items: Iterator[str]) -> Iterator[str]:
    """Label each."""
    for item in items:
        yield item.upper()


order = (receive >> [price, stock, rating] >> place).named("order")
inventory = (items >> labels).named("inventory")


def customer(context: ShopContext, closing: threading.Event) -> None:
    """Order, and look at the shelves, until the shop closes."""
    while not closing.wait(random.uniform(0.005, 0.03)):
        wanted = {"item": f"item {random.randrange(20)}", "money": random.randrange(20)}
        try:
            order.run(wanted, context)
        except (ValueError, TimeoutError):
            continue  # seen in the telemetry
        for _ in inventory.stream({"shelf": 5}, context):
            pass


@contextmanager
def served(monitor: HealthMonitor) -> Iterator[None]:
    """Answer probes, where the environment says at which address."""
    if host := os.environ.get("PROBES_HOST"):
        from aetherflow.serving import serve

        with serve(host, int(os.environ.get("PROBES_PORT", "8080")), monitor=monitor):
            yield
    else:
        yield


def main() -> None:
    """Keep the shop open."""
    closing = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: closing.set())
    monitor = HealthMonitor()
    with configure(service_name="shop", health=monitor), served(monitor):
        context = ShopContext()
        customers = [threading.Thread(target=customer, args=(context, closing)) for _ in range(CUSTOMERS)]
        for each in customers:
            each.start()
        while not closing.wait(1):  # so that signals are seen
            pass
        for each in customers:
            each.join()


if __name__ == "__main__":
    main()
