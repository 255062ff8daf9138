"""Traffic over every path through a gateway, and what of it has to be counted: known by who sends it, not by who counts it."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.dashboards.workers import REASONING, Worker, usage
from tests.fakes.owner import FakeOwner, facts
from tests.fakes.upstream import PATIENCE

KEYS = {"team-a": "rig-key-of-team-a", "team-b": "rig-key-of-team-b"}
ADMIN_KEY = "rig-key-of-the-operator"
# USD per million tokens: input, cached input, output. Who is not here has a price per GPU hour, or none.
PRICES = {
    "coder": (0.50, 0.05, 1.20),
    "biologist": (0.08, 0.08, 0.16),
    "general": (0.03, 0.03, 0.14),
    "embedder": (0.02, 0.02, 0.0),
    "busy": (0.03, 0.03, 0.14),
    "crowded": (0.03, 0.03, 0.14),
    "shaky": (0.03, 0.03, 0.14),
}
BASELINE = ("gpt-4o", (2.50, 1.25, 10.0))  # as litellm's price map has it
GPU_HOUR = {"mathematician": 2.5}  # USD
UNPRICED = "legacy"
DEAREST = "coder"  # for any tokens
# What the packaged router is sure of. That it is right about them is tests/router's to say; here it is taken as known.
PROMPTS = {
    "code": "Write a Python function that reverses a linked list",
    "math": "Prove that the square root of 2 is irrational",
    "bio": "What are the symptoms of iron deficiency anaemia in adults?",
    "general": "Suggest a nice menu for a dinner with friends on Saturday",
}
EXPERTS = {"code": "coder", "math": "mathematician", "bio": "biologist", "general": "general"}
UNREADABLE = "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ᎠᎴ ᎠᏂᏴᏫ"  # Cherokee; its most probable domain is code
UNSURE = "dose of algorithm"  # 0.52 for math, below the floor of 0.55
LOST = "Compute the probability that a gene mutates using R"  # 0.41 for math
GARBAGE = "#$%^&*("
NONE = "none"

Row = tuple[str, frozenset[tuple[str, str]]]


class Sent:
    """What has to be counted: by name and labels."""

    def __init__(self) -> None:
        self.rows: Counter[Row] = Counter()
        self.names: set[str] = set()

    def add(self, name: str, by: float = 1, **labels: str) -> None:
        self.names.add(name)
        self.rows[name, frozenset(labels.items())] += by  # type: ignore[assignment]

    def labels(self, name: str) -> list[str]:
        """Those that the rows of a name have."""
        return sorted({label for row, values in self.rows if row == name for label, _ in values})

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Sums by these labels."""
        sums: Counter[tuple[str, ...]] = Counter()
        for (row, values), count in self.rows.items():
            if row == name:
                known = dict(values)
                sums[tuple(known[label] for label in labels)] += count
        return {key: value for key, value in sums.items() if value}


@dataclass
class Answered:
    """How one request came out."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def expert(self) -> str | None:
        return self.headers.get("x-moe-expert")


@dataclass
class Traffic:
    """One who asks the gateway at `url`. `lap` sends everything once, and puts down in `sent` what is to be counted of it."""

    url: str
    config: Path
    workers: Mapping[str, Worker]
    owner: FakeOwner
    client: httpx.Client = field(repr=False)
    sent: Sent = field(default_factory=Sent)
    tokens_of_keys: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KEYS, 0.0))  # USD, by token prices
    requests: int = 0  # that were sent so far and are counted

    held: int = 0  # of those that are asked for at this moment, how many have an expert

    @property
    def target(self) -> str:
        """As Prometheus names it."""
        return self.url.removeprefix("http://")

    def forget(self) -> None:
        """Count anew."""
        self.sent, self.tokens_of_keys = Sent(), dict.fromkeys(KEYS, 0.0)

    def lap(self, copies: int = 3, first: bool = False) -> None:
        """All of it; what must not be there before the traffic that is counted is left out of the `first`."""
        for number in range(copies):
            key = list(KEYS)[number % len(KEYS)]
            for domain in PROMPTS:
                self.answered(domain, key=key, stream=True)
                self.answered(domain, key=key, stream=False)
        plays = (
            self.pinned, self.thinking, self.embeddings, self.asked_alone, self.messages, self.fallback, self.failing,
            self.timeout, self.truncated, self.left_waiting, self.full_queue, self.crowd, self.conversation, self.unsure,
            self.hostile, self.unpriced, self.limited, self.reload, self.sleep,
        )  # fmt: skip
        for play in plays:
            play()
        self.ejected(faults=3 if first else 1)
        if not first:
            self.left_streaming()
            self.reload_in_vain()

    def small_lap(self) -> None:
        """What a gateway is sent that has but three experts."""
        for domain in ("code", "bio", "general"):
            self.answered(domain, key="team-b", stream=True)
        for play in (self.pinned, self.messages, self.fallback, self.conversation, self.unsure, self.left_waiting):
            play()

    def answered(self, domain: str, key: str = "team-a", stream: bool = False) -> None:
        """Decided by the router, answered by the domain's expert."""
        answer = self.ask(PROMPTS[domain], key=key, stream=stream)
        self._succeeded(answer, PROMPTS[domain], EXPERTS[domain], domain, "best", key, stream=stream)

    def pinned(self) -> None:
        answer = self.ask(PROMPTS["code"], model="coder")
        self._succeeded(answer, PROMPTS["code"], "coder", NONE, "pinned")

    def thinking(self) -> None:
        answer = self.ask(PROMPTS["math"], model="mathematician", do={"think": True})
        self._succeeded(answer, PROMPTS["math"], "mathematician", NONE, "pinned", reasoning=REASONING)

    def unpriced(self) -> None:
        answer = self.ask("hello there", model=UNPRICED)
        self._succeeded(answer, "hello there", UNPRICED, NONE, "pinned")

    def limited(self) -> None:
        """The expert's server wants no more at this time."""
        answer = self.ask("hello there", model=UNPRICED, do={"status": 429})
        assert answer.status == 429, answer.text
        self._attempted(UNPRICED, "rejected")
        self._counted(429, UNPRICED, NONE, "pinned", attempted=False)
        self.sent.add("moe_rate_limited_total", kind="upstream")

    def crowd(self) -> None:
        answer = self.ask("hello there", model="crowded")
        self._succeeded(answer, "hello there", "crowded", NONE, "pinned")

    @contextmanager
    def crowded(self) -> Iterator[None]:
        """Meanwhile a server computes one request, and has another waiting; one waits in the gateway, and one found no room."""
        worker = self.workers["crowded"]
        with ExitStack() as stack:
            stack.enter_context(self._open("crowded", {"hold": 600.0}))
            assert soon(lambda: worker.counted("vllm:num_requests_running"))
            stack.enter_context(self._open("crowded", {"hold": 600.0, "waits": True}))
            assert soon(lambda: worker.counted("vllm:num_requests_waiting"))
            stack.enter_context(self._open("crowded", {}))
            assert soon(lambda: self._expert("crowded")["queued"])
            refused = self.ask("hello there", model="crowded")
            assert refused.status == 503, refused.text
            self._no_room("crowded", "full")
            self.held = 2
            yield
            self.held = 0

    def embeddings(self) -> None:
        body = {"model": "embedder", "input": "some words to embed"}
        answer = self._post("/v1/embeddings", body, "team-b")
        assert answer.status == 200, answer.text
        self._counted(200, "embedder", NONE, "pinned", "embeddings")
        self._used("embedder", NONE, "team-b", fresh=4, cached=0, output=0)

    def messages(self) -> None:
        """Anthropic's, carried to an expert that speaks OpenAI's."""
        said = [{"role": "user", "content": PROMPTS["bio"]}]
        answer = self._post("/v1/messages", {"model": "auto", "max_tokens": 50, "messages": said}, "team-a")
        self._succeeded(answer, PROMPTS["bio"], "biologist", "bio", "best", endpoint="messages")

    def asked_alone(self) -> None:
        """A decision without an answer, and a count of tokens."""
        said = [{"role": "user", "content": PROMPTS["math"]}]
        decided = self._post("/v1/route", {"messages": said}, "team-a")
        assert decided.status == 200, decided.text
        self._counted(200, "mathematician", "math", "best", "route", attempted=False)
        counted = self._post("/v1/messages/count_tokens", {"model": "general", "messages": said}, "team-a")
        assert counted.status == 200, counted.text
        self._counted(200, "general", NONE, "pinned", "messages.count_tokens")

    def fallback(self) -> None:
        """The expert fails, and its fallback answers."""
        answer = self.ask(PROMPTS["code"], do={"status": 500, "at": self.workers["coder"].model})
        self._fell_back("coder", "server_error")
        self._attempted("coder", "server_error")
        self._succeeded(answer, PROMPTS["code"], "general", "code", "best", decided="coder")

    def failing(self) -> None:
        """Nobody can."""
        answer = self.ask(PROMPTS["bio"], model="biologist", do={"status": 500})
        assert answer.status == 502, answer.text
        self._fell_back("biologist", "server_error")
        for expert in ("biologist", "general"):
            self._attempted(expert, "server_error")
        self._counted(502, "general", NONE, "pinned", decided="biologist", attempted=False)

    def timeout(self) -> None:
        answer = self.ask(PROMPTS["general"], model="slow", do={"hang": True}, stream=True)
        assert answer.status == 504, answer.text
        self._attempted("slow", "timeout")
        self._counted(504, "slow", NONE, "pinned", attempted=False)

    def truncated(self) -> None:
        answer = self.ask(PROMPTS["general"], model="general", do={"cut": 3}, stream=True)
        assert "error" in answer.text
        self._attempted("general", "truncated")
        self._counted(200, "general", NONE, "pinned", attempted=False)
        self.sent.add("moe_stream_errors_total", expert="general", kind="truncated")
        self._began("general")

    def left_waiting(self) -> None:
        self._left(
            "waiting", {"hold": 20.0}, lambda received: self.workers["general"].counted("vllm:num_requests_running") > 0
        )

    def left_streaming(self) -> None:
        self._left("streaming", {"endless": True}, lambda received: b"word" in received)

    def full_queue(self) -> None:
        """While one is computed, one waits in vain, and one finds the queue full."""
        with ThreadPoolExecutor(1) as threads, self._open("busy", {"hold": 600.0}):
            assert soon(lambda: self.workers["busy"].counted("vllm:num_requests_running"))
            waits = threads.submit(self.ask, "hello there", model="busy")
            assert soon(lambda: self._expert("busy")["queued"])
            assert self.ask("hello there", model="busy").status == 503
            assert waits.result().status == 503
        for reason in ("full", "expired"):
            self._no_room("busy", reason)
        self._has_left("busy", "waiting")

    def conversation(self) -> None:
        """Its second turn is about something else, and goes to another expert."""
        said: list[dict[str, str]] = [{"role": "user", "content": PROMPTS["code"]}]
        first = self.say(said)
        self._succeeded(first, PROMPTS["code"], "coder", "code", "best")
        said += [{"role": "assistant", "content": "done"}, {"role": "user", "content": PROMPTS["bio"]}]
        second = self.say(said)
        text = " ".join(message["content"] for message in said)
        self._succeeded(second, text, "biologist", "bio", "best")
        self.sent.add("moe_conversation_switches_total", cause="topic")

    def unsure(self) -> None:
        """Unreadable, unlike anything known, and between two domains: the fallback of the router answers."""
        for prompt, domain, reason in (
            (UNREADABLE, "code", "unreadable_language"),
            (UNSURE, "math", "low_confidence"),
            (LOST, "math", "low_confidence"),
            (GARBAGE, "code", "out_of_distribution"),
        ):
            answer = self.ask(prompt)
            self._succeeded(answer, prompt, "general", domain, reason)

    def hostile(self) -> None:
        """What no series may come of, but of its status."""
        self._refused(b"GET /health HTTP/1.1\r\nhost: x\r\nx-long: " + b"x" * 70_000, "request_header_too_large")
        self._refused(b"\x16\x03\x01 what is this\r\n\r\n", "malformed_http")
        stranger = self._raw("/v1/chat/completions", b"{}", "rig-key-of-nobody")
        assert stranger.status == 401, stranger.text  # who has no key is nobody's request
        unknown = self.ask("hello there", model="no-such-model")
        broken = self._raw("/v1/chat/completions", b'{"model": "auto", "messages": [', KEYS["team-a"])
        for answer, status in ((unknown, 404), (broken, 400)):
            assert answer.status == status, answer.text
            self.requests += 1
            self.sent.add("moe_requests_total", endpoint="chat.completions", expert=NONE, domain=NONE, code=str(status))

    def reload(self) -> None:
        """Of a changed file."""
        self.config.write_text(f"{self.config.read_text()}# again\n")
        self._reload(200, "ok")

    def reload_in_vain(self) -> None:
        """Of one with an error in it."""
        good = self.config.read_text()
        self.config.write_text(good.replace('"domains"', '"domians"'))
        self._reload(400, "failed")
        self.config.write_text(good)

    def _reload(self, status: int, outcome: str) -> None:
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        assert self.client.post(f"{self.url}/admin/reload", headers=headers).status_code == status
        self.sent.add("moe_config_reloads_total", outcome=outcome)

    def sleep(self) -> None:
        """A launched worker wakes, answers and goes back to sleep."""
        worker, wakes = self.workers["archivist"], round(self._sleeps) + 1
        self.owner.tell(facts("archivist-0", "ready", worker.url, wakes=wakes, wake_seconds=4.0, restarts=wakes))
        assert soon(lambda: self._replica("archivist")["available"])
        answer = self.ask("hello there", model="archivist")
        self._succeeded(answer, "hello there", "archivist", NONE, "pinned")
        self.owner.tell(
            facts("archivist-0", "asleep", since=time.time(), wakes=wakes, wake_seconds=4.0, restarts=wakes)
        )
        self._sleeps += 1
        self.sent.add("moe_worker_restarts_total", expert="archivist")

    _sleeps: float = 0

    def ejected(self, faults: int) -> None:
        """Three faults in a row take a replica out; one takes it out again where it is on trial after that."""
        assert soon(lambda: self._replica("shaky")["available"])
        for _ in range(faults):
            answer = self.ask("hello there", model="shaky", do={"status": 500})
            assert answer.status == 502, answer.text
            self._attempted("shaky", "server_error")
            self._counted(502, "shaky", NONE, "pinned", attempted=False)
        self.sent.add("moe_replica_ejections_total", expert="shaky", replica="shaky-0", cause="failures")

    def ask(self, prompt: str, **more: Any) -> Answered:
        return self.say([{"role": "user", "content": prompt}], **more)

    def say(
        self,
        said: list[dict[str, str]],
        model: str = "auto",
        key: str = "team-a",
        stream: bool = False,
        do: Mapping[str, Any] | None = None,
    ) -> Answered:
        body = {"model": model, "messages": said, "stream": stream, **({"vllm_xargs": do} if do else {})}
        return self._post("/v1/chat/completions", body, key)

    def _post(self, path: str, body: Mapping[str, Any], key: str) -> Answered:
        return self._raw(path, json.dumps(body).encode(), KEYS[key])

    def _raw(self, path: str, body: bytes, key: str) -> Answered:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        answer = self.client.post(f"{self.url}{path}", content=body, headers=headers)
        return Answered(answer.status_code, dict(answer.headers), answer.text)

    def _expert(self, expert: str) -> dict[str, Any]:
        told = self.client.get(f"{self.url}/admin/experts", headers={"authorization": f"Bearer {ADMIN_KEY}"}).json()
        known: dict[str, Any] = told[expert]
        return known

    def _replica(self, expert: str) -> dict[str, Any]:
        [replica] = self._expert(expert)["replicas"]
        known: dict[str, Any] = replica
        return known

    @contextmanager
    def _open(self, model: str, do: Mapping[str, Any]) -> Iterator[socket.socket]:
        """A stream that was asked for; who asked leaves at the end of the block."""
        said = [{"role": "user", "content": "hello there"}]
        written = json.dumps({"model": model, "stream": True, "messages": said, "vllm_xargs": do}).encode()
        host, port = self.url.removeprefix("http://").split(":")
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEYS['team-a']}\r\n"
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
            client.sendall(f"{head}content-length: {len(written)}\r\n\r\n".encode() + written)
            yield client

    def _left(self, phase: str, do: Mapping[str, Any], enough: Callable[[bytes], bool]) -> None:
        """A client that leaves when it has `enough`."""
        with self._open("general", do) as client:
            received = b""
            if phase == "streaming":
                while not enough(received):
                    received += client.recv(4096)
            else:
                assert soon(lambda: enough(b""))
        self._has_left("general", phase)

    def _has_left(self, expert: str, phase: str) -> None:
        assert soon(lambda: not self.workers[expert].counted("vllm:num_requests_running"))
        self._attempted(expert, "cancelled")
        self._counted(499, expert, NONE, "pinned", attempted=False)
        self.sent.add("moe_client_disconnects_total", endpoint="chat.completions", phase=phase)
        if phase == "streaming":
            self._began(expert)

    def _succeeded(
        self, answer: Answered, prompt: str, expert: str, domain: str, reason: str, key: str = "team-a", *,
        endpoint: str = "chat.completions", stream: bool = False, decided: str | None = None, reasoning: int = 0,
    ) -> None:  # fmt: skip
        assert (answer.status, answer.expert) == (200, expert), answer
        self._counted(200, expert, domain, reason, endpoint, decided=decided)
        told = usage(prompt, self.workers[expert].pace.tokens)
        cached = told["prompt_tokens_details"]["cached_tokens"]
        self._used(expert, domain, key, told["prompt_tokens"] - cached, cached, told["completion_tokens"], reasoning)
        if stream:
            self.sent.add("moe_time_to_first_token_seconds_count", expert=expert)

    def _refused(self, sent: bytes, reason: str) -> None:
        """Bytes that are no request."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
            client.sendall(sent)
            assert client.recv(4096).startswith(b"HTTP/1.1 4")
        self.sent.add("moe_connections_refused_total", reason=reason)

    def _counted(
        self, status: int, expert: str, domain: str, reason: str, endpoint: str = "chat.completions", *,
        decided: str | None = None, attempted: bool = True,
    ) -> None:  # fmt: skip
        self.requests += 1
        self.sent.add("moe_requests_total", endpoint=endpoint, expert=expert, domain=domain, code=str(status))
        self.sent.add("moe_routing_decisions_total", expert=decided or expert, domain=domain, reason=reason)
        if attempted:
            self._attempted(expert, "ok")

    def _attempted(self, expert: str, outcome: str) -> None:
        self.sent.add("moe_upstream_attempts_total", expert=expert, outcome=outcome)

    def _no_room(self, expert: str, reason: str) -> None:
        self.sent.add("moe_queue_refused_total", expert=expert, reason=reason)
        self.sent.add("moe_rate_limited_total", kind="queue")
        self._counted(503, NONE, NONE, "pinned", decided=expert, attempted=False)

    def _began(self, expert: str) -> None:
        """A stream that had begun, but never said what it used."""
        self.sent.add("moe_time_to_first_token_seconds_count", expert=expert)
        self.sent.add("moe_unpriced_requests_total", expert=expert)

    def _fell_back(self, expert: str, reason: str) -> None:
        self.sent.add("moe_fallbacks_total", from_expert=expert, to_expert="general", reason=reason)

    def _used(
        self, expert: str, domain: str, key: str, fresh: int, cached: int, output: int, reasoning: int = 0
    ) -> None:
        for kind, count in (("input", fresh), ("cached_input", cached), ("output", output), ("reasoning", reasoning)):
            self.sent.add("moe_tokens_total", count, expert=expert, kind=kind)
        if expert not in PRICES and expert not in GPU_HOUR:
            self.sent.add("moe_unpriced_requests_total", expert=expert)
            return
        if expert in PRICES:
            usd = spent(PRICES[expert], fresh, cached, output)
            self.sent.add("moe_cost_usd_total", usd, expert=expert, domain=domain)
            self.tokens_of_keys[key] += usd
        name, baseline = BASELINE
        for other, price in ((name, baseline), ("dearest", PRICES[DEAREST])):
            self.sent.add("moe_baseline_cost_usd_total", spent(price, fresh, cached, output), baseline=other)
            self.sent.add("moe_compared_cost_usd_total", usd if expert in PRICES else 0.0, baseline=other)
            self.sent.add("moe_compared_requests_total", baseline=other)


def spent(prices: tuple[float, float, float], fresh: int, cached: int, output: int) -> float:
    """USD for so many tokens."""
    return (fresh * prices[0] + cached * prices[1] + output * prices[2]) / 1e6


def soon(holds: Callable[[], object]) -> bool:
    """Whether it comes to hold."""
    until = time.monotonic() + PATIENCE
    while not holds() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(holds())
