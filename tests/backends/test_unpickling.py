"""Arguments, results and errors that a worker and its sender pickle, and the other side cannot rebuild."""

from __future__ import annotations

import asyncio
import pickle
from concurrent.futures import Future

import pytest
from opentelemetry.trace import SpanContext, StatusCode
from tests.backends import fragile
from tests.backends.samples import PickyError
from tests.support.stubborn_errors import REBUILT, REPLACED

from aetherflow import NotPicklableError, NotUnpicklableError, RemoteError
from aetherflow.engine.backends import dispatch
from aetherflow.engine.backends.envelope import Report
from aetherflow.engine.backends.errors import dump_error, load_error
from aetherflow.engine.backends.worker import execute
from aetherflow.flow.decorating import node
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.capture import CapturedTelemetry
from aetherflow.telemetry.export.relay import Relayed
from aetherflow.telemetry.metrics.instruments import PerformanceMonitor


def run(flow, inputs):
    return flow.run(inputs)


def arun(flow, inputs):
    async def main():
        try:
            await flow.arun(inputs)
        except BaseException as error:  # noqa: BLE001  # raised below: asyncio.run() itself hangs on some exceptions
            return error

    raise asyncio.run(main())


def in_flow(flow, inputs):
    return (fragile.passes >> flow).run({"x": next(iter(inputs.values()))})


ways = pytest.mark.parametrize("how", [run, arun, in_flow])


def caught_from(how, flow, inputs):
    """Return the exception that a run raises, and its spans; no clause decides by the exception's class."""
    error = None
    with CapturedTelemetry() as captured:
        try:
            how(flow, inputs)
        except BaseException as exception:  # noqa: BLE001  # it is what the tests look at
            error = exception
    return error, captured


def failed_span(captured, name):
    """Return the one span of a node; it has failed, and has the event of its exception."""
    (span,) = captured.spans_named(name)
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]
    assert span.attributes[names.NODE_RESULT] == "failure"
    return span


# --- results -----------------------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("kind", fragile.FAILURES)
def test_a_result_that_cannot_be_rebuilt_is_an_error_of_its_node(how, kind):
    """Any exception of unpickling becomes an error that names the node; its span has failed, and no span is missing."""
    error, captured = caught_from(how, fragile.returns_unreadable, {"kind": kind})
    assert type(error) is NotUnpicklableError
    assert str(error).startswith("node 'returns_unreadable': the result was pickled, but cannot be unpickled (")
    assert "cannot be read here" in str(error)
    span = failed_span(captured, "returns_unreadable")
    assert span.attributes[names.ERROR_TYPE] == span.events[0].attributes["exception.type"]
    assert span.attributes[names.ERROR_TYPE].endswith(".NotUnpicklableError")
    assert len(captured.spans_named("submit returns_unreadable")) == 1


def test_a_large_result_that_cannot_be_rebuilt_is_an_error_of_its_node():
    """A large result is unpickled on a thread; what it raises there is treated alike."""
    error, captured = caught_from(arun, fragile.returns_large_unreadable, {"kind": "stop"})
    assert type(error) is NotUnpicklableError
    failed_span(captured, "returns_large_unreadable")


def test_without_telemetry_the_error_names_the_node_too():
    """Without tracing, the error is the same."""
    with pytest.raises(NotUnpicklableError, match="node 'returns_unreadable': the result was pickled"):
        fragile.returns_unreadable.run({"kind": "error"})


def test_state_that_is_refused_is_an_error_of_the_node():
    """A `__setstate__` that raises is treated as any other failure of unpickling."""
    error, captured = caught_from(run, fragile.returns_unrestorable, {"x": 1})
    assert "cannot be unpickled (KeyError: 'lock'); allowed: objects whose" in str(error)
    failed_span(captured, "returns_unrestorable")


def test_a_result_that_exits_ends_the_span_of_its_node():
    """`SystemExit` passes unchanged but for a note, and the spans of the execution are there."""
    error, captured = caught_from(run, fragile.returns_exiting, {"x": 1})
    assert type(error) is SystemExit
    assert "the result of node 'returns_exiting'" in error.__notes__[0]
    assert captured.spans_named("returns_exiting")[0].attributes[names.NODE_RESULT] == "cancellation"


def test_the_duration_of_a_result_that_cannot_be_rebuilt_has_its_error_type():
    """The execution counts once, as one that has failed."""
    monitor = PerformanceMonitor()
    with CapturedTelemetry() as captured:
        with pytest.raises(NotUnpicklableError):
            fragile.returns_unreadable.run({"kind": "error"})
        (point,) = captured.points(names.NODE_DURATION.name, {names.NODE_NAME: "returns_unreadable"})
    assert (point.count, point.attributes[names.ERROR_TYPE].rpartition(".")[2]) == (1, "NotUnpicklableError")
    stats = monitor.get_stats()["returns_unreadable"]
    assert (stats["count"], stats["error_count"]) == (1, 1)


def test_the_error_is_recorded_once():
    """The run above the node has failed too, without a second event."""
    _, captured = caught_from(in_flow, fragile.returns_unreadable, {"kind": "error"})
    assert [span.name for span in captured.spans if span.events] == ["returns_unreadable"]
    (above,) = captured.spans_named("run passes")
    assert above.status.status_code is StatusCode.ERROR


# --- arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [run, arun])
@pytest.mark.parametrize("name", ["first", "second"])
def test_an_argument_that_cannot_be_rebuilt_is_named(how, name):
    """The worker's error names the node and the parameter, and the node's span has failed."""
    inputs = {"first": 1, "second": 2, name: fragile.Unreadable()}
    error, captured = caught_from(how, fragile.takes_two, inputs)
    assert type(error) is NotUnpicklableError
    assert str(error).startswith(f"node 'takes_two': parameter {name!r} was pickled, but cannot be unpickled (")
    failed_span(captured, "takes_two")


def test_an_argument_that_pickling_interrupts_is_named():
    """Pickling that raises `GeneratorExit` or the like is an error of the submission, which names the parameter."""
    error, captured = caught_from(run, fragile.takes_two, {"first": 1, "second": fragile.Unsendable()})
    assert type(error) is NotPicklableError
    assert str(error).startswith("node 'takes_two': parameter 'second', a Unsendable, does not pickle: ")
    (span,) = captured.spans
    assert (span.name, span.status.status_code) == ("submit takes_two", StatusCode.ERROR)


def test_an_object_in_two_arguments_stays_one_object():
    """Arguments are pickled one after another, and still share what they have in common."""
    value = [1]
    assert fragile.takes_same.run({"first": value, "second": value}) is True
    assert fragile.takes_same.run({"first": [1], "second": [1]}) is False


def test_an_envelope_that_cannot_be_rebuilt_is_an_error_of_the_node():
    """A worker reports a request that it cannot read; the node's span is emitted and has failed."""
    flow = node(name=fragile.Marked("marked"), executor="process")(fragile.unnamed)
    error, captured = caught_from(run, flow, {"x": 1})
    assert type(error) is NotUnpicklableError
    assert str(error).startswith("node 'marked': the execution request was pickled, but cannot be unpickled (")
    failed_span(captured, "marked")


def test_a_function_object_that_cannot_be_rebuilt_is_an_error_of_the_node():
    """A callable object is pickled like an argument."""
    flow = node(name="callable", executor="process")(fragile.UnreadableFunction())
    error, captured = caught_from(run, flow, {"x": 1})
    assert str(error).startswith("node 'callable': the function was pickled, but cannot be unpickled (RuntimeError: ")
    failed_span(captured, "callable")


def test_a_configuration_that_cannot_be_rebuilt_is_an_error_of_the_node():
    """The values that a context is configured with are pickled like an argument."""
    context = fragile.Configured()
    context.config.from_dict({"limit": 3, "other": fragile.Unreadable()})
    error, captured = caught_from(lambda flow, inputs: flow.run(inputs, context), fragile.takes_limit, {"x": 1})
    assert str(error).startswith("node 'takes_limit': the configuration of its context was pickled, but cannot be")
    failed_span(captured, "takes_limit")


# --- reports -----------------------------------------------------------------------------------------------


def test_attributes_of_user_classes_do_not_spoil_a_report():
    """Values of attributes come as built-in types; those that a span cannot have are left out."""
    with CapturedTelemetry() as captured:
        assert fragile.sets_attributes.run({"x": 5}) == 5
    (span,) = captured.spans_named("sets_attributes")
    assert (span.attributes["shade"], span.attributes["mark"]) == ("dark", "marked")
    assert {type(span.attributes[key]) for key in ("shade", "mark")} == {str}
    assert "lock" not in span.attributes
    assert span.events[0].attributes["marks"] == ("one", "two")


def test_a_report_that_cannot_be_rebuilt_is_an_error_of_the_node(monkeypatch):
    """An unreadable report does not lose the span."""
    monkeypatch.setattr(dispatch, "backend", lambda executor: Answering(b"garbled"))
    error, captured = caught_from(run, fragile.takes_two, {"first": 1, "second": 2})
    assert str(error).startswith("node 'takes_two': the report of the worker was pickled, but cannot be unpickled (")
    failed_span(captured, "takes_two")


def test_a_result_of_a_worker_that_exports_its_spans_has_a_failed_span_too(monkeypatch):
    """The worker has ended its span as a success: another one, which is linked to it, has the error."""
    there = SpanContext(1, 2, is_remote=True)
    report = Report(pickle.dumps(fragile.Unreadable()), None, 1_000_000_000, there, Relayed())
    monkeypatch.setattr(dispatch, "backend", lambda executor: Answering(pickle.dumps(report)))
    error, captured = caught_from(run, fragile.takes_two, {"first": 1, "second": 2})
    assert type(error) is NotUnpicklableError
    assert [link.context.span_id for link in failed_span(captured, "takes_two").links] == [2]


class Answering:
    """A backend whose workers always return the same bytes."""

    def __init__(self, answer):
        self.answer = answer

    def submit(self, payload):
        future = Future()
        future.set_result(self.answer)
        return future

    def cancel(self, future):
        return future.cancel()


def test_a_worker_that_fails_outside_of_the_node_reports_it():
    """`execute` raises nothing, whatever it is given."""
    report = pickle.loads(execute(b"garbled"))
    assert report.is_unread
    assert type(load_error(report.error)) is pickle.UnpicklingError


# --- errors ------------------------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("flow", [fragile.raises, fragile.raises_later], ids=["sync", "async"])
@pytest.mark.parametrize("kind", REBUILT, ids=lambda kind: kind.__name__)
def test_a_stubborn_error_arrives_as_itself(how, flow, kind):
    """The class and the fields are those of the exception that was raised, and the node's span has failed."""
    error, captured = caught_from(how, flow, {"name": kind.__name__})
    assert type(error) is kind
    assert error.code == 7
    assert failed_span(captured, "raises").attributes[names.ERROR_TYPE].endswith(kind.__name__)


@ways
@pytest.mark.parametrize("kind", REPLACED, ids=lambda kind: kind.__name__)
def test_an_error_that_cannot_be_rebuilt_is_replaced(how, kind):
    """A `RemoteError` with its type and traceback takes its place and names the node."""
    error, captured = caught_from(how, fragile.raises, {"name": kind.__name__})
    assert type(error) is RemoteError
    assert error.type_name == f"tests.support.stubborn_errors.{kind.__name__}"
    notes = "\n".join(error.__notes__)
    assert "raised by node 'raises'" in notes
    assert "raise getattr(stubborn_errors, name)(7)" in notes
    assert failed_span(captured, "raises").attributes[names.ERROR_TYPE].endswith(kind.__name__)


@pytest.mark.parametrize("kind", REBUILT, ids=lambda kind: kind.__name__)
def test_a_stubborn_error_survives_pickling(kind):
    """Neither the note nor the way back calls a method that the class has replaced."""
    error = load_error(dump_error(kind(7), "a worker"))
    assert type(error) is kind
    assert error.code == 7


@pytest.mark.parametrize("kind", REPLACED[:-1], ids=lambda kind: kind.__name__)
def test_what_does_not_survive_pickling_is_replaced(kind):
    """The stand-in has the type's name and the traceback."""
    error = load_error(dump_error(kind(7), "a worker"))
    assert type(error) is RemoteError
    assert error.type_name.endswith(kind.__name__)
    assert error.__notes__[-1].startswith("traceback of a worker:")


def test_an_error_that_refers_to_itself_survives_pickling():
    """Attributes of an exception may lead back to it."""
    error = PickyError(1, detail="circular")
    error.itself = error
    rebuilt = load_error(dump_error(error, "a worker"))
    assert type(rebuilt) is PickyError
    assert rebuilt.itself is rebuilt
