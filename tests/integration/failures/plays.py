"""How each row of docs/failures.md that one server can play alone is played: the bytes that it sends."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.fakes.dialects import CHAT, DIED, TEXT
from tests.fakes.raw import END, Call, RawBehaviour, Then, piece, sends, stream_head, whole

TOO_LONG = {
    "message": "This model's maximum context length is 2048 tokens.",
    "type": "BadRequestError",
    "param": None,
    "code": 400,
}
SHUT_DOWN = {"message": "cannot schedule new futures after shutdown", "type": "InternalServerError", "code": 500}
HUGE = 17 * 1024 * 1024


@dataclass(frozen=True)
class Play:
    """`behaviour(stream)` is what the server does. `text` is what of the answer reaches the client, `told` whether usage did.

    `own` is the body that the client has to get as it is; `retry_after` the header it has to get.
    """

    behaviour: Callable[[bool], RawBehaviour]
    expert: str = "raw"
    text: str = ""
    told: bool = False
    attempts: int = 1
    own: bytes | None = None
    retry_after: str | None = None


def error(message: str, code: int) -> bytes:
    shaped = {"message": message, "type": "x", "param": "temperature", "code": code}
    return json.dumps({"error": shaped}, ensure_ascii=False).encode()


def refuses(
    status: int, body: bytes | None = None, headers: Mapping[str, str] | None = None, own: bool = False
) -> Play:
    content = error("no, says 10.1.2.3", status) if body is None else body
    retry_after = (headers or {}).get("retry-after")
    behaviour = sends(whole(content, status, headers), then="keep")
    return Play(lambda stream: behaviour, own=content if own else None, retry_after=retry_after)


def always(behaviour: RawBehaviour, expert: str = "raw") -> Play:
    return Play(lambda stream: behaviour, expert)


def streamed(
    *events: bytes | float,
    then: Then = "close",
    end: bool = True,
    expert: str = "raw",
    text: str = "",
    told: bool = False,
) -> Play:
    """A stream of events; `end` says whether its body ends as it should."""
    pieces = [piece(event) if isinstance(event, bytes) else event for event in events]
    behaviour = sends(stream_head(), *pieces, *([END] if end else []), then=then)
    return Play(lambda stream: behaviour, expert, text, told)


def half(
    *events: bytes | float, then: Then = "close", end: bool = True, expert: str = "raw", text: str = "half"
) -> Play:
    """A stream that fails after it has said "half", and has told its usage so far."""
    # The pause is for the word to go to the client before anything else comes.
    return streamed(CHAT.begin, CHAT.used, 0.1, *events, then=then, end=end, expert=expert, text=text, told=True)


def late(
    *events: bytes | float, then: Then = "close", end: bool = True, expert: str = "raw", told: bool = True
) -> Play:
    """What comes when the answer was complete: `told` says whether its usage was told in time."""
    answer = (CHAT.begin, *CHAT.words, CHAT.finish)
    return streamed(*answer, 0.1, *events, then=then, end=end, expert=expert, text=TEXT, told=told)


async def _endless(call: Call) -> Then:
    await call.send(stream_head() + piece(CHAT.used))
    try:
        while True:
            await sends(piece(CHAT.words[0]), 0.02)(call)
    except ConnectionError:
        return "close"


async def _comments(call: Call) -> Then:
    await call.send(stream_head() + piece(CHAT.begin))
    try:
        while True:
            await sends(piece(b": still here\n\n"), 0.02)(call)
    except ConnectionError:
        return "close"


def _compressed(stream: bool) -> RawBehaviour:
    encoding = {"content-encoding": "gzip"}
    if not stream:
        return sends(whole(gzip.compress(CHAT.whole), headers=encoding), then="keep")
    return sends(stream_head(encoding), piece(gzip.compress(b"".join(CHAT.events))), END, then="keep")


def _badly_compressed(stream: bool) -> RawBehaviour:
    encoding = {"content-encoding": "gzip"}
    if not stream:
        return sends(whole(CHAT.whole, headers=encoding))
    return sends(stream_head(encoding), piece(b"".join(CHAT.events)), END)


RESET = sends(then="close")
HANGS = sends(then="hang")
NO_END = [b"data: ", *[b"x" * (1024 * 1024)] * (HUGE // (1024 * 1024))]

PLAYS: dict[str, Play] = {
    # Before the headers
    "refused": always(RESET, "refused"),
    "dns": always(RESET, "dns"),
    "tls": always(RESET, "tls"),
    "connect-timeout": always(RESET, "deaf"),
    "reset-fresh": Play(lambda stream: RESET, attempts=2),
    "no-headers-stream": always(HANGS, "brisk"),
    "no-headers-whole": always(HANGS, "brisk"),
    "not-http": always(sends(b"\x15\x03\x01\x00\x02\x02\x16 10.1.2.3 says: this is not HTTP\r\n\r\n")),
    "3xx": refuses(307, b"", {"location": "http://127.0.0.1:1/v1/chat/completions"}),
    "400": refuses(400, own=True),
    "400-too-long": refuses(400, json.dumps({"error": TOO_LONG}).encode(), own=True),
    "401": refuses(401, b'{"error": "Unauthorized"}'),
    "402": refuses(402),
    "403": refuses(403),
    "404": refuses(404, b'{"detail": "Not Found"}'),
    "405": refuses(405, b'{"detail": "Method Not Allowed"}'),
    "408": refuses(408),
    "413": refuses(413, own=True),
    "422": refuses(422, own=True),
    "422-other-shape": refuses(422, b'{"detail": "body.messages: field required"}'),
    "429": refuses(429, headers={"retry-after": "17"}),
    "4xx": refuses(409, own=True),
    "500": refuses(500),
    "500-drain": refuses(500, json.dumps({"error": SHUT_DOWN}).encode()),
    "501": refuses(501),
    "502": refuses(502, b"<html>10.1.2.3: Bad Gateway</html>", {"content-type": "text/html"}),
    "503": refuses(503, headers={"retry-after": "23"}),
    "504": refuses(504, b"<html>10.1.2.3: Gateway Time-out</html>", {"content-type": "text/html"}),
    "529": refuses(529),
    "5xx": refuses(520),
    # The headers said 200
    "error-in-200": always(sends(whole(json.dumps({"error": DIED}).encode()), then="keep")),
    "not-json": always(sends(whole(b"<html>Log in to 10.1.2.3</html>", headers={"content-type": "text/html"}))),
    "streamed-for-whole": streamed(*CHAT.events),
    "whole-for-stream": always(sends(whole(CHAT.whole))),
    "compressed": Play(_compressed, text=TEXT, told=True),
    "compressed-badly": Play(_badly_compressed),
    "body-cut": always(sends(whole(CHAT.whole)[:-20])),
    "body-hangs": always(sends(whole(CHAT.whole)[:-20], then="hang"), "brisk"),
    "error-event-early": streamed(CHAT.begin, CHAT.failed, CHAT.done),
    "error-event-close": streamed(CHAT.begin + CHAT.words[0] + CHAT.failed + CHAT.done),
    "error-event-billed": streamed(CHAT.begin, CHAT.usage, CHAT.failed, CHAT.done),
    "ends-early": streamed(CHAT.begin),
    "done-early": streamed(CHAT.begin, CHAT.done),
    "cut-early": streamed(CHAT.begin, 0.05, end=False, then="cut"),
    "not-events": streamed(b"<html>no events here</html>"),
    "silent-early": streamed(CHAT.begin, end=False, then="hang", expert="brisk"),
    "comments-only": always(_comments, "brisk"),
    "endless-event-early": streamed(*NO_END, end=False, then="hang"),
    # Content was sent
    "error-event": half(CHAT.failed, CHAT.done),
    "ends": half(),
    "ends-second": half(CHAT.second, CHAT.finish, text="halfsecond"),
    "cut": half(end=False, then="cut"),
    "cut-in-event": half(CHAT.words[0][:-20], 0.05, end=False, then="cut"),
    "silent": half(end=False, then="hang", expert="brisk"),
    "endless": Play(lambda stream: _endless, "brisk", told=True),
    "endless-event": half(*NO_END, end=False, then="hang"),
    "nonsense-event": half(b"data: {oh no\n\n", CHAT.finish, CHAT.usage, CHAT.done),
    "done-unfinished": half(CHAT.done),
    # The answer was complete
    "no-done": late(CHAT.usage),
    "cut-late": late(end=False, then="cut", told=False),
    "silent-late": late(CHAT.usage, CHAT.done, end=False, then="hang", expert="brisk"),
    "error-event-late": late(CHAT.failed, told=False),
}
