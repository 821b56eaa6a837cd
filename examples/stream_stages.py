"""Pull items through stages, one by one: nothing is held but what is on its way.

Three generator nodes read an access log, take its lines apart and keep what failed. A function at the end counts them;
or a consumer takes as many as it wants and leaves, and every stage cleans up. With a buffer each stage is on a thread
of its own. What is written to a database goes there in batches.
"""

import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

from aetherflow import configure, node

closed: list[str] = []
transactions: Counter[str] = Counter()
database = sqlite3.connect(":memory:", check_same_thread=False)  # batches may be written on another thread


@node
def lines(path):
    """Read a file, line by line."""
    with path.open() as log:
        try:
            yield from log
        finally:
            closed.append("lines")


@node
def requests(lines):
    """Take each line apart."""
    try:
        for line in lines:
            method, target, status = line.split()
            yield method, target, int(status)
    finally:
        closed.append("requests")


@node
def failures(requests):
    """Keep what failed."""
    for method, target, status in requests:
        if status >= 500:
            yield f"{method} {target}"


@node
def count(failures):
    """Take it all in."""
    return sum(1 for _ in failures)


@node
def store(batch):
    """Write a batch in one transaction, and hand it on."""
    with database:
        database.executemany("INSERT INTO failures VALUES (?)", [(target,) for target in batch])
    transactions.update(store=1)
    return batch


failing = (lines >> requests >> failures).named("failing")


def write_access_log(path):
    """Write 5,000 requests, every tenth of which failed."""
    with path.open("w") as log:
        for number in range(5_000):
            log.write(f"GET /items/{number} {503 if number % 10 == 0 else 200}\n")


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "access.log")
        write_access_log(path)

        print(f"failures: {failing.then(count).run({'path': path})}")
        closed.clear()

        with failing.stream({"path": path}) as items:
            print(f"the first one: {next(items)}")
        print(f"closed early: {closed}")

        made_ahead = failing.stream({"path": path}, buffer=100)
        print(f"the same number on three threads: {sum(1 for _ in made_ahead)}")

        database.execute("CREATE TABLE failures (target)")
        stored = failing.map_batches(store, 200).then(count).run({"path": path})
        print(f"stored: {stored} in {transactions['store']} transactions")
    database.close()


if __name__ == "__main__":
    with configure(service_name="stream-stages"):
        main()
