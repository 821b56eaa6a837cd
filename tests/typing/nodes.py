"""Never run: what type checkers must see of a node. mypy and pyright both read this file.

A line with an ignore is a mistake that both must find: an ignore that is no longer needed is itself an error.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any, assert_type

from aetherflow import Batcher, BatchItemError, BatchPolicy, CachePolicy, CacheService, Node, RetryPolicy, Stream, node


# --- a function keeps its parameters and its return type ---------------------------------------------------
@node
def scale(value: int, /, factor: float = 2.0, *, label: str = "") -> float:
    return value * factor


assert_type(scale(1), float)
assert_type(scale(1, 3.0, label="x"), float)
assert_type(scale.func(1, factor=3.0), float)
assert_type(scale.run({"value": 1}), float)
assert_type(scale.execute({"value": 1}).output, float)
assert_type(scale.name, str)
keeps_its_signature: Callable[[int, float], float] = scale

scale()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
scale("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
scale(1, again=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
scale(value=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
scale(1, 2.0, "x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
scale.func("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- so it does with options -------------------------------------------------------------------------------
@node(name="read file", retry=RetryPolicy(on=OSError), timeout=1.5)
def read(path: str, size: int = -1) -> bytes:
    return path.encode()[:size]


assert_type(read("a", size=3), bytes)
read(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
node(nam="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
node(1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


# --- and called with a function and options -------------------------------------------------------------------
def _read(path: str, size: int = -1) -> bytes:
    return path.encode()[:size]


async def _fetch(path: str) -> bytes:
    return path.encode()


def _look_up(keys: list[str], strict: bool = True) -> list[int]:
    return [len(key) for key in keys]


assert_type(node(_read, name="read")("a", size=3), bytes)
assert_type(node(_read, name="read", expected=FileNotFoundError).run({"path": "a"}), bytes)
assert_type(node(_fetch, name="fetch", expected=(KeyError, OSError)).run({"path": "a"}), bytes)
assert_type(node(_look_up, name="look up", batch=BatchPolicy(size=2)).run({"keys": "a"}), int)
node(_read, name="read")(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
node(_read, expected="KeyError")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


# --- a function that returns anything is taken for no coroutine function -----------------------------------
@node
def load(path: str) -> Any:
    return path


assert_type(load("a"), Any)  # pyright: ignore[reportAssertTypeFailure, reportUnusedCoroutine]  # pyright takes the first overload
assert_type(load.run({"path": "a"}), Any)
assert_type((load >> read).run({"path": "a"}), bytes)


# --- async: a call is awaited, and run() gives the result, not a coroutine ----------------------------------
@node
async def fetch(url: str, *, limit: int = 10) -> list[str]:
    return [url] * limit


@node(name="fetch again")
async def fetch_again(url: str) -> list[str]:
    return [url]


assert_type(fetch.run({"url": "u"}), list[str])
assert_type(fetch.execute({"url": "u"}).output, list[str])
assert_type(fetch_again.run({"url": "u"}), list[str])
fetch(1)  # type: ignore[arg-type, unused-coroutine]  # pyright: ignore[reportArgumentType, reportUnusedCoroutine]


async def drive() -> None:
    assert_type(await fetch("u", limit=2), list[str])
    assert_type(await fetch_again("u"), list[str])
    assert_type(await fetch.arun({"url": "u"}), list[str])
    assert_type((await fetch.aexecute({"url": "u"})).output, list[str])
    assert_type(await scale.arun({"value": 1}), float)
    assert_type((await scale.aexecute({"value": 1})).output, float)
    async for item in numbers_apart.astream({"count": 3}):
        assert_type(item, int)
    async for item in numbers.astream({"count": 3}):
        assert_type(item, int)
    async for number in numbers_apart(3):
        assert_type(number, int)


# --- generators: streams of their items --------------------------------------------------------------------
@node
def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@node
async def numbers_apart(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


assert_type(numbers(3), Iterator[int])
assert_type(numbers_apart(3), AsyncIterator[int])
assert_type(numbers.stream({"count": 3}, buffer=8), Stream[int])
assert_type(numbers_apart.astream({"count": 3}, buffer=8), AsyncGenerator[int, None])
with numbers_apart.stream({"count": 3}) as stream:
    assert_type(next(stream), int)
    assert_type(stream.take(2), list[int])
for streamed in numbers.stream({"count": 3}):
    assert_type(streamed, int)
for streamed in numbers_apart.stream({"count": 3}):
    assert_type(streamed, int)
numbers("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- methods: bound like methods ---------------------------------------------------------------------------
class Model:
    @node
    def predict(self, row: list[float], *, top: int = 1) -> str:
        return str(row[:top])

    @node(name="predict later")
    async def predict_later(self, row: list[float]) -> str:
        return str(row)


model = Model()
assert_type(model.predict([1.0], top=2), str)
assert_type(model.predict.run({"row": [1.0]}), str)
assert_type(model.predict_later.run({"row": [1.0]}), str)
assert_type(Model.predict(model, [1.0]), str)
model.predict()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
model.predict("row")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
model.predict([1.0], 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# --- a node is generic in what it takes and gives ----------------------------------------------------------
def twice(step: Node[[int], int]) -> Node[[int], int]:
    return step >> step


@node
def successor(value: int) -> int:
    return value + 1


@node
async def waiting(value: int) -> int:
    return value


assert_type(twice(successor)(1), int)
any_flow: Node[..., object, object] = fetch
twice(waiting)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
twice(read)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- a cached node is typed as without the cache -----------------------------------------------------------
@node(cache=CachePolicy(ttl=60))
def area(width: int, height: int = 1) -> int:
    return width * height


assert_type(area(1, height=2), int)
assert_type(area.cache.invalidate(1), bool)
assert_type(area.cache.statistics().hits, int)
area("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
node(cache=60)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
assert_type(CacheService[int]().get_or_compute("a", lambda: 1), int)


# --- a batched node takes one item where its function takes a list, and gives one result --------------------
@node(batch=BatchPolicy(size=100))
def embed(texts: list[str], scale: float = 1.0) -> list[bytes | BatchItemError]:
    return [text.encode() for text in texts]


assert_type(embed("a"), bytes)
assert_type(embed("a", 2.0), bytes)
assert_type(embed.run("a"), bytes)
embed(["a"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
embed(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@node(batch=BatchPolicy(), name="embed apart")
async def embed_apart(texts: list[str]) -> list[bytes]:
    return [text.encode() for text in texts]


async def drive_batches() -> None:
    assert_type(await embed_apart("a"), bytes)
    assert_type(await embed_apart.arun("a"), bytes)
    assert_type(await embed.arun("a"), bytes)


class Classifier:
    @node(batch=BatchPolicy())
    def classify(self, rows: list[list[float]]) -> list[str]:
        return [str(row) for row in rows]


assert_type(Classifier().classify([1.0]), str)
Classifier().classify("row")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def lengths(words: list[str]) -> list[int | BatchItemError]:
    return [len(word) for word in words]


assert_type(Batcher(lengths, 10).run("a"), int)


def one_result(words: list[str]) -> int:
    return len(words)


node(batch=BatchPolicy())(one_result)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
