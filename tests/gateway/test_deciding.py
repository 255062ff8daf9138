"""The decider: names, errors, the thread that classifies; and what the headers tell of a decision."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.deciding import Decider, decision_headers
from gateway.errors import BadRequestError, NotFoundError
from gateway.exchange import Exchange, Outcome
from gateway.usage import Usage
from router.artifact import Artifact
from router.decision import Query
from router.experts import ExpertsFile
from router.routing import Router
from tests.fakes.memory import WordEncoder, decision, experts_file, router_of

FILE = experts_file(
    {
        "coder": {"domains": {"code": 0.9}, "context_window": 1000, "price": {"input": 1.0, "output": 2.0}},
        "general": {"domains": {"general": 0.9}, "context_window": 2000},
    },
    aliases={"gpt-4o": "auto", "old-coder": "coder"},
)


@pytest.fixture
def decider() -> Iterator[Decider]:
    made = Decider(router_of(FILE))
    yield made
    made.close()


def threads(decider: Decider) -> list[str]:
    """The threads in which the decider's encoder worked."""
    encoder = decider.router.artifact.encoder
    assert isinstance(encoder, WordEncoder)
    return encoder.threads


@pytest.mark.parametrize(
    ("sent", "nearest"), [("codr", "'coder'"), ("auto:chep", "'auto:cheap'"), ("gpt-4", "'gpt-4o'")]
)
async def test_an_unknown_model_is_told_with_the_nearest_name(decider: Decider, sent: str, nearest: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        await decider.decide(Query("code", sent))
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    assert f"Did you mean {nearest}?" in caught.value.message


async def test_where_nothing_is_near_every_name_is_told(decider: Decider) -> None:
    with pytest.raises(NotFoundError) as caught:
        await decider.decide(Query("code", "zzzzzz"))
    assert all(name in caught.value.message for name in ("auto", "auto:best", "coder", "general", "old-coder"))


@given(st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=65, max_size=500))
def test_no_more_than_64_characters_of_an_unknown_name_come_back(name: str) -> None:
    decider = Decider(router_of(FILE))
    assert len(decider.unknown(name)) < len(decider.unknown("")) + 64 * len("\\U0001f600") + 2
    assert repr(name[:65])[1:-1] not in decider.unknown(name)
    assert repr(name[:64])[1:-1] in decider.unknown(name)


@pytest.mark.parametrize("model", ["auto", "auto:cheap", "auto:best", "gpt-4o"])
async def test_virtual_models_and_aliases_of_them_are_routed_by_content(decider: Decider, model: str) -> None:
    assert (await decider.decide(Query("code", model))).expert == "coder"
    assert (await decider.decide(Query("general", model))).expert == "general"


@pytest.mark.parametrize("model", ["coder", "old-coder"])
async def test_a_pinned_expert_needs_no_encoder(decider: Decider, model: str) -> None:
    decided = await decider.decide(Query("general", model))
    assert (decided.expert, decided.reason, decided.scores) == ("coder", "pinned", None)
    assert threads(decider) == []


async def test_the_encoder_works_in_one_thread_that_is_not_the_loops(decider: Decider) -> None:
    await asyncio.gather(*(decider.decide(Query("code")) for _ in range(5)))
    assert len(threads(decider)) == 5
    assert len(set(threads(decider))) == 1
    assert threads(decider)[0] != threading.current_thread().name


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (Query("code", needs=frozenset({"vision"})), "unsupported_capability"),
        (Query("code", tokens=9000, least_tokens=3000), "context_length_exceeded"),
    ],
)
async def test_what_no_expert_can_do_is_a_fault_of_the_request(decider: Decider, query: Query, code: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        await decider.decide(query)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, "messages")


class HeldEncoder:
    """Works until it is let go."""

    def __init__(self, dimensions: int) -> None:
        self.name, self.dimensions = "held", dimensions
        self.busy, self.let_go, self.was_let_go = threading.Event(), threading.Event(), False

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.busy.set()
        self.was_let_go = self.let_go.wait(10)
        return np.zeros((len(texts), self.dimensions), dtype=np.float32)


def held(file: ExpertsFile) -> tuple[Router, HeldEncoder]:
    artifact = router_of(file).artifact
    encoder = HeldEncoder(artifact.manifest.dimensions)
    return Router(file, Artifact(artifact.folder, artifact.manifest, encoder, artifact.head)), encoder


async def test_the_event_loop_goes_on_while_the_encoder_works() -> None:
    router, encoder = held(FILE)
    decider = Decider(router)

    async def tick() -> None:
        await asyncio.to_thread(encoder.busy.wait, 10)
        for _ in range(100):
            await asyncio.sleep(0)
        encoder.let_go.set()  # never, if deciding holds up the loop

    decided, _ = await asyncio.gather(decider.decide(Query("code")), tick())
    decider.close()
    assert encoder.was_let_go
    assert decided.expert in FILE.experts


async def test_a_pinned_request_does_not_wait_for_the_encoder() -> None:
    router, encoder = held(FILE)
    decider = Decider(router)
    classified = asyncio.create_task(decider.decide(Query("code")))
    await asyncio.to_thread(encoder.busy.wait, 10)
    assert (await decider.decide(Query("code", "general"))).reason == "pinned"
    encoder.let_go.set()
    await classified
    decider.close()
    assert encoder.was_let_go


def exchange(**changes: object) -> Exchange:
    made = Exchange("req-1", "chat.completions", decision=decision("coder", "general"))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_before_a_decision_only_the_request_is_named() -> None:
    assert decision_headers(exchange(decision=None)) == {"x-request-id": "req-1"}


def test_headers_tell_the_decision() -> None:
    headers = decision_headers(exchange())
    assert headers == {
        "x-request-id": "req-1",
        "x-moe-expert": "coder",
        "x-moe-domain": "general",
        "x-moe-confidence": "0.9000",
        "x-moe-reason": "best",
        "x-moe-stage": "transformer",
        "x-moe-route-ms": "1.200",
        "x-moe-attempts": "0",
    }


def test_what_was_not_classified_has_no_domain() -> None:
    headers = decision_headers(exchange(decision=decision("coder", reason="pinned", domains={})))
    assert headers["x-moe-stage"] == "none"
    assert headers.keys().isdisjoint({"x-moe-domain", "x-moe-confidence"})


def test_another_expert_than_the_decided_one_is_a_fallback() -> None:
    answered = exchange(expert_id="general", expert=FILE.experts["general"])
    answered.end_attempt(answered.attempt("coder", "coder-0"), Outcome.TIMEOUT)
    answered.attempt("general", "general-0")
    headers = decision_headers(answered)
    assert headers["x-moe-reason"] == "fallback"
    assert (headers["x-moe-expert"], headers["x-moe-model"]) == ("general", "model-of-general")
    assert headers["x-moe-attempts"] == "2"


def test_the_decided_expert_keeps_its_reason_after_a_second_attempt() -> None:
    answered = exchange(expert_id="coder", expert=FILE.experts["coder"])
    answered.attempt("coder", "coder-0")
    answered.attempt("coder", "coder-1")
    assert decision_headers(answered)["x-moe-reason"] == "best"


@pytest.mark.parametrize(
    ("expert", "usage", "cost"),
    [
        ("coder", Usage(input=1000, output=500), "0.00200000"),
        ("coder", None, None),
        ("general", Usage(input=1000, output=500), None),
    ],
)
def test_the_cost_is_told_only_where_usage_and_price_are_known(
    expert: str, usage: Usage | None, cost: str | None
) -> None:
    answered = exchange(expert_id=expert, expert=FILE.experts[expert], usage=usage)
    assert decision_headers(answered).get("x-moe-cost-usd") == cost
