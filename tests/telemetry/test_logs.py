"""Logs: each line tells the trace, flow and node it was made in; what the application has set up stays."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog
from opentelemetry import _logs, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from structlog.testing import LogCapture
from tests.support.receivers import HttpReceiver

from aetherflow import node
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import logs
from aetherflow.telemetry.export import relay
from aetherflow.telemetry.setup.configuring import Telemetry, configure

IDS = {"trace_id", "span_id"}


@node
def shouting(n):
    structlog.get_logger("shop").info("working", n=n)
    logging.getLogger("library").warning("from %s", "elsewhere", extra={"n": n})
    return n


@node
def quiet(shouting):
    return shouting


FLOW = (shouting >> quiet).named("orders")


@pytest.fixture(autouse=True)
def _structlog_as_new():
    yield
    structlog.reset_defaults()


@contextmanager
def new_process() -> Iterator[None]:
    """The root logger as a new process has it; pytest puts handlers of its own there while a test runs."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextmanager
def logging_on(*arguments, **more) -> Iterator[Telemetry]:
    """A new process that has called ``configure(logs=True)``."""
    with new_process(), configure(*arguments, logs=True, **more) as telemetry:
        yield telemetry


@pytest.fixture
def captured():
    """Events of an application that has configured structlog with our processor."""
    capture = LogCapture()
    structlog.configure([logs.add_trace_context, capture])
    return capture.entries


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# --- the processor -----------------------------------------------------------------------------------------------


def test_an_event_inside_a_node_tells_where_it_was_made(captured):
    """It has the ids of the node's span, the flow's name and the node's, as hexadecimal and plain text."""
    with configure(exporter="file"):
        done = FLOW.execute({"n": 1})
    (event,) = captured
    assert event["trace_id"] == done.trace_id
    assert len(event["span_id"]) == 16
    assert (event["flow"], event["node"]) == ("orders", "shouting")


def test_outside_of_any_span_an_event_stays_as_it_is(captured):
    """Without a valid span nothing is added: neither outside of nodes nor without a tracer."""
    structlog.get_logger().info("outside", n=1)
    shouting.run({"n": 2})
    assert captured[0] == {"event": "outside", "n": 1, "log_level": "info"}
    assert captured[1] == {"event": "working", "n": 2, "log_level": "info"}


def test_what_the_event_says_itself_stays(captured):
    """A key that the application has given is not overwritten."""
    provider = TracerProvider(shutdown_on_exit=False)
    with provider.get_tracer("t").start_as_current_span("s", attributes={names.FLOW_NAME: "f", names.NODE_NAME: "n"}):
        structlog.get_logger().info("said", trace_id="mine", flow="mine")
    (event,) = captured
    assert (event["trace_id"], event["flow"], event["node"]) == ("mine", "mine", "n")


def test_a_span_that_is_not_recorded_has_its_ids(captured):
    """Where the sampler has left a trace out, events still tell its ids, so that they belong together."""
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    with provider.get_tracer("t").start_as_current_span("s") as span:
        structlog.get_logger().info("said")
    (event,) = captured
    assert event["span_id"] == f"{span.get_span_context().span_id:016x}"


def test_an_event_in_a_worker_process_tells_the_same(captured):
    """Where spans are relayed to another process, the node is known all the same."""
    provider = relay._RelayTracerProvider()
    outside = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("submit")
    parent = relay.recording_in(trace.set_span_in_context(outside), relay.Recording(spans=True))
    attributes = {names.FLOW_NAME: "f", names.NODE_NAME: "n"}
    span = provider.get_tracer("t").start_span("n", parent, attributes=attributes)
    with trace.use_span(span):
        structlog.get_logger().info("said")
    (event,) = captured
    assert (event["flow"], event["node"]) == ("f", "n")
    assert event["trace_id"] == f"{outside.get_span_context().trace_id:032x}"


async def test_an_event_of_an_async_logger_tells_the_same(captured):
    """``ainfo`` hands the event to a thread, with the context it was made in."""

    @node
    async def waiting():
        await structlog.get_logger().ainfo("working")

    with configure(exporter="file"):
        await waiting.arun({})
    assert captured[0]["node"] == "waiting"


# --- configure(logs=True) ------------------------------------------------------------------------------------------


def test_lines_are_json_on_standard_output(capsys):
    """Events of structlog and records of the standard library alike: one JSON object a line, with where and when."""
    with logging_on():
        done = FLOW.execute({"n": 1})
        assert logging.getLogger().level == logging.INFO
    ours, library = lines(capsys)
    for line, said in ((ours, ("working", "info", "shop")), (library, ("from elsewhere", "warning", "library"))):
        assert (line["event"], line["level"], line["logger"]) == said
        assert (line["trace_id"], line["flow"], line["node"], line["n"]) == (done.trace_id, "orders", "shouting", 1)
        assert line["timestamp"].endswith("Z")
    assert ours["span_id"] == library["span_id"]


def test_a_terminal_gets_lines_for_people(monkeypatch):
    """Where standard output is a terminal, the same is told without JSON."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", terminal)
    with logging_on():
        FLOW.run({"n": 1})
    first, second = terminal.getvalue().splitlines()
    assert "working" in first
    assert "from elsewhere" in second
    assert "{" not in terminal.getvalue()


def test_an_exception_is_told_without_the_values_of_variables(capsys):
    """The stack trace is in the line; what local variables held is not."""
    secret = "hunter" + str(2)
    with logging_on():
        try:
            raise ValueError(len(secret))
        except ValueError:
            structlog.get_logger().exception("failed")
    printed = capsys.readouterr().out
    (line,) = map(json.loads, printed.splitlines())
    assert "ValueError: 7" in line["exception"]
    assert secret not in printed


def test_levels_are_those_of_the_standard_library(capsys):
    """INFO and above is written unless the logger of that name, or the root logger, is set otherwise."""
    with logging_on():
        logger = structlog.get_logger("shop")
        logger.debug("too low")
        logger.info("info")
        logging.getLogger("shop").setLevel(logging.ERROR)
        logger.warning("too low")
        logging.getLogger("shop").setLevel(logging.NOTSET)
        logging.getLogger().setLevel(logging.DEBUG)
        logger.debug("debug")
    assert [line["event"] for line in lines(capsys)] == ["info", "debug"]


def test_bound_values_are_in_the_line(capsys):
    """Context variables of structlog and bound values reach the line."""
    with logging_on(), structlog.contextvars.bound_contextvars(request="r1"):
        structlog.get_logger().bind(user="u").info("hello")
    (line,) = lines(capsys)
    assert (line["request"], line["user"]) == ("r1", "u")


def test_shutdown_undoes_it(capsys):
    """Afterwards structlog is not configured, the root logger is as before, and it can be set up anew."""
    logger = structlog.get_logger("kept")
    with new_process():
        for _ in range(2):
            with configure(logs=True):
                logger.info("inside")
            assert not structlog.is_configured()
            assert logging.getLogger().handlers == []
            assert logging.getLogger().level == logging.WARNING
    assert len(lines(capsys)) == 2


def test_structlog_stays_as_the_application_has_it(captured, capsys):
    """Configured before, it is neither changed nor reset; the standard library's records are still carried."""
    before = structlog.get_config()
    with logging_on():
        FLOW.run({"n": 1})
        assert structlog.get_config() == before
    assert structlog.get_config() == before
    assert [entry["event"] for entry in captured] == ["working"]
    assert [line["event"] for line in lines(capsys)] == ["from elsewhere"]


def test_structlog_that_the_application_configures_later_is_not_reset():
    """Shutting down resets only what we have configured."""
    with logging_on():
        structlog.configure([LogCapture()])
        later = structlog.get_config()
    assert structlog.get_config() == later


def test_handlers_of_the_application_stay(capsys):
    """Where the root logger has handlers, its records are printed by them alone, once, at its level."""
    printed = io.StringIO()
    with new_process():
        handler = logging.StreamHandler(printed)
        handler.addFilter(lambda record: not record.name.startswith("opentelemetry"))  # of other tests' exporters
        logging.getLogger().addHandler(handler)
        with configure(logs=True):
            logging.getLogger("library").warning("once")
            structlog.get_logger().warning("ours")
            assert logging.getLogger().level == logging.WARNING
    assert printed.getvalue() == "once\n"
    assert [line["event"] for line in lines(capsys)] == ["ours"]


def test_a_closed_standard_output_harms_nobody(monkeypatch):
    """A line that cannot be written is counted as a failure of telemetry; the host goes on."""
    failed = logs.shield.failures()
    closed = io.StringIO()
    closed.close()
    with logging_on():
        monkeypatch.delenv("PYTEST_CURRENT_TEST")
        monkeypatch.setattr("sys.stdout", closed)
        structlog.get_logger().info("lost")
        logging.getLogger().warning("lost")
    assert logs.shield.failures() >= failed + 2


def test_lines_of_many_threads_stay_whole(capsys):
    """Every line is written in one go."""

    def work() -> None:
        for n in range(50):
            structlog.get_logger().info("threaded", n=n)

    with logging_on():
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(lines(capsys)) == 400


# --- export --------------------------------------------------------------------------------------------------------


def test_log_records_are_exported_to_a_file(capsys):
    """With ``exporter="file"`` both kinds of records are in a file of their own, in the trace, once each."""
    with logging_on("shop", "file") as telemetry:
        done = FLOW.execute({"n": 1})
        structlog.get_logger("shop").error("bad", exc_info=ValueError("no"), thing={1: ("a", object)})
        assert telemetry.logs_exporter == "file"
    exported = [json.loads(line) for line in telemetry.logs_path.read_text().splitlines()]
    records = {
        record["body"]["stringValue"]: record
        for line in exported
        for scope in line["resourceLogs"][0]["scopeLogs"]
        for record in scope["logRecords"]
    }
    assert set(records) == {"working", "from elsewhere", "bad"}
    for said, severity in (("working", "INFO"), ("from elsewhere", "WARN")):
        attributes = {each["key"]: each["value"] for each in records[said]["attributes"]}
        assert (records[said]["traceId"], records[said]["severityText"]) == (done.trace_id, severity)
        assert attributes[names.FLOW_NAME] == {"stringValue": "orders"}
        assert attributes[names.NODE_NAME] == {"stringValue": "shouting"}
        assert attributes["n"] == {"intValue": "1"}
        assert not IDS & set(attributes)
    bad = {each["key"]: each["value"] for each in records["bad"]["attributes"]}
    assert bad["exception.type"] == {"stringValue": "ValueError"}
    assert bad["exception.message"] == {"stringValue": "no"}
    assert "ValueError: no" in bad["exception.stacktrace"]["stringValue"]
    assert "kvlistValue" in bad["thing"]
    assert len(lines(capsys)) == 3


@pytest.mark.parametrize("environ", [{"OTEL_LOGS_EXPORTER": "otlp"}, {}], ids=["named", "endpoint"])
def test_log_records_are_sent_by_otlp(monkeypatch, environ):
    """The variables name the exporter of logs, as they do for the other signals."""
    with HttpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        with logging_on("shop"):
            structlog.get_logger("shop").info("sent")
            logging.getLogger("library").info("sent")
        (request,) = receiver.logs
    scopes = request.resource_logs[0].scope_logs
    assert sorted(scope.scope.name for scope in scopes) == ["library", "shop"]
    assert {record.body.string_value for scope in scopes for record in scope.log_records} == {"sent"}


@pytest.mark.parametrize("variable", ["OTEL_LOGS_EXPORTER", "OTEL_SDK_DISABLED"])
def test_export_can_be_turned_off(monkeypatch, capsys, variable):
    """``OTEL_LOGS_EXPORTER=none`` and the disabled SDK leave the lines on standard output alone."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    monkeypatch.setenv(variable, "true" if "DISABLED" in variable else "none")
    with logging_on() as telemetry:
        structlog.get_logger().info("here")
        assert telemetry.logs_exporter == "none"
    assert [line["event"] for line in lines(capsys)] == ["here"]


def test_without_logs_nothing_is_set_up():
    """``logs`` is off unless asked for: structlog, the root logger and the logger provider stay untouched."""
    with new_process(), configure(exporter="file") as telemetry:
        assert not structlog.is_configured()
        assert logging.getLogger().handlers == []
        assert telemetry.logs_path is None


def test_a_logger_provider_of_the_application_is_used():
    """Events of structlog go to it; it is not closed, and its own way of carrying standard records is left alone."""
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    _logs.set_logger_provider(provider)
    with logging_on() as telemetry:
        assert telemetry.logs_exporter == "application"
        FLOW.run({"n": 1})
    provider.get_logger("app").emit(body="still open")
    assert [data.log_record.body for data in exporter.get_finished_logs()] == ["working", "still open"]


def test_what_is_logged_while_exporting_is_not_exported(monkeypatch):
    """An exporter's own complaints are written, but not handed to it again."""
    with HttpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", f"{receiver.endpoint}/v1/logs")
        with logging_on() as telemetry:
            logging.getLogger().setLevel(logging.DEBUG)  # urllib3 tells of every request then
            structlog.get_logger().info("sent")
            for _ in range(3):
                telemetry.force_flush()
        exported = [
            record.body.string_value
            for request in receiver.logs
            for scope in request.resource_logs[0].scope_logs
            for record in scope.log_records
        ]
    assert exported.count("sent") == 1
    assert not [body for body in exported if "POST" in body]


def test_current_span_context_is_kept_with_the_record(monkeypatch):
    """A record has the ids of the span it was made in also where no node is."""
    with HttpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", f"{receiver.endpoint}/v1/logs")
        with logging_on(), trace.get_tracer("t").start_as_current_span("s") as span:
            structlog.get_logger().info("sent")
        (record,) = receiver.logs[0].resource_logs[0].scope_logs[0].log_records
    assert record.trace_id.hex() == f"{span.get_span_context().trace_id:032x}"
    assert record.span_id.hex() == f"{span.get_span_context().span_id:016x}"
