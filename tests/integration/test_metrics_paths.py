"""What every metric says after each way that a request can go, over real sockets: what is not listed did not change."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.settings import Settings
from router.artifact import Artifact
from router.experts import parse_experts
from router.routing import Router
from tests.fakes.dialects import CHAT, EMBEDDINGS
from tests.fakes.raw import END, Call, RawServer, Then, piece, raw_server, sends, stream_head, whole
from tests.fakes.upstream import PATIENCE
from tests.integration.conftest import PATIENT, Running, _threaded

PRICE = {"input": 1.0, "cached_input": 0.5, "output": 2.0}
TOKENS = {"input": 8, "cached_input": 3, "output": 4}
HASTY = "{connect: 60s, first_byte: 300ms, idle: 60s, total: 100s}"
# What changes by itself, or is of the ledger, and what follows from costs: tests/gateway/test_costs.py has that.
ELSEWHERE = (
    *("moe_process_", "moe_event_loop_", "moe_open_connections", "moe_config_", "moe_ledger_", "moe_capacity_"),
    *("moe_baseline_", "moe_compar", "moe_routing_cost_", "moe_key_cost_", "moe_energy_", "moe_emissions_"),
)
Series = dict[str, float]
Act = Callable[["Scene"], None]


def expert(
    name: str, *servers: RawServer, good_at: str = "", timeouts: str = PATIENT, fallback: str = "", extra: str = ""
) -> str:
    urls = ", ".join(server.url for server in servers)
    domains = {domain: 0.9 if domain == good_at else 0.5 for domain in ("code", "math", "bio", "general")}
    return f"""
  {name}:
    model: model-{name}
    domains: {json.dumps(domains)}
    upstream: {{vllm: [{urls}]}}
    price: {json.dumps(PRICE)}
    endpoints: [chat, completions, embeddings, responses]
    timeouts: {timeouts}
    fallbacks: [{fallback}]
    {extra}"""


@dataclass
class Scene:
    """A gateway whose experts stand over two servers, `first` and `second`; `alone`, `hasty` and `narrow` have no fallback."""

    gateway: Running
    client: httpx.Client
    first: RawServer
    second: RawServer

    def series(self) -> Series:
        """What is counted, by name and labels, but for what is not for a test to say: which of two replicas was asked, and whether
        the router's first stage was sure."""
        told: Counter[str] = Counter()
        for family in text_string_to_metric_families(self.client.get(f"{self.gateway.url}/metrics").text):
            for sample in family.samples:
                if not sample.name.startswith(ELSEWHERE) and not sample.name.endswith(("_bucket", "_sum")):
                    named = (
                        (k, "classified" if v in ("static", "transformer") else v) for k, v in sample.labels.items()
                    )
                    labels = ",".join(f"{k}={v}" for k, v in sorted(named) if k != "replica")
                    told[sample.name + (f"{{{labels}}}" if labels else "")] += sample.value  # type: ignore[assignment]
        return dict(told)

    def changes(self, before: Series) -> Series:
        now = {series: round(value - before.get(series, 0.0), 9) for series, value in self.series().items()}
        return {series: change for series, change in now.items() if change}

    def ask(self, model: str, path: str = "/v1/chat/completions", **more: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}
        return self.client.post(self.gateway.url + path, json=body)

    def leaving(self, model: str, stream: bool, sent: int | None = None) -> socket.socket:
        """A request of which so many bytes are sent, all of them unless given."""
        body = json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]})
        host, port = self.gateway.url.removeprefix("http://").split(":")
        client = socket.create_connection((host, int(port)), timeout=PATIENCE)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        client.sendall((head + body[:sent]).encode())
        return client


@pytest.fixture(scope="module")
def made(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack:
        first, second = (stack.enter_context(raw_server(sends(then="cut"))) for _ in range(2))
        text = "version: 1\nexperts:" + "".join(
            (
                expert("one", first, fallback="two"),
                expert("two", second, fallback="one"),
                expert("alone", first),
                expert("coder", first, good_at="code"),
                expert("botanist", first, good_at="bio"),
                expert("hasty", first, timeouts=HASTY),
                expert("narrow", first, extra="max_in_flight: 1\n    queue: {length: 0}"),
                expert("hedged", first, second, extra="hedge: 100ms\n    affinity: none"),
            )
        )
        settings = Settings(health_interval=3600.0, state=tmp_path_factory.mktemp("state"))
        gateway = stack.enter_context(_threaded(settings, Router(parse_experts(text), artifact)))
        yield Scene(gateway, stack.enter_context(httpx.Client(timeout=2 * PATIENCE)), first, second)


@pytest.fixture
def scene(made: Scene) -> Scene:
    for replica in made.gateway.state.pool.all():
        replica.forgive()
    for server in (made.first, made.second):
        server.calls.clear()
        server.behaviour = well
    return made


async def well(call: Call) -> Then:
    events = b"".join(map(piece, CHAT.events))
    said = stream_head() + events + END if call.body.get("stream") else whole(CHAT.whole)
    return await sends(said, then="keep")(call)


# What one request changes, a part at a time.
def finished(expert: str, code: str, endpoint: str = "chat.completions", domain: str = "none") -> Series:
    return {
        f"moe_requests_total{{code={code},domain={domain},endpoint={endpoint},expert={expert}}}": 1,
        f"moe_request_duration_seconds_count{{endpoint={endpoint},expert={expert}}}": 1,
        f"moe_gateway_overhead_seconds_count{{endpoint={endpoint}}}": 1,
    }


def decided(expert: str, domain: str = "none", reason: str = "pinned", stage: str = "none") -> Series:
    counted = {f"moe_routing_confidence_count{{domain={domain}}}": 1.0} if stage != "none" else {}
    return counted | {
        f"moe_routing_decisions_total{{domain={domain},expert={expert},reason={reason},stage={stage}}}": 1,
        f"moe_routing_duration_seconds_count{{stage={stage}}}": 1,
    }


def tried(expert: str, outcome: str, times: int = 1) -> Series:
    return {f"moe_upstream_attempts_total{{expert={expert},outcome={outcome}}}": times}


def paid(expert: str, domain: str = "none", tokens: Mapping[str, int] = TOKENS) -> Series:
    return {
        f"moe_cost_usd_total{{domain={domain},expert={expert}}}": sum(
            count * PRICE[kind] for kind, count in tokens.items()
        )
        / 1e6,
        **{f"moe_tokens_total{{expert={expert},kind={kind}}}": count for kind, count in tokens.items()},
    }


def streamed(expert: str, tokens_told: bool = True) -> Series:
    first = {f"moe_time_to_first_token_seconds_count{{expert={expert}}}": 1.0}
    return first | ({f"moe_time_per_output_token_seconds_count{{expert={expert}}}": 1} if tokens_told else {})


def good(expert: str, **of_request: str) -> Series:
    """One that was pinned to an expert, which answered in one piece."""
    return finished(expert, "200", **of_request) | decided(expert) | tried(expert, "ok") | paid(expert)


def routed(expert: str, domain: str) -> Series:
    """One that the router gave to an expert, which answered in one piece."""
    decision = decided(expert, domain, "best", "classified")
    return finished(expert, "200", domain=domain) | decision | tried(expert, "ok") | paid(expert, domain)


def failed(expert: str, code: str, outcome: str, times: int = 1) -> Series:
    """One that was pinned to an expert which did not answer."""
    return finished(expert, code) | decided(expert) | tried(expert, outcome, times)


def broke(expert: str, kind: str) -> Series:
    """A stream that failed after content: what was computed till then has a price that nobody told."""
    return (
        failed(expert, "200", kind)
        | streamed(expert, tokens_told=False)
        | {f"moe_stream_errors_total{{expert={expert},kind={kind}}}": 1}
        | {f"moe_unpriced_requests_total{{expert={expert}}}": 1}
    )


def left(phase: str, endpoint: str = "chat.completions") -> Series:
    return {f"moe_client_disconnects_total{{endpoint={endpoint},phase={phase}}}": 1}


FELL_BACK = {"moe_fallbacks_total{from_expert=one,reason=server_error,to_expert=two}": 1.0}
LIMITED = "moe_rate_limited_total"
CODE = "Write a Python function that sorts a list of numbers"
BIOLOGY = "How do the stomata of a leaf let carbon dioxide in, and what does that have to do with photosynthesis in chloroplasts?"
WORDS = stream_head() + b"".join(map(piece, CHAT.events[:3]))  # the beginning of an answer
BROKEN = whole(b"{}", 500)


def asks(model: str, *first: bytes, then: Then = "keep", second: bytes = b"", **more: Any) -> Act:
    """Asks where the first server says so, and the second, where it is asked."""

    def act(scene: Scene) -> None:
        if first or then != "keep":
            scene.first.behaviour = sends(*first, then=then)
        if second:
            scene.second.behaviour = sends(second, then="keep")
        scene.ask(model, **more)

    return act


def hears(scene: Scene, model: str, *pieces: bytes, then: Then) -> socket.socket:
    """The connection of a client that has heard the first words of a stream; behind them come the pieces."""
    heard = threading.Event()

    async def has_heard() -> None:
        await asyncio.to_thread(heard.wait, PATIENCE)

    scene.first.behaviour = sends(WORDS, has_heard, *pieces, then=then)
    client = scene.leaving(model, stream=True)
    said = b""
    while b"Hel" not in said:
        said += client.recv(4096)
    heard.set()
    return client


def ends(*pieces: bytes, then: Then) -> Act:
    """After the first words of a stream come the pieces, and its client hears all of it."""

    def act(scene: Scene) -> None:
        with hears(scene, "alone", *pieces, then=then) as client:
            while not client.recv(4096).endswith(b"0\r\n\r\n"):
                pass

    return act


def leaves(phase: str) -> Act:
    def act(scene: Scene) -> None:
        scene.first.behaviour = sends(then="hang")
        if phase == "streaming":
            client = hears(scene, "alone", then="hang")
        else:
            client = scene.leaving("alone", stream=False, sent=5 if phase == "routing" else None)
        assert phase == "routing" or scene.first.until(lambda server: server.held == 1)
        client.close()

    return act


def late_first(scene: Scene) -> None:
    """Whoever of the two is asked first says nothing."""
    asked = itertools.count()

    async def behave(call: Call) -> Then:
        return await (well(call) if next(asked) else sends(then="hang")(call))

    scene.first.behaviour = scene.second.behaviour = behave
    scene.ask("hedged")


def is_full(scene: Scene) -> None:
    scene.first.behaviour = sends(then="hang")
    with scene.leaving("narrow", stream=False):
        assert scene.first.until(lambda server: server.held == 1)
        assert scene.ask("narrow").status_code == 503


def talks(scene: Scene, *texts: str) -> None:
    """A conversation of which the user said `texts`."""
    answers = [{"role": "assistant", "content": "def f(): pass"}] * len(texts)
    messages = [
        m for text, answer in zip(texts, answers, strict=True) for m in ({"role": "user", "content": text}, answer)
    ]
    scene.ask("auto", messages=messages[:-1], session="s")


CASES: Mapping[str, tuple[Act, Series]] = {
    "success": (asks("one"), good("one")),
    "a stream": (asks("one", stream=True), good("one") | streamed("one")),
    "fallback": (
        asks("one", BROKEN),
        finished("two", "200")
        | decided("one")
        | tried("one", "server_error")
        | FELL_BACK
        | tried("two", "ok")
        | paid("two"),
    ),
    "every expert fails": (
        asks("one", BROKEN, second=BROKEN),
        finished("two", "502")
        | decided("one")
        | tried("one", "server_error")
        | FELL_BACK
        | tried("two", "server_error"),
    ),
    "the expert is busy": (
        asks("alone", whole(b"{}", 429)),
        failed("alone", "429", "rejected") | {f"{LIMITED}{{kind=upstream}}": 1},
    ),
    "the expert refuses our key": (asks("alone", whole(b"{}", 401)), failed("alone", "502", "rejected")),
    "the request is wrong": (asks("alone", whole(b"{}", 422)), failed("alone", "422", "client_error")),
    "a teapot": (asks("alone", whole(b"{}", 418)), failed("alone", "4xx", "client_error")),
    "success under an odd name": (
        asks("alone", whole(CHAT.whole, 299)),
        finished("alone", "2xx") | decided("alone") | tried("alone", "ok") | paid("alone"),
    ),
    "failure under an odd name": (asks("alone", whole(b"{}", 999)), failed("alone", "502", "server_error")),
    "nobody answers": (asks("alone", then="cut"), failed("alone", "502", "connect_error", times=2)),  # asked once more
    "timeout": (asks("hasty", then="hang", stream=True), failed("hasty", "504", "timeout")),
    "truncated": (ends(then="cut"), broke("alone", "truncated")),
    "an error in the stream": (ends(piece(CHAT.failed), END, then="keep"), broke("alone", "stream_error")),
    "the client leaves early": (leaves("routing"), finished("none", "499") | left("routing")),
    "the client leaves before a word": (leaves("waiting"), failed("alone", "499", "cancelled") | left("waiting")),
    "the client leaves in mid-stream": (
        leaves("streaming"),
        failed("alone", "499", "cancelled")
        | left("streaming")
        | streamed("alone", tokens_told=False)
        | {"moe_unpriced_requests_total{expert=alone}": 1},
    ),
    "the queue is full": (
        is_full,
        finished("none", "503")
        | failed("narrow", "499", "cancelled")
        | left("waiting")
        | {"moe_routing_decisions_total{domain=none,expert=narrow,reason=pinned,stage=none}": 2}
        | {"moe_routing_duration_seconds_count{stage=none}": 2}
        | {"moe_gateway_overhead_seconds_count{endpoint=chat.completions}": 2}
        | {"moe_queue_refused_total{expert=narrow,reason=full}": 1, f"{LIMITED}{{kind=queue}}": 1},
    ),
    "hedged": (late_first, good("hedged") | tried("hedged", "cancelled")),
    "embeddings": (
        asks("alone", whole(EMBEDDINGS.whole), path="/v1/embeddings", input="hello"),
        finished("alone", "200", "embeddings")
        | decided("alone")
        | tried("alone", "ok")
        | paid("alone", tokens={"input": 11}),
    ),
    "messages": (asks("one", path="/v1/messages", max_tokens=5), good("one", endpoint="messages")),
    "count_tokens": (
        asks("one", whole(b'{"count": 7, "max_model_len": 9, "tokens": []}'), path="/v1/messages/count_tokens"),
        finished("one", "200", "messages.count_tokens") | decided("one") | tried("one", "ok"),
    ),
    "route": (asks("one", path="/v1/route"), finished("one", "200", "route") | decided("one")),
    "an unknown model": (asks("nobody's"), finished("none", "404")),
    "routed by what it says": (
        lambda scene: talks(scene, CODE),
        routed("coder", "code"),
    ),
    "the next turn": (
        lambda scene: talks(scene, CODE, "Now make it faster"),
        routed("coder", "code") | {"moe_conversation_turns_total": 1},
    ),
    "another topic": (
        lambda scene: talks(scene, CODE, BIOLOGY),
        routed("botanist", "bio")
        | {"moe_conversation_turns_total": 1, "moe_conversation_switches_total{cause=topic}": 1},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_counted_where(scene: Scene, name: str) -> None:
    act, expected = CASES[name]
    before = scene.series()
    act(scene)
    wanted = {series: round(change, 9) for series, change in expected.items()}
    until = time.monotonic() + PATIENCE
    while (changed := scene.changes(before)) != wanted and time.monotonic() < until:
        time.sleep(0.02)  # the books are closed just after the last byte
    assert changed == wanted
