"""What a chat answer and a message have in common, whether they come in one piece or as a stream."""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec
from pydantic_core import from_json

from gateway.usage import Usage
from router.messages import absent

Raw = msgspec.Raw
STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
# Thinking has to be signed: clients keep a block and send it back only if it is. It says who did; nobody checks it here.
SIGNATURE = "moe-gateway"
# Under this name Anthropic tells clients to send back arguments that are no JSON.
INVALID = "INVALID_JSON"


class UnreadableAnswerError(ValueError):
    """An expert's answer is not what a chat completion is."""


class Function(msgspec.Struct):
    name: str | None = None
    arguments: Raw = Raw()

    @property
    def written(self) -> str:
        """The arguments as they were written, so far. They are to be JSON in a string; some servers send the JSON itself."""
        if absent(self.arguments):
            return ""
        text = bytes(self.arguments)
        try:
            return str(_STRING.decode(text)) if text.startswith(b'"') else text.decode()
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UnreadableAnswerError("The arguments of a call are no text.") from None


class TextPart(msgspec.Struct):
    text: str | None = None


class Call(msgspec.Struct):
    """A call of a tool, whole or a part of one; `index` tells it from others in a stream."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Said(msgspec.Struct):
    """What an answer says, or a chunk of its stream."""

    content: str | list[TextPart] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None


def text_of(content: str | list[TextPart] | None) -> str:
    return "".join(part.text or "" for part in content) if isinstance(content, list) else content or ""


def message_id(chat_id: str | None) -> str:
    """An id in Anthropic's form in which the expert's own is found again."""
    return "msg_" + ((chat_id or "").removeprefix("chatcmpl-") or uuid.uuid4().hex)


def call_id(chat_id: str | None) -> str:
    return chat_id or f"toolu_{uuid.uuid4().hex}"


def stop_reason(finish: str | None, stop: Any, called: bool, refused: bool) -> tuple[str, str | None]:
    """Why the answer ended, and the stop sequence that ended it, which few servers tell: vLLM in `stop_reason`, SGLang in
    `matched_stop` (a number there is a token's). Some say stop although they called a tool."""
    if refused:
        return "refusal", None
    reason = STOP_REASONS.get(finish or "stop", "end_turn")
    if reason == "end_turn" and called:
        return "tool_use", None
    if reason == "end_turn" and isinstance(stop, str):
        return "stop_sequence", stop
    return reason, None


def usage_fields(usage: Usage | None) -> dict[str, int]:
    """In Anthropic's words; what is not known is 0, as none of their clients takes null."""
    usage = usage or Usage()
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_input,
        "output_tokens": usage.output,
    }


def tool_input(arguments: str) -> Raw:
    """The arguments of a call as an object, every number as it was written.

    Of an object that was broken off, what had been written; what follows a whole one is left out, as clients that read the
    stream do. What is no object goes to the client as a text in one.
    """
    text = arguments.strip() or "{}"
    encoded = text.encode("utf-8", "backslashreplace")  # half a character, alone, becomes \\udxxx, as JSON writes it
    if is_object(encoded):
        return Raw(encoded)
    try:
        value, end = _PLAIN.raw_decode(text)
        if isinstance(value, dict):
            return Raw(text[:end].encode("utf-8", "backslashreplace"))
        begun = None
    except (ValueError, RecursionError):
        begun = _broken_off(encoded)
    return Raw(_dumped({INVALID: arguments} if begun is None else begun))


def _broken_off(text: bytes) -> dict[str, Any] | None:
    """What is whole in the beginning of an object; None where it is no such beginning."""
    try:
        begun = from_json(text, allow_partial=True, allow_inf_nan=False)
    except ValueError:
        return None
    return begun if isinstance(begun, dict) else None


def _dumped(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


def is_object(text: bytes) -> bool:
    """Whether this is one whole JSON object."""
    try:
        _OBJECT.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def decoded(payload: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    """A chat answer, or a chunk of one. Raises UnreadableAnswerError."""
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        first = error
    try:  # half a character, alone, is taken by Python's own decoder only; no client's takes it
        loose = json.dumps(json.loads(payload), ensure_ascii=False).encode("utf-8", "replace")
        return decoder.decode(loose)
    except (ValueError, RecursionError):
        raise UnreadableAnswerError(f"The expert's answer is no chat completion: {first}.") from None


_STRING = msgspec.json.Decoder(str)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_PLAIN = json.JSONDecoder()
