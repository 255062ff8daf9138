"""OpenAI's Responses API, as vLLM serves it: no state is kept."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.fakes.model.chat import event, prompt_tokens, text_of
from tests.fakes.model.thoughts import Asked, Call, Thought, pieces, think

MESSAGE, REASONING = "msg_1", "rs_1"


def asked(body: Mapping[str, Any]) -> Asked:
    given = body["input"]
    items: Sequence[Mapping[str, Any]] = [{"role": "user", "content": given}] if isinstance(given, str) else given
    last = max((i for i, item in enumerate(items) if item.get("role") == "user"), default=0)
    form = (body.get("text") or {}).get("format") or {}
    choice = body.get("tool_choice") or "auto"
    content = items[last].get("content")
    return Asked(
        text_of(content),
        {tool["name"]: tool.get("parameters", {}) for tool in body.get("tools") or () if tool["type"] == "function"},
        choice if isinstance(choice, str) else choice["name"],
        form.get("schema") if form.get("type") == "json_schema" else None,
        [text_of(item["output"]) for item in items[last:] if item.get("type") == "function_call_output"],
        [item["name"] for item in items[last:] if item.get("type") == "function_call"],
        sum(item.get("role") == "assistant" or item.get("type") == "function_call" for item in items),
        [
            len(base64.b64decode(part["image_url"].partition("base64,")[2]))
            for part in (content if isinstance(content, list) else ())
            if part.get("type") == "input_image"
        ],
    )


def whole(body: Mapping[str, Any]) -> dict[str, Any]:
    thought = think(asked(body))
    return _response(body, "completed", _items(thought), _usage(body, thought))


def _response(body: Mapping[str, Any], status: str, output: Sequence[Any], used: Any = None) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": body["model"],
        "output": list(output),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": None,
        "service_tier": "auto",
        "temperature": 1.0,
        "text": body.get("text"),
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": used,
        "metadata": None,
    }


def _usage(body: Mapping[str, Any], thought: Thought) -> dict[str, Any]:
    prompt = prompt_tokens(body)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens": thought.output_tokens,
        "output_tokens_details": {"reasoning_tokens": len(pieces(thought.reasoning))},
        "total_tokens": prompt + thought.output_tokens,
    }


def _items(thought: Thought) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if thought.reasoning:
        content = [{"type": "reasoning_text", "text": thought.reasoning}]
        items.append({"id": REASONING, "type": "reasoning", "summary": [], "content": content, "status": "completed"})
    items += [_call(index, call) for index, call in enumerate(thought.calls)]
    if not thought.calls:
        items.append(_message("completed", [_part(thought.text)]))
    return items


def _message(status: str, content: Sequence[Any]) -> dict[str, Any]:
    return {"id": MESSAGE, "type": "message", "role": "assistant", "status": status, "content": list(content)}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(index: int, call: Call) -> dict[str, Any]:
    head = {"id": f"fc_{index}", "type": "function_call", "call_id": f"call_{index}", "name": call.tool}
    return {**head, "arguments": call.arguments, "status": "completed"}


def stream(body: Mapping[str, Any]) -> Iterator[bytes]:
    """The named events in their order, each with its sequence number. There is no [DONE]."""
    for number, (name, fields) in enumerate(_events(body, think(asked(body)))):
        yield event({"type": name, "sequence_number": number, **fields}, name)


def _events(body: Mapping[str, Any], thought: Thought) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "response.created", {"response": _response(body, "in_progress", [])}
    yield "response.in_progress", {"response": _response(body, "in_progress", [])}
    items = _items(thought)
    for index, item in enumerate(items):
        at = {"output_index": index, "item_id": item["id"]}
        opened: dict[str, Any] = {
            **item,
            "status": "in_progress",
            **({"arguments": ""} if item["type"] == "function_call" else {"content": []}),
        }
        yield "response.output_item.added", {"output_index": index, "item": opened}
        if item["type"] == "message":
            yield from _text_events(thought, at)
        elif item["type"] == "function_call":
            for piece in pieces(item["arguments"]):
                yield "response.function_call_arguments.delta", {**at, "delta": piece}
            done = {"arguments": item["arguments"], "name": item["name"]}
            yield "response.function_call_arguments.done", {**at, **done}
        else:
            for piece in pieces(thought.reasoning):
                yield "response.reasoning_text.delta", {**at, "content_index": 0, "delta": piece}
            yield "response.reasoning_text.done", {**at, "content_index": 0, "text": thought.reasoning}
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield "response.completed", {"response": _response(body, "completed", items, _usage(body, thought))}


def _text_events(thought: Thought, at: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    at = {**at, "content_index": 0}
    yield "response.content_part.added", {**at, "part": _part("")}
    for word in thought.words:
        yield "response.output_text.delta", {**at, "delta": word, "logprobs": []}
    yield "response.output_text.done", {**at, "text": thought.text, "logprobs": []}
    yield "response.content_part.done", {**at, "part": _part(thought.text)}
