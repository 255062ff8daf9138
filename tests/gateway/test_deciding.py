"""The decider: names, errors, the thread that classifies; and what the headers tell of a decision."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.deciding import MAX_BATCH, MAX_EXPLANATIONS, Batcher, Decider, decision_headers
from gateway.errors import BadRequestError, BusyError, NotFoundError
from gateway.exchange import Exchange, Outcome
from gateway.requests.chat import Chat
from gateway.requests.completion import Completion
from gateway.requests.message import MessageRequest
from gateway.requests.response import ResponseRequest
from gateway.usage import Usage
from router.decision import NO_OVERRIDES, Decision, Overrides, Query
from router.errors import NoExpertError
from router.experts import ExpertsFile
from router.explaining.explanation import Explanation
from router.fleet import Fleet
from router.routing import Router
from tests.fakes.encoders import artifact_of, identity, router_with, stage_of
from tests.fakes.memory import WordEncoder, decision, experts_file, router_of
from tests.fakes.packages import package

ROOT = Path(__file__).parents[2]

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
    (stage,) = decider.router.artifact.stages
    assert isinstance(stage.encoder, WordEncoder)
    return stage.encoder.threads


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
    for i in range(3):
        await asyncio.gather(*(decider.decide(Query(f"code {i} {n}")) for n in range(5)))
    assert len(threads(decider)) >= 3
    assert len(set(threads(decider))) == 1
    assert threads(decider)[0] != threading.current_thread().name


async def test_what_was_decided_before_needs_no_encoder(decider: Decider) -> None:
    first = await decider.decide(Query("code"))
    assert len(threads(decider)) == 1
    assert (await decider.decide(Query("code"))).scores == first.scores
    assert len(threads(decider)) == 1


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


async def test_how_the_fleet_does_is_asked_anew_for_every_decision() -> None:
    down = iter(["coder", "nobody", "coder"])
    decider = Decider(router_of(FILE), lambda: Fleet(down=frozenset({next(down)})))
    assert (await decider.decide(Query("code", "coder"))).expert == "coder"
    assert (await decider.decide(Query("general", "general"))).expert == "general"
    assert decider.router.quick(Query("code", "general")) is not None
    assert (await decider.decide(Query("code", "coder"))).expert == "coder"
    with pytest.raises(StopIteration):
        next(down)
    decider.close()


async def test_an_expert_that_is_down_is_not_decided_for() -> None:
    decider = Decider(router_of(FILE), lambda: Fleet(down=frozenset({"coder"})))
    for _ in ("classified", "remembered"):
        decided = await decider.decide(Query("code"))
        assert (decided.expert, decided.fallbacks) == ("general", ("coder",))
    decider.close()


# What a request wants otherwise


def test_a_request_without_our_headers_wants_nothing_else(decider: Decider) -> None:
    assert decider.overrides({b"content-type": b"application/json"}) is NO_OVERRIDES


@pytest.mark.parametrize(
    ("headers", "overrides"),
    [
        ({b"x-moe-policy": b"cheap"}, Overrides(policy="auto:cheap")),
        ({b"x-moe-policy": b"auto:best"}, Overrides(policy="auto:best")),
        ({b"x-moe-policy": b" auto "}, Overrides(policy="auto")),
        ({b"x-moe-domain": b"code"}, Overrides(domain="code")),
        ({b"x-moe-max-cost-usd": b"0.002"}, Overrides(max_cost_usd=0.002)),
        ({b"x-moe-max-cost-usd": b".5"}, Overrides(max_cost_usd=0.5)),
        ({b"x-moe-max-cost-usd": b"1e-4"}, Overrides(max_cost_usd=0.0001)),
        (
            {b"x-moe-policy": b"best", b"x-moe-domain": b"general", b"x-moe-max-cost-usd": b"3"},
            Overrides("auto:best", "general", 3.0),
        ),
    ],
)
def test_headers_say_what_a_request_wants_otherwise(
    decider: Decider, headers: dict[bytes, bytes], overrides: Overrides
) -> None:
    assert decider.overrides(headers) == overrides


COSTS = ["", "free", "0", "-1", "nan", "inf", "0,5", "$1", "1_000", "0x1", "1 2", "١", "9" * 400]


@pytest.mark.parametrize(
    ("header", "said", "allowed"),
    [
        ("x-moe-policy", "chep", "one of auto, cheap, best"),
        ("x-moe-policy", "auto:", "one of auto, cheap, best"),
        ("x-moe-policy", "", "one of auto, cheap, best"),
        ("x-moe-policy", "coder", "one of auto, cheap, best"),
        ("x-moe-domain", "law", "one of code, math, bio, general"),
        ("x-moe-domain", "", "one of code, math, bio, general"),
        *(("x-moe-max-cost-usd", said, "a number of US dollars above 0, such as 0.002") for said in COSTS),
    ],
)
def test_a_header_that_says_what_there_is_not_is_refused_with_what_there_is(
    decider: Decider, header: str, said: str, allowed: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        decider.overrides({header.encode(): said.encode()})
    assert (caught.value.status, caught.value.param) == (400, header)
    assert header in caught.value.message
    assert allowed in caught.value.message


@given(
    st.sampled_from([b"x-moe-policy", b"x-moe-domain", b"x-moe-max-cost-usd"]),
    st.binary(max_size=300).filter(lambda said: not said.strip().replace(b".", b"").isdigit()),
)
def test_whatever_a_header_says_at_most_64_characters_of_it_come_back(header: bytes, said: bytes) -> None:
    decider = Decider(router_of(FILE))
    with pytest.raises(BadRequestError) as caught:
        decider.overrides({header: b"x" + said})
    text = ("x" + said.decode("latin-1")).strip()
    assert len(caught.value.message) < 400
    assert len(text) <= 64 or repr(text[:65])[1:-1] not in caught.value.message


async def test_headers_decide(decider: Decider) -> None:
    decided = await decider.decide(Query("code", overrides=decider.overrides({b"x-moe-domain": b"general"})))
    assert (decided.expert, decided.reason) == ("general", "pinned")
    assert threads(decider) == []


async def test_a_limit_of_cost_that_nobody_keeps_is_a_fault_of_the_request(decider: Decider) -> None:
    with pytest.raises(BadRequestError) as caught:
        await decider.decide(Query("code", tokens=900, overrides=Overrides(max_cost_usd=0.0001)))
    assert (caught.value.param, caught.value.code) == ("x-moe-max-cost-usd", "max_cost_exceeded")
    assert "the least estimate is 0.00192 USD, for coder" in caught.value.message


INSTALLED = """
import asyncio
from gateway import logs
from gateway.deciding import Decider
from gateway.errors import GatewayError
from router.decision import Query
from tests.gateway.test_deciding import FILE
from tests.fakes.memory import router_of

async def main():
    logs.configure()
    decider = Decider(router_of(FILE))
    print([name for name in decider.models() if name.startswith("auto")])
    overrides = decider.overrides({b"x-moe-policy": b"last"})
    for query in (Query("code", "auto:last"), Query("code", "auto", overrides=overrides)):
        decided = await decider.decide(query)
        print(decided.expert, decided.reason)
    for name in ("auto:broken", "auto:odd"):
        try:
            await decider.decide(Query("code", name))
        except GatewayError as error:
            print(error.status, error.message)
    decider.close()

asyncio.run(main())
"""


def test_an_installed_package_adds_a_policy_that_requests_may_name(tmp_path: Path) -> None:
    points = {"last": "last_policy:last", "odd": "last_policy:odd", "broken": "no_such_module:policy"}
    code = "def last(state):\n    return list(state.expected)[-1], 'best'\ndef odd(state):\n    return 1 / 0\n"
    package(tmp_path, "last-policy", "moe_gateway.policies", points, {"last_policy.py": code})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    done = subprocess.run(
        [sys.executable, "-c", INSTALLED], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    failed = "500 The policy that was asked for cannot be used; the gateway's log says why."
    assert done.stdout.splitlines() == [
        "['auto', 'auto:cheap', 'auto:best', 'auto:broken', 'auto:last', 'auto:odd']",
        "general best",
        "general best",
        failed,
        failed,
    ]
    assert "auto:broken of the package last-policy (no_such_module:policy) cannot be loaded" in done.stderr
    told = json.loads(done.stderr.splitlines()[-1])
    assert (told["event"], told["policy"], told["error"]) == (
        "a policy cannot be used",
        "auto:odd",
        "ZeroDivisionError",
    )
    assert told["at"][-1] == "last_policy.py:4"


# The thread


class Work:
    """What a batcher asks: holds the thread until it is let go, answers as each query's text says."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.busy, self.let_go = threading.Event(), threading.Event()

    def __call__(self, queries: Sequence[Query]) -> list[Decision | Exception]:
        texts = [query.text for query in queries]
        self.batches.append(texts)
        self.busy.set()
        assert self.let_go.wait(10)
        if "explode" in texts:
            raise RuntimeError("explode")
        return [NoExpertError(text, "x") if text == "nobody" else decision(text) for text in texts]

    async def until_busy(self) -> None:
        await asyncio.to_thread(self.busy.wait, 10)


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def batcher(work: Work) -> Iterator[Batcher]:
    made = Batcher(work)
    yield made
    work.let_go.set()
    made.close()


async def queued(batcher: Batcher, work: Work, *texts: str) -> list[asyncio.Task[Decision]]:
    """`first` holds the thread, the others wait behind it."""
    tasks = [asyncio.create_task(batcher.ask(Query("first")))]
    await work.until_busy()
    tasks += [asyncio.create_task(batcher.ask(Query(text))) for text in texts]
    await asyncio.sleep(0)
    return tasks


async def experts(tasks: Sequence[asyncio.Task[Decision]]) -> list[str]:
    """Whom each was decided for, or what it failed with."""
    await asyncio.wait(tasks)
    return [
        "cancelled" if t.cancelled() else repr(t.exception()) if t.exception() else t.result().expert for t in tasks
    ]


async def test_the_first_query_waits_for_nobody_and_what_queued_meanwhile_goes_together(
    batcher: Batcher, work: Work
) -> None:
    tasks = await queued(batcher, work, "a", "b", "c")
    work.let_go.set()
    assert await experts(tasks) == ["first", "a", "b", "c"]
    assert work.batches == [["first"], ["a", "b", "c"]]
    assert (await batcher.ask(Query("later"))).expert == "later"


async def test_a_batch_has_a_bound_and_the_rest_keeps_its_order(batcher: Batcher, work: Work) -> None:
    texts = [str(i) for i in range(2 * MAX_BATCH + 1)]
    tasks = await queued(batcher, work, *texts)
    work.let_go.set()
    assert await experts(tasks) == ["first", *texts]
    assert [len(batch) for batch in work.batches] == [1, MAX_BATCH, MAX_BATCH, 1]


async def test_a_query_that_nobody_can_answer_fails_alone(batcher: Batcher, work: Work) -> None:
    tasks = await queued(batcher, work, "a", "nobody", "c")
    work.let_go.set()
    assert await experts(tasks) == ["first", "a", "NoExpertError('nobody')", "c"]


async def test_a_query_that_breaks_the_work_fails_alone(batcher: Batcher, work: Work) -> None:
    tasks = await queued(batcher, work, "a", "explode", "c")
    work.let_go.set()
    assert await experts(tasks) == ["first", "a", "RuntimeError('explode')", "c"]


async def test_a_waiter_that_gives_up_takes_nobody_with_it(batcher: Batcher, work: Work) -> None:
    tasks = await queued(batcher, work, "a", "b", "c")
    for gone in (tasks[0], tasks[2]):  # one in the thread's hands, one still queued
        gone.cancel()
    await asyncio.sleep(0)
    work.let_go.set()
    assert await experts(tasks) == ["cancelled", "a", "cancelled", "c"]
    assert work.batches == [["first"], ["a", "c"]]


async def test_where_all_that_queued_gave_up_the_next_is_served(batcher: Batcher, work: Work) -> None:
    tasks = await queued(batcher, work, "a")
    tasks[1].cancel()
    work.let_go.set()
    assert await experts(tasks) == ["first", "cancelled"]
    assert (await batcher.ask(Query("b"))).expert == "b"
    assert work.batches == [["first"], ["b"]]


async def test_closing_leaves_nobody_waiting(batcher: Batcher, work: Work) -> None:
    tasks = await queued(batcher, work, "a")
    batcher.close()
    assert await experts(tasks[1:]) == ["cancelled"]
    work.let_go.set()
    assert await experts(tasks[:1]) == ["first"]


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
    domains = file.domain_names
    encoder = HeldEncoder(len(domains))
    return router_with(file, artifact_of(domains, stage_of(encoder, identity(len(domains))))), encoder


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


async def test_the_time_of_a_decision_is_all_that_its_request_waited_for_it() -> None:
    router, encoder = held(FILE)
    time = [100.0]
    decider = Decider(router, clock=lambda: time[0])
    first = asyncio.create_task(decider.decide(Query("code")))
    assert await asyncio.to_thread(encoder.busy.wait, 10)
    time[0] = 103.0
    queued = [asyncio.create_task(decider.decide(Query(f"code {i}"))) for i in range(3)]
    await asyncio.sleep(0)
    pinned = await decider.decide(Query("code", "general"))
    time[0] = 110.0
    encoder.let_go.set()
    assert [task.seconds for task in await asyncio.gather(first, *queued)] == [10.0, 7.0, 7.0, 7.0]
    assert pinned.seconds == 0.0
    decider.close()


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


DECIDED = router_of(FILE).decide(Query("code"))


async def waiting(decider: Decider, encoder: HeldEncoder) -> list[asyncio.Task[Explanation]]:
    """As many explanations as may be waited for; the encoder holds the first."""
    tasks = [asyncio.create_task(decider.explain(Query("code"), DECIDED)) for _ in range(MAX_EXPLANATIONS)]
    assert await asyncio.to_thread(encoder.busy.wait, 10)
    with pytest.raises(BusyError) as caught:
        await asyncio.wait_for(decider.explain(Query("code"), DECIDED), 30)
    assert (caught.value.status, caught.value.headers) == (503, {"retry-after": "1"})
    return tasks


async def test_no_more_explanations_wait_than_may_and_each_that_was_made_leaves_its_place_to_another() -> None:
    router, encoder = held(FILE)
    decider = Decider(router)
    tasks = await waiting(decider, encoder)
    assert (await decider.decide(Query("code", "coder"))).reason == "pinned"  # a decision is no explanation
    encoder.let_go.set()
    assert [explanation.text for explanation in await asyncio.gather(*tasks)] == ["code"] * MAX_EXPLANATIONS
    assert (await decider.explain(Query("again"), DECIDED)).text == "again"
    decider.close()


async def test_whoever_gives_up_waiting_for_an_explanation_leaves_the_place_to_another() -> None:
    router, encoder = held(FILE)
    decider = Decider(router)
    tasks = await waiting(decider, encoder)
    tasks[-1].cancel()
    await asyncio.wait(tasks[-1:])
    later = asyncio.create_task(decider.explain(Query("later"), DECIDED))
    await asyncio.sleep(0)
    encoder.let_go.set()
    assert (await later).text == "later"
    await asyncio.gather(*tasks[:-1])
    decider.close()


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


def test_headers_tell_a_switch_and_its_cause() -> None:
    switched = replace(decision("coder", "general"), switched="topic", previous="general")
    assert decision_headers(exchange(decision=switched))["x-moe-switched"] == "topic"
    back = exchange(decision=switched, expert_id="general", expert=FILE.experts["general"])
    assert "x-moe-switched" not in decision_headers(back)
    kept = replace(switched, switched=None, previous="coder")
    assert "x-moe-switched" not in decision_headers(exchange(decision=kept))


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


ALL = ["chat", "completions", "responses", "messages"]
HELLO = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        (Chat, {"messages": [HELLO], "response_format": {"type": "json_schema"}}, "response_format"),
        (ResponseRequest, {"input": "hi", "text": {"format": {"type": "json_schema"}}}, "text.format"),
        (ResponseRequest, {"input": "word " * 20_000}, "input"),
        (Completion, {"prompt": "word " * 20_000}, "prompt"),
        (Completion, {"prompt": "hi", "n": 2}, "n"),
        (
            MessageRequest,
            {"messages": [HELLO], "max_tokens": 5, "output_config": {"format": {"type": "json_schema"}}},
            "output_config.format",
        ),
    ],
)
async def test_an_error_names_the_field_as_the_endpoint_calls_it(kind: Any, body: dict[str, Any], param: str) -> None:
    decider = Decider(router_of(experts_file({"one": {"endpoints": ALL, "context_window": 1000, "lacks": ["n"]}})))
    try:
        with pytest.raises(BadRequestError) as caught:
            await decider.decide_for(kind.parse(json.dumps(body).encode()), NO_OVERRIDES)
        assert caught.value.param == param
    finally:
        decider.close()
