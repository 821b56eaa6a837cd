"""What happened between two scrapes is what was recorded between them, whatever began anew meanwhile."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.receivers import closed_port, silent_server

from aetherflow.analysis.scrapes import Change, ScrapeError, read_scrape, scrape
from aetherflow.serving.openmetrics import Exposition
from aetherflow.telemetry import conventions as names
from aetherflow.telemetry.metrics.accumulators import registry

OPERATION = {names.OPERATION_NAME: "drawn"}
DURATION = names.OPERATION_DURATION.name


def look(exposition, at=0.0, accept=""):
    return read_scrape(exposition.render(accept)[0].decode(), at, is_open=not accept)


def counter(value, started=1.0, name="aetherflow_cache_requests"):
    """A process that has counted, as it tells it."""
    return read_scrape(
        f"# TYPE {name} counter\n"
        f'{name}_total{{aetherflow_cache_name="c",aetherflow_cache_result="hit"}} {value}\n'
        f"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {started}\n# EOF\n",
        value,
    )


@given(before=st.lists(st.integers(1, 10**11)), since=st.lists(st.integers(1, 10**11)))
def test_only_what_was_recorded_meanwhile_counts(before, since):
    """Count and sum of the difference are those of the values in between."""
    exposition = Exposition()
    series = registry.series(names.OPERATION_DURATION, OPERATION)
    for value in before:
        series.add(value)
    first = look(exposition)
    for value in since:
        series.add(value)
    change = Change(first, look(exposition, 2.0))
    assert change.seconds == 2
    (found,) = change.recorded(DURATION).values() if before or since else [None]
    if found is not None:
        assert found.count == len(since)
        assert found.total == pytest.approx(sum(since) / 1e9, abs=1e-6)


def test_both_formats_say_the_same():
    """The text that Prometheus had before OpenMetrics is read as well."""
    exposition = Exposition()
    registry.series(names.OPERATION_DURATION, OPERATION).add(5)
    assert look(exposition).values == look(exposition, accept="text/plain").values


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (counter(5), counter(7), 2),
        (counter(5), counter(3), 3),
        (counter(5), counter(9, started=2.0), 9),
        (read_scrape("# EOF\n", 0), counter(4), 4),
    ],
    ids=["went on", "less than before", "another process", "first seen"],
)
def test_a_counter_that_began_anew_is_counted_from_there(before, now, expected):
    """Where it has less than before, or another process answers, all that it has is new."""
    assert list(Change(before, now).counted(names.CACHE_REQUESTS.name).values()) == [expected]


def test_a_histogram_that_began_anew_is_counted_from_there():
    """A process that was restarted has recorded all that it has since."""
    series = registry.series(names.OPERATION_DURATION, OPERATION)
    old, new = Exposition(), None
    for _ in range(5):
        series.add(1000)
    first = look(old)
    new = Exposition()
    series.add(1000)
    (found,) = Change(first, look(new)).recorded(DURATION).values()
    assert found.count == 1


@pytest.mark.parametrize(
    "text", ["", "# EOF", "not metrics at all\n# EOF\n", "a{b=\n# EOF\n", "<html></html>", "a 1\n"]
)
def test_what_are_no_metrics_is_refused_in_one_way(text):
    """Whatever the parser makes of it, the error is one and the same, or there is nothing to see."""
    with contextlib.suppress(ValueError):
        assert read_scrape(text, 0.0).values == {}


@given(st.text())
def test_no_text_makes_it_fall_over(text):
    """Any text at all is read or refused."""
    for is_open in (True, False):
        try:
            read_scrape(text, 0.0, is_open=is_open)
        except ValueError:
            continue


def test_nobody_there_is_told():
    """A port that refuses is named, with the reason."""
    with closed_port() as port, pytest.raises(ScrapeError, match=rf":{port}/metrics: cannot be reached \(.*refused"):
        scrape(f"http://127.0.0.1:{port}/metrics")


def test_nobody_is_waited_for_without_end():
    """Who accepts and says nothing is given up."""
    with silent_server() as port, pytest.raises(ScrapeError, match=r"does not answer within 0\.2 s"):
        scrape(f"http://127.0.0.1:{port}/metrics", timeout=0.2)


@pytest.fixture
def answering():
    """A server that answers with a status, headers and a body, and keeps the headers of its requests."""
    servers = []

    def start(status, body=b"", **headers):
        seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                seen.append(self.headers)
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return f"http://127.0.0.1:{server.server_port}/metrics", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_refusal_is_told(answering):
    """A status that is none of success is told, and that a token may be wanted."""
    with pytest.raises(ScrapeError, match="answers 401 Unauthorized; it asks for a token"):
        scrape(answering(401)[0])
    with pytest.raises(ScrapeError, match=r"answers 500 Internal Server Error$"):
        scrape(answering(500)[0])


def test_what_is_no_text_is_told(answering):
    """Bytes, and pages for people, are no metrics."""
    for body in (b"\xff\xfe\x00", b"<!doctype html><p>hello"):
        with pytest.raises(ScrapeError, match="says what are no metrics for Prometheus"):
            scrape(answering(200, body)[0])


def test_a_token_stays_where_it_belongs(answering):
    """The token goes to the address that was given, and not where that sends on to."""
    elsewhere, theirs = answering(200, b"")
    url, ours = answering(302, Location=elsewhere)
    scrape(url, token="secret")
    assert ours[0]["Authorization"] == "Bearer secret"
    assert [each["Authorization"] for each in theirs] == [None]


def test_a_server_that_breaks_off_is_told():
    """A connection that ends in the middle is an error, not a crash."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            client, _ = server.accept()
            client.recv(1000)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n# TY")
            client.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ScrapeError, match="breaks off in the middle"):
            scrape(f"http://127.0.0.1:{server.getsockname()[1]}/metrics")
        thread.join()
