"""POST /v1/route: the decision, and the explanation where it is asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.app import create_app
from gateway.deciding import MAX_EXPLANATIONS
from gateway.settings import Settings
from gateway.state import GatewayState
from router.errors import ExtensionError
from router.policy import POLICIES, Choice, State
from router.routing import Router
from tests.fakes.encoders import artifact_of, identity, router_with, stage_of
from tests.fakes.memory import WordEncoder, experts_file, router_of

FILE = experts_file(
    {"coder": {"domains": {"code": 0.9}}, "general": {"domains": {"general": 0.9}}}, aliases={"gpt-4o": "auto:cheap"}
)
KEYS = {"why", "text", "policy", "stages", "experts", "features", "nearest", "conversation"}


async def post(
    body: Any, router: Router | None = None, query: str = "", headers: Mapping[str, str] | None = None
) -> httpx.Response:
    app = create_app(Settings(), router or router_of(FILE))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        answer = await http.post(f"/v1/route{query}", json=body, headers=dict(headers or {}))
    state: GatewayState = app.state.gateway
    state.decider.close()
    return answer


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ({"input": "code"}, ""),
        ({"input": "code", "explain": False}, ""),
        ({"input": "code", "explain": None}, "?explain=0"),
        ({"input": 'say "explain": true code'}, "?explain=false"),
        ({"messages": [{"role": "user", "content": "code", "explain": True}]}, ""),
    ],
)
async def test_a_decision_is_explained_only_where_it_is_asked_for(body: Any, query: str) -> None:
    answer = await post(body, query=query)
    assert answer.status_code == 200
    assert answer.json()["expert"] == "coder"
    assert "explanation" not in answer.json()


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ({"input": "code", "explain": True}, ""),
        ({"input": "code"}, "?explain=1"),
        ({"input": "code", "explain": False}, "?explain=true"),
        ({"messages": [{"role": "user", "content": "code"}], "explain": True}, ""),
    ],
)
async def test_an_explanation_stands_beside_the_keys_that_are_always_there(body: Any, query: str) -> None:
    plain, explained = await post({"input": "code"}), await post(body, query=query)
    assert explained.status_code == 200
    assert set(explained.json()) == {*plain.json(), "explanation"}
    explanation = explained.json()["explanation"]
    assert set(explanation) == KEYS
    assert explanation["text"] == "code"
    assert explanation["features"]["supporting"][0]["text"] == "code"
    assert explanation["nearest"]["missing"].startswith("the training texts cannot be shown")
    assert explained.headers["x-moe-expert"] == "coder"


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ({"input": "code", "explain": "yes"}, ""),
        ({"input": "code", "explain": 1}, ""),
        ({"input": "code"}, "?explain=maybe"),
    ],
)
async def test_what_says_neither_yes_nor_no_is_a_bad_request(body: Any, query: str) -> None:
    answer = await post(body, query=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "explain")


async def test_an_explanation_is_of_the_policy_that_was_used() -> None:
    aliased = await post({"messages": [{"role": "user", "content": "code"}], "model": "gpt-4o", "explain": True})
    assert aliased.json()["explanation"]["policy"]["name"] == "auto:cheap"
    headers = {"x-moe-policy": "best", "x-moe-domain": "general"}
    named = (await post({"input": "code", "explain": True}, headers=headers)).json()
    assert (named["expert"], named["explanation"]["policy"]["name"]) == ("general", "auto:best")
    assert "domain is general" in named["explanation"]["why"]


async def test_text_that_no_json_can_carry_is_explained_all_the_same() -> None:
    app = create_app(Settings(), router_of(FILE))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        body = b'{"input": "code \\u001b[2J \\u0000", "explain": true}'
        answer = await http.post("/v1/route", content=body)
    assert answer.status_code == 200
    assert answer.json()["explanation"]["text"] == "code \\x1b[2J \\x00"


async def test_explanations_are_made_in_a_thread_that_no_decision_waits_for() -> None:
    domains = FILE.domain_names
    encoder = WordEncoder(domains)
    router = router_with(FILE, artifact_of(domains, stage_of(encoder, identity(len(domains), 9))))
    assert (await post({"input": "code", "explain": True}, router)).status_code == 200
    assert threading.current_thread().name not in encoder.threads
    decided, *rest = encoder.threads
    assert decided.startswith("router")
    assert rest
    assert all(name.startswith("explainer") for name in rest)


class HeldExplainer(WordEncoder):
    """Holds the thread of explanations until it is let go; decisions go on."""

    def __init__(self, domains: Sequence[str]) -> None:
        super().__init__(domains)
        self.let_go = threading.Event()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if threading.current_thread().name.startswith("explainer"):
            assert self.let_go.wait(20)
        return super().encode(texts)


async def test_who_asks_for_one_explanation_too_many_is_told_to_come_back_and_the_others_get_theirs() -> None:
    domains = FILE.domain_names
    encoder = HeldExplainer(domains)
    app = create_app(Settings(), router_with(FILE, artifact_of(domains, stage_of(encoder, identity(len(domains), 9)))))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        body = {"input": "code", "explain": True}
        asked = [asyncio.create_task(http.post("/v1/route", json=body)) for _ in range(MAX_EXPLANATIONS + 1)]
        done, rest = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        plain = await http.post("/v1/route", json={"input": "code"})
        encoder.let_go.set()
        explained = await asyncio.gather(*rest)
    app.state.gateway.decider.close()
    (refused,) = [task.result() for task in done]
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    error = refused.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("api_error", None, "busy")
    assert plain.status_code == 200
    assert [answer.status_code for answer in explained] == [200] * MAX_EXPLANATIONS


async def test_a_policy_that_fails_while_it_is_explained_is_a_fault_of_ours_that_says_nothing() -> None:
    calls: list[str] = []

    def flaky(state: State) -> Choice | None:
        calls.append("asked")
        if len(calls) > 2:  # the two turns were decided; now they are explained
            raise ExtensionError("secret-host-7 is on fire")
        return next(iter(state.expected)), "best"

    messages = [{"role": "user", "content": "code"}, {"role": "user", "content": "code again"}]
    with POLICIES.lending("auto:flaky", flaky):
        answer = await post({"messages": messages, "model": "auto:flaky", "explain": True})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret-host-7" not in answer.text
    assert "policy" in answer.json()["error"]["message"]


async def test_what_nobody_can_answer_is_refused_explained_or_not() -> None:
    body = {"messages": [{"role": "user", "content": "code"}], "tools": [{}], "explain": True}
    answer = await post(body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_capability")


async def test_a_change_of_expert_is_told_in_a_header_beside_the_body_and_in_the_sentence() -> None:
    first, then = {"role": "user", "content": "code"}, {"role": "user", "content": "general general general"}
    answer = await post({"messages": [first, then], "explain": True})
    told = answer.json()
    assert (told["expert"], told["previous"], told["switched"]) == ("general", "coder", "topic")
    assert answer.headers["x-moe-switched"] == "topic"
    assert "general takes the conversation over from coder" in told["explanation"]["why"]
    assert "x-moe-switched" not in (await post({"messages": [first]})).headers


class Broken:
    """A router that fails as no router should."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


async def test_a_decision_that_fails_is_a_request_that_failed() -> None:
    app = create_app(Settings(), router_of(FILE))
    state: GatewayState = app.state.gateway
    state.decider.router = Broken()  # type: ignore[assignment]
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        answer = await http.post("/v1/route", json={"input": "code"})
        counted = (await http.get("/metrics")).text
    assert answer.status_code == 500
    assert 'moe_requests_total{code="500",domain="none",endpoint="route",expert="none"} 1.0' in counted
