"""GET /v1/receipts/{request id}: each caller's own, from memory or from the ledger, and the admin's everyone's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.app import Gateway, create_app
from gateway.ledger import urls
from gateway.ledger.database import connected, migrate
from gateway.ledger.tables import requests
from gateway.settings import Settings
from tests.fakes.ledgers import row
from tests.fakes.memory import experts_file, router_of

FILE = experts_file({"coder": {"domains": {"code": 0.9}}, "general": {"capabilities": ["vision"]}})
KEYS = {"team-a": "key-a", "team-b": "key-b"}
Client = httpx.AsyncClient


@asynccontextmanager
async def client(ledger: str | None = None, keys: dict[str, str] = KEYS) -> AsyncIterator[tuple[Client, Gateway]]:
    """Without its lifespan: nothing is written into the ledger."""
    app = create_app(Settings(keys=keys, admin_key="key-of-admin", ledger=ledger), router_of(FILE))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as made:
        yield made, app
    if app.state.lookups:
        app.state.lookups.close()
    app.state.gateway.decider.close()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def post(http: Client, request_id: str, key: str = "key-a", body: object = None) -> None:
    headers = bearer(key) | {"x-request-id": request_id}
    await http.post("/v1/route", json=body or {"input": "code"}, headers=headers)


async def get(http: Client, path: str, key: str = "key-a") -> httpx.Response:
    return await http.get(path, headers=bearer(key))


@pytest.fixture
def ledger(tmp_path: Path) -> Callable[..., str]:
    """ledger(rows…) is the URL of one with these rows."""

    def filled(*rows: dict[str, object]) -> str:
        url = urls.in_file(tmp_path / "ledger.db")
        engine = connected(url)
        migrate(engine)
        with engine.begin() as connection:
            connection.execute(requests.insert(), list(rows))
        engine.dispose()
        return url

    return filled


async def test_a_caller_has_its_own_and_the_admin_everyones() -> None:
    async with client() as (http, _):
        await post(http, "r1")
        mine = await get(http, "/v1/receipts/r1")
        assert (mine.status_code, mine.headers["cache-control"]) == (200, "no-store")
        assert (mine.json()["caller"], mine.json()["decision"]["expert"]) == ("team-a", "coder")
        assert (await get(http, "/admin/receipts/r1", "key-of-admin")).json() == mine.json()
        assert (await get(http, "/admin/receipts/r1", "key-a")).status_code == 401
        assert (await get(http, "/v1/receipts/r1", "key-of-admin")).status_code == 401
        assert (await http.get("/v1/receipts/r1")).status_code == 401


async def test_others_unknown_ones_and_impossible_ones_are_told_alike(ledger: Callable[..., str]) -> None:
    async with client(ledger(row(1, id="r2", caller="team-b"))) as (http, _):
        await post(http, "r1", "key-b")
        answers = [await get(http, f"/v1/receipts/{name}") for name in ("r1", "r2", "r3", "x" * 129, "a%00b", "%C3%A9")]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json()["error"]["code"] == "receipt_not_found"


async def test_of_one_id_used_twice_the_latest_of_the_callers_own_is_told() -> None:
    async with client() as (http, _):
        await post(http, "r1", "key-a")
        await post(http, "r1", "key-a", {"input": 5})
        await post(http, "r1", "key-b")
        assert (await get(http, "/v1/receipts/r1", "key-a")).json()["status"] == 400
        assert (await get(http, "/v1/receipts/r1", "key-b")).json()["status"] == 200
        assert (await get(http, "/admin/receipts/r1", "key-of-admin")).json()["caller"] == "team-b"


async def test_with_no_keys_everyone_is_anonymous() -> None:
    async with client(keys={}) as (http, _):
        await post(http, "r1")
        assert (await http.get("/v1/receipts/r1")).json()["caller"] == "anonymous"


async def test_what_another_process_served_is_in_the_ledger(ledger: Callable[..., str]) -> None:
    async with client(ledger(row(1, id="r1", seconds=2.0, ttft=0.5))) as (http, _):
        told = (await get(http, "/v1/receipts/r1")).json()
        assert (await get(http, "/admin/receipts/r1", "key-of-admin")).json() == told
    assert told["cost"] == {
        "usd": 0.25, "estimated_usd": None, "baseline_usd": 0.5, "dearest_usd": 1.0, "saved_usd": 0.25
    }  # fmt: skip
    assert told["timings"] == {"seconds": 2.0, "ttft": 0.5, "overhead": 0.75}
    decision = told["decision"]  # of a row from before it was kept why
    assert (decision["probabilities"], decision["why"], decision["confidence"]) == (None, None, 0.9)
    assert (told["finished_at"], told["started_at"]) == ("2026-03-04T05:06:07Z", "2026-03-04T05:06:05Z")


async def test_it_says_what_the_decision_was_made_from() -> None:
    async with client() as (http, _):
        picture = [{"type": "text", "text": "code"}, {"type": "image_url", "image_url": {"url": "data:"}}]
        await post(http, "r1", body={"messages": [{"role": "user", "content": picture}], "model": "auto:cheap"})
        await post(http, "r2", body={"input": "code", "model": "coder"})
        routed = (await get(http, "/v1/receipts/r1")).json()["decision"]
        pinned = (await get(http, "/v1/receipts/r2")).json()["decision"]
    assert routed["probabilities"]["code"] == routed["confidence"]
    why = routed["why"]
    kept_to = ("chosen", "policy", "tolerance", "confidence_floor", "fallback")
    assert [why[name] for name in kept_to] == ["general", "auto:cheap", 0.1, 0.55, "general"]
    assert {e["id"]: (e["cause"], e["refused"]) for e in why["experts"]} == {
        "coder": ("capability", "cannot do vision"), "general": (None, None)
    }  # fmt: skip
    assert next(e["expected_quality"] for e in why["experts"] if e["id"] == "general") > 0
    assert (pinned["why"]["chosen"], pinned["why"]["policy"], pinned["probabilities"]) == ("coder", None, None)


async def test_without_a_ledger_the_error_says_so_and_a_broken_one_is_a_matter_of_time(tmp_path: Path) -> None:
    broken = tmp_path / "ledger.db"
    broken.write_bytes(b"no database" * 100)
    async with client() as (http, _):
        await post(http, "r1")
        assert "keeps no ledger" in (await get(http, "/v1/receipts/r2")).json()["error"]["message"]
    async with client(urls.in_file(broken)) as (http, _):
        await post(http, "r1")
        assert (await get(http, "/v1/receipts/r1")).status_code == 200
        answer = await get(http, "/v1/receipts/r2")
        assert (
            await get(http, "/v1/receipts/a%00b")
        ).status_code == 404  # no request has such an id: nothing is looked up
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["error"]["code"] == "ledger_unavailable"
    assert str(tmp_path) not in answer.text
