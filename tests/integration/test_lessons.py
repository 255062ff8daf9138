"""What users of other gateways filed, where no other test protects it already; docs/lessons.md has the list."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import msgspec
import pytest

from gateway.health import JITTER
from tests.fakes.dialects import CHAT, TEXT, event
from tests.fakes.raw import END, RawBehaviour, RawServer, piece, raw_server, sends, stream_head, whole
from tests.fakes.upstream import PATIENCE, USAGE, FakeServer
from tests.integration.conftest import PATIENT, Running, Start
from tests.integration.failures.endpoints import HELLO
from tests.integration.failures.stage import dead_ends, expert_lines

WELL = sends(whole(CHAT.whole), then="keep")
HANGS = sends(then="hang")


@pytest.fixture
def raw() -> Iterator[RawServer]:
    with raw_server(WELL) as server:
        yield server


def experts(**urls: str) -> str:
    parts = (expert_lines(name, url, PATIENT) for name, url in urls.items())
    return "\n".join(["version: 1", "experts:", *(line for lines in parts for line in lines)])


def ask(gateway: Running, **body: Any) -> httpx.Response:
    request = {"model": "one", "messages": HELLO, **body}
    return httpx.post(f"{gateway.url}{CHAT.path}", content=json.dumps(request).encode(), timeout=30)


def send(gateway: Running, **body: Any) -> socket.socket:
    """Ask, and return the open socket."""
    content = json.dumps({"model": "one", "messages": HELLO, **body}).encode()
    host, port = gateway.url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), timeout=PATIENCE)
    client.sendall(f"POST {CHAT.path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content)
    return client


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_while_the_connection_is_still_made_leaves_nothing_behind(
    start: Start, stream: bool
) -> None:
    with dead_ends() as (_, deaf):
        gateway = start(experts(one=f"http://127.0.0.1:{deaf}/v1"))
        gateway.state.pool.replicas["one"][0].up = None  # it cannot be probed either
        with send(gateway, stream=stream):
            assert gateway.settled("moe_requests_in_flight", 1)
        assert gateway.settled("moe_client_disconnects_total", 1, phase="waiting")
        assert gateway.settled("moe_requests_in_flight", 0)


SPEAKS = sends(stream_head(), piece(CHAT.begin + CHAT.half), then="hang")


@pytest.mark.parametrize(
    ("behaviour", "stream", "heard"),
    [(HANGS, False, b""), (HANGS, True, b""), (SPEAKS, True, b"half")],
    ids=["whole", "before the first token", "in mid-stream"],
)
def test_a_client_that_leaves_frees_the_expert_within_a_tenth_of_a_second(
    start: Start, raw: RawServer, behaviour: RawBehaviour, stream: bool, heard: bytes
) -> None:
    """Three of nine at least: the others may meet a busy machine. One that asked once a second would pass one time in twenty."""
    raw.behaviour = behaviour
    gateway = start(experts(one=raw.url))
    seconds = []
    for _ in range(9):
        with send(gateway, stream=stream) as client:
            assert raw.until(lambda server: server.held == 1)
            received = b""
            while heard not in received:
                received += client.recv(4096)
            began = time.monotonic()
        assert raw.until(lambda server: server.held == 0)
        seconds.append(time.monotonic() - began)
    assert sorted(seconds)[2] < 0.1


def test_usage_told_on_every_chunk_is_counted_once(start: Start, raw: RawServer) -> None:
    told = [event({"choices": [{"index": 0, "delta": {"content": word}}], "usage": USAGE}) for word in ("a", "b", "c")]
    raw.behaviour = sends(stream_head(), *map(piece, [CHAT.begin, *told, CHAT.finish, CHAT.usage, CHAT.done]), END)
    gateway = start(experts(one=raw.url))
    assert "[DONE]" in ask(gateway, stream=True).text
    assert gateway.settled("moe_tokens_total", USAGE["completion_tokens"], kind="output")  # type: ignore[arg-type]
    assert gateway.metric("moe_tokens_total", kind="input") == 8
    assert gateway.metric("moe_tokens_total", kind="cached_input") == 3


def test_a_replica_that_hangs_stalls_no_other(start: Start, raw: RawServer, servers: list[FakeServer]) -> None:
    """More requests hang than a client's pool would usually hold."""
    raw.behaviour = HANGS
    gateway = start(experts(one=raw.url, two=servers[0].url))
    hanging = [send(gateway) for _ in range(120)]
    try:
        assert raw.until(lambda server: server.held == 120)
        assert ask(gateway, model="two").status_code == 200
        assert raw.held == 120  # the others hang on
    finally:
        for client in hanging:
            client.close()
    assert raw.until(lambda server: server.held == 0)


def test_a_connection_that_vllm_may_be_closing_is_not_used_again(start: Start, raw: RawServer) -> None:
    gateway = start(experts(one=raw.url))
    assert ask(gateway).status_code == ask(gateway).status_code == 200
    time.sleep(4)  # vLLM closes what was idle for 5 s
    assert ask(gateway).status_code == 200
    _, second, third = (call.number for call in raw.calls)
    assert second > 1  # a kept one, be it of the first request or of a probe before it
    assert third == 1


def test_a_replicas_health_is_asked_cheaply_and_by_one_loop(start: Start, raw: RawServer) -> None:
    start(experts(one=raw.url, two=raw.url.replace("127.0.0.1", "localhost")), health_interval=0.2)
    began, before = time.monotonic(), raw.probes.count("/health")
    assert raw.until(lambda server: server.probes.count("/health") >= before + 16)
    asked = raw.probes.count("/health") - before
    rounds = (time.monotonic() - began) / (0.2 * (1 - JITTER)) + 1
    assert asked <= 2 * rounds  # of two addresses; another loop would ask twice as often
    assert raw.calls == []  # no completion, which would cost


def test_no_header_that_is_the_clients_or_the_connections_own_goes_up_and_none_of_the_servers_comes_down(
    start: Start, raw: RawServer
) -> None:
    raw.behaviour = sends(whole(CHAT.whole, headers={"set-cookie": "a=b", "x-worker": "10.1.2.3"}), then="keep")
    gateway = start(experts(one=raw.url), keys={"team": "the-clients-key"})
    secret = {
        "authorization": "Bearer the-clients-key",
        "x-api-key": "the-clients-key",
        "cookie": "session=1",
        "proxy-authorization": "Basic xyz",
        "te": "trailers",
        "x-forwarded-for": "192.0.2.7",
    }
    response = httpx.post(
        f"{gateway.url}{CHAT.path}", json={"model": "one", "messages": HELLO}, headers=secret, timeout=PATIENCE
    )
    assert response.status_code == 200
    assert secret.keys() & raw.calls[0].headers.keys() == set()
    assert "the-clients-key" not in str(raw.calls[0])
    told = str(response.headers)
    assert [word for word in ("secret-host-7", "10.1.2.3", "a=b", "127.0.0.1", "the-clients-key") if word in told] == []


HUGE_BODIES: dict[str, Callable[[], bytes]] = {  # made when they are needed: they are 30 MB each
    "deep": lambda: b'{"messages": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "many messages": lambda: b'{"messages": [' + b'{"role": "user", "content": "a"},' * 90_000 + b"{}]}",
    "many numbers": lambda: b'{"x": [' + b"1," * 16_000_000 + b'1], "messages": [], "model": "one"}',
    "long text": lambda: (
        b'{"messages": [{"role": "user", "content": "' + b"word " * 6_000_000 + b'"}], "model": "one"}'
    ),
}


@pytest.mark.parametrize("make", HUGE_BODIES.values(), ids=list(HUGE_BODIES))
def test_a_huge_body_does_not_stall_the_others(start: Start, raw: RawServer, make: Callable[[], bytes]) -> None:
    """For no longer than a part of what it takes to read the body in one go. Told in what this process, the gateway's, the
    client's and the others', computes: what other processes take of the machine holds nobody up here."""
    body = make()
    began = time.process_time()
    with suppress(msgspec.DecodeError, RecursionError):
        msgspec.json.decode(body)
    in_one_go = time.process_time() - began
    gateway = start(experts(one=raw.url))
    answers: list[int] = []

    def post() -> None:
        answers.append(httpx.post(f"{gateway.url}{CHAT.path}", content=body, timeout=60).status_code)

    thread = threading.Thread(target=post)
    thread.start()
    longest = 0.0
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        while thread.is_alive():
            began = time.process_time()
            assert client.get("/health").status_code == 200
            longest = max(longest, time.process_time() - began)
    thread.join()
    assert answers[0] in (200, 400)
    assert longest < max(0.7, in_one_go / 2)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CONTENTS: dict[str, list[dict[str, Any]]] = {
    "parts": [{"role": "user", "content": [{"type": "text", "text": "Prove it."}]}],
    "an image alone": [{"role": "user", "content": [IMAGE]}],
    "null beside a tool's call": [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "5"},
    ],
    "a megabyte": [{"role": "user", "content": "word " * 200_000}],
}


@pytest.mark.parametrize("messages", CONTENTS.values(), ids=CONTENTS)
def test_whatever_content_is_it_is_routed(start: Start, raw: RawServer, messages: list[dict[str, Any]]) -> None:
    gateway = start(experts(one=raw.url) + "\n    capabilities: [vision]")
    answer = ask(gateway, model="auto", messages=messages)
    assert answer.status_code == 200
    assert raw.calls[0].body["messages"] == messages


def test_every_answer_says_why_its_expert_was_chosen(start: Start, raw: RawServer, servers: list[FakeServer]) -> None:
    gateway = start(experts(one=raw.url, two=servers[0].url))
    answers = [ask(gateway, model="auto", stream=False), ask(gateway, model="auto"), ask(gateway, model="two")]
    for answer in answers:
        for name in (
            "request-id",
            "moe-expert",
            "moe-model",
            "moe-reason",
            "moe-stage",
            "moe-route-ms",
            "moe-attempts",
        ):
            assert answer.headers[f"x-{name}"], name
    assert float(answers[0].headers["x-moe-confidence"]) > 0
    assert answers[0].headers["x-moe-domain"]
    route = httpx.post(
        f"{gateway.url}/v1/route", json={"input": "Prove that there are infinitely many primes"}, timeout=PATIENCE
    ).json()
    assert {"probabilities", "reason", "latency_ms", "confidence", "stage"} <= route.keys()
    first, second, *_ = sorted(route["probabilities"].values(), reverse=True)
    assert route["probabilities"][route["domain"]] == first > second > 0  # the runner-up is told as well


def test_what_an_unpriced_answer_costs_is_counted_as_unknown_not_as_nothing(start: Start, raw: RawServer) -> None:
    text = "\n".join(line for line in experts(one=raw.url).splitlines() if "price:" not in line)
    gateway = start(text)
    answer = ask(gateway)
    assert answer.json()["choices"][0]["message"]["content"] == TEXT
    assert "x-moe-cost-usd" not in answer.headers
    assert gateway.settled("moe_unpriced_requests_total", 1, expert="one")
    assert gateway.metric("moe_tokens_total", expert="one", kind="output") == 4
    assert "moe_cost_usd_total{" not in httpx.get(f"{gateway.url}/metrics", timeout=PATIENCE).text
