"""The replicas of one expert, over real sockets: who is asked, who waits, who is left alone, and what the admin sees."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web

from gateway.replica import FAILURES_TO_OPEN
from tests.fakes.upstream import PATIENCE, Behaviour, FakeServer, fake_server, status, well
from tests.integration.conftest import Running, Start
from tests.integration.test_disconnects import connect

DRAINING = {"error": {"message": "cannot schedule new futures after shutdown", "type": "x", "param": None, "code": 500}}
BUSY = {"error": {"message": "The engine is currently busy and cannot accept new requests.", "code": 503}}


def one_expert(*servers: FakeServer, extra: str = "") -> str:
    urls = ", ".join(server.url for server in servers)
    return (
        "version: 1\nexperts:\n  one:\n    model: m\n    domains: [code, math, bio, general]\n"
        f"    upstream: {{vllm: [{urls}]}}\n{extra}"
    )


@pytest.fixture(scope="module", autouse=True)
def client() -> Iterator[httpx.Client]:
    """What `ask` asks with: a client for each question would take longer than the answer."""
    with httpx.Client(timeout=2 * PATIENCE) as made:
        clients.append(made)
        yield made
    clients.clear()


clients: list[httpx.Client] = []


def ask(gateway: Running, *texts: str, session: str | None = None) -> httpx.Response:
    """One turn of a conversation in which `texts` were said, the user's first."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts or ("hello",))]
    headers = {"x-moe-session": session} if session else {}
    body = {"model": "one", "messages": messages}
    return clients[0].post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers)


def replicas(gateway: Running) -> list[dict[str, Any]]:
    """As the admin sees them."""
    told = clients[0].get(f"{gateway.url}/admin/experts")
    assert told.status_code == 200
    assert "127.0.0.1" not in told.text
    described: list[dict[str, Any]] = told.json()["one"]["replicas"]
    return described


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def stop_clocks(gateway: Running) -> None:
    """The replicas' time stands still: nothing cools down or grows stale however long the test takes."""
    now = time.monotonic()
    for replica in gateway.state.pool.all():
        replica.clock = lambda: now


@contextmanager
def opened(gate: threading.Event) -> Iterator[None]:
    """The gate is open in the end, however the test goes: nobody waits behind it for ever."""
    try:
        yield
    finally:
        gate.set()


def behind(gate: threading.Event) -> Behaviour:
    """Answers well once the gate is open."""

    async def answer(server: FakeServer, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        while not gate.is_set():  # noqa: ASYNC110 - it is opened in another thread
            await asyncio.sleep(0.01)
        return await well(server, request, body)

    return answer


def test_a_server_that_others_keep_busy_is_spared_while_it_says_so(start: Start, servers: list[FakeServer]) -> None:
    busy, idle, _ = servers
    busy.metrics = 'vllm:num_requests_running{engine="0"} 30\nvllm:num_requests_running{engine="1"} 30\n'
    idle.metrics = 'vllm:num_requests_running{engine="0"} 1\n'
    gateway = start(one_expert(busy, idle), health_interval=0.1)
    stop_clocks(gateway)
    until(lambda: not any(replica["load"]["stale"] for replica in replicas(gateway)))  # as it may be while it starts
    for i in range(12):
        assert ask(gateway, f"question {i}").status_code == 200
    assert (len(busy.requests), len(idle.requests)) == (0, 12)
    told = replicas(gateway)
    assert [replica["load"]["running"] for replica in told] == [60, 1]
    assert [replica["load"]["stale"] for replica in told] == [False, False]
    busy.metrics, idle.metrics = idle.metrics, busy.metrics
    until(lambda: [replica["load"]["running"] for replica in replicas(gateway)] == [1, 60])
    for i in range(12):
        assert ask(gateway, f"question {i}").status_code == 200
    assert (len(busy.requests), len(idle.requests)) == (12, 12)


def test_a_conversation_stays_with_the_server_that_has_its_beginning_in_its_cache(
    start: Start, servers: list[FakeServer]
) -> None:
    gateway = start(one_expert(*servers))
    said = [f"conversation {i}" for i in range(48)]  # that one of three servers gets none has a chance of 10⁻⁸
    for turn in range(2):
        for first in said:
            assert ask(gateway, first, *("answer", "and then?") * turn).status_code == 200
    heard = [{request["messages"][0]["content"] for request in server.requests} for server in servers]
    assert sum(map(len, heard)) == len(said)  # no conversation was heard by two
    assert all(heard)


def test_a_named_session_stays_with_one_server_whatever_is_said(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(one_expert(*servers, extra="    affinity: session\n"))
    for i in range(9):
        assert ask(gateway, f"something else {i}", session="s-1").status_code == 200
    assert sorted(len(server.requests) for server in servers) == [0, 0, 9]


def test_without_affinity_the_servers_take_turns(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(one_expert(*servers, extra="    affinity: none\n"))
    for _ in range(9):
        assert ask(gateway).status_code == 200
    assert [len(server.requests) for server in servers] == [3, 3, 3]


def test_a_worker_that_drains_is_left_alone_after_one_refusal_and_is_back_when_another_answers(
    start: Start, servers: list[FakeServer]
) -> None:
    draining, other, _ = servers
    gateway = start(one_expert(draining, other, extra="    affinity: none\n"), health_interval=0.1)
    stop_clocks(gateway)
    draining.behaviour = status(500, DRAINING)
    for _ in range(8):
        assert ask(gateway).status_code == 200
    assert len(draining.requests) == 1
    assert draining.healthy
    assert [replica["state"] for replica in replicas(gateway)] == ["draining", "up"]
    assert gateway.metric("moe_replica_state", replica="one-0", state="draining") == 1
    assert gateway.metric("moe_replica_up", replica="one-0") == 0
    assert gateway.metric("moe_replica_ejections_total", replica="one-0", cause="draining") == 1
    draining.healthy = False  # gone at last
    until(lambda: replicas(gateway)[0]["state"] == "down")
    draining.healthy, draining.behaviour = True, well  # another process
    until(lambda: replicas(gateway)[0]["state"] == "up")
    for _ in range(4):
        assert ask(gateway).status_code == 200
    assert len(draining.requests) == 3


def test_a_worker_that_was_replaced_between_two_probes_is_noticed_by_its_start(
    start: Start, servers: list[FakeServer]
) -> None:
    draining, other, _ = servers
    draining.metrics = "vllm:num_requests_running 0\nprocess_start_time_seconds 1000\n"
    gateway = start(one_expert(draining, other, extra="    affinity: none\n"), health_interval=0.1)
    stop_clocks(gateway)
    draining.behaviour = status(500, DRAINING)
    assert {ask(gateway).status_code for _ in range(4)} == {200}
    assert replicas(gateway)[0]["state"] == "draining"
    draining.behaviour = well
    draining.metrics = "vllm:num_requests_running 0\nprocess_start_time_seconds 1060\n"
    until(lambda: replicas(gateway)[0]["state"] == "up")


def test_a_worker_that_is_full_is_not_blamed(start: Start, servers: list[FakeServer]) -> None:
    full, other, _ = servers
    gateway = start(one_expert(full, other, extra="    affinity: none\n"))
    stop_clocks(gateway)
    full.behaviour = status(503, BUSY)
    for _ in range(12):
        assert ask(gateway).status_code == 200
    assert len(full.requests) == 1
    replica = gateway.state.pool.replicas["one"][0]
    replica.busy_until = replica.clock()  # as if that were over
    for _ in range(2):
        assert ask(gateway).status_code == 200
    assert len(full.requests) == 2  # it is spared for a while, not for good
    told = replicas(gateway)[0]
    assert (told["state"], told["failures"]) == ("up", 0)


def test_after_the_cool_down_one_request_goes_ahead_and_the_others_elsewhere(
    start: Start, servers: list[FakeServer]
) -> None:
    failing, other, _ = servers
    gateway, gate = start(one_expert(failing, other, extra="    affinity: none\n")), threading.Event()
    stop_clocks(gateway)
    failing.behaviour = status(500)
    while len(failing.requests) < FAILURES_TO_OPEN:
        assert ask(gateway).status_code == 200
    replica = gateway.state.pool.replicas["one"][0]
    assert replicas(gateway)[0]["state"] == "ejected"
    failing.behaviour = behind(gate)
    replica.open_until = replica.clock()  # as if the cool-down were over
    assert replicas(gateway)[0]["state"] == "half_open"
    asked = len(other.requests)
    with ThreadPoolExecutor(6) as pool, opened(gate):
        answers = [pool.submit(ask, gateway) for _ in range(6)]
        until(lambda: len(other.requests) == asked + 5)
        gate.set()
        assert [answer.result().status_code for answer in answers] == [200] * 6
    assert len(failing.requests) == FAILURES_TO_OPEN + 1
    assert (replicas(gateway)[0]["state"], replica.failures) == ("up", 0)


def test_requests_beyond_the_caps_wait_in_order_and_beyond_the_queue_are_told_when_to_come_again(
    start: Start, servers: list[FakeServer]
) -> None:
    server, gate = servers[0], threading.Event()
    server.behaviour = behind(gate)
    gateway = start(one_expert(server, extra="    max_in_flight: 1\n    queue: {length: 2, wait: 60s}\n"))
    answers: list[Future[httpx.Response]] = []
    with ThreadPoolExecutor(4) as pool, opened(gate):
        for i in range(3):
            answers.append(pool.submit(ask, gateway, f"number {i}"))
            until(lambda i=i: len(server.requests) == 1 and gateway.state.pool.queued("one") == i)  # type: ignore[misc]
        refused = ask(gateway, "number 3")
        assert server.open == 1
        assert gateway.metric("moe_requests_queued", expert="one") == 2
        gate.set()
        assert [answer.result().status_code for answer in answers] == [200] * 3
    assert [request["messages"][0]["content"] for request in server.requests] == [f"number {i}" for i in range(3)]
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert json.loads(refused.content)["error"]["code"]
    assert gateway.metric("moe_queue_seconds_count", expert="one") >= 2
    assert gateway.metric("moe_queue_refused_total", expert="one", reason="full") == 1
    assert gateway.metric("moe_requests_queued", expert="one") == 0
    assert gateway.metric("moe_requests_in_flight", expert="one") == 0


def test_a_wait_that_expires_is_a_503_that_says_when_to_come_again(start: Start, servers: list[FakeServer]) -> None:
    server, gate = servers[0], threading.Event()
    server.behaviour = behind(gate)
    gateway = start(one_expert(server, extra="    max_in_flight: 1\n    queue: {length: 5, wait: 0.2s}\n"))
    with ThreadPoolExecutor(1) as pool, opened(gate):
        first = pool.submit(ask, gateway)
        assert server.wait_until_asked()
        late = ask(gateway)
        assert late.status_code == 503
        assert int(late.headers["retry-after"]) >= 1
        gate.set()
        assert first.result().status_code == 200
    assert len(server.requests) == 1
    assert gateway.metric("moe_queue_refused_total", expert="one", reason="expired") == 1


def test_who_leaves_the_queue_takes_nothing_along(start: Start, servers: list[FakeServer]) -> None:
    server, gate = servers[0], threading.Event()
    server.behaviour = behind(gate)
    gateway = start(one_expert(server, extra="    max_in_flight: 1\n    queue: {wait: 60s}\n"))
    with ThreadPoolExecutor(1) as pool, opened(gate):
        first = pool.submit(ask, gateway)
        assert server.wait_until_asked()
        with connect(gateway, stream=False):
            until(lambda: gateway.state.pool.queued("one") == 1)
        until(lambda: gateway.state.pool.queued("one") == 0)
        gate.set()
        assert first.result().status_code == 200
        assert ask(gateway, "next").status_code == 200
    assert [request["messages"][0]["content"] for request in server.requests] == ["hello", "next"]
    assert gateway.metric("moe_requests_in_flight", expert="one") == 0


def test_a_server_that_hangs_at_its_probe_delays_no_other(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_server() as stuck, fake_server() as other:
        gateway = start(one_expert(stuck, other), health_interval=0.1)
        with monkeypatch.context() as never:
            for module in ("gateway.health", "gateway.upstreams.openai"):
                never.setattr(f"{module}.PROBE_SECONDS", 3600.0)  # it is not given up
            stuck.hang_health = True
            until(lambda: stuck.hanging == 1)
            other.healthy = False
            until(lambda: replicas(gateway)[1]["state"] == "down")
            assert replicas(gateway)[0]["state"] == "up"


def test_a_server_that_hangs_at_its_probe_is_down(start: Start) -> None:
    with fake_server() as stuck, fake_server() as other:
        gateway = start(one_expert(stuck, other), health_interval=0.1)
        stuck.hang_health = True
        until(lambda: replicas(gateway)[0]["state"] == "down")
        assert replicas(gateway)[1]["state"] == "up"
