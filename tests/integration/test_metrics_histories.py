"""Whatever clients and servers do at once, the books of /metrics balance with those that the servers keep themselves."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import count as numbers
from typing import Any

import httpx
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gateway.settings import Settings
from router.artifact import Artifact
from router.experts import parse_experts
from router.routing import Router
from tests.fakes.dialects import CHAT, event
from tests.fakes.raw import END, Call, RawServer, Then, piece, raw_server, sends, stream_head, whole
from tests.fakes.upstream import PATIENCE
from tests.integration.conftest import PATIENT, Running, _threaded, metric

PRICE = {"input": Fraction("0.15"), "cached_input": Fraction("0.07"), "output": Fraction("0.6")}
HASTY = "{connect: 60s, first_byte: 200ms, idle: 60s, total: 400ms}"
WORDS = b"".join(map(piece, CHAT.events[:3]))
MODELS = ("one", "two", "narrow", "queued")
ENDPOINTS = {
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
    "embeddings": "/v1/embeddings",
    "route": "/v1/route",
}
COUNTS = st.integers(0, 10**6)


@dataclass(frozen=True)
class Usage:
    prompt: int
    cached: int
    output: int
    reasoning: int

    def told(self) -> dict[str, Any]:
        """As OpenAI's API says it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.output,
            "total_tokens": self.prompt + self.output,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }


@dataclass(frozen=True)
class Step:
    """One request: what its client wants, and what the server that is asked first does, and the one that is asked then."""

    model: str
    endpoint: str
    stream: bool
    leaves: bool  # as soon as nobody says anything more
    does: tuple[str, str]
    usage: Usage


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    prompt, output = draw(COUNTS), draw(COUNTS)
    return Usage(prompt, draw(st.integers(0, prompt)), output, draw(st.integers(0, output)))


@st.composite
def steps(draw: st.DrawFn) -> Step:
    endpoint = draw(st.sampled_from(list(ENDPOINTS)))
    kind = draw(st.sampled_from(["answered", "answered", "leaves", "late", "unknown"]))
    stream = draw(st.booleans()) and endpoint in ("chat", "messages")
    doing = st.sampled_from(
        ["well", "well", "untold", "500", "429", "404", "400", "418", "cut", "words", "died", "broken"]
    )
    does = (draw(doing), draw(doing))
    model = draw(st.sampled_from(MODELS))
    if kind == "leaves" and endpoint == "chat":
        return Step(
            model, endpoint, stream, True, (draw(st.sampled_from(["silent", "silence"])), "silent"), draw(usages())
        )
    if kind == "late":
        return Step("hasty", "chat", True, False, ("silent", "silent"), draw(usages()))
    return Step("nobody" if kind == "unknown" else model, endpoint, stream, False, does, draw(usages()))


@dataclass
class Books:
    """What servers did, by expert."""

    calls: int = 0
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    silent: dict[str, threading.Event] = field(default_factory=dict)

    def tell(self, expert: str, usage: Usage) -> None:
        with self.lock:
            self.tokens[expert, "input"] += usage.prompt - usage.cached
            self.tokens[expert, "cached_input"] += usage.cached
            self.tokens[expert, "output"] += usage.output
            self.tokens[expert, "reasoning"] += usage.reasoning


@dataclass
class Stage:
    gateway: Running
    servers: tuple[RawServer, RawServer]
    client: httpx.Client
    books: Books = field(default_factory=Books)
    names: Iterator[int] = field(default_factory=numbers)  # of requests, over all histories

    def begin(self) -> None:
        self.books = Books()
        for replica in self.gateway.state.pool.all():
            replica.forgive()

    async def answer(self, place: int, call: Call) -> Then:
        """As the script says that stands in the place of a prompt."""
        body = call.body
        script = json.loads(body["input"] if "input" in body else body["messages"][-1]["content"])
        expert, does = body["model"].removeprefix("model-"), script["does"][place]
        if expert == "hasty":  # whose time may be over before it comes here, or before it is sent
            return "hang"
        usage, stream = Usage(**script["usage"]), bool(body.get("stream"))
        with self.books.lock:
            self.books.calls += 1
        if does in ("well", "untold") or (does == "broken" and not stream):
            told = usage if does != "untold" else None
            if told:
                self.books.tell(expert, told)
            return await sends(_streamed(told) if stream else _whole(told), then="keep")(call)
        if does.isdigit():
            return await sends(whole(b"{}", int(does)), then="keep")(call)
        head = stream_head() if stream else whole(CHAT.whole)[:-9]
        if does == "broken":  # after it said what it counted
            self.books.tell(expert, usage)
            return await sends(head + WORDS + piece(_usage(usage)), then="cut")(call)
        if does in ("words", "died"):
            last = piece(CHAT.failed) + END if does == "died" else b""
            return await sends(
                head + WORDS + last if stream else head, then="cut" if does == "words" or not stream else "keep"
            )(call)
        if does == "cut":
            return "cut"
        if does == "silence" and stream:
            await call.send(head + WORDS)
        self.books.silent[script["id"]].set()
        return "hang"

    def play(self, step: Step) -> int:
        """The status that the client was told, 0 where it left."""
        name = str(next(self.names))
        self.books.silent[name] = threading.Event()
        script = json.dumps({"id": name, "does": step.does, "usage": vars(step.usage)})
        said: dict[str, Any] = (
            {"input": script} if step.endpoint == "embeddings" else {"messages": [{"role": "user", "content": script}]}
        )
        body = {"model": step.model, "stream": step.stream, "max_tokens": 9, **said}
        if not step.leaves:
            return self.client.post(self.gateway.url + ENDPOINTS[step.endpoint], json=body).status_code
        return self.leave(json.dumps(body).encode(), self.books.silent[name])

    def leave(self, body: bytes, silent: threading.Event) -> int:
        host, port = self.gateway.url.removeprefix("http://").split(":")
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
            client.sendall(head.encode() + body)
            until = time.monotonic() + PATIENCE
            while not silent.wait(0.01):
                assert time.monotonic() < until
                if select.select([client], [], [], 0)[0]:
                    return int(client.recv(12)[9:])
        return 0


def _usage(usage: Usage) -> bytes:
    return event({"id": "c1", "choices": [], "usage": usage.told()})


def _whole(usage: Usage | None) -> bytes:
    return whole(json.dumps(json.loads(CHAT.whole) | {"usage": usage.told() if usage else None}).encode())


def _streamed(usage: Usage | None) -> bytes:
    return (
        stream_head()
        + WORDS
        + b"".join(map(piece, [CHAT.finish, *([_usage(usage)] if usage else []), CHAT.done]))
        + END
    )


@pytest.fixture(scope="module")
def stage(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    price = json.dumps({kind: float(usd) for kind, usd in PRICE.items()})
    of_each = f"price: {price}, domains: [code, math, bio, general], endpoints: [chat, completions, embeddings]"
    with ExitStack() as stack:
        first, second = (stack.enter_context(raw_server(sends(then="cut"))) for _ in range(2))
        text = f"""
version: 1
experts:
  one: {{model: model-one, upstream: {{vllm: [{first.url}]}}, timeouts: {PATIENT}, fallbacks: [two], {of_each}}}
  two: {{model: model-two, upstream: {{vllm: [{second.url}]}}, timeouts: {PATIENT}, fallbacks: [one], {of_each}}}
  hasty: {{model: model-hasty, upstream: {{vllm: [{first.url}]}}, timeouts: {HASTY}, {of_each}}}
  narrow: {{model: model-narrow, upstream: {{vllm: [{first.url}]}}, timeouts: {PATIENT}, {of_each},
    max_in_flight: 1, queue: {{length: 0}}}}
  queued: {{model: model-queued, upstream: {{vllm: [{first.url}]}}, timeouts: {PATIENT}, {of_each},
    max_in_flight: 1, queue: {{length: 1, wait: 100ms}}}}
"""
        state = Settings(health_interval=3600.0, state=tmp_path_factory.mktemp("state"))
        gateway = stack.enter_context(_threaded(state, Router(parse_experts(text), artifact)))
        limits = httpx.Limits(max_connections=20)
        made = Stage(gateway, (first, second), stack.enter_context(httpx.Client(timeout=2 * PATIENCE, limits=limits)))
        for place, server in enumerate(made.servers):
            server.behaviour = partial(made.answer, place)
        yield made


@settings(max_examples=20, phases=[Phase.explicit, Phase.generate])
@given(history=st.lists(steps(), min_size=1, max_size=10))
def test_the_books_balance(stage: Stage, history: list[Step]) -> None:
    stage.begin()
    before = httpx.get(f"{stage.gateway.url}/metrics", timeout=PATIENCE).text
    with ThreadPoolExecutor(len(history)) as clients:
        statuses = list(clients.map(stage.play, history))
    books = stage.books
    until = time.monotonic() + PATIENCE

    def change(name: str, **labels: str) -> float:
        return metric(text, name, **labels) - metric(before, name, **labels)

    while True:
        text = stage.client.get(f"{stage.gateway.url}/metrics").text
        done = change("moe_requests_total") == len(history) and metric(text, "moe_requests_in_flight") == 0
        if done or time.monotonic() > until:
            break
        time.sleep(0.01)

    assert change("moe_requests_total") == len(history)
    for status, count in Counter(statuses).items():
        code = {0: "499", 418: "4xx"}.get(status, str(status))
        assert change("moe_requests_total", code=code) == count
    assert change("moe_client_disconnects_total") == statuses.count(0)
    assert change("moe_request_duration_seconds_count") == len(history)
    assert change("moe_gateway_overhead_seconds_count") == len(history)
    assert change("moe_routing_decisions_total") == sum(step.model != "nobody" for step in history)
    timed_out = sum(step.model == "hasty" and status == 504 for step, status in zip(history, statuses, strict=True))
    assert change("moe_upstream_attempts_total", expert="hasty", outcome="timeout") == timed_out
    assert change("moe_upstream_attempts_total", expert="hasty") == timed_out
    assert change("moe_upstream_attempts_total") == timed_out + books.calls
    assert metric(text, "moe_requests_in_flight") == metric(text, "moe_requests_queued") == 0
    for expert in (*MODELS, "hasty"):
        for kind in ("input", "cached_input", "output", "reasoning"):
            assert change("moe_tokens_total", expert=expert, kind=kind) == books.tokens[expert, kind]
        cost = sum((books.tokens[expert, kind] * usd for kind, usd in PRICE.items()), Fraction()) / 1_000_000
        assert abs(Fraction(change("moe_cost_usd_total", expert=expert)) - cost) < Fraction(1, 1_000_000)
