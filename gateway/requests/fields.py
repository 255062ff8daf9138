"""Fields: a JSON object read only where something is read; the rest stays the bytes that it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from gateway.errors import BadRequestError
from router.experts import Defaults
from router.messages import MAX_MESSAGES, MAX_PARTS, absent, at_most

Raw = msgspec.Raw
MAX_FIELDS = 1_000


def decode(body: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    """Raises BadRequestError with what is wrong and the field that is."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        _refuse(str(error))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    except RecursionError:
        raise BadRequestError("The JSON is nested too deeply.", code="invalid_json") from None


def fields_of(body: bytes) -> dict[str, Raw]:
    """Every field as it came. Raises BadRequestError; MessagesError where there are absurdly many."""
    raw: dict[str, Raw] = decode(body, _RAW)
    at_most(len(raw), MAX_FIELDS, "fields")
    return raw


def check_pieces(body: bytes) -> None:
    """Raises MessagesError where a body holds more messages or parts than anybody sends.

    Decoding millions of them would hold the interpreter for seconds; counting holds it for milliseconds. A quote inside of
    text is escaped, so only keys and whole values are counted.
    """
    at_most(body.count(b'"role"'), 2 * MAX_MESSAGES, "messages")
    at_most(body.count(b'"type"'), 10 * MAX_PARTS, "parts of messages")


def count(raw: Mapping[str, Raw], *names: str) -> int | None:
    """The number above 0 in the first of these fields that has one. What is no plain number is the expert's to refuse."""
    for name in names:
        said = bytes(raw.get(name, b"")).strip()
        if said.isdigit() and len(said) < 10:
            return int(said) or None
    return None


def text(raw: Mapping[str, Raw], name: str) -> str | None:
    """The field where it is a text that is not empty."""
    try:
        return msgspec.json.decode(raw[name], type=str) or None
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def encoded(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))


def with_usage(options: Raw | None) -> Raw:
    """The stream_options that make a server tell usage at the end of its stream."""
    known = {} if options is None or absent(options) else msgspec.json.decode(options, type=dict[str, Raw])
    return encoded({**known, "include_usage": True})


def with_defaults(fields: dict[str, Raw], defaults: Defaults, *limits: str) -> None:
    """Fill in what the expert's defaults say and the request does not. `limits` are the names of the longest answer's length,
    the one to fill in first."""
    for name in ("temperature", "top_p"):
        value = getattr(defaults, name)
        if value is not None and absent(fields.get(name)):
            fields[name] = encoded(value)
    if limits and defaults.max_tokens is not None and all(absent(fields.get(name)) for name in limits):
        fields[limits[0]] = encoded(defaults.max_tokens)


def _refuse(message: str) -> NoReturn:
    """msgspec's message ends in ` - at `$.messages[0].role``: the param that OpenAI's clients show."""
    what, _, where = message.partition(" - at ")
    param = where.strip("`").removeprefix("$").removeprefix(".") or None
    if "required field" in what:
        param = what.rpartition("field ")[2].strip("`") if param is None else param
    raise BadRequestError(f"{what}{f' at {param}' if where and param else ''}.", param=param)


_RAW = msgspec.json.Decoder(dict[str, Raw])
