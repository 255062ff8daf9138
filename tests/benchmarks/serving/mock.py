"""The upstream of the benchmark: one process that answers a chat request as fast as Python can.

    python -m tests.benchmarks.serving.mock SOCKET_FD

Every answer is made before the first request. HTTP is read only as far as it is needed: where a request ends, and which of
three answers it wants. It answers /health, /v1/models and /metrics as a vLLM would, so that no gateway takes it for a sick one.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Iterator
from typing import cast

import uvloop

MODEL = "mock"
CHUNKS = 32  # of a stream: the role and the last included, the usage chunk and [DONE] not
TEXT = " word"
USAGE = {"prompt_tokens": 20, "completion_tokens": CHUNKS - 2, "total_tokens": 20 + CHUNKS - 2}
EACH = b'"each":true'  # a field that no server knows: every event of the stream is written by itself
METRICS = (
    f'vllm:num_requests_running{{model_name="{MODEL}"}} 0.0\n'
    f'vllm:num_requests_waiting{{model_name="{MODEL}"}} 0.0\n'
    f'vllm:kv_cache_usage_perc{{model_name="{MODEL}"}} 0.0\n'
)


def response(body: bytes, kind: str = "application/json", status: str = "200 OK") -> bytes:
    """A whole answer as it goes over the wire."""
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def answer() -> bytes:
    """The body of an answer in one piece."""
    message = {"role": "assistant", "content": TEXT * (CHUNKS - 2)}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    return encoded(
        {"id": "chatcmpl-0", "object": "chat.completion", "created": 0, "model": MODEL}
        | {"choices": choices, "usage": USAGE}
    )


def events(usage: bool) -> Iterator[bytes]:
    """The events of a stream, as vLLM writes them."""
    head = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": MODEL}
    for number in range(CHUNKS):
        delta = {"role": "assistant", "content": ""} if number == 0 else {"content": TEXT}
        finish = None
        if number == CHUNKS - 1:
            delta, finish = {"content": ""}, "stop"
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        yield b"data: " + encoded(head | {"choices": [choice]}) + b"\n\n"
    if usage:
        yield b"data: " + encoded(head | {"choices": [], "usage": USAGE}) + b"\n\n"
    yield b"data: [DONE]\n\n"


def encoded(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def framed(usage: bool) -> list[bytes]:
    """A stream as it goes over the wire: headers with the first event, each event an HTTP chunk, the end with the last."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = [f"{len(event):x}\r\n".encode() + event + b"\r\n" for event in events(usage)]
    return [head + chunks[0], *chunks[1:-1], chunks[-1] + b"0\r\n\r\n"]


class Answers:
    """What is sent, by what is asked."""

    def __init__(self) -> None:
        self.whole = response(answer())
        self.streams = {usage: framed(usage) for usage in (False, True)}
        self.joined = {usage: b"".join(chunks) for usage, chunks in self.streams.items()}
        model = {
            "id": MODEL,
            "object": "model",
            "created": 0,
            "owned_by": "vllm",
            "root": MODEL,
            "max_model_len": 32768,
        }
        self.gets = {
            b"/health": response(b""),
            b"/v1/models": response(encoded({"object": "list", "data": [model]})),
            b"/metrics": response(METRICS.encode(), "text/plain; version=0.0.4; charset=utf-8"),
        }
        self.missing = response(
            encoded({"error": {"message": "Not Found", "type": "NotFoundError"}}), status="404 Not Found"
        )


class Connection(asyncio.Protocol):
    """One connection; requests on it are answered in turn."""

    def __init__(self, answers: Answers) -> None:
        self._answers, self._buffer = answers, b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            end += 4
            done = end + content_length(buffer[:end])
            if len(buffer) < done:
                break
            self._answer(buffer[:end], buffer[end:done])
            buffer = buffer[done:]
        self._buffer = buffer

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"POST"):
            compact = body.replace(b": ", b":")
            # Inside of text quotes are escaped, so that only keys match.
            if b'"stream":true' not in compact:
                self._transport.write(self._answers.whole)
                return
            usage = b'"include_usage":true' in compact
            if EACH in compact:
                self._one_by_one(iter(self._answers.streams[usage]))
            else:
                self._transport.write(self._answers.joined[usage])
            return
        path = head.split(b" ", 2)[1].partition(b"?")[0]
        self._transport.write(self._answers.gets.get(path, self._answers.missing))

    def _one_by_one(self, chunks: Iterator[bytes]) -> None:
        """Each chunk in a turn of the event loop of its own."""
        chunk = next(chunks, None)
        if chunk is not None and not self._transport.is_closing():
            self._transport.write(chunk)
            asyncio.get_running_loop().call_soon(self._one_by_one, chunks)


def content_length(head: bytes) -> int:
    """The length of the body behind `head`; 0 where none is told."""
    at = head.find(b"ontent-")  # Content-Length in either case, mostly the first of its kind or the second
    while at >= 0:
        if head[at + 7 : at + 14].lower() == b"length:":
            return int(head[at + 14 : head.index(b"\r", at)])
        at = head.find(b"ontent-", at + 7)
    return 0


async def serve(listener: socket.socket) -> None:
    """Answer until SIGTERM or SIGINT."""
    answers, loop, stop = Answers(), asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Connection(answers), sock=listener, backlog=1024)
    async with server:
        await stop.wait()


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    uvloop.run(serve(listener))


if __name__ == "__main__":
    main()
