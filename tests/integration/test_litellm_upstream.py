"""Whole rounds through a gateway whose experts are providers behind litellm, one of OpenAI's dialect and one of Anthropic's."""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.fakes.providers import TOOL, FakeProvider, claude, fake_provider, loaded, tool_chunks
from tests.fakes.upstream import PATIENCE, Behaviour, FakeServer, chunk, endless, fake_server, silent, status, streams
from tests.integration.conftest import PATIENT, Running, Start

KEY = "sk-of-the-operator"
CODE = [{"role": "user", "content": "Write a Python function that reverses a linked list."}]
MATH = [{"role": "user", "content": "Integrate x squared times the sine of x from 0 to pi, step by step."}]

pytestmark = pytest.mark.filterwarnings(
    "ignore:Pydantic serializer warnings",
    "ignore::pydantic.PydanticDeprecatedSince211",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(scope="module", autouse=True)
def _library() -> Iterator[None]:
    """litellm before the first gateway, whose start is waited for 10 s only; and nothing of it left for other tests."""
    loaded()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture
def providers() -> Iterator[tuple[FakeProvider, FakeProvider]]:
    with fake_provider() as coder, fake_provider(claude) as mathematician:
        yield coder, mathematician


@pytest.fixture
def running(start: Start, providers: tuple[FakeProvider, FakeProvider], monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setenv("PROVIDER_KEY", KEY)
    coder, mathematician = providers
    return start(experts(coder.url, mathematician.root))


def experts(coder: str, mathematician: str, more: str = "", timeouts: str = PATIENT) -> str:
    return f"""
version: 1
experts:
  coder:
    model: a-coder
    domains: {{code: 0.9}}
    upstream: {{litellm: hosted_vllm/a-coder, base_url: "{coder}", api_key: "${{PROVIDER_KEY}}"}}
    price: {{input: 1.0, cached_input: 0.5, output: 2.0}}
    capabilities: [tools]
    timeouts: {timeouts}
    {more}
  mathematician:
    model: claude
    domains: {{math: 0.9, general: 0.6}}
    upstream: {{litellm: anthropic/claude-3-5-sonnet-20241022, base_url: "{mathematician}", api_key: "${{PROVIDER_KEY}}"}}
    price: {{input: 3.0, output: 15.0}}
    capabilities: [tools]
"""


def client(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0)


@pytest.mark.parametrize(("messages", "expert"), [(CODE, "coder"), (MATH, "mathematician")])
def test_auto_finds_the_expert_and_its_answer_is_accounted(running: Running, messages: Any, expert: str) -> None:
    raw = client(running).chat.completions.with_raw_response.create(model="auto", messages=messages)
    answer = raw.parse()
    assert raw.headers["x-moe-expert"] == expert
    assert answer.choices[0].message.content == "Hello wörld"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 4)
    assert running.settled("moe_tokens_total", 4, expert=expert, kind="output")
    assert running.metric("moe_upstream_attempts_total", expert=expert, replica=f"{expert}-0", outcome="ok") == 1


@pytest.mark.parametrize(("messages", "expert"), [(CODE, "coder"), (MATH, "mathematician")])
@pytest.mark.parametrize("asked", [False, True])
def test_auto_streams_with_usage_for_who_asked(running: Running, messages: Any, expert: str, asked: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if asked else {}
    with client(running).chat.completions.create(model="auto", messages=messages, stream=True, **options) as stream:
        chunks = list(stream)
    assert "".join(part.choices[0].delta.content or "" for part in chunks if part.choices) == "Hello wörld"
    assert [part.choices[0].finish_reason for part in chunks if part.choices][-1] == "stop"
    assert [part.usage.completion_tokens for part in chunks if part.usage] == ([4] if asked else [])
    assert running.settled("moe_tokens_total", 4, expert=expert, kind="output")
    assert running.settled("moe_tokens_total", 3, expert=expert, kind="cached_input")


def test_a_tool_is_called_and_answered(running: Running, providers: tuple[FakeProvider, FakeProvider]) -> None:
    calls = client(running).chat.completions
    tools: Any = [TOOL]
    first = calls.create(model="mathematician", messages=MATH, tools=tools)  # type: ignore[arg-type]
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls is not None
    call = message.tool_calls[0]
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Øl"}
    answered: Any = [
        *MATH,
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    last = calls.create(model="mathematician", messages=answered, tools=tools)
    assert last.choices[0].message.content == "Hello wörld"
    assert "tool_result" in json.dumps(providers[1].requests[-1])


def test_a_tool_call_is_streamed(running: Running, providers: tuple[FakeProvider, FakeProvider]) -> None:
    providers[0].behaviour = streams(*tool_chunks())
    for expert in ("coder", "mathematician"):
        with client(running).chat.completions.stream(model=expert, messages=CODE, tools=[TOOL]) as stream:  # type: ignore[arg-type, list-item]
            final = stream.get_final_completion()
        called = final.choices[0].message.tool_calls
        assert called
        assert called[0].function.name == "weather"
        assert json.loads(called[0].function.arguments) == {"city": "Øl"}


def test_anthropics_clients_are_served_by_any_of_them(running: Running) -> None:
    body = {"model": "coder", "max_tokens": 50, "messages": CODE}
    answer = httpx.post(f"{running.url}/v1/messages", json=body, timeout=PATIENCE)
    assert answer.status_code == 200
    assert answer.json()["content"][0]["text"] == "Hello wörld"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (status(500), "server_error"),
        (status(401), "rejected"),
        (status(429), "rejected"),
        (streams(then="cut"), "truncated"),
        (silent, "timeout"),
    ],
)
def test_a_failing_provider_is_replaced_by_another(
    start: Start,
    providers: tuple[FakeProvider, FakeProvider],
    monkeypatch: pytest.MonkeyPatch,
    behaviour: Behaviour,
    outcome: str,
    stream: bool,
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", KEY)
    coder, mathematician = providers
    brief = PATIENT.replace("first_byte: 60s", "first_byte: 2s").replace("total: 100s", "total: 2s")
    timeouts = brief if outcome == "timeout" else PATIENT
    running = start(experts(coder.url, mathematician.root, timeouts=timeouts))
    coder.behaviour = behaviour
    body = {"model": "auto", "messages": CODE, "stream": stream}
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=PATIENCE)
    assert answer.status_code == 200
    assert answer.headers["x-moe-expert"] == "mathematician"
    assert running.metric("moe_upstream_attempts_total", expert="coder", outcome=outcome) == 1
    assert len(providers[0].requests) == 1


@pytest.mark.parametrize("code", [400, 401, 422, 429, 500, 503])
def test_what_a_client_gets_holds_neither_key_nor_address(
    running: Running, providers: tuple[FakeProvider, FakeProvider], code: int
) -> None:
    for provider in providers:
        leak = f"the key {KEY} was refused by {provider.root}"
        provider.behaviour = status(code, {"error": {"type": "x", "message": leak}}, {"retry-after": "7"})
    answer = httpx.post(
        f"{running.url}/v1/chat/completions", json={"model": "coder", "messages": CODE}, timeout=PATIENCE
    )
    assert answer.status_code == {401: 502, 500: 502}.get(code, code)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert KEY not in answer.text
    assert "127.0.0.1" not in answer.text
    if code == 429:
        assert answer.headers["retry-after"] == "7"


def test_a_client_that_leaves_frees_the_provider(
    running: Running, providers: tuple[FakeProvider, FakeProvider]
) -> None:
    providers[0].behaviour = endless
    body = {"model": "coder", "messages": CODE, "stream": True}
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, timeout=PATIENCE) as answer:
        next(answer.iter_bytes())
        assert providers[0].open == 1
    assert providers[0].wait_until_idle()
    assert running.settled("moe_requests_in_flight", 0, expert="coder")


def test_a_stream_that_breaks_off_is_told_to_the_client(
    running: Running, providers: tuple[FakeProvider, FakeProvider]
) -> None:
    providers[0].behaviour = streams(chunk({"role": "assistant", "content": "Hel"}), chunk({"content": "lo"}))
    body = {"model": "coder", "messages": CODE, "stream": True}
    text = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=PATIENCE).text
    assert "upstream_truncated" in text
    assert "[DONE]" not in text
    assert '"finish_reason":"stop"' not in text


def test_beside_an_expert_on_vllm(
    start: Start, providers: tuple[FakeProvider, FakeProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", KEY)
    with fake_server() as vllm:
        text = experts(providers[0].url, providers[1].root, "fallbacks: [local]")
        running = start(text + _local(vllm))
        providers[0].behaviour = status(503)
        answer = httpx.post(
            f"{running.url}/v1/chat/completions", json={"model": "auto", "messages": CODE}, timeout=PATIENCE
        )
        assert answer.headers["x-moe-expert"] == "local"
        assert KEY not in json.dumps(vllm.headers)


def _local(server: FakeServer) -> str:
    return f"  local:\n    model: local\n    domains: {{bio: 0.5}}\n    upstream: {{vllm: [{server.url}]}}\n"
