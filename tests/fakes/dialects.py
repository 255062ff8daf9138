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

    `half` is a word on which usage rides, where the dialect lets it (`rides`); `second` a word of a second choice, `failed` an
    error event. What a dialect does not have is empty. `finish` may tell the usage itself (`finish_tells`).
    """

    path: str
    whole: bytes
    tokens: Mapping[str, int]
    begin: bytes = b""
    words: tuple[bytes, ...] = ()
    half: bytes = b""
    rides: bool = True
    second: bytes = b""
    finish: bytes = b""
    finish_tells: bool = False
    usage: bytes = b""
    done: bytes = b""
    failed: bytes = b""

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


TOKENS = {"input": 8, "cached_input": 3, "output": 4}
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
    tokens=TOKENS,
    begin=chunk({"role": "assistant", "content": ""}),
    words=tuple(chunk({"content": word}) for word in WORDS),
    half=event({"id": "chatcmpl-1", "choices": [_choice("half")], "usage": USAGE}),
    second=event({"id": "chatcmpl-1", "choices": [_choice("second", 1)]}),
    finish=chunk({}, "stop"),
    usage=usage_chunk(),
    done=DONE,
    failed=event({"error": DIED}),
)


def _text(text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "finish_reason": finish}
    return {"id": "cmpl-1", "object": "text_completion", "model": "fake", "choices": [choice], **more}


COMPLETIONS = Dialect(
    path="/v1/completions",
    whole=_json(_text(TEXT, "stop", usage=USAGE)),
    tokens=TOKENS,
    begin=event(_text("")),
    words=tuple(event(_text(word)) for word in WORDS),
    half=event(_text("half", usage=USAGE)),
    finish=event(_text("", "stop")),
    usage=usage_chunk(),
    done=DONE,
    failed=event({"error": DIED}),
)


def _response(status: str, **more: Any) -> dict[str, Any]:
    said = {"type": "output_text", "text": TEXT if status == "completed" else "", "annotations": []}
    output = [{"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": [said]}]
    return {"id": "resp_1", "object": "response", "model": "fake", "status": status, "output": output, **more}


def _of_response(kind: str, **more: Any) -> bytes:
    return event({"type": f"response.{kind}", "sequence_number": 1, **more}, f"response.{kind}")


IO_USAGE = {"input_tokens": 11, "output_tokens": 4, "total_tokens": 15, "input_tokens_details": {"cached_tokens": 3}}
RESPONSES = Dialect(
    path="/v1/responses",
    whole=_json(_response("completed", usage=IO_USAGE)),
    tokens=TOKENS,
    begin=_of_response("created", response=_response("in_progress", usage=None)),
    words=tuple(_of_response("output_text.delta", item_id="msg_1", delta=word) for word in WORDS),
    half=_of_response("output_text.delta", item_id="msg_1", delta="half"),
    rides=False,
    finish=_of_response("completed", response=_response("completed", usage=IO_USAGE)),
    finish_tells=True,
    failed=event({"type": "error", "code": "server_error", "message": DIED["message"], "param": None}, "error"),
)
EMBEDDINGS = Dialect(
    path="/v1/embeddings",
    whole=_json(
        {
            "object": "list",
            "model": "fake",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
            "usage": {"prompt_tokens": 11, "total_tokens": 11},
        }
    ),
    tokens={"input": 11, "cached_input": 0, "output": 0},
)
DIALECTS = {dialect.path: dialect for dialect in (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS)}
