"""Endpoints of a process: is it alive, is it ready, how does it do, and its metrics; the extra ``serve``.

In an ASGI application, and beside a program that has none::

    application.mount("/ops", make_app())

    with serve(port=9464) as url:
        main()
"""

from __future__ import annotations

from typing import Final

EXTRA: Final = "install aetherflow-otel[serve]"
"""What is missing where these do not import."""

try:
    from aetherflow.serving.app import make_app
    from aetherflow.serving.server import serve
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] not in ("starlette", "uvicorn", "prometheus_client"):
        raise
    raise ImportError(f"aetherflow.serving needs {missing.name}: {EXTRA}", name=missing.name) from missing

__all__ = ["EXTRA", "make_app", "serve"]
