"""Tokens and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec

from router.prices import PER_MILLION, Price

# No answer has more; a count beyond it is an upstream's nonsense and would overflow the arithmetic.
MOST = 2**40
Count = Annotated[int, msgspec.Meta(ge=0, le=MOST)]


class _Details(msgspec.Struct):
    """Of counts that are told beside them: nonsense here does not make those unknown."""

    cached_tokens: Annotated[int, msgspec.Meta(le=MOST)] | None = None
    reasoning_tokens: Annotated[int, msgspec.Meta(le=MOST)] | None = None


class _Counts(msgspec.Struct):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _WithUsage(msgspec.Struct):
    usage: _Counts | None = None


class _IoCounts(msgspec.Struct):
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None


class _WithIoUsage(msgspec.Struct):
    usage: _IoCounts | None = None


class _Response(_WithIoUsage):
    response: _WithIoUsage | None = None


class _MessageEvent(_WithIoUsage):
    message: _WithIoUsage | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer. `input` leaves out `cached_input`; `reasoning` is a part of `output`."""

    input: int = 0
    cached_input: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        return self.input + self.cached_input + self.output

    def cost(self, price: Price) -> float:
        """USD."""
        said = self.output - self.reasoning
        read = self.input * price.input + self.cached_input * price.cached
        return (read + said * price.output + self.reasoning * price.reasoned) / PER_MILLION


def read_usage(payload: bytes) -> Usage | None:
    """The usage of an answer, or of one event of a stream, in OpenAI's shape; None where there is none that can be read."""
    try:
        counts = _DECODER.decode(payload).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if counts is None or (counts.prompt_tokens is None and counts.completion_tokens is None):
        return None
    details = counts.prompt_tokens_details
    prompt = counts.prompt_tokens or 0
    cached = min(prompt, max(0, (details.cached_tokens or 0) if details else 0))
    output = counts.completion_tokens or 0
    finer = counts.completion_tokens_details
    reasoning = min(output, max(0, (finer.reasoning_tokens or 0) if finer else 0))
    return Usage(input=prompt - cached, cached_input=cached, output=output, reasoning=reasoning)


def read_io_usage(payload: bytes) -> Usage | None:
    """The usage of a response of OpenAI's Responses API, or of an event of its stream that holds one."""
    try:
        told = _RESPONSES.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    counts = told.usage or (told.response.usage if told.response else None)
    if counts is None or (counts.input_tokens is None and counts.output_tokens is None):
        return None
    inner, finer = counts.input_tokens_details, counts.output_tokens_details
    whole, output = counts.input_tokens or 0, counts.output_tokens or 0
    cached = min(whole, max(0, (inner.cached_tokens or 0) if inner else 0))
    reasoning = min(output, max(0, (finer.reasoning_tokens or 0) if finer else 0))
    return Usage(input=whole - cached, cached_input=cached, output=output, reasoning=reasoning)


def read_message_usage(payload: bytes, before: Usage | None = None) -> Usage | None:
    """The usage of an Anthropic message, or of an event of its stream: what one leaves out is as the one `before` said.

    Anthropic counts what came from the cache beside `input_tokens`, and what was written to it as well; that is input here.
    """
    try:
        told = _MESSAGES.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return before
    counts = told.usage or (told.message.usage if told.message else None)
    if counts is None:
        return before
    known = before or Usage()
    fresh = [c for c in (counts.input_tokens, counts.cache_creation_input_tokens) if c is not None]
    cached, output = counts.cache_read_input_tokens, counts.output_tokens
    if not fresh and cached is None and output is None:
        return before
    return Usage(
        input=sum(fresh) if fresh else known.input,
        cached_input=known.cached_input if cached is None else cached,
        output=known.output if output is None else output,
    )


_DECODER = msgspec.json.Decoder(_WithUsage)
_RESPONSES = msgspec.json.Decoder(_Response)
_MESSAGES = msgspec.json.Decoder(_MessageEvent)
