"""The main job: each prompt to the right one of real vLLM workers that the gateway launched, a stand-in for the rest."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI

from tests.integration.conftest import metric
from tests.vllm.launching import PATIENCE, Launched, wait_for

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
CODE = "Implement quicksort in C++ and explain how to call it from a test."
MATH = "What is the derivative of x^3 + 2x with respect to x? Show each step."
BIO = "How do the kidneys regulate blood pressure?"


@pytest.fixture
def client(specialists: Launched) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{specialists.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_auto_streams_code_and_math_from_vllm_and_the_rest_from_the_stand_in(
    client: OpenAI, specialists: Launched
) -> None:
    def told(name: str, **labels: str) -> float:
        return metric(httpx.get(f"{specialists.url}/metrics", timeout=PATIENCE).text, name, **labels)

    workers = [specialists.worker(f"coder-{i}") for i in range(2)]
    served = sum(worker.metric("vllm:generation_tokens_total") for worker in workers)
    written = told("moe_tokens_total", expert="coder", kind="output")
    asked = (
        (CODE, "coder", "smollm2"),
        (MATH, "mathematician", "mathematician"),
        (BIO, "general", "SmolLM2-135M-Instruct"),
    )
    for prompt, expert, model in asked:
        with client.chat.completions.with_streaming_response.create(
            model="auto",
            messages=[{"role": "user", "content": prompt}],
            stream=True,
            max_tokens=24,
            extra_body={"ignore_eos": True},
        ) as response:
            assert response.headers["x-moe-expert"] == expert
            assert response.headers["x-moe-model"] == model
            lines = [line for line in response.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        assert sum('"content":"' in line for line in lines) > 10
        assert '"usage":' not in "".join(lines)
    assert sum(worker.metric("vllm:generation_tokens_total") for worker in workers) - served == 48
    assert told("moe_tokens_total", expert="coder", kind="output") - written == 24
    assert told("moe_cost_usd_total", expert="coder") > 0
    assert told("moe_baseline_cost_usd_total", baseline="gpt-4o") > 0
    assert httpx.get(f"{specialists.url}/health", timeout=PATIENCE).json()["stand_ins"] == ["general"]


def test_a_whole_answer_from_vllm_is_what_the_model_says(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="coder",
        messages=[
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "What is the capital of France?"},
        ],
        temperature=0,
        max_tokens=12,
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_a_client_that_leaves_frees_the_engine(client: OpenAI, specialists: Launched) -> None:
    stream = client.chat.completions.create(
        model="coder",
        messages=[{"role": "user", "content": "Write a very long story."}],
        stream=True,
        max_tokens=1500,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    assert specialists.running() == 1
    stream.close()
    wait_for("the engine to be free", lambda: specialists.running() == 0, specialists.log, seconds=30)


def test_a_prompt_beyond_vllms_window_goes_to_a_larger_one_and_beyond_all_is_the_experts_own_400(
    client: OpenAI,
) -> None:
    def ask(words: int) -> httpx.Response:
        messages = [{"role": "user", "content": "ab " * words}]
        body = {"model": "coder", "max_tokens": 4, "messages": messages}
        return httpx.post(f"{client.base_url}chat/completions", json=body, timeout=300)

    assert ask(2100).headers["x-moe-expert"] == "general"
    overflow = ask(5000)
    assert overflow.status_code == 400
    assert "context" in overflow.json()["error"]["message"]
