"""The stream of a chat completion, as the stream of a message.

A message's blocks come one after the other, each begun, continued and ended before the next; chat may go on with several calls
of tools in turns, or with text amid a call. The first block that is not yet whole streams; those after it are held until it is
whole: text when something else begins, a call when its arguments are a whole object, and everything when the answer ends.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgspec

from gateway.events import payload_of
from gateway.translation import answers
from gateway.translation.answers import Call, Function, Said, UnreadableAnswerError
from gateway.usage import Usage, read_usage


class _Choice(msgspec.Struct):
    index: int = 0
    delta: Said | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    matched_stop: Any = None


class _Error(msgspec.Struct):
    message: str = ""


class _Chunk(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: _Error | str | None = None


@dataclass
class _Block:
    """One block of the message; `pending` is what of it was not sent yet, `said` what was, of a call's arguments."""

    type: str
    id: str = ""
    name: str = ""
    pending: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    begun: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing more is to come, now that something else has begun."""
        if self.type != "tool_use":
            return True
        pieces = chain(reversed(self.pending), reversed(self.said))
        last = next((piece for piece in pieces if not piece.isspace()), "")
        # Looked at in full only where it may be: once for every piece would take the square of their number.
        return bool(self.name) and last.rstrip().endswith("}") and answers.is_object(self._written())

    def _written(self) -> bytes:
        return "".join(self.said + self.pending).encode("utf-8", "replace")


class EventTranslator:
    """Turns the events of one chat stream into those of a message, each as soon as it can be.

    `model` is the name that the client is told; the expert's own where it is None. The count of the input's tokens is in
    message_start where the expert tells it with its first chunk, and in message_delta, at the end, in any case: there
    clients take it from. After `fail`, or the end, nothing more is given out. `failed` says whether an error event was,
    for whatever reason: the expert's own error, a chunk that is none, an answer that broke off.
    """

    def __init__(self, model: str | None = None) -> None:
        self._model = model
        self.failed = False
        self._started = self._over = self._finished = self._refused = False
        self._finish: str | None = None
        self._stop: Any = None
        self._usage: Usage | None = None
        self._blocks: deque[_Block] = deque()  # from the first that is not ended on
        self._index = 0  # of the first of them
        self._calls: dict[int, _Block] = {}
        self._called = False

    def feed(self, event: bytes) -> bytes:
        """What follows from one complete event; may be empty. A comment goes through, as it keeps the connection alive."""
        if self._over:
            return b""
        payload = payload_of(event)
        if not payload:
            return _comments(event)
        if payload == b"[DONE]":
            self._finished = True
            return self.end()
        try:
            chunk: _Chunk = answers.decoded(payload, _CHUNK)
            if chunk.error is not None:
                return self.fail("api_error", chunk.error if isinstance(chunk.error, str) else chunk.error.message)
            return self._read(chunk, payload)
        except UnreadableAnswerError as error:
            return self.fail("api_error", str(error))

    def end(self) -> bytes:
        """The end of the message. If the answer was not finished, it is an error event instead."""
        if self._over:
            return b""
        if not self._finished:
            return self.fail("api_error", "The expert's answer broke off.")
        events = self._start(_Chunk()) + self._streamed(ending=True)
        reason, sequence = answers.stop_reason(self._finish, self._stop, self._called, self._refused)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        events.append(_event("message_delta", delta=delta, usage=answers.usage_fields(self._usage)))
        events.append(_event("message_stop"))
        self._over = True
        return b"".join(events)

    def fail(self, kind: str, message: str) -> bytes:
        """The error event with which a stream ends that went wrong; `kind` is one of Anthropic's types of errors."""
        if self._over:
            return b""
        self._over = self.failed = True
        return _event("error", error={"type": kind, "message": message})

    def _read(self, chunk: _Chunk, payload: bytes) -> bytes:
        if bytes(chunk.usage).startswith(b"{"):
            self._usage = read_usage(payload) or self._usage
        if chunk.choices is None:
            return b""
        started = self._start(chunk)
        for choice in chunk.choices:
            if choice.index == 0:
                self._take(choice)
        return b"".join(started + self._streamed())

    def _take(self, choice: _Choice) -> None:
        delta = choice.delta or Said()
        if thinking := delta.reasoning_content or delta.reasoning:
            self._add("thinking", thinking)
        if text := answers.text_of(delta.content):
            self._add("text", text)
        if delta.refusal:
            self._refused = True
            self._add("text", delta.refusal)
        for call in delta.tool_calls or ():
            self._add_call(call)
        if choice.finish_reason:  # empty until the end, with some servers
            self._finish, self._finished = choice.finish_reason, True
        stop = choice.matched_stop if choice.stop_reason is None else choice.stop_reason
        self._stop = self._stop if stop is None else stop

    def _add(self, kind: str, text: str) -> None:
        if not self._blocks or self._blocks[-1].type != kind:
            self._blocks.append(_Block(kind))
        self._blocks[-1].pending.append(text)

    def _add_call(self, call: Call) -> None:
        """A piece of a call. Its index says of which; servers that give all the same index give each its id."""
        function = call.function or Function()
        index = max(self._calls, default=0) if call.index is None else call.index
        block = self._calls.get(index)
        other = block is not None and bool(call.id and function.name) and block.id != call.id
        if block is None or other:
            block = _Block("tool_use", id=answers.call_id(call.id))
            self._calls[index] = block
            self._blocks.append(block)
            self._called = True
        block.name = block.name or function.name or ""
        if written := function.written:
            block.pending.append(written)

    def _start(self, chunk: _Chunk) -> list[bytes]:
        """message_start, once."""
        if self._started:
            return []
        self._started = True
        message: dict[str, Any] = {
            "id": answers.message_id(chunk.id),
            "type": "message",
            "role": "assistant",
            "model": chunk.model or "" if self._model is None else self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": answers.usage_fields(self._usage) | {"output_tokens": 0},
        }
        return [_event("message_start", message=message)]

    def _streamed(self, ending: bool = False) -> list[bytes]:
        """The events of whatever can be sent by now."""
        events: list[bytes] = []
        while self._blocks:
            block = self._blocks[0]
            if block.type == "tool_use" and not (block.name or ending):
                break
            events += self._continued(block)
            if not ending and (len(self._blocks) == 1 or not block.whole):
                break
            if block.type == "thinking":
                events.append(self._delta(type="signature_delta", signature=answers.SIGNATURE))
            events.append(_event("content_block_stop", index=self._index))
            self._blocks.popleft()
            self._index += 1
        return events

    def _continued(self, block: _Block) -> list[bytes]:
        """The beginning of a block, once, and what there is to add to it."""
        events = [] if block.begun else [_event("content_block_start", index=self._index, content_block=_empty(block))]
        block.begun = True
        if text := "".join(block.pending):
            kind, name = _DELTAS[block.type]
            events.append(self._delta(**{"type": kind, name: text}))
            if block.type == "tool_use":
                block.said.append(text)
            block.pending.clear()
        return events

    def _delta(self, **delta: str) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)


def _comments(event: bytes) -> bytes:
    """The comments of an event, and nothing else that stands beside them."""
    lines = [line for line in event.splitlines() if line.startswith(b":")]
    return b"\n".join(lines) + b"\n\n" if lines else b""


def _empty(block: _Block) -> dict[str, Any]:
    if block.type == "tool_use":
        return {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}
    return {"type": block.type, block.type: ""} | ({"signature": ""} if block.type == "thinking" else {})


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + msgspec.json.encode({"type": kind, **fields}) + b"\n\n"


_CHUNK = msgspec.json.Decoder(_Chunk)
_DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}
