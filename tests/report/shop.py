"""A shop's flows, run for real, with everything that a report shows: python tests/report/shop.py FOLDER [RUNS]."""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aetherflow import BatchPolicy, CachePolicy, HealthMonitor, ProfilePolicy, configure, node

MARKUP = "</script><script>window.broken = true</script>"
_chance = random.Random(7)


class OutOfStockError(Exception):
    """There is no more of something."""


def _work(milliseconds: float) -> None:
    end = time.perf_counter() + milliseconds / 1e3
    while time.perf_counter() < end:
        sum(number * number for number in range(200))


@node
def load_orders(day: int) -> list[int]:
    _work(2)
    return [day * 8 + number for number in range(8)]


@node(cache=CachePolicy(ttl=60))
def find_customer(customer: int) -> str:
    time.sleep(0.003)
    return f"customer {customer}"


@node(batch=BatchPolicy(size=4, max_wait=0.01))
def look_up_stock(orders: list[int]) -> list[int]:
    time.sleep(0.002 + 0.0005 * len(orders))
    return [order % 7 for order in orders]


@node(profile=ProfilePolicy(profiler="sampling"))
def price(order: int) -> float:
    _work(3 + order % 5 * 4)
    return order * 1.5


@node
def check(order: int) -> int:
    find_customer(order % 5)
    stock = look_up_stock(order)
    if stock == 0 and _chance.random() < 0.12:
        raise OutOfStockError(f"order {order}: nothing left of it {MARKUP}")
    return order


@node
def read_orders(parallel_results: dict[str, int]) -> list[int]:
    return list(parallel_results.values())


@node
def invoice(orders: Sequence[int]) -> int:
    _work(4)
    return len(orders)


@node
def label(orders: Sequence[int]) -> int:
    time.sleep(0.006)
    return len(orders)


@node
def ship(parallel_results: dict[str, int]) -> int:
    _work(1)
    return sum(parallel_results.values())


def run(folder: Path, runs: int = 12, **options: Any) -> None:
    """Run the shop's flows so often, and export what they emit to a folder."""
    import os

    os.environ["AETHER_EXPORT_DIRECTORY"] = str(folder)
    prices = (load_orders >> [price] * 4 >> read_orders).named("prices")
    day = (load_orders >> [check] * 4 >> read_orders >> [invoice, label] >> ship).named("ship-orders")
    with configure(service_name="shop", health=HealthMonitor(window=60.0), exporter="file", **options):
        for number in range(runs):
            with contextlib.suppress(OutOfStockError, ExceptionGroup):
                day.run({"day": number})
            if number % 4 == 0:
                prices.run({"day": number})


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 12)
