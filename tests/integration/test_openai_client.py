"""The official OpenAI client against the gateway that `make serve` starts: real language model, trained router."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.fakes.upstream import PATIENCE
from tests.integration.conftest import Command, metric, serve

PROMPTS = {
    "coder": "My Python script raises KeyError when the JSON has no such field, how do I fix it?",
    "mathematician": "Find the derivative of x^3 * ln(x) and evaluate it at x = 1.",
    "biologist": "Which organelle makes ATP in animal cells, and how does it get its energy?",
    "general": "Write a polite letter to my landlord asking to repaint the hallway.",
}


@pytest.fixture
def client(default_gateway: Command) -> OpenAI:
    return OpenAI(base_url=f"{default_gateway.url}/v1", api_key="any")


@pytest.mark.parametrize(("expert", "prompt"), PROMPTS.items())
def test_auto_streams_a_real_answer_of_the_expert_that_fits(client: OpenAI, expert: str, prompt: str) -> None:
    messages: Any = [{"role": "user", "content": prompt}]
    with client.chat.completions.with_streaming_response.create(
        model="auto", messages=messages, stream=True, max_tokens=24, temperature=0
    ) as response:
        headers = response.headers
        chunks: list[Any] = list(response.parse())
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(text.split()) > 3
    assert len(chunks) > 10
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert headers["x-moe-expert"] == expert
    assert headers["x-moe-model"] == "SmolLM2-135M-Instruct"
    assert 0 < float(headers["x-moe-confidence"]) <= 1
    assert headers["x-moe-stage"] in ("static", "transformer")
    assert headers["x-moe-attempts"] == "1"
    assert float(headers["x-moe-route-ms"]) > 0
    assert headers["x-request-id"]


def test_a_whole_answer_has_usage_and_its_cost_in_the_header(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": "Name three planets."}], max_tokens=16
    )
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.model == "SmolLM2-135M-Instruct"
    assert answer.usage is not None
    price = 0.02 * answer.usage.prompt_tokens + 0.10 * answer.usage.completion_tokens
    assert float(raw.headers["x-moe-cost-usd"]) == pytest.approx(price / 1e6, abs=1e-8)


def test_usage_ends_the_stream_exactly_when_asked_for(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Say hi."}]
    cases: list[tuple[Any, int]] = [({}, 0), ({"stream_options": {"include_usage": True}}, 1)]
    for options, expected in cases:
        chunks = list(
            client.chat.completions.create(model="auto", messages=messages, stream=True, max_tokens=4, **options)
        )
        assert sum(chunk.usage is not None for chunk in chunks) == expected


async def test_the_async_client_works_too(default_gateway: Command) -> None:
    async with AsyncOpenAI(base_url=f"{default_gateway.url}/v1", api_key="any") as client:
        stream = await client.chat.completions.create(
            model="coder", messages=[{"role": "user", "content": "print hello in C"}], stream=True, max_tokens=8
        )
        assert [chunk async for chunk in stream]


def test_an_expert_can_be_named_and_an_alias_used(client: OpenAI) -> None:
    for model, reason in (("biologist", "pinned"), ("gpt-4o-mini", None)):
        raw = client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": "hello there"}], max_tokens=4
        )
        assert raw.headers["x-moe-expert"] in ("biologist", "general")
        if reason:
            assert raw.headers["x-moe-reason"] == reason
            assert raw.headers["x-moe-stage"] == "none"


def test_models_lists_auto_first(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == "auto"
    assert {"coder", "mathematician", "biologist", "general", "gpt-4o-mini"} < set(names)
    assert client.models.retrieve("coder").id == "coder"


def test_errors_become_the_clients_own_exceptions(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="Did you mean 'coder'"):
        client.chat.completions.create(model="codr", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError, match="messages is empty"):
        client.chat.completions.create(model="auto", messages=[])
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")


def test_cost_and_latency_are_on_metrics(client: OpenAI, default_gateway: Command) -> None:
    before = httpx.get(f"{default_gateway.url}/metrics", timeout=PATIENCE).text
    list(
        client.chat.completions.create(
            model="general", messages=[{"role": "user", "content": "hi"}], stream=True, max_tokens=6, temperature=0
        )
    )
    after = httpx.get(f"{default_gateway.url}/metrics", timeout=PATIENCE).text
    until = time.monotonic() + PATIENCE  # the client leaves behind [DONE]: the books are closed when that is noticed
    requests = {"expert": "general", "endpoint": "chat.completions"}
    while (
        metric(after, "moe_requests_total", **requests) == metric(before, "moe_requests_total", **requests)
        and time.monotonic() < until
    ):
        time.sleep(0.05)
        after = httpx.get(f"{default_gateway.url}/metrics", timeout=PATIENCE).text
    for name in (
        "moe_requests_total",
        "moe_tokens_total",
        "moe_cost_usd_total",
        "moe_request_duration_seconds_count",
        "moe_time_to_first_token_seconds_count",
        "moe_time_per_output_token_seconds_count",
        "moe_upstream_attempts_total",
    ):
        assert metric(after, name, expert="general") > metric(before, name, expert="general"), name
    assert metric(after, "moe_baseline_cost_usd_total") == 0  # stand-ins save nothing


def test_it_says_plainly_that_the_experts_are_stand_ins(default_gateway: Command) -> None:
    health = httpx.get(f"{default_gateway.url}/health", timeout=PATIENCE).json()
    assert set(health["stand_ins"]) == {"coder", "mathematician", "biologist", "general"}
    assert "not to judge" in health["note"]
    assert "stand-in" in "".join(default_gateway.screen)


def test_route_gives_the_decision_without_the_generation(default_gateway: Command) -> None:
    for body in (
        {"input": PROMPTS["coder"]},
        {"model": "auto", "messages": [{"role": "user", "content": PROMPTS["coder"]}]},
    ):
        response = httpx.post(f"{default_gateway.url}/v1/route", json=body, timeout=PATIENCE)
        decision = response.json()
        assert response.headers["x-moe-expert"] == decision["expert"] == "coder"
        assert sum(decision["probabilities"].values()) == pytest.approx(1, abs=0.001)
        assert {e["id"] for e in decision["experts"]} == {"coder", "mathematician", "biologist", "general"}
        assert decision["stage"] in ("static", "transformer")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not say what a process has loaded")
def test_what_tells_languages_is_loaded_before_the_first_request(tmp_path: Path) -> None:
    with serve("--state", str(tmp_path)) as gateway:
        loaded = Path(f"/proc/{gateway.process.pid}/maps").read_text("utf-8")
    assert "fasttext" in loaded
