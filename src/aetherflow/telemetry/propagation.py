"""The current trace context as text, to go along with what is sent to another process or machine."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import propagate
from opentelemetry.context import Context

__all__ = ["extract_context", "inject_context"]


def inject_context(context: Context | None = None) -> dict[str, str]:
    """Return a context as the headers of the propagators in force: ``traceparent`` and the like.

    Args:
        context: The context to send along; None for the current one.
    """
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context)
    return carrier


def extract_context(carrier: Mapping[str, str]) -> Context:
    """Return the context that headers tell of, its span remote.

    Args:
        carrier: From :func:`inject_context`; without a valid context in it, the new one has no span.
    """
    return propagate.extract(carrier, Context())
