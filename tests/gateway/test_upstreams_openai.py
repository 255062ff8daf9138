"""The HTTP adapter, over real sockets on loopback: good servers, bad ones, and what they are sent."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from gateway.exchange import Outcome
from gateway.upstreams.base import FixedAddress, UpstreamError
from gateway.upstreams.openai import OpenAIReply, OpenAIUpstream, mapped
from router.experts import Timeouts

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HELLO = CHUNKED + b"5\r\nhello\r\n"
TIMEOUTS = Timeouts(connect=5.0)


@dataclass
class Peer:
    """A server that speaks whatever its `answer` writes. `requests` are the heads and bodies that came."""

    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def header(self, name: str, request: int = -1) -> str | None:
        lines = self.requests[request].decode().partition("\r\n\r\n")[0].split("\r\n")[1:]
        pairs = [line.partition(": ") for line in lines]
        return next((value for key, _, value in pairs if key.lower() == name), None)


Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(answer: Answer) -> AsyncIterator[Peer]:
    """Answers every request with the bytes, or does with its connection as told."""
    made = Peer()
    writers: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")), 0
                )
                made.requests.append(head + await reader.readexactly(length))
                made.asked.set()
                if isinstance(answer, bytes):
                    writer.write(answer)
                else:
                    await answer(writer)
        made.left.set()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAIUpstream]:
    made = OpenAIUpstream()
    await made.start()
    yield made
    await made.close()


async def post(
    upstream: OpenAIUpstream, url: str, key: str | None = None, fresh: bool = False, timeouts: Timeouts = TIMEOUTS
) -> OpenAIReply:
    return await upstream.post(
        FixedAddress(url, key), "/chat/completions", b'{"a":1}', {"accept": "x"}, timeouts, fresh
    )


async def whole(upstream: OpenAIUpstream, url: str) -> bytes:
    return await (await post(upstream, url)).read()


@contextmanager
def nobody() -> Iterator[str]:
    """Where nobody listens, and nobody else comes to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/v1"


def assert_anonymous(error: UpstreamError) -> None:
    assert "127.0.0.1" not in str(error)
    assert "http" not in str(error).lower().replace("not http that", "")
    assert not any(character.isdigit() for character in str(error))
    assert error.__cause__ is None


async def test_the_body_goes_as_it_is_to_the_path_with_the_headers(upstream: OpenAIUpstream) -> None:
    async with peer(OK) as server:
        reply = await post(upstream, server.url)
        assert (reply.status, reply.headers["content-type"], await reply.read()) == (200, "application/json", b"{}")
        assert server.requests[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert server.requests[0].endswith(b'\r\n\r\n{"a":1}')
        assert [server.header(name) for name in ("accept", "content-type")] == ["x", "application/json"]


async def test_a_refused_connection_is_no_reset(upstream: OpenAIUpstream) -> None:
    with nobody() as url, pytest.raises(UpstreamError) as caught:
        await post(upstream, url)
    assert (caught.value.outcome, caught.value.reset) == (Outcome.CONNECT_ERROR, False)
    assert_anonymous(caught.value)


async def test_a_worker_that_is_not_up_is_not_asked(upstream: OpenAIUpstream) -> None:
    class Down:
        url = None
        api_key = None

    with pytest.raises(UpstreamError) as caught:
        await upstream.post(Down(), "/chat/completions", b"{}", {}, TIMEOUTS)
    assert (caught.value.outcome, caught.value.reset) == (Outcome.CONNECT_ERROR, False)
    assert not await upstream.healthy(Down())


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def abort(writer: asyncio.StreamWriter) -> None:
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # on, 0 s: closing resets
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


@pytest.mark.parametrize("end", [hang_up, abort])
@pytest.mark.parametrize("fresh", [False, True])
async def test_a_connection_that_ends_before_an_answer_is_a_reset(
    upstream: OpenAIUpstream, end: Answer, fresh: bool
) -> None:
    async with peer(end) as server:
        with pytest.raises(UpstreamError) as caught:
            await post(upstream, server.url, fresh=fresh)
        assert len(server.requests) == 1  # whether to ask again is for the dispatcher to say
    assert (caught.value.outcome, caught.value.reset) == (Outcome.CONNECT_ERROR, True)
    assert_anonymous(caught.value)


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nlong: " + b"x" * 100_000 + b"\r\n\r\n",
        b"\x00" * 100,
    ],
)
async def test_garbage_instead_of_http_is_the_servers_error(upstream: OpenAIUpstream, garbage: bytes) -> None:
    async with peer(garbage) as server:
        with pytest.raises(UpstreamError) as caught:
            await post(upstream, server.url)
    assert (caught.value.outcome, caught.value.reset) == (Outcome.SERVER_ERROR, False)
    assert_anonymous(caught.value)


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"


@pytest.mark.parametrize(
    ("begun", "end"),
    [(LENGTH, hang_up), (LENGTH, abort), (HELLO, hang_up), (HELLO, abort)],
    ids=["length, closed", "length, reset", "chunks, closed", "chunks, reset"],
)
async def test_a_body_that_breaks_off_is_truncated_after_what_came(
    upstream: OpenAIUpstream, begun: bytes, end: Callable[[asyncio.StreamWriter], Awaitable[None]]
) -> None:
    go = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        await go.wait()
        await end(writer)

    async with peer(answer) as server:
        streamed, read = await post(upstream, server.url), await post(upstream, server.url)
        chunks = streamed.chunks()
        assert await anext(chunks) == b"hello"
        go.set()
        with pytest.raises(UpstreamError) as first:
            await asyncio.wait_for(anext(chunks), 30)
        with pytest.raises(UpstreamError) as second:
            await asyncio.wait_for(read.read(), 30)
        streamed.close()
        read.close()
    for caught in (first.value, second.value):
        assert caught.outcome is Outcome.TRUNCATED
        assert_anonymous(caught)


async def test_a_connection_that_is_not_taken_times_out(upstream: OpenAIUpstream) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        waiting = []
        for _ in range(3):  # more than the queue holds: the system answers no further one
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            waiting.append(one)
        with pytest.raises(UpstreamError) as caught:
            await post(upstream, f"http://127.0.0.1:{port}/v1", timeouts=Timeouts(connect=0.05))
        for one in waiting:
            one.close()
    assert (caught.value.outcome, caught.value.reset) == (Outcome.TIMEOUT, False)
    assert_anonymous(caught.value)


async def test_a_redirect_is_passed_on_not_followed(upstream: OpenAIUpstream) -> None:
    async with peer(OK) as elsewhere:
        moved = f"HTTP/1.1 307 Moved\r\nLocation: {elsewhere.url}/chat/completions\r\nContent-Length: 0\r\n\r\n"
        async with peer(moved.encode()) as server:
            reply = await post(upstream, server.url, key="sk-secret")
            assert reply.status == 307
            await reply.read()
            assert await upstream.healthy(FixedAddress(server.url, "sk-secret"))
        assert elsewhere.requests == []


async def test_a_replicas_key_goes_to_that_replica_alone(upstream: OpenAIUpstream) -> None:
    async with peer(OK) as first, peer(OK) as second:
        for server, key in ((first, "sk-first"), (second, None), (first, "sk-other"), (first, None)):
            await (await post(upstream, server.url, key)).read()
        assert [first.header("authorization", i) for i in range(3)] == ["Bearer sk-first", "Bearer sk-other", None]
        assert second.header("authorization") is None
        assert "sk-first" not in repr(FixedAddress(first.url, "sk-first"))


async def test_neither_netrc_nor_proxies_of_the_environment_are_heeded(
    upstream: OpenAIUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with peer(OK) as server, peer(OK) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        await (await post(upstream, server.url)).read()
        assert server.header("authorization") is None
        assert proxy.requests == []


async def test_cookies_are_not_kept(upstream: OpenAIUpstream) -> None:
    async with peer(OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: who=somebody; Path=/\r\n\r\n")) as server:
        for _ in range(2):
            await (await post(upstream, server.url.replace("127.0.0.1", "localhost"))).read()
        assert [server.header("cookie", i) for i in range(2)] == [None, None]


def encoded(how: str, body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Encoding: {how}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_a_compressed_answer_arrives_decoded(upstream: OpenAIUpstream) -> None:
    text = b"on and on " * 10_000
    async with peer(encoded("gzip", gzip.compress(text))) as server:
        assert await (await post(upstream, server.url)).read() == text
        assert b"".join([chunk async for chunk in (await post(upstream, server.url)).chunks()]) == text
        assert server.header("accept-encoding") == "identity"


@pytest.mark.parametrize("how", ["gzip", "deflate", "br", "zstd"])
async def test_an_answer_that_cannot_be_decoded_is_an_upstream_error(upstream: OpenAIUpstream, how: str) -> None:
    async with peer(encoded(how, b"\x1f\x8bnot compressed at all")) as server:
        with pytest.raises(UpstreamError) as caught:
            await whole(upstream, server.url)
    assert caught.value.outcome in (Outcome.TRUNCATED, Outcome.SERVER_ERROR)
    assert_anonymous(caught.value)


async def test_a_connection_is_kept_and_a_fresh_one_is_not(upstream: OpenAIUpstream) -> None:
    async with peer(OK) as server:
        await (await post(upstream, server.url)).read()
        await (await post(upstream, server.url)).read()
        assert server.connections == 1
        await (await post(upstream, server.url, fresh=True)).read()
        await (await post(upstream, server.url, fresh=True)).read()
        assert server.connections == 3
        await asyncio.wait_for(server.left.wait(), 30)  # a fresh one is closed after its answer
        await (await post(upstream, server.url)).read()
        assert server.connections == 3


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(CHUNKED)
    while True:
        writer.write(b"3\r\non \r\n")
        await writer.drain()
        await asyncio.sleep(0.001)


async def silent_after_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(CHUNKED + b"3\r\non \r\n")


@pytest.mark.parametrize("answer", [endless, silent_after_headers])
async def test_closing_an_answer_ends_the_servers_side_of_it(upstream: OpenAIUpstream, answer: Answer) -> None:
    async with peer(answer) as server:
        reply = await post(upstream, server.url)
        async for chunk in reply.chunks():
            assert chunk.startswith(b"on ")
            break
        assert not server.left.is_set()
        reply.close()
        reply.close()
        await asyncio.wait_for(server.left.wait(), 30)


async def never(writer: asyncio.StreamWriter) -> None:
    pass


async def test_a_cancelled_call_leaves_no_connection(upstream: OpenAIUpstream) -> None:
    async with peer(never) as server:
        call = asyncio.create_task(post(upstream, server.url))
        await asyncio.wait_for(server.asked.wait(), 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(server.left.wait(), 30)


@pytest.mark.parametrize(("status", "well"), [("200 OK", True), ("404 No", True), ("401 No", True), ("500 No", False)])
async def test_a_server_is_well_unless_it_is_at_fault(upstream: OpenAIUpstream, status: str, well: bool) -> None:
    async with peer(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()) as server:
        assert await upstream.healthy(FixedAddress(server.url, "sk-secret")) is well
        assert server.requests[0].startswith(b"GET /health HTTP/1.1\r\n")
        assert server.header("authorization") is None


async def test_what_cannot_be_asked_is_not_well(upstream: OpenAIUpstream) -> None:
    with nobody() as url:
        assert not await upstream.healthy(FixedAddress(url))
    async with peer(b"SSH-2.0\r\n\r\n") as server:
        assert not await upstream.healthy(FixedAddress(server.url))


@pytest.mark.parametrize("reading", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ServerDisconnectedError("http://10.0.0.5:8000"),
        aiohttp.ClientOSError(104, "http://10.0.0.5:8000"),
        aiohttp.ClientPayloadError("http://10.0.0.5:8000"),
        aiohttp.InvalidURL("http://10.0.0.5:8000"),
        aiohttp.SocketTimeoutError("http://10.0.0.5:8000"),
        ConnectionResetError("http://10.0.0.5:8000"),
        TimeoutError("http://10.0.0.5:8000"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_error_holds_an_address_or_asks_again_for_an_answer_that_began(error: Exception, reading: bool) -> None:
    ours = mapped(error, reading=reading)
    assert "10.0.0.5" not in str(ours)
    assert not (ours.reset and reading)
    assert (ours.outcome is Outcome.TIMEOUT) == isinstance(error, TimeoutError)


# Fetching what lies beside /v1.


async def test_what_lies_beside_v1_is_fetched_with_the_replicas_key(upstream: OpenAIUpstream) -> None:
    async with peer(HELLO + b"4\r\n you\r\n0\r\n\r\n") as server:
        assert await upstream.fetch(FixedAddress(server.url, "sk-own"), "/metrics") == b"hello you"
        assert server.requests[0].startswith(b"GET /metrics HTTP/1.1\r\n")
        assert server.header("authorization") == "Bearer sk-own"
        await upstream.fetch(FixedAddress(server.url), "/metrics")
        assert server.header("authorization") is None


async def test_who_wants_the_status_too_gets_it_or_why_there_is_none(upstream: OpenAIUpstream) -> None:
    async with peer(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}") as server:
        assert await upstream.get(FixedAddress(server.url), "/v1/models") == (401, b"{}")
        assert server.requests[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
    async with peer(never) as server:
        with pytest.raises(UpstreamError) as raised:
            async with asyncio.timeout(10):
                await upstream.get(FixedAddress(server.url), "/health", 0.05)
    assert raised.value.outcome is Outcome.TIMEOUT
    assert_anonymous(raised.value)


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    b"SSH-2.0\r\n\r\n",
    hang_up,
    abort,
], ids=["404", "500", "302", "no HTTP", "closed", "reset"])  # fmt: skip
async def test_what_cannot_be_fetched_is_none(upstream: OpenAIUpstream, answer: Answer) -> None:
    async with peer(answer) as server:
        assert await upstream.fetch(FixedAddress(server.url), "/metrics") is None


async def test_what_breaks_off_or_is_too_much_is_none(
    upstream: OpenAIUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut(writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO)
        await writer.drain()
        writer.close()

    async with peer(cut) as server:
        assert await upstream.fetch(FixedAddress(server.url), "/metrics") is None
    monkeypatch.setattr("gateway.upstreams.openai.FETCHED_BYTES", 4)
    async with peer(HELLO + b"0\r\n\r\n") as server:
        assert await upstream.fetch(FixedAddress(server.url), "/metrics") is None


async def test_nothing_is_fetched_from_where_nobody_is(upstream: OpenAIUpstream) -> None:
    with nobody() as url:
        assert await upstream.fetch(FixedAddress(url), "/metrics") is None
