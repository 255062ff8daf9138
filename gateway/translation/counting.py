"""Counting a request's tokens on servers that have no count_tokens of Anthropic's.

vLLM: POST /tokenize, beside /v1, with a chat's messages and tools; its answer has `count`. llama.cpp: POST /apply-template with
the same makes the prompt, POST /tokenize makes its tokens. (Newer servers of both have /v1/messages/count_tokens.)
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


class _Prompt(msgspec.Struct):
    prompt: str


class _Tokens(msgspec.Struct):
    tokens: list[msgspec.Raw]


def rendered_body(chat: Mapping[str, Any]) -> bytes:
    """The body for vLLM's /tokenize, and for llama.cpp's /apply-template, from the fields of a chat request."""
    return msgspec.json.encode({name: chat[name] for name in RENDERED if name in chat})


def counted(content: bytes) -> int:
    """The tokens in the answer of vLLM's /tokenize. Raises UnreadableAnswerError, as all of these do."""
    answer: _Count = answers.decoded(content, _COUNT)
    return answer.count


def prompt_body(content: bytes) -> bytes:
    """The body for llama.cpp's /tokenize from the answer of its /apply-template: tokens as it would make of the prompt."""
    answer: _Prompt = answers.decoded(content, _PROMPT)
    return msgspec.json.encode({"content": answer.prompt, "add_special": True, "parse_special": True})


def prompt_counted(content: bytes) -> int:
    """The tokens in the answer of llama.cpp's /tokenize."""
    answer: _Tokens = answers.decoded(content, _TOKENS)
    return len(answer.tokens)


def count_answer(tokens: int) -> bytes:
    """The answer of count_tokens."""
    return msgspec.json.encode({"input_tokens": tokens})


_COUNT = msgspec.json.Decoder(_Count)
_PROMPT = msgspec.json.Decoder(_Prompt)
_TOKENS = msgspec.json.Decoder(_Tokens)
