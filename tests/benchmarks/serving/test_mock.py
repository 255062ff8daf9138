"""The mock upstream: what it answers is what a vLLM would, however a request is cut."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from tests.benchmarks.serving.mock import CHUNKS, Answers, Connection, content_length

BODY = b'{"messages":[]}'


class Wire:
    """A transport that remembers what was written, write by write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def is_closing(self) -> bool:
        return False


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def connection(wire: Wire) -> Connection:
    made = Connection(Answers())
    made.connection_made(cast(asyncio.BaseTransport, wire))
    return made


def post(body: bytes, name: bytes = b"Content-Length") -> bytes:
    return b"POST /v1/chat/completions HTTP/1.1\r\nContent-Type: x\r\n%b: %d\r\n\r\n%b" % (name, len(body), body)


def bodies_of(answers: bytes) -> list[Any]:
    """The JSON of answers that have a length."""
    found = []
    while answers:
        head, _, rest = answers.partition(b"\r\n\r\n")
        length = content_length(head + b"\r\n\r\n")
        found.append(json.loads(rest[:length]))
        answers = rest[length:]
    return found


@pytest.mark.parametrize("name", [b"Content-Length", b"content-length"])
def test_requests_may_be_cut_anywhere_and_come_together(connection: Connection, wire: Wire, name: bytes) -> None:
    two = post(BODY, name) * 2
    for cut in range(1, len(two)):
        connection.data_received(two[:cut])
        connection.data_received(two[cut:])
    assert len(wire.writes) == 2 * (len(two) - 1)
    assert {body["choices"][0]["finish_reason"] for body in bodies_of(b"".join(wire.writes[:4]))} == {"stop"}


@pytest.mark.parametrize(
    "options", [b"", b',"stream_options":{"include_usage":true}', b', "stream_options": {"include_usage": true}']
)
def test_usage_comes_where_it_is_asked_for(connection: Connection, wire: Wire, options: bytes) -> None:
    connection.data_received(post(b'{"stream": true' + options + b"}"))
    (stream,) = wire.writes
    assert stream.count(b'"choices":[{') == CHUNKS
    assert stream.count(b'"usage"') == bool(options)
    assert stream.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_a_stream_may_be_written_event_by_event(connection: Connection, wire: Wire) -> None:
    connection.data_received(post(b'{"stream":true,"each":true}'))
    for _ in range(2 * CHUNKS):  # turns of the event loop
        await asyncio.sleep(0)
    assert len(wire.writes) == CHUNKS + 1
    assert b"".join(wire.writes) == Answers().joined[False]


@pytest.mark.parametrize(
    ("path", "says"), [("/health", b""), ("/v1/models", b'"max_model_len"'), ("/metrics", b"vllm:num_requests_running")]
)
def test_it_passes_for_a_vllm(connection: Connection, wire: Wire, path: str, says: bytes) -> None:
    connection.data_received(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert wire.writes[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert says in wire.writes[0]


def test_what_is_not_there_is_not_found(connection: Connection, wire: Wire) -> None:
    connection.data_received(b"GET /v1/other HTTP/1.1\r\nHost: x\r\n\r\n")
    assert wire.writes[0].startswith(b"HTTP/1.1 404 ")
