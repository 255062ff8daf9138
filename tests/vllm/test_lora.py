"""LoRA adapters as experts, on the workers of another expert."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.vllm.conftest import specialists_yaml
from tests.vllm.launching import PATIENCE, Launched, wait_for

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
MESSAGES = [{"role": "user", "content": "Describe the sea in a few words."}]
MATH = "What is the derivative of x^3 + 2x with respect to x? Show each step."
POET = """
  poet:
    model: smollm2
    domains: {general: 0.1}
    upstream: {worker: coder, adapter: {name: poet, path: POET}}
"""


def ask(gateway: Launched, expert: str) -> httpx.Response:
    body = {"model": expert, "messages": MESSAGES, "temperature": 0, "max_tokens": 12, "ignore_eos": True}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=120)


def said(gateway: Launched, expert: str, model: str) -> str:
    """The answer's text, by the model that it names."""
    answer = ask(gateway, expert)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-moe-expert"] == expert
    assert answer.headers["x-moe-model"] == answer.json()["model"] == model
    return str(answer.json()["choices"][0]["message"]["content"])


def test_an_adapter_answers_by_its_name_and_otherwise_than_its_model(specialists: Launched) -> None:
    base, adapted = said(specialists, "coder", "smollm2"), said(specialists, "mathematician", "mathematician")
    assert adapted != base
    assert said(specialists, "chats", "chats") == base  # one that changes nothing


def test_auto_streams_from_the_adapter_of_the_domain(specialists: Launched) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": MATH}], "max_tokens": 8, "stream": True}
    answer = httpx.post(f"{specialists.url}/v1/chat/completions", json=body, timeout=120)
    assert answer.headers["x-moe-expert"] == "mathematician"
    assert '"model":"mathematician"' in answer.text
    assert answer.text.rstrip().endswith("data: [DONE]")


def test_an_adapter_comes_and_goes_with_its_expert_and_no_worker_starts_anew(specialists: Launched) -> None:
    workers = [specialists.worker(f"coder-{i}") for i in range(2)]
    specialists.up_in_gateway("coder")
    text = specialists.config.read_text("utf-8")
    path = Path(specialists.config.parent / "poet")

    def lists() -> list[bool]:
        listed = [
            httpx.get(f"{worker.url}/models", headers=worker.headers, timeout=PATIENCE).json()["data"]
            for worker in workers
        ]
        return ["poet" in [model["id"] for model in models] for models in listed]

    assert lists() == [False, False]
    specialists.reload(specialists_yaml(POET.replace("POET", str(path))))
    wait_for("both workers to have loaded it", lambda: all(lists()), specialists.log)
    wait_for("the gateway to ask it", lambda: ask(specialists, "poet").status_code == 200, specialists.log)
    texts = {expert: said(specialists, expert, model) for expert, model in ADAPTED}
    assert len(set(texts.values())) == len(texts)
    specialists.reload(text)
    assert ask(specialists, "poet").status_code == 404
    wait_for("both workers to have unloaded it", lambda: not any(lists()), specialists.log)
    assert [specialists.worker(worker.name).keeper for worker in workers] == [worker.keeper for worker in workers]


ADAPTED = (("coder", "smollm2"), ("mathematician", "mathematician"), ("poet", "poet"))
