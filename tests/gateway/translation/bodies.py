"""Requests for messages, as clients write them and as hypothesis makes them up."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import strategies as st

from gateway.translation.to_chat import chat_fields

# Texts that are told apart by their first letters, whatever follows.
WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
TEXTS = st.builds("{}:{}".format, st.integers(0, 10**9), WORDS)
# What only survives as the bytes that it was.
NUMBERS = st.sampled_from(["1.10", "12345678901234567890123", "-0.0", "1E400", "1e2", "0.1000000000000000055"])
VALUES = st.recursive(
    st.one_of(
        NUMBERS, st.sampled_from(["true", "null", r'"\ud83d\ude00"', r'"\/"', r'"\u00e9"']), WORDS.map(json.dumps)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(WORDS, inner, max_size=3).map(lambda items: f"{{{_members(items)}}}"),
    ),
    max_leaves=6,
)
OBJECTS = st.dictionaries(WORDS, VALUES, max_size=3).map(lambda items: f"{{{_members(items)}}}")


def _members(items: dict[str, str]) -> str:
    return ", ".join(f"{json.dumps(name)}: {value}" for name, value in items.items())


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def call(name: str = "f", id: str = "t1", **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": given}


def result(content: Any = None, id: str = "t1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, **({} if content is None else {"content": content}), **more}


def image(data: str = "AAAA") -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def body(*messages: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 10, "messages": messages, **fields}).encode()


def chat_of(request: bytes) -> Any:
    """The chat request, as its server reads it."""
    fields = chat_fields(msgspec.json.decode(request, type=dict[str, msgspec.Raw]))
    return json.loads(msgspec.json.encode(fields))


def chat(*messages: dict[str, Any], **fields: Any) -> Any:
    return chat_of(body(*messages, **fields))


def messages(*given: dict[str, Any], **fields: Any) -> Any:
    return chat(*given, **fields)["messages"]
