"""How each row of docs/failures.md that one server can play alone is played: the bytes that it sends."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.fakes.dialects import CHAT, DIED, TEXT, Dialect
from tests.fakes.raw import END, Call, RawBehaviour, Then, Wait, piece, sends, stream_head, whole
from tests.fakes.upstream import PATIENCE

TOO_LONG = {
    "message": "This model's maximum context length is 2048 tokens.",
    "type": "BadRequestError",
    "param": None,
    "code": 400,
}
SHUT_DOWN = {"message": "cannot schedule new futures after shutdown", "type": "InternalServerError", "code": 500}
FULL = {"message": "The engine is currently busy and cannot accept new requests.", "type": "Service Unavailable"}
LOADING = {"message": "Loading model", "type": "unavailable_error", "code": 503}
HUGE = 17 * 1024 * 1024
HEARD = threading.Event()  # the client has the head of its answer: a stream's comes with its first word or heartbeat


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


async def heard() -> None:
    await asyncio.to_thread(HEARD.wait, PATIENCE)


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
    *events: bytes | float | Wait,
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


class Streams:
    """Streams of one dialect that go wrong at some point."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def half(
        self,
        *events: bytes | float | Wait,
        then: Then = "close",
        end: bool = True,
        expert: str = "raw",
        text: str = "half",
    ) -> Play:
        """One that fails after it has said "half", and has told its usage so far where the dialect has a way to."""
        said = self._dialect
        told = said.rides
        return streamed(said.begin, said.half, heard, *events, then=then, end=end, expert=expert, text=text, told=told)

    def late(
        self, *events: bytes | float, then: Then = "close", end: bool = True, expert: str = "raw", told: bool = True
    ) -> Play:
        """What comes when the answer was complete: `told` says whether its usage was told in time."""
        said = self._dialect
        answer = (said.begin, *said.words, said.finish)
        told = told or said.finish_tells
        return streamed(*answer, heard, *events, then=then, end=end, expert=expert, text=TEXT, told=told)

    async def endless(self, call: Call) -> Then:
        await call.send(stream_head() + piece(self._dialect.half))
        return await _again_and_again(call, piece(self._dialect.half))

    async def comments(self, call: Call) -> Then:
        await call.send(stream_head() + piece(self._dialect.begin))
        return await _again_and_again(call, piece(b": still here\n\n"))

    def compressed(self, stream: bool) -> RawBehaviour:
        encoding = {"content-encoding": "gzip"}
        if not stream:
            return sends(whole(gzip.compress(self._dialect.whole), headers=encoding), then="keep")
        return sends(stream_head(encoding), piece(gzip.compress(b"".join(self._dialect.events))), END, then="keep")

    def badly_compressed(self, stream: bool) -> RawBehaviour:
        encoding = {"content-encoding": "gzip"}
        if not stream:
            return sends(whole(self._dialect.whole, headers=encoding))
        return sends(stream_head(encoding), piece(b"".join(self._dialect.events)), END)


async def _again_and_again(call: Call, data: bytes) -> Then:
    """Every few milliseconds for as long as anyone listens."""
    try:
        while True:
            await sends(data, 0.02)(call)
    except ConnectionError:
        return "close"


RESET = sends(then="close")
HANGS = sends(then="hang")
NO_END = [b"data: ", *[b"x" * (1024 * 1024)] * (HUGE // (1024 * 1024))]

# Before the headers: no dialect matters.
REFUSALS: dict[str, Play] = {
    "refused": always(RESET, "refused"),
    "dns": always(RESET, "dns"),
    "tls": always(RESET, "tls"),
    "tls-unknown": always(RESET, "strange"),
    "connect-timeout": always(RESET, "deaf"),
    "reset-fresh": Play(lambda stream: RESET, attempts=2),
    "no-headers-stream": always(HANGS, "brisk"),
    "no-headers-whole": always(HANGS, "brief"),
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
    "503-full": refuses(503, json.dumps({"error": FULL}).encode()),
    "503-loading": refuses(503, json.dumps({"error": LOADING}).encode()),
    "500-drain": refuses(500, json.dumps({"error": SHUT_DOWN}).encode()),
    "501": refuses(501),
    "502": refuses(502, b"<html>10.1.2.3: Bad Gateway</html>", {"content-type": "text/html"}),
    "503": refuses(503, headers={"retry-after": "23"}),
    "504": refuses(504, b"<html>10.1.2.3: Gateway Time-out</html>", {"content-type": "text/html"}),
    "529": refuses(529),
    "5xx": refuses(520),
}


def answers(d: Dialect) -> dict[str, Play]:
    """The headers say 200, and no content comes."""
    streams = Streams(d)
    return {
        "error-in-200": always(sends(whole(json.dumps({"error": DIED}).encode()), then="keep")),
        "not-json": always(sends(whole(b"<html>Log in to 10.1.2.3</html>", headers={"content-type": "text/html"}))),
        "streamed-for-whole": streamed(*d.events),
        "whole-for-stream": always(sends(whole(d.whole))),
        "compressed": Play(streams.compressed, text=TEXT, told=True),
        "compressed-badly": Play(streams.badly_compressed),
        "body-cut": always(sends(whole(d.whole)[:-20])),
        "body-hangs": always(sends(whole(d.whole)[:-20], then="hang"), "brief"),
        "error-event-early": streamed(d.begin, d.failed, d.done),
        "error-event-close": streamed(d.begin + b"".join(d.words) + d.failed + d.done),
        "error-event-billed": streamed(d.begin, d.usage, d.failed, d.done),
        "ends-early": streamed(d.begin),
        "done-early": streamed(d.begin, d.done),
        "cut-early": streamed(d.begin, 0.05, end=False, then="cut"),
        "not-events": streamed(b"<html>no events here</html>"),
        "silent-early": streamed(d.begin, end=False, then="hang", expert="brisk"),
        "comments-only": always(streams.comments, "brisk"),
        "endless-event-early": streamed(*NO_END, end=False, then="hang"),
    }


def failing_streams(d: Dialect) -> dict[str, Play]:
    """Content was sent, or the whole answer."""
    streams = Streams(d)
    return {
        "heartbeat-fails": Play(lambda stream: sends(heard, whole(b"{}", 500)), "beating", text=""),
        "heartbeat-refuses": Play(lambda stream: sends(heard, whole(error("wrong", 400), 400)), "beating", text=""),
        "heartbeat-silent": always(HANGS, "beating-briefly"),
        "heartbeat-answers": Play(
            lambda stream: sends(heard, stream_head(), *map(piece, d.events), END), "beating", TEXT
        ),
        "error-event": streams.half(d.failed, d.done),
        "ends": streams.half(),
        "ends-second": streams.half(d.second, d.finish, text="halfsecond"),
        "cut": streams.half(end=False, then="cut"),
        "cut-in-event": streams.half(b"".join(d.words[:1])[:-20], 0.05, end=False, then="cut"),
        "silent": streams.half(end=False, then="hang", expert="quiet"),
        "endless": Play(lambda stream: streams.endless, "bounded", told=d.rides),
        "endless-event": streams.half(*NO_END, end=False, then="hang"),
        "nonsense-event": streams.half(b"data: {oh no\n\n", d.finish, d.usage, d.done),
        "done-unfinished": streams.half(d.done),
        "no-done": streams.late(d.usage),
        "cut-late": streams.late(0.5, end=False, then="cut", told=False),  # a cut would take along what is not read yet
        "silent-late": streamed(b"".join(d.events), end=False, then="hang", expert="quiet", text=TEXT, told=True),
        "error-event-late": streams.late(d.failed, told=False),
    }


def plays_of(dialect: Dialect) -> dict[str, Play]:
    """Every row that one server can play alone, as it speaks the dialect."""
    return {**REFUSALS, **answers(dialect), **failing_streams(dialect)}


PLAYS = plays_of(CHAT)
# Rows that are played at the other endpoints as well: one of each kind, where what is asked and answered could matter.
ELSEWHERE = (
    *("refused", "400", "422-other-shape", "401", "429", "500", "503", "error-in-200", "not-json", "whole-for-stream"),
    *("body-cut", "error-event-early", "ends-early", "cut-early", "error-event", "ends", "cut"),
    *("cut-in-event", "silent", "cut-late", "error-event-late"),
)
