"""A client that reads the stream of a message as strictly as the protocol is written."""

from __future__ import annotations

import json
from typing import Any

from gateway.events import EventSplitter

DELTAS = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}


class StreamError(Exception):
    """The stream said that it failed: its type and message."""


class Accumulator:
    """Builds the message from the events, and asserts that each may come where it comes."""

    def __init__(self) -> None:
        self.message: dict[str, Any] = {}
        self.events: list[str] = []
        self.done = False
        self._open: dict[str, Any] | None = None
        self._json = ""
        self._ending = False

    def read(self, stream: bytes) -> Accumulator:
        splitter = EventSplitter()
        for event in splitter.feed(stream):
            if not event.startswith(b":"):
                self._read(event.decode())
        assert splitter.rest() == b""
        return self

    def _read(self, event: str) -> None:
        name, data, *rest = event.split("\n")
        assert rest == ["", ""]
        assert data.startswith("data: ")
        fields = json.loads(data[6:])
        kind = fields.pop("type")
        assert name == f"event: {kind}"
        assert not self.done
        self.events.append(kind)
        if kind == "error":
            raise StreamError(fields["error"]["type"], fields["error"]["message"])
        if kind != "ping":
            getattr(self, f"_{kind}")(**fields)

    def _message_start(self, message: dict[str, Any]) -> None:
        assert not self.message
        assert (message["type"], message["role"], message["content"]) == ("message", "assistant", [])
        assert (message["stop_reason"], message["stop_sequence"]) == (None, None)
        assert message["usage"]["output_tokens"] == 0
        self.message = message

    def _content_block_start(self, index: int, content_block: dict[str, Any]) -> None:
        assert self.message
        assert self._open is None
        assert not self._ending
        assert index == len(self.message["content"])
        kind = content_block["type"]
        assert content_block["input" if kind == "tool_use" else kind] in ("", {})
        self._open, self._json = content_block, ""
        self.message["content"].append(content_block)

    def _content_block_delta(self, index: int, delta: dict[str, Any]) -> None:
        assert self._open is not None
        assert index == len(self.message["content"]) - 1
        if delta["type"] == "signature_delta":
            assert self._open["type"] == "thinking"
            self._open["signature"] = delta["signature"]
            return
        assert delta["type"] == DELTAS[self._open["type"]]
        assert not self._open.get("signature")  # nothing is thought after the signature
        if delta["type"] == "input_json_delta":
            assert delta["partial_json"]
            self._json += delta["partial_json"]
        else:
            assert delta[self._open["type"]]
            self._open[self._open["type"]] += delta[self._open["type"]]

    def _content_block_stop(self, index: int) -> None:
        assert self._open is not None
        assert index == len(self.message["content"]) - 1
        if self._json:
            self._open["input"] = json.loads(self._json)
        if self._open["type"] == "thinking":
            assert self._open["signature"]
        self._open = None

    def _message_delta(self, delta: dict[str, Any], usage: dict[str, Any]) -> None:
        assert self.message
        assert self._open is None
        assert not self._ending
        self._ending = True
        self.message.update(delta)
        self.message["usage"].update(usage)

    def _message_stop(self) -> None:
        assert self._ending
        self.done = True
