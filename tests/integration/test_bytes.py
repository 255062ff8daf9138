"""What the expert sends is what the client gets: byte for byte, less the usage chunk that it did not ask for."""

from __future__ import annotations

import httpx
import pytest

from tests.fakes.dialects import CHAT
from tests.fakes.upstream import FakeServer, chunk, streams, usage_chunk
from tests.integration.conftest import Start, experts_yaml


def stream_of(url: str, **body: object) -> httpx.Response:
    request = {"model": "one", "messages": [{"role": "user", "content": "Write a haiku"}], "stream": True, **body}
    return httpx.post(f"{url}{CHAT.path}", json=request, timeout=20)


def test_the_usage_chunk_reaches_only_those_who_asked_for_it(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]))
    plain = stream_of(gateway.url)
    asked = stream_of(gateway.url, stream_options={"include_usage": True})
    assert all(request["stream_options"]["include_usage"] is True for request in servers[0].requests)
    assert "usage" not in plain.text
    assert usage_chunk().decode() in asked.text
    assert gateway.settled("moe_tokens_total", 2 * (11 - 3), expert="one", kind="input")
    assert gateway.metric("moe_tokens_total", expert="one", kind="cached_input") == 2 * 3
    assert gateway.metric("moe_tokens_total", expert="one", kind="output") == 2 * 4
    cost = 2 * (8 * 1.0 + 3 * 0.5 + 4 * 2.0) / 1e6
    assert gateway.metric("moe_cost_usd_total", expert="one") == pytest.approx(cost, abs=1e-12)


def test_an_answer_arrives_byte_for_byte(start: Start, servers: list[FakeServer]) -> None:
    events = (
        b": a comment\r\n\r\n",
        CHAT.begin,
        chunk({"reasoning_content": "hm"}),
        chunk({"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": '{"usage":1}'}}]}),
        'data: {"choices":[{"index":0,"delta":{"content":"日本語 \\"usage\\": {"},"x_unknown":1.50}]}\n\n'.encode(),
        chunk({}, "stop"),
        CHAT.done,
    )
    servers[0].behaviour = streams(*events)
    response = stream_of(start(experts_yaml(servers[0])).url)
    assert response.content == b"".join(events)
    assert "secret-host" not in str(response.headers)
