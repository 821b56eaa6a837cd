"""Never run: what type checkers must see of a flow, taking what its first node takes, giving what its last gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, assert_type

from aetherflow import BaseFlowContext, Node, Stream, node


@node
def parse(text: str) -> list[int]:
    return [int(word) for word in text.split()]


@node
def total(numbers: list[int]) -> int:
    return sum(numbers)


@node
async def largest(numbers: list[int]) -> float:
    return float(max(numbers))


@node
def report(parallel_results: Mapping[str, Any]) -> str:
    return str(parallel_results)


@node
def digits(number: int) -> bytes:
    return str(number).encode()


class Context(BaseFlowContext):
    pass


# --- sequences ---------------------------------------------------------------------------------------------
assert_type((parse >> total)("1 2"), int)
assert_type(parse.then(total).run({"text": "1 2"}), int)
assert_type((parse >> total >> digits).run("1 2", Context()), bytes)
assert_type((parse >> total).run("1 2", Context), int)
assert_type(parse.then(total).named("sum of words").execute("1 2").output, int)
assert_type((parse >> largest).run("1 2"), float)
assert_type((parse >> largest)("1 2"), float)
assert_type((largest >> digits)([1, 2]), bytes)
assert_type(parse.func("1"), list[int])
takes_what_the_first_takes: Callable[[str], bytes] = parse >> total >> digits

(parse >> total)(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
parse.then(len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
refused = parse >> len  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]


# --- run inputs that no parameter takes --------------------------------------------------------------------
assert_type((parse >> total).run({"text": "1"}, extra_inputs="ignore"), int)
assert_type((parse >> total).named("sum", extra_inputs="ignore").execute("1", extra_inputs="raise").output, int)
assert_type(parse.run_many(["1"], extra_inputs=None), Iterator[list[int]])
parse.run("1", extra_inputs="drop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
parse.named("parse", extra_inputs=False)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
parse.run("1", None, "ignore")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
assert_type((parse >> total).to_mermaid(context=Context()), str)
assert_type((parse >> total).to_dot(Context), str)


# --- side by side ------------------------------------------------------------------------------------------
assert_type((parse >> [total, largest]).run("1 2"), dict[str, Any])
assert_type(parse.fan_out_to([total, largest], max_workers=2, on_error="collect").run("1 2"), dict[str, Any])
assert_type((parse >> [total, largest] >> report).run("1 2"), str)
assert_type(parse.fan_out_to([digits] * 4, split=False).fan_in(report).run("1 2"), str)
assert_type(parse.fan_out_in([total, largest], report)("1 2"), str)
assert_type((parse >> [digits] * 4 >> report)("1 2"), str)
parse.fan_out_to([total], on_error="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
parse.fan_out_to([len])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
parse.fan_out_to([total]).fan_in("report")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- elements, branches, loops -----------------------------------------------------------------------------
assert_type(parse.map(digits, max_concurrency=2).run("1 2"), list[bytes])
assert_type((parse >> total).repeat(3, until=bool)("1"), int)
assert_type(parse.branch_on({"empty": report}, default=total).run("1 2"), Any)
assert_type((parse >> [digits]).map(largest).run("1 2"), list[float])
parse.map(str)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
parse.repeat("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- streams, and so many elements at a time ---------------------------------------------------------------
@node
def words(path: str) -> Iterator[str]:
    yield from path.split()


@node
async def words_apart(path: str) -> AsyncIterator[str]:
    yield path


@node
def lengths(batch: list[str]) -> list[int]:
    return [len(word) for word in batch]


@node
async def lengths_apart(batch: list[str]) -> list[int]:
    return [len(word) for word in batch]


@node
def longest(sizes: Iterator[int]) -> int:
    return max(sizes)


assert_type((words >> longest).run("a b"), int)
assert_type(words.chunked(100).run("a b"), Iterator[list[str]])
assert_type(words_apart.chunked(100).stream("a b", buffer=4), Stream[list[str]])
assert_type(parse.chunked().run("1 2"), list[list[int]])
assert_type(words.map_batches(lengths, 100).run("a b"), Iterator[int])
assert_type(words_apart.map_batches(lengths_apart, 100).stream("a b"), Stream[int])
assert_type(parse.map_batches(lengths, 100).run("1 2"), list[int])
assert_type((parse.chunked(2) >> [total] * 4).run("1 2"), dict[str, Any])
total.chunked(100)  # type: ignore[misc]  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
words.map_batches(total)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
words.chunked("100")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


# --- many runs, and running aside --------------------------------------------------------------------------
assert_type((parse >> total).run_many(["1 2", "3"], Context(), max_workers=2), Iterator[int])
assert_type((parse >> largest).run_many([{"text": "1"}]), Iterator[float])


async def drive() -> None:
    assert_type(await (parse >> total).arun("1 2"), int)
    assert_type(await (parse >> largest).arun("1 2"), float)
    assert_type((await (parse >> total >> digits).aexecute("1")).output, bytes)


nested: Node[[str], str] = (parse >> total).named("inner") >> report
assert_type(nested.run("1"), str)
