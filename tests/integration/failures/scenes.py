"""How the rows of docs/failures.md are played that take more than a server's bytes: clients that leave, queues, operators."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from gateway.budget import PER_SECOND, RESERVE, SHARE
from tests.fakes.dialects import CHAT, TEXT, TOKENS
from tests.fakes.raw import END, Call, RawBehaviour, Then, piece, sends, stream_head, whole
from tests.fakes.upstream import PATIENCE
from tests.integration.failures import sleeping
from tests.integration.failures.endpoints import said
from tests.integration.failures.operators import gateway_drain, reload
from tests.integration.failures.plays import HANGS, SHUT_DOWN, TOO_LONG
from tests.integration.failures.stage import Books, Stage
from tests.integration.failures.table import Row

Scene = Callable[[Stage, Row, bool], None]
WELL = sends(whole(CHAT.whole), then="keep")


def good_answer(stream: bool) -> RawBehaviour:
    return sends(stream_head(), *map(piece, CHAT.events), END, then="keep") if stream else WELL


# Nobody is asked yet


@contextmanager
def busy(stage: Stage, expert: str) -> Iterator[None]:
    """One request in flight at the expert, for as long as this lasts."""
    stage.raw.behaviour = HANGS
    with stage.leave(expert, stream=False):
        assert stage.raw.until(lambda raw: raw.held == 1)
        yield
    assert stage.raw.until(lambda raw: raw.held == 0)


def _queue(expert: str, least_seconds: float) -> Scene:
    def scene(stage: Stage, row: Row, stream: bool) -> None:
        before = stage.metrics()
        began = time.monotonic()
        with busy(stage, expert):
            refused(stage.ask(expert, stream), row, expert)
        assert time.monotonic() - began >= least_seconds
        books = stage.books(before, requests=2)
        assert books.change("moe_upstream_attempts_total") == 1  # of the one that was held
        assert books.change("moe_tokens_total") == 0
        before = stage.metrics()
        with busy(stage, f"{expert}-then"):
            moved(stage.ask(f"{expert}-then", stream), attempts=1)
        assert stage.books(before, requests=2).change("moe_upstream_attempts_total", expert="good", outcome="ok") == 1
        assert not stage.failures(expert)
        stage.raw.behaviour = WELL
        assert stage.ask(expert, False).status_code == 200

    return scene


def all_down(stage: Stage, row: Row, stream: bool) -> None:
    for expert in ("raw", "raw-then"):
        for replica in stage.gateway.state.pool.replicas[expert]:
            replica.open_until = replica.clock() + 40
    before = stage.metrics()
    assert 30 < int(refused(stage.ask("raw", stream), row, "raw").headers["retry-after"]) <= 40
    moved(stage.ask("raw-then", stream), attempts=1)
    assert stage.raw.calls == []
    assert stage.books(before, requests=2).change("moe_upstream_attempts_total") == 1


def refused(response: httpx.Response, row: Row, expert: str) -> httpx.Response:
    """What is told where nobody could be asked."""
    assert response.status_code == row.status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == row.code
    assert int(response.headers["retry-after"]) > 0
    assert response.headers.get("x-moe-attempts", "0") == "0"
    return response


def moved(response: httpx.Response, attempts: int) -> None:
    assert response.status_code == 200
    assert said(response) == TEXT
    assert response.headers["x-moe-expert"] == "good"
    assert response.headers["x-moe-attempts"] == str(attempts)


# Clients that leave


def _leaves(behaviour: RawBehaviour, phase: str, heard: bytes = b"", told: bool = False) -> Scene:
    def scene(stage: Stage, row: Row, stream: bool) -> None:
        stage.raw.behaviour = behaviour
        before = stage.metrics()
        with stage.leave("raw-then", stream) as client:
            assert stage.raw.until(lambda raw: raw.held == 1)
            received = b""
            while heard not in received:
                received += client.recv(4096)
        assert stage.raw.until(lambda raw: raw.held == 0)  # the connection to the expert is closed
        books = stage.books(before)
        left(stage, row, books, phase)
        assert books.change("moe_tokens_total", kind="output") == (TOKENS["output"] if told else 0)

    return scene


def left(stage: Stage, row: Row, books: Books, phase: str) -> None:
    """What is booked for a client that left: nothing against the replica, nobody else asked."""
    attempts = 0 if row.outcome is None else 1
    assert books.change("moe_upstream_attempts_total") == attempts
    assert books.change("moe_upstream_attempts_total", outcome=str(row.outcome)) == attempts
    assert books.change("moe_client_disconnects_total", phase=phase) == 1
    assert books.change("moe_requests_total", code="499") == 1
    assert stage.failures("raw-then") == 0
    assert stage.good.calls == []


def leaves_sending(stage: Stage, row: Row, stream: bool) -> None:
    before = stage.metrics()
    with stage.connect() as client:
        head = f"POST {CHAT.path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
        client.sendall(head.encode() + b'{"stream": ' + json.dumps(stream).encode())
        time.sleep(0.1)
    left(stage, row, stage.books(before), "routing")
    assert stage.raw.calls == []


def leaves_late(stage: Stage, row: Row, stream: bool) -> None:
    stage.raw.behaviour = sends(stream_head(), *map(piece, CHAT.events), then="hang")
    before = stage.metrics()
    with stage.leave("raw-then", stream) as client:
        received = b""
        while b"[DONE]" not in received:
            received += client.recv(4096)
    books = stage.books(before)
    assert books.change("moe_upstream_attempts_total", outcome="ok") == 1
    assert books.change("moe_requests_total", code="200") == 1
    assert books.change("moe_client_disconnects_total") == 0
    assert books.change("moe_tokens_total", kind="output") == TOKENS["output"]
    assert stage.raw.until(lambda raw: raw.held == 0)


def stalls(stage: Stage, row: Row, stream: bool) -> None:
    async def floods(call: Call) -> Then:
        await sends(stream_head(), piece(CHAT.half))(call)
        try:
            while True:
                await call.send(piece(CHAT.words[0] * 1000))
        except ConnectionError:
            return "close"

    stage.raw.behaviour = floods
    before = stage.metrics()
    with stage.leave("raw-then", stream):
        books = stage.books(before)
    left(stage, row, books, "streaming")
    assert books.change("moe_tokens_total", kind="output") == TOKENS["output"]


# Attempts


def reset_kept(stage: Stage, row: Row, stream: bool) -> None:
    async def lets_go(call: Call) -> Then:
        return "close" if len(stage.raw.calls) == 2 else await good_answer(stream)(call)

    stage.raw.behaviour = lets_go
    assert said(stage.ask("raw", stream)) == TEXT
    before = stage.metrics()
    response = stage.ask("raw", stream)
    assert said(response) == TEXT
    assert response.headers["x-moe-attempts"] == "2"
    assert response.headers["x-moe-expert"] == "raw"
    books = stage.books(before)
    _, second, third = (call.number for call in stage.raw.calls)
    assert second > 1  # on a connection that was kept
    assert third == 1  # on a new one
    assert books.change("moe_upstream_attempts_total", expert="raw", outcome=str(row.outcome)) == 1
    assert books.change("moe_upstream_attempts_total", expert="raw", outcome="ok") == 1
    assert books.change("moe_tokens_total", kind="output") == TOKENS["output"]
    assert stage.failures("raw") == 0


def too_long(stage: Stage, row: Row, stream: bool) -> None:
    """The fallback with the smaller window is passed over."""
    body = json.dumps({"error": TOO_LONG}).encode()
    stage.raw.behaviour = sends(whole(body, 400), then="keep")
    before = stage.metrics()
    response = stage.ask("middle", stream)
    assert said(response) == TEXT
    assert response.headers["x-moe-expert"] == "large"
    assert response.headers["x-moe-attempts"] == "2"
    books = stage.books(before)
    assert books.change("moe_upstream_attempts_total", expert="middle", outcome=str(row.outcome)) == 1
    assert books.change("moe_upstream_attempts_total", expert="small") == 0
    assert books.change("moe_tokens_total") == books.change("moe_tokens_total", expert="large") == 15
    assert stage.failures("middle") == 0


def _by_way(expert: str, stream: bool) -> str:
    """Each way of asking has an expert of its own, since what one request spends another lacks."""
    return f"{expert}-{'stream' if stream else 'whole'}"


def retry_budget(stage: Stage, row: Row, stream: bool) -> None:
    stage.raw.behaviour = sends(whole(b"{}", 500), then="keep")
    expert = _by_way("storm", stream)
    requests = int(RESERVE)  # each wants two further attempts
    attempts, began = [], time.monotonic()
    for _ in range(requests):
        stage.forget()
        response = stage.ask(expert, stream)
        attempts.append(int(response.headers["x-moe-attempts"]))
        moved(response, attempts[-1])
    assert attempts[0] == 4  # three replicas, then the next expert
    assert min(attempts) >= 2
    allowed = RESERVE + requests * SHARE + (time.monotonic() - began) * PER_SECOND  # fewer than they want within 8 s
    assert sum(attempts) - 2 * requests <= allowed + 1


def hedged(stage: Stage, row: Row, stream: bool) -> None:
    """The replicas take turns, so that one of two requests meets the one that hangs first.

    Where the machine is so busy that the good one is late as well, the other is asked beside it, and each request is such a one.
    """
    stage.raw.behaviour = HANGS
    before = stage.metrics()
    for _ in range(2):
        response = stage.ask("hedged", stream)
        assert said(response) == TEXT
        assert response.headers["x-moe-expert"] == "hedged"
    assert stage.raw.until(lambda raw: raw.held == 0)
    books = stage.books(before, requests=2)
    hedges = books.change("moe_upstream_attempts_total", replica="hedged-0", outcome=str(row.outcome))
    assert 1 <= hedges <= 2
    assert books.change("moe_upstream_attempts_total", replica="hedged-1", outcome="ok") == 2
    assert books.change("moe_upstream_attempts_total") == 2 + hedges
    assert books.change("moe_tokens_total", kind="output") == 2 * TOKENS["output"]
    assert stage.failures("hedged") == 0


def budget(stage: Stage, row: Row, stream: bool) -> None:
    stage.raw.behaviour = sends(whole(b"{}", 500), then="keep")
    before = stage.metrics()
    expert = _by_way("many", stream)
    response = stage.ask(expert, stream)
    assert response.status_code == row.status
    assert response.json()["error"]["code"] == row.code
    assert response.headers["x-moe-attempts"] == "8"
    books = stage.books(before)
    assert books.change("moe_upstream_attempts_total", expert=expert, outcome=str(row.outcome)) == 8
    assert len({call.path for call in stage.raw.calls}) == len(stage.raw.calls) == 8  # no replica was asked twice
    assert stage.good.calls == []
    assert books.change("moe_tokens_total") == 0


# Operators


def worker_drain(stage: Stage, row: Row, stream: bool) -> None:
    """A worker that shuts down refuses what is new and ends what runs."""
    going = threading.Event()

    async def drains(call: Call) -> Then:
        if going.is_set():
            await call.send(whole(json.dumps({"error": SHUT_DOWN}).encode(), 500))
            return "keep"
        await sends(stream_head(), piece(CHAT.begin), *map(piece, CHAT.words))(call)
        await asyncio.to_thread(going.wait, PATIENCE)
        await sends(0.2, piece(CHAT.finish), piece(CHAT.usage), piece(CHAT.done), END)(call)
        return "close"

    stage.raw.behaviour = drains
    before = stage.metrics()
    with stage.leave("raw", stream) as client:
        received = client.recv(4096)
        going.set()
        moved(stage.ask("raw-then", stream), attempts=2)
        while not received.endswith(b"0\r\n\r\n"):
            received += client.recv(4096)
    assert b"[DONE]" in received
    assert b'"error"' not in received
    books = stage.books(before, requests=2)
    assert books.change("moe_upstream_attempts_total", expert="raw", outcome=str(row.outcome)) == 1
    assert books.change("moe_tokens_total", expert="raw", kind="output") == TOKENS["output"]
    assert stage.failures("raw") == 0


SPEAKS_THEN_HANGS = sends(stream_head(), piece(CHAT.begin + CHAT.half), then="hang")
SCENES: dict[str, Scene] = {
    "queue-full": _queue("full", 0.0),
    "queue-wait": _queue("queued", 0.3),
    "all-down": all_down,
    "asleep": sleeping.asleep,
    "waking": sleeping.waking,
    "woke-late": sleeping.woke_late,
    "wake-fails": sleeping.wake_fails,
    "client-leaves-asleep": sleeping.leaves_asleep,
    "client-leaves-sending": leaves_sending,
    "reset-kept": reset_kept,
    "client-leaves-waiting": _leaves(HANGS, "waiting"),
    "400-too-long": too_long,
    "client-leaves-early": _leaves(sends(stream_head(), piece(CHAT.begin), then="hang"), "waiting"),
    "client-leaves": _leaves(SPEAKS_THEN_HANGS, "streaming", heard=b"half", told=True),
    "client-stalls": stalls,
    "client-leaves-late": leaves_late,
    "hedged": hedged,
    "retry-budget": retry_budget,
    "budget": budget,
    "reload-waiting": reload,
    "reload-streaming": reload,
    "gateway-drain": gateway_drain,
    "worker-drain": worker_drain,
}
