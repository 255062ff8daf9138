"""GET /v1/catalog."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.routes.catalog import ASKED
from gateway.settings import Settings
from gateway.state import GatewayState
from router.cataloguing import listing
from router.cataloguing.catalog import Catalog, load_catalog
from router.cataloguing.words import PRECISIONS
from tests.fakes.memory import experts_file, router_of


async def get(query: str = "", headers: Mapping[str, str] | None = None, **settings: Any) -> httpx.Response:
    app = create_app(Settings(**settings), router_of(experts_file({"general": {}})))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        answer = await http.get(f"/v1/catalog{query}", headers=dict(headers or {}))
    state: GatewayState = app.state.gateway
    state.decider.close()
    return answer


async def test_every_model_is_told() -> None:
    answer = await get()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert document["object"] == "list"
    assert sorted(one["id"] for one in document["data"]) == sorted(load_catalog().models)


async def test_it_takes_the_filters_of_the_command() -> None:
    answer = await get("?task=code&task=tools&license=permissive&max_gb=80&precision=4bit&sort=size&min_context=32768")
    found = [one["id"] for one in answer.json()["data"]]
    models = load_catalog()
    said = {"task": ["code", "tools"], "license": "permissive", "max_gb": "80", "precision": "4bit", "sort": "size"}
    wanted = listing.Wanted.read({**said, "min_context": "32768"}, models)
    assert found == [one.key for one in listing.listed(models, wanted)]
    assert found


@pytest.mark.parametrize(
    ("query", "param", "told"),
    [
        ("?task=bi", "task", "did you mean bio?"),
        ("?max_gb=much", "max_gb", "write a number of GB such as 24"),
        ("?max_gb=", "max_gb", "write a number of GB such as 24"),
        ("?sort=name&sort=size", "sort", "sort is asked for twice"),
        ("?licence=mit", "licence", "There is no filter 'licence'; did you mean license?"),
        ("?x=1", "x", "there are task, license, max_gb"),
        (f"?{'x' * 5000}=1", "x" * 40, "There is no filter"),
        ("?language=%F0%9F%90%88", "language", "write its two letters"),
        ("?family=%00%1b", "family", "family is not '\\x00\\x1b'"),
    ],
)
async def test_a_wrong_filter_is_400_in_openai_s_shape(query: str, param: str, told: str) -> None:
    answer = await get(query)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, "invalid_request")
    assert told in error["message"]


async def test_it_takes_a_key_like_all_of_v1() -> None:
    assert (await get(keys={"team": "k"})).status_code == 401
    assert (await get(headers={"authorization": "Bearer k"}, keys={"team": "k"})).status_code == 200


def test_it_is_described_with_each_filter() -> None:
    described = create_app(Settings(), router_of(experts_file({"general": {}}))).openapi()["paths"]["/v1/catalog"][
        "get"
    ]
    names = {parameter["name"]: parameter for parameter in described["parameters"]}
    assert tuple(names) == tuple(ASKED) == listing.FILTERS
    assert names["sort"]["schema"]["enum"] == list(listing.SORTS)
    assert names["precision"]["schema"]["enum"] == list(PRECISIONS)


async def test_others_are_answered_while_the_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, had_its_turn, read = asyncio.get_running_loop(), threading.Event(), load_catalog

    def slow() -> Catalog:
        loop.call_soon_threadsafe(had_its_turn.set)
        assert had_its_turn.wait(5), "the event loop waits for the file"
        return read()

    monkeypatch.setattr("router.cataloguing.catalog.load_catalog", slow)
    assert (await get()).status_code == 200


def test_the_gateway_starts_without_the_catalogue() -> None:
    import subprocess

    script = "import sys, gateway.app; sys.exit(any(name.startswith('router.cataloguing.') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
