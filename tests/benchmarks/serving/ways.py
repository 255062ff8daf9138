"""The ways to the mock upstream that are compared, and what is started for them."""

from __future__ import annotations

import json
import re
import socket
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.serving.bodies import body
from tests.benchmarks.serving.mock import CHUNKS, MODEL
from tests.benchmarks.serving.processes import NotUpError, Server, free_port, serving

STRAIGHT, PASS_THROUGH, AUTO, VLLM_ROUTER, LITELLM = "straight", "pass-through", "auto", "vllm-router", "litellm"
WAYS = (STRAIGHT, VLLM_ROUTER, PASS_THROUGH, AUTO, LITELLM)
TITLES = {
    STRAIGHT: "straight to the upstream",
    VLLM_ROUTER: "vllm-router 0.1.17",
    PASS_THROUGH: "moe-gateway, an expert by name",
    AUTO: "moe-gateway, auto",
    LITELLM: "LiteLLM proxy 1.106.2",
}
EXPERT = "general"
ROOT = Path(__file__).parents[3]
RIVALS = ROOT / ".venv-rivals"
EXPERTS = {
    "coder": {"code": 0.9, "math": 0.5},
    "mathematician": {"math": 0.9, "code": 0.5},
    "biologist": {"bio": 0.9},
    EXPERT: {"general": 0.9},
}
HERE: Mapping[str, str] = {"PYTHONPATH": str(ROOT)}
DECISIONS = re.compile(r'^moe_routing_decisions_total\{.*stage="([^"]+)".*\} ([0-9.e+]+)$', re.MULTILINE)


class BadAnswerError(Exception):
    """A way does not carry what it should, so that its speed says nothing."""


@dataclass(frozen=True)
class Way:
    """`server` is the process that is weighed, `model` what its requests name."""

    name: str
    model: str
    server: Server

    @property
    def url(self) -> str:
        return f"{self.server.url}/v1/chat/completions"

    def check(self, kind: str) -> None:
        """Raises BadAnswerError unless a request is answered whole."""
        asked = urllib.request.Request(self.url, body("What is a leaf?", self.model, kind).encode(), method="POST")
        asked.add_header("content-type", "application/json")
        asked.add_header("authorization", "Bearer none")
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                content = answer.read()
        except OSError as error:
            raise BadAnswerError(f"{self.name} does not answer: {error}") from None
        if kind == "json":
            whole = json.loads(content)["choices"][0]["finish_reason"] == "stop"
        else:
            # LiteLLM makes its own chunks and may join some; every word has to be there.
            whole = content.count(b'" word"') == CHUNKS - 2 and b"[DONE]" in content
        if not whole:
            raise BadAnswerError(f"{self.name} does not carry a whole answer ({kind}): {content[:300]!r}")


@contextmanager
def open_ways(names: Sequence[str], folder: Path) -> Iterator[list[Way]]:
    """The mock upstream and what the ways so named need. Raises NotUpError."""
    with ExitStack() as held:
        upstream = held.enter_context(mock(folder))
        opened: list[Way] = []
        gateway: Server | None = None
        for name in names:
            if name in (PASS_THROUGH, AUTO):
                gateway = gateway or held.enter_context(_gateway(upstream, folder))
                opened.append(Way(name, EXPERT if name == PASS_THROUGH else "auto", gateway))
            elif name == VLLM_ROUTER:
                opened.append(Way(name, MODEL, held.enter_context(_vllm_router(upstream, folder))))
            elif name == LITELLM:
                opened.append(Way(name, MODEL, held.enter_context(_litellm(upstream, folder))))
            else:
                opened.append(Way(name, MODEL, upstream))
        yield opened


def stages(way: Way) -> Counter[str]:
    """How many decisions each stage of the gateway's router made so far; those for an expert asked by name need none."""
    with urllib.request.urlopen(f"{way.server.url}/metrics", timeout=10) as answer:
        exposed = answer.read().decode()
    counted: Counter[str] = Counter()
    for stage, count in DECISIONS.findall(exposed):
        if stage != "none":
            counted[stage] += int(float(count))
    return counted


@contextmanager
def mock(folder: Path) -> Iterator[Server]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "tests.benchmarks.serving.mock", str(listener.fileno())]
        passed = [listener.fileno()]
        with serving(command, port, "/health", folder / "mock.log", environment=HERE, passed=passed) as server:
            yield server


@contextmanager
def _gateway(upstream: Server, folder: Path) -> Iterator[Server]:
    config, port = folder / "experts.yaml", free_port()
    config.write_text(experts_json(upstream.url), "utf-8")
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--port", str(port)]
    command += ["--state", str(folder / "state")]
    with serving(command, port, "/ready", folder / "gateway.log", environment=HERE) as server:
        yield server


@contextmanager
def _vllm_router(upstream: Server, folder: Path) -> Iterator[Server]:
    port = free_port()
    command = [_rival("vllm-router"), "--worker-urls", upstream.url, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--policy", "round_robin", "--prometheus-port", str(free_port()), "--log-level", "error"]
    with serving(command, port, "/health", folder / "vllm-router.log") as server:
        yield server


@contextmanager
def _litellm(upstream: Server, folder: Path) -> Iterator[Server]:
    config, port = folder / "litellm.yaml", free_port()
    parameters = {"model": f"openai/{MODEL}", "api_base": f"{upstream.url}/v1", "api_key": "none"}
    model = {"model_name": MODEL, "litellm_params": parameters}
    config.write_text(json.dumps({"model_list": [model], "litellm_settings": {"telemetry": False}}), "utf-8")
    command = [_rival("litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    unset = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "true"}
    with serving(command, port, "/health/liveliness", folder / "litellm.log", environment=unset) as server:
        yield server


def experts_json(upstream: str) -> str:
    """An experts.yaml whose four experts are the mock upstream."""
    known = {"version": 1, "router": {"confidence_floor": 0.55, "fallback": EXPERT}}
    price = {"input": 0.02, "output": 0.1}
    common = {"model": MODEL, "upstream": {"vllm": [f"{upstream}/v1"]}, "price": price, "context_window": 32768}
    return json.dumps(known | {"experts": {name: common | {"domains": domains} for name, domains in EXPERTS.items()}})


def _rival(program: str) -> str:
    path = RIVALS / "bin" / program
    if not path.exists():
        raise NotUpError(f"{program} is not installed; run: make rivals")
    return str(path)
