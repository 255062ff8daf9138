"""What the tests with real vLLM workers share, so that no worker is started twice without need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vllm.launching import SMOLLM2, VLLM, Launched, launch, launched, need_vllm
from tests.vllm.lora_maker import make_adapter
from tests.vllm.tiny_models import TinyModel, tiny_models


@pytest.fixture(scope="session")
def models() -> dict[str, TinyModel]:
    """The tiny models by name."""
    need_vllm()
    return tiny_models(VLLM / "bin" / "python")


@pytest.fixture(scope="session")
def specialists(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Two workers with SmolLM2, replicas of `coder`, which `mathematician` has an adapter on, and `chats` one that changes
    nothing; a stand-in for the rest.

    Workers may be on their way up after a test that ended one: who needs both asks for both.
    """
    need_vllm()
    folder = tmp_path_factory.mktemp("specialists")
    for seed, name in enumerate(("mathematician", "poet")):
        make_adapter(SMOLLM2, folder / name, seed)
    make_adapter(SMOLLM2, folder / "nothing", 0, scale=0)
    with launched(specialists_yaml(), folder) as gateway:
        yield gateway


def specialists_yaml(extra: str = "") -> str:
    """experts.yaml of the specialists; `extra` are further experts."""
    tools = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    workers = launch(SMOLLM2, *tools, "--max-loras", "4", "--max-lora-rank", "8", replicas=2)
    return f"""
version: 1
baseline: gpt-4o
router: {{fallback: general}}
experts:
  coder:
    model: smollm2
    domains: [code]
    upstream: {{launch: {workers}}}
    price: {{input: 1, output: 1}}
    context_window: 2048
    capabilities: [tools, json_schema]
    affinity: none
    fallbacks: [general]
  mathematician:
    model: smollm2
    domains: [math]
    upstream: {{worker: coder, adapter: {{name: mathematician, path: mathematician}}}}
    price: {{input: 1, output: 1}}
    fallbacks: [general]
  chats:
    model: smollm2
    domains: {{math: 0.5}}
    endpoints: [chat]
    upstream: {{worker: coder, adapter: {{name: chats, path: nothing}}}}
    price: {{input: 9, output: 9}}
    capabilities: [tools]
  general:
    model: SmolLM2-135M-Instruct
    domains: [general, bio]
    upstream: {{embedded: smollm2}}
    context_window: 4096
{extra}"""
