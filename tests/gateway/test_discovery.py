from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.discovery import MAX_TRIES, Discovery
from gateway.pool import Pool
from gateway.served import Served
from gateway.serves import ASSUMED, EMBEDDED, TOKENIZE, Serves
from gateway.upstreams.base import Address
from router.upstream import Upstream
from tests.fakes.memory import FakeUpstream, experts_file

VLLM: dict[str, dict[str, str]] = {
    "/v1/chat/completions": {},
    "/v1/completions": {},
    "/v1/responses": {},
    "/v1/messages": {},
    "/tokenize": {},
}


@dataclass
class Documented(FakeUpstream):
    """Answers GET with `document`; it has no list of models."""

    document: bytes | None = None
    fetched: list[str] = field(default_factory=list)
    listed: int = 0

    async def fetch(self, address: Address, path: str) -> bytes | None:
        if path == "/v1/models":
            self.listed += 1
            return None
        self.fetched.append(path)
        return self.document


async def asked(document: Any, up: bool = True, **expert: Any) -> tuple[Serves, Documented]:
    file = experts_file({"one": expert}, 2)
    pool, serves = Pool(file, {}), Serves(file.experts)
    text = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    upstream = Documented(document=text)
    pool.replicas["one"][1].up = up
    discovery = Discovery(upstream, serves, Served(upstream, file, pool.replicas))
    for _ in range(2 * MAX_TRIES):
        discovery.refresh(file.experts, pool.replicas)
        discovery.refresh(file.experts, pool.replicas)
        await discovery.settled()
    discovery.close()
    return serves, upstream


async def test_what_a_server_lists_is_what_its_expert_serves_and_it_is_asked_once() -> None:
    serves, upstream = await asked({"paths": VLLM})
    assert serves.of("one") == {"chat", "completions", "responses", "messages"} | TOKENIZE
    assert upstream.fetched == ["/openapi.json"]
    assert upstream.calls == []  # nothing is tried out


@pytest.mark.parametrize("document", [None, b"", b"<html>", b"[]", b'{"paths": 5}', {"paths": {}}, b"[" * 10_000])
async def test_a_server_that_lists_nothing_is_taken_for_one_of_chat(document: Any) -> None:
    serves, _ = await asked(document)
    assert serves.of("one") == ASSUMED | TOKENIZE


async def test_a_server_that_does_not_answer_is_asked_again_and_not_for_ever() -> None:
    _, upstream = await asked(None)
    assert upstream.fetched == ["/openapi.json"] * MAX_TRIES


@pytest.mark.parametrize(("up", "expert"), [(False, {}), (True, {"endpoints": ["chat"]})])
async def test_nobody_is_asked_who_is_down_or_declared(up: bool, expert: dict[str, Any]) -> None:
    _, upstream = await asked({"paths": VLLM}, up, **expert)
    assert upstream.fetched == []


async def test_a_server_that_comes_back_as_another_is_asked_anew() -> None:
    file = experts_file({"one": {}})
    pool, serves = Pool(file, {}), Serves(file.experts)
    upstream = Documented(document=json.dumps({"paths": VLLM}).encode())
    (replica,) = pool.all()
    discovery = Discovery(upstream, serves, Served(upstream, file, pool.replicas))

    async def looked() -> frozenset[str]:
        discovery.refresh(file.experts, pool.replicas)
        await discovery.settled()
        return serves.of("one")

    replica.probe(True)
    assert "responses" in await looked()
    upstream.document = json.dumps({"paths": {"/v1/embeddings": {}}}).encode()
    assert "responses" in await looked()  # the same server says the same
    replica.probe(False)
    replica.probe(False)
    assert "responses" in await looked()
    replica.probe(True)
    assert await looked() == {"embeddings"}


def test_what_was_found_outlives_a_reload_where_the_servers_stay() -> None:
    file = experts_file({"one": {}, "two": {}})
    before = Serves(file.experts)
    before.found("one", frozenset({"responses"}))
    before.found("two", frozenset({"responses"}))
    moved = file.experts["two"].model_copy(update={"upstream": Upstream(embedded="smollm2")})
    after = Serves({"one": file.experts["one"], "two": moved}, before)
    assert after.of("one") == {"responses"}
    assert after.of("two") == EMBEDDED


async def test_its_rounds_are_those_of_the_lists_of_models_too() -> None:
    file = experts_file({"one": {}})
    pool, serves, upstream = Pool(file, {}), Serves(file.experts), Documented()
    served = Served(upstream, file, pool.replicas)
    discovery = Discovery(upstream, serves, served)
    pool.all()[0].probe(True)
    discovery.refresh(file.experts, pool.replicas)
    await discovery.settled()
    assert upstream.listed == 1
    discovery.refresh(file.experts, pool.replicas)
    discovery.close()
    await asyncio.sleep(0.01)
    assert upstream.listed == 1  # it was given up before it asked
