"""`make_app`: the endpoints as an ASGI application."""

from __future__ import annotations

import hmac
import math
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aetherflow.config import SERVE_TOKEN_VARIABLE
from aetherflow.errors import ConfigurationError
from aetherflow.serving.evaluating import Evaluations, Worker
from aetherflow.serving.openapi import PROBLEM_TYPE, describe
from aetherflow.serving.openmetrics import Exposition
from aetherflow.telemetry.health.monitor import MEDIA_TYPE, HealthMonitor, HealthReport, ViewName

__all__ = ["make_app"]

_TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""What a bearer token may be. Source: RFC 6750, section 2.1."""
_METRICS_LIMIT: Final = 8.0
"""Seconds that a scrape may take; Prometheus waits for 10 by default."""
_SERVICE_UNAVAILABLE: Final = 503
_NOT_STORED: Final = {"Cache-Control": "no-store"}


def make_app(monitor: HealthMonitor | None = None, *, token: str | None = None, timeout: float = 0.8) -> Starlette:
    """Return an ASGI application with ``/livez``, ``/readyz``, ``/health``, ``/metrics`` and ``/openapi.json``.

    Run it by itself, with ``uvicorn --factory aetherflow.serving:make_app``, or mount it in an application; both tell
    of the process that they are in. Metrics count from this call on.

    Args:
        monitor: Who says how this process does; None for the one given to ``configure(health=…)``, or else one with
            the defaults.
        token: The bearer token that ``/health`` and ``/metrics`` ask for; None for what ``AETHER_SERVE_TOKEN`` says,
            and where that is not set either, they ask for none. Probes need no token, and without it are told no more
            than the status.
        timeout: Seconds that an answer about health waits for an evaluation; then it is of the one before.

    Raises:
        ConfigurationError: An argument or the variable has a value that is not allowed.
    """
    if not isinstance(monitor, HealthMonitor | None):
        raise ConfigurationError(f"monitor is {monitor!r}; allowed: a HealthMonitor, or None")
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not is_number or not 0 < timeout < math.inf:
        raise ConfigurationError(f"timeout is {timeout!r}; allowed: seconds, more than 0")
    endpoints = _Endpoints(Evaluations(monitor, timeout), _checked_token(token))
    app = Starlette(
        routes=[
            Route("/livez", endpoints.probe("live")),
            Route("/readyz", endpoints.probe("ready")),
            Route("/health", endpoints.health),
            Route("/metrics", endpoints.metrics),
            Route("/openapi.json", endpoints.openapi),
        ],
        exception_handlers={HTTPException: _problem},
    )
    app.router.redirect_slashes = False
    return app


def _checked_token(given: str | None) -> str | None:
    """Return the token that is asked for; an error never repeats it."""
    origin, token = "token", given
    if given is None:
        origin, token = SERVE_TOKEN_VARIABLE, os.environ.get(SERVE_TOKEN_VARIABLE) or None
    if token is not None and not (isinstance(token, str) and _TOKEN.fullmatch(token)):
        raise ConfigurationError(
            f"{origin} is not a bearer token; allowed: letters, digits and -._~+/, one or more, then perhaps some ="
        )
    return token


class _Endpoints:
    def __init__(self, evaluations: Evaluations, token: str | None) -> None:
        self._evaluations = evaluations
        self._token = token
        self._exposition = Exposition()
        self._scraper = Worker("metrics")

    def probe(self, view: ViewName) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            told, code = await self._told(view)
            return _health({"status": told["status"]} if self._is_refused(request) else told, code)

        return answer

    async def health(self, request: Request) -> Response:
        self._demand_token(request)
        return _health(*await self._told("health"))

    async def metrics(self, request: Request) -> Response:
        self._demand_token(request)
        accept = ", ".join(request.headers.getlist("accept"))
        scrape = self._scraper.begin(lambda: self._exposition.render(accept))
        if not await self._scraper.within(_METRICS_LIMIT, scrape):
            scrape.cancel()
            raise HTTPException(_SERVICE_UNAVAILABLE, "the metrics were not all read in time")
        body, media_type = scrape.result()
        return Response(body, headers={"Content-Type": media_type, "Vary": "Accept", **_NOT_STORED})

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(describe(request.scope.get("root_path", ""), has_token=self._token is not None))

    async def _told(self, view: ViewName) -> tuple[dict[str, Any], int]:
        """What is said of a view, and the status code."""
        report, is_of_now = await self._evaluations.report()
        if report is None:
            return _of_nothing(view)
        seen: HealthReport = report.view(view)
        told = seen.to_health_json()
        if not is_of_now:
            told["notes"] = [*told.get("notes", ()), "an evaluation takes long: this is what the last one found"]
        return told, 200 if seen.passes else _SERVICE_UNAVAILABLE

    def _is_refused(self, request: Request) -> bool:
        if self._token is None:
            return False
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Compared as bytes, in a time that does not tell how much of it is right.
        is_right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token.encode())
        return not is_right or scheme.lower() != "bearer"

    def _demand_token(self, request: Request) -> None:
        if self._is_refused(request):
            raise HTTPException(401, "a bearer token is needed", {"WWW-Authenticate": 'Bearer realm="aetherflow"'})


def _of_nothing(view: ViewName) -> tuple[dict[str, Any], int]:
    """What is said while the first evaluation is under way: alive, since this is said, and not known to be ready."""
    status, code = ("pass", 200) if view == "live" else ("fail", _SERVICE_UNAVAILABLE)
    return {"status": status, "notes": ["the first evaluation has not ended yet"], "checks": {}}, code


def _health(told: Mapping[str, Any], code: int) -> Response:
    return JSONResponse(told, code, _NOT_STORED, MEDIA_TYPE)


def _problem(request: Request, error: Exception) -> Response:
    """Write an error as RFC 9457 has it."""
    assert isinstance(error, HTTPException)
    allowed = error.headers or {}
    told = {"title": error.detail, "status": error.status_code}
    return JSONResponse(told, error.status_code, {**allowed, **_NOT_STORED}, PROBLEM_TYPE)
