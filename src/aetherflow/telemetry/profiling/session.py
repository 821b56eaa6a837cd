"""The profile of one execution, from turning a profiler on to the event on the span."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import shield
from aetherflow.telemetry.observation import Site
from aetherflow.telemetry.profiling.event import profile_attributes, skipped_attributes
from aetherflow.telemetry.profiling.files import new_file, write_atomically
from aetherflow.telemetry.profiling.policy import ProfilePolicy
from aetherflow.telemetry.profiling.profilers import SEES_OTHER_THREADS, CProfiler, SamplingProfiler, UnavailableError
from aetherflow.telemetry.profiling.sampling import callers_here

__all__ = ["ProfileSession"]


class ProfileSession:
    """The profile of one execution: entered and left once a step, and ended once; or in one go by ``with``.

    Args:
        policy: How it is taken.
        site: Where the execution happens.
        context: That of its span, which is current while the profile is entered; None where it has none.
    """

    __slots__ = ("_context", "_policy", "_profiler", "_reason", "_site", "_span", "_state")

    def __init__(self, policy: ProfilePolicy, site: Site, context: SpanContext | None) -> None:
        self._policy = policy
        self._context = context
        self._site = site
        self._span: Span | None = None
        self._profiler: CProfiler | SamplingProfiler | None = None
        self._reason = ""
        self._state = "new"

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *raised: object) -> None:
        self.end()

    def enter(self) -> None:
        """Turn the profiler on; what keeps it from that is the reason that the profile is skipped."""
        try:
            if self._state == "new":
                self._span = _recording_span(self._context)
                is_wanted = self._span is not None or self._policy.directory is not None
                self._state = "ready" if is_wanted else "ended"
            if self._state == "ready":
                self._start()
        except UnavailableError as error:
            self._reason = str(error)
            self._state = "skipped"
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            self.leave()
            self._reason, self._state = "its profiler could not be started", "skipped"
            shield.caught(failure, "starting to profile")
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Turn the profiler off until the next step."""
        if self._profiler is not None:
            try:
                self._profiler.stop()
            except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
                shield.caught(failure, "profiling")

    def end(self) -> None:
        """Turn the profiler off, and tell of the profile."""
        self.leave()
        if self._state in ("new", "ended"):
            return
        was_skipped, self._state = self._state == "skipped", "ended"
        try:
            self._tell(was_skipped)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "telling of a profile")
        finally:
            self._profiler = self._span = None

    def _start(self) -> None:
        if self._profiler is not None:
            self._profiler.start()
            return
        asked = self._policy.profiler
        is_sync, is_awaited = self._site.attributes.get(names.NODE_TYPE) == "sync", _is_awaited()
        is_plain = is_sync and not is_awaited
        if asked == "cprofile" and not is_plain:
            raise UnavailableError(
                "cProfile takes synchronous functions without a time limit only; use profiler='sampling'"
            )
        if asked == "cprofile" or (
            asked == "auto" and is_plain and not SEES_OTHER_THREADS and not self._policy.speedscope
        ):
            try:
                self._profiler = CProfiler()
                self._profiler.start()
                return
            except UnavailableError:
                if asked == "cprofile":
                    raise
        self._profiler = SamplingProfiler(moves=is_sync and is_awaited)
        self._profiler.start()

    def _tell(self, was_skipped: bool) -> None:
        profiler = self._profiler
        span = self._span
        if was_skipped or profiler is None:
            asked = "sampling" if self._policy.profiler == "auto" else self._policy.profiler
            self._add_event(skipped_attributes(asked, self._reason))
            return
        taken = profiler.profile()
        if not taken.functions:
            self._add_event(skipped_attributes(taken.profiler, "it ended before it was looked at"))
            return
        uri = self._written(profiler)
        if span is not None:
            self._add_event(profile_attributes(taken, uri))

    def _add_event(self, attributes: Mapping[str, Any]) -> None:
        if self._span is not None:
            self._span.add_event(names.PROFILE_EVENT, attributes)

    def _written(self, profiler: CProfiler | SamplingProfiler) -> str | None:
        """Write the files that were asked for and return the address of the pstats file."""
        if self._policy.directory is None:
            return None
        try:
            node = self._site.attributes[names.NODE_NAME]
            path = new_file(Path(self._policy.directory), node)
            write_atomically(path, profiler.pstats())
            if self._policy.speedscope and isinstance(profiler, SamplingProfiler):
                write_atomically(path.with_suffix(".speedscope.json"), profiler.speedscope(node))
            return path.as_uri()
        except OSError as failure:
            shield.caught(failure, "writing a profile")
            return None


def _recording_span(context: SpanContext | None) -> Span | None:
    """Return the current span, if it is the one that an observation has begun, and is recorded."""
    span = trace.get_current_span()
    is_own = context is not None and span.get_span_context() == context
    return span if is_own and span.is_recording() else None


def _is_awaited() -> bool:
    """Tell whether the observation that is entered is that of a coroutine."""
    callers = callers_here()
    return bool(callers) and bool(callers[0].f_code.co_flags & inspect.CO_COROUTINE)
