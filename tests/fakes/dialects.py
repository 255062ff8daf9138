"""What a good server says at each endpoint, in pieces, so that a test can leave one out or put a bad one in between."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.upstream import USAGE, WORDS, chunk, usage_chunk

TEXT = "".join(WORDS)
DONE = b"data: [DONE]\n\n"
# As vLLM says that its engine died; the address is none of the client's business.
DIED = {"message": "EngineCore at 10.1.2.3 died", "type": "InternalServerError", "param": None, "code": 500}


@dataclass(frozen=True)
class Dialect:
    """One endpoint as an upstream speaks it. A good stream is `begin`, `words`, `finish`, `usage`, `done`.

    `used` is a word on which usage rides, `failed` an error event, `second` a word of a second choice.
    """

    path: str
    whole: bytes
    begin: bytes
    words: tuple[bytes, ...]
    used: bytes
    second: bytes
    finish: bytes
    usage: bytes
    done: bytes
    failed: bytes

    @property
    def events(self) -> tuple[bytes, ...]:
        return (self.begin, *self.words, self.finish, self.usage, self.done)


def event(body: Mapping[str, Any], name: str = "") -> bytes:
    """A server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def _choice(text: str, index: int = 0) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text}, "finish_reason": None}


CHAT = Dialect(
    path="/v1/chat/completions",
    whole=_json(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "fake",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"},
            ],
            "usage": USAGE,
        }
    ),
    begin=chunk({"role": "assistant", "content": ""}),
    words=tuple(chunk({"content": word}) for word in WORDS),
    used=event({"id": "chatcmpl-1", "choices": [_choice("half")], "usage": USAGE}),
    second=event({"id": "chatcmpl-1", "choices": [_choice("second", 1)]}),
    finish=chunk({}, "stop"),
    usage=usage_chunk(),
    done=DONE,
    failed=event({"error": DIED}),
)
