"""The overlays as kustomize makes them: valid by Kubernetes' own schemas, and every port, path, label and name in them fits."""

from __future__ import annotations

import json
import re

import kubernetes_validate
import pytest
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor

from gateway import __version__
from gateway.processes import MARGIN_SECONDS
from gateway.serving import CUT_SECONDS
from tests.deploy.files import (
    DEPLOY,
    EXPERTS,
    OVERLAYS,
    Document,
    Worker,
    composed_workers,
    container,
    image_environment,
    instructions,
    kustomized,
    no_kustomize,
    of_kind,
    orchestrated_workers,
    scrape_jobs,
)
from tests.deploy.gateways import paths, variables
from tests.deploy.served import assert_served

if reason := no_kustomize():
    pytest.skip(reason, allow_module_level=True)

VERSIONS = ("1.31", "1.34", "1.37")  # the oldest one that is wanted, and newer ones
MADE_BY_THE_OPERATOR = {"gateway-keys", "hf-token"}  # Secrets, which no file holds


def deployments(overlay: str) -> dict[str, Document]:
    return of_kind(overlay, "Deployment")


def pod(deployment: Document) -> Document:
    spec: Document = deployment["spec"]["template"]["spec"]
    return spec


def selected(overlay: str, labels: Document) -> set[str]:
    """The deployments whose pods have the labels."""
    return {
        name
        for name, deployment in deployments(overlay).items()
        if labels.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_schemas_take_every_object(overlay: str, version: str) -> None:
    checked = [d for d in kustomized(overlay) if not d["apiVersion"].startswith("monitoring.coreos.com/")]
    assert len(checked) > 10
    for document in checked:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_operators_own_models_take_every_monitor_and_rule_and_know_all_of_them() -> None:
    for kind, model in (("ServiceMonitor", ServiceMonitor), ("PrometheusRule", PrometheusRule)):
        objects = of_kind("gpu", kind).values()
        assert len(objects) == 2
        for one in objects:
            known = model.model_validate(one)
            assert known.model_dump(mode="json", by_alias=True, exclude_unset=True) == one
        assert not of_kind("cpu", kind), "a cluster to try it in need not have the operator"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_just_what_they_mean(overlay: str) -> None:
    names, workers = deployments(overlay).keys(), {worker.address for worker in orchestrated_workers(overlay)}
    assert names - workers == {"gateway"}
    for name, deployment in deployments(overlay).items():
        assert selected(overlay, deployment["spec"]["selector"]["matchLabels"]) == {name}
        assert selected(overlay, of_kind(overlay, "Service")[name]["spec"]["selector"]) == {name}
    for constraint in pod(deployments(overlay)["gateway"])["topologySpreadConstraints"]:
        assert selected(overlay, constraint["labelSelector"]["matchLabels"]) == {"gateway"}
    budget = of_kind(overlay, "PodDisruptionBudget")["gateway"]
    assert selected(overlay, budget["spec"]["selector"]["matchLabels"]) == {"gateway"}
    target = of_kind(overlay, "HorizontalPodAutoscaler")["gateway"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "gateway")
    policies = of_kind(overlay, "NetworkPolicy")
    assert selected(overlay, policies["gateway"]["spec"]["podSelector"]["matchLabels"]) == {"gateway"}
    assert selected(overlay, policies["workers"]["spec"]["podSelector"]["matchLabels"]) == workers


def test_monitors_find_services_with_the_port_that_they_name() -> None:
    found = set()
    for monitor in of_kind("gpu", "ServiceMonitor").values():
        wanted = monitor["spec"]["selector"]["matchLabels"]
        for name, service in of_kind("gpu", "Service").items():
            if wanted.items() <= service["metadata"]["labels"].items():
                found.add(name)
                for endpoint in monitor["spec"]["endpoints"]:
                    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
                    assert endpoint["path"] == "/metrics"
    assert "/metrics" in paths()
    assert found == deployments("gpu").keys()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ports_are_those_that_are_listened_on(overlay: str) -> None:
    listened = {worker.address: int(worker.flag("port") or 0) for worker in orchestrated_workers(overlay)}
    listened["gateway"] = int(image_environment()["MOE_GATEWAY_PORT"])
    for name, deployment in deployments(overlay).items():
        [port] = container(deployment)["ports"]
        assert port["containerPort"] == listened[name]
        [of_service] = of_kind(overlay, "Service")[name]["spec"]["ports"]
        assert of_service["targetPort"] == port["name"]
        probes = [container(deployment)[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
        assert {probe["port"] for probe in probes} == {port["name"]}
    policies = of_kind(overlay, "NetworkPolicy")
    assert policies["gateway"]["spec"]["ingress"][0]["ports"] == [{"port": "http"}]
    [asked] = [r["ports"] for r in policies["gateway"]["spec"]["egress"] if "podSelector" in r["to"][0]]
    [taken] = [rule["ports"] for rule in policies["workers"]["spec"]["ingress"]]
    assert asked == taken == [{"port": port} for port in {p for n, p in listened.items() if n != "gateway"}]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_gateways_probes_ask_paths_that_it_has(overlay: str) -> None:
    one = container(deployments(overlay)["gateway"])
    asked = {kind: one[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert asked == {"startup": "/health", "liveness": "/health", "readiness": "/ready"}
    assert set(asked.values()) <= paths()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_gateway_has_longer_to_end_than_it_drains(overlay: str) -> None:
    deployment = deployments(overlay)["gateway"]
    told = {variable["name"]: variable["value"] for variable in container(deployment)["env"]}
    drains = float(told["MOE_GATEWAY_DRAIN_DELAY"]) + float(told["MOE_GATEWAY_DRAIN_SECONDS"])
    assert pod(deployment)["terminationGracePeriodSeconds"] >= drains + MARGIN_SECONDS + 2 * CUT_SECONDS
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert "replicas" not in deployment["spec"], "or each update would undo what the autoscaler did"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_has_time_to_load_and_to_end(overlay: str) -> None:
    for worker in orchestrated_workers(overlay):
        one = container(deployments(overlay)[worker.address])
        startup = one["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 45 * 60
        [before, wait] = one["lifecycle"]["preStop"]["exec"]["command"]
        assert before == "sleep"
        assert worker.grace >= float(wait) + float(worker.flag("shutdown-timeout") or 0) + 30
        assert deployments(overlay)[worker.address]["spec"]["strategy"] == {"type": "Recreate"}


def test_a_worker_asks_for_as_many_gpus_as_it_uses_and_has_shared_memory() -> None:
    for worker in orchestrated_workers("gpu"):
        one = container(deployments("gpu")[worker.address])
        assert one["resources"]["limits"]["nvidia.com/gpu"] == (worker.flag("tensor-parallel-size") or "1")
        shared = [m["name"] for m in one["volumeMounts"] if m["mountPath"] == "/dev/shm"]  # noqa: S108
        [volume] = [v for v in worker.service["volumes"] if [v["name"]] == shared]
        assert volume["emptyDir"]["medium"] == "Memory"
    for worker in orchestrated_workers("cpu"):
        assert "nvidia.com/gpu" not in container(deployments("cpu")[worker.address])["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_weights_lie_on_a_volume_of_the_workers_own(overlay: str) -> None:
    claims = of_kind(overlay, "PersistentVolumeClaim")
    for worker in orchestrated_workers(overlay):
        one = container(deployments(overlay)[worker.address])
        [claim] = [v for v in worker.service["volumes"] if "persistentVolumeClaim" in v]
        assert claim["persistentVolumeClaim"]["claimName"] == worker.address
        [home] = [variable["value"] for variable in one["env"] if variable["name"] == "HOME"]
        assert home in [m["mountPath"] for m in one["volumeMounts"] if m["name"] == claim["name"]]
    assert claims.keys() == {worker.address for worker in orchestrated_workers(overlay)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_another_experts_file_is_another_config_map_and_so_a_rolling_update(overlay: str) -> None:
    [(name, config)] = [(n, c) for n, c in of_kind(overlay, "ConfigMap").items() if "experts.yaml" in c["data"]]
    assert re.fullmatch(r"experts-\w{10}", name)
    assert config["data"] == {"experts.yaml": EXPERTS[overlay].read_text("utf-8")}
    one = container(deployments(overlay)["gateway"])
    mounted = {m["mountPath"]: m for m in one["volumeMounts"]}
    sources = {v["name"]: v for v in pod(deployments(overlay)["gateway"])["volumes"]}
    folder, _, file = image_environment()["MOE_GATEWAY_CONFIG"].rpartition("/")
    assert sources[mounted[folder]["name"]]["configMap"]["name"] == name
    assert "subPath" not in mounted[folder]
    assert file in config["data"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_that_a_pod_mounts_or_reads_is_there(overlay: str) -> None:
    made = {name for kind in ("ConfigMap", "Secret") for name in of_kind(overlay, kind)}
    for deployment in deployments(overlay).values():
        one = container(deployment)
        assert {m["name"] for m in one["volumeMounts"]} == {v["name"] for v in pod(deployment)["volumes"]}
        named = re.findall(r"'(?:secretRef|secretKeyRef|configMap)': \{[^}]*'name': '([^']+)'", str(deployment))
        assert set(named) <= made | MADE_BY_THE_OPERATOR


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_the_gateway_writes_it_can_write(overlay: str) -> None:
    """Its root file system is read-only: the state folder, which is also its home, and /tmp are volumes."""
    gateway = deployments(overlay)["gateway"]
    one, environment = container(gateway), image_environment()
    assert one["securityContext"]["readOnlyRootFilesystem"]
    writable = {m["mountPath"] for m in one["volumeMounts"] if not m.get("readOnly")}
    assert {environment["MOE_GATEWAY_STATE"], environment["HOME"], "/tmp"} <= writable  # noqa: S108


def restricted(deployment: Document) -> bool:
    """Whether the pod is what the restricted standard of Pod Security asks of its users and rights."""
    of_pod, one = pod(deployment)["securityContext"], container(deployment)["securityContext"]
    return (
        of_pod.get("runAsNonRoot") is True
        and of_pod["runAsUser"] > 0
        and of_pod["seccompProfile"]["type"] == "RuntimeDefault"
        and one["allowPrivilegeEscalation"] is False
        and one["capabilities"] == {"drop": ["ALL"]}
    )


def test_the_namespace_is_as_strict_as_its_pods_are() -> None:
    enforced = {
        overlay: namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for overlay in OVERLAYS
        for namespace in of_kind(overlay, "Namespace").values()
    }
    assert enforced == {"cpu": "baseline", "gpu": "restricted"}
    assert all(map(restricted, deployments("gpu").values()))
    assert restricted(deployments("cpu")["gateway"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_takes_a_services_variables_for_its_own(overlay: str) -> None:
    """A Service moe-gateway would be MOE_GATEWAY_PORT=tcp://… in every pod, one called vllm VLLM_PORT."""
    for deployment in deployments(overlay).values():
        assert pod(deployment)["enableServiceLinks"] is False
        assert pod(deployment)["automountServiceAccountToken"] is False


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_one_namespace(overlay: str) -> None:
    [name] = of_kind(overlay, "Namespace")
    assert {d["metadata"].get("namespace", name) for d in kustomized(overlay)} == {name}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_expert_has_a_worker_that_serves_it(overlay: str) -> None:
    assert_served(orchestrated_workers(overlay), EXPERTS[overlay])


def started(worker: Worker) -> tuple[str, str, list[str]]:
    return worker.address, worker.image, [word for argument in worker.arguments for word in argument.split("=", 1)]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_workers_are_started_as_compose_starts_them(overlay: str) -> None:
    """Whose arguments the real vLLM is asked about."""
    composed = {worker.address: worker for worker in composed_workers(overlay)}
    for worker in orchestrated_workers(overlay):
        of_compose = composed[worker.address]
        assert started(worker) == started(of_compose)
        assert worker.environment <= of_compose.environment | {"HOME", "USER"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_gateways_pod_is_what_its_image_is_made_for(overlay: str) -> None:
    one, of_pod = container(deployments(overlay)["gateway"]), pod(deployments(overlay)["gateway"])["securityContext"]
    assert instructions("USER")[-1] == f"{of_pod['runAsUser']}:{of_pod['runAsGroup']}"
    assert one["args"] == json.loads(instructions("CMD")[-1])
    assert "command" not in one
    assert one["image"] == f"moe-gateway:{__version__}"
    assert {variable["name"] for variable in one["env"]} <= variables()


def test_grafanas_sidecar_finds_every_dashboard() -> None:
    """In ConfigMaps small enough for `kubectl apply`, which writes each of them into an annotation of itself."""
    maps = [
        c
        for c in of_kind("gpu", "ConfigMap").values()
        if c["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
    ]
    found = {name: text for config in maps for name, text in config["data"].items()}
    assert found == {path.name: path.read_text("utf-8") for path in (DEPLOY / "grafana" / "dashboards").glob("*.json")}
    assert all(len(json.dumps(config)) < 262144 for config in maps)
    names = [config["metadata"]["name"] for config in maps]
    assert {f"dashboard-{name.removesuffix('.json')}" for name in found} == set(
        names
    )  # no hash: the next one takes its place


def test_monitors_keep_the_names_of_jobs_that_alerts_ask_for() -> None:
    told = {
        relabeling["replacement"]
        for monitor in of_kind("gpu", "ServiceMonitor").values()
        for endpoint in monitor["spec"]["endpoints"]
        for relabeling in endpoint["relabelings"]
        if relabeling["targetLabel"] == "job"
    }
    assert told == scrape_jobs().keys() - {"prometheus"}
