"""Jobs read from a Prometheus server are those that files would have given; what is no answer is told as that."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.analysis.metric_samples import explicit, exponential, message, metric, node_durations, of_node
from tests.cli.program import environment
from tests.support import prometheus as support
from tests.support.prometheus import Prometheus

from aetherflow.analysis import prometheus_api
from aetherflow.analysis.histograms import Counts, ExplicitBuckets, ExponentialBuckets, Histogram
from aetherflow.analysis.metrics import Job, Level, read_jobs
from aetherflow.analysis.node_samples import durations_of, executions_of
from aetherflow.analysis.prometheus import read_prometheus
from aetherflow.analysis.prometheus_api import PrometheusError, parse_source
from aetherflow.analysis.prometheus_series import native_histogram, without
from aetherflow.errors import ConfigurationError
from aetherflow.telemetry import conventions as names

NOW = int(time.time())
NODE = {"aetherflow_flow_name": "flow", "aetherflow_node_name": "a"}
DURATIONS = "aetherflow_node_duration_seconds"

real = pytest.mark.skipif(support.PROGRAM is None, reason="Prometheus is not installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with support.prometheus(tmp_path_factory.mktemp("prometheus")) as running:
        yield running


@pytest.fixture
def process(request: pytest.FixtureRequest) -> dict[str, str]:
    """Labels of a process that no other test writes."""
    return {"job": request.node.name, "instance": "1"}


def read(server: Prometheus, process: dict[str, str], **parameters: object) -> list[Job]:
    said = "".join(f"&{key}={value}" for key, value in parameters.items())
    return read_prometheus(parse_source(f'{server.url}?match=job="{process["job"]}"{said}', NOW))


def info(server: Prometheus, process: dict[str, str], run: str, at: float = NOW - 60, **labels: str) -> None:
    server.write({"__name__": "target_info", "cicd_pipeline_run_id": run, **process, **labels}, (at, 1.0))


def native(*counts: int, scale: int = 5, offset: int = -200) -> Histogram:
    return Histogram(sum(counts), float(sum(counts)), ExponentialBuckets(scale, positive=Counts(offset, counts)))


def durations_in(job: Job) -> Histogram:
    return next(value for series, value in job.histograms.items() if series.metric == names.NODE_DURATION.name)


@pytest.mark.backend
@real
@pytest.mark.parametrize("kind", ["exponentialHistogram", "histogram"])
def test_jobs_are_those_of_files(server: Prometheus, process: dict[str, str], tmp_path: Path, kind: str) -> None:
    """Histograms of both kinds and counters are read with the buckets, sums, names and attributes that files have."""
    values = [0.001 * 1.1**power for power in range(40)] * 3
    point = exponential(values) if kind == "exponentialHistogram" else explicit(values)
    hits = {"asInt": "7", "startTimeUnixNano": point["startTimeUnixNano"], "timeUnixNano": point["timeUnixNano"]}
    attributes = {names.CACHE_NAME: "c", names.CACHE_RESULT: "hit"}
    counter = metric(names.CACHE_REQUESTS.name, "sum", {**hits, "attributes": _told(attributes)}, isMonotonic=True)
    counter["unit"] = names.CACHE_REQUESTS.unit
    file = tmp_path / "metrics.jsonl"
    line = message(node_durations(of_node(point, "a"), kind=kind), counter, **{names.PIPELINE_RUN_ID: "77"})
    file.write_text(json.dumps(line) + "\n", encoding="utf-8")
    (of_file,) = read_jobs([file])
    expected = durations_in(of_file)
    if kind == "histogram":
        assert isinstance(expected.buckets, ExplicitBuckets)
        last = (NOW - 60, expected.buckets.counts, expected.total or 0.0)
        server.write_classic(DURATIONS, {**process, **NODE}, expected.buckets.bounds, last)
    else:
        server.write({"__name__": DURATIONS, **process, **NODE}, (NOW - 60, expected))
    cache = {"aetherflow_cache_name": "c", "aetherflow_cache_result": "hit"}
    server.write({"__name__": "aetherflow_cache_requests_total", **process, **cache}, (NOW - 60, 7.0))
    info(server, process, "77", vcs_ref_head_revision="abc")
    (job,) = read(server, process)
    assert job.name == of_file.name == "77"
    assert {series: _unbounded(value) for series, value in of_file.histograms.items()} == job.histograms
    assert job.sums == of_file.sums
    assert dict(job.resource)[names.VCS_REVISION] == "abc"
    assert abs(job.started / 1e9 - (NOW - 60)) < 1


def _told(attributes: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]


def _unbounded(value: Histogram) -> Histogram:
    """Prometheus keeps no extremes, and sums as decimals."""
    return replace(value, minimum=None, maximum=None)


@pytest.mark.backend
@real
@pytest.mark.parametrize("served", ["native", "classic"])
def test_kinds_are_told_apart_as_in_files(server: Prometheus, process: dict[str, str], served: str) -> None:
    """Cache hits and retried executions are in series of their own, which the gate counts and does not judge.

    An exporter that writes every label leaves it empty for computed executions: that is the same as none.
    """
    kind = "aetherflow_execution_kind"
    for labels, count in (({kind: ""}, 300), ({kind: "cache_hit"}, 9_000), ({kind: "retried", "error_type": "E"}, 20)):
        series = {**process, **NODE, **labels}
        if served == "native":
            server.write({"__name__": DURATIONS, **series}, (NOW - 60, native(count)))
        else:
            server.write_classic(DURATIONS, series, (0.1,), (NOW - 60, (count, 0), 1.0))
    (job,) = read(server, process)
    ((key, counts),) = executions_of(job).items()
    assert (counts.total, counts.failed, counts.computed) == (9_320, 20, 300)
    assert counts.kinds == {"cache_hit": 9_000, "retried": 20}
    assert durations_of(job)[key].count == 300


@pytest.mark.backend
@real
def test_processes_that_start_anew_count_once_each(server: Prometheus, process: dict[str, str]) -> None:
    """What a series had grown to before it started anew is added; samples in between add nothing."""
    series = {"__name__": DURATIONS, **process, **NODE}
    server.write(
        series, (NOW - 90, native(1, 2)), (NOW - 80, native(2, 4)), (NOW - 70, native(1)), (NOW - 60, native(3))
    )
    runs = {"aetherflow_flow_name": "flow", **process}
    points = ((NOW - 90, (3, 1), 0.5), (NOW - 80, (5, 2), 0.75), (NOW - 70, (2, 0), 0.25))
    server.write_classic("aetherflow_run_duration_seconds", runs, (0.1,), *points)
    (job,) = read(server, process)
    assert durations_in(job) == native(5, 4)
    (of_runs,) = (value for series, value in job.histograms.items() if series.metric == names.RUN_DURATION.name)
    assert of_runs == Histogram(9, 1.0, ExplicitBuckets((0.1,), (7, 2)))


@pytest.mark.backend
@real
def test_what_was_before_is_taken_away(server: Prometheus, process: dict[str, str]) -> None:
    """Of a process that ran when the time began only what came later counts, unless it has started anew since."""
    name = {"__name__": DURATIONS}
    server.write(
        {**name, **process, **NODE}, (NOW - 700, native(1, 2, scale=6, offset=-400)), (NOW - 60, native(9, 2, 5))
    )
    anew = process | {"instance": "2"}
    server.write({**name, **anew, **NODE}, (NOW - 700, native(7)), (NOW - 60, native(4)))
    one, other = read(server, process, start=NOW - 650)
    assert one.name == f"{process['job']}/1 until {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(NOW))}"
    assert durations_in(one) == replace(native(6, 2, 5), total=13.0)
    assert durations_in(other) == native(4)


@pytest.mark.backend
@real
def test_what_is_meant_is_chosen(server: Prometheus, process: dict[str, str]) -> None:
    """Runs, resource attributes, labels of series, and times choose jobs, whichever way the run is told."""
    for number in range(4):
        own = process | {"instance": str(number)}
        labels = {"cicd_pipeline_run_id": "run-3", "ci_run": "label-3"} if number == 3 else {}
        server.write({"__name__": DURATIONS, **own, **NODE, **labels}, (NOW - 60 - number, native(1 + number)))
        if not labels:
            info(server, own, f"run-{number}", branch="main" if number else "change.1")

    def chosen(**parameters: object) -> list[str]:
        return [job.name for job in read(server, process, **parameters)]

    assert sorted(chosen()) == ["run-0", "run-1", "run-2", "run-3"]
    assert chosen(run="run-1") == ["run-1"]
    assert sorted(chosen(run="run-3&run=run-2&run=run-")) == ["run-2", "run-3"]
    assert sorted(chosen(target='{branch="main",cicd_pipeline_run_id!="run-1"}')) == ["run-2"]
    assert chosen(target='branch="main"', run="run-0") == []
    assert chosen(label="ci_run") == ["label-3"]
    assert chosen(label="ci_run", run="label-4") == []
    assert chosen(end=NOW - 3600) == []


@pytest.mark.backend
@real
def test_gauges_have_heights(server: Prometheus, process: dict[str, str]) -> None:
    """An up-down counter's last, mean and largest values are added up over processes, and its points counted."""
    for instance in ("1", "2"):
        info(server, process | {"instance": instance}, "run")
        state = {"aetherflow_pool_name": "p", "aetherflow_pool_state": "idle", "instance": instance}
        points = ((NOW - 80, 1.0), (NOW - 70, 4.0), (NOW - 60, 1.0))
        server.write({"__name__": "aetherflow_pool_objects", **process, **state}, *points)
    (job,) = read(server, process)
    assert list(job.levels.values()) == [Level(2.0, 4.0, 8.0, 3)]


@pytest.mark.backend
@real
def test_runs_in_one_series_are_refused(server: Prometheus, process: dict[str, str]) -> None:
    """Runs whose metrics the server cannot tell apart are an error, also where one is asked for."""
    server.write({"__name__": DURATIONS, **process, **NODE}, (NOW - 60, native(1)))
    info(server, process, "first", NOW - 90)
    info(server, process, "second")
    with pytest.raises(PrometheusError, match="'first' and 'second' in the same series, those of job"):
        read(server, process, run="second")


@pytest.mark.backend
@real
def test_what_cannot_be_is_refused(server: Prometheus, process: dict[str, str]) -> None:
    """A bucket that holds less than the one below it, and label matchers that do not parse, are told."""
    for le, value in (("0.1", 5.0), ("1", 3.0), ("+Inf", 6.0)):
        server.write({"__name__": f"{DURATIONS}_bucket", "le": le, **process, **NODE}, (NOW - 60, value))
    with pytest.raises(PrometheusError, match=f"a bucket of {DURATIONS} that holds less than the one below"):
        read(server, process)
    with pytest.raises(PrometheusError, match=r"answers 400 Bad Request: .*parse error"):
        read(server, process, target='branch="')


EXPORTING = """
import time
import aetherflow

@aetherflow.node
def work(n: int) -> int:
    return n

with aetherflow.configure():
    for n in range(300):
        work.run(n)
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.backend
@real
def test_what_our_own_exporter_offers_is_read(tmp_path: Path) -> None:
    """A program that Prometheus scrapes is a job: its nodes are there by name, in low resolution."""
    pytest.importorskip("opentelemetry.exporter.prometheus")
    port = support.free_port()
    env = environment(
        OTEL_METRICS_EXPORTER="prometheus",
        OTEL_TRACES_EXPORTER="none",
        OTEL_EXPORTER_PROMETHEUS_HOST="127.0.0.1",
        OTEL_EXPORTER_PROMETHEUS_PORT=str(port),
        OTEL_RESOURCE_ATTRIBUTES="cicd.pipeline.run.id=scraped",
    )
    config = (
        "scrape_configs:\n- job_name: t\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n"
        f"  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
    )
    program = [sys.executable, "-c", EXPORTING]
    with subprocess.Popen(program, env=env, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as running:
        try:
            assert running.stdout
            assert running.stdout.readline() == "ready\n"
            with support.prometheus(tmp_path, config) as server:
                deadline = time.monotonic() + 30
                while not (jobs := read_prometheus(parse_source(server.url, time.time() + 1))):
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
        finally:
            running.kill()
    (job,) = jobs
    assert job.name == "scraped"
    found = durations_in(job)
    assert found.count == 300
    assert found.total
    assert not found.is_fine


# --- servers that do not answer -----------------------------------------------------------------------------


@pytest.fixture
def answering() -> Iterator[Callable[[Callable[[BaseHTTPRequestHandler], None]], str]]:
    """Serve an answer of the test's own, and give the address."""
    servers: list[ThreadingHTTPServer] = []

    def serve(answer: Callable[[BaseHTTPRequestHandler], None]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def text(body: str, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body.encode())

    return answer


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (text("<html>hello</html>"), "does not answer as a Prometheus server does, but: '<html>hello</html>'"),
        (text("[" * 100_000), "does not answer as a Prometheus server does"),
        (text('{"status": "success", "data": {"resultType": "vector", "result": [{}]}}'), "does not answer as"),
        (text('{"status": "success", "data": 3}'), "does not answer as a Prometheus server does"),
        (text("not here", 404), "answers 404 Not Found$"),
        (text('{"error": "too many samples"}', 422), r"answers 422 Unprocessable \w+: too many samples"),
        (text("", 302, Location="http://else.where/"), "answers 302 Found, which is http://else.where/"),
        (text("x" * 2_000), "more than 1,000 bytes; ask for less"),
        (text('{"status": ', **{"Content-Length": "99"}), "breaks off in the middle of its answer"),
    ],
)
def test_what_is_no_answer_is_told(
    answering: Callable[..., str], monkeypatch: pytest.MonkeyPatch, answer: Any, told: str
) -> None:
    """Whatever else a server says is one error, which begins with its address and holds no password."""
    monkeypatch.setattr(prometheus_api, "MAX_RECORD_BYTES", 200_000 if "as a" in told else 1_000)
    url = answering(answer)
    with pytest.raises(PrometheusError, match=told) as caught:
        read_prometheus(parse_source(url.replace("//", "//user:secret@")))
    assert str(caught.value).startswith(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_never_ends_is_left(answering: Callable[..., str]) -> None:
    """An answer that comes drop by drop takes the time-out and no longer."""
    over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not over.wait(0.05):
            handler.wfile.write(b" ")

    try:
        with pytest.raises(PrometheusError, match="does not answer within 1 s"):
            read_prometheus(parse_source(f"{answering(drip)}?timeout=1s"))
    finally:
        over.set()


def test_nobody_there_is_told() -> None:
    """A server that is not up is told with the reason."""
    with pytest.raises(PrometheusError, match=r"cannot be reached \(Connection refused\)"):
        read_prometheus(parse_source(f"http://127.0.0.1:{support.free_port()}"))


def test_a_user_is_named_to_the_server(answering: Callable[..., str]) -> None:
    """User and password go to the server, and into no text."""
    seen: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Authorization"])
        text('{"status": "success", "data": {"resultType": "vector", "result": []}}')(handler)

    source = parse_source(answering(answer).replace("//", "//us%40er:pa:ss@"))
    assert read_prometheus(source) == []
    assert seen == ["Basic dXNAZXI6cGE6c3M="]
    assert "ss" not in str(source)


# --- addresses and histograms -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://", "is no address"),
        ("http://host:port", "is no address"),
        ("ftp://host", "is no address"),
        ("http://host?runs=1", "'runs' is not known; allowed: run, label"),
        ("http://host?range=1d&range=2d", "'range' is given twice"),
        ("http://host?run", "is no address"),
        ("http://host?range=soon", "'range' is 'soon'; allowed: a time such as"),
        ("http://host?range=0s", "'range' is '0s'"),
        ("http://host?start=yesterday", "'yesterday' is no time"),
        ("http://host?start=nan", "'nan' is no time"),
        ("http://host?start=200&end=100", "'start' must be before 'end'"),
        ("http://host?start=100&range=1d", "two ways to say the same"),
        ("http://host?label=a-b", "'label' is 'a-b'"),
        ("http://host?timeout=9", "'timeout' is '9'"),
    ],
)
def test_addresses_that_are_none_are_told(address: str, told: str) -> None:
    """Each mistake in an address is told with what is allowed."""
    with pytest.raises(ConfigurationError, match=told):
        parse_source(address, NOW)


def test_an_address_says_where_and_when() -> None:
    """Path, host and times are read; by default it is the day until now."""
    source = parse_source('https://[::1]:9/prom/?start=2026-01-31T12:00:00+01:00&end=1769860800&match={a="b"}')
    assert (source.url, source.match) == ("https://[::1]:9/prom", 'a="b"')
    assert source.end - source.start == 3600
    plain = parse_source("http://h", 1_000_000.0)
    assert (plain.start, plain.end) == (1_000_000 - 86_400, 1_000_000)


def answered(buckets: ExponentialBuckets) -> dict[str, Any]:
    """A native histogram as Prometheus tells it: buckets that are empty are left out."""
    told: list[list[Any]] = []
    held = buckets.held()
    for position, count in enumerate(held):
        bucket = buckets.at(position)
        if count:
            rule = 3 if position == len(buckets.negative.counts) else 0
            low = -bucket.high if rule == 3 else bucket.low
            told.append([rule, f"{low:.17g}", f"{bucket.high:.17g}", str(count)])
    return {"count": str(sum(held)), "sum": "1.5", "buckets": told}


sides = st.builds(Counts, st.integers(-300, 300), st.lists(st.integers(0, 9), max_size=30).map(tuple))


@given(st.integers(-4, 8), st.integers(0, 5), sides, sides)
def test_native_histograms_keep_their_buckets(scale: int, zeros: int, positive: Counts, negative: Counts) -> None:
    """Every bucket of exponential histograms of any scale is found again in what the server tells of it."""
    reach = math.floor(1000 * 2.0**scale)
    positive, negative = (
        replace(side, offset=max(-reach, min(reach - 40, side.offset))) for side in (positive, negative)
    )
    given_buckets = ExponentialBuckets(scale, zeros, 1e-300, positive, negative)
    found = native_histogram(answered(given_buckets)).buckets
    if not any((*positive.counts, *negative.counts)):
        assert sum(found.held()) == zeros
        return
    assert isinstance(found, ExponentialBuckets)
    assert found.scale == scale
    for got, side in ((found.positive, positive), (found.negative, negative)):
        held = {index: count for index, count in enumerate(got.counts, got.offset) if count}
        assert held == {index: count for index, count in enumerate(side.counts, side.offset) if count}


@given(sides, st.lists(st.integers(0, 9), min_size=30, max_size=30), st.integers(0, 3))
def test_what_was_before_can_be_taken_away(before: Counts, more: list[int], coarser: int) -> None:
    """What is left of a histogram is what was added to it, also where its resolution has become coarser since."""
    added = ExponentialBuckets(5, positive=Counts(before.offset, tuple(more)))
    then = ExponentialBuckets(5, positive=before)
    now = then.merged(added).coarsened(5 - coarser)
    one, other = (Histogram(sum(each.held()), 0.0, each) for each in (now, then))
    left = without(one, other)
    assert left is not None
    assert left.count == sum(more)
    wanted = added.coarsened(5 - coarser).positive
    assert isinstance(left.buckets, ExponentialBuckets)
    held = {
        index: count for index, count in enumerate(left.buckets.positive.counts, left.buckets.positive.offset) if count
    }
    assert held == {index: count for index, count in enumerate(wanted.counts, wanted.offset) if count}


def test_native_histograms_with_bounds_of_their_own_are_explicit() -> None:
    """Custom buckets become explicit ones, with the empty ones between them."""
    buckets = [[0, "-Inf", "0.5", "2"], [0, "1", "5", "3"], [0, "10", "+Inf", "1"]]
    found = native_histogram({"count": "6", "sum": "NaN", "buckets": buckets})
    assert found == Histogram(6, None, ExplicitBuckets((0.5, 1.0, 5.0, 10.0), (2, 0, 3, 0, 1)))


@pytest.mark.parametrize(
    "change",
    [
        {"count": "7"},
        {"count": "-1"},
        {"count": "NaN"},
        {"buckets": [[0, "2", "1", "6"]]},
        {"buckets": [[0, "1", "2", "-6"]]},
    ],
)
def test_native_histograms_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    """Counts that do not add up, or are none, and bounds the wrong way round are errors."""
    plain = {"count": "6", "sum": "1", "buckets": [[0, "1", "2", "6"]]}
    assert native_histogram(plain).count == 6
    with pytest.raises(ValueError, match=r"has |says "):
        native_histogram(plain | change)
