"""POST /v1/responses: OpenAI's Responses API, as an expert's server keeps it or does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, Self

import msgspec

from gateway.errors import OPENAI_RESPONSES, BadRequestError, Shape
from gateway.events import ResponseReader, StreamReader
from gateway.requests.base import Native, Wire
from gateway.requests.chat import prefix_of
from gateway.requests.fields import Raw, check_pieces, count, decode, encoded, fields_of, with_defaults
from gateway.usage import Usage, read_io_usage
from router.decision import NO_OVERRIDES, Overrides, Query
from router.errors import MessagesError
from router.experts import Expert
from router.messages import Message, Part, Survey, absent

STATE = ("previous_response_id", "conversation", "background")  # what only a server that keeps responses can do


class Item(msgspec.Struct):
    """One item of the input: a message, or what a tool was asked or answered."""

    type: str = "message"
    role: str | None = None
    content: str | list[Part] | None = None
    arguments: Raw = Raw()
    output: Raw = Raw()


class TextFormat(msgspec.Struct):
    type: str = "text"


class TextOptions(msgspec.Struct):
    format: TextFormat | None = None


class ResponseFields(msgspec.Struct):
    """What is read of a responses request."""

    input: str | list[Item] | None = None
    model: str = "auto"
    instructions: str | None = None
    stream: bool | None = None
    tools: list[Raw] | None = None
    text: TextOptions | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None


class ResponseRequest(Native):
    """A request for a response. It is its own Wire."""

    endpoint: ClassVar[str] = "responses"
    path = "/responses"
    shape: ClassVar[Shape] = OPENAI_RESPONSES
    names: ClassVar[Mapping[str, str]] = {
        "messages": "input",
        "response_format": "text.format",
        "logprobs": "top_logprobs",
    }
    hide_usage = False
    interchangeable = True

    def __init__(self, fields: ResponseFields, raw: Mapping[str, Raw]) -> None:
        self.fields, self._raw = fields, raw
        self.stream = bool(fields.stream)
        self.messages = list(_messages(fields))
        self._survey = Survey.of(self.messages, sum(map(len, fields.tools or ())))

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises BadRequestError saying what is wrong and where."""
        try:
            check_pieces(body)
            fields: ResponseFields = decode(body, _FIELDS)
            raw = fields_of(body)
            if not fields.input and not any(_said(raw.get(name)) for name in (*STATE, "prompt")):
                raise BadRequestError("input is missing; send a text or a list of items.", param="input")
            return cls(fields, raw)
        except MessagesError as error:
            param = error.param.replace("messages", "input") if error.param else None
            raise BadRequestError(str(error).replace("messages", "input"), param=param) from None

    @property
    def wires(self) -> Mapping[str, Wire]:
        return {"responses": self}

    @property
    def continues_kept(self) -> bool:
        return any(_said(self._raw.get(name)) for name in STATE)

    @cached_property
    def affinity(self) -> bytes:
        return prefix_of(self.messages, self._raw)

    def query(self, overrides: Overrides = NO_OVERRIDES) -> Query:
        return replace(
            self._survey.query(self._needs()),
            requested_model=self.fields.model,
            overrides=overrides,
            answer_tokens=count(self._raw, "max_output_tokens"),
        )

    def _needs(self) -> frozenset[str]:
        fields = self.fields
        form = fields.text.format if fields.text else None
        needs = {
            "tools": bool(fields.tools),
            "json_schema": form is not None and form.type == "json_schema",
            "logprobs": bool(fields.top_logprobs) or any("logprobs" in what for what in fields.include or ()),
            "state": self.continues_kept,
        }
        return frozenset(need for need, needed in needs.items() if needed)

    def body(self, expert: Expert) -> bytes:
        """Every value as the client sent it, but for the model and the expert's defaults."""
        fields = dict(self._raw)
        fields["model"] = encoded(expert.upstream_model)
        with_defaults(fields, expert.defaults, "max_output_tokens")
        told = any(message.role in ("system", "developer") for message in self.messages)
        if expert.defaults.system is not None and not told:
            fields["instructions"] = encoded(expert.defaults.system)
        return msgspec.json.encode(fields)

    def reader(self) -> StreamReader:
        return ResponseReader()

    def usage(self, content: bytes) -> Usage | None:
        return read_io_usage(content)


def _said(value: Raw | None) -> bool:
    return not absent(value) and bytes(value or b"") != b"false"


def _messages(fields: ResponseFields) -> Iterator[Message]:
    """The input as messages of a chat, as far as routing looks at them."""
    if fields.instructions:
        yield Message("system", fields.instructions)
    if isinstance(fields.input, str):
        yield Message("user", fields.input)
        return
    for item in fields.input or ():
        if item.role is not None:
            yield Message(item.role, item.content)
        elif item.type.endswith("_output"):
            yield Message("tool", None, item.output)
        else:
            yield Message("assistant", None, item.arguments)


_FIELDS = msgspec.json.Decoder(ResponseFields)
