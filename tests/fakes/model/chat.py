"""Chat completions, as vLLM gives them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.fakes.model.thoughts import Asked, Call, Thought, pieces, think

DONE = b"data: [DONE]\n\n"


def asked(body: Mapping[str, Any]) -> Asked:
    messages: Sequence[Mapping[str, Any]] = body["messages"]
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=0)
    after = messages[last:]
    calls = [call for message in after for call in message.get("tool_calls") or ()]
    form = body.get("response_format") or {}
    schema = form["json_schema"]["schema"] if form.get("type") == "json_schema" else None
    choice = body.get("tool_choice") or "auto"
    return Asked(
        text_of(messages[last].get("content")),
        {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in body.get("tools") or ()},
        choice if isinstance(choice, str) else choice["function"]["name"],
        schema,
        [text_of(message["content"]) for message in after if message["role"] == "tool"],
        [call["function"]["name"] for call in calls],
        sum(message["role"] == "assistant" for message in messages),
        list(_images(messages[last].get("content"))),
    )


def text_of(content: Any) -> str:
    """The text of a message's content, be it a string or parts."""
    if isinstance(content, str) or content is None:
        return content or ""
    return " ".join(part.get("text", "") for part in content if "text" in part)


def _images(content: Any) -> Iterator[int]:
    for part in content if isinstance(content, list) else ():
        if part.get("type") == "image_url":
            yield len(base64.b64decode(part["image_url"]["url"].partition("base64,")[2]))


def usage(body: Mapping[str, Any], thoughts: Sequence[Thought]) -> dict[str, Any]:
    """Tokens, counted simply: four bytes of the question each, a piece of the answer each."""
    prompt, completion = prompt_tokens(body), sum(thought.output_tokens for thought in thoughts)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 3},
    }


def prompt_tokens(body: Mapping[str, Any]) -> int:
    return max(4, len(json.dumps(body.get("messages") or body.get("input") or body.get("prompt"))) // 4)


def whole(body: Mapping[str, Any]) -> dict[str, Any]:
    thoughts = [think(asked(body))] * (body.get("n") or 1)
    choices = [_choice(i, thought, body) for i, thought in enumerate(thoughts)]
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": body["model"]}
    return {
        **head,
        "choices": choices,
        "usage": usage(body, thoughts),
        "prompt_logprobs": None,
        "kv_transfer_params": None,
    }


def _choice(index: int, thought: Thought, body: Mapping[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": thought.text or None, "refusal": None, "tool_calls": []}
    if thought.reasoning:
        message["reasoning_content"] = thought.reasoning
    message["tool_calls"] = [_call(i, call, call.arguments) for i, call in enumerate(thought.calls)]
    logprobs = {"content": [_logprob(word) for word in thought.words]} if body.get("logprobs") else None
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": _finish(thought),
        "stop_reason": None,
    }


def _call(index: int, call: Call, arguments: str) -> dict[str, Any]:
    function = {"name": call.tool, "arguments": arguments}
    return {"id": f"chatcmpl-tool-{index}", "type": "function", "function": function}


def _finish(thought: Thought) -> str:
    return "tool_calls" if thought.calls else "stop"


def _logprob(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5, "bytes": list(token.encode()), "top_logprobs": []}


def stream(body: Mapping[str, Any]) -> Iterator[bytes]:
    """The events, `[DONE]` the last."""
    thought = think(asked(body))
    for index in range(body.get("n") or 1):
        for delta, logprobs in _deltas(thought, bool(body.get("logprobs"))):
            yield _chunk(body, [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}])
        end = {"index": index, "delta": {"content": ""}, "logprobs": None, "finish_reason": _finish(thought)}
        yield _chunk(body, [{**end, "stop_reason": None}])
    if (body.get("stream_options") or {}).get("include_usage"):
        yield _chunk(body, [], usage(body, [thought] * (body.get("n") or 1)))
    yield DONE


def _deltas(thought: Thought, logprobs: bool) -> Iterator[tuple[dict[str, Any], Any]]:
    yield {"role": "assistant", "content": ""}, None
    for piece in pieces(thought.reasoning):
        yield {"reasoning_content": piece}, None
    for word in thought.words:
        yield {"content": word}, {"content": [_logprob(word)]} if logprobs else None
    for index, call in enumerate(thought.calls):
        yield {"tool_calls": [{"index": index, **_call(index, call, "")}]}, None
        for piece in pieces(call.arguments):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}, None


def _chunk(body: Mapping[str, Any], choices: Sequence[Any], used: Any = None) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": body["model"]}
    return event({**head, "choices": choices, **({"usage": used} if used else {})})


def event(body: Mapping[str, Any], name: str = "") -> bytes:
    """A server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()
