"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, Self

import msgspec

from gateway.errors import OPENAI, BadRequestError, Shape
from gateway.events import ChunkReader, StreamReader
from gateway.requests.base import Native, Wire
from gateway.requests.fields import (
    Raw,
    check_pieces,
    count,
    decode,
    encoded,
    fields_of,
    text,
    with_defaults,
    with_usage,
)
from gateway.usage import Usage, read_usage
from router.decision import NO_OVERRIDES, Overrides, Query
from router.errors import MessagesError
from router.experts import Expert
from router.messages import Message, Survey, absent

LIMITS = ("max_tokens", "max_completion_tokens")


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct):
    type: str = "text"


class ChatFields(msgspec.Struct):
    """What is read of a chat request."""

    messages: list[Message]
    model: str = "auto"
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[Raw] | None = None
    functions: list[Raw] | None = None  # what tools were called before
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    modalities: list[str] | None = None

    @property
    def all_tools(self) -> list[Raw]:
        return [*(self.tools or ()), *(self.functions or ())]


class Chat(Native):
    """A chat completion request: the fields that are read, and all of them as they came. It is its own Wire."""

    endpoint: ClassVar[str] = "chat.completions"
    path = "/chat/completions"
    shape: ClassVar[Shape] = OPENAI
    names: ClassVar[Mapping[str, str]] = {}
    continues_kept = False
    interchangeable = True

    def __init__(self, fields: ChatFields, raw: Mapping[str, Raw], survey: Survey) -> None:
        self.fields, self._raw, self._survey = fields, raw, survey
        self.stream = bool(fields.stream)
        self.hide_usage = not (fields.stream_options and fields.stream_options.include_usage)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises BadRequestError saying what is wrong and where."""
        try:
            return cls._parsed(body)
        except MessagesError as error:
            raise BadRequestError(str(error), param=error.param) from None

    @classmethod
    def _parsed(cls, body: bytes) -> Self:
        check_pieces(body)
        fields: ChatFields = decode(body, _FIELDS)
        if not fields.messages:
            raise BadRequestError("messages is empty; send at least one message.", param="messages")
        survey = Survey.of(fields.messages, sum(map(len, fields.all_tools)))
        return cls(fields, fields_of(body), survey)

    @property
    def wires(self) -> Mapping[str, Wire]:
        return {"chat": self}

    @cached_property
    def affinity(self) -> bytes:
        """The conversation up to the first time that the user spoke, which every later turn begins with."""
        return prefix_of(self.fields.messages, self._raw)

    def query(self, overrides: Overrides = NO_OVERRIDES) -> Query:
        return replace(
            self._survey.query(self._needs()),
            requested_model=self.fields.model,
            overrides=overrides,
            answer_tokens=count(self._raw, "max_completion_tokens", "max_tokens"),
            answers=count(self._raw, "n") or 1,
        )

    def _needs(self) -> frozenset[str]:
        """What the expert has to be able to, whatever the messages are."""
        fields = self.fields
        needs = {
            "tools": bool(fields.all_tools),
            "json_schema": fields.response_format is not None and fields.response_format.type == "json_schema",
            "logprobs": bool(fields.logprobs),
            "audio": "audio" in (fields.modalities or ()),
            "n": (count(self._raw, "n") or 1) > 1,
        }
        return frozenset(need for need, needed in needs.items() if needed)

    def body(self, expert: Expert) -> bytes:
        """Every value as the client sent it, but for the model, usage on streams and the expert's defaults."""
        fields, defaults = dict(self._raw), expert.defaults
        fields["model"] = encoded(expert.upstream_model)
        if self.stream:
            fields["stream_options"] = with_usage(fields.get("stream_options"))
        with_defaults(fields, defaults, *LIMITS)
        if "max_completion_tokens" in expert.lacks and not absent(fields.get("max_completion_tokens")):
            limit = fields.pop("max_completion_tokens")
            fields["max_tokens"] = limit  # where both are said this one counts, as at OpenAI
        if "developer" in expert.lacks and any(m.role == "developer" for m in self.fields.messages):
            fields["messages"] = _without_developer(fields["messages"])
        if defaults.system is not None and not any(m.role in ("system", "developer") for m in self.fields.messages):
            system = msgspec.json.encode({"role": "system", "content": defaults.system})
            fields["messages"] = Raw(b"[" + system + b"," + bytes(fields["messages"]).lstrip()[1:])
        return msgspec.json.encode(fields)

    def reader(self) -> StreamReader:
        return ChunkReader(count(self._raw, "n") or 1)

    def usage(self, content: bytes) -> Usage | None:
        return read_usage(content)


def _without_developer(messages: Raw) -> Raw:
    """The messages with those of the role developer told as the system's; every other value stays the bytes that it was."""
    told = _MESSAGES.decode(messages)
    for message in told:
        if msgspec.json.decode(message["role"]) == "developer":
            message["role"] = encoded("system")
    return encoded(told)


def prefix_of(messages: list[Message], raw: Mapping[str, Raw]) -> bytes:
    """The text up to the first message in the user's name, that one included, and before it the client's prompt_cache_key."""
    texts = [text(raw, "prompt_cache_key") or ""]
    for message in messages:
        content = message.content
        texts.append(content if isinstance(content, str) else "\n".join(part.text or "" for part in content or ()))
        if message.role == "user":
            break
    return "\0".join(texts).encode("utf-8", "replace")


_FIELDS = msgspec.json.Decoder(ChatFields)
_MESSAGES = msgspec.json.Decoder(list[dict[str, Raw]])
