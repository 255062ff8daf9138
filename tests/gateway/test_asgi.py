from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.asgi import (
    ClientGoneError,
    Message,
    headers_of,
    read_body,
    request_id,
    respond,
    respond_error,
    start,
    until_gone,
)
from gateway.errors import BodyTooLargeError, EncodingError, RequestTimeoutError, UpstreamGatewayError
from tests.fakes.memory import SkippingLoop

GONE: Message = {"type": "http.disconnect"}


def pieces(*parts: bytes) -> list[Message]:
    """The messages of a body that comes in `parts`."""
    last = len(parts) - 1
    return [{"type": "http.request", "body": part, "more_body": i < last} for i, part in enumerate(parts)]


class Client:
    """Says its messages one by one and then nothing more; remembers what it was sent."""

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        self.messages, self.taken = list(messages), 0
        self.sent: list[Message] = []
        self.left = asyncio.Event()

    async def receive(self) -> Message:
        await asyncio.sleep(0)
        if self.taken < len(self.messages):
            self.taken += 1
            return self.messages[self.taken - 1]
        await self.left.wait()
        return GONE

    async def send(self, message: Message) -> None:
        self.sent.append(message)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8), st.integers(0, 60))
def test_a_body_is_read_whole_in_however_many_pieces_or_refused_above_the_limit(parts: list[bytes], limit: int) -> None:
    body = b"".join(parts)

    async def read() -> bytes:
        return await read_body({}, Client(pieces(*parts)).receive, limit)

    if len(body) <= limit:
        assert asyncio.run(read()) == body
    else:
        with pytest.raises(BodyTooLargeError):
            asyncio.run(read())


async def test_a_body_declared_too_large_is_refused_unread() -> None:
    client = Client(pieces(b"x"))
    with pytest.raises(BodyTooLargeError, match="10 bytes"):
        await read_body({b"content-length": b"11"}, client.receive, 10)
    assert client.taken == 0


@pytest.mark.parametrize("declared", [b"3", b"0", b"-1", b"many", b"", b"1e9", b"\xb2"])
async def test_a_declared_length_that_lies_does_not_lift_the_limit(declared: bytes) -> None:
    client = Client(pieces(b"x" * 6, b"x" * 6, b"x" * 6))
    with pytest.raises(BodyTooLargeError):
        await read_body({b"content-length": declared}, client.receive, 10)
    assert client.taken == 2  # no more is read than what shows that it is too much
    assert await read_body({b"content-length": declared}, Client(pieces(b"x" * 10)).receive, 10) == b"x" * 10


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_may_be_as_large_as_the_limit_and_no_byte_larger(declared: bool) -> None:
    for size, fits in ((9, True), (10, True), (11, False)):
        headers = {b"content-length": str(size).encode()} if declared else {}
        client = Client(pieces(b"x" * 5, b"x" * (size - 5)))
        if fits:
            assert await read_body(headers, client.receive, 10) == b"x" * size
        else:
            with pytest.raises(BodyTooLargeError):
                await read_body(headers, client.receive, 10)


async def test_an_empty_body_is_read() -> None:
    assert await read_body({}, Client([{"type": "http.request"}]).receive, 10) == b""


async def test_a_client_that_leaves_while_its_body_is_read_is_gone() -> None:
    with pytest.raises(ClientGoneError):
        await read_body({}, Client([*pieces(b"a", b"b")[:1], GONE]).receive, 10)


def test_a_body_that_never_comes_is_given_up() -> None:
    async def read() -> None:
        with pytest.raises(RequestTimeoutError):
            await read_body({}, Client(pieces(b"a", b"b")[:1]).receive, 10)

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(read())


@given(st.from_regex(r"[A-Za-z0-9._:\-]{1,128}", fullmatch=True))
def test_a_safe_request_id_is_kept(given_id: str) -> None:
    assert request_id({b"x-request-id": given_id.encode()}) == given_id


@pytest.mark.parametrize(
    "given_id", [b"", b"a" * 129, b"a b", b"a\n", b"a\r\nx: y", b'a"b', "é".encode(), b"\xff", b"a/b"]
)
def test_any_other_request_id_is_replaced_by_a_new_one(given_id: bytes) -> None:
    new = {request_id({b"x-request-id": given_id}) for _ in range(5)} | {request_id({})}
    assert len(new) == 6
    assert all(one.startswith("req-") and len(one) <= 128 for one in new)


def test_headers_are_found_by_name() -> None:
    assert headers_of({"headers": [(b"a", b"1"), (b"b", b"2")]}) == {b"a": b"1", b"b": b"2"}


async def test_work_that_is_done_before_the_client_leaves_is_done() -> None:
    client, done = Client(pieces(b"a", b"b")), []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(True)

    await until_gone(client.receive, work())
    assert done == [True]


async def test_work_is_cancelled_when_the_client_leaves_and_its_clean_up_is_waited_for() -> None:
    client, steps = Client([{"type": "http.request"}]), []

    async def work() -> None:
        try:
            client.left.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            steps.append("cancelled")
            raise
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            steps.append("cleaned up")

    with pytest.raises(ClientGoneError):
        await until_gone(client.receive, work())
    assert steps == ["cancelled", "cleaned up"]


async def test_an_error_of_the_work_comes_out() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise LookupError("its own")

    with pytest.raises(LookupError, match="its own"):
        await until_gone(Client().receive, work())


async def test_who_cancels_the_whole_cancels_the_work_and_waits_for_its_clean_up() -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    whole = asyncio.ensure_future(until_gone(Client().receive, work()))
    for _ in range(3):
        await asyncio.sleep(0)
    whole.cancel()
    with pytest.raises(asyncio.CancelledError):
        await whole
    assert steps == ["cleaned up"]


@pytest.mark.parametrize("client_leaves", [True, False])
async def test_nothing_runs_on_afterwards(client_leaves: bool) -> None:
    client = Client()

    async def work() -> None:
        if client_leaves:
            client.left.set()
            await asyncio.Event().wait()

    before = asyncio.all_tasks()
    try:
        await until_gone(client.receive, work())
    except ClientGoneError:
        assert client_leaves
    assert asyncio.all_tasks() == before


@given(st.text(max_size=40) | st.sampled_from(["a\r\nset-cookie: b", "naïve", "日本\x7f\x00", "\ud800"]))
def test_header_values_are_made_safe_and_keep_their_place(value: str) -> None:
    client = Client()
    asyncio.run(start(client.send, 200, {"x-a": value}))
    [(name, encoded)] = client.sent[0]["headers"]
    assert name == b"x-a"
    assert len(encoded) == len(value)
    for byte, char in zip(encoded, value, strict=True):
        assert byte == (ord(char) if " " <= char <= "~" else ord("?"))


async def test_a_whole_answer_has_its_length_and_is_json_unless_said_otherwise() -> None:
    client = Client()
    await respond(client.send, 201, {"x-a": "b"}, b"{}")
    await respond(client.send, 200, {"content-type": "text/plain"}, b"four")
    first, second = dict(client.sent[0]["headers"]), dict(client.sent[2]["headers"])
    assert client.sent[0]["status"] == 201
    assert first == {b"content-type": b"application/json", b"x-a": b"b", b"content-length": b"2"}
    assert second == {b"content-type": b"text/plain", b"content-length": b"4"}
    assert [client.sent[i]["body"] for i in (1, 3)] == [b"{}", b"four"]


async def test_an_error_is_told_with_its_status_and_headers() -> None:
    client = Client()
    error = UpstreamGatewayError(503, "down", code="no_expert_available", headers={"retry-after": "5"})
    await respond_error(client.send, error, {"x-request-id": "r1", "retry-after": "9"})
    assert client.sent[0]["status"] == 503
    headers = dict(client.sent[0]["headers"])
    assert (headers[b"retry-after"], headers[b"x-request-id"]) == (b"5", b"r1")
    assert json.loads(client.sent[1]["body"])["error"]["message"] == "down"


async def test_of_a_fault_of_ours_the_client_learns_nothing() -> None:
    client = Client()
    await respond_error(client.send, ValueError("secret prompt"), {})
    assert client.sent[0]["status"] == 500
    assert b"secret" not in client.sent[1]["body"]
    assert json.loads(client.sent[1]["body"])["error"]["code"] == "internal_error"


@pytest.mark.parametrize("encoding", [b"gzip", b"GZIP", b"br", b"identity, gzip", b"zstd"])
async def test_a_compressed_body_is_refused_unread_by_the_header_that_says_so(encoding: bytes) -> None:
    client = Client(pieces(b"x"))
    with pytest.raises(EncodingError, match="content-encoding") as caught:
        await read_body({b"content-encoding": encoding}, client.receive, 10)
    assert client.taken == 0
    assert (caught.value.param, caught.value.headers) == ("content-encoding", {"accept-encoding": "identity"})


@pytest.mark.parametrize("encoding", [b"identity", b"", b" Identity "])
async def test_a_body_that_is_said_not_to_be_compressed_is_read(encoding: bytes) -> None:
    assert await read_body({b"content-encoding": encoding}, Client(pieces(b"x")).receive, 10) == b"x"


@pytest.mark.parametrize("turns", range(6))
async def test_a_client_that_leaves_just_as_the_work_ends_cancels_nothing_behind_it(turns: int) -> None:
    client, after = Client([{"type": "http.request"}]), []

    async def work() -> None:
        client.left.set()  # with some number of turns, what listens has heard of it and has not yet said so when the work ends
        for _ in range(turns):
            await asyncio.sleep(0)

    async def whole() -> None:
        with suppress(ClientGoneError):
            await until_gone(client.receive, work())
        for step in range(5):
            await asyncio.sleep(0)
            after.append(step)

    await asyncio.create_task(whole())
    assert after == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("turns", range(6))
async def test_who_cancels_the_whole_as_the_client_leaves_is_not_told_that_only_the_client_left(turns: int) -> None:
    client = Client([{"type": "http.request"}])
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(until_gone(client.receive, work()))
    await begun.wait()
    client.left.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    if not task.done() and task.cancel():
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with suppress(ClientGoneError):
            await task
