"""A Prometheus server's HTTP API: what is asked of it, and its answers, refused where they are none."""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any, Final

from aetherflow.analysis.fetching import AnswerTooLongError, NoAnswerError, fetch
from aetherflow.analysis.otlp_files import MAX_RECORD_BYTES
from aetherflow.errors import AetherFlowError, ConfigurationError

__all__ = ["PrometheusError", "PrometheusSource", "Sample", "ask", "parse_source"]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DEFAULT_RANGE: Final = "1d"
_DEFAULT_TIMEOUT: Final = "30s"
_PARAMETERS: Final = ("run", "label", "target", "match", "start", "end", "range", "timeout")
_REPEATED: Final = "run"
_CHUNK: Final = 64 * 1024
_SHOWN: Final = 60


class PrometheusError(AetherFlowError, ValueError):
    """A Prometheus server cannot be reached, or answers what is no answer.

    Args:
        source: What was asked.
        problem: What is wrong.
    """

    def __init__(self, source: PrometheusSource, problem: str) -> None:
        self.source = source
        self.problem = problem
        super().__init__(f"{source.url}: {problem}")


@dataclass(frozen=True, slots=True)
class PrometheusSource:
    """Metrics that a Prometheus server holds: where it is, and which of them are meant.

    Attributes:
        url: The server's address, without a password.
        authorization: The value of the header of that name; None for none.
        runs: The names of the jobs; all where it is empty.
        label: The label of the series that names the job; None for the run of a CI system.
        target: Label matchers that ``target_info``, where resource attributes are, must meet.
        match: Label matchers that the series themselves must meet.
        start: When it begins, in seconds since the epoch.
        end: When it ends.
        timeout: Seconds that one answer may take.
    """

    url: str
    authorization: str | None
    runs: tuple[str, ...]
    label: str | None
    target: str
    match: str
    start: int
    end: int
    timeout: float

    def __str__(self) -> str:
        return f"{self.url} from {_date(self.start)} to {_date(self.end)}"


@dataclass(frozen=True, slots=True)
class Sample:
    """A series in an answer: its labels, and by time (seconds) numbers, as text, or native histograms, as objects."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, Any], ...]


def parse_source(text: str, now: float | None = None) -> PrometheusSource:
    """Read an address such as ``http://host:9090?run=1201&range=14d``.

    Args:
        text: The address, with ``run`` (may be repeated), ``label``, ``target``, ``match``, ``start``, ``end``,
            ``range`` and ``timeout`` as its parameters; times are RFC 3339 or seconds since the epoch.
        now: The time, in seconds since the epoch; that of the clock by default.

    Raises:
        ConfigurationError: It is no such address.
    """
    try:
        parts = urllib.parse.urlsplit(text)
        host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
        given = urllib.parse.parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ConfigurationError(f"{_shown(text)!r} is no address of a Prometheus server ({error})") from error
    if not host or parts.scheme not in ("http", "https"):
        raise ConfigurationError(f"{_shown(text)!r} is no address of a Prometheus server, as http://host:9090?run=1 is")
    if ":" in (parts.hostname or ""):
        host = host.replace(parts.hostname or "", f"[{parts.hostname}]")
    for name, values in given.items():
        if name not in _PARAMETERS or (len(values) > 1 and name != _REPEATED):
            told = "is given twice" if name in _PARAMETERS else f"is not known; allowed: {', '.join(_PARAMETERS)}"
            raise ConfigurationError(f"{parts.scheme}://{host}: the parameter {name!r} {told}")
    one = {name: values[-1] for name, values in given.items()}
    end = _time(one["end"]) if "end" in one else int(time.time() if now is None else now)
    if "start" in one and "range" in one:
        raise ConfigurationError(f"{parts.scheme}://{host}: 'start' and 'range' are two ways to say the same; give one")
    start = _time(one["start"]) if "start" in one else end - _seconds("range", one.get("range", _DEFAULT_RANGE))
    if not 0 <= start < end:
        raise ConfigurationError(f"{parts.scheme}://{host}: 'start' must be before 'end', which is now by default")
    label = one.get("label")
    if label is not None and not re.fullmatch(r"[a-zA-Z_]\w*", label, re.ASCII):
        raise ConfigurationError(f"{parts.scheme}://{host}: 'label' is {label!r}; allowed: the name of a label")
    return PrometheusSource(
        f"{parts.scheme}://{host}{parts.path.rstrip('/')}",
        _authorization(parts),
        tuple(given.get(_REPEATED, ())),
        label,
        one.get("target", "").strip("{}"),
        one.get("match", "").strip("{}"),
        start,
        end,
        _seconds("timeout", one.get("timeout", _DEFAULT_TIMEOUT)),
    )


def ask(source: PrometheusSource, expression: str, at: float) -> list[Sample]:
    """Evaluate a PromQL expression.

    Args:
        source: The server.
        expression: What to evaluate.
        at: The time, in seconds since the epoch.

    Returns:
        The series that it gives.

    Raises:
        PrometheusError: The server cannot be reached, does not answer in time, or not as a Prometheus server does.
    """
    form = urllib.parse.urlencode({"query": expression, "time": f"{at:.3f}", "timeout": f"{source.timeout:g}s"})
    request = urllib.request.Request(f"{source.url}/api/v1/query", data=form.encode())
    if source.authorization:
        request.add_header("Authorization", source.authorization)
    try:
        body, _ = fetch(request, timeout=source.timeout, most=MAX_RECORD_BYTES, opener=_OPENER)
    except urllib.error.HTTPError as error:
        with error:
            raise PrometheusError(source, _refusal(error)) from error
    except AnswerTooLongError as error:
        raise PrometheusError(source, f"{error}; ask for less, with 'match', 'run' or 'range'") from error
    except NoAnswerError as error:
        raise PrometheusError(source, str(error)) from error
    try:
        return list(_samples(json.loads(body)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        shown = body[:_SHOWN].decode(errors="replace")
        raise PrometheusError(source, f"does not answer as a Prometheus server does, but: {shown!r}") from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows nothing: a redirected question would lose its body, and might take a password to another server."""

    def redirect_request(self, *_: Any) -> None:
        """Say that there is no request to go on with."""


_OPENER: Final = urllib.request.build_opener(_NoRedirects)


def _refusal(error: urllib.error.HTTPError) -> str:
    """Say what an answer other than 200 tells: Prometheus gives its reason as JSON."""
    told = f"answers {error.code} {error.reason}".rstrip()
    try:
        return f"{told}: {json.loads(error.read(_CHUNK))['error']}"
    except (ValueError, TypeError, KeyError, RecursionError, OSError, HTTPException):
        elsewhere = error.headers.get("Location")
        return f"{told}, which is {elsewhere}" if elsewhere else told


def _samples(answer: Any) -> Iterator[Sample]:
    if answer["status"] != "success" or answer["data"]["resultType"] not in ("vector", "matrix"):
        raise ValueError(answer["status"])
    for series in answer["data"]["result"]:
        found = [*series.get("values", ()), *series.get("histograms", ())]
        found += [series[name] for name in ("value", "histogram") if name in series]
        labels = {str(name): str(value) for name, value in series["metric"].items()}
        yield Sample(labels, tuple((float(at), value) for at, value in found))


def _authorization(parts: urllib.parse.SplitResult) -> str | None:
    if parts.username is None:
        return None
    user, password = (urllib.parse.unquote(each or "") for each in (parts.username, parts.password))
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _shown(address: str) -> str:
    """Leave out what may be a password."""
    return re.sub(r"//.*@", "//…@", address)


def _time(text: str) -> int:
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign stands for a blank in addresses
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is no time; allowed: RFC 3339, such as 2026-01-31T12:00:00Z, or seconds since the epoch"
        ) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _seconds(name: str, text: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text, re.ASCII)
    if not found or not int(found[1]):
        raise ConfigurationError(f"{name!r} is {text!r}; allowed: a time such as 30s, 12h or 14d")
    return int(found[1]) * _UNITS[found[2]]


def _date(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
