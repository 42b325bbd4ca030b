"""What is applied to a cluster: valid to the letter, restricted, and in time with how the gateway stops."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from app.config.environment import VARIABLES
from app.config.load import load
from tests.deploy.declared import ROOT, metrics
from tests.deploy.kustomize import Object, built
from tests.deploy.schema import wrong

FOLDER: Final = ROOT / "deploy" / "kubernetes"
OVERLAYS: Final = ("single", "replicated")
METADATA: Final = (
    *("169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200"),
    *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fe80::a9fe:a9fe"),
)
"""Where clouds hand out the credentials of the machine."""

SETTLING_SECONDS: Final = 20
"""After its last stream a gateway settles what is owed, and closes its store."""

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def objects(overlay: str) -> list[Object]:
    return built(FOLDER / "overlays" / overlay)


def one(overlay: str, kind: str) -> Any:
    (found,) = [each for each in objects(overlay) if each["kind"] == kind]
    return found


def pod(overlay: str) -> Any:
    return one(overlay, "Deployment")["spec"]["template"]["spec"]


def gateway(overlay: str) -> Any:
    (container,) = pod(overlay)["containers"]
    return container


def environment(overlay: str) -> dict[str, str]:
    return {each["name"]: each["value"] for each in gateway(overlay)["env"]}


@every_overlay
def test_every_object_is_what_kubernetes_takes(overlay: str) -> None:
    for each in objects(overlay):
        assert wrong(each) == []
    names = Counter((each["kind"], each["metadata"]["name"]) for each in objects(overlay))
    assert max(names.values()) == 1 and {name for _, name in names} == {"tierway"}


@every_overlay
def test_kustomize_itself_makes_the_same(overlay: str) -> None:
    """Else the tests below look at something that nobody applies."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    command = [kubectl, "kustomize", str(FOLDER / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    (generated,) = [each["metadata"]["name"] for each in made if each["kind"] == "ConfigMap"]
    plain = yaml.safe_load_all(done.stdout.replace(generated, "tierway"))
    ours = {each["kind"]: each for each in objects(overlay)}
    assert {each["kind"]: each for each in plain} == ours and generated.startswith("tierway-")


@every_overlay
def test_the_pod_may_do_nothing_it_need_not(overlay: str) -> None:
    spec, container = pod(overlay), gateway(overlay)
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
    assert one(overlay, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]


@every_overlay
def test_what_is_mounted_is_there_and_what_is_written_can_be(overlay: str) -> None:
    volumes = {volume["name"] for volume in pod(overlay)["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in gateway(overlay)["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == volumes
    assert {path for path, mount in mounts.items() if not mount.get("readOnly")} == {"/var/lib/tierway", "/tmp"}
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "TIERWAY_DATA_DIR=/var/lib/tierway" in dockerfile and "TIERWAY_PORT=8080" in dockerfile
    assert gateway(overlay)["ports"] == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]


@every_overlay
def test_secrets_are_files(overlay: str) -> None:
    """A secret in a variable stands in every dump of the pod."""
    said = environment(overlay)
    secret = {name for name, variable in VARIABLES.items() if variable.secret}
    assert not said.keys() & secret
    files = {name for name in said if name.endswith("_FILE")}
    assert {name.removesuffix("_FILE") for name in files} <= secret
    assert all(said[name].startswith("/run/secrets/tierway/") for name in files)
    assert ("REDIS_URL_FILE" in files) is (overlay == "replicated")
    assert all(each["kind"] != "Secret" for each in objects(overlay)), "a secret in a repository is none"
    guide = (ROOT / "docs" / "kubernetes.md").read_text()
    for name in files:
        assert f"--from-file={Path(said[name]).name}=" in guide, "the guide says how to make it"


@every_overlay
def test_its_configuration_loads(overlay: str, tmp_path: Path) -> None:
    """With its own variables, and those that Kubernetes adds for a Service of that name where links are on."""
    config = tmp_path / "tierway.yaml"
    config.write_text(one(overlay, "ConfigMap")["data"]["tierway.yaml"])
    secret = tmp_path / "secret"
    secret.write_text("redis://redis:6379/0")
    environ = {name: str(secret) if name.endswith("_FILE") else value for name, value in environment(overlay).items()}
    assert environ["TIERWAY_CONFIG"].endswith(f"/{config.name}")
    links = {"TIERWAY_SERVICE_HOST": "10.0.0.1", "TIERWAY_PORT": "tcp://10.0.0.1:80", "TIERWAY_SERVICE_PORT_HTTP": "80"}
    settings = load({**environ, **links, "TIERWAY_CONFIG": str(config)})
    assert settings.admin_key is not None and (settings.redis_url is not None) is (overlay == "replicated")
    waits = int(gateway(overlay)["lifecycle"]["preStop"]["exec"]["command"][1])
    stops = waits + settings.streaming.grace + SETTLING_SECONDS
    assert pod(overlay)["terminationGracePeriodSeconds"] > stops, "streams would be cut before they may end"


@every_overlay
def test_probes_ask_what_they_should(overlay: str) -> None:
    container = gateway(overlay)
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz", "readiness that kills takes all down at once"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    starts = container["startupProbe"]
    assert starts["periodSeconds"] * starts["failureThreshold"] >= 60


@every_overlay
def test_selectors_select_the_pods(overlay: str) -> None:
    labels = one(overlay, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for selected in (
        one(overlay, "Deployment")["spec"]["selector"]["matchLabels"],
        one(overlay, "Service")["spec"]["selector"],
        one(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selected.items() <= labels.items()
    assert one(overlay, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


@every_overlay
@pytest.mark.parametrize("address", METADATA)
def test_metadata_services_cannot_be_reached(overlay: str, address: str) -> None:
    """Whoever makes the gateway ask there gets the node's own credentials."""
    asked = ipaddress.ip_address(address)
    for rule in one(overlay, "NetworkPolicy")["spec"]["egress"]:
        assert rule["ports"], "a rule without ports opens them all"
        for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer):
            net = ipaddress.ip_network(block["cidr"])
            inside = asked.version == net.version and asked in net
            excepted = [ipaddress.ip_network(each) for each in block.get("except", ())]
            assert not inside or any(asked in each for each in excepted if each.version == asked.version)


@every_overlay
def test_only_who_is_named_gets_in(overlay: str) -> None:
    policy = one(overlay, "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8080}] and all("ipBlock" not in peer for peer in rule["from"])


def test_one_replica_has_its_store_on_a_volume() -> None:
    deployment = one("single", "Deployment")["spec"]
    assert deployment["replicas"] == 1 and deployment["strategy"] == {"type": "Recreate"}, "two would share its files"
    (data,) = [volume for volume in deployment["template"]["spec"]["volumes"] if volume["name"] == "data"]
    claim = one("single", "PersistentVolumeClaim")
    assert data == {"name": "data", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}


def test_many_replicas_grow_by_what_fills_them() -> None:
    deployment, scaler = one("replicated", "Deployment")["spec"], one("replicated", "HorizontalPodAutoscaler")["spec"]
    assert "replicas" not in deployment, "every deployment would undo the autoscaler"
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert scaler["scaleTargetRef"]["name"] == one("replicated", "Deployment")["metadata"]["name"]
    (metric,) = scaler["metrics"]
    assert metric["pods"]["metric"]["name"] in metrics()
    assert scaler["minReplicas"] >= 2
    adapter = yaml.safe_load((ROOT / "deploy" / "prometheus" / "adapter.yaml").read_text())
    (rule,) = adapter["rules"]["custom"]
    assert rule["name"]["matches"] == metric["pods"]["metric"]["name"]


def test_monitoring_finds_the_service_and_calls_it_as_the_alerts_do() -> None:
    made = {each["kind"]: each for each in built(FOLDER / "monitoring")}
    assert set(made) == {"ServiceMonitor", "PrometheusRule"}
    monitor, service = made["ServiceMonitor"]["spec"], one("single", "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]} and endpoint["path"] == "/metrics"
    assert service["metadata"]["name"] == "tierway", "the operator makes it the job, which alerts select by"
