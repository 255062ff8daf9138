"""The files of deploy/, read, and the tools that check them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
DOCKERFILE = DEPLOY / "Dockerfile"
KUBERNETES = DEPLOY / "kubernetes"
PROMETHEUS = DEPLOY / "prometheus"
OVERLAYS = ("cpu", "gpu")
EXPERTS = {"cpu": DEPLOY / "experts.cpu.yaml", "gpu": DEPLOY / "experts.production.yaml"}
VLLM = "vllm/vllm-openai"  # the beginning of its images' names
TOOLS = ROOT / ".cache" / "prometheus" / "usr" / "bin"  # where tests/deploy/tools.sh puts them

Document = dict[str, Any]


def documents(text: str) -> list[Document]:
    """Those of a YAML stream, anchors and merges resolved."""
    return [document for document in YAML(typ="safe").load_all(text) if document is not None]


@cache
def compose() -> Document:
    return documents(COMPOSE.read_text("utf-8"))[0]


def services(profile: str) -> dict[str, Document]:
    """The services that `docker compose --profile` starts."""
    return {name: service for name, service in compose()["services"].items() if profile in service["profiles"]}


def address(name: str, service: Document) -> str:
    """The name that others ask it by."""
    networks: Document = service.get("networks", {})
    aliases: list[str] = networks.get("default", {}).get("aliases", [name])
    return aliases[0]


def no_kustomize() -> str:
    """Why kustomize cannot be run here; nothing where it can."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return "no kubectl here, which has kustomize in it"
    version = subprocess.run([kubectl, "version", "--client"], capture_output=True, text=True, check=False, timeout=60)
    return "" if re.search(r"Kustomize Version: v[5-9]", version.stdout) else "this kubectl's kustomize is older than 5"


@cache
def kustomized(overlay: str) -> tuple[Document, ...]:
    """The objects of an overlay as kustomize makes them."""
    made = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / "overlays" / overlay)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[:2000]
    return tuple(documents(made.stdout))


def of_kind(overlay: str, kind: str) -> dict[str, Document]:
    """The objects of one kind, by name."""
    return {d["metadata"]["name"]: d for d in kustomized(overlay) if d["kind"] == kind}


def container(deployment: Document) -> Document:
    found: list[Document] = deployment["spec"]["template"]["spec"]["containers"]
    assert len(found) == 1
    return found[0]


@dataclass(frozen=True)
class Worker:
    """A vLLM worker as a file starts it: `arguments` are those of `vllm serve`, `grace` the seconds from SIGTERM to SIGKILL."""

    place: str
    address: str
    image: str
    arguments: tuple[str, ...]
    environment: frozenset[str]
    grace: float
    service: Document = field(compare=False, hash=False)

    def flag(self, name: str) -> str | None:
        """What stands after `--name`, with = or as the next word; None where it does not stand there."""
        words = [word for argument in self.arguments for word in argument.split("=", 1)]
        return words[words.index(f"--{name}") + 1] if f"--{name}" in words else None


def composed_workers(profile: str) -> Iterator[Worker]:
    for name, service in services(profile).items():
        if service["image"].startswith(VLLM):
            yield Worker(
                f"compose.yaml: {name}", address(name, service), service["image"], tuple(service["command"]),
                frozenset(service["environment"]), seconds(service["stop_grace_period"]), service,
            )  # fmt: skip


def orchestrated_workers(overlay: str) -> Iterator[Worker]:
    for name, deployment in of_kind(overlay, "Deployment").items():
        pod, one = deployment["spec"]["template"]["spec"], container(deployment)
        if one["image"].startswith(VLLM):
            yield Worker(
                f"kubernetes/{overlay}: {name}", name, one["image"], tuple(one["args"]),
                frozenset(variable["name"] for variable in one["env"]), pod["terminationGracePeriodSeconds"], pod,
            )  # fmt: skip


@cache
def prometheus() -> Document:
    """Prometheus' configuration."""
    return documents((PROMETHEUS / "prometheus.yml").read_text("utf-8"))[0]


def scrape_jobs() -> dict[str, Document]:
    """What it asks for metrics, by name."""
    return {job["job_name"]: job for job in prometheus()["scrape_configs"]}


def seconds(written: str) -> float:
    """What a duration in a Compose file comes to."""
    units = {"h": 3600, "m": 60, "s": 1}
    return float(sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", written)))


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions, each a word and the rest, with lines that go on joined and comments left out."""
    lines = [line for line in DOCKERFILE.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined if line.strip()]


def instructions(word: str) -> list[str]:
    """What stands behind each of its instructions of one kind."""
    return [rest for name, rest in dockerfile() if name == word]


def image_environment() -> dict[str, str]:
    """The variables that the image sets in the end."""
    stage = [i for i, (word, _) in enumerate(dockerfile()) if word == "FROM"][-1]
    pairs = [pair for word, rest in dockerfile()[stage:] if word == "ENV" for pair in rest.split()]
    return dict(pair.split("=", 1) for pair in pairs)


def tool(name: str) -> str:
    """The path of prometheus, promtool, alertmanager or amtool; skips where there is none."""
    found = shutil.which(name) or shutil.which(name, path=str(TOOLS))
    if found is None:
        pytest.skip(f"no {name} here; where Debian's packages can be had, tests/deploy/tools.sh fetches it")
    return found
