"""Applications of others have the endpoints under a path of theirs."""

from __future__ import annotations

import re

import pytest
from tests.serving.asking import ask, running
from tests.support.dev_extra import NEEDS_DEV

from aetherflow.flow.decorating import node
from aetherflow.serving import make_app
from aetherflow.telemetry.health.monitor import HealthMonitor


@node
def greet(name: str) -> str:
    return f"Hello, {name}."


def assert_mounted(url: str) -> None:
    """Hold the endpoints under ``/ops`` to what they promise, in an application that greets."""
    assert ask(f"{url}/greet/you").body.strip('"') == "Hello, you."
    for path in ("/livez", "/readyz", "/health"):
        assert ask(f"{url}/ops{path}").json["status"] == "pass"
    counted = re.search(r'duration_seconds_count\{.*node_name="greet".*\} (\S+)', ask(f"{url}/ops/metrics").body)
    assert counted
    assert float(counted[1]) == 1
    assert ask(f"{url}/ops/openapi.json").json["servers"] == [{"url": "/ops"}]
    assert ask(f"{url}/ops/nothing").json == {"title": "Not Found", "status": 404}
    assert ask(f"{url}/ops/health", "POST").status == 405


def test_fastapi_mounts_them():
    """Mounted in FastAPI they answer beside its own paths, which stay as they are."""
    fastapi = pytest.importorskip("fastapi", reason=NEEDS_DEV)
    app = fastapi.FastAPI()

    @app.get("/greet/{name}")
    def answer(name: str) -> str:
        return greet.run({"name": name})

    app.mount("/ops", make_app(HealthMonitor()))
    with running(app) as url:
        assert_mounted(url)
        assert ask(f"{url}/openapi.json").json["paths"].keys() == {"/greet/{name}"}


def test_django_has_them_beside_its_own():
    """In the ASGI application of a Django project, what is under the path is ours and the rest Django's."""
    django = pytest.importorskip("django", reason=NEEDS_DEV)
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse
    from django.urls import path
    from starlette.applications import Starlette
    from starlette.routing import Mount

    def answer(request, name):
        return HttpResponse(greet.run({"name": name}))

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=(path("greet/<name>", answer),), SECRET_KEY="x")
    assert django.VERSION
    app = Starlette(routes=[Mount("/ops", make_app(HealthMonitor())), Mount("/", get_asgi_application())])
    with running(app) as url:
        assert_mounted(url)
