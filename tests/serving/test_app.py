"""The endpoints tell probes, people and programs how a process does, and are never held up."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import anyio
import pytest
from tests.serving.asking import ask
from tests.support.forking import fork

from aetherflow.errors import ConfigurationError
from aetherflow.serving import make_app, serve
from aetherflow.serving.evaluating import Evaluations
from aetherflow.telemetry.health.monitor import HealthMonitor
from aetherflow.telemetry.setup.configuring import configure

PROBES = ("/livez", "/readyz", "/health")
TOKEN = "one-4.ALL~+/=="


@pytest.fixture
def served() -> Iterator[Callable[..., str]]:
    """Serve on a free port until the test's end, and give the URL."""
    with ExitStack() as stack:
        yield lambda **arguments: stack.enter_context(serve(port=0, **arguments))


def monitor_with(view: str, status: str) -> HealthMonitor:
    """A monitor, one of whose checks always says the same."""
    monitor = HealthMonitor(interval=0)
    monitor.add_check("told", lambda: status, views=[view])
    return monitor


@pytest.mark.parametrize("path", PROBES)
def test_a_process_that_has_done_nothing_passes(served, path):
    """Without traffic every view is unknown, which passes, so that a new process gets some."""
    answer = ask(served(monitor=HealthMonitor()) + path)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/health+json")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json["status"] == "pass"


@pytest.mark.parametrize(
    ("path", "view", "said", "status", "code"),
    [
        ("/livez", "live", "ok", "pass", 200),
        ("/livez", "live", "error", "fail", 503),
        ("/livez", "ready", "error", "pass", 200),
        ("/readyz", "ready", "error", "fail", 503),
        ("/readyz", "ready", "warning", "fail", 503),
        ("/readyz", "live", "error", "pass", 200),
        ("/health", "health", "ok", "pass", 200),
        ("/health", "health", "warning", "warn", 200),
        ("/health", "health", "error", "fail", 503),
    ],
)
def test_the_status_is_that_of_the_view(served, path, view, said, status, code):
    """Each path answers for its own view: 200 while it passes, perhaps with warnings, and 503 where it fails."""
    answer = ask(served(monitor=monitor_with(view, said)) + path)
    assert (answer.json["status"], answer.status) == (status, code)


def test_the_monitor_is_the_one_that_was_configured(served):
    """A monitor given to ``configure()`` after the endpoints were made is the one that is asked."""
    url = served()
    with configure(exporter="none", health=monitor_with("live", "error")):
        assert ask(f"{url}/livez").status == 503
    assert ask(f"{url}/livez").status == 200


def test_a_stuck_check_holds_nobody_up(served):
    """While a check is stuck every endpoint answers: alive, not known to be ready, and with metrics."""
    release, monitor = threading.Event(), HealthMonitor()
    monitor.add_check("stuck", release.wait, timeout=60)
    url = served(monitor=monitor)
    try:
        with ThreadPoolExecutor(30) as pool:
            asked = [pool.submit(ask, url + path) for path in (*PROBES, "/metrics") * 10]
            answers = [each.result() for each in asked]
    finally:
        release.set()
    assert [each.status for each in answers] == [200, 503, 503, 200] * 10
    assert answers[1].json["notes"] == ["the first evaluation has not ended yet"]


def test_while_a_check_is_stuck_the_last_report_holds(served):
    """A report that was made before is told, and that it is not of now."""
    release, calls, monitor = threading.Event(), iter(range(9)), HealthMonitor(interval=0)
    monitor.add_check("stuck later", lambda: next(calls) == 0 or release.wait(), timeout=60)
    url = served(monitor=monitor)
    try:
        first, second = ask(f"{url}/health"), ask(f"{url}/health")
    finally:
        release.set()
    assert (first.status, second.status) == (200, 200)
    assert "notes" not in first.json
    assert second.json["notes"] == ["an evaluation takes long: this is what the last one found"]
    assert second.json["checks"] == first.json["checks"]


def test_a_head_request_has_no_body(served):
    """HEAD is answered as GET is, without the body."""
    url = served()
    for path in (*PROBES, "/openapi.json"):
        head, get = ask(url + path, "HEAD"), ask(url + path)
        assert (head.status, head.body) == (get.status, "")
        assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize("path", ["/", "/livez/", "/nothing", "/metrics/x"])
def test_an_unknown_path_is_a_problem(served, path):
    """A path that is not there is 404, told as RFC 9457 has it."""
    answer = ask(served() + path)
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json == {"title": "Not Found", "status": 404}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_another_method_is_refused(served, method):
    """What changes something is 405, with the methods that are allowed."""
    answer = ask(f"{served()}/health", method)
    assert (answer.status, answer.headers["content-type"]) == (405, "application/problem+json")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/health", "/metrics"])
@pytest.mark.parametrize(
    "said", [None, "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer t\xf6ken"]
)
def test_details_are_for_those_with_the_token(served, path, said):
    """Without the very token, checks and metrics are 401, and the answer says which scheme to use."""
    answer = ask(served(token=TOKEN) + path, **({} if said is None else {"Authorization": said}))
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="aetherflow"')
    assert TOKEN not in answer.body


def test_the_token_opens_everything(served):
    """With the token every path answers as if there were none."""
    url = served(token=TOKEN, monitor=monitor_with("ready", "ok"))
    for path in (*PROBES, "/metrics"):
        answer = ask(url + path, Authorization=f"bearer {TOKEN}")
        assert answer.status == 200
        assert "told" in answer.body or path in ("/metrics", "/livez")


def test_probes_need_no_token(served):
    """A probe that cannot hold a secret is told the status, and nothing else."""
    answer = ask(f"{served(token=TOKEN, monitor=monitor_with('ready', 'error'))}/readyz")
    assert (answer.status, answer.json) == (503, {"status": "fail"})


def test_the_token_may_be_a_variable(served, monkeypatch):
    """``AETHER_SERVE_TOKEN`` is the token where no argument is; empty, there is none."""
    monkeypatch.setenv("AETHER_SERVE_TOKEN", TOKEN)
    url = served(monitor=HealthMonitor())
    assert ask(f"{url}/health").status == 401
    assert ask(f"{url}/health", Authorization=f"Bearer {TOKEN}").status == 200
    monkeypatch.setenv("AETHER_SERVE_TOKEN", "")
    assert ask(f"{served(monitor=HealthMonitor())}/health").status == 200


@pytest.mark.parametrize("token", ["", "two words", "t\xf6ken", "a=b", "line\n", 7])
def test_a_token_that_is_none_is_refused_and_not_repeated(token):
    """The error says what a token may be, and never what it was."""
    with pytest.raises(ConfigurationError, match="token is not a bearer token; allowed: ") as caught:
        make_app(token=token)
    assert not str(token).strip() or str(token) not in str(caught.value)


@pytest.mark.parametrize("arguments", [{"monitor": "mine"}, {"timeout": 0}, {"timeout": True}, {"timeout": "1"}])
def test_other_arguments_are_checked(arguments):
    """What is not allowed is named, and so is what is."""
    (name,) = arguments
    with pytest.raises(ConfigurationError, match=rf"^{name} is .*; allowed: "):
        make_app(**arguments)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_evaluates_by_itself():
    """A worker that was forked off while a check was under way is not left waiting for its parent's evaluation."""
    release, monitor, parent = threading.Event(), HealthMonitor(interval=0), os.getpid()
    monitor.add_check("stuck in the parent", lambda: os.getpid() != parent or release.wait(), timeout=60)
    evaluations = Evaluations(monitor, 0.05)
    assert anyio.run(evaluations.report) == (None, False)
    if (child := fork()) == 0:
        evaluations._limit = 10
        report, is_of_now = anyio.run(evaluations.report)
        os._exit(0 if is_of_now and report and report.status == "healthy" else 1)
    _, status = os.waitpid(child, 0)
    release.set()
    assert status == 0
