"""Completions and embeddings, as vLLM gives them."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.fakes.model.chat import DONE, event, prompt_tokens
from tests.fakes.model.thoughts import pieces

DIMENSIONS = 8


def completion(body: Mapping[str, Any]) -> dict[str, Any]:
    text = _text(body)
    choice = {"index": 0, "text": text, "logprobs": _logprobs(body, text), "finish_reason": "stop", "stop_reason": None}
    return {**_head(body), "choices": [choice], "usage": _usage(body, len(pieces(text)))}


def completion_stream(body: Mapping[str, Any]) -> Iterator[bytes]:
    text = _text(body)
    for piece in pieces(text):
        choice = {"index": 0, "text": piece, "logprobs": _logprobs(body, piece), "finish_reason": None}
        yield event({**_head(body), "choices": [choice]})
    yield event({**_head(body), "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        yield event({**_head(body), "choices": [], "usage": _usage(body, len(pieces(text)))})
    yield DONE


def _head(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": "cmpl-1", "object": "text_completion", "created": 1_700_000_000, "model": body["model"]}


def _text(body: Mapping[str, Any]) -> str:
    prompt = body["prompt"]
    said = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
    filled = f" [before {body['suffix']}]" if body.get("suffix") else ""
    return f"{said if body.get('echo') else ''} … {said[::-1]}{filled}"


def _logprobs(body: Mapping[str, Any], text: str) -> Any:
    if body.get("logprobs") is None:
        return None
    tokens = pieces(text)
    offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
    return {
        "tokens": tokens,
        "token_logprobs": [-0.5] * len(tokens),
        "top_logprobs": [{token: -0.5} for token in tokens],
        "text_offset": offsets,
    }


def _usage(body: Mapping[str, Any], completion_tokens: int) -> dict[str, int]:
    prompt = prompt_tokens(body)
    return {"prompt_tokens": prompt, "completion_tokens": completion_tokens, "total_tokens": prompt + completion_tokens}


def embeddings(body: Mapping[str, Any]) -> dict[str, Any]:
    given = body["input"]
    inputs = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    encode = _base64 if body.get("encoding_format") == "base64" else list
    data = [{"object": "embedding", "index": i, "embedding": encode(vector(text))} for i, text in enumerate(inputs)]
    used = {"prompt_tokens": 4 * len(inputs), "completion_tokens": 0, "total_tokens": 4 * len(inputs)}
    return {
        "id": "embd-1",
        "object": "list",
        "created": 1_700_000_000,
        "model": body["model"],
        "data": data,
        "usage": used,
    }


def vector(text: str | Sequence[int]) -> list[float]:
    """Eight halves of a byte each, so that float32 holds them exactly; the ids of a text's bytes give what the text gives."""
    data = text.encode() if isinstance(text, str) else bytes(text)
    return [byte / 2 for byte in hashlib.sha256(data).digest()[:DIMENSIONS]]


def _base64(values: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
