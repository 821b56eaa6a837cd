"""What the endpoints answer, as an OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from aetherflow.telemetry.health.monitor import MEDIA_TYPE

__all__ = ["PROBLEM_TYPE", "describe"]

PROBLEM_TYPE: Final = "application/problem+json"
"""Of what is said of errors. Source: RFC 9457."""

_VERSION: Final = "1.0.0"
_STRINGS: Final = {"type": "array", "items": {"type": "string"}}
_CHECK: Final = {
    "type": "object",
    "required": ["componentType", "time"],
    "additionalProperties": False,
    "properties": {
        "componentType": {"type": "string"},
        "observedValue": {"type": "number"},
        "observedUnit": {"type": "string"},
        "threshold": {"type": "number"},
        "status": {"enum": ["pass", "warn", "fail"]},
        "output": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
    },
}
_HEALTH: Final = {
    "type": "object",
    "required": ["status"],
    "additionalProperties": False,
    "properties": {
        "status": {"enum": ["pass", "warn", "fail"]},
        "notes": _STRINGS,
        "checks": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {"$ref": "#/components/schemas/Check"}},
        },
    },
}
_PROBLEM: Final = {
    "type": "object",
    "required": ["title", "status"],
    "properties": {"title": {"type": "string"}, "status": {"type": "integer"}},
}
_TEXT: Final = {"schema": {"type": "string"}}
_TEXTS: Final = {"application/openmetrics-text": _TEXT, "text/plain": _TEXT}


def describe(root: str, *, has_token: bool) -> dict[str, Any]:
    """Return the document.

    Args:
        root: The path that the endpoints are mounted at; empty where they stand alone.
        has_token: Whether some ask for a token.
    """
    paths = {
        "/livez": _of_health("Whether to restart this process", has_token=has_token, is_open=True),
        "/readyz": _of_health("Whether to send it work", has_token=has_token, is_open=True),
        "/health": _of_health("How it does, check by check", has_token=has_token, is_open=False),
        "/metrics": _operation(
            "Its metrics, for Prometheus",
            {
                "200": _answer("The metrics", _TEXTS),
                "503": _problem("They could not be read in time"),
            },
            has_token=has_token,
            is_open=False,
        ),
    }
    schemas = {"Check": _CHECK, "Health": _HEALTH, "Problem": _PROBLEM}
    components: dict[str, Any] = {"schemas": schemas}
    if has_token:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "AetherFlow", "version": _VERSION, "description": "How this process does."},
        "servers": [{"url": root or "/"}],
        "paths": paths,
        "components": components,
    }


def _of_health(summary: str, *, has_token: bool, is_open: bool) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Health"}}}
    answers = {"200": _answer("It passes, perhaps with warnings", content), "503": _answer("It fails", content)}
    return _operation(summary, answers, has_token=has_token, is_open=is_open)


def _operation(summary: str, answers: dict[str, Any], *, has_token: bool, is_open: bool) -> dict[str, Any]:
    get: dict[str, Any] = {"summary": summary, "responses": answers}
    if has_token:
        get["security"] = [{"bearer": []}, {}] if is_open else [{"bearer": []}]
        if not is_open:
            answers["401"] = _problem("The bearer token is missing or wrong")
    return {"get": get}


def _problem(description: str) -> dict[str, Any]:
    return _answer(description, {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}})


def _answer(description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": content}
