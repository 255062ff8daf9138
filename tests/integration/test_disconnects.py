"""A client that leaves frees the expert at once, in every phase, streamed or not."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.fakes.upstream import PATIENCE, Behaviour, FakeServer, chunk, endless, silent, streams, usage_chunk
from tests.integration.conftest import Running, Start, experts_yaml


def connect(gateway: Running, stream: bool, model: str = "one") -> socket.socket:
    """Send a request and leave the socket open."""
    body = json.dumps(
        {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Tell me a story"}]}
    ).encode()
    host, port = gateway.url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), timeout=PATIENCE)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    return client


@pytest.mark.parametrize(
    ("behaviour", "stream", "phase"),
    [(silent, False, "waiting"), (silent, True, "waiting"), (endless, True, "streaming")],
    ids=["waiting for a whole answer", "waiting for the first token", "in mid-stream"],
)
def test_a_client_that_leaves_frees_the_expert(
    start: Start, servers: list[FakeServer], behaviour: Behaviour, stream: bool, phase: str
) -> None:
    servers[0].behaviour = behaviour
    gateway = start(experts_yaml(*servers[:2]))
    client = connect(gateway, stream)
    assert servers[0].wait_until_asked()
    if phase == "streaming":
        received = b""
        while b"on and on" not in received:
            received += client.recv(4096)
    client.close()
    assert servers[0].wait_until_idle()
    assert gateway.settled("moe_client_disconnects_total", 1, endpoint="chat.completions", phase=phase)
    assert gateway.metric("moe_requests_total", code="499") == 1
    assert gateway.metric("moe_upstream_attempts_total", outcome="cancelled") == 1
    assert gateway.metric("moe_requests_in_flight") == 0
    assert gateway.state.pool.replicas["one"][0].failures == 0
    assert servers[1].requests == []


def test_a_client_that_leaves_with_the_whole_answer_is_no_disconnect(start: Start, servers: list[FakeServer]) -> None:
    events = (chunk({"content": "all of it"}), chunk({}, "stop"), usage_chunk(), b"data: [DONE]\n\n")
    servers[0].behaviour = streams(*events, then="hang")
    gateway = start(experts_yaml(servers[0]))
    client = connect(gateway, stream=True)
    received = b""
    while b"[DONE]" not in received:
        received += client.recv(4096)
    client.close()
    assert gateway.settled("moe_requests_total", 1, code="200")
    assert gateway.metric("moe_upstream_attempts_total", outcome="ok") == 1
    assert gateway.metric("moe_client_disconnects_total") == 0
    assert gateway.metric("moe_cost_usd_total") > 0
    assert servers[0].wait_until_idle()


def test_a_client_that_leaves_while_it_sends_its_body_is_counted_and_asks_nobody(
    start: Start, servers: list[FakeServer]
) -> None:
    gateway = start(experts_yaml(servers[0]))
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
        time.sleep(0.1)
    assert gateway.settled("moe_client_disconnects_total", 1, phase="routing")
    assert servers[0].requests == []


def test_a_slow_reader_holds_back_the_expert_and_the_gateway_does_not_hoard(
    start: Start, servers: list[FakeServer]
) -> None:
    import psutil

    sent = 0

    async def flood(server: FakeServer, request, body):  # type: ignore[no-untyped-def]
        nonlocal sent
        from tests.fakes.upstream import _begin, chunk

        response = await _begin(request)
        piece = chunk({"content": "x" * 50_000})
        for _ in range(4000):  # 200 MB if nobody holds it back
            await response.write(piece)
            sent += len(piece)
        return response

    servers[0].behaviour = flood
    gateway = start(experts_yaml(servers[0]))
    before = psutil.Process().memory_info().rss
    client = connect(gateway, stream=True)
    until = time.monotonic() + PATIENCE
    while not sent and time.monotonic() < until:
        time.sleep(0.01)
    before_that = 0
    while sent > before_that:  # until nothing more was taken from it for a while
        before_that = sent
        time.sleep(0.5)
    assert 0 < sent < 100_000_000
    assert psutil.Process().memory_info().rss - before < 100_000_000
    client.close()
    assert servers[0].wait_until_idle()
