"""Answers: litellm's objects as bytes in OpenAI's shape."""

from __future__ import annotations

from typing import Any

import msgspec


def whole_of(answer: Any) -> bytes:
    """An answer in one piece."""
    data: dict[str, Any] = answer.model_dump(exclude_none=True)
    for choice in data.get("choices", ()):
        choice.setdefault("finish_reason", None)
        if (message := choice.get("message")) is not None:
            message.setdefault("content", None)
            _without_extras(message)
        _without_extras(choice)
    if not _told(data.get("usage")):
        data.pop("usage", None)
    return msgspec.json.encode(data)


def event_of(chunk: Any) -> tuple[bytes, bool]:
    """The event of a chunk, empty where it says nothing, and whether it is the last: the one with usage."""
    data: dict[str, Any] = chunk.model_dump(exclude_none=True, exclude_unset=True)
    last = "usage" in data
    choices = data.get("choices", [])
    for choice in choices:
        choice.setdefault("finish_reason", None)
        if "delta" in choice:
            _without_extras(choice["delta"])
        else:
            choice.setdefault("text", "")
    if last:
        if not _told(data["usage"]):
            return b"", True
        data["choices"] = []  # OpenAI's has none; litellm's has an empty one
    return b"data: " + msgspec.json.encode(data) + b"\n\n", last


def _without_extras(part: dict[str, Any]) -> None:
    if not any(value not in (None, {}, []) for value in part.get("provider_specific_fields", {}).values()):
        part.pop("provider_specific_fields", None)


def _told(usage: Any) -> bool:
    """Whether there are tokens in it: where a provider told none, litellm writes zeros."""
    return isinstance(usage, dict) and bool(usage.get("prompt_tokens") or usage.get("completion_tokens"))
