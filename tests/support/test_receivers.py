"""The receivers that other tests rely on do what they are told."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from http.client import RemoteDisconnected

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.support.receivers import (
    Answer,
    HttpReceiver,
    closed_port,
    free_ports,
    silent_server,
    wait_until,
)


def request_of(name: str) -> bytes:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name=name, trace_id=b"\1" * 16, span_id=b"\2" * 8)
    span.attributes.add(key="list").value.array_value.values.add(int_value=1)
    span.attributes.add(key="nothing")
    return request.SerializeToString()


def post(receiver: HttpReceiver, body: bytes = b"", timeout: float = 20) -> int:
    request = urllib.request.Request(f"{receiver.endpoint}/v1/traces", body, method="POST")
    with urllib.request.urlopen(request, timeout=timeout) as response:
        return response.status


@pytest.fixture
def receiver():
    with HttpReceiver() as made:
        yield made


def test_what_is_accepted_is_kept(receiver):
    """A request answered with 200 is parsed, with the values of its attributes."""
    assert post(receiver, request_of("one")) == 200
    (span,) = receiver.wait_for_spans(1)
    assert (span.name, span.trace_id, span.span_id, span.parent_id) == ("one", "01" * 16, "02" * 8, "")
    assert span.attributes == {"list": (1,), "nothing": None}


@pytest.mark.parametrize("answer", [Answer(status=503), Answer(status=429, retry_after=7)])
def test_what_is_refused_is_not_kept(receiver, answer):
    """Another status arrives with its ``Retry-After``, and the telemetry does not count as received."""
    receiver.answer = answer
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(receiver, request_of("one"))
    with refused.value as error:
        assert error.code == answer.status
        assert error.headers["Retry-After"] == (str(answer.retry_after) if answer.retry_after else None)
    assert (receiver.spans, receiver.requests) == ([], ["/v1/traces"])


def test_it_cuts_the_connection(receiver):
    """Told to, it reads the request and hangs up."""
    receiver.answer = Answer(cut=True)
    with pytest.raises(RemoteDisconnected):
        post(receiver, request_of("one"))
    assert receiver.spans == []


def test_it_keeps_silent_and_still_stops():
    """Told to, it never answers; leaving does not wait for those it left waiting."""
    with HttpReceiver(Answer(silent=True)) as receiver, pytest.raises(TimeoutError):
        post(receiver, request_of("one"), timeout=0.05)
    assert receiver.spans == []


def test_it_answers_late(receiver):
    """A delay only delays."""
    receiver.answer = Answer(delay=0.01)
    assert post(receiver, request_of("one")) == 200
    assert len(receiver.spans) == 1


def test_ports_are_free_and_different():
    """Free ports are as many as asked for, and can be listened on."""
    ports = free_ports(5)
    assert len(set(ports)) == 5
    with socket.create_server(("127.0.0.1", ports[0])):
        ...


def test_a_closed_port_refuses():
    """Connecting to it fails at once."""
    with closed_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_a_silent_server_says_nothing():
    """It takes the connection and what is sent, and nothing comes back."""
    with silent_server() as port, socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"hello")
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_waiting_ends():
    """Waiting in vain says what was waited for."""
    with pytest.raises(TimeoutError, match="waited 0 s for rain"):
        wait_until(lambda: False, "rain", timeout=0)
