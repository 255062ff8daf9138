"""How a streamed request learns its cost, and who used what: asked of gateways that run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.ledger import urls
from tests.fakes.upstream import PATIENCE, FakeServer, chunk, status, streams
from tests.integration.conftest import Start, experts_yaml, serve

PROMPT = "nobody-else-may-read-this"
BODY = {"model": "one", "messages": [{"role": "user", "content": PROMPT}], "stream": True}
COST = (
    8 * 1.0 + 3 * 0.5 + 4 * 2.0
) / 1e6  # of tests/fakes/upstream.py's usage by tests/integration/conftest.py's prices
KEYS = {"team-a": "key-of-team-a", "team-b": "key-of-team-b"}


def receipt(url: str, request_id: str, key: str = "key-of-team-a") -> httpx.Response:
    """As a client asks for it that polls: the books are closed just after the last byte."""
    until = time.monotonic() + PATIENCE
    while True:
        answer = httpx.get(f"{url}/v1/receipts/{request_id}", headers={"x-api-key": key}, timeout=PATIENCE)
        if answer.status_code == 200 or time.monotonic() > until:
            return answer
        time.sleep(0.05)


def ask(url: str, request_id: str, key: str = "key-of-team-a", **body: Any) -> httpx.Response:
    headers = {"x-api-key": key, "x-request-id": request_id}
    return httpx.post(f"{url}/v1/chat/completions", json={**BODY, **body}, headers=headers, timeout=PATIENCE)


def test_a_streamed_request_learns_its_cost_and_nobody_else_does(
    start: Start, servers: list[FakeServer], tmp_path: Path
) -> None:
    servers[0].behaviour = status(503)
    ledger = urls.in_file(tmp_path / "ledger.db")
    gateway = start(experts_yaml(*servers[:2]), keys=KEYS, admin_key="key-of-admin", ledger=ledger)
    assert "x-moe-cost-usd" not in ask(gateway.url, "stream-1").headers
    answer = receipt(gateway.url, "stream-1")
    told = answer.json()
    assert told["cost"]["usd"] == pytest.approx(COST, abs=1e-12)
    assert told["usage"] == {"input": 8, "cached_input": 3, "output": 4, "reasoning": 0}
    assert [(a["replica"], a["outcome"]) for a in told["attempts"]] == [("one-0", "server_error"), ("two-0", "ok")]
    assert (told["decision"]["expert"], told["decision"]["reason"], told["stream"]) == ("two", "fallback", True)
    assert 0 < told["timings"]["ttft"] <= told["timings"]["seconds"]
    for secret in (PROMPT, "key-of", "127.0.0.1", str(servers[0].port)):
        assert secret not in answer.text
    others = httpx.get(f"{gateway.url}/v1/receipts/stream-1", headers={"x-api-key": "key-of-team-b"}, timeout=PATIENCE)
    unknown = httpx.get(f"{gateway.url}/v1/receipts/stream-2", headers={"x-api-key": "key-of-team-b"}, timeout=PATIENCE)
    assert (others.status_code, others.content) == (404, unknown.content)


def test_who_leaves_has_a_receipt_all_the_same(start: Start, servers: list[FakeServer]) -> None:
    servers[0].behaviour = streams(*[chunk({"content": "x"})] * 200, pause=0.05)
    gateway = start(experts_yaml(servers[0]))
    with httpx.stream(
        "POST", f"{gateway.url}/v1/chat/completions", json=BODY, headers={"x-request-id": "left"}, timeout=PATIENCE
    ) as answer:
        pieces = answer.iter_raw()
        assert next(pieces)
        running = httpx.get(f"{gateway.url}/v1/receipts/left", timeout=PATIENCE)
        assert (running.status_code, running.json()["error"]["code"]) == (404, "receipt_not_found")
    told = receipt(gateway.url, "left").json()
    assert (told["outcome"], told["status"], told["usage"]) == ("cancelled", 499, None)


@pytest.mark.timeout(300)  # two processes start, on whatever machine
def test_of_several_processes_any_tells_of_what_another_served_and_the_figures_are_those_of_all(
    servers: list[FakeServer], tmp_path: Path
) -> None:
    config = tmp_path / "experts.yaml"
    config.write_text(experts_yaml(servers[0]), "utf-8")
    environment = {
        "MOE_GATEWAY_KEYS": "team-a:key-of-team-a,=1+1:key-of-team-b",
        "MOE_GATEWAY_ADMIN_KEY": "key-of-admin",
    }
    arguments = ("--config", str(config), "--state", str(tmp_path / "state"), "--processes", "2")
    with serve(*arguments, environment=environment) as command:
        for number in range(8):
            ask(command.url, f"r{number}", "key-of-team-b" if number < 4 else "key-of-team-a")
        for number in range(4, 8):  # every one over a connection of its own, to whichever process takes it
            told = receipt(command.url, f"r{number}").json()
            assert told["cost"]["usd"] == pytest.approx(COST, abs=1e-12)
            assert (told["decision"]["why"]["chosen"], told["decision"]["why"]["policy"]) == ("one", None)
        assert receipt(command.url, "r0", "key-of-team-b").json()["caller"] == "=1+1"
        admin = {"x-api-key": "key-of-admin"}
        until = time.monotonic() + PATIENCE
        while True:  # the last one is written half a second after it ended
            answer = httpx.get(f"{command.url}/admin/usage?by=key&since=1h", headers=admin, timeout=PATIENCE)
            told = answer.json()
            if told.get("total", {}).get("requests") == 8 or time.monotonic() > until:
                break
            time.sleep(0.1)
        assert [(row["group"]["key"], row["requests"]) for row in told["rows"]] == [("=1+1", 4), ("team-a", 4)]
        assert told["total"]["cost_usd"] == pytest.approx(8 * COST, abs=1e-9)
        # The command reads beside the gateway that writes.
        printed = CliRunner().invoke(app, ["usage", "--state", str(tmp_path / "state"), "--json", "--by", "key"])
        assert json.loads(printed.stdout)["rows"] == told["rows"]
