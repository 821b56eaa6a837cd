"""The files in deploy/: valid, true to what is generated, and of one mind about names and ports."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.collector import BUILDER, CONFIGURATION, ROOT
from tests.support.dev_extra import NEEDS_DEV
from tests.support.receivers import HttpReceiver, free_ports, wait_until
from tests.support.scraping import needs_prometheus, promtool
from tests.support.shop import shop

from aetherflow.cli.main import main

DEPLOY = ROOT / "deploy"
EXPLICIT = ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram")


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = loaded(DEPLOY / "compose.yaml")["services"]
    return found


def objects() -> list[dict[str, Any]]:
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    assert files
    return list(chain.from_iterable(yaml.safe_load_all(file.read_text("utf-8")) for file in files))


@pytest.mark.parametrize(
    ("command", "file"),
    [("alerts", "prometheus/rules.yaml"), ("dashboard", "grafana/dashboards/aetherflow.json")],
)
def test_generated_files_are_what_is_generated(tmp_path: Path, command: str, file: str) -> None:
    """What is kept of alerts and dashboards is what the commands write today."""
    assert main([command, "-o", str(tmp_path / "now")]) == 0
    assert (DEPLOY / file).read_text("utf-8") == (tmp_path / "now").read_text("utf-8"), f"aetherflow {command} > {file}"


@pytest.mark.backend
@needs_prometheus
def test_prometheus_accepts_its_configuration() -> None:
    """Promtool finds nothing wrong with the configuration and the rules beside it."""
    promtool("check", "config", "prometheus.yaml", cwd=DEPLOY / "prometheus")


def test_the_compose_file_is_valid() -> None:
    """It follows the specification of compose files; merge keys are put in first, which its reader does not know."""
    merged = json.dumps(loaded(DEPLOY / "compose.yaml"))
    compose_spec = pytest.importorskip("compose_spec", reason=NEEDS_DEV)
    assert compose_spec.PyCompose.from_yaml(merged)
    with pytest.raises(ValueError, match="imagine"):
        compose_spec.PyCompose.from_yaml(merged.replace('"image"', '"imagine"', 1))


def test_services_are_pinned_healthy_and_local(services: dict[str, dict[str, Any]]) -> None:
    """Each has an exact version or is built here, a health check, and no port but on loopback."""
    assert set(services) == {"app", "collector", "jaeger", "tempo", "prometheus", "grafana"}
    for name, service in services.items():
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert service["cap_drop"] == ["ALL"], name


def test_nobody_has_a_password(services: dict[str, dict[str, Any]]) -> None:
    """There is no password in the file, and Grafana makes no account with the one that everybody knows."""
    assert "PASSWORD" not in yaml.safe_dump(services).upper()
    assert services["grafana"]["environment"]["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert services["grafana"]["environment"]["GF_AUTH_BASIC_ENABLED"] == "false"


def test_what_is_mounted_and_depended_on_is_there(services: dict[str, dict[str, Any]]) -> None:
    """Files that are mounted exist, as do build files and the services that others wait for."""
    volumes = loaded(DEPLOY / "compose.yaml")["volumes"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in volumes, volume
        assert set(service.get("depends_on", ())) <= set(services)
        if build := service.get("build"):
            assert (DEPLOY / build["context"] / build.get("dockerfile", "Dockerfile")).exists()


def test_names_and_ports_agree(services: dict[str, dict[str, Any]]) -> None:
    """Addresses in one file are those of a service, on a port that another file gives it."""
    config = CONFIGURATION.read_text("utf-8")
    ports = {name: int(port) for name, port in re.findall(r"env:(\w+_PORT):-(\d+)", config)}
    addresses = re.findall(r"\b([a-z]+):(\d{4,5})\b", yaml.safe_dump([services, loaded_all()]))
    assert len(addresses) >= 8
    served = {
        "collector": set(ports.values()),
        "jaeger": {4317, 16686},
        "tempo": {4317, loaded(DEPLOY / "tempo" / "tempo.yaml")["server"]["http_listen_port"]},
        "prometheus": {9090},
    }
    assert [(host, port) for host, port in addresses if int(port) not in served.get(host, set())] == []
    variables = set(re.findall(r"env:(\w+):-", config))
    assert set(services["collector"]["environment"]) <= variables
    assert f"127.0.0.1:{ports['HEALTH_PORT']}/" in services["collector"]["healthcheck"]["test"][-1]


def loaded_all() -> list[Any]:
    """What Prometheus scrapes, and Grafana asks."""
    return [
        loaded(DEPLOY / "prometheus" / "prometheus.yaml"),
        loaded(DEPLOY / "grafana" / "provisioning" / "datasources" / "sources.yaml"),
    ]


def test_an_exemplar_leads_to_a_source_of_traces() -> None:
    """Grafana's Prometheus source sends exemplars, by the label they have, to a source that is there."""
    sources = {each["uid"]: each for each in loaded_all()[1]["datasources"]}
    (link,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert link["name"] == "trace_id"
    assert sources[link["datasourceUid"]]["type"] == "tempo"
    (provider,) = loaded(DEPLOY / "grafana" / "provisioning" / "dashboards" / "provider.yaml")["providers"]
    mounts = loaded(DEPLOY / "compose.yaml")["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts


def test_the_collector_is_one_version() -> None:
    """The image is built by the builder of the version that builder.yaml pins."""
    version = loaded(BUILDER)["dist"]["version"]
    assert f"cmd/builder@v{version} " in (DEPLOY / "collector" / "Dockerfile").read_text("utf-8")
    assert f"cmd/builder@v{version} " in BUILDER.read_text("utf-8")
    (image,) = re.findall(r"image: (aetherflow-collector:\S+)", (DEPLOY / "kubernetes/collector.yaml").read_text())
    assert image == f"aetherflow-collector:{version}"


@pytest.mark.parametrize("found", objects(), ids=lambda found: f"{found['kind']}-{found['metadata']['name']}")
def test_kubernetes_objects_are_valid(found: dict[str, Any]) -> None:
    """Each follows the schema of its kind, with no field that there is not."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason=NEEDS_DEV)
    kubernetes_validate.validate(found, "1.30", strict=True)


def test_kubernetes_probes() -> None:
    """Containers have probes on ports that they declare, and are labelled as their deployments select them."""
    for deployment in (each for each in objects() if each["kind"] == "Deployment"):
        template = deployment["spec"]["template"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        for container in template["spec"]["containers"]:
            ports = {port["name"] for port in container["ports"]}
            assert all(container[probe]["httpGet"]["port"] in ports for probe in ("livenessProbe", "readinessProbe"))


def test_services_send_classic_histograms(services: dict[str, dict[str, Any]]) -> None:
    """Both examples have the application send the histograms that dashboards and rules ask for."""
    assert EXPLICIT in services["app"]["environment"].items()
    (app,) = (each for each in objects() if each["kind"] == "Deployment" and each["metadata"]["name"] == "shop")
    (container,) = app["spec"]["template"]["spec"]["containers"]
    assert EXPLICIT in {(each["name"], each.get("value")) for each in container["env"]}


def test_the_shop_answers_probes(tmp_path: Path) -> None:
    """The shop that is deployed says that it is alive, and knows nothing of other paths."""
    (port,) = free_ports(1)
    base = f"http://127.0.0.1:{port}"

    def alive() -> bool:
        try:
            with urllib.request.urlopen(f"{base}/livez", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    with HttpReceiver() as receiver:
        told = {"PROBES_HOST": "127.0.0.1", "PROBES_PORT": str(port), "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        with shop(tmp_path, **told):
            assert wait_until(alive, "the shop")
            with pytest.raises(urllib.error.HTTPError, match="404") as refused:
                urllib.request.urlopen(f"{base}/nonsense", timeout=5)
            refused.value.close()
