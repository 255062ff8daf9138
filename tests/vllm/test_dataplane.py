"""What applications send, through the gateway to a real vLLM: endpoints, tools, schemas, and leaving in every phase."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.integration.conftest import metric
from tests.vllm.launching import PATIENCE, Launched, wait_for

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "name": "weather",
    "description": "Today's weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def http(specialists: Launched) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=specialists.url, timeout=120) as client:
        yield client


def events(response: httpx.Response) -> list[str]:
    return [line.removeprefix("event: ") for line in response.text.splitlines() if line.startswith("event: ")]


def test_every_endpoint_that_vllm_lists_is_found_and_served(http: httpx.Client) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("chat/completions", {"messages": FRANCE, "max_tokens": 4, "n": 2, "logprobs": True}),
        ("completions", {"prompt": [1, 2, 3], "max_tokens": 4, "echo": True, "logprobs": 1}),
        ("responses", {"input": "What is the capital of France?", "max_output_tokens": 8}),
        ("messages", {"messages": FRANCE, "max_tokens": 4}),
        ("messages/count_tokens", {"messages": FRANCE}),
    ]
    for path, body in asked:
        answer = http.post(f"/v1/{path}", json={"model": "coder", **body})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-moe-expert"] == "coder"
        assert float(answer.headers["x-moe-cost-usd"]) > 0 or path.endswith("count_tokens")
    refused = http.post("/v1/embeddings", json={"model": "coder", "input": "hi"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_endpoint")
    lost = http.post("/v1/responses", json={"model": "coder", "input": "hi", "previous_response_id": "resp_1"})
    assert (lost.status_code, lost.json()["error"]["param"]) == (400, "previous_response_id")


def test_streams_of_the_other_dialects_end_well_and_are_counted(http: httpx.Client, specialists: Launched) -> None:
    def output() -> float:
        return metric(
            httpx.get(f"{specialists.url}/metrics", timeout=PATIENCE).text,
            "moe_tokens_total",
            expert="coder",
            kind="output",
        )

    before = output()
    response = http.post(
        "/v1/responses", json={"model": "coder", "input": "Hi", "max_output_tokens": 5, "stream": True}
    )
    assert events(response)[0] == "response.created"
    assert events(response)[-1] in ("response.completed", "response.incomplete")
    body = {"model": "coder", "messages": FRANCE, "max_tokens": 5, "stream": True}
    message = http.post("/v1/messages", json=body)
    assert (events(message)[0], events(message)[-1]) == ("message_start", "message_stop")
    assert output() - before == 10


def test_a_message_to_an_expert_that_only_chats_reads_as_vllm_s_own(http: httpx.Client) -> None:
    body = {"messages": FRANCE, "max_tokens": 8, "temperature": 0, "system": "You are a helpful assistant."}
    own, translated = (http.post("/v1/messages", json={"model": m, **body}).json() for m in ("coder", "chats"))
    assert translated["content"] == own["content"]
    assert translated["stop_reason"] == own["stop_reason"]
    assert translated["usage"]["output_tokens"] == own["usage"]["output_tokens"]
    counts = [http.post("/v1/messages/count_tokens", json={"model": m, "messages": FRANCE}) for m in ("coder", "chats")]
    assert counts[0].json()["input_tokens"] == counts[1].json()["input_tokens"]
    stream = http.post("/v1/messages", json={"model": "chats", "stream": True, **body})
    assert events(stream)[0] == "message_start"
    assert events(stream)[-2:] == ["message_delta", "message_stop"]


@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_called_in_both_dialects(http: httpx.Client, stream: bool) -> None:
    asks = [{"role": "user", "content": "What is the weather in Paris?"}]
    tool = {"type": "function", "function": {**WEATHER, "strict": True}}
    chat = {"model": "auto", "messages": asks, "tools": [tool], "tool_choice": "required", "max_tokens": 60}
    answer = http.post("/v1/chat/completions", json={**chat, "stream": stream})
    assert answer.status_code == 200, answer.text
    assert '"weather"' in answer.text
    spec = {"name": "weather", "input_schema": WEATHER["parameters"], "strict": True}
    body = {"model": "chats", "messages": asks, "tools": [spec], "tool_choice": {"type": "any"}, "max_tokens": 60}
    message = http.post("/v1/messages", json={**body, "stream": stream})
    assert message.status_code == 200, message.text
    if stream:
        assert '"tool_use"' in message.text
        assert "input_json_delta" in message.text
    else:
        (call,) = [block for block in message.json()["content"] if block["type"] == "tool_use"]
        assert call["name"] == "weather"
        assert call["input"]["city"] in ("Paris", "Rome")
        assert message.json()["stop_reason"] == "tool_use"


def test_a_schema_is_kept(http: httpx.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    body = {"model": "auto", "messages": FRANCE, "response_format": form, "max_tokens": 40}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.headers["x-moe-expert"] == "coder"  # the only one that can
    assert set(json.loads(answer.json()["choices"][0]["message"]["content"])) == {"yes"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_the_engine_whatever_it_waits_for(specialists: Launched, stream: bool) -> None:
    body = {"model": "coder", "max_tokens": 1500, "ignore_eos": True, "stream": stream, "messages": FRANCE}
    before = specialists.generated()
    with (
        httpx.Client(timeout=httpx.Timeout(60, read=60 if stream else 3)) as client,
        suppress(httpx.ReadTimeout),
        client.stream("POST", f"{specialists.url}/v1/chat/completions", json=body) as response,
    ):
        chunks = response.iter_bytes()  # held: the response is closed with it
        next(chunks)
        assert specialists.running() == 1
    wait_for("the engine to be free", lambda: specialists.running() == 0, specialists.log, seconds=30)
    assert 0 < specialists.generated() - before < 1500
