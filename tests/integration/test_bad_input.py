"""Whatever is sent, the answer is an error in OpenAI's shape that says what to do, and the others are served on."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest

from tests.fakes.upstream import FakeServer
from tests.integration.conftest import Start, experts_yaml

HELLO = [{"role": "user", "content": "hello"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def saying(content: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": content}]}).encode()


CASES: list[tuple[str, bytes, int, str, str]] = [
    ("malformed JSON", b'{"model": "auto", "messages": [', 400, "invalid_json", "JSON"),
    ("no body", b"", 400, "invalid_json", "JSON"),
    ("not an object", b"[1]", 400, "invalid_request", "object"),
    ("not UTF-8", b'{"model": "\xff\xfe"}', 400, "invalid_json", "JSON"),
    ("deep nesting", b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "", ""),
    ("no messages", b'{"model": "auto"}', 400, "invalid_request", "messages"),
    ("empty messages", b'{"model": "auto", "messages": []}', 400, "invalid_request", "empty"),
    ("messages of a wrong type", b'{"messages": "hello"}', 400, "invalid_request", "messages"),
    ("content of a wrong type", b'{"messages": [{"role": "user", "content": 5}]}', 400, "invalid_request", "messages[0]"),
    ("null content", b'{"messages": [{"role": "user", "content": null}]}', 400, "invalid_request", "empty"),
    ("stream of a wrong type", b'{"stream": "yes", "messages": [{"role": "user", "content": "x"}]}', 400, "", "stream"),
    ("unknown model", json.dumps({"model": "on", "messages": HELLO}).encode(), 404, "model_not_found", "'one'"),
    ("an image only", saying([IMAGE]), 400, "unsupported_capability", "vision"),
    ("5 MB of text", saying("word " * 1_000_000), 400, "context_length_exceeded", "8192"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "code", "error_code", "mentions"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_bad_input_gets_a_clear_error_and_the_next_request_is_served(
    start: Start, servers: list[FakeServer], body: bytes, code: int, error_code: str, mentions: str
) -> None:
    text = experts_yaml(servers[0], expert_extra="    context_window: 8192")
    gateway = start(text)
    response = httpx.post(f"{gateway.url}/v1/chat/completions", content=body, timeout=20)
    assert response.status_code == code
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error_code in error["code"]
    assert mentions in error["message"]
    assert response.headers["x-request-id"]
    assert servers[0].requests == []
    ok = httpx.post(f"{gateway.url}/v1/chat/completions", json={"model": "auto", "messages": HELLO})
    assert ok.status_code == 200


def test_text_in_parts_is_routed_and_passed_on_as_it_came(start: Start, servers: list[FakeServer]) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Prove that √2 is irrational", "cache": {"x": 1}}]}
    ]
    gateway = start(experts_yaml(servers[0]))
    response = httpx.post(f"{gateway.url}/v1/chat/completions", json={"model": "auto", "messages": messages})
    assert response.headers["x-moe-domain"] == "math"
    assert servers[0].requests[0]["messages"] == messages


def test_a_body_over_the_limit_is_413(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]), max_body_bytes=1000)
    big = {"model": "auto", "messages": [{"role": "user", "content": "x" * 2000}]}
    response = httpx.post(f"{gateway.url}/v1/chat/completions", json=big)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"
    chunked = httpx.post(f"{gateway.url}/v1/chat/completions", content=iter([b"x" * 600, b"x" * 600]))
    assert chunked.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [("GET", "/v1/chat/completions", 405), ("GET", "/nowhere", 404), ("PUT", "/metrics", 405)],
)
def test_a_wrong_path_or_method_is_told_in_the_same_shape(
    start: Start, servers: list[FakeServer], method: str, path: str, code: int
) -> None:
    response = httpx.request(method, f"{start(experts_yaml(servers[0])).url}{path}")
    assert response.status_code == code
    assert path in response.json()["error"]["message"]


def test_garbage_that_is_not_http_does_not_stop_the_others(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]))
    host, port = gateway.url.removeprefix("http://").split(":")
    for garbage in (
        b"\x00\xff\x13\x37\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=5) as client:
            client.sendall(garbage)
            client.recv(1000)
    assert httpx.get(f"{gateway.url}/health").status_code == 200


def test_clients_cannot_make_label_values(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]))
    series = len(httpx.get(f"{gateway.url}/metrics").text.splitlines())
    counts = []
    for i in range(30):
        body: dict[str, Any] = {"model": f"made-up-{i}", "messages": HELLO}
        headers = {"x-request-id": f"id-{i}", "x-moe-session": f"s{i}", "user-agent": f"agent-{i}"}
        assert httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers).status_code == 404
        counts.append(len(httpx.get(f"{gateway.url}/metrics").text.splitlines()))
    assert "made-up" not in httpx.get(f"{gateway.url}/metrics").text
    assert counts[-1] == counts[1]
    assert counts[-1] - series < 120


def test_a_stopped_expert_is_a_503_with_retry_after_and_ready_says_so(start: Start, servers: list[FakeServer]) -> None:
    servers[0].healthy = False
    gateway = start(experts_yaml(servers[0]))
    ready = httpx.get(f"{gateway.url}/ready")
    assert ready.status_code == 503
    assert ready.json()["experts"] == {"one": "down"}
    response = httpx.post(f"{gateway.url}/v1/chat/completions", json={"model": "auto", "messages": HELLO})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert httpx.get(f"{gateway.url}/health").status_code == 200
