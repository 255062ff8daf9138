"""Counting a request's tokens on servers that have no count_tokens of Anthropic's.

vLLM: POST /tokenize, beside /v1, with a chat's messages and tools; its answer has `count`. (Newer ones, and llama.cpp, have
/v1/messages/count_tokens.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.translation import answers

# Of a chat request, what the prompt is made from.
RENDERED = ("model", "messages", "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")


class _Count(msgspec.Struct):
    count: int


def rendered_body(chat: Mapping[str, Any]) -> bytes:
    """The body for vLLM's /tokenize from the fields of a chat request."""
    return msgspec.json.encode({name: chat[name] for name in RENDERED if name in chat})


def counted(content: bytes) -> int:
    """The tokens in the answer of vLLM's /tokenize. Raises UnreadableAnswerError, as all of these do."""
    answer: _Count = answers.decoded(content, _COUNT)
    return answer.count


def count_answer(tokens: int) -> bytes:
    """The answer of count_tokens."""
    return msgspec.json.encode({"input_tokens": tokens})


_COUNT = msgspec.json.Decoder(_Count)
