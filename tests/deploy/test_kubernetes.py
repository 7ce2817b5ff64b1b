"""The Kubernetes manifests: schemas, consistency, and the probes on a real server."""

import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import requests
import yaml

from serving.gateway.settings import ROOT, read_properties
from serving.supervisor import TorchServe

FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATIONS = ("base", "autoscaling", "kserve")
# The oldest version that KServe supports, and the newest with an available schema.
VERSIONS = ("1.32", "1.37")
SCHEMAS = Path(__file__).parent / "schemas"
# Fields that KServe adds to a pod's specification.
PREDICTOR_FIELDS = {"labels", "minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout"}
NAME = {"app.kubernetes.io/name": "pathmnist"}
needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
needs_schemas = pytest.mark.skipif(
    not ((SCHEMAS / "node_modules").is_dir() and shutil.which("node")),
    reason="npm ci --prefix tests/deploy/schemas has not been run",
)


def read(path: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / path).read_text())
    return content


def files(kustomization: str) -> list[str]:
    return [f"{kustomization}/{name}" for name in read(f"{kustomization}/kustomization.yaml")["resources"]]


def rendered(kustomization: str) -> list[dict[str, Any]]:
    command = ["kubectl", "kustomize", str(FOLDER / kustomization)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


@pytest.fixture
def pod() -> dict[str, Any]:
    specification: dict[str, Any] = read("base/deployment.yaml")["spec"]["template"]["spec"]
    return specification


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


@pytest.fixture
def predictor() -> dict[str, Any]:
    specification: dict[str, Any] = read("kserve/inference-service.yaml")["spec"]["predictor"]
    return specification


@pytest.mark.parametrize("kustomization", KUSTOMIZATIONS)
def test_a_kustomization_names_what_exists_and_forgets_nothing(kustomization: str) -> None:
    content = read(f"{kustomization}/kustomization.yaml")
    named = {*content["resources"], *content.get("configurations", [])}
    assert all((FOLDER / kustomization / name).exists() for name in named)
    there = {path.name for path in (FOLDER / kustomization).iterdir()}
    assert there - {"kustomization.yaml"} == named - {"../base"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", files("base"))
def test_the_base_fits_the_schemas_of_kubernetes(path: str, version: str) -> None:
    kubernetes_validate.validate(read(path), version, strict=True)


def test_a_field_that_does_not_exist_is_noticed() -> None:
    deployment = read("base/deployment.yaml")
    deployment["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFilesystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


@needs_kubectl
@pytest.mark.parametrize("kustomization", KUSTOMIZATIONS)
def test_what_kustomize_renders_fits_the_schemas(kustomization: str) -> None:
    resources = rendered(kustomization)
    assert len({(resource["kind"], resource["metadata"]["name"]) for resource in resources}) == len(resources)
    for resource in resources:
        if resource["apiVersion"].split("/")[0] in ("v1", "apps", "policy", "networking.k8s.io"):
            kubernetes_validate.validate(resource, VERSIONS[0], strict=True)
        if resource["kind"] != "Namespace":
            assert resource["metadata"]["namespace"] == "pathmnist"


@needs_kubectl
def test_the_image_is_that_of_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    deployment = next(item for item in rendered("base") if item["kind"] == "Deployment")
    service = next(item for item in rendered("kserve") if item["kind"] == "InferenceService")
    for specification in (deployment["spec"]["template"]["spec"], service["spec"]["predictor"]):
        assert specification["containers"][0]["image"] == f"pathmnist:{version}"


@needs_kubectl
def test_only_one_of_them_decides_the_number_of_pods() -> None:
    deployment = next(item for item in rendered("autoscaling") if item["kind"] == "Deployment")
    assert "replicas" not in deployment["spec"]
    assert {"Deployment", "Service"}.isdisjoint(item["kind"] for item in rendered("kserve"))


@needs_schemas
def test_custom_resources_fit_the_schemas_of_keda_and_the_prometheus_operator() -> None:
    custom = [read(path) for path in files("autoscaling") if not path.endswith("../base")]
    broken = read("autoscaling/scaled-object.yaml")
    del broken["spec"]["scaleTargetRef"]["name"]
    for resources, fits in ((custom, True), ([broken], False)):
        result = subprocess.run(
            ["node", "validate.js"],
            cwd=SCHEMAS,
            input=json.dumps(resources),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (result.returncode == 0) == fits, result.stderr


def test_the_predictor_is_the_deployments_pod(pod: dict[str, Any], predictor: dict[str, Any]) -> None:
    """KServe's schema is not available as a file, so this checks the part that comes from Kubernetes."""
    as_pod = {name: value for name, value in predictor.items() if name not in PREDICTOR_FIELDS}
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": as_pod}, VERSIONS[0], strict=True
    )
    assert as_pod["containers"][0].pop("name") == "kserve-container"
    pod["containers"][0].pop("name")
    assert as_pod == pod
    assert predictor["labels"] == NAME


def test_selectors_match_the_pods() -> None:
    template = read("base/deployment.yaml")["spec"]["template"]
    assert template["metadata"]["labels"] == NAME
    assert read("base/deployment.yaml")["spec"]["selector"]["matchLabels"] == NAME
    assert template["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"] == NAME
    assert read("base/service.yaml")["spec"]["selector"] == NAME
    assert read("base/disruption-budget.yaml")["spec"]["selector"]["matchLabels"] == NAME
    assert read("base/network-policy.yaml")["spec"]["podSelector"]["matchLabels"] == NAME
    assert read("autoscaling/pod-monitor.yaml")["spec"]["selector"]["matchLabels"] == NAME


def test_everything_asks_the_edges_ports(container: dict[str, Any]) -> None:
    settings = read_properties(ROOT / "config.properties")
    edge, grpc = urlsplit(settings["edge_address"]).port, int(settings["edge_grpc_port"])
    # KServe exposes the first one as port 80.
    assert container["ports"] == [{"name": "http", "containerPort": edge}, {"name": "grpc", "containerPort": grpc}]
    assert f"EXPOSE {edge} {grpc}\n" in (ROOT / "Dockerfile").read_text()
    assert container["livenessProbe"]["httpGet"]["port"] == "http"
    ports = read("base/service.yaml")["spec"]["ports"]
    assert [(item["port"], item["targetPort"]) for item in ports] == [(80, "http"), (grpc, "grpc")]
    assert [item["port"] for item in read("autoscaling/pod-monitor.yaml")["spec"]["podMetricsEndpoints"]] == ["http"]


def test_only_the_edge_can_be_reached_and_the_server_reaches_nobody(container: dict[str, Any]) -> None:
    policy = read("base/network-policy.yaml")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["ingress"] == [{"ports": [{"protocol": "TCP", "port": item["name"]} for item in container["ports"]]}]
    assert policy["egress"] == []


def test_the_pod_has_the_least_rights(pod: dict[str, Any], container: dict[str, Any]) -> None:
    user = pod["securityContext"]["runAsUser"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert f"--uid {user} " in (ROOT / "Dockerfile").read_text()
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod["automountServiceAccountToken"]
    assert pod["serviceAccountName"] == read("base/service-account.yaml")["metadata"]["name"]
    assert not read("base/service-account.yaml")["automountServiceAccountToken"]


def test_what_the_server_writes_has_a_volume(pod: dict[str, Any], container: dict[str, Any]) -> None:
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts) == {"/tmp", "/dev/shm"}
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
    assert all(set(volume["emptyDir"]) & {"sizeLimit"} for volume in pod["volumes"])


def test_the_token_is_one_secret(container: dict[str, Any]) -> None:
    token = next(item for item in container["env"] if item["name"] == "PATHMNIST_TOKEN")
    reference = token["valueFrom"]["secretKeyRef"]
    (endpoint,) = read("autoscaling/pod-monitor.yaml")["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"]["credentials"] == reference
    create = f"create secret generic {reference['name']} --namespace pathmnist --from-literal={reference['key']}="
    assert create in (ROOT / "docs" / "deploy.md").read_text()


def test_the_scaled_object_scales_the_deployment() -> None:
    scaled = read("autoscaling/scaled-object.yaml")["spec"]
    deployment = read("base/deployment.yaml")
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert scaled["minReplicaCount"] == deployment["spec"]["replicas"] > 1
    # With a lower value, no pod of the Deployment could be evicted.
    assert read("base/disruption-budget.yaml")["spec"]["maxUnavailable"] < scaled["minReplicaCount"]


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_a_probe_holds_on_a_running_server(probe: str, server: TorchServe, container: dict[str, Any]) -> None:
    path, limit = container[probe]["httpGet"]["path"], container[probe]["timeoutSeconds"]
    assert requests.get(f"{server.url}{path}", timeout=limit).ok


def test_the_server_has_the_metrics_that_decide_its_scale(server: TorchServe) -> None:
    image = (ROOT / "docs" / "tile.png").read_bytes()
    for verb in ("predictions", "explanations"):
        assert requests.post(f"{server.url}/{verb}/pathmnist", data=image, timeout=60).ok
    metrics = requests.get(f"{server.metrics_url}/metrics", timeout=30).text.splitlines()
    for trigger in read("autoscaling/scaled-object.yaml")["spec"]["triggers"]:
        pool = "pathmnist-explain" if trigger["name"] == "explanations" else "pathmnist"
        for metric in ("ts_queue_latency_microseconds", "ts_inference_requests_total"):
            assert f'{metric}{{job="pathmnist", model_name="{pool}"}}' in trigger["metadata"]["query"]
            assert any(line.startswith(f"{metric}{{") and f'model_name="{pool}"' in line for line in metrics)


@needs_promtool
def test_the_scale_follows_the_seconds_in_the_queue(tmp_path: Path) -> None:
    """A hundred requests per minute that wait half a second each, then none."""
    triggers = read("autoscaling/scaled-object.yaml")["spec"]["triggers"]
    rules = [{"record": f"scale:{item['name']}", "expr": item["metadata"]["query"]} for item in triggers]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "scale", "rules": rules}]}))
    labels = '{job="pathmnist", model_name="pathmnist"}'
    series = [
        {"series": f"ts_queue_latency_microseconds{labels}", "values": "0+50000000x10 500000000x10"},
        {"series": f"ts_inference_requests_total{labels}", "values": "0+100x10 1000x10"},
    ]
    expected = [("predictions", "8m", 0.5), ("predictions", "20m", 0), ("explanations", "8m", 0)]
    cases = [
        {"expr": f"scale:{name}", "eval_time": time, "exp_samples": [{"labels": f"scale:{name}", "value": value}]}
        for name, time, value in expected
    ]
    test = {
        "rule_files": ["rules.yml"],
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": cases}],
    }
    (tmp_path / "test.yml").write_text(json.dumps(test))
    command = ["promtool", "test", "rules", str(tmp_path / "test.yml")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "TZ": "UTC"})
    assert result.returncode == 0, result.stdout + result.stderr
