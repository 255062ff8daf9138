"""GET /admin/usage: the ledger's figures, to the admin alone, and a clear word to whoever asks for nonsense."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.app import create_app
from gateway.ledger import urls
from gateway.ledger.database import connected, migrate
from gateway.ledger.tables import requests
from gateway.routes import usage
from gateway.routes.usage import ABOUT
from gateway.settings import Settings
from tests.fakes.ledgers import row
from tests.fakes.memory import experts_file, router_of

KEYS = ["team-a", "team-a", "=1+1"]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three requests of today."""
    url = urls.in_file(tmp_path_factory.mktemp("ledger") / "ledger.db")
    engine = connected(url)
    migrate(engine)
    now = datetime.now(UTC)
    with engine.begin() as connection:
        connection.execute(requests.insert(), [row(i, at=now, caller=key) for i, key in enumerate(KEYS)])
    engine.dispose()
    return url


@asynccontextmanager
async def client(ledger: str | None) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(admin_key="key-of-admin", ledger=ledger), router_of(experts_file({"general": {}})))
    headers = {"authorization": "Bearer key-of-admin"}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080", headers=headers) as made:
        yield made
    if app.state.lookups:
        app.state.lookups.close()
    app.state.gateway.decider.close()


async def get(ledger: str | None, query: Any = "", **headers: str) -> httpx.Response:
    async with client(ledger) as http:
        return await http.get("/admin/usage", params=query, headers=headers)


async def test_the_figures_are_told_as_json_and_as_csv_to_the_admin_alone(ledger: str) -> None:
    told = (await get(ledger, {"by": "key,day", "since": "2d", "tz": "Europe/Berlin"})).json()
    assert [(line["group"]["key"], line["requests"]) for line in told["rows"]] == [("=1+1", 1), ("team-a", 2)]
    assert (told["total"]["requests"], told["total"]["cost_usd"], told["total"]["savings_usd"]) == (3, 0.75, 0.75)
    text = await get(ledger, {"by": "key", "format": "csv"})
    assert text.headers["content-type"] == "text/csv; charset=utf-8"
    assert [line["key"] for line in csv.DictReader(io.StringIO(text.text))] == ["team-a", "'=1+1"]
    assert (await get(ledger, authorization="Bearer other")).status_code == 401


async def test_what_is_asked_for_may_be_kept_to_some(ledger: str) -> None:
    async with client(ledger) as http:
        counts = [
            (await http.get("/admin/usage", params=query)).json()["total"]["requests"]
            for query in ({"key": "=1+1"}, {"key": ["=1+1", "team-a"]}, {"expert": "general"}, {"until": "1h"})
        ]
    assert counts == [1, 3, 0, 0]


@pytest.mark.parametrize(
    ("query", "param", "told"),
    [
        ({"by": "prompt"}, "by", "there is no group 'prompt'"),
        ({"since": "yesterday"}, "since", "write a time ago"),
        ({"tz": "/etc/passwd"}, "tz", "Europe/Berlin"),
        ({"format": "xml"}, "format", "json or csv"),
        ({"form": "csv"}, "form", "did you mean format?"),
        ({"by": ["day", "key"]}, "by", "twice"),
        ({"key": "a\0"}, "key", "printable"),
    ],
)
async def test_nonsense_is_a_bad_request_that_names_it(ledger: str, query: Any, param: str, told: str) -> None:
    answer = await get(ledger, query)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert told in error["message"]


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from([*ABOUT, "x"]), st.text(max_size=20)), max_size=4))
async def test_whatever_is_asked_is_answered_or_a_bad_request(ledger: str, query: list[tuple[str, str]]) -> None:
    assert (await get(ledger, [(name, text.encode("utf-8", "replace")) for name, text in query])).status_code in (
        200,
        400,
    )


async def test_more_rows_than_fit_are_refused(ledger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MOST_ROWS", 1)
    answer = await get(ledger, {"by": "key"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "by")
    assert (await get(ledger, {"by": "expert"})).status_code == 200


async def test_no_ledger_and_one_that_is_away_are_told(tmp_path: Path) -> None:
    answer = await get(None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_ledger")
    answer = await get("postgresql://moe:s3cret@127.0.0.1:1/ledger")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ledger_unavailable")
    assert "retry-after" in answer.headers
    assert "s3cret" not in answer.text
    assert "127.0.0.1" not in answer.text
