"""``rotel-agent``, a real OTLP receiver, as a subprocess. Its package has wheels for Python 3.11 to 3.13 only."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Self

from tests.support.receivers import HOST, ReceivedSpan, free_ports, wait_until

__all__ = ["Rotel", "parse_debug_log", "reason_without_rotel"]


@cache
def reason_without_rotel() -> str | None:
    """Return why ``rotel-agent`` cannot be used here; None if it can."""
    if find_spec("rotel") is None:
        return "the package rotel is not installed (it is in the extra 'dev', for Python 3.11 to 3.13)"
    done = subprocess.run([_agent(), "--version"], env=_environment(), capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"rotel-agent does not start: {done.stderr.strip()}"


class Rotel:
    """A running ``rotel-agent``, whose debug log shows the telemetry that arrives.

    Args:
        folder: The folder for its output.
        detailed: Whether it prints every span, or only the number of spans per request.
        signal: The signal that it prints: ``traces`` or ``metrics``.
    """

    def __init__(self, folder: Path, *, detailed: bool = True, signal: str = "traces") -> None:
        self._detailed = detailed
        self._signal = signal
        self._output = folder / "rotel.log"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.http_endpoint = self.grpc_endpoint = ""

    def spans(self) -> list[ReceivedSpan]:
        return parse_debug_log(self._output.read_text(encoding="utf-8"))

    def wait_for_spans(self, count: int) -> list[ReceivedSpan]:
        wait_until(lambda: len(self.spans()) >= count, f"{count} spans in rotel")
        return self.spans()

    def histograms(self, metric: str, attribute: str) -> dict[str, dict[str, float]]:
        """Return what points of a histogram said last, by the value of an attribute: Count, Sum, Min and Max."""
        found: dict[str, dict[str, float]] = {}
        name = told = ""
        for line in self._output.read_text(encoding="utf-8").splitlines():
            if line.startswith("     -> Name: "):
                name = line.removeprefix("     -> Name: ")
            elif (pair := _ATTRIBUTE.fullmatch(line)) and pair[1] == attribute:
                told = str(_printed_value(pair[2]))
            elif name == metric and (number := _NUMBER.fullmatch(line)):
                found.setdefault(told, {})[number[1]] = float(number[2])
        return found

    def count(self) -> int:
        """Return how many spans it has got, where it prints no more than that."""
        return sum(int(found) for found in _COUNT.findall(_STYLE.sub("", self._output.read_text(encoding="utf-8"))))

    def wait_for_count(self, count: int) -> None:
        """Wait until it has got so many: it prints a moment after it has answered."""
        wait_until(lambda: self.count() >= count, f"{count} spans in rotel")

    def __enter__(self) -> Self:
        for _ in range(3):  # somebody may take a port between the choice and the start
            http, grpc = free_ports(2)
            self._process = self._start(http, grpc)
            self.http_endpoint, self.grpc_endpoint = f"http://{HOST}:{http}", f"http://{HOST}:{grpc}"
            wait_until(lambda: self._exited() or all(map(_listening, (http, grpc))), "rotel to listen")  # noqa: B023  # called within this turn of the loop
            if not self._exited():
                return self
        raise RuntimeError(f"rotel does not start:\n{self._output.read_text(encoding='utf-8')}")

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _exited(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _start(self, http: int, grpc: int) -> subprocess.Popen[bytes]:
        if reason := reason_without_rotel():
            raise RuntimeError(f"rotel cannot be started: {reason}")
        options = {
            "exporter": "blackhole",
            "debug-log": self._signal,
            "debug-log-verbosity": "detailed" if self._detailed else "basic",
            "otlp-http-endpoint": f"{HOST}:{http}",
            "otlp-grpc-endpoint": f"{HOST}:{grpc}",
            "pid-file": str(self._folder / "rotel.pid"),
            "log-file": str(self._folder / "rotel.own.log"),
        }
        command = [_agent(), "start", "--disable-batching"]
        command += [part for name, value in options.items() for part in (f"--{name}", value)]
        with self._output.open("wb") as output:
            return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=_environment())


def _agent() -> str:
    package = find_spec("rotel")
    assert package is not None
    assert package.submodule_search_locations
    return f"{package.submodule_search_locations[0]}/rotel-agent"


def _environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ROTEL_", "OTEL_"))}
    # It embeds Python; only the interpreter itself knows the folder of the shared library.
    libraries = [sysconfig.get_config_var("LIBDIR"), environment.get("LD_LIBRARY_PATH")]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    return environment


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


_STYLE: Final = re.compile(r"\x1b\[[0-9;]*m")
_COUNT: Final = re.compile(r"Received traces\..* spans=(\d+)")
_NUMBER: Final = re.compile(r"(Count|Sum|Min|Max): (.*)")
_FIELD: Final = re.compile(r"    (Trace ID|Parent ID|ID|Name) +: ?(.*)")
_ATTRIBUTE: Final = re.compile(r"     -> ([^:]+): (.*)")
_VALUE: Final = re.compile(r"(Str|Int|Double|Bool|Slice)\((.*)\)")


def parse_debug_log(text: str) -> list[ReceivedSpan]:
    """Return the spans in what ``rotel-agent --debug-log traces --debug-log-verbosity detailed`` prints."""
    spans: list[ReceivedSpan] = []
    fields: dict[str, str] = {}
    resource: dict[str, object] = {}
    attributes: dict[str, object] = {}
    section: dict[str, object] | None = None
    for line in text.splitlines():
        if line.startswith("ResourceSpans #"):
            resource, section = {}, None
        elif line == "Resource attributes:":
            section = resource
        elif line.startswith(("ScopeSpans #", "Span #", "Events:", "Links:")):
            section = None
        elif line == "Attributes:":
            section = attributes
        elif (found := _ATTRIBUTE.fullmatch(line)) and section is not None:
            section[found[1]] = _printed_value(found[2])
        elif found := _FIELD.fullmatch(line):
            fields[found[1]] = found[2]
            if found[1] == "Name":  # the last of the four
                attributes = {}
                ids = (fields["Trace ID"], fields["ID"], fields["Parent ID"])
                spans.append(ReceivedSpan(fields["Name"], *ids, attributes, str(resource.get("service.name", ""))))
    return spans


def _printed_value(text: str) -> object:
    found = _VALUE.fullmatch(text)
    if found is None:
        return text
    kind, inner = found.groups()
    match kind:
        case "Int":
            return int(inner)
        case "Double":
            return float(inner)
        case "Bool":
            return inner == "true"
        case "Slice":
            return tuple(map(_printed_value, re.split(r"(?<=\)), ", inner)))
        case _:
            return inner
