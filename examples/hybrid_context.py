"""Mix modes by what each resource needs (混合模式优化).

Session, cache and model are a thread's own; the database pool is shared. The handler looks into its thread's cache,
then asks the database over a pooled connection, then the model. The data are Fisher's irises (1936).

The database is an SQLite file, or PostgreSQL where `DATABASE_DSN` names one (`pip install "psycopg[binary]"`). All but
the making of a connection is the same code.
"""

import os
import secrets
import sqlite3
import tempfile
import threading
from collections import OrderedDict
from contextlib import closing
from math import dist
from pathlib import Path

from dependency_injector import providers

from aetherflow import BaseFlowContext, ObjectPool, configure, node

LABELLED = {
    "setosa": [(5.1, 3.5, 1.4, 0.2), (4.9, 3.0, 1.4, 0.2), (4.7, 3.2, 1.3, 0.2)],
    "versicolor": [(7.0, 3.2, 4.7, 1.4), (6.4, 3.2, 4.5, 1.5), (6.9, 3.1, 4.9, 1.5)],
    "virginica": [(6.3, 3.3, 6.0, 2.5), (7.1, 3.0, 5.9, 2.1), (6.5, 3.0, 5.8, 2.2)],
}
"""What the model learns from: sepal length and width, petal length and width, in cm."""
UNLABELLED = [(5.0, 3.6, 1.4, 0.2), (5.5, 2.3, 4.0, 1.3), (6.3, 2.9, 5.6, 1.8)]
"""What is in the database."""
REQUESTS = [
    {"id": 1, "query": "SELECT * FROM iris WHERE petal_length < 2"},
    {"id": 2, "query": "SELECT * FROM iris WHERE petal_length >= 2 ORDER BY petal_length"},
    {"id": 1, "query": "SELECT * FROM iris WHERE petal_length < 2"},
]


class LRUCache:
    """Keeps what was used last; without a lock, as it belongs to one thread."""

    def __init__(self, maxsize=128):
        self.maxsize = maxsize
        self.entries = OrderedDict()
        self.hits = 0

    def has(self, key):
        return key in self.entries

    def get(self, key):
        self.hits += 1
        self.entries.move_to_end(key)
        return self.entries[key]

    def set(self, key, value):
        self.entries[key] = value
        self.entries.move_to_end(key)
        if len(self.entries) > self.maxsize:
            self.entries.popitem(last=False)


class Connection:
    """A connection of either driver; it may move between threads, but only one uses it at a time."""

    def __init__(self, driver):
        self.driver = driver

    def query(self, sql):
        return self.driver.execute(sql).fetchall()

    def is_alive(self):
        """Asked before it is lent again: a server may have hung up meanwhile."""
        return self.query("SELECT 1") == [(1,)]

    def reset(self):
        """Called when it comes back: nobody sees what another has left unfinished."""
        self.driver.rollback()

    def close(self):
        self.driver.close()


class SQLite:
    """A file in a folder of its own."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()

    def connect(self):
        return Connection(sqlite3.connect(Path(self.folder.name, "iris.db"), check_same_thread=False))

    def clean_up(self):
        self.folder.cleanup()


class PostgreSQL:
    """A schema of its own in the database that there is."""

    def __init__(self, dsn):
        import psycopg

        self.driver = psycopg
        self.dsn = dsn
        self.schema = f"hybrid_context_{secrets.token_hex(4)}"
        self.execute(f"CREATE SCHEMA {self.schema}")

    def connect(self):
        return Connection(self.driver.connect(self.dsn, options=f"-c search_path={self.schema}"))

    def clean_up(self):
        self.execute(f"DROP SCHEMA {self.schema} CASCADE")

    def execute(self, sql):
        with self.driver.connect(self.dsn) as connection:
            connection.execute(sql)


class DatabaseConnectionPool:
    """Lends connections to the database, at most four at a time."""

    def __init__(self):
        dsn = os.environ.get("DATABASE_DSN")
        self.database = PostgreSQL(dsn) if dsn else SQLite()
        self.connections = ObjectPool(
            self.database.connect, max_size=4, block=True, timeout=5.0, validate=Connection.is_alive, name="database"
        )
        with self.connections.lease() as conn:
            columns = ("sepal_length", "sepal_width", "petal_length", "petal_width")
            conn.driver.execute(f"CREATE TABLE iris ({', '.join(f'{name} FLOAT8' for name in columns)})")
            conn.driver.execute(f"INSERT INTO iris VALUES {', '.join(map(str, UNLABELLED))}")
            conn.driver.commit()

    def get_connection(self):
        return self.connections.lease()

    def close(self):
        self.connections.close()
        self.database.clean_up()


class RedisClient:
    """The part of a key-value client that is of use here, in memory."""

    def __init__(self):
        self.values = {}

    def get(self, key):
        return self.values.get(key)

    def set(self, key, value):
        self.values[key] = value


class MLInferenceModel:
    """A nearest-centroid classifier: learns the mean of each species, then names the nearest one."""

    def __init__(self):
        self.centroids = {
            species: tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))
            for species, rows in LABELLED.items()
        }

    def predict(self, rows):
        return [min(self.centroids, key=lambda species: dist(self.centroids[species], row)) for row in rows]


class HybridOptimizedContext(BaseFlowContext):
    """The mixed context."""

    # Used all the time: isolated by thread.
    user_session: providers.Provider[dict[str, str]] = providers.ThreadLocalSingleton(dict)
    request_cache = providers.ThreadLocalSingleton(LRUCache)

    # Shared resources: one, with a pool of connections.
    database_pool = providers.Singleton(DatabaseConnectionPool)
    redis_client = providers.Singleton(RedisClient)

    # Heavy services: isolated by thread, so that nobody waits for a lock.
    ml_model = providers.ThreadLocalSingleton(MLInferenceModel)


@node
def optimized_request_handler(
    request_data,
    user_session: dict[str, str],
    request_cache: LRUCache,
    database_pool: DatabaseConnectionPool,
    ml_model: MLInferenceModel,
):
    """Handle one request."""
    # The thread's own cache is the fastest.
    cache_key = f"req_{request_data['id']}"
    if request_cache.has(cache_key):
        return request_cache.get(cache_key)

    # Ask the database over the shared pool.
    with database_pool.get_connection() as conn:
        db_data = conn.query(request_data["query"])

    # Infer with the thread's own model.
    inference_result = ml_model.predict(db_data)

    # Remember the result.
    result = {"inference": inference_result, "db_data": db_data}
    request_cache.set(cache_key, result)

    return result


def main():
    context = HybridOptimizedContext()
    answers = {}

    def worker(name):
        # The whole mapping goes to the first parameter; the other four are filled from the context.
        answers[name] = [optimized_request_handler.run(request, context) for request in REQUESTS]
        answers[name].append(context.request_cache().hits)

    with closing(context.database_pool()) as pool:
        threads = [threading.Thread(target=worker, args=[name]) for name in ("first", "second")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statistics = pool.connections.statistics()
        print(f"database: {type(pool.database).__name__}")
    for name in ("first", "second"):
        *results, hits = answers[name]
        print(f"{name} thread: {[result['inference'] for result in results]}, of these from its cache: {hits}")
    print(f"6 requests, 2 caches, 1 pool: {statistics.acquired - 1} queries")  # one more made the table
    print(f"connections: {statistics.created} made, {statistics.idle} idle, {statistics.used} in use")


if __name__ == "__main__":
    with configure(service_name="hybrid-context"):
        main()
