"""A real Prometheus server, which series are written to over its remote-write protocol."""

from __future__ import annotations

import contextlib
import math
import shutil
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aetherflow.analysis.histograms import ExponentialBuckets, Histogram

PROGRAM = shutil.which("prometheus")

Value = float | Histogram


@dataclass(frozen=True)
class Prometheus:
    """A server that is up."""

    url: str

    def write(self, labels: Mapping[str, str], *points: tuple[float, Value]) -> None:
        """Write a series: its labels, and its points by time, in seconds since the epoch."""
        body = b"".join(
            _field(1, _field(1, key.encode()) + _field(2, value.encode())) for key, value in sorted(labels.items())
        )
        for at, value in points:
            stamp = _varint_field(3 if isinstance(value, float) else 15, round(at * 1000))
            if isinstance(value, float):
                body += _field(2, _double(1, value) + _varint_field(2, round(at * 1000)))
            else:
                body += _field(4, _native(value) + stamp)
        request = urllib.request.Request(
            f"{self.url}/api/v1/write",
            data=_snappy(_field(1, body)),
            headers={"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"},
        )
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(error.read().decode()) from error

    def write_classic(
        self, name: str, labels: Mapping[str, str], bounds: Sequence[float], *points: tuple[float, Sequence[int], float]
    ) -> None:
        """Write a classic histogram: by time what each bucket holds, and the sum."""
        for index, bound in enumerate((*bounds, math.inf)):
            le = "+Inf" if math.isinf(bound) else f"{bound:g}"
            series = {**labels, "__name__": f"{name}_bucket", "le": le}
            self.write(series, *((at, float(sum(counts[: index + 1]))) for at, counts, _ in points))
        self.write({**labels, "__name__": f"{name}_count"}, *((at, float(sum(counts))) for at, counts, _ in points))
        self.write({**labels, "__name__": f"{name}_sum"}, *((at, total) for at, _, total in points))


def free_port() -> int:
    """Give a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextlib.contextmanager
def prometheus(folder: Path, config: str = "") -> Iterator[Prometheus]:
    """Start a server that keeps its data in a folder, and stop it."""
    assert PROGRAM
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    port = free_port()
    command = [
        PROGRAM,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--enable-feature=native-histograms",
    ]
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            server = Prometheus(f"http://127.0.0.1:{port}")
            _wait_for(f"{server.url}/-/ready", process, folder / "prometheus.log")
            yield server
        finally:
            process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            up = process.poll() is None and time.monotonic() < deadline
            assert up, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        else:
            return


def _native(value: Histogram) -> bytes:
    """Encode a ``prometheus.Histogram`` of integer counts."""
    buckets = value.buckets
    assert isinstance(buckets, ExponentialBuckets)
    assert not buckets.negative.counts
    assert value.total is not None
    counts = buckets.positive.counts
    deltas = [after - before for before, after in zip((0, *counts), counts, strict=False)]
    span = _varint_field(1, _zigzag(buckets.positive.offset + 1)) + _varint_field(2, len(counts))
    return b"".join(
        (
            _varint_field(1, value.count),
            _double(3, value.total),
            _varint_field(4, _zigzag(buckets.scale)),
            _double(5, buckets.threshold),
            _varint_field(6, buckets.zeros),
            _field(11, span),
            _field(12, b"".join(_varint(_zigzag(delta)) for delta in deltas)),
        )
    )


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes((*encoded, number))


def _zigzag(number: int) -> int:
    return number * 2 if number >= 0 else -number * 2 - 1


def _varint_field(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _double(field: int, number: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", number)


def _snappy(data: bytes) -> bytes:
    """Frame bytes as Snappy does that finds nothing to compress."""
    encoded = bytearray(_varint(len(data)))
    for start in range(0, len(data), 60):
        part = data[start : start + 60]
        encoded += bytes((len(part) - 1 << 2,)) + part
    return bytes(encoded)
