"""compose.yaml: valid by the specification's own schema, and every name in it is one that something has."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from gateway.processes import MARGIN_SECONDS
from tests.deploy.files import (
    COMPOSE,
    DEPLOY,
    EXPERTS,
    OVERLAYS,
    ROOT,
    Document,
    address,
    compose,
    composed_workers,
    documents,
    image_environment,
    seconds,
    services,
)

VARIABLE = re.compile(r"\$\{(\w+)(?::[-?][^}]*)?\}")
GATEWAYS = {"cpu": "gateway-cpu", "gpu": "gateway"}


def every(name: str) -> list[tuple[str, Any]]:
    """What each service has under `name`, where it has it."""
    return [(service, spec[name]) for service, spec in compose()["services"].items() if name in spec]


def test_the_schema_of_the_compose_specification_takes_it() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("profile", OVERLAYS)
def test_a_profile_has_a_gateway_workers_and_what_watches_them(profile: str) -> None:
    assert GATEWAYS[profile] in services(profile)
    assert list(composed_workers(profile))
    assert {"prometheus", "alertmanager", "grafana"} <= services(profile).keys()
    names = [address(name, service) for name, service in services(profile).items()]
    assert len(set(names)) == len(names), "two would be asked by one name"


def test_what_nothing_uses_yet_starts_with_no_other() -> None:
    assert compose()["services"]["redis"]["profiles"] == ["redis"]
    assert not [
        path for package in ("gateway", "router") for path in (ROOT / package).rglob("*.py") if _asks_redis(path)
    ]


def _asks_redis(path: Any) -> bool:
    return re.search(r"^\s*(import|from) redis\b", path.read_text("utf-8"), re.MULTILINE) is not None


def test_images_are_pinned() -> None:
    for service, image in every("image"):
        tag = image.rpartition(":")[2]
        assert re.fullmatch(r"v?\d+\.\d+\.\d+(-\w+)?", tag), f"{service}: {image}"


def test_every_service_is_watched() -> None:
    """By a healthcheck of its own; the gateway's is in its image."""
    with_one = {service for service, _ in every("healthcheck")}
    assert with_one | set(GATEWAYS.values()) == compose()["services"].keys()


def test_every_variable_stands_in_the_example_and_is_used() -> None:
    example = (DEPLOY / ".env.example").read_text("utf-8")
    named = dict(line.split("=", 1) for line in example.splitlines() if line and not line.startswith("#"))
    used = set(VARIABLE.findall(COMPOSE.read_text("utf-8")))
    used |= {secret["environment"] for secret in compose()["secrets"].values()}
    assert used == named.keys()
    secrets = {name for name in named if re.search("KEY|PASSWORD|TOKEN|URL", name)}
    assert secrets
    assert not any(named[name] for name in secrets), "the example holds no secret"


def test_secrets_are_variables_and_never_written() -> None:
    for _, environment in every("environment"):
        for name, value in environment.items():
            if re.search("KEY|PASSWORD|TOKEN", name):
                assert VARIABLE.fullmatch(value), name
    required = ("MOE_GATEWAY_KEYS", "GRAFANA_PASSWORD")
    assert all(f"${{{name}:?" in COMPOSE.read_text("utf-8") for name in required)
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "deploy/.env"], cwd=ROOT, check=False, timeout=30)
    assert ignored.returncode == 0


@pytest.mark.parametrize("profile", OVERLAYS)
def test_a_gateway_reads_the_file_of_its_profile_where_its_image_looks(profile: str) -> None:
    service, environment = services(profile)[GATEWAYS[profile]], image_environment()
    mounts = dict(mount.split(":")[:2] for mount in service["volumes"])
    found = {(DEPLOY / source).resolve(): target for source, target in mounts.items() if source.startswith(".")}
    assert found == {EXPERTS[profile].resolve(): environment["MOE_GATEWAY_CONFIG"]}
    assert mounts["gateway-state"] == environment["MOE_GATEWAY_STATE"]
    assert service["read_only"]
    assert service["ports"][0].rpartition(":")[2] == environment["MOE_GATEWAY_PORT"]


@pytest.mark.parametrize("profile", OVERLAYS)
def test_a_gateway_has_longer_to_end_than_it_drains(profile: str) -> None:
    service = services(profile)[GATEWAYS[profile]]
    drains = float(service["environment"]["MOE_GATEWAY_DRAIN_SECONDS"])
    assert drains == float(image_environment()["MOE_GATEWAY_DRAIN_SECONDS"])
    assert seconds(service["stop_grace_period"]) >= drains + 2 * MARGIN_SECONDS


def test_every_file_and_folder_that_is_mounted_is_there() -> None:
    sources = [mount.split(":")[0] for _, volumes in every("volumes") for mount in volumes]
    local = [source for source in sources if source.startswith(".")]
    assert len(local) >= 6
    assert not [source for source in local if not (DEPLOY / source).exists()]
    assert {source for source in sources if not source.startswith(".")} == compose()["volumes"].keys()
    for _, build in every("build"):
        assert (DEPLOY / build["context"]).resolve() == ROOT
        assert (DEPLOY / build["context"] / build["dockerfile"]).exists()


def test_every_worker_has_gpus_of_its_own() -> None:
    given: list[str] = []
    for worker in composed_workers("gpu"):
        [device] = worker.service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        assert len(device["device_ids"]) == int(worker.flag("tensor-parallel-size") or 1), worker.place
        given += device["device_ids"]
    assert sorted(given) == ["0", "1", "2", "3", "4"]
    assert not any("deploy" in worker.service for worker in composed_workers("cpu"))


def _configured(service: str, flag: str) -> str:
    [value] = [c.split("=", 1)[1] for c in compose()["services"][service]["command"] if c.startswith(f"--{flag}=")]
    return str(value)


@pytest.mark.parametrize("service", ["prometheus", "alertmanager"])
def test_a_configuration_is_where_it_is_looked_for(service: str) -> None:
    mounts = dict(mount.split(":")[:2] for mount in compose()["services"][service]["volumes"])
    folder, name = _configured(service, "config.file").rsplit("/", 1)
    [source] = [source for source, target in mounts.items() if target == folder]
    assert (DEPLOY / source / name).is_file()


def test_alertmanager_is_given_the_secret_that_its_file_reads() -> None:
    text = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text("utf-8")
    [name] = re.findall(r"_file: /run/secrets/(\w+)", text)
    assert compose()["services"]["alertmanager"]["secrets"] == [name]
    assert name in compose()["secrets"]


def _provisioned(kind: str) -> list[Document]:
    return [d for p in (DEPLOY / "grafana/provisioning" / kind).glob("*.yml") for d in documents(p.read_text("utf-8"))]


def test_grafana_asks_services_that_are_there() -> None:
    [file] = _provisioned("datasources")
    assert file["apiVersion"] == 1
    known = {f"http://{n}:{p}" for n, p in (("prometheus", 9090), ("alertmanager", 9093))}
    assert {source["url"] for source in file["datasources"]} == known
    assert [s["type"] for s in file["datasources"] if s.get("isDefault")] == ["prometheus"]
    for name in ("prometheus", "alertmanager"):
        published = [port.rpartition(":")[2] for port in compose()["services"][name]["ports"]]
        assert [f"http://{name}:{port}" in known for port in published] == [True]


def test_grafana_finds_dashboards_where_they_are_mounted() -> None:
    [file] = _provisioned("dashboards")
    mounts = dict(mount.split(":")[:2][::-1] for mount in compose()["services"]["grafana"]["volumes"])
    [provider] = file["providers"]
    assert (DEPLOY / mounts[provider["options"]["path"]]).is_dir()
    assert (DEPLOY / mounts["/etc/grafana/provisioning"]).is_dir()
