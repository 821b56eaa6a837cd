"""What holds on every executor; worker processes are real ones."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, StatusCode
from tests.backends import samples
from tests.backends.samples import PickyError, Plain, Sample, given, numbers, total, twice

from aetherflow.engine.backends.errors import NotImportableError, NotPicklableError, RemoteError, WorkerLostError
from aetherflow.engine.walk import Failure
from aetherflow.errors import ConfigurationError, MissingInputError
from aetherflow.flow.decorating import node
from aetherflow.resources.context import BaseFlowContext
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.capture import CapturedTelemetry
from aetherflow.telemetry.metrics.instruments import PerformanceMonitor


def one(node_, executor, value=1):
    """Return a flow that runs a node once, on an executor, on a value."""
    return given.map(node_, executor=executor), {"value": [value]}


def run_one(node_, executor, value=1, context=None):
    flow, inputs = one(node_, executor, value)
    (result,) = flow.run(inputs, context)
    return result


# --- results -----------------------------------------------------------------------------------------------


def test_map_keeps_order(executor):
    """Results come in the order of the elements, whichever worker was first."""
    assert numbers.map(twice, executor=executor).run({"count": 20}) == [2 * x for x in range(20)]


def test_the_same_asynchronously(executor):
    """`arun` gives the same results."""
    flow = numbers.map(twice, executor=executor).then(total)
    assert asyncio.run(flow.arun({"count": 5})) == 20


def test_different_branches(executor):
    """Branches on an executor are keyed by name, in the order written."""
    flow = given.fan_out_to([twice, samples.negative, samples.twice_later], executor=executor)
    assert flow.run({"value": 4}) == {"twice": 8, "negative": -4, "twice_later": 8}
    assert list(asyncio.run(flow.arun({"value": 4}))) == ["twice", "negative", "twice_later"]


def test_workers_over_partitions(executor):
    """`[n] * k` on an executor executes once an element."""
    flow = given.fan_out_to([twice] * 2, executor=executor).then(total)
    assert [flow.run({"value": list(range(k))}) for k in (0, 1, 3)] == [0, 0, 6]


def test_a_nodes_own_executor_and_a_call(executor):
    """`@node(executor=…)` holds in flows, alone, and where the node is called like a function."""
    double = samples.double_on[executor]
    assert given.then(double).run({"value": 3}) == 6
    assert double.run({"x": 4}) == 8
    assert double(5) == double(x=5) == 10
    assert asyncio.run(double.arun({"x": 6})) == 12


def test_workers_are_other_processes(remote):
    """Executions on a remote executor run in processes other than the sender."""
    places = numbers.map(samples.where, executor=remote).run({"count": 4})
    assert os.getpid() not in {pid for pid, _, _ in places}


def test_threads_stay_here():
    """`executor="thread"` is this process, also for a node inside a fan-out on processes."""
    here = node(name="here", executor="thread")(samples.where.func)
    assert numbers.map(here, executor="process").run({"count": 1})[0][0] == os.getpid()


def test_an_input_that_nothing_fills(remote):
    """What cannot be filled is told before anything is sent or emitted."""
    with CapturedTelemetry() as captured, pytest.raises(MissingInputError, match="'x' of node 'twice'"):
        node(name="twice", executor=remote)(twice.func).run()
    assert captured.spans == ()


def test_kinds_of_callables(remote):
    """Methods, objects, positional-only parameters and time limits work as they do here."""
    adder = samples.Adder(10)
    assert run_one(adder.add, remote) == 11
    assert run_one(adder.add_surely, remote) == 11
    assert run_one(samples.thrice, remote) == 3
    assert run_one(samples.in_time, remote) == 2
    assert run_one(samples.positional, remote) == (1, 10, 1, 2)
    positional = node(executor=remote)(samples.positional.func)
    assert positional(5, 6, 7, d=8) == (5, 6, 7, 8)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        positional()


def test_the_loop_goes_on(remote, tmp_path):
    """Awaiting a worker does not block the event loop: the loop itself can let the worker go on."""

    async def main():
        flow, inputs = one(samples.waits, remote, tmp_path)
        running = asyncio.create_task(flow.arun(inputs))
        while not list(tmp_path.glob("begun-*")):
            await asyncio.sleep(0.005)
        (tmp_path / "go").touch()
        return await running

    assert asyncio.run(main()) != [os.getpid()]


# --- errors ------------------------------------------------------------------------------------------------


def test_the_original_exception(remote):
    """An exception comes back as it was raised, with notes on the node and on where it was raised over there."""
    with CapturedTelemetry() as captured, pytest.raises(PickyError) as caught:
        run_one(samples.picky, remote, 7)
    error = caught.value
    assert (error.code, error.detail, str(error)) == (7, "as asked", "code 7: as asked")
    (run,) = captured.spans_named("run given")
    raised, remote_traceback = error.__notes__
    assert raised == f"aetherflow: raised by node 'picky' of flow 'given', trace {run.context.trace_id:032x}"
    assert remote_traceback.startswith(f"traceback of {remote} worker ")
    assert "raise PickyError(x, detail=" in remote_traceback


def test_an_error_after_the_whole_mapping_has_a_note(remote):
    """As in this process, one note says that the parameter received the whole mapping of run inputs."""
    with pytest.raises(KeyError) as caught:
        node(executor=remote)(samples.needs_key).run({"other": 1, "another": 2})
    note = "aetherflow: parameter 'request' of node 'needs_key' received the whole mapping of run inputs"
    assert caught.value.__notes__.count(note) == 1


def test_an_error_is_recorded_once(remote):
    """The exception is on the node's span alone; the run's has status and type, and the submission nothing."""
    with CapturedTelemetry() as captured, pytest.raises(PickyError):
        run_one(samples.picky, remote)
    (failed,), (run,), (submit,) = map(captured.spans_named, ("picky", "run given", "submit picky"))
    (event,) = failed.events
    kind = "tests.backends.samples.PickyError"
    assert event.name == "exception"
    assert event.attributes["exception.type"] == kind
    assert event.attributes["exception.message"] == "code 1: as asked"
    assert "raise PickyError" in event.attributes["exception.stacktrace"]
    assert failed.attributes[names.ERROR_TYPE] == run.attributes[names.ERROR_TYPE] == kind
    assert failed.attributes[names.NODE_RESULT] == "failure"
    assert failed.status.status_code is run.status.status_code is StatusCode.ERROR
    assert run.events == submit.events == ()
    assert submit.status.status_code is StatusCode.UNSET


def test_our_own_errors_come_back(remote):
    """AetherFlow's errors, which build their message from data, come back with the data."""
    with pytest.raises(MissingInputError) as caught:
        run_one(samples.missing, remote)
    assert (caught.value.parameter, caught.value.available) == ("c", ("d",))


def test_an_exception_that_does_not_pickle(remote):
    """In its place comes a RemoteError with its type, message and traceback; it is recorded once all the same."""
    with CapturedTelemetry() as captured, pytest.raises(RemoteError) as caught:
        run_one(samples.locked, remote)
    assert caught.value.type_name == "tests.backends.samples.LockedError"
    assert caught.value.message == "cannot leave"
    assert "raise LockedError" in caught.value.__notes__[-1]
    assert [span.name for span in captured.spans if span.events] == ["locked"]


def test_an_error_that_neither_pickles_nor_prints(remote):
    """It comes as a RemoteError with its type, and not as a worker that was lost."""
    with pytest.raises(RemoteError) as caught:
        run_one(samples.mute, remote)
    assert caught.value.type_name == "tests.backends.samples.MuteError"


def test_several_failures(remote, tmp_path):
    """Several failures are a group of the original exceptions; collected, they are results."""
    with pytest.raises(ExceptionGroup) as caught:
        given.fan_out_to([samples.fails_here, samples.fails_there], executor=remote).run({"value": tmp_path})
    assert {type(error) for error in caught.value.exceptions} == {PickyError, KeyError}
    collected = numbers.map(samples.odd_fails, executor=remote, on_error="collect").run({"count": 3})
    assert collected[::2] == [0, 2]
    assert isinstance(collected[1], Failure)
    assert isinstance(collected[1].exception, ValueError)


def test_an_argument_that_does_not_pickle(remote):
    """The error names node and parameter; it is recorded on the submission, and the node has no span."""
    with CapturedTelemetry() as captured, pytest.raises(NotPicklableError) as caught:
        run_one(twice, remote, threading.Lock())
    assert str(caught.value).startswith("node 'twice': parameter 'x', a lock, does not pickle: ")
    assert captured.spans_named("twice") == ()
    assert [span.name for span in captured.spans if span.events] == ["submit twice"]
    assert captured.spans_named("submit twice")[0].attributes[names.ERROR_TYPE].endswith("NotPicklableError")
    adder = samples.Adder(threading.Lock())
    with pytest.raises(NotPicklableError, match="node 'add': parameter 'self', a Adder, does not pickle"):
        run_one(adder.add, remote)


def test_an_error_of_sending_is_recorded_once(remote):
    """What fails on the way to a worker is recorded on the submission, and not again on a node around it."""

    @node
    def outer():
        return run_one(twice, remote, threading.Lock())

    with CapturedTelemetry() as captured, pytest.raises(NotPicklableError):
        outer()
    assert [span.name for span in captured.spans if span.events] == ["submit twice"]


def test_a_result_that_does_not_pickle(remote):
    """The error names the node, and is the node's."""
    with CapturedTelemetry() as captured, pytest.raises(NotPicklableError, match="'returns_lock': the result, a lock"):
        run_one(samples.returns_lock, remote)
    assert [span.name for span in captured.spans if span.events] == ["returns_lock"]


def test_functions_that_workers_cannot_import(remote):
    """A lambda, a closure and a name that holds something else are refused by a message that tells what to do."""

    @node
    def local(x):
        return x

    hidden = node(name="hidden", retry=samples.RetryPolicy(on=OSError))(samples.double)
    for made in (local, node(name="nameless")(lambda x: x)):
        with pytest.raises(NotImportableError, match="in a function, or a lambda; define it at the top of a module"):
            run_one(made, remote)
    with pytest.raises(NotImportableError, match=r"samples.double: that name holds something else; decorate"):
        run_one(hidden, remote)


def test_generators_are_refused(remote):
    """A generator cannot run elsewhere: it is refused before anything runs."""
    with CapturedTelemetry() as captured, pytest.raises(ConfigurationError, match="node 'items' is a generator"):
        run_one(samples.items, remote)
    assert captured.spans == ()


def test_a_killed_worker(remote):
    """The error says what was lost, the node's span has it, and the next execution finds a worker."""
    with CapturedTelemetry() as captured, pytest.raises(WorkerLostError) as caught:
        run_one(samples.dies, remote, 1)
    assert str(caught.value).startswith(f"node 'dies': its {remote} worker was lost")
    (lost,), (submit,) = map(captured.spans_named, ("dies", "submit dies"))
    assert (lost.kind, lost.parent.span_id) == (SpanKind.CONSUMER, submit.context.span_id)
    assert lost.attributes[names.NODE_RESULT] == "failure"
    assert lost.attributes[names.ERROR_TYPE].endswith("WorkerLostError")
    assert [span.name for span in captured.spans if span.events] == ["dies"]
    assert run_one(samples.dies, remote, 0) == "alive"


# --- telemetry ---------------------------------------------------------------------------------------------


def test_one_trace(remote):
    """Submissions are below the run, nodes below their submission, all in one trace; kinds tell both sides."""
    with CapturedTelemetry() as captured:
        numbers.map(twice, executor=remote).then(total).run({"count": 2})
    (tree,) = captured.tree()
    branch = "  submit twice\n    twice\n"
    assert str(tree) == f"run numbers\n  numbers\n{branch}{branch}  total"
    assert len({span.context.trace_id for span in captured.spans}) == 1
    assert {span.kind for span in captured.spans_named("submit twice")} == {SpanKind.PRODUCER}
    assert {span.kind for span in captured.spans_named("twice")} == {SpanKind.CONSUMER}
    others = {span.kind for span in captured.spans if "twice" not in span.name}
    assert others == {SpanKind.INTERNAL}


def test_attributes(remote):
    """The node's span has every attribute of a node, among them the partition and the worker's own thread."""
    with CapturedTelemetry() as captured:
        ((_, ident, thread_name),) = numbers.map(samples.where, executor=remote).run({"count": 1})
    (span,), (submit,) = map(captured.spans_named, ("where", "submit where"))
    assert dict(span.attributes) == {
        names.FLOW_NAME: "numbers",
        names.NODE_NAME: "where",
        names.NODE_TYPE: "sync",
        names.NODE_UPSTREAM: ("numbers",),
        names.CODE_FUNCTION_NAME: "tests.backends.samples.where",
        names.PROVIDER_SCOPE: "none",
        names.BATCH_INDEX: 0,
        names.BATCH_COUNT: 1,
        names.THREAD_ID: ident,
        names.THREAD_NAME: thread_name,
    }
    assert dict(submit.attributes) == {names.FLOW_NAME: "numbers", names.EXECUTOR_NAME: remote}


def test_times_are_the_workers(remote):
    """The node's span has the worker's own times, which lie within the run's; its metric is its duration."""
    with CapturedTelemetry() as captured:
        run_one(samples.twice_later, remote)
        (point,) = captured.points(names.NODE_DURATION.name, {names.NODE_NAME: "twice_later"})
    (span,), (submit,), (run,) = map(captured.spans_named, ("twice_later", "submit twice_later", "run given"))
    assert submit.start_time <= span.start_time <= span.end_time <= run.end_time
    assert point.count == 1
    assert 0 < point.sum <= (span.end_time - span.start_time) / 1e9 + 0.001


def test_a_single_node(remote):
    """A run of one node has no run span: the node's own carries the run's identifier."""
    with CapturedTelemetry() as captured:
        ran = samples.double_on[remote].execute({"x": 2})
    (tree,) = captured.tree()
    assert str(tree) == "submit double\n  double"
    (span,) = captured.spans_named("double")
    assert span.attributes[names.RUN_ID] == ran.run_id
    assert ran.trace_id == f"{span.context.trace_id:032x}"


def test_fan_in_links_to_the_workers_spans(remote):
    """The fan-in's span links to the node spans, not to the submissions."""
    with CapturedTelemetry() as captured:
        numbers.map(twice, executor=remote).then(total).run({"count": 2})
    (span,) = captured.spans_named("total")
    assert {link.context.span_id for link in span.links} == {
        each.context.span_id for each in captured.spans_named("twice")
    }


def test_a_fan_in_on_a_worker_has_links(remote):
    """A node on a worker links to the spans it follows from."""
    fan_in = node(name="total", executor=remote)(total.func)
    with CapturedTelemetry() as captured:
        numbers.map(twice).then(fan_in).run({"count": 2})
    (span,) = captured.spans_named("total")
    assert [link.context for link in span.links] == [each.context for each in captured.spans_named("twice")]


def test_nodes_and_flows_within_a_worker(remote):
    """What a node starts on its worker is in the same trace, below the node, with links and durations of its own."""
    monitor = PerformanceMonitor()
    with CapturedTelemetry() as captured:
        assert run_one(samples.calls_others, remote, 5) == 12
        points = captured.points(names.NODE_DURATION.name, {names.NODE_NAME: "twice"})
        assert sorted(point.count for point in points) == [1, 2]
    (tree,) = captured.tree()
    assert str(tree) == (
        "run given\n  given\n  submit calls_others\n    calls_others\n      twice\n"
        "      run inner\n        numbers\n        twice\n        twice\n        total"
    )
    (fan_in,) = captured.spans_named("total")
    assert len({link.context.span_id for link in fan_in.links}) == 2
    assert len({span.context.trace_id for span in captured.spans}) == 1
    stats = monitor.get_stats()
    assert {name: stats[name]["count"] for name in ("twice", "numbers", "total", "calls_others")} == {
        "twice": 3,
        "numbers": 1,
        "total": 1,
        "calls_others": 1,
    }


def test_on_a_worker_everything_stays_there(remote):
    """A flow that is run on a worker does not send anything on, so that workers never wait for workers."""
    pid, inner = run_one(samples.sends_on, remote)
    assert pid != os.getpid()
    assert set(inner) == {pid}


def test_durations_are_kept_once(remote):
    """Every execution is one duration, in this process's store and on the application's own histogram."""
    monitor = PerformanceMonitor()
    with CapturedTelemetry() as captured:
        numbers.map(twice, executor=remote).run({"count": 3})
        with pytest.raises(ValueError, match="1 is odd"):
            numbers.map(samples.odd_fails, executor=remote, max_concurrency=1).run({"count": 2})
        (point,) = captured.points(names.NODE_DURATION.name, {names.NODE_NAME: "twice"})
        (failed,) = captured.points(names.NODE_DURATION.name, {names.ERROR_TYPE: "ValueError"})
    stats = monitor.get_stats()
    assert (stats["twice"]["count"], point.count) == (3, 3)
    assert (stats["odd_fails"]["count"], stats["odd_fails"]["error_count"], failed.count) == (2, 1, 1)


def test_workers_are_told_by_their_number(remote):
    """How many there are, how many have work, and how many tasks wait for one."""
    with CapturedTelemetry() as captured:
        numbers.map(twice, executor=remote).run({"count": 3})
        workers = captured.points(names.EXECUTOR_WORKERS.name, {names.EXECUTOR_NAME: remote})
        (queue,) = captured.points(names.EXECUTOR_QUEUE.name, {names.EXECUTOR_NAME: remote})
    assert {point.attributes[names.EXECUTOR_STATE] for point in workers} == {"idle", "used"}
    assert sum(point.value for point in workers) >= 1
    assert queue.value == 0


def test_retries_happen_on_the_worker(remote):
    """A node's retries run where it runs, are told on its span, and counted here."""
    with CapturedTelemetry() as captured:
        assert run_one(samples.flaky, remote) != os.getpid()
        (retries,) = captured.points(names.NODE_RETRIES.name, {names.NODE_NAME: "flaky"})
    assert (retries.value, retries.attributes[names.ERROR_TYPE]) == (1, "ConnectionError")
    (span,) = captured.spans_named("flaky")
    (event,) = span.events
    assert event.name == names.RETRY_EVENT
    assert event.attributes[names.ERROR_TYPE] == "ConnectionError"
    assert span.attributes[names.NODE_ATTEMPT] == 2
    assert span.status.status_code is StatusCode.UNSET


def test_the_context_reaches_the_function(remote):
    """On the worker the trace and the baggage are current, so that instrumentation there belongs to the trace."""
    token = context.attach(baggage.set_baggage("customer", "c7"))
    with CapturedTelemetry() as captured:
        trace_id, span_id, customer = run_one(samples.seen_context, remote)
    context.detach(token)
    (submit,) = captured.spans_named("submit seen_context")
    assert trace_id == submit.context.trace_id
    assert span_id == submit.context.span_id
    assert customer == "c7"


def test_a_provider_of_the_application(remote):
    """Spans go to whatever provider the application has set; its sampler's word holds."""
    provider = TracerProvider()
    seen = []
    provider.add_span_processor(_Ended(seen))
    trace.set_tracer_provider(provider)
    run_one(twice, remote)
    assert sorted(seen) == ["given", "run given", "submit twice", "twice"]


class _Ended:
    def __init__(self, seen):
        self._seen = seen

    def on_start(self, span, parent_context=None):
        pass

    def _on_ending(self, span):
        pass

    def on_end(self, span):
        self._seen.append(span.name)

    def shutdown(self):
        pass

    def force_flush(self, timeout_millis=0):
        return True


def test_without_telemetry(remote):
    """Without a provider nothing is emitted and results, errors and durations are the same."""
    monitor = PerformanceMonitor()
    assert numbers.map(twice, executor=remote).run({"count": 2}) == [0, 2]
    with pytest.raises(PickyError, match="code 1: as asked") as caught:
        run_one(samples.picky, remote)
    assert caught.value.__notes__[0] == "aetherflow: raised by node 'picky' of flow 'given'"
    assert monitor.get_stats()["twice"]["count"] == 2
    assert not Path(".aetherflow").exists()


# --- injection ---------------------------------------------------------------------------------------------


def test_the_context_is_built_on_the_worker(remote, tmp_path):
    """A worker injects from a context of its own: built of the class, configured alike, once a process."""
    ctx = Sample()
    ctx.config.from_dict({"limit": 9, "folder": None})
    results = numbers.map(samples.injected, executor=remote).run({"count": 6}, ctx)
    services = {service for _, _, service, _ in results}
    assert [x for x, _, _, _ in results] == list(range(6))
    assert {limit for *_, limit in results} == {9}
    assert os.getpid() not in {pid for _, pid in services}
    parsers = {parser for _, parser, _, _ in results}
    assert {pid for _, pid in parsers} == {pid for _, pid in services}
    assert len(services) == len({pid for _, pid in services})


def test_scope_attributes(remote):
    """The node's span tells the scopes of what was injected, as it does here."""
    ctx = Sample()
    ctx.config.from_dict({"limit": 1})
    with CapturedTelemetry() as captured:
        run_one(samples.injected, remote, context=ctx)
    (span,) = captured.spans_named("injected")
    assert span.attributes[names.PROVIDER_SCOPE] == "mixed"
    assert span.attributes[names.PROVIDER_NAMES] == ("parser", "service", "limit")
    assert span.attributes[names.PROVIDER_SCOPES] == ("thread_local", "singleton", "factory")


def test_dicts_of_the_context(remote):
    """On a worker `shared_data` and `state` are the process's and the thread's own; `context` is the execution's."""
    ctx = Sample()
    calls = numbers.map(samples.counts, executor=remote).run({"count": 6}, ctx)
    assert {context_calls for *_, context_calls in calls} == {1}
    assert max(shared for _, _, shared, _ in calls) > 1
    assert ctx.shared_data() == {}


@pytest.mark.parametrize("taker", [samples.takes_awaited, samples.awaits_awaited])
def test_objects_are_awaited_on_the_worker(remote, taker):
    """A worker injects what async functions create, for sync and async nodes, one object for each singleton."""
    connection, singleton, (shared, other) = run_one(taker, remote, context=samples.Async())
    assert connection == singleton == shared == other
    assert connection.startswith("connection of ")
    assert connection != f"connection of {os.getpid()}"


def test_an_undeclared_awaitable_is_refused_on_the_worker(remote):
    """The error names node and parameter, as it does here."""
    with pytest.raises(ConfigurationError, match="'takes_undeclared', parameter 'undeclared'"):
        run_one(samples.takes_undeclared, remote, context=samples.Async())


def test_a_resource_is_opened_on_the_worker(remote):
    """A resource that a node needs is opened in its worker's process."""
    ctx = Sample()
    ctx.config.from_dict({"folder": None})
    with ctx:
        said, pid = run_one(samples.uses_resource, remote, context=ctx)
    assert said == f"open in {pid}"


def test_any_container_class(remote):
    """A dependency-injector container that is no BaseFlowContext works, as an instance and as a class."""
    assert run_one(samples.asks_plain, remote, context=Plain())[0] == 3
    assert run_one(samples.asks_plain, remote, context=Plain)[0] == 3


def test_a_given_value_goes_before_the_worker_s_provider(remote):
    """An input of a provider's name is sent, and nothing injected over it."""
    made = node(name="asks", executor=remote)(samples.takes_input_or_service.func)
    assert made.run({"service": "given"}, Plain()) == "given"


def test_contexts_that_workers_cannot_build(remote):
    """A local class, a container without one and an overridden provider are refused by name."""

    class Local(BaseFlowContext):
        service = samples.providers.Singleton(int)

    with pytest.raises(NotImportableError, match=r"its context class .*Local: it is defined in a function"):
        run_one(samples.asks_plain, remote, context=Local())
    nameless = samples.containers.DynamicContainer()
    nameless.service = samples.providers.Singleton(int)
    with pytest.raises(NotImportableError, match="it has no class of its own"):
        run_one(samples.asks_plain, remote, context=nameless)
    ctx = Plain()
    with (
        ctx.service.override(samples.providers.Object(5)),
        pytest.raises(ConfigurationError, match="parameter 'service' is overridden"),
    ):
        run_one(samples.asks_plain, remote, context=ctx)


# --- ends --------------------------------------------------------------------------------------------------


def test_a_cancelled_run_does_not_wait(remote, tmp_path):
    """A cancelled `arun` is left at once; what runs on a worker goes on alone, and its span says cancellation."""

    async def main():
        flow, inputs = one(samples.waits, remote, tmp_path)
        running = asyncio.create_task(flow.arun(inputs))
        while not list(tmp_path.glob("begun-*")):
            await asyncio.sleep(0.005)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    with CapturedTelemetry() as captured:
        asyncio.run(main())
    (tmp_path / "go").touch()
    (span,) = captured.spans_named("waits")
    assert span.attributes[names.NODE_RESULT] == "cancellation"
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()


def test_cancellation_takes_back_what_has_not_begun(tmp_path):
    """Executions that no worker has begun are not begun after a cancellation, and leave no span."""

    async def main():
        flow = given.map(samples.waits, executor="process")
        running = asyncio.create_task(flow.arun({"value": [tmp_path] * 40}))
        while len(captured.spans_named("submit waits")) < 40 or not list(tmp_path.glob("begun-*")):
            await asyncio.sleep(0.005)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    with CapturedTelemetry() as captured:
        asyncio.run(main())
    (tmp_path / "go").touch()
    run_one(twice, "process")  # queued behind all that could still begin
    assert 0 < len(captured.spans_named("waits")) < 40
    assert len(list(tmp_path.glob("begun-*"))) < 40
