"""The standard ``OTEL_BSP_*`` variables decide when how much is sent."""

from __future__ import annotations

import pytest

from aetherflow.telemetry.export.schedule import Schedule


def test_without_variables_the_defaults_are_in_force():
    """Every five seconds, at most 8,192 spans or 3.5 MB a request, no limit in spans; an empty variable is none."""
    assert Schedule.from_environ({"OTEL_BSP_SCHEDULE_DELAY": ""}) == Schedule(5.0, 8192, 3_500_000, None, None)


def test_variables_are_in_milliseconds_and_spans():
    """What is set is in force, in seconds where it is a time."""
    environ = {
        "OTEL_BSP_SCHEDULE_DELAY": "250",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100",
        "OTEL_BSP_MAX_QUEUE_SIZE": " 4000 ",
        "OTEL_BSP_EXPORT_TIMEOUT": "1500",
    }
    expected = Schedule(0.25, request_spans=100, queue_spans=4000, export_timeout=1.5)
    assert Schedule.from_environ(environ) == expected


def test_a_request_never_holds_more_than_receivers_take():
    """The variable for the batch size only lowers the limit."""
    assert Schedule.from_environ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "50000"}).request_spans == 8192


@pytest.mark.parametrize("value", ["soon", "0", "-1", "1.5"])
def test_a_bad_variable_is_told_of_and_left_out(caplog, value):
    """Telemetry is set up all the same, with the default, and one line names the variable."""
    assert Schedule.from_environ({"OTEL_BSP_SCHEDULE_DELAY": value}) == Schedule()
    assert f"OTEL_BSP_SCHEDULE_DELAY is '{value}'" in caplog.text
