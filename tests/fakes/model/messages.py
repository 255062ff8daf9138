"""Anthropic's Messages API, as vLLM serves it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.fakes.model.chat import event, prompt_tokens, text_of
from tests.fakes.model.thoughts import Asked, Thought, pieces, think

CHOICES = {"any": "required", "auto": "auto", "none": "none"}


def asked(body: Mapping[str, Any]) -> Asked:
    messages: Sequence[Mapping[str, Any]] = body["messages"]
    blocks = [(message["role"], block) for message in messages for block in _blocks(message["content"])]
    answers = ("tool_result", "tool_use")
    last = max(i for i, (role, block) in enumerate(blocks) if role == "user" and block["type"] not in answers)
    after = [block for _, block in blocks[last:]]
    choice = body.get("tool_choice") or {"type": "auto"}
    form = (body.get("output_config") or {}).get("format") or {}
    return Asked(
        blocks[last][1].get("text", "") or " ".join(block.get("text", "") for _, block in blocks[:last]),
        {tool["name"]: tool["input_schema"] for tool in body.get("tools") or ()},
        choice["name"] if choice["type"] == "tool" else CHOICES[choice["type"]],
        form.get("schema"),
        [text_of(block.get("content")) for block in after if block["type"] == "tool_result"],
        [block["name"] for block in after if block["type"] == "tool_use"],
        sum(message["role"] == "assistant" for message in messages),
        [len(base64.b64decode(block["source"]["data"])) for _, block in blocks if block["type"] == "image"],
    )


def _blocks(content: Any) -> Sequence[Mapping[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def whole(body: Mapping[str, Any]) -> dict[str, Any]:
    thought = think(asked(body))
    used = {"input_tokens": prompt_tokens(body), "output_tokens": thought.output_tokens}
    return {**_message(body, used), "content": _content(thought), "stop_reason": _stop(thought)}


def counted(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"input_tokens": prompt_tokens(body)}


def _message(body: Mapping[str, Any], used: Any) -> dict[str, Any]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": body["model"]}
    return {**head, "stop_reason": None, "stop_sequence": None, "usage": used}


def _content(thought: Thought) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if thought.reasoning:
        blocks.append({"type": "thinking", "thinking": thought.reasoning, "signature": "s"})
    for index, call in enumerate(thought.calls):
        given = json.loads(call.arguments)
        blocks.append({"type": "tool_use", "id": f"toolu_{index}", "name": call.tool, "input": given})
    if not thought.calls:
        blocks.append({"type": "text", "text": thought.text})
    return blocks


def _stop(thought: Thought) -> str:
    return "tool_use" if thought.calls else "end_turn"


def stream(body: Mapping[str, Any]) -> Iterator[bytes]:
    """The named events in their order, a ping among them."""
    for name, fields in _events(body, think(asked(body))):
        yield event({"type": name, **fields}, name)


def _events(body: Mapping[str, Any], thought: Thought) -> Iterator[tuple[str, dict[str, Any]]]:
    begun = _message(body, {"input_tokens": prompt_tokens(body), "output_tokens": 0})
    yield "message_start", {"message": begun}
    yield "ping", {}
    for index, block in enumerate(_content(thought)):
        yield "content_block_start", {"index": index, "content_block": _opened(block)}
        for delta in _deltas(block, thought):
            yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    used = {"input_tokens": prompt_tokens(body), "output_tokens": thought.output_tokens}
    yield "message_delta", {"delta": {"stop_reason": _stop(thought), "stop_sequence": None}, "usage": used}
    yield "message_stop", {}


def _opened(block: Mapping[str, Any]) -> dict[str, Any]:
    empty: dict[str, Any] = {"text": "", "thinking": "", "signature": "", "input": {}}
    return {name: empty.get(name, value) for name, value in block.items()}


def _deltas(block: Mapping[str, Any], thought: Thought) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        yield from ({"type": "text_delta", "text": piece} for piece in thought.words)
    elif block["type"] == "tool_use":
        given = json.dumps(block["input"], ensure_ascii=False)
        yield from ({"type": "input_json_delta", "partial_json": piece} for piece in pieces(given))
    else:
        yield from ({"type": "thinking_delta", "thinking": piece} for piece in pieces(thought.reasoning))
        yield {"type": "signature_delta", "signature": block["signature"]}
