"""The store's way into a meter provider, so that whatever reads the provider sees what the store has.

In a provider of OpenTelemetry's SDK, ours or the application's, nothing is recorded value by value: each fold of the
store is merged into the aggregations of the SDK (``sdk_metrics``), and every collection folds first, since the SDK asks
observable instruments before it collects. In any other provider, and where the SDK is not what it is taken for, every
value is recorded when it is measured.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics
from opentelemetry.context import Context

from aetherflow.telemetry import conventions as names
from aetherflow.telemetry import shield
from aetherflow.telemetry.conventions import MetricDefinition
from aetherflow.telemetry.metrics import gauges
from aetherflow.telemetry.metrics.accumulators import Folded, Series, registry

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import Histogram

__all__ = ["Publisher", "publish_in"]

_LOGGER: Final = logging.getLogger("aetherflow")
_REGISTER_TIMEOUT: Final = 0.1

GetMeter = Callable[[metrics.MeterProvider], metrics.Meter]
Merge = Callable[["Histogram", dict[str, str], Folded, int], None]


class Publisher:
    """Publishes the store in one meter provider, while it is the current one.

    Args:
        meter: The provider's meter.
    """

    def __init__(self, meter: metrics.Meter) -> None:
        self._meter = meter
        self._instruments: dict[str, Any] = {}
        self._merge = _merge_for(self._instrument(names.NODE_DURATION))
        self._is_complete = False
        self.is_current = False

    @property
    def is_bulk(self) -> bool:
        """Whether folds are merged; else values are to be recorded one by one."""
        return self._merge is not None

    def complete(self) -> bool:
        """Make the observable instruments; tell whether all is made now, which has to wait for a collection's end."""
        if self._is_complete or not _can_register(self._meter):
            return self._is_complete
        self._is_complete = True
        try:
            for definition in names.ALL_METRICS:
                if definition.instrument.startswith("observable"):
                    create = getattr(self._meter, f"create_{definition.instrument}")
                    ask = partial(_observations, weakref.ref(self), definition)
                    create(definition.name, [ask], definition.unit, definition.description)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "setting up metrics")
        return True

    def record(self, series: Series, value: int, context: Context | None = None) -> None:
        """Record one value, the public way.

        Args:
            series: Where it belongs.
            value: In the store's whole numbers.
            context: Where the span is current that it belongs to; None for the current one.
        """
        definition = series.definition
        instrument = self._instrument(definition)
        amount = value if definition.ticks == 1 else value / definition.ticks
        record = instrument.add if definition.instrument == "counter" else instrument.record
        record(amount, series.attributes, context)

    def take(self, series: Series, folded: Folded) -> None:
        """Publish what a series has folded."""
        try:
            definition = series.definition
            instrument = self._instrument(definition)
            if definition.instrument == "counter":
                instrument.add(folded.totals.total, series.attributes)
            elif self._merge is not None:
                self._merge(instrument, series.attributes, folded, definition.ticks)
        except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
            shield.caught(failure, "publishing metrics")

    def after_fork(self) -> None:
        """Keep the instruments: what the parent has published is the provider's own, and the store is empty."""

    def _instrument(self, definition: MetricDefinition) -> Any:
        found = self._instruments.get(definition.name)
        if found is None:
            name, unit, description = definition.name, definition.unit, definition.description
            if definition.instrument == "counter":
                found = self._meter.create_counter(name, unit, description)
            else:
                found = self._meter.create_histogram(
                    name, unit, description, explicit_bucket_boundaries_advisory=definition.boundaries
                )
            self._instruments[name] = found
        return found


def _observations(
    publisher: weakref.ref[Publisher], definition: MetricDefinition, options: metrics.CallbackOptions
) -> Iterable[metrics.Observation]:
    mine = publisher()
    if mine is None or not mine.is_current:
        return ()
    if mine.is_bulk and definition is names.NODE_ACTIVE:  # one of them is enough: all are asked before any is collected
        registry.fold()
    return [metrics.Observation(value, attributes) for value, attributes in gauges.readings(definition)]


def _merge_for(histogram: metrics.Histogram) -> Merge | None:
    """Return what merges folds into histograms of this kind; None where values are to be recorded one by one."""
    sdk_metrics = _sdk_metrics(histogram)
    is_known = sdk_metrics is not None and sdk_metrics.is_sdk(histogram) and _is_trusted()
    return sdk_metrics.merge if is_known else None


def _can_register(meter: metrics.Meter) -> bool:
    """Tell whether an observable instrument can be made now.

    It cannot be made in the middle of a collection: the SDK would wait for itself where this thread is the one that
    collects, as it is when a callback of the application runs a node. That holds for SDKs that take no folds as well.
    """
    lock = getattr(getattr(meter, "_measurement_consumer", None), "_lock", None)
    if lock is None:
        return True
    if not lock.acquire(timeout=_REGISTER_TIMEOUT):
        return False
    lock.release()
    return True


def _sdk_metrics(made: object) -> Any:
    """Return the module that knows the SDK, if that is what made something; None otherwise."""
    if not type(made).__module__.startswith("opentelemetry.sdk."):  # where it is, it is imported already
        return None
    try:
        from aetherflow.telemetry.metrics import sdk_metrics
    except ImportError:
        _is_trusted()
        return None
    return sdk_metrics


@cache
def _is_trusted() -> bool:
    """Tell whether the SDK in this process is one that takes folds; once, with a line in the log where it is not."""
    try:
        from aetherflow.telemetry.metrics import sdk_metrics

        reason = sdk_metrics.difference()
    except Exception as error:  # noqa: BLE001  # whatever it is, the SDK is another one
        reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        _LOGGER.warning("this OpenTelemetry SDK takes no folds, so each value is recorded by itself: %s", reason)
    return reason is None


class _State:
    """The publisher in use, and all that were made, by provider: instruments are made once in each."""

    def __init__(self) -> None:
        self.current: Publisher | None = None
        self.made: weakref.WeakKeyDictionary[metrics.MeterProvider, Publisher] = weakref.WeakKeyDictionary()


_state: Final = _State()


def publish_in(provider: metrics.MeterProvider | None, get_meter: GetMeter) -> Publisher | None:
    """Publish in a provider what is recorded from now on, and in the one before what was recorded until now.

    Calls must not overlap.

    Args:
        provider: The provider; None to publish nowhere.
        get_meter: Gives a provider's meter.

    Returns:
        What publishes there; None where the provider takes nothing.
    """
    found = None
    if provider is not None and not isinstance(provider, metrics.NoOpMeterProvider):
        found = _publisher(provider, get_meter)
    before = _state.current
    if found is not before:
        registry.exchange(before, found if found is not None and found.is_bulk else None)
        if before is not None:
            before.is_current = False
        _state.current = found
    if found is not None:
        found.is_current = True
    return found


def _publisher(provider: metrics.MeterProvider, get_meter: GetMeter) -> Publisher | None:
    try:
        found = _state.made.get(provider)
        if found is None:
            meter = get_meter(provider)
            if type(meter) is metrics.NoOpMeter:  # the provider is disabled or shut down
                return None
            found = _state.made[provider] = Publisher(meter)
    except Exception as failure:  # noqa: BLE001  # rule 3: telemetry never breaks the host
        shield.caught(failure, "setting up metrics")
        return None
    return found
