"""A chat completion, as a message."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.translation import answers
from gateway.translation.answers import Function, Said, UnreadableAnswerError
from gateway.usage import read_usage


class _Choice(msgspec.Struct):
    index: int = 0
    message: Said | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    matched_stop: Any = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    id: str | None = None
    model: str | None = None


def message_of(content: bytes, model: str | None = None) -> bytes:
    """The message that says what a chat completion says; `model` is the expert's own name for it, unless given.

    Raises UnreadableAnswerError, a ValueError, where it is no chat completion.
    """
    completion: _Completion = answers.decoded(content, _COMPLETION)
    choice = next((choice for choice in completion.choices if choice.index == 0), None)
    if choice is None or choice.message is None:
        raise UnreadableAnswerError("The expert's answer is no chat completion: it has no message.")
    blocks = _blocks(choice.message)
    called = any(block["type"] == "tool_use" for block in blocks)
    stop = choice.matched_stop if choice.stop_reason is None else choice.stop_reason
    reason, sequence = answers.stop_reason(choice.finish_reason, stop, called, bool(choice.message.refusal))
    return msgspec.json.encode(
        {
            "id": answers.message_id(completion.id),
            "type": "message",
            "role": "assistant",
            "model": completion.model or "" if model is None else model,
            "content": blocks,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": answers.usage_fields(read_usage(content)),
        }
    )


def _blocks(message: Said) -> list[dict[str, Any]]:
    """Thinking first, as it came first; then text, then the calls of tools."""
    blocks: list[dict[str, Any]] = []
    if thinking := message.reasoning_content or message.reasoning:
        blocks.append({"type": "thinking", "thinking": thinking, "signature": answers.SIGNATURE})
    if text := answers.text_of(message.content) + (message.refusal or ""):
        blocks.append({"type": "text", "text": text})
    for call in message.tool_calls or ():
        function = call.function or Function()
        given = answers.tool_input(function.written)
        name = function.name or ""
        blocks.append({"type": "tool_use", "id": answers.call_id(call.id), "name": name, "input": given})
    return blocks


_COMPLETION = msgspec.json.Decoder(_Completion)
