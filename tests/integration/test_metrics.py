"""/metrics of a running gateway: bounded whatever comes in, right about who connects, silent about experts that are gone."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import __version__
from gateway.exchange import Outcome, Phase
from gateway.metrics import CODES, KINDS, LIMITED
from gateway.processmetrics import REFUSALS
from gateway.replica import State
from gateway.routes.carried import KINDS as ENDPOINTS
from router.decision import Reason, Stage, Switch
from tests.fakes.dialects import CHAT
from tests.fakes.raw import RawServer, raw_server, sends, whole
from tests.fakes.upstream import PATIENCE, FakeServer, endless, well
from tests.integration.conftest import Running, Start, experts_yaml, metric
from tests.integration.test_disconnects import connect

SENTINEL = "hostile"  # in whatever a client or a server says here, and in no label
Series = set[tuple[str, tuple[tuple[str, str], ...]]]


def series(gateway: Running) -> Series:
    text = httpx.get(f"{gateway.url}/metrics", timeout=PATIENCE).text
    assert SENTINEL not in text
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def allowed(gateway: Running) -> dict[str, set[str]]:
    """What each label may say here."""
    file, router = gateway.state.file, gateway.state.decider.router
    experts = {*file.experts, "none"}
    outcomes = set(map(str, Outcome))
    return {
        "endpoint": {*(kind.endpoint for kind in ENDPOINTS.values()), "route"},
        **dict.fromkeys(("expert", "from_expert", "to_expert"), experts),
        "replica": {replica.name for replica in gateway.state.pool.all()},
        "domain": {*file.domain_names, "none"},
        "code": {*map(str, CODES), "2xx", "4xx", "5xx"},
        "kind": {*KINDS, *LIMITED, *outcomes},
        "outcome": {*outcomes, "ok", "failed"},
        "reason": {*get_args(Reason), *outcomes, *REFUSALS, "full", "expired", "down", "asleep"},
        "stage": set(get_args(Stage)),
        "phase": set(map(str, Phase)),
        "cause": {*get_args(Switch), "topic", "failures", "slow"},
        "state": set(map(str, State)),
        "hash": {file.digest},
        "artifact": {router.artifact.name},
        "encoder": {router.artifact.manifest.encoder},
        "version": {__version__},
        "baseline": {"dearest"},
        "part": {"classifier", "lost_cache"},
        "key": {*(f"team-{i}" for i in range(50)), "anonymous", "other"},
    }


def comes_to(look: Callable[[], Any], wanted: Any) -> Any:
    """What is seen, as soon as it is what is wanted: books are closed just after the last byte."""
    until = time.monotonic() + PATIENCE
    while (seen := look()) != wanted and time.monotonic() < until:
        time.sleep(0.02)
    return seen


class Enemy:
    """Says what nobody should. Of what is lawful every enemy does the same, by `course`; the rest is for `chance`."""

    def __init__(self, gateway: Running, server: RawServer, keys: list[str], number: int) -> None:
        self.gateway, self.server, self.keys = gateway, server, keys
        self.course, self.chance = random.Random(7), random.Random(number)  # noqa: S311 - to be repeated
        host, port = gateway.url.removeprefix("http://").split(":")
        self.address = (host, int(port))

    def attack(self) -> None:
        with httpx.Client(timeout=PATIENCE) as client:
            for i in range(40):
                self.ask(client, i)
            for i in range(40):
                self.answer(client, i)
        self.try_keys(500)
        for i in range(20):
            self.send_garbage(i)

    def word(self) -> str:
        return f"{SENTINEL}-{self.chance.getrandbits(64):x}"

    def bytes(self) -> bytes:
        """What a header may hold, and should not."""
        return self.word().encode() + bytes(self.chance.choices(range(128, 256), k=5))

    def ask(self, client: httpx.Client, i: int) -> None:
        """For unknown models, at unknown paths, by unknown methods, with nonsense in the headers that mean something to us."""
        ours = (b"x-moe-policy", b"x-moe-domain", b"x-moe-max-cost-usd", b"x-moe-session", b"x-request-id")
        headers = [(b"authorization", b"Bearer " + self.keys[i].encode())]
        headers += [(name, self.bytes()) for name in (b"traceparent", b"user-agent", b"x-forwarded-for", b"accept")]
        headers += [(self.course.choice(ours), self.bytes())] * (i % 2)
        messages = [{"role": self.word(), "content": self.word()}]
        body = {"model": self.word() if i % 3 else "one", "messages": messages, "stream": i % 5 == 0}
        path = self.course.choice([*ENDPOINTS, "/v1/route", "/v1/{}", "/{}"]).format(self.word())
        method = self.course.choice(["POST", "POST", "POST", "GET", "DELETE", "{}"]).format(self.word().upper())
        client.request(method, self.gateway.url + path, headers=headers, content=json.dumps(body))

    def answer(self, client: httpx.Client, i: int) -> None:
        """Of a server: with any status, and with usage that cannot be."""
        statuses = ([200], range(206, 300), range(430, 499), range(505, 1000))[self.course.randrange(4)]
        odd = [self.word(), -1, 2**62, 2**70, 1.5, None, [], {}, True, {self.word(): 3}]
        of = ("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details", self.word())
        usage = self.course.choice([odd, {name: self.course.choice(odd) for name in of}])
        said = json.dumps(json.loads(CHAT.whole) | {"usage": usage, "model": self.word()}).encode()
        # The connection ends as it says: one that is found dead by the next request counts an attempt more, or not, by chance.
        headers = {"x-moe-expert": self.word(), "retry-after": self.word(), "connection": "close"}
        self.server.behaviour = sends(whole(said, self.chance.choice(statuses), headers), then="close")
        for replica in self.gateway.state.pool.all():
            replica.forgive()
        body = {"model": "one", "messages": [{"role": "user", "content": "hello"}]}
        client.post(f"{self.gateway.url}/v1/chat/completions", json=body, headers={"x-api-key": self.keys[-i]})

    def try_keys(self, count: int) -> None:
        """So many keys on one connection."""
        one = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: 2\r\n\r\n{{}}"
        with socket.create_connection(self.address, PATIENCE) as client, client.makefile("rb") as answers:
            for _ in range(count // 50):
                client.sendall("".join(one.format(self.word()) for _ in range(50)).encode())
                for _ in range(50):
                    assert b" 401 " in answers.readline()
                    head = dict(line.split(b": ") for line in iter(answers.readline, b"\r\n"))
                    answers.read(int(head[b"content-length"]))

    def send_garbage(self, i: int) -> None:
        """What is no HTTP."""
        with socket.create_connection(self.address, PATIENCE) as client:
            client.sendall(self.bytes() + (b"\r\n\r\n" if i % 2 else b" / HTTP/1.1\r\n\x00\r\n\r\n"))
            client.recv(100)


def test_no_client_and_no_server_makes_a_series(start: Start) -> None:
    keys = {f"team-{i}": f"key-{i}" for i in range(1000)}
    with raw_server(sends(then="close")) as server:
        of_each = f"upstream: {{vllm: [{server.url}]}}, price: {{input: 1.0, output: 2.0}}, domains: [code, general]"
        text = "version: 1\nexperts:\n" + "".join(f"  {name}: {{model: m, {of_each}}}\n" for name in ("one", "two"))
        gateway = start(text, keys=keys)
        Enemy(gateway, server, list(keys.values()), 1).attack()
        first = series(gateway)
        lawful = allowed(gateway)
        for name, labels in first:
            for label, value in labels:
                assert label == "le" or value in lawful[label], f"{name} has {label}={value!r}"
        Enemy(gateway, server, list(keys.values()), 2).attack()
        assert comes_to(lambda: series(gateway), first) == first


def address(gateway: Running) -> tuple[str, int]:
    host, port = gateway.url.removeprefix("http://").split(":")
    return host, int(port)


def test_connections_are_counted_while_they_are_open_and_those_that_are_refused(
    start: Start, servers: list[FakeServer]
) -> None:
    gateway = start(experts_yaml(servers[0]), max_connections=4, max_header_bytes=2048, header_seconds=0.5)
    with httpx.Client(timeout=PATIENCE) as client, ExitStack() as opened:

        def told(name: str, **labels: str) -> float:
            return metric(client.get(f"{gateway.url}/metrics").text, name, **labels)

        def refused() -> dict[str, float]:
            counted = {reason: told("moe_connections_refused_total", reason=reason) for reason in REFUSALS}
            return {reason: count for reason, count in counted.items() if count}

        assert told("moe_open_connections") == 1  # the one that asks
        for said in (b"\x16\x03\x01 hello", b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 999, b"GET / HTTP/1.1\r\nx: "):
            with socket.create_connection(address(gateway), PATIENCE) as strange:
                strange.sendall(said)
                assert strange.recv(12) in (b"HTTP/1.1 400", b"HTTP/1.1 431", b"HTTP/1.1 408")
        wanted = {"malformed_http": 1, "request_header_too_large": 1, "request_timeout": 1}
        assert comes_to(refused, wanted) == wanted
        assert comes_to(lambda: told("moe_open_connections"), 1) == 1
        many = [opened.enter_context(connect(gateway, stream=True)) for _ in range(6)]
        assert comes_to(lambda: refused().get("too_many_connections"), 3) == 3
        for one in many:
            one.close()
        assert comes_to(lambda: told("moe_open_connections"), 1) == 1
        assert told("moe_process_resident_memory_bytes") > 10_000_000
        assert told("moe_process_cpu_seconds_total") > 0
        assert comes_to(lambda: told("moe_event_loop_lag_seconds_count") > 0, True)


def test_the_series_of_an_expert_that_is_gone_go_when_its_last_request_ends_and_no_sooner(
    start: Start, servers: list[FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.generation.SETTLE_SECONDS", 0.05)
    monkeypatch.setattr("gateway.generation.LOOK_SECONDS", 0.05)
    config = tmp_path / "experts.yaml"
    both, one = experts_yaml(*servers[:2]), experts_yaml(servers[0])
    gateway = start(both, config=config)

    def reload(text: str) -> None:
        config.write_text(text, "utf-8")
        assert httpx.post(f"{gateway.url}/admin/reload", timeout=PATIENCE).status_code == 200

    def ask(model: str) -> None:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": True}
        assert httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=PATIENCE).status_code == 200

    def families() -> set[str]:
        """Those that speak of the expert two, or of a replica of it."""
        return {name for name, labels in series(gateway) if {"two", "two-0"} & {value for _, value in labels}}

    ask("one")
    ask("two")
    servers[0].behaviour = endless
    assert gateway.settled("moe_requests_total", 2)
    spoken = families()
    assert {
        "moe_requests_total",
        "moe_tokens_total",
        "moe_requests_in_flight",
        "moe_time_to_first_token_seconds_sum",
    } < spoken
    servers[1].behaviour = endless
    with connect(gateway, stream=True, model="two") as running:
        assert servers[1].wait_until_asked()
        reload(one)
        reload(one + "\n")
        assert gateway.metric("moe_requests_in_flight", expert="two") == 1
        assert families() >= spoken - {"moe_replica_up", "moe_replica_state", "moe_expert_mismatch"}
        running.shutdown(socket.SHUT_RDWR)
        assert comes_to(families, set()) == set()
    # Who left in the end is counted all the same, and told when there is an expert of that name again.
    servers[1].behaviour = well
    reload(both)
    assert gateway.metric("moe_requests_total", expert="two") == 2
    ask("two")
    assert gateway.settled("moe_requests_total", 3, expert="two")
