"""Run nodes from asynchronous code (异步集成优化).

A bare `run_in_executor` does not take the context along: what runs on the other thread knows nothing of the span it
belongs to and begins a trace of its own. Running in a copy of the context keeps one trace; `arun` does so by itself.
"""

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor

from opentelemetry import trace

from aetherflow import configure, node


@node
def heavy_sync_processor(data):
    """Sum squares, and say which trace that was in."""
    return {"value": sum(n * n for n in range(data)), "trace_id": trace.get_current_span().get_span_context().trace_id}


class AsyncIntegrationService:
    """The guide's service."""

    def __init__(self):
        self.executor = ThreadPoolExecutor(max_workers=4)

    async def async_operation(self, data):
        """Run a node without blocking the loop."""
        loop = asyncio.get_event_loop()

        # Run the synchronous AetherFlow node on a thread.
        return await loop.run_in_executor(self.executor, lambda: heavy_sync_processor.run({"data": data}))


class TracedIntegrationService(AsyncIntegrationService):
    """The same with two lines changed."""

    async def async_operation(self, data):
        """Run a node without blocking the loop, in the caller's trace."""
        loop = asyncio.get_event_loop()

        context = contextvars.copy_context()  # one for each call: two threads cannot be in the same copy
        return await loop.run_in_executor(self.executor, lambda: context.run(heavy_sync_processor.run, {"data": data}))


def bridge(service, data):
    async def async_wrapper():
        tasks = []

        # Make the operations.
        for item in data["items"]:
            task = service.async_operation(item)
            tasks.append(task)

        # Wait for all of them.
        results = await asyncio.gather(*tasks)
        return {"async_results": results}

    # Run asynchronous code on this thread.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    try:
        return loop.run_until_complete(async_wrapper())
    finally:
        loop.close()


@node
def async_bridge_node(data):
    """The guide's bridge."""
    return bridge(AsyncIntegrationService(), data)


@node
def traced_bridge_node(data):
    """The bridge that keeps the trace."""
    return bridge(TracedIntegrationService(), data)


@node
async def async_node(data):
    """No bridge at all: a node may be `async`, and `arun` moves a synchronous one off the loop."""
    results = await asyncio.gather(*(heavy_sync_processor.arun({"data": item}) for item in data["items"]))
    return {"async_results": results}


def main():
    data = {"items": [10, 100, 1_000]}
    for flow in (async_bridge_node, traced_bridge_node, async_node):
        run = flow.execute(data)
        results = run.output["async_results"]
        traces = {f"{result['trace_id']:032x}" for result in results} | {run.trace_id}
        print(f"{flow.name}: {[result['value'] for result in results]} in {len(traces)} trace{'s'[: len(traces) > 1]}")


if __name__ == "__main__":
    with configure(service_name="async-bridge"):
        main()
