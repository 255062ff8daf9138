"""POST /v1/completions: a text, or the ids of its tokens, to go on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self

import msgspec

from gateway.errors import OPENAI, BadRequestError, Shape
from gateway.events import ChunkReader, StreamReader
from gateway.requests.base import Native, Wire
from gateway.requests.chat import StreamOptions
from gateway.requests.fields import Raw, check_pieces, count, decode, encoded, fields_of, with_defaults, with_usage
from gateway.usage import Usage, read_usage
from router.decision import NO_OVERRIDES, Overrides, Query
from router.errors import MessagesError
from router.experts import Expert
from router.messages import BYTES_PER_TOKEN, Message, Survey, absent

MAX_PROMPT_TOKENS = 1_000_000  # of all prompts of a request together, where their ids are sent
PREFIX_CHARACTERS = 2_000  # of a prompt that decide which replica may know its beginning


class CompletionFields(msgspec.Struct):
    """What is read of a completion request. The prompt is a text, some, the ids of one's tokens, or those of some."""

    prompt: str | list[str | int | list[int]] | None = None
    model: str = "auto"
    suffix: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class Completion(Native):
    """A completion request. It is its own Wire."""

    endpoint: ClassVar[str] = "completions"
    path = "/completions"
    shape: ClassVar[Shape] = OPENAI
    names: ClassVar[Mapping[str, str]] = {"messages": "prompt"}
    continues_kept = False

    def __init__(self, fields: CompletionFields, raw: Mapping[str, Raw]) -> None:
        self.fields, self._raw = fields, raw
        self.stream = bool(fields.stream)
        self.hide_usage = not (fields.stream_options and fields.stream_options.include_usage)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises BadRequestError saying what is wrong and where."""
        try:
            check_pieces(body, MAX_PROMPT_TOKENS)
            fields: CompletionFields = decode(body, _FIELDS)
            raw = fields_of(body)
        except MessagesError as error:
            raise BadRequestError(str(error), param=error.param) from None
        if absent(raw.get("prompt")) and absent(raw.get("prompt_embeds")):
            raise BadRequestError("prompt is missing; send the text to go on with.", param="prompt")
        return cls(fields, raw)

    @property
    def wires(self) -> Mapping[str, Wire]:
        return {"completions": self}

    @property
    def interchangeable(self) -> bool:
        """The ids of tokens are those of one model's tokenizer."""
        prompt = self.fields.prompt
        return isinstance(prompt, str) or (isinstance(prompt, list) and all(isinstance(p, str) for p in prompt))

    @property
    def affinity(self) -> bytes:
        return self._text()[:PREFIX_CHARACTERS].encode("utf-8", "replace")

    def query(self, overrides: Overrides = NO_OVERRIDES) -> Query:
        text = self._text()
        survey = Survey.of([Message("user", text)]).query() if text.strip() else Query("")
        size = len(bytes(self._raw.get("prompt", b"")))
        return replace(
            survey,
            needs=frozenset({"n"} if (count(self._raw, "n") or 1) > 1 else ()) | self._wants_logprobs(),
            tokens=survey.tokens or size // BYTES_PER_TOKEN,
            requested_model=self.fields.model,
            overrides=overrides,
            answer_tokens=count(self._raw, "max_tokens"),
            answers=count(self._raw, "n") or 1,
        )

    @property
    def _prompts(self) -> int:
        """How many are asked for at once: each has answers of its own."""
        prompt = self.fields.prompt
        one = not isinstance(prompt, list) or not prompt or isinstance(prompt[0], int)
        return 1 if one else len(prompt or ())

    def _wants_logprobs(self) -> frozenset[str]:
        return frozenset() if absent(self._raw.get("logprobs")) else frozenset({"logprobs"})

    def _text(self) -> str:
        """The first prompt that is a text, and what is to follow it; empty where there are only ids of tokens."""
        prompt = self.fields.prompt
        texts = [prompt] if isinstance(prompt, str) else [p for p in prompt or () if isinstance(p, str)]
        return f"{texts[0]}\n{self.fields.suffix or ''}".strip() if texts else ""

    def body(self, expert: Expert) -> bytes:
        """Every value as the client sent it, but for the model, usage on streams and the expert's defaults."""
        fields = dict(self._raw)
        fields["model"] = encoded(expert.upstream_model)
        if self.stream:
            fields["stream_options"] = with_usage(fields.get("stream_options"))
        with_defaults(fields, expert.defaults, "max_tokens")
        return msgspec.json.encode(fields)

    def reader(self) -> StreamReader:
        return ChunkReader((count(self._raw, "n") or 1) * self._prompts)

    def usage(self, content: bytes) -> Usage | None:
        return read_usage(content)


_FIELDS = msgspec.json.Decoder(CompletionFields)
