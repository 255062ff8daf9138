"""What an upstream's failure does, row by row of the table in INTERFACE: over real HTTP, seen from the client."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest

from tests.fakes.upstream import (
    WORDS,
    Behaviour,
    FakeServer,
    chunk,
    silent,
    status,
    streams,
    usage_chunk,
    well,
)
from tests.integration.conftest import Start, experts_yaml

ROLE = chunk({"role": "assistant", "content": ""})
ERROR = b'data: {"error": {"message": "EngineCore at 10.1.2.3 died", "type": "InternalServerError", "code": 500}}\n\n'


def ask(url: str, **body: Any) -> httpx.Response:
    request = {"model": "auto", "messages": [{"role": "user", "content": "Write a haiku about autumn"}], **body}
    return httpx.post(f"{url}/v1/chat/completions", json=request, timeout=20)


def said(response: httpx.Response) -> str:
    """The text of an answer, streamed or whole."""
    if "event-stream" not in response.headers["content-type"]:
        return str(response.json()["choices"][0]["message"]["content"])
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: ") and line != "data: [DONE]"]
    deltas = [c["delta"].get("content") or "" for e in map(json.loads, events) for c in e.get("choices", [])]
    return "".join(deltas)


MOVES_ON: list[tuple[str, Behaviour, str]] = [
    ("500", status(500), "server_error"),
    ("503", status(503), "server_error"),
    ("429", status(429), "rejected"),
    ("408", status(408), "rejected"),
    ("401", status(401, {"error": "Unauthorized"}), "rejected"),
    ("403", status(403), "rejected"),
    ("404", status(404, {"detail": "Not Found"}), "rejected"),
    ("redirect", status(307, {}, {"location": "http://127.0.0.1:1/"}), "rejected"),
    ("silence", silent, "timeout"),
]
STREAM_MOVES_ON: list[tuple[str, Behaviour, str]] = [
    ("error event before content", streams(ROLE, ERROR), "stream_error"),
    ("end before content", streams(ROLE), "truncated"),
    ("cut before content", streams(ROLE, then="cut"), "truncated"),
    ("silence before content", streams(ROLE, then="hang"), "timeout"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("behaviour", "outcome"), [(b, o) for _, b, o in MOVES_ON], ids=[n for n, _, _ in MOVES_ON])
def test_a_failure_before_content_moves_on_to_the_next_expert(
    start: Start, servers: list[FakeServer], behaviour: Behaviour, outcome: str, stream: bool
) -> None:
    servers[0].behaviour = behaviour
    extra = "    timeouts: {total: 1s, first_byte: 1s}" if outcome == "timeout" else ""
    text = experts_yaml(*servers[:2])
    gateway = start(text.replace("total: 5s", "total: 1s") if extra else text)
    response = ask(gateway.url, stream=stream)
    assert response.status_code == 200
    assert said(response) == "".join(WORDS)
    assert response.headers["x-moe-expert"] == "two"
    assert response.headers["x-moe-reason"] == "fallback"
    assert response.headers["x-moe-attempts"] == "2"
    assert gateway.metric("moe_upstream_attempts_total", expert="one", outcome=outcome) == 1
    assert gateway.metric("moe_fallbacks_total", from_expert="one", to_expert="two", reason=outcome) == 1
    assert gateway.settled("moe_requests_in_flight", 0)


@pytest.mark.parametrize(
    ("behaviour", "outcome"), [(b, o) for _, b, o in STREAM_MOVES_ON], ids=[n for n, _, _ in STREAM_MOVES_ON]
)
def test_a_stream_that_fails_before_content_moves_on(
    start: Start, servers: list[FakeServer], behaviour: Behaviour, outcome: str
) -> None:
    servers[0].behaviour = behaviour
    gateway = start(experts_yaml(*servers[:2]))
    response = ask(gateway.url, stream=True)
    assert said(response) == "".join(WORDS)
    assert response.headers["x-moe-expert"] == "two"
    assert gateway.metric("moe_upstream_attempts_total", expert="one", outcome=outcome) == 1


def test_a_refused_connection_moves_on(start: Start, servers: list[FakeServer]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = taken.getsockname()[1]
    text = experts_yaml(*servers[:2]).replace(f":{servers[0].port}/", f":{dead}/")
    gateway = start(text)
    gateway.state.pool.replicas["one"][0].up = None  # as if it died just after the probe
    response = ask(gateway.url)
    assert response.headers["x-moe-expert"] == "two"
    assert gateway.metric("moe_upstream_attempts_total", expert="one", outcome="connect_error") == 1


def test_the_next_replica_is_asked_before_the_next_expert(start: Start, servers: list[FakeServer]) -> None:
    servers[0].behaviour = servers[1].behaviour = status(500)
    text = experts_yaml(servers[0], servers[2]).replace(f"[{servers[0].url}]", f"[{servers[0].url}, {servers[1].url}]")
    gateway = start(text)
    assert ask(gateway.url).headers["x-moe-attempts"] == "3"
    for replica in ("one-0", "one-1"):
        assert gateway.metric("moe_upstream_attempts_total", replica=replica, outcome="server_error") == 1
    servers[1].behaviour = well
    assert ask(gateway.url).headers["x-moe-expert"] == "one"


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [(status(500), 502), (status(503), 503), (status(429), 429), (status(408), 408), (status(401), 502), (silent, 504)],
    ids=["500", "503", "429", "408", "401", "silence"],
)
def test_when_nobody_is_left_the_client_gets_a_status_that_it_understands(
    start: Start, servers: list[FakeServer], behaviour: Behaviour, code: int
) -> None:
    servers[0].behaviour = behaviour
    gateway = start(experts_yaml(servers[0]).replace("total: 5s", "total: 1s"))
    response = ask(gateway.url)
    assert response.status_code == code
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert str(servers[0].port) not in response.text
    assert "127.0.0.1" not in response.text
    if code in (408, 429, 503):
        assert int(response.headers["retry-after"]) > 0


def test_retry_after_of_the_expert_is_kept(start: Start, servers: list[FakeServer]) -> None:
    servers[0].behaviour = status(429, headers={"retry-after": "17"})
    assert ask(start(experts_yaml(servers[0])).url).headers["retry-after"] == "17"


def test_a_prompt_too_long_goes_to_an_expert_with_a_larger_window(start: Start, servers: list[FakeServer]) -> None:
    too_long = {"error": {"message": "This model's maximum context length is 2048 tokens.", "type": "BadRequestError"}}
    servers[0].behaviour = status(400, too_long)
    text = experts_yaml(*servers)
    for name, window in (("one", 2048), ("two", 1024), ("three", 8192)):
        text = text.replace(f"    model: model-{name}", f"    model: model-{name}\n    context_window: {window}")
    gateway = start(text)
    assert ask(gateway.url, model="one").headers["x-moe-expert"] == "three"
    assert servers[1].requests == []
    servers[2].behaviour = status(400, too_long)
    response = ask(gateway.url, model="one")
    assert response.status_code == 400
    assert "maximum context length" in response.json()["error"]["message"]


@pytest.mark.parametrize("code", [400, 413, 422])
def test_an_error_of_the_request_is_passed_as_it_is(start: Start, servers: list[FakeServer], code: int) -> None:
    error = {
        "error": {"message": "temperature must be ≥ 0", "type": "BadRequestError", "param": "temperature", "code": code}
    }
    servers[0].behaviour = status(code, error)
    gateway = start(experts_yaml(*servers[:2]))
    response = ask(gateway.url)
    assert response.status_code == code
    assert response.json() == error
    assert servers[1].requests == []
    assert gateway.metric("moe_upstream_attempts_total", outcome="client_error") == 1
    assert gateway.state.pool.replicas["one"][0].failures == 0


def test_an_error_in_another_shape_is_put_into_openais(start: Start, servers: list[FakeServer]) -> None:
    servers[0].behaviour = status(422, {"detail": "body.messages: field required"})
    error = ask(start(experts_yaml(servers[0])).url).json()["error"]
    assert "field required" in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (streams(ROLE, chunk({"content": "half"}), ERROR, pause=0.1), "stream_error"),
        (streams(ROLE, chunk({"content": "half"})), "truncated"),
        (streams(ROLE, chunk({"content": "half"}), then="cut"), "truncated"),
        (streams(ROLE, chunk({"content": "half"}), then="hang"), "timeout"),
    ],
    ids=["error event", "end", "cut", "silence"],
)
def test_a_stream_that_fails_after_content_ends_in_one_error_event_and_is_not_retried(
    start: Start, servers: list[FakeServer], behaviour: Behaviour, outcome: str
) -> None:
    servers[0].behaviour = behaviour
    gateway = start(experts_yaml(*servers[:2]))
    response = ask(gateway.url, stream=True)
    events = [e for e in response.text.split("\n\n") if e]
    assert "half" in events[-2]
    assert json.loads(events[-1][6:])["error"]["code"] == f"upstream_{outcome}"
    assert response.text.count('"error"') == 1
    assert "10.1.2.3" not in response.text
    assert servers[1].requests == []
    assert gateway.settled("moe_stream_errors_total", 1, expert="one", kind=outcome)


def test_content_and_error_in_one_packet_move_on_since_nothing_was_sent_yet(
    start: Start, servers: list[FakeServer]
) -> None:
    servers[0].behaviour = streams(ROLE + chunk({"content": "half"}) + ERROR)
    response = ask(start(experts_yaml(*servers[:2])).url, stream=True)
    assert said(response) == "".join(WORDS)
    assert response.headers["x-moe-expert"] == "two"


def test_the_usage_chunk_reaches_only_those_who_asked_for_it(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]))
    plain = ask(gateway.url, stream=True)
    asked = ask(gateway.url, stream=True, stream_options={"include_usage": True})
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
        ROLE,
        chunk({"reasoning_content": "hm"}),
        chunk({"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": '{"usage":1}'}}]}),
        'data: {"choices":[{"index":0,"delta":{"content":"日本語 \\"usage\\": {"},"x_unknown":1.50}]}\n\n'.encode(),
        chunk({}, "stop"),
        b"data: [DONE]\n\n",
    )
    servers[0].behaviour = streams(*events)
    response = ask(start(experts_yaml(servers[0])).url, stream=True)
    assert response.content == b"".join(events)
    assert "secret-host" not in str(response.headers)


def test_a_full_expert_is_passed_over_and_a_full_house_says_when_to_come_back(
    start: Start, servers: list[FakeServer]
) -> None:
    gateway = start(experts_yaml(*servers[:2], expert_extra="    max_in_flight: 1"))
    with gateway.state.pool.holding("one", gateway.state.pool.replicas["one"][0]):
        assert ask(gateway.url).headers["x-moe-expert"] == "two"
        with gateway.state.pool.holding("two", gateway.state.pool.replicas["two"][0]):
            response = ask(gateway.url)
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) > 0
    assert ask(gateway.url).headers["x-moe-expert"] == "one"
