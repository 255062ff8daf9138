"""The endpoints of the gateway as their clients see them: what they ask, what they hear, how they are told of errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from tests.fakes.dialects import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, Dialect

Shape = Literal["openai", "responses", "anthropic"]
HELLO = [{"role": "user", "content": "Write a haiku about autumn"}]


@dataclass(frozen=True)
class Endpoint:
    """`upstream` is what the experts speak. `moves` says whether another expert's answer would do."""

    name: str
    path: str
    upstream: Dialect
    asks: Mapping[str, Any]
    shape: Shape = "openai"
    streams: bool = True
    moves: bool = True

    def request(self, model: str, stream: bool) -> dict[str, Any]:
        return {"model": model, **self.asks, **({"stream": stream} if self.streams else {})}


ENDPOINTS = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint("chat", "/v1/chat/completions", CHAT, {"messages": HELLO}),
        Endpoint("completions", "/v1/completions", COMPLETIONS, {"prompt": "Write a haiku"}),
        Endpoint("responses", "/v1/responses", RESPONSES, {"input": "Write a haiku"}, shape="responses"),
        Endpoint("messages", "/v1/messages", CHAT, {"messages": HELLO, "max_tokens": 9}, shape="anthropic"),
        Endpoint("embeddings", "/v1/embeddings", EMBEDDINGS, {"input": "haiku"}, streams=False, moves=False),
    )
}


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The JSON objects of a stream; what is none is left out."""
    lines = response.text.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {") and line.endswith("}")]


def said(response: httpx.Response) -> str:
    """The text of an answer, streamed or whole, of whatever endpoint."""
    if "event-stream" in response.headers["content-type"]:
        return "".join(map(_word, events(response)))
    body = response.json()
    if "output" in body:
        return str(body["output"][0]["content"][0]["text"])
    if "data" in body:
        return str(body["data"][0]["embedding"])
    if "content" in body:
        return str(body["content"][0]["text"])
    choice = body["choices"][0]
    return str(choice["text"] if "text" in choice else choice["message"]["content"])


def _word(event: Mapping[str, Any]) -> str:
    delta = event.get("delta", "")
    if isinstance(delta, Mapping):  # Anthropic's
        return str(delta.get("text", ""))
    choices = event.get("choices", ())
    return str(delta) + "".join(c.get("text") or c.get("delta", {}).get("content") or "" for c in choices)


def good_text(endpoint: Endpoint) -> str:
    return "[0.5]" if endpoint.upstream is EMBEDDINGS else "Hello wörld"


def check_error(error: Any, endpoint: Endpoint, code: str | None) -> None:
    """That a body is an error as the endpoint's clients know it; `code` is told where their shape has room for one."""
    if endpoint.shape == "anthropic":
        assert set(error) == {"type", "error"}
        assert error["type"] == "error"
        assert set(error["error"]) == {"type", "message"}
    else:
        assert set(error) == {"error"}
        assert set(error["error"]) == {"message", "type", "param", "code"}
        assert code is None or error["error"]["code"] == code


def check_event(event: str, endpoint: Endpoint, code: str | None) -> None:
    """The same for the one event that ends a stream."""
    name, data = ("", event) if event.startswith("data: ") else event.split("\n", 1)
    body = json.loads(data.removeprefix("data: "))
    assert name == ("" if endpoint.shape == "openai" else "event: error")
    if endpoint.shape == "responses":
        assert body["type"] == "error"
        assert body["code"] == code
    else:
        check_error(body, endpoint, code)
