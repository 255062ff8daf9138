"""The requests that clients send. Typed only where something is read; the rest stays the bytes that it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

import msgspec

from gateway.errors import BadRequestError
from router.decision import NO_OVERRIDES, Overrides, Query
from router.errors import MessagesError
from router.experts import Defaults
from router.messages import MAX_MESSAGES, MAX_PARTS, Message, Survey, absent, at_most

Raw = msgspec.Raw
MAX_FIELDS = 1_000


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

    @property
    def all_tools(self) -> list[Raw]:
        return [*(self.tools or ()), *(self.functions or ())]


class Chat:
    """A chat completion request: the fields that are read, and all of them as they came."""

    def __init__(self, fields: ChatFields, raw: Mapping[str, Raw], survey: Survey) -> None:
        self.fields, self._raw, self._survey = fields, raw, survey
        self.stream = bool(fields.stream)
        self.wants_usage = bool(fields.stream_options and fields.stream_options.include_usage)

    @staticmethod
    def parse(body: bytes) -> Chat:
        """Raises BadRequestError saying what is wrong and where."""
        try:
            return Chat._parsed(body)
        except MessagesError as error:
            raise BadRequestError(str(error), param=error.param) from None

    @staticmethod
    def _parsed(body: bytes) -> Chat:
        # Decoding millions of them would hold the interpreter for seconds; counting holds it for milliseconds. A quote
        # inside of text is escaped, so only keys and whole values are counted.
        at_most(body.count(b'"role"'), 2 * MAX_MESSAGES, "messages")
        at_most(body.count(b'"type"'), 10 * MAX_PARTS, "parts of messages")
        fields: ChatFields = _decode(body, _FIELDS)
        if not fields.messages:
            raise BadRequestError("messages is empty; send at least one message.", param="messages")
        survey = Survey.of(fields.messages, sum(map(len, fields.all_tools)))
        raw: dict[str, Raw] = _decode(body, _RAW)
        at_most(len(raw), MAX_FIELDS, "fields")
        return Chat(fields, raw, survey)

    def query(self, overrides: Overrides = NO_OVERRIDES) -> Query:
        """What the router is asked."""
        return replace(
            self._survey.query(self._needs()),
            requested_model=self.fields.model,
            overrides=overrides,
            answer_tokens=self._count("max_completion_tokens", "max_tokens"),
            answers=self._count("n") or 1,
        )

    def _needs(self) -> frozenset[str]:
        """What the expert has to be able to, whatever the messages are."""
        fields = self.fields
        schema = fields.response_format is not None and fields.response_format.type == "json_schema"
        needs = {"tools": bool(fields.all_tools), "json_schema": schema, "logprobs": bool(fields.logprobs)}
        return frozenset(need for need, needed in needs.items() if needed)

    def _count(self, *names: str) -> int | None:
        """The number above 0 in the first of these fields that has one. What is no plain number is the expert's to refuse."""
        for name in names:
            raw = bytes(self._raw.get(name, b"")).strip()
            if raw.isdigit() and len(raw) < 10:
                return int(raw) or None
        return None

    def upstream_body(self, model: str, defaults: Defaults) -> bytes:
        """The body for an expert: every value as the client sent it, but for the model, usage on streams and the defaults."""
        fields = dict(self._raw)
        fields["model"] = _raw(model)
        if self.stream:
            fields["stream_options"] = _with_usage(fields.get("stream_options"))
        for name in ("temperature", "top_p", "max_tokens"):
            value = getattr(defaults, name)
            taken = ("max_tokens", "max_completion_tokens") if name == "max_tokens" else (name,)
            if value is not None and all(absent(fields.get(key)) for key in taken):
                fields[name] = _raw(value)
        if defaults.system is not None and not any(m.role in ("system", "developer") for m in self.fields.messages):
            system = msgspec.json.encode({"role": "system", "content": defaults.system})
            fields["messages"] = Raw(b"[" + system + b"," + bytes(fields["messages"]).lstrip()[1:])
        return msgspec.json.encode(fields)


class RouteFields(msgspec.Struct):
    input: str | None = None
    model: str = "auto"
    explain: bool | None = None


def parse_route(body: bytes, overrides: Overrides = NO_OVERRIDES) -> Query:
    """The query of POST /v1/route: a chat body, or {"input": "text"}, with a model or without. Raises BadRequestError."""
    fields: RouteFields = _decode(body, _ROUTE)
    if fields.input is None:
        return Chat.parse(body).query(overrides)
    if not fields.input.strip():
        raise BadRequestError("input is empty; send the text to route.", param="input")
    return text_query(fields.input, fields.model, overrides)


def wants_explanation(body: bytes) -> bool:
    """Whether a body that parse_route takes asks for the reasons of the decision as well: {"explain": true}."""
    return b'"explain"' in body and bool(_decode(body, _ROUTE).explain)


def text_query(text: str, model: str = "auto", overrides: Overrides = NO_OVERRIDES) -> Query:
    """The query of a bare prompt."""
    return replace(Survey.of([Message("user", text)]).query(), requested_model=model, overrides=overrides)


def _decode(body: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        _refuse(str(error))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    except RecursionError:
        raise BadRequestError("The JSON is nested too deeply.", code="invalid_json") from None


def _refuse(message: str) -> NoReturn:
    """msgspec's message ends in ` - at `$.messages[0].role``: the param that OpenAI's clients show."""
    what, _, where = message.partition(" - at ")
    param = where.strip("`").removeprefix("$").removeprefix(".") or None
    if "required field" in what:
        param = what.rpartition("field ")[2].strip("`") if param is None else param
    raise BadRequestError(f"{what}{f' at {param}' if where and param else ''}.", param=param)


def _raw(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))


def _with_usage(options: Raw | None) -> Raw:
    known = {} if options is None or absent(options) else msgspec.json.decode(options, type=dict[str, Raw])
    return _raw({**known, "include_usage": True})


_FIELDS = msgspec.json.Decoder(ChatFields)
_RAW = msgspec.json.Decoder(dict[str, Raw])
_ROUTE = msgspec.json.Decoder(RouteFields)
