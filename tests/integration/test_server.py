"""The HTTP server before any request is one: what is malformed, too large, too slow or too early, over real sockets.

Whatever a client sends, it gets a clean answer in OpenAI's shape or none, no expert is asked, and the connection ends where what
comes next could not be told from what came before.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.upstream import PATIENCE, FakeServer, chunk, silent, streams
from tests.integration.conftest import Running, Start, experts_yaml

QUESTION = {"model": "one", "messages": [{"role": "user", "content": "hello"}]}
HOST = b"host: x\r\n"
NO_TIME = 0.8  # seconds that a head may take in these tests
LONG = 60.0


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)["error"]


class Client:
    """A connection that is written to as the test likes."""

    def __init__(self, gateway: Running) -> None:
        host, port = gateway.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self.reader = self.socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, head_only: bool = False) -> Answer:
        """The next answer; fails where the connection was closed instead."""
        line = self.reader.readline()
        assert line, "the connection was closed with no answer"
        headers = {}
        while (header := self.reader.readline().decode().strip()) != "":
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        status = int(line.split()[1])
        body = b"" if head_only or status == 100 else self._body(headers)
        return Answer(status, headers, body)

    def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return self.reader.read(int(headers["content-length"]))
        body = b""
        while size := int(self.reader.readline(), 16):
            body += self.reader.read(size)
            self.reader.readline()
        self.reader.readline()
        return body

    def refused(self, status: int, code: str) -> None:
        """It is answered with this error, in OpenAI's shape, and closed."""
        answer = self.answer()
        assert (answer.status, answer.error["code"]) == (status, code)
        assert answer.headers["connection"] == "close"
        assert set(answer.error) == {"message", "type", "param", "code"}
        assert self.is_closed()

    def is_closed(self) -> bool:
        return self.reader.read(1) == b""


def ask(body: bytes | None = None, headers: bytes = b"", version: bytes = b"1.1") -> bytes:
    """A chat request as bytes."""
    body = json.dumps(QUESTION).encode() if body is None else body
    length = b"content-length: %d\r\n" % len(body)
    return b"POST /v1/chat/completions HTTP/" + version + b"\r\n" + HOST + headers + length + b"\r\n" + body


def head(*headers: bytes, line: bytes = b"POST /v1/chat/completions HTTP/1.1", rest: bytes = b"") -> bytes:
    return b"\r\n".join((line, b"host: x", *headers)) + b"\r\n\r\n" + rest


def gone(gateway: Running) -> None:
    """Wait until no connection stands."""
    until = time.monotonic() + PATIENCE
    while gateway.server.server_state.connections and time.monotonic() < until:
        time.sleep(0.02)
    assert not gateway.server.server_state.connections


HEALTH = head(line=b"GET /health HTTP/1.1")
MALFORMED = {
    "a line that is none": b"NONSENSE\r\n\r\n",
    "a method that is none": head(line=b"G\x00T /health HTTP/1.1"),
    "a version to come": head(line=b"GET /health HTTP/9.9"),
    "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS where none is spoken": bytes.fromhex("16030100c8010000c40303") + b"x" * 100,
    "a proxy's request": head(line=b"CONNECT example.com:443 HTTP/1.1"),
    "a path that is none": head(line=b"GET http://[ HTTP/1.1"),
    "a path of raw bytes": head(line=b"GET /\xff\xfe HTTP/1.1"),
    "lines that end in half an end": b"GET /health HTTP/1.1\nhost: x\n\n",
    "a space behind a header's name": head(b"foo : bar", line=b"GET /health HTTP/1.1"),
    "a folded header": head(b"foo: a\r\n b", line=b"GET /health HTTP/1.1"),
    "a zero byte in a header": head(b"foo: a\x00b", line=b"GET /health HTTP/1.1"),
    "two lengths": head(b"content-length: 2", b"content-length: 3", rest=b"abc"),
    "one length twice": head(b"content-length: 2", b"content-length: 2", rest=b"{}"),
    "a list of lengths": head(b"content-length: 2, 2", rest=b"{}"),
    "a negative length": head(b"content-length: -1"),
    "a length with a sign": head(b"content-length: +2", rest=b"{}"),
    "a length in hexadecimal": head(b"content-length: 0x2", rest=b"{}"),
    "a length beyond numbers": head(b"content-length: 99999999999999999999"),
    "a length and chunks": head(b"content-length: 4", b"transfer-encoding: chunked", rest=b"0\r\n\r\n"),
    "chunks and a length": head(b"transfer-encoding: chunked", b"content-length: 4", rest=b"0\r\n\r\n"),
    "an encoding that looks like chunks": head(b"transfer-encoding: xchunked", rest=b"0\r\n\r\n"),
    "chunks that are not the last encoding": head(b"transfer-encoding: chunked, identity", rest=b"0\r\n\r\n"),
    "a chunk of no size": head(b"transfer-encoding: chunked", rest=b"zz\r\nabc\r\n0\r\n\r\n"),
    "a chunk larger than it says": head(b"transfer-encoding: chunked", rest=b"1\r\nabc\r\n0\r\n\r\n"),
    "a chunk of a negative size": head(b"transfer-encoding: chunked", rest=b"-1\r\na\r\n0\r\n\r\n"),
}


@pytest.fixture
def gateway(start: Start, servers: list[FakeServer]) -> Running:
    return start(experts_yaml(servers[0]))


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_http_is_refused_in_the_clients_shape_and_closed(
    gateway: Running, servers: list[FakeServer], caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    with Client(gateway) as client:
        client.send(sent)
        client.refused(400, "malformed_http")
    with Client(gateway) as other:
        other.send(HEALTH)
        assert other.answer().status == 200
    assert servers[0].requests == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    "framing",
    [
        b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n0\r\n\r\n",
        b"content-length: 0\r\ncontent-length: 60\r\n\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    ],
)
def test_a_request_hidden_behind_an_ambiguous_body_is_not_answered(
    gateway: Running, servers: list[FakeServer], framing: bytes
) -> None:
    with Client(gateway) as client:
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + framing + ask())
        client.refused(400, "malformed_http")
    assert servers[0].requests == []


def padded(size: int) -> bytes:
    """A request whose line and headers are of that size."""
    headers = b"host: x\r\nx: "
    return b"GET /health HTTP/1.1\r\n" + headers + b"a" * (size - len("/health") - len(headers) - 2) + b"\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        padded(9000),
        padded(2_000_000),
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: v\r\n" % i for i in range(2000)) + b"\r\n",
        HEALTH + padded(9000),
        b"GET /health HTTP/1.1\r\nx: " + b"a" * 9000,  # and no end
        b"GET /health HTTP/1.1\r\n" + b"x: a\r\n" * 2000,
        b"GET /" + b"a" * 9000,
    ],
    ids=["one", "huge", "the line", "many", "the second request", "no end", "many and no end", "a line with no end"],
)
def test_a_head_over_the_limit_is_told_so(start: Start, servers: list[FakeServer], sent: bytes) -> None:
    gateway = start(experts_yaml(servers[0]), max_header_bytes=8192, header_seconds=60.0)
    with Client(gateway) as client:
        if sent.startswith(HEALTH):
            client.send(HEALTH)
            assert client.answer().status == 200
            sent = sent.removeprefix(HEALTH)
        client.send(sent)
        client.refused(431, "request_header_too_large")


def test_a_head_is_measured_without_what_surrounds_it(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]), max_header_bytes=8192)
    large = json.dumps({**QUESTION, "user": "u" * 20_000}).encode()
    with Client(gateway) as client:
        for sent in (padded(8000), ask(large), padded(8000) + padded(8000), ask(large) + padded(8000)):
            client.send(sent)
            for _ in range(2 if sent in (padded(8000) * 2, ask(large) + padded(8000)) else 1):
                assert client.answer().status == 200


def test_a_body_that_comes_in_pieces_is_no_part_of_the_head(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]), max_header_bytes=8192)
    sent = ask(json.dumps({**QUESTION, "user": "u" * 30_000}).encode())
    with Client(gateway) as client:
        for i in range(0, len(sent), 3000):
            client.send(sent[i : i + 3000])
            time.sleep(0.01)
        assert client.answer().status == 200


def test_a_head_that_drips_is_measured_as_a_whole(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]), max_header_bytes=8192)
    with Client(gateway) as client:
        client.send(b"GET /health HTTP/1.1\r\n")
        for _ in range(12):
            client.send(b"x: " + b"a" * 1000 + b"\r\n")
            time.sleep(0.01)
        client.refused(431, "request_header_too_large")


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        (b"", b"", False),
        (b"GET /health HTTP/1.1\r\nhost: x\r\n", b"", True),
        (b"GET /health HTTP/1.1\r\nhost: x\r\n", b"x: y\r\n", True),
        (b"\r\n", b"\r\n", False),
    ],
    ids=["nothing", "half a head", "a head that drips", "empty lines"],
)
@pytest.mark.parametrize("used", [False, True], ids=["new", "kept alive"])
def test_a_head_that_does_not_come_in_time_ends_the_connection(
    start: Start, servers: list[FakeServer], used: bool, first: bytes, then: bytes, told: bool
) -> None:
    # Where nothing comes behind an answer it is the second that ends it; else it must not be over before something does.
    kept = LONG if first.strip() else 2 * NO_TIME
    gateway = start(experts_yaml(servers[0]), header_seconds=NO_TIME, keep_alive_seconds=kept)
    with Client(gateway) as client:
        if used:
            client.send(HEALTH)
            assert client.answer().status == 200
        client.send(first)
        if then:
            time.sleep(NO_TIME / 2)
            client.send(then)
        if told:
            client.refused(408, "request_timeout")
        else:
            assert client.is_closed()


def test_a_slow_answer_is_no_slow_head(start: Start, servers: list[FakeServer]) -> None:
    servers[0].behaviour = streams(*(chunk({"content": "x"}) for _ in range(12)), chunk({}, "stop"), pause=0.1)
    gateway = start(experts_yaml(servers[0]), header_seconds=NO_TIME, keep_alive_seconds=NO_TIME)
    with Client(gateway) as client:
        client.send(ask(json.dumps({**QUESTION, "stream": True}).encode()))
        assert client.answer().body.count(b'"x"') == 12


def test_a_connection_rests_for_so_long_and_no_longer(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]), keep_alive_seconds=2.0)
    with Client(gateway) as client:
        for _ in range(2):
            client.send(HEALTH)
            assert client.answer().status == 200
            time.sleep(0.2)
        assert client.is_closed()


def test_requests_sent_in_a_row_are_answered_in_a_row(gateway: Running) -> None:
    with Client(gateway) as client:
        client.send(HEALTH + ask() + head(line=b"GET /v1/models HTTP/1.1") + HEALTH)
        bodies = [client.answer().body for _ in range(4)]
    assert [b'"status"' in bodies[0], b'"choices"' in bodies[1], b'"list"' in bodies[2]] == [True] * 3
    assert bodies[3] == bodies[0]


@pytest.mark.parametrize("headers", [b"", b"connection: close\r\n"])
def test_a_client_of_old_is_answered_and_left(gateway: Running, headers: bytes) -> None:
    with Client(gateway) as client:
        client.send(ask(version=b"1.0" if not headers else b"1.1", headers=headers))
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.is_closed()


@pytest.mark.parametrize("path", [b"/health", b"/ready"])
def test_a_head_has_the_headers_and_no_body(gateway: Running, path: bytes) -> None:
    with Client(gateway) as client:
        client.send(head(line=b"HEAD " + path + b" HTTP/1.1"))
        answer = client.answer(head_only=True)
        assert (answer.status, int(answer.headers["content-length"]) > 10) == (200, True)
        client.send(HEALTH)
        assert client.answer().status == 200


def test_a_client_that_waits_for_leave_gets_it_and_may_go_on(gateway: Running, servers: list[FakeServer]) -> None:
    body = json.dumps(QUESTION).encode()
    with Client(gateway) as client:
        for _ in range(2):
            client.send(head(b"expect: 100-continue", b"content-length: %d" % len(body)))
            assert client.answer().status == 100
            client.send(body)
            answer = client.answer()
            assert answer.status == 200
            assert "connection" not in answer.headers
    assert len(servers[0].requests) == 2


@pytest.mark.parametrize(
    ("path", "length", "status"), [(b"/v1/chat/completions", 10**12, 413), (b"/nothing", 100, 404)]
)
def test_a_client_that_is_refused_its_leave_is_left(gateway: Running, path: bytes, length: int, status: int) -> None:
    """Its body may come or not: what comes next on the connection would be a guess."""
    line = b"POST " + path + b" HTTP/1.1"
    with Client(gateway) as client:
        client.send(head(b"expect: 100-continue", b"content-length: %d" % length, line=line))
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert client.is_closed()


def test_a_body_that_is_refused_while_it_is_sent_leaves_time_to_read_why(
    start: Start, servers: list[FakeServer]
) -> None:
    gateway = start(experts_yaml(servers[0]), max_body_bytes=1000)
    with Client(gateway) as client:
        client.send(head(b"content-length: 5000000"))
        client.send(b"x" * 5_000_000)
        answer = client.answer()
        assert (answer.status, answer.error["code"]) == (413, "request_too_large")
        client.send(HEALTH)
        assert client.answer().status == 200


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.0"])
def test_a_client_that_asks_for_another_protocol_is_answered_in_this_one(gateway: Running, protocol: bytes) -> None:
    """Java's HTTP client asks for h2c with every first request, and goes on with the connection."""
    headers = b"connection: upgrade\r\nupgrade: " + protocol + b"\r\n"
    get = head(b"connection: upgrade", b"upgrade: " + protocol, line=b"GET /health HTTP/1.1")
    with Client(gateway) as client:
        for sent in (ask(headers=headers), HEALTH, get, ask(), get + HEALTH):
            client.send(sent)
            for _ in range(2 if sent == get + HEALTH else 1):
                assert client.answer().status == 200


def test_rubbish_behind_a_request_takes_nothing_from_its_answer(gateway: Running, servers: list[FakeServer]) -> None:
    gate = threading.Event()

    async def behave(server: FakeServer, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        await asyncio.to_thread(gate.wait, PATIENCE)
        events = [chunk({"content": "x"}) for _ in range(10)]
        return await streams(*events, chunk({}, "stop"), pause=0.02)(server, request, body)

    servers[0].behaviour = behave
    with Client(gateway) as client:
        client.send(ask(json.dumps({**QUESTION, "stream": True}).encode()))
        assert servers[0].wait_until_asked()
        client.send(b"NONSENSE\r\n\r\n" + HEALTH)
        gate.set()
        assert client.answer().body.count(b'"x"') == 10
        assert client.is_closed()
    assert gateway.settled("moe_requests_total", 1, code="200")


def test_a_body_that_breaks_off_ends_its_request_at_once(
    gateway: Running, servers: list[FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.connection.LINGER_SECONDS", 30.0)  # and not when the client has gone
    with Client(gateway) as client:
        client.send(head(b"transfer-encoding: chunked", rest=b'5\r\n{"mod\r\n'))
        time.sleep(0.1)
        client.send(b"this is no chunk\r\n")
        client.refused(400, "malformed_http")
        assert gateway.settled("moe_requests_total", 1, code="499")
    assert servers[0].requests == []


def test_connections_beyond_the_limit_are_told_to_come_back_and_the_others_go_on(
    start: Start, servers: list[FakeServer]
) -> None:
    gateway = start(experts_yaml(servers[0]), max_connections=2, header_seconds=60.0)

    def status(client: Client) -> int:
        client.send(HEALTH)
        return client.answer().status

    with Client(gateway) as first, Client(gateway) as second:
        assert [status(first), status(second)] == [200, 200]
        with Client(gateway) as third:
            third.send(HEALTH)
            answer = third.answer()
            assert (answer.status, answer.error["code"]) == (503, "too_many_connections")
            assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
        clients = [Client(gateway) for _ in range(3)]
        assert clients[-1].is_closed()  # more than twice as many: not even that
        for client in clients:
            client.__exit__()
        assert [status(first), status(second)] == [200, 200]
    gone(gateway)
    with Client(gateway) as later:
        assert status(later) == 200


def test_a_client_that_leaves_in_the_middle_of_its_head_leaves_nothing_behind(gateway: Running) -> None:
    for sent in (b"", b"GET /hea", b"GET /health HTTP/1.1\r\nhost: x\r\n"):
        with Client(gateway) as client:
            client.send(sent)
    gone(gateway)


def test_an_expert_that_is_waited_for_holds_no_head_open(gateway: Running, servers: list[FakeServer]) -> None:
    servers[0].behaviour = silent
    with Client(gateway) as client:
        client.send(ask())
        assert servers[0].wait_until_asked()
    assert servers[0].wait_until_idle()
