"""The requests that clients send. Typed only where something is read; the rest stays the bytes that it was."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import msgspec

from gateway.errors import BadRequestError
from router.conversation import clip, is_retry, looked_at
from router.decision import NO_OVERRIDES, Asked, Overrides, Query
from router.experts import Defaults

Raw = msgspec.Raw
# English text is about four characters a token; no tokenizer in use packs ordinary text tighter than eight.
BYTES_PER_TOKEN = 4
MOST_BYTES_PER_TOKEN = 8
IMAGE_TOKENS = 500
# Far beyond what a conversation has; walking through millions would keep the others waiting.
MAX_MESSAGES = 20_000
MAX_PARTS = 20_000
MAX_FIELDS = 1_000


class Part(msgspec.Struct):
    type: str = "text"
    text: str | None = None
    input: Raw = Raw()
    content: Raw = Raw()

    @property
    def written(self) -> int:
        """The bytes of JSON that it holds beside its text: the arguments of a tool's call, or what the tool answered."""
        return sum(len(json) for json in (self.input, self.content) if not _absent(json))


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None
    tool_calls: Raw = Raw()
    function_call: Raw = Raw()

    @property
    def written(self) -> int:
        """The bytes of JSON that it holds beside its text: the calls of tools, with their arguments."""
        return sum(len(calls) for calls in (self.tool_calls, self.function_call) if not _absent(calls))


@dataclass(frozen=True, slots=True)
class Turn:
    """One time that the user spoke. `before` and `after` are the conversation's size in tokens without and with it, `kinds`
    the kinds of parts that the conversation had with it."""

    text: str
    before: int
    after: int
    kinds: frozenset[str]


@dataclass
class Survey:
    """What one walk over the messages found: bytes of text, the kinds of parts and how many, what the user said.

    `written` are the bytes of JSON beside the text: the tools that may be called, and the calls. A worker shows them to its
    model in a spelling of its own, so that they count for an estimate, and for nothing that is sure.
    `continues` says that the last message goes on with an answer under way: it is a tool's result, a library's request to
    answer again without mistakes, or the start of the answer itself. Such messages are no turns of the user; whatever else
    is said in the user's name is one, an answer to a tool's call or not.
    """

    size: int = 0
    written: int = 0
    images: int = 0
    parts: int = 0
    kinds: set[str] = field(default_factory=set)
    turns: list[Turn] = field(default_factory=list)
    continues: bool = False

    @staticmethod
    def of(messages: list[Message], tools: int = 0) -> Survey:
        """`tools` are the bytes of the tools' descriptions, which stand before all messages.

        Raises BadRequestError where there are too many messages or parts, or a user message has nothing in it."""
        _at_most(len(messages), MAX_MESSAGES, "messages")
        survey = Survey(written=tools)
        for i, message in enumerate(messages):
            if message.role == "user" and message.content in (None, []):
                raise BadRequestError(f"messages[{i}].content is empty; a user message needs text.", param="messages")
            before = survey.tokens
            text = survey._text_of(message.content)
            survey.size += len(text.encode("utf-8", "replace"))
            survey.written += message.written
            if message.role == "user":
                survey._user(text, message, before)
            elif message.role not in ("system", "developer"):
                survey.continues = True
        return survey

    @property
    def tokens(self) -> int:
        """The estimated size of what was walked over so far."""
        return (self.size + self.written) // BYTES_PER_TOKEN + self.images * IMAGE_TOKENS

    def _user(self, text: str, message: Message, before: int) -> None:
        """A message in the user's name."""
        parts = message.content if isinstance(message.content, list) else []
        result = not text.strip() and any(part.type == "tool_result" for part in parts)
        self.continues = bool(self.turns) and (result or is_retry(text))
        if text.strip() and not self.continues:
            self.turns.append(Turn(text, before, self.tokens, frozenset(self.kinds)))

    def _text_of(self, content: str | list[Part] | None) -> str:
        if not isinstance(content, list):
            return content or ""
        self.parts += len(content)
        _at_most(self.parts, MAX_PARTS, "parts of messages")
        for part in content:
            self.kinds.add(part.type)
            self.images += part.type == "image_url"
            self.written += part.written
        return "\n".join(part.text for part in content if part.text)


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
        # Decoding millions of them would hold the interpreter for seconds; counting holds it for milliseconds. A quote
        # inside of text is escaped, so only keys and whole values are counted.
        _at_most(body.count(b'"role"'), 2 * MAX_MESSAGES, "messages")
        _at_most(body.count(b'"type"'), 10 * MAX_PARTS, "parts of messages")
        fields: ChatFields = _decode(body, _FIELDS)
        if not fields.messages:
            raise BadRequestError("messages is empty; send at least one message.", param="messages")
        survey = Survey.of(fields.messages, sum(map(len, fields.all_tools)))
        raw: dict[str, Raw] = _decode(body, _RAW)
        _at_most(len(raw), MAX_FIELDS, "fields")
        return Chat(fields, raw, survey)

    def query(self, overrides: Overrides = NO_OVERRIDES) -> Query:
        """What the router is asked."""
        survey = self._survey
        turns = looked_at(survey.turns)
        *earlier, text = [clip(turn.text) for turn in turns] or [""]
        return Query(
            text=text,
            requested_model=self.fields.model,
            needs=self._needs(survey.kinds),
            tokens=survey.tokens,
            least_tokens=survey.size // MOST_BYTES_PER_TOKEN,
            earlier=tuple(earlier),
            continues=survey.continues,
            overrides=overrides,
            answer_tokens=self._count("max_completion_tokens", "max_tokens"),
            answers=self._count("n") or 1,
            asked=tuple(Asked(turn.before, turn.after, self._needs(turn.kinds)) for turn in turns),
        )

    def _needs(self, kinds: Collection[str]) -> frozenset[str]:
        """What the expert has to be able to, where the conversation has parts of these kinds."""
        fields = self.fields
        needs = {"tools": bool(fields.all_tools), "vision": "image_url" in kinds, "audio": "input_audio" in kinds}
        needs["json_schema"] = fields.response_format is not None and fields.response_format.type == "json_schema"
        needs["logprobs"] = bool(fields.logprobs)
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
            if value is not None and all(_absent(fields.get(key)) for key in taken):
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
    size = len(text.encode("utf-8", "replace"))
    tokens, least = size // BYTES_PER_TOKEN, size // MOST_BYTES_PER_TOKEN
    asked = (Asked(0, tokens),) if text.strip() else ()
    return Query(clip(text), model, tokens=tokens, least_tokens=least, overrides=overrides, asked=asked)


def _at_most(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise BadRequestError(f"The request has {count} {what}; {limit} is the most that is taken.")


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


def _absent(value: Raw | None) -> bool:
    return value is None or bytes(value) in (b"", b"null")


def _with_usage(options: Raw | None) -> Raw:
    known = {} if options is None or _absent(options) else msgspec.json.decode(options, type=dict[str, Raw])
    return _raw({**known, "include_usage": True})


_FIELDS = msgspec.json.Decoder(ChatFields)
_RAW = msgspec.json.Decoder(dict[str, Raw])
_ROUTE = msgspec.json.Decoder(RouteFields)
