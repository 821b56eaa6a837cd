"""Checks that users register: each on a thread of its own, with a time limit that nobody waits beyond."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from dependency_injector import providers

from aetherflow.errors import ConfigurationError
from aetherflow.telemetry.health.report import CheckResult
from aetherflow.telemetry.health.status import CheckStatus, ViewName
from aetherflow.telemetry.helper_thread import HelperThread

__all__ = ["Check", "Probe", "Severity", "evaluate", "pings"]

Severity = Literal["degraded", "unhealthy"]
"""What the status becomes where a check fails."""

Check: TypeAlias = Callable[[], object]
"""Fails where it raises or returns False; may return a `CheckStatus`, and be a coroutine function."""

MAX_TIMEOUT: Final = 60.0
"""Seconds that a registered check may ask for at most."""

_BAD: Final[dict[Severity, CheckStatus]] = {"degraded": "warning", "unhealthy": "error"}


@dataclass(slots=True, eq=False, weakref_slot=True)
class Probe:
    """A registered check, with a thread of its own from its first call on, and the call that is under way.

    Args:
        name: Its name in reports.
        check: What is called.
        timeout: Seconds that it may take, at most 60; late, it has failed, and is not called again while it still runs.
        severity: What the status becomes where it fails.
        views: Where it counts besides ``health``.

    Raises:
        ConfigurationError: An argument has a value that is not allowed.
    """

    name: str
    check: Check
    timeout: float
    severity: Severity
    views: Collection[ViewName]
    _helper: HelperThread | None = None
    _call: Future[object] | None = None
    _begun: float = 0.0
    _last: CheckResult | None = None

    def __post_init__(self) -> None:
        timeout, views, known = self.timeout, self.views, get_args(ViewName)
        _expect("name", self.name, isinstance(self.name, str) and self.name != "", "a string that is not empty")
        _expect("check", self.check, callable(self.check), "a function without arguments")
        is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        _expect(
            "timeout", timeout, is_number and 0 < timeout <= MAX_TIMEOUT, f"seconds above 0, {MAX_TIMEOUT:g} at most"
        )
        _expect("severity", self.severity, self.severity in get_args(Severity), "'degraded' or 'unhealthy'")
        some = isinstance(views, Collection) and not isinstance(views, str) and all(view in known for view in views)
        _expect("views", views, some, f"some of {', '.join(map(repr, known))}")

    def begin(self) -> None:
        """Have the thread call the check, unless it still does since the last time."""
        if self._call is not None and not self._call.done():
            return
        self._call = None
        if self._helper is None:
            try:
                self._helper = HelperThread(f"aetherflow-check-{self.name}")
            except RuntimeError:  # this process is ending, or may have no more threads
                return
            weakref.finalize(self, self._helper.stop)
        self._begun = time.monotonic()
        self._call = self._helper.submit(functools.partial(contextvars.copy_context().run, _outcome, self.check))

    def end(self, *, wait_for_it: bool = True) -> CheckResult:
        """Return what the call found, having waited for it no longer than its time limit allows.

        Args:
            wait_for_it: Whether to wait; else a call that is within its limit counts as the last one did.
        """
        call, left = self._call, self._begun + self.timeout - time.monotonic()
        if call is not None and not call.done() and left > 0 and not wait_for_it:
            return self._last or self._found("unknown", None, "it has not ended yet")
        self._last = found = self._ended(call, left)
        return found

    def _ended(self, call: Future[object] | None, left: float) -> CheckResult:
        if call is None:
            return self._found("unknown", None, "it could not be called: this process can start no thread")
        wait([call], max(left, 0))
        if call.cancelled():
            return self._found("unknown", None, "its thread is gone")
        if not call.done():
            return self._found(_BAD[self.severity], time.monotonic() - self._begun, "it did not end in time")
        told, took = cast("tuple[object, float]", call.result())
        if isinstance(told, BaseException):  # its text may say what is not for everyone, such as an address
            return self._found(_BAD[self.severity], took, type(told).__qualname__)
        if isinstance(told, str) and told in get_args(CheckStatus):
            return self._found(cast("CheckStatus", told), took)
        return self._found(_BAD[self.severity] if told is False else "ok", took)

    def forget(self) -> None:
        """Let go of the call under way, which a forked child does not have."""
        self._call = self._last = None

    def _found(self, status: CheckStatus, took: float | None, output: str = "") -> CheckResult:
        return CheckResult(self.name, "", status, took, self.timeout, "s", frozenset({*self.views, "health"}), output)


def _outcome(check: Check) -> tuple[object, float]:
    """What a check returned or raised, and the seconds that it took."""
    began = time.monotonic()
    try:
        told = check()
        if inspect.isawaitable(told):
            told = asyncio.run(_awaited(told))
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is the answer
        told = error
    return told, time.monotonic() - began


async def _awaited(told: Any) -> object:
    return await told


def evaluate(probes: Sequence[Probe], *, wait_for_them: bool = True) -> list[CheckResult]:
    """Call checks side by side and return what they found, after the longest of their time limits at most.

    Args:
        probes: The checks.
        wait_for_them: Whether to wait; else one that is under way counts as it did the last time.
    """
    for probe in probes:
        probe.begin()
    return [probe.end(wait_for_it=wait_for_them) for probe in probes]


def pings(context: Any) -> dict[str, Check]:
    """Return a check for each resource of a dependency-injector container, by the name it has there.

    It calls the resource's ``ping()``; it is unknown while the resource is not initialised, which it never causes, and
    where it has no ``ping``.

    Args:
        context: A container, or its class.

    Raises:
        ConfigurationError: It is no container.
    """
    named = getattr(context, "providers", None)
    _expect("context", context, isinstance(named, dict), "a dependency-injector container")
    return {
        name: functools.partial(_ping, provider)
        for name, provider in cast("dict[str, Any]", named).items()
        if isinstance(provider, providers.BaseResource)
    }


def _ping(resource: Any) -> object:
    if not resource.initialized:
        return "unknown"
    ping = getattr(resource(), "ping", None)
    return ping() if callable(ping) else "unknown"


def _expect(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise ConfigurationError(f"{name}={value!r} is not allowed; allowed: {allowed}")
