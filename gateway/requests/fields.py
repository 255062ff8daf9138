"""Fields: a JSON object read only where something is read; the rest stays the bytes that it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from gateway.errors import BadRequestError
from router.errors import MessagesError
from router.experts import Defaults
from router.messages import MAX_MESSAGES, MAX_PARTS, absent, at_most

Raw = msgspec.Raw
MAX_FIELDS = 1_000
MAX_VALUES = 200_000  # in a body's arrays and objects, all together
MAX_DEPTH = 10_000  # more than any decoder takes
MAX_DIGITS = 19  # of the largest number in 64 bits
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"


def decode(body: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    """Raises BadRequestError with what is wrong and the field that is."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        _refuse(str(error))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        check_encoding(body)
        raise BadRequestError(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    except RecursionError:
        raise BadRequestError("The JSON is nested too deeply.", code="invalid_json") from None


def check_encoding(body: bytes) -> None:
    """Raises BadRequestError where a body is not UTF-8, wherever in it that is: an expert would fail on it, time and again,
    and be taken for broken."""
    why = None
    if body.startswith(BYTE_ORDER_MARK):
        why = "it begins with a byte order mark; send UTF-8 without one"
    elif body.startswith(GZIP):
        why = "it is compressed; send it as it is"
    elif b"\0" in body[:4]:
        why = "it is not UTF-8; is it UTF-16?"
    elif not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            why = f"it is not UTF-8 (byte {error.start})"
    if why:
        raise BadRequestError(f"The body is not valid JSON: {why}.", code="invalid_json")


def fields_of(body: bytes) -> dict[str, Raw]:
    """Every field as it came. Raises BadRequestError; MessagesError where there are absurdly many."""
    check_encoding(body)
    raw: dict[str, Raw] = decode(body, _RAW)
    at_most(len(raw), MAX_FIELDS, "fields")
    return raw


def check_pieces(body: bytes, limit: int = MAX_VALUES) -> None:
    """Raises MessagesError where a body holds more messages, parts or values than anybody sends.

    Decoding millions of them would hold the interpreter for seconds; counting holds it for milliseconds. A quote inside of
    text is escaped, so only keys and whole values are counted.
    """
    at_most(body.count(b'"role"'), 2 * MAX_MESSAGES, "messages")
    at_most(body.count(b'"type"'), 10 * MAX_PARTS, "parts of messages")
    if body.count(b",") > limit and _holds_more(body, limit):
        raise MessagesError(f"The request has more than {limit} values; that is the most that is taken.")


def _holds_more(body: bytes, limit: int) -> bool:
    """Whether more than `limit` commas stand outside of its texts."""
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")  # a quote that is left begins or ends a text
    found = at = 0
    for _ in range(2 * limit + MAX_DEPTH):  # no JSON has more texts than these with fewer commas
        begin = plain.find(b'"', at)
        if begin < 0:
            return found + plain.count(b",", at) > limit
        found += plain.count(b",", at, begin)
        if found > limit:
            return True
        at = plain.find(b'"', begin + 1) + 1
        if not at:
            return False  # it is no JSON, as its decoder will say
    return True


def count(raw: Mapping[str, Raw], *names: str) -> int | None:
    """The number above 0 in the first of these fields that has one. What is no plain number is the expert's to refuse.

    Raises BadRequestError where one is of more digits than a server can take.
    """
    for name in names:
        said = bytes(raw.get(name, b"")).strip()
        if said.isdigit() and len(said) > MAX_DIGITS:
            raise BadRequestError(f"{name} is too large a number.", param=name)
        if said.isdigit() and len(said) < 10:  # larger is a way to say that there is no limit
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
