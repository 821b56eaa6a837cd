"""Endpoints of a process: is it alive, is it ready, how does it do, and its metrics; the extra ``serve``.

In an ASGI application, and beside a program that has none::

    application.mount("/ops", make_app())

    with serve(port=9464) as url:
        main()
"""

from __future__ import annotations

from aetherflow.errors import MissingExtraError

try:
    from aetherflow.serving.app import make_app
    from aetherflow.serving.server import serve
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] not in ("starlette", "uvicorn", "prometheus_client"):
        raise
    raise MissingExtraError("aetherflow.serving", missing.name or "starlette", "serve") from missing

__all__ = ["make_app", "serve"]
