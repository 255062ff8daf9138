"""Server-sent events: cutting a stream into them, and reading of each what must be known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

import msgspec

from gateway.usage import Usage, read_io_usage, read_message_usage, read_usage

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")
# An unescaped key: inside a JSON string its quotes would be escaped, so text that talks of usage does not match.
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
MAX_EVENT_BYTES = 16 * 1024 * 1024


class EventTooLargeError(Exception):
    pass


class EventSplitter:
    """Cuts a byte stream into events, however the bytes were split on the wire."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Every event that `data` completes, each with its blank line. Raises EventTooLargeError."""
        self._buffer += data
        begin = end = 0
        try:
            while match := _END.search(self._buffer, max(end, self._searched)):
                begin, end = end, match.end()
                yield bytes(self._buffer[begin:end])
        finally:  # whoever takes no more of them has had those that he took
            del self._buffer[:end]
            self._searched = 0
        self._searched = max(0, len(self._buffer) - 3)
        if len(self._buffer) > MAX_EVENT_BYTES:
            raise EventTooLargeError

    @property
    def empty(self) -> bool:
        """Whether nothing is left of what came: the next byte begins an event."""
        return not self._buffer

    def rest(self) -> bytes:
        """What came after the last complete event."""
        return bytes(self._buffer)


def payload_of(event: bytes) -> bytes:
    """The data of an event, its lines joined; empty for a comment."""
    if event.startswith(b"data:") and event.count(b"\n") <= 2 and b"\r" not in event:  # one line: nearly every event
        return event[5:].strip()
    lines = (line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:"))
    return b"\n".join(lines).strip()


class StreamReader(Protocol):
    """Reads the events of one stream.

    After each `read`: `usage` is the last seen, `content` whether anything was said yet, `failed` whether an error event
    came, `ended` whether the stream came to its proper end.
    """

    @property
    def usage(self) -> Usage | None: ...

    @property
    def content(self) -> bool: ...

    @property
    def failed(self) -> bool: ...

    @property
    def ended(self) -> bool: ...

    @property
    def over(self) -> bool:
        """Whether nothing more can come, not even usage."""

    def read(self, event: bytes) -> bool:
        """Learn from an event; returns whether it is a usage chunk that a client may not have asked for."""

    def is_plain(self, chunk: bytes) -> bool:
        """Whether `chunk` is whole events that say nothing but more of what was begun: nothing is to be learnt from them.

        May be False where it is so all the same; to be asked only where an event begins.
        """


class _Delta(msgspec.Struct):
    content: msgspec.Raw = msgspec.Raw()
    reasoning_content: msgspec.Raw = msgspec.Raw()
    reasoning: msgspec.Raw = msgspec.Raw()
    refusal: msgspec.Raw = msgspec.Raw()
    tool_calls: msgspec.Raw = msgspec.Raw()
    function_call: msgspec.Raw = msgspec.Raw()
    audio: msgspec.Raw = msgspec.Raw()


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    error: msgspec.Raw = msgspec.Raw()


_CHUNK = msgspec.json.Decoder(_Chunk)
_EMPTY = (b"", b"null", b'""', b"[]", b"{}")


class ChunkReader:
    """Reads the events of one stream of chat or text completions.

    The proper end is [DONE], or a finish_reason for every one of `choices` and every other that was begun. (Some servers write
    an empty one until then.)
    """

    def __init__(self, choices: int = 1) -> None:
        self._choices = choices
        self.usage: Usage | None = None
        self.content = False
        self.failed = False
        self._done = False
        self._begun: set[int] = set()
        self._finished: set[int] = set()

    @property
    def ended(self) -> bool:
        return self._done or (len(self._finished) >= self._choices and self._begun == self._finished)

    @property
    def over(self) -> bool:
        return self._done

    def read(self, event: bytes) -> bool:
        """Learn from an event; returns whether it is the final usage chunk, which has no choices."""
        payload = payload_of(event)
        if not payload:
            return False
        if payload == b"[DONE]":
            self._done = True
            return False
        with_usage = bool(_USAGE.search(payload))
        if with_usage and (usage := read_usage(payload)):
            self.usage = usage  # counted once: each replaces the one before, which was a running total
        try:
            chunk = _CHUNK.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if bytes(chunk.error) not in _EMPTY:
            self.failed = True
        return self._read_choices(chunk) and with_usage

    def is_plain(self, chunk: bytes) -> bool:
        """Of one choice, in the spelling of vLLM. Keys are looked for as bytes: inside of a text their quotes would be escaped.

        A server that wrote a key twice, or escaped one, could deceive it, and would deceive its own client.
        """
        if not (self.content and self._one and chunk.startswith(b"data: {") and chunk.endswith(b"}\n\n")):
            return False
        events = chunk.count(b"\n\n")
        return (
            chunk.count(b"\n") == 2 * events
            and chunk.count(b"data: {") == events == chunk.count(b'"finish_reason":null')
            and chunk.count(b'"index":') == events == chunk.count(b'"index":0')
            and not (b'"error"' in chunk or b"\r" in chunk or (b'"usage"' in chunk and _USAGE.search(chunk)))
        )

    @property
    def _one(self) -> bool:
        return len(self._begun) == 1 and 0 in self._begun

    def _read_choices(self, chunk: _Chunk) -> bool:
        for choice in chunk.choices or ():
            self.content = self.content or _says_something(choice)
            self._begun.add(choice.index)
            if choice.finish_reason:
                self._finished.add(choice.index)
        return chunk.choices == []


def _says_something(choice: _Choice) -> bool:
    if choice.text or choice.finish_reason:
        return True
    delta = choice.delta
    if delta is None:
        return False
    values = (getattr(delta, name) for name in delta.__struct_fields__)
    return any(bytes(value) not in _EMPTY for value in values)


class _NamedReader:
    """What readers of streams have in common whose last event says by its name that it is the last."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.content = self.failed = self.ended = False

    @property
    def over(self) -> bool:
        return self.ended

    def is_plain(self, chunk: bytes) -> bool:
        return False


class _ResponseEvent(msgspec.Struct):
    type: str = ""
    delta: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_RESPONSE_EVENT = msgspec.json.Decoder(_ResponseEvent)


class ResponseReader(_NamedReader):
    """Reads the events of one stream of OpenAI's Responses API: it ends with the response completed, or incomplete."""

    def read(self, event: bytes) -> bool:
        payload = payload_of(event)
        try:
            said = _RESPONSE_EVENT.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if said.type in ("error", "response.failed") or bytes(said.error) not in _EMPTY:
            self.failed = True
        elif said.type in ("response.completed", "response.incomplete"):
            self.usage = read_io_usage(payload) or self.usage
            self.content = self.ended = True
        elif bytes(said.delta) not in _EMPTY:
            self.content = True
        return False


class _MessageEvent(msgspec.Struct):
    type: str = ""


_MESSAGE_EVENT = msgspec.json.Decoder(_MessageEvent)


class MessageReader(_NamedReader):
    """Reads the events of one stream of Anthropic's Messages API: it ends with message_stop."""

    def read(self, event: bytes) -> bool:
        payload = payload_of(event)
        try:
            kind = _MESSAGE_EVENT.decode(payload).type
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if kind == "error":
            self.failed = True
        elif kind == "message_stop":
            self.content = self.ended = True
        elif kind in ("message_start", "message_delta"):
            self.usage = read_message_usage(payload, self.usage)
            self.content = self.content or kind == "message_delta"
        elif kind == "content_block_delta":
            self.content = True
        return False
