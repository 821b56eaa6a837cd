"""The OpenAPI document says what the endpoints do, as schemathesis finds who tries them all."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.support.dev_extra import NEEDS_DEV

from aetherflow.serving import serve
from aetherflow.telemetry.health.monitor import HealthMonitor

schemathesis = pytest.importorskip("schemathesis", reason=NEEDS_DEV)
checks = pytest.importorskip("schemathesis.checks")

BOUNDED = settings(
    max_examples=8, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)

UNAVAILABLE = checks.not_a_server_error
"""It holds every 503 for a fault; here that is what a probe is to be told."""


@pytest.mark.parametrize("status", ["ok", "warning", "error"])
@pytest.mark.parametrize("token", [None, "secret"])
def test_every_answer_is_one_of_those_described(status, token):
    """Whatever is asked, the answer has a status, a media type, headers and a body that the document allows."""
    monitor = HealthMonitor(interval=0)
    monitor.add_check("told", lambda: status, views=["live", "ready"])
    with serve(port=0, monitor=monitor, token=token) as url:
        document = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = [each.ok() for each in document.get_all_operations()]
        assert sorted(each.path for each in operations) == ["/health", "/livez", "/metrics", "/readyz"]
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        for operation in operations:
            _ask_all(operation, headers)


def _ask_all(operation, headers):
    @BOUNDED
    @given(case=operation.as_strategy())
    def asked(case):
        case.call_and_validate(headers=headers, excluded_checks=[UNAVAILABLE])

    asked()
