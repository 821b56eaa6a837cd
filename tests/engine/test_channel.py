"""Channels between stages: what is sent is received, in order, a bounded number at a time, by threads and tasks."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow.engine.buffering import Channel

COUNT = 20_000


def send(channel: Channel, items: range) -> int:
    for number, item in enumerate(items):
        if not channel.send(item):
            return number
    channel.end()
    return len(items)


def asend(channel: Channel, items: range) -> int:
    async def main() -> int:
        for number, item in enumerate(items):
            if not await channel.asend(item):
                return number
        channel.end()
        return len(items)

    return asyncio.run(main())


def receive(channel: Channel) -> list[Any]:
    return list(iter_of(channel))


def iter_of(channel: Channel) -> Any:
    while True:
        try:
            item = channel.receive()
        except StopIteration:
            return
        yield item


def areceive(channel: Channel) -> list[Any]:
    async def main() -> list[Any]:
        found = []
        while True:
            try:
                found.append(await channel.areceive())
            except StopAsyncIteration:
                return found

    return asyncio.run(main())


@pytest.mark.parametrize("sender", [send, asend])
@pytest.mark.parametrize("receiver", [receive, areceive])
@pytest.mark.parametrize("size", [1, 2, 100])
def test_every_item_arrives_in_order(
    sender: Callable[[Channel, range], int], receiver: Callable[[Channel], list[Any]], size: int
) -> None:
    """Between two threads, two loops, or one of each, nothing is lost, doubled or overtaken."""
    channel = Channel(size)
    count = COUNT if size > 2 else COUNT // 20
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(sender, channel, range(count))
        assert receiver(channel) == list(range(count))
        assert sent.result() == count


@given(size=st.integers(1, 5), steps=st.lists(st.sampled_from(["send", "receive"])))
def test_it_holds_what_a_bounded_queue_holds(size: int, steps: list[str]) -> None:
    """Against a list: sending waits where it is full, receiving waits where it is empty, and both are woken."""
    channel = Channel(size)
    model: list[int] = []

    async def main() -> None:
        sending: asyncio.Task[bool] | None = None
        for number, step in enumerate(steps):
            if step == "send" and sending is None:
                sending = asyncio.create_task(channel.asend(number))
                model.append(number)
                await asyncio.sleep(0)
                assert sending.done() == (len(model) <= size)
                sending = None if sending.done() else sending
            elif step == "receive" and model:
                assert await channel.areceive() == model.pop(0)
                if sending is not None and len(model) <= size // 2 + 1:
                    assert await sending
                    sending = None
            elif step == "receive":
                receiving = asyncio.create_task(channel.areceive())
                await asyncio.sleep(0)
                assert not receiving.done()
                assert await channel.asend(number)
                assert await receiving == number
        for item in model:
            assert await channel.areceive() == item
        assert sending is None or await sending
        channel.end()
        with pytest.raises(StopAsyncIteration):
            await channel.areceive()

    asyncio.run(main())


def test_an_error_arrives_after_the_items_and_once() -> None:
    """What was sent before is received first; after the error there is nothing more."""
    channel = Channel(3)
    channel.send(1)
    channel.end(KeyError("gone"))
    assert channel.receive() == 1
    with pytest.raises(KeyError):
        channel.receive()
    with pytest.raises(StopIteration):
        channel.receive()


@pytest.mark.parametrize("waiting", ["sender", "receiver"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_cut_wakes_whoever_waits(waiting: str, apart: bool) -> None:
    """A sender learns that nobody receives; a receiver is told as a suspended generator would be."""
    channel = Channel(1)

    def receiving() -> str:
        try:
            asyncio.run(channel.areceive()) if apart else channel.receive()
        except GeneratorExit:
            return "cut"
        return "received"

    with ThreadPoolExecutor(1) as threads:
        if waiting == "sender":
            found = threads.submit(asend if apart else send, channel, range(9))
            while channel._sender is None:
                gc.collect()  # gives the thread time
        else:
            found = threads.submit(receiving)
            while channel._receiver is None:
                gc.collect()
        channel.cut()
        assert found.result() == (1 if waiting == "sender" else "cut")
    assert not channel.send(1)
    with pytest.raises(GeneratorExit):
        channel.receive()


def test_a_channel_may_be_cut_by_a_finalizer_within_it() -> None:
    """The garbage collector runs anywhere, in a thread that is sending too."""
    channel = Channel(5)

    class Cuts:
        def __del__(self) -> None:
            channel.cut()

    with channel._lock:
        Cuts()
    assert channel.is_cut


def test_a_sender_that_is_interrupted_leaves_the_channel_as_it_was() -> None:
    """A cancelled task that waited for room has sent nothing; the next one can."""
    channel = Channel(1)

    async def main() -> None:
        await channel.asend(1)
        waiting = asyncio.create_task(channel.asend(2))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert await channel.areceive() == 1
        assert await channel.asend(3)
        assert await channel.areceive() == 3

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("aetherflow-stream")]
