"""The application put together: its paths, its errors, its beginning and end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from gateway.app import create_app
from gateway.exchange import Exchange, Outcome
from gateway.settings import Settings
from gateway.state import GatewayState
from gateway.workers.supervisor import WorkerError
from router.decision import Decision, Query
from router.errors import RouterError
from router.fleet import EMPTY_FLEET, Fleet
from router.routing import Router
from tests.fakes.memory import experts_file, router_of
from tests.fakes.upstream import FakeServer, fake_server

FILE = experts_file({"coder": {"domains": {"code": 0.9}}, "general": {"domains": {"general": 0.9}}})
STAND_IN = experts_file({"general": {"upstream": {"embedded": "smollm2"}}})


@asynccontextmanager
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Talks to the application without its lifespan."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as made:
        yield made


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server() as made:
        yield made


async def test_the_description_of_the_api_is_served_and_names_its_paths() -> None:
    async with client(create_app(Settings(), router_of(FILE))) as http:
        described = (await http.get("/openapi.json")).json()
    assert described["info"]["title"] == "moe-gateway"
    assert {"/v1/models", "/v1/models/{model}", "/v1/route", "/health", "/ready", "/metrics"} <= set(described["paths"])


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/v1/chat", "/docs", "/redoc"])
async def test_an_unknown_path_is_told_in_the_clients_shape(path: str) -> None:
    async with client(create_app(Settings(), router_of(FILE))) as http:
        answer = await http.get(path, headers={"x-request-id": "mine-1"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "mine-1"
    error = answer.json()["error"]
    assert (error["message"], error["type"], error["code"]) == (
        f"There is no GET {path} here.", "invalid_request_error", "not_found",
    )  # fmt: skip


async def test_a_long_unknown_path_is_not_repeated_whole() -> None:
    async with client(create_app(Settings(), router_of(FILE))) as http:
        answer = await http.get("/" + "x" * 5000)
    assert answer.status_code == 404
    assert len(answer.json()["error"]["message"]) < 300


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [("GET", "/v1/chat/completions", "POST"), ("POST", "/v1/models", "GET")]
)
async def test_a_wrong_method_is_told_with_the_right_one(method: str, path: str, allowed: str) -> None:
    async with client(create_app(Settings(), router_of(FILE))) as http:
        answer = await http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["error"]["code"] == "method_not_allowed"


class BrokenRouter(Router):
    """Fails in a way that nobody foresaw."""

    def decide_many(self, queries: Sequence[Query], fleet: Fleet = EMPTY_FLEET) -> list[Decision | RouterError]:
        raise RuntimeError("secret-host-7 is on fire")


async def test_a_fault_of_ours_says_nothing_of_itself() -> None:
    whole = router_of(FILE)
    async with client(create_app(Settings(), BrokenRouter(whole.file, whole.artifact))) as http:
        answer = await http.post("/v1/route", json={"input": "code"}, headers={"x-request-id": "mine-2"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine-2")
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret-host-7" not in answer.text


async def test_the_models_are_listed_with_auto_first_and_found_by_name() -> None:
    async with client(create_app(Settings(), router_of(FILE))) as http:
        listed = [item["id"] for item in (await http.get("/v1/models")).json()["data"]]
        assert listed == ["auto", "auto:cheap", "auto:best", "coder", "general"]
        assert (await http.get("/v1/models/coder")).json()["root"] == "model-of-coder"
        unknown = await http.get("/v1/models/codr")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert "'coder'" in unknown.json()["error"]["message"]


async def test_a_decision_is_told_without_an_answer_being_made() -> None:
    async with client(create_app(Settings(), router_of(FILE))) as http:
        answer = await http.post("/v1/route", json={"input": "code"})
    assert (answer.json()["expert"], answer.json()["model"]) == ("coder", "model-of-coder")
    assert (answer.headers["x-moe-expert"], answer.headers["x-moe-attempts"]) == ("coder", "0")


@pytest.mark.parametrize(
    ("headers", "expert", "reason", "domain"),
    [
        ({}, "coder", "best", "code"),
        ({"x-moe-domain": "general"}, "general", "pinned", "general"),
        ({"x-moe-policy": "cheap"}, "coder", "cheapest", "code"),
    ],
)
async def test_headers_of_a_request_change_how_it_is_routed(
    headers: dict[str, str], expert: str, reason: str, domain: str
) -> None:
    async with client(create_app(Settings(), router_of(FILE))) as http:
        answer = await http.post("/v1/route", json={"input": "code"}, headers=headers)
    told = {name: answer.headers[f"x-moe-{name}"] for name in ("expert", "reason", "domain")}
    assert told == {"expert": expert, "reason": reason, "domain": domain}


async def test_headers_of_a_chat_request_change_how_it_is_routed(server: FakeServer) -> None:
    up = {"upstream": {"vllm": [server.url]}}
    file = experts_file({"coder": {"domains": {"code": 0.9}, **up}, "general": {"domains": {"general": 0.9}, **up}})
    gateway = create_app(Settings(), router_of(file))
    body = {"messages": [{"role": "user", "content": "code"}]}
    async with gateway.router.lifespan_context(gateway), client(gateway) as http:
        answer = await http.post("/v1/chat/completions", json=body, headers={"x-moe-domain": "general"})
    assert (answer.headers["x-moe-expert"], answer.headers["x-moe-reason"]) == ("general", "pinned")


async def test_how_fast_experts_answered_breaks_ties_between_them() -> None:
    file = experts_file({"slow": {"price": {"input": 1, "output": 1}}, "fast": {"price": {"input": 1, "output": 1}}})
    gateway = create_app(Settings(), router_of(file))
    state: GatewayState = gateway.state.gateway
    for expert, seconds in (("slow", 2.0), ("fast", 0.1)):
        exchange = Exchange("r", "chat.completions", state.observers, stream=True)
        exchange.begin(expert, file.experts[expert])
        exchange.first_token = exchange.last_token = exchange.attempt(expert, f"{expert}-0").started + seconds
        exchange.finish(Outcome.OK, 200)
    async with client(gateway) as http:
        answer = await http.post("/v1/route", json={"input": "general"})
    assert (answer.json()["expert"], answer.json()["reason"]) == ("fast", "tie")


@pytest.mark.parametrize("path", ["/v1/route", "/v1/chat/completions"])
@pytest.mark.parametrize("header", ["x-moe-policy", "x-moe-domain", "x-moe-max-cost-usd"])
async def test_a_header_that_says_what_there_is_not_is_a_bad_request(path: str, header: str) -> None:
    body = {"messages": [{"role": "user", "content": "code"}]}
    async with client(create_app(Settings(), router_of(FILE))) as http:
        answer = await http.post(path, json=body, headers={header: "nonsense"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, header)


async def test_an_expert_whose_replicas_are_down_is_not_chosen() -> None:
    gateway = create_app(Settings(), router_of(FILE))
    state: GatewayState = gateway.state.gateway
    state.pool.replicas["coder"][0].up = False
    async with client(gateway) as http:
        answer = await http.post("/v1/route", json={"input": "code"})
    assert answer.json()["expert"] == "general"
    assert {e["id"]: e["refused"] for e in answer.json()["experts"]}["coder"] == "no replica of it can be asked now"


async def test_a_body_that_is_too_large_is_refused_before_it_is_read() -> None:
    async with client(create_app(Settings(max_body_bytes=10), router_of(FILE))) as http:
        for path in ("/v1/route", "/v1/chat/completions"):
            answer = await http.post(path, json={"input": "code and more"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


async def test_keys_close_v1_and_leave_health_open() -> None:
    async with client(create_app(Settings(keys={"team": "k"}), router_of(FILE))) as http:
        assert (await http.get("/v1/models")).status_code == 401
        assert (await http.get("/v1/models", headers={"authorization": "Bearer k"})).status_code == 200
        assert (await http.get("/health")).status_code == 200


async def test_ready_tells_which_experts_can_answer(server: FakeServer) -> None:
    up = {"upstream": {"vllm": [server.url]}}
    seen: list[GatewayState] = []
    gateway = create_app(Settings(), router_of(experts_file({"coder": up, "general": {}})), on_ready=seen.append)
    async with gateway.router.lifespan_context(gateway), client(gateway) as http:
        answer = await http.get("/ready")
        assert seen == [gateway.state.gateway]
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "router": "abc",
        "config": {"status": "serving", "running": "d1", "wanted": None},
        "experts": {"coder": "ready", "general": "down"},
    }


async def test_a_gateway_whose_experts_are_all_down_starts_and_says_so() -> None:
    gateway = create_app(Settings(), router_of(FILE))
    async with gateway.router.lifespan_context(gateway), client(gateway) as http:
        answer = await http.get("/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    assert gateway.state.failure is None


async def test_the_failure_of_a_worker_is_kept_for_whoever_runs_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise SystemExit('this engine does not run here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    seen: list[GatewayState] = []
    gateway = create_app(Settings(state=tmp_path / "state"), router_of(STAND_IN), on_ready=seen.append)
    with pytest.raises(WorkerError):
        async with gateway.router.lifespan_context(gateway):
            raise AssertionError("it must not serve")
    assert isinstance(gateway.state.failure, WorkerError)
    assert "this engine does not run here" in str(gateway.state.failure)
    assert [worker.pid for worker in gateway.state.gateway.workers.values()] == [None]
    assert seen == []


async def test_a_state_folder_that_cannot_be_written_is_kept_as_a_failure(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    gateway = create_app(Settings(state=tmp_path / "state"), router_of(STAND_IN))
    with pytest.raises((WorkerError, OSError)):
        async with gateway.router.lifespan_context(gateway):
            raise AssertionError("it must not serve")
    assert gateway.state.failure is not None


ENGINE = """
class CommonParams:
    class model:
        path = ""

class Server:
    listening_address = "http://127.0.0.1:9"
    def __init__(self, params):
        assert params.port == 0 and params.hostnames == ["127.0.0.1"] and params.api_keys
"""


async def test_one_worker_stands_behind_every_stand_in_and_ends_with_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xllamacpp.py").write_text(ENGINE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    embedded = {"upstream": {"embedded": "smollm2"}}
    gateway = create_app(Settings(state=tmp_path / "state"), router_of(experts_file({"a": embedded, "b": embedded})))
    (worker,) = gateway.state.gateway.workers.values()
    async with gateway.router.lifespan_context(gateway), client(gateway) as http:
        assert worker.url == "http://127.0.0.1:9/v1"
        assert worker.pid is not None
        health = (await http.get("/health")).json()
        assert health["stand_ins"] == ["a", "b"]
        assert "stand-in" in health["note"]
    assert (worker.url, worker.pid) == (None, None)
