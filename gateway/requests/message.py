"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's Messages API.

An expert whose server speaks it gets the client's bytes; one that speaks only chat gets them translated, and so does the
client its answer (see gateway/translation).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, Self

import msgspec

from gateway.errors import ANTHROPIC, BadRequestError, Shape
from gateway.events import ChunkReader, MessageReader, StreamReader
from gateway.requests.base import Native, Wire
from gateway.requests.chat import prefix_of
from gateway.requests.fields import Raw, check_pieces, count, decode, encoded, fields_of, with_defaults
from gateway.translation.counting import count_answer, counted, rendered_body
from gateway.translation.to_chat import chat_fields
from gateway.translation.to_events import EventTranslator
from gateway.translation.to_message import message_of
from gateway.usage import Usage, read_message_usage, read_usage
from router.decision import NO_OVERRIDES, Overrides, Query
from router.errors import MessagesError
from router.experts import Expert
from router.messages import Message, Part, Survey, absent


class OutputFormat(msgspec.Struct):
    type: str = "text"


class OutputConfig(msgspec.Struct):
    format: OutputFormat | None = None


class MessageFields(msgspec.Struct):
    """What is read of a request for a message."""

    messages: list[Message]
    model: str = "auto"
    system: str | list[Part] | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    tools: list[Raw] | None = None
    output_config: OutputConfig | None = None


class MessageRequest(Native):
    """A request for a message. It is its own Wire for servers that speak the API."""

    endpoint: ClassVar[str] = "messages"
    path = "/messages"
    shape: ClassVar[Shape] = ANTHROPIC
    names: ClassVar[Mapping[str, str]] = {"response_format": "output_config.format"}
    continues_kept = False
    hide_usage = False
    interchangeable = True

    def __init__(self, fields: MessageFields, raw: Mapping[str, Raw]) -> None:
        self.fields, self.raw = fields, raw
        self.stream = bool(fields.stream)
        self.messages = [*([] if fields.system is None else [Message("system", fields.system)]), *fields.messages]
        self._survey = Survey.of(self.messages, sum(map(len, fields.tools or ())))

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises BadRequestError saying what is wrong and where."""
        try:
            check_pieces(body)
            fields: MessageFields = decode(body, _FIELDS)
            if not fields.messages:
                raise BadRequestError("messages is empty; send at least one message.", param="messages")
            cls._check(fields)
            return cls(fields, fields_of(body))
        except MessagesError as error:
            raise BadRequestError(str(error), param=error.param) from None

    @staticmethod
    def _check(fields: MessageFields) -> None:
        if fields.max_tokens is None or fields.max_tokens < 1:
            raise BadRequestError("max_tokens must be there and be at least 1.", param="max_tokens")

    @property
    def wires(self) -> Mapping[str, Wire]:
        return {"messages": self, "chat": TranslatedMessage(self)}

    @cached_property
    def affinity(self) -> bytes:
        return prefix_of(self.messages, self.raw)

    def query(self, overrides: Overrides = NO_OVERRIDES) -> Query:
        return replace(
            self._survey.query(self._needs()),
            requested_model=self.fields.model,
            overrides=overrides,
            answer_tokens=count(self.raw, "max_tokens"),
        )

    def _needs(self) -> frozenset[str]:
        config = self.fields.output_config
        schema = config is not None and config.format is not None and config.format.type == "json_schema"
        needs = {"tools": bool(self.fields.tools), "json_schema": schema}
        return frozenset(need for need, needed in needs.items() if needed)

    def body(self, expert: Expert) -> bytes:
        """Every value as the client sent it, but for the model and the expert's defaults."""
        fields = self.filled(expert)
        fields["model"] = encoded(expert.upstream_model)
        return msgspec.json.encode(fields)

    def filled(self, expert: Expert) -> dict[str, Raw]:
        """The request's fields with the expert's defaults."""
        fields = dict(self.raw)
        with_defaults(fields, expert.defaults)
        if expert.defaults.system is not None and absent(fields.get("system")):
            fields["system"] = encoded(expert.defaults.system)
        return fields

    def reader(self) -> StreamReader:
        return MessageReader()

    def usage(self, content: bytes) -> Usage | None:
        return read_message_usage(content)


class CountTokens(MessageRequest):
    """How many tokens a request for a message would have. It costs nothing."""

    endpoint: ClassVar[str] = "messages.count_tokens"
    path = "/messages/count_tokens"

    def __init__(self, fields: MessageFields, raw: Mapping[str, Raw]) -> None:
        super().__init__(fields, raw)
        self.stream = False  # whatever it says: there is one number to tell

    @staticmethod
    def _check(fields: MessageFields) -> None:
        """Nothing is asked of the rest."""

    @property
    def wires(self) -> Mapping[str, Wire]:
        return {"messages": self, "tokenize": TokenizedChat(self)}

    def usage(self, content: bytes) -> Usage | None:
        return Usage()


class TokenizedChat:
    """The count, of a server that speaks only chat: vLLM's own /tokenize, which stands beside its /v1."""

    path = "/../tokenize"
    stream = hide_usage = False

    def __init__(self, request: CountTokens) -> None:
        self._request = request

    def body(self, expert: Expert) -> bytes:
        return rendered_body(chat_fields(self._request.filled(expert)) | {"model": expert.upstream_model})

    def reader(self) -> StreamReader:
        return ChunkReader()

    def usage(self, content: bytes) -> Usage | None:
        return Usage()

    def whole(self, content: bytes) -> bytes:
        return count_answer(counted(content))

    def translator(self) -> None:
        return None


class TranslatedMessage:
    """A request for a message, put to a server that speaks only chat."""

    path = "/chat/completions"
    hide_usage = False

    def __init__(self, request: MessageRequest) -> None:
        self._request = request
        self.stream = request.stream

    def body(self, expert: Expert) -> bytes:
        return msgspec.json.encode(chat_fields(self._request.filled(expert)) | {"model": expert.upstream_model})

    def reader(self) -> StreamReader:
        return ChunkReader()

    def usage(self, content: bytes) -> Usage | None:
        return read_usage(content)

    def whole(self, content: bytes) -> bytes:
        return message_of(content)

    def translator(self) -> EventTranslator:
        return EventTranslator()


_FIELDS = msgspec.json.Decoder(MessageFields)
