"""The main job with a real vLLM worker as the `code` expert, the others still stand-ins."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI

from tests.integration.conftest import ROOT, Command, metric, serve
from tests.vllm.conftest import VllmWorker

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]
CODE = "Implement quicksort in C++ and explain how to call it from a test."
BIO = "How do the kidneys regulate blood pressure?"


@pytest.fixture(scope="module")
def gateway(vllm_worker: VllmWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    folder = tmp_path_factory.mktemp("vllm-gateway")
    text = (ROOT / "experts.yaml").read_text("utf-8")
    text = text.replace("model: SmolLM2-135M-Instruct", "model: smollm2", 1)
    text = text.replace("upstream: {embedded: smollm2}", f"upstream: {{vllm: [{vllm_worker.url}]}}", 1)
    text = text.replace("context_window: 4096", "context_window: 2048", 1)
    config = folder / "experts.yaml"
    config.write_text(text, "utf-8")
    with serve("--config", str(config)) as command:
        yield command


@pytest.fixture
def client(gateway: Command) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_auto_streams_code_from_vllm_and_the_rest_from_the_stand_ins(
    client: OpenAI, gateway: Command, vllm_worker: VllmWorker
) -> None:
    served = vllm_worker.metric("vllm:generation_tokens_total")
    for prompt, expert, model in ((CODE, "coder", "smollm2"), (BIO, "biologist", "SmolLM2-135M-Instruct")):
        with client.chat.completions.with_streaming_response.create(
            model="auto", messages=[{"role": "user", "content": prompt}], stream=True, max_tokens=24
        ) as response:
            assert response.headers["x-moe-expert"] == expert
            assert response.headers["x-moe-model"] == model
            lines = [line for line in response.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        assert sum('"content":"' in line for line in lines) > 10
        assert "usage" not in "".join(lines)
    assert vllm_worker.metric("vllm:generation_tokens_total") - served == 24
    text = httpx.get(f"{gateway.url}/metrics").text
    assert metric(text, "moe_tokens_total", expert="coder", kind="output") == 24
    assert metric(text, "moe_cost_usd_total", expert="coder") > 0
    assert metric(text, "moe_baseline_cost_usd_total", baseline="gpt-4o") > 0  # no stand-in any more
    assert httpx.get(f"{gateway.url}/health").json()["stand_ins"] == ["mathematician", "biologist", "general"]


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


def test_a_client_that_leaves_frees_the_engine(client: OpenAI, vllm_worker: VllmWorker) -> None:
    stream = client.chat.completions.create(
        model="coder",
        messages=[{"role": "user", "content": "Write a very long story."}],
        stream=True,
        max_tokens=1500,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    assert vllm_worker.metric("vllm:num_requests_running") == 1
    stream.close()
    assert vllm_worker.settles_at("vllm:num_requests_running", 0)


def test_a_prompt_beyond_vllms_window_goes_to_a_larger_one_and_beyond_all_is_the_experts_own_400(
    client: OpenAI,
) -> None:
    def ask(words: int) -> httpx.Response:
        messages = [{"role": "user", "content": "ab " * words}]
        body = {"model": "coder", "max_tokens": 4, "messages": messages}
        return httpx.post(f"{client.base_url}chat/completions", json=body, timeout=300)

    assert ask(2500).headers["x-moe-expert"] == "general"
    overflow = ask(5000)
    assert overflow.status_code == 400
    assert "context" in overflow.json()["error"]["message"]


def test_a_worker_that_drains_ends_what_it_runs_takes_nothing_new_and_then_the_fallback_answers(
    client: OpenAI, gateway: Command, vllm_worker: VllmWorker
) -> None:
    def ask() -> str:
        raw = client.chat.completions.with_raw_response.create(
            model="auto", messages=[{"role": "user", "content": CODE}], max_tokens=8
        )
        assert raw.parse().choices[0].message.content
        return str(raw.headers["x-moe-expert"])

    assert ask() == "coder"
    stream = client.chat.completions.create(
        model="coder", messages=[{"role": "user", "content": "Count."}], stream=True, max_tokens=60
    )
    chunks = iter(stream)
    next(chunks)
    vllm_worker.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert ask() == "general"  # while /health says that all is well
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("length", "stop")
    (replica,) = httpx.get(f"{gateway.url}/admin/experts").json()["coder"]["replicas"]
    assert replica["state"] in ("draining", "down")
    vllm_worker.process.wait(30)
    assert ask() == "general"
