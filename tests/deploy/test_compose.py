"""`docker compose up` and the image, held to their invariants: there is no container engine where tests run."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
import yaml

from app.config.load import load
from tests.deploy.declared import ROOT
from tests.deploy.test_kubernetes import SETTLING_SECONDS

COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text()
KEYS: Final = {
    *("image", "build", "restart", "depends_on", "environment", "ports", "volumes", "stop_grace_period", "command"),
    *("healthcheck", "read_only", "tmpfs", "security_opt", "cap_drop"),
}


def bound() -> list[tuple[str, str, str]]:
    """Each folder of ours that is mounted: by which service, from where, to where."""
    return [
        (name, source, target)
        for name, service in SERVICES.items()
        for source, target in (volume.split(":")[:2] for volume in service.get("volumes", ()))
        if source.startswith("./")
    ]


def test_everything_that_belongs_together_is_there() -> None:
    assert set(SERVICES) == {
        *("gateway", "valkey", "ollama", "prometheus", "alertmanager", "grafana", "otel-collector"),
    }
    for name, service in SERVICES.items():
        assert set(service) <= KEYS, f"{name}: {set(service) - KEYS}"
        assert service["restart"] == "unless-stopped" and "no-new-privileges:true" in service["security_opt"]
        assert set(service.get("depends_on", ())) <= set(SERVICES)
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source.startswith("./") or source in COMPOSE["volumes"], volume


def test_nothing_is_published_beyond_this_machine() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), f"{name} {port}"


def test_what_is_mounted_exists_read_only() -> None:
    assert bound()
    for name, source, _ in bound():
        assert (ROOT / source).is_dir(), source
        assert any(volume.startswith(f"{source}:") and volume.endswith(":ro") for volume in SERVICES[name]["volumes"])


def test_its_environment_is_the_gateways() -> None:
    """What it does not say is empty, which counts as unset."""
    environ = {
        name: re.sub(r"\$\{\w+:-(\w*)\}", r"\1", value) for name, value in SERVICES["gateway"]["environment"].items()
    }
    settings = load(environ)
    assert settings.redis_url is not None and settings.allow_anonymous
    assert list(settings.upstreams) == ["ollama"]
    stops = int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s"))
    assert stops > settings.streaming.grace + SETTLING_SECONDS, "streams would be cut before they may end"


def test_prometheus_keeps_90_days_and_finds_the_gateway() -> None:
    assert "--storage.tsdb.retention.time=90d" in SERVICES["prometheus"]["command"]
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert jobs["tierway"]["static_configs"] == [{"targets": ["gateway:8080"]}]
    (managers,) = config["alerting"]["alertmanagers"]
    assert managers["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    (file,) = jobs["vllm"]["file_sd_configs"][0]["files"]
    assert yaml.safe_load((ROOT / "deploy" / "prometheus" / file).read_text()) == []


def test_alerts_reach_somebody_by_how_bad_they_are() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "alertmanager" / "alertmanager.yml").read_text())
    receivers = {receiver["name"] for receiver in config["receivers"]}
    routes = {route["matchers"][0]: route["receiver"] for route in config["route"]["routes"]}
    assert set(routes) == {f'severity="{word}"' for word in ("critical", "warning", "info")}
    assert {config["route"]["receiver"], *routes.values()} == receivers


def test_grafana_loads_the_dashboards_without_a_default_password() -> None:
    mounted = {target: source for name, source, target in bound() if name == "grafana"}
    provider = yaml.safe_load((ROOT / "grafana" / "provisioning" / "dashboards" / "tierway.yaml").read_text())
    (path,) = [each["options"]["path"] for each in provider["providers"]]
    assert mounted[path] == "./grafana/dashboards"
    source = yaml.safe_load((ROOT / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text())
    (prometheus,) = source["datasources"]
    assert prometheus["url"] == "http://prometheus:9090" and prometheus["isDefault"]
    said = SERVICES["grafana"]["environment"]
    home = said["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "grafana" / "dashboards" / home.rpartition("/")[2]).exists()
    assert said["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"


def test_the_collector_uses_what_it_defines() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "otel" / "collector.yaml").read_text())
    for pipeline in config["service"]["pipelines"].values():
        for part in ("receivers", "processors", "exporters"):
            assert set(pipeline[part]) <= set(config[part])
    port = config["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    assert SERVICES["gateway"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://otel-collector:{port}"


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"^USER 10001$", "it must not run as root"),
        (r'^ENTRYPOINT \["tierway"\]$', "a shell would not pass SIGTERM on"),
        (r'^CMD \["serve"\]$', "arguments replace this alone"),
        (r"^HEALTHCHECK ", "an engine has to know when it is sick"),
        (r"^STOPSIGNAL SIGTERM$", "the gateway drains on it"),
        (r"^FROM python:3\.\d+-slim$", "no compilers in what runs"),
    ],
)
def test_the_image(pattern: str, why: str) -> None:
    assert re.search(pattern, DOCKERFILE, re.MULTILINE), why


def test_the_image_holds_what_was_locked_and_no_more() -> None:
    installs = re.findall(r"pip install .*", DOCKERFILE)
    assert all("--require-hashes" in line or "--no-deps --no-build-isolation ." in line for line in installs)
    assert not re.search(r"^ADD |curl |wget |apt-get|COPY \. ", DOCKERFILE, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()
    }
    assert {f"!{name}" for name in copied} <= set(ignored), "else it would not build"
