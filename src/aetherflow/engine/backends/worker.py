"""The worker's side: :func:`execute` turns an envelope into a report, and nothing it runs into escapes it."""

from __future__ import annotations

import atexit
import inspect
import os
import pickle
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, Final, cast

from dependency_injector import providers
from dependency_injector.containers import DynamicContainer
from opentelemetry.context import attach, detach
from opentelemetry.trace import SpanKind

from aetherflow.engine.awaitables import finished, is_coroutine_function, resolved
from aetherflow.engine.backends.envelope import Envelope, Reference, Report, function_of, pickled, process_id, unpack
from aetherflow.engine.backends.errors import NotImportableError, dump_error, unpickled
from aetherflow.engine.loops import background_loop, run_coroutine, run_coroutine_in_context
from aetherflow.engine.signatures import read_signature
from aetherflow.resources.async_providers import awaiting_of, call_sync, check_threads, value_of
from aetherflow.resources.context import AnyContext, FlowContextInstance, context_class, init_resources_for, provider_at
from aetherflow.resources.markers import marker_target, resolve_marker
from aetherflow.resources.scopes import AnyProvider
from aetherflow.telemetry.conventions import FLOW_NAME, NODE_DURATION, NODE_NAME
from aetherflow.telemetry.export.relay import Recording, Relayed, recording_in, relay_missing_signals
from aetherflow.telemetry.observation import ExecutionDetails, Site
from aetherflow.telemetry.observer import current_observer
from aetherflow.telemetry.profiling.observer import profiled_by
from aetherflow.telemetry.propagation import extract_context

__all__ = ["execute", "is_worker"]

_on_worker: Final[ContextVar[bool]] = ContextVar("aetherflow_on_worker", default=False)


def is_worker() -> bool:
    """Tell whether the caller runs on a worker already: what it starts stays there, so that workers never wait."""
    return _on_worker.get()


def execute(payload: bytes) -> bytes:
    """Carry out the execution in an envelope.

    Args:
        payload: The pickled :class:`Envelope`.

    Returns:
        The pickled :class:`Report`.
    """
    is_unread = True
    try:
        envelope: Envelope = pickle.loads(payload)
        is_unread = False
        # A context of its own, so that what is local to it does not outlive the execution.
        report = copy_context().run(_reported, envelope)
    except BaseException as error:  # noqa: BLE001  # raised where the execution was sent from
        report = Report(None, dump_error(error, f"worker {os.getpid()}"), None, None, Relayed(), is_unread=is_unread)
    return pickle.dumps(report, pickle.HIGHEST_PROTOCOL)


def _reported(envelope: Envelope) -> Report:
    _on_worker.set(True)
    context = extract_context(envelope.carrier)
    recording = Recording(spans=envelope.wants_spans)
    if envelope.sender != process_id():  # a thread of the sender itself has its providers
        relay_missing_signals()
        context = recording_in(context, recording)
    token = attach(context)
    try:
        return _observed(envelope, recording)
    finally:
        detach(token)


def _observed(envelope: Envelope, recording: Recording) -> Report:
    names = {key: envelope.attributes[key] for key in (FLOW_NAME, NODE_NAME)}
    site = Site(
        envelope.node,
        NODE_DURATION,
        names,
        envelope.attributes,
        label=envelope.label,
        kind=SpanKind.CONSUMER,
        is_kept=False,
        error_note=envelope.error_note,
        has_details=envelope.has_details,
    )
    value = failure = None
    seen = current_observer().begin(site, links=envelope.links)
    started = time.perf_counter_ns()
    token = seen.enter()
    details = ExecutionDetails(site)
    seen.report(details)
    try:
        with details:
            if envelope.expected:
                site.expected = pickle.loads(envelope.expected)
            value = pickled(_called(envelope, profiled_by(envelope.profile, site, seen)), envelope.node, "the result")
    except BaseException as error:  # noqa: BLE001  # raised where the execution was sent from
        failure = error
    finally:
        duration = time.perf_counter_ns() - started
        seen.end(failure)
        seen.leave(token)
    worker = f"{envelope.executor} worker {os.getpid()}"
    relayed = recording.taken()
    return Report(
        value,
        None if failure is None else dump_error(failure, worker),
        duration,
        None if relayed.spans else seen.context,
        relayed,
        details.kind,
    )


def _called(envelope: Envelope, profile: AbstractContextManager[None]) -> Any:
    call, function = _imported(envelope)
    args, kwargs = unpack(envelope.arguments, envelope.node)
    parameters = read_signature(function).parameters
    if envelope.injected:
        kwargs.update(
            _injected(
                envelope,
                [p for p in parameters if p.name in envelope.injected and p.name not in kwargs],
                is_sync=not is_coroutine_function(call),
            )
        )
    for parameter in parameters[len(args) :]:
        if parameter.kind is not parameter.POSITIONAL_ONLY:
            break
        value = kwargs.pop(parameter.name, parameter.default)
        if value is parameter.empty:
            break  # the call itself tells best what it misses
        args = (*args, value)
    if is_coroutine_function(call):
        return run_coroutine(_awaited, call(*args, **kwargs), profile)
    with profile:
        value = call(*args, **kwargs)
        return resolved(value)


async def _awaited(coroutine: Awaitable[Any], profile: AbstractContextManager[None]) -> Any:
    with profile:
        return await finished(await coroutine)


def _imported(envelope: Envelope) -> tuple[Callable[..., Any], Callable[..., Any]]:
    if isinstance(envelope.function, bytes):
        return function_of(unpickled(partial(pickle.loads, envelope.function), envelope.node, "the function"))
    return function_of(_resolved(envelope.function, envelope.node, "its function"))


def _resolved(reference: Reference, node: str, what: str) -> Any:
    try:
        return reference.resolve()
    except (ImportError, AttributeError) as error:
        raise NotImportableError(node, f"{what} {reference}", str(error)) from error


def _injected(envelope: Envelope, parameters: Iterable[inspect.Parameter], *, is_sync: bool) -> dict[str, Any]:
    context = _context(envelope)
    found = {}
    for parameter in parameters:
        marker = marker_target(parameter.default, parameter.annotation)
        if marker is None:
            found[parameter.name] = provider_at(context, parameter.name)
        else:
            found[parameter.name] = resolve_marker(marker, context_class(context))(context)
    opening = init_resources_for(context, found.values(), loop=background_loop)
    if opening is not None:
        run_coroutine_in_context(lambda: opening)
    to_await = {name: provider for name, provider in found.items() if awaiting_of(provider) == "async"}
    for name, provider in to_await.items():
        if is_sync:
            check_threads(provider, envelope.node, name)
    objects = run_coroutine(_awaited_objects, to_await) if to_await else {}
    return {
        name: objects[name] if name in to_await else call_sync(provider, envelope.node, name)
        for name, provider in found.items()
    }


async def _awaited_objects(providers_by_name: Mapping[str, AnyProvider]) -> dict[str, Any]:
    return {name: await value_of(provider) for name, provider in providers_by_name.items()}


_contexts: dict[object, AnyContext] = {}
_building = threading.RLock()


def _context(envelope: Envelope) -> AnyContext:
    """Return this process's context of a class and its configuration, built when first needed, closed at exit."""
    with _building:
        found = _contexts.get(envelope.context)
        if found is None:
            assert envelope.context is not None  # the sender names it where anything is injected
            reference, values = envelope.context
            made: AnyContext = _resolved(reference, envelope.node, "its context class")()
            what = "the configuration of its context"
            for name, value in unpickled(partial(pickle.loads, values), envelope.node, what).items():
                cast("providers.Configuration", provider_at(made, name)).from_dict(value)
            found = _contexts[envelope.context] = made
            atexit.register(_close, made)
        return found


def _close(context: AnyContext) -> None:
    if isinstance(context, FlowContextInstance):
        context.__exit__(None, None, None)
    elif isinstance(context, DynamicContainer):
        context.shutdown_resources()
