"""Money, end to end: what a request is charged, and what /metrics says it came to."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from gateway.generation import Generation
from gateway.metrics import Metrics
from gateway.settings import Settings
from gateway.workers.link import Link
from tests.fakes.memory import experts_file, router_of
from tests.fakes.upstream import PATIENCE, USAGE, FakeServer, status, well
from tests.integration.conftest import Running, Start, metric

TOKENS = {"input": 8, "cached_input": 3, "output": 4}  # of every answer
SAME = dict.fromkeys(("code", "math", "bio", "general"), 0.5)


def experts(server: FakeServer, extra: Mapping[str, Any] | None = None, **prices: Mapping[str, Any]) -> str:
    """Experts of these names and prices, all at one server."""
    entries = {
        name: {"model": name, "domains": SAME, "upstream": {"vllm": [server.url]}, "price": price}
        for name, price in prices.items()
    }
    return json.dumps({"version": 1, **(extra or {}), "experts": entries})


def ask(gateway: Running, model: str = "one", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **more.pop("body", {})}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=PATIENCE, **more)


def usd(price: Mapping[str, float], times: int = 1) -> float:
    return times * sum(TOKENS[kind] * price.get(kind, price["input"]) for kind in TOKENS) / 1e6


def scraped(gateway: Running) -> str:
    return httpx.get(f"{gateway.url}/metrics", timeout=PATIENCE).text


def settled(gateway: Running, requests: int) -> str:
    """/metrics, asked when so many requests are counted: what was counted while it was written would be there in part."""
    until = time.monotonic() + PATIENCE
    while metric(scraped(gateway), "moe_requests_total") < requests and time.monotonic() < until:
        time.sleep(0.02)
    return scraped(gateway)


def reload(gateway: Running, config: Path, text: str) -> None:
    config.write_text(text, "utf-8")
    response = httpx.post(f"{gateway.url}/admin/reload", timeout=PATIENCE)
    assert response.status_code == 200, response.text


def test_a_request_is_charged_by_the_prices_that_were_in_force_when_it_was_decided(
    start: Start, servers: list[FakeServer], tmp_path: Path
) -> None:
    assert USAGE["prompt_tokens"] == TOKENS["input"] + TOKENS["cached_input"]
    cheap, dear = {"input": 1.0, "cached_input": 0.5, "output": 2.0}, {"input": 100.0, "output": 200.0}
    go = threading.Event()

    async def when_told(server: FakeServer, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        await asyncio.to_thread(go.wait, PATIENCE)
        return await well(server, request, body)

    servers[0].behaviour = when_told
    config = tmp_path / "experts.yaml"
    gateway = start(experts(servers[0], one=cheap), config=config)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        before = threads.submit(ask, gateway)
        assert servers[0].wait_until_asked()
        reload(gateway, config, experts(servers[0], one=dear))
        servers[0].behaviour = well
        after = ask(gateway)
        go.set()
        assert float(before.result().headers["x-moe-cost-usd"]) == pytest.approx(usd(cheap), abs=1e-8)
    assert float(after.headers["x-moe-cost-usd"]) == pytest.approx(usd(dear), abs=1e-8)
    text = settled(gateway, 2)
    assert metric(text, "moe_cost_usd_total", expert="one") == pytest.approx(usd(cheap) + usd(dear), abs=1e-9)


def test_savings_come_net_of_what_routing_costs_with_the_share_that_they_cover(
    start: Start, servers: list[FakeServer]
) -> None:
    cheap, dear, ours = ({"input": i, "cached_input": i, "output": i} for i in (1.0, 10.0, 4.0))
    extra = {"baseline": {"name": "ours", **ours}, "router": {"cpu_hour": 36.0}}
    entries = json.loads(experts(servers[0], extra, one=cheap, two=dear))
    entries["experts"]["free"] = {**entries["experts"]["one"], "model": "free", "price": None}
    keys = {"team-a": "key-a", "team-b": "key-b"}
    gateway = start(json.dumps(entries), keys=keys)
    asked = [("one", "key-a"), ("one", "key-a"), ("two", "key-b"), ("free", "key-b")]
    for model, key in asked:
        response = ask(gateway, model, headers={"authorization": f"Bearer {key}"})
        assert response.status_code == 200
        assert ("x-moe-cost-usd" in response.headers) == (model != "free")
    routed = ask(gateway, "auto", headers={"x-api-key": "key-b"})
    assert routed.headers["x-moe-expert"] == "one"  # of equals the cheapest
    text = settled(gateway, 5)

    def told(name: str, **labels: str) -> float:
        return metric(text, f"moe_{name}_total", **labels)

    paid = usd(cheap, 3) + usd(dear)
    assert told("baseline_cost_usd", baseline="ours") == pytest.approx(usd(ours, 4), abs=1e-9)
    assert told("baseline_cost_usd", baseline="dearest") == pytest.approx(usd(dear, 4), abs=1e-9)
    assert told("compared_cost_usd", baseline="ours") == told("compared_cost_usd", baseline="dearest")
    assert told("compared_cost_usd", baseline="ours") == pytest.approx(paid, abs=1e-9)
    assert (told("compared_requests", baseline="ours"), told("comparable_requests")) == (4, 5)
    classifier = told("routing_cost_usd", part="classifier")
    assert classifier > 0
    assert classifier == pytest.approx(metric(text, "moe_routing_duration_seconds_sum") * 36.0 / 3600)
    # Dearer than the baseline on the whole: shown as it is.
    assert usd(ours, 4) - paid > 0 > usd(ours) - usd(dear)
    assert told("key_cost_usd", key="team-a") == pytest.approx(usd(cheap, 2), abs=1e-9)
    assert told("key_cost_usd", key="team-b") == pytest.approx(usd(cheap) + usd(dear), abs=1e-9)
    assert told("unpriced_requests", expert="free") == 1


def test_a_conversation_that_changes_its_expert_loses_what_the_other_had_in_its_cache(
    start: Start, servers: list[FakeServer]
) -> None:
    price = {"input": 3.0, "cached_input": 1.0, "output": 5.0}
    entries = json.loads(experts(servers[0], coder=price, biologist=price))
    entries["experts"]["coder"]["domains"] = {"code": 0.95, "general": 0.5}
    entries["experts"]["biologist"]["domains"] = {"bio": 0.95}
    gateway = start(json.dumps(entries))
    code = "Write a Python function that sorts a list of dictionaries by a key, with type hints and a unit test."
    turns = [
        {"role": "user", "content": code},
        {"role": "assistant", "content": "def by_key(rows, key):\n    return sorted(rows, key=lambda row: row[key])"},
        {
            "role": "user",
            "content": "How do mitochondria produce ATP, and which enzymes of the electron chain pump protons?",
        },
    ]
    first = ask(gateway, "auto", body={"messages": turns[:1]})
    second = ask(gateway, "auto", body={"messages": turns})
    assert (first.headers["x-moe-expert"], second.headers["x-moe-expert"]) == ("coder", "biologist")
    assert second.headers["x-moe-switched"] == "topic"
    lost = metric(settled(gateway, 2), "moe_routing_cost_usd_total", part="lost_cache")
    assert lost == pytest.approx(TOKENS["input"] * (3.0 - 1.0) / 1e6, abs=1e-12)


def test_gpu_hours_pass_busy_or_idle_and_another_price_counts_from_the_reload_on(
    start: Start, servers: list[FakeServer], tmp_path: Path
) -> None:
    a_second = {"gpu_hour": 1800.0, "gpus": 2}  # 1 USD for each
    config = tmp_path / "experts.yaml"
    watts = {"watts": 3600, "gco2e_per_kwh": 500}
    entries = json.loads(experts(servers[0], one=a_second, two={"input": 1.0, "output": 1.0}))
    entries["experts"]["one"] |= {"energy": watts, "fallbacks": ["two"]}
    entries["experts"]["two"]["upstream"] = {"vllm": [servers[1].url]}
    began = time.monotonic()
    gateway = start(json.dumps(entries), config=config)
    for _ in range(3):
        response = ask(gateway)
        assert (response.status_code, "x-moe-cost-usd" in response.headers) == (200, False)
    servers[0].behaviour = status(500)
    assert ask(gateway).headers["x-moe-expert"] == "two"  # one's time is paid for all the same
    text = settled(gateway, 4)

    def told(name: str, **labels: str) -> float:
        return metric(text, f"moe_{name}_total", **labels)

    capacity, idle = told("capacity_cost_usd", expert="one"), told("capacity_idle_cost_usd", expert="one")
    two = told("cost_usd", expert="two")
    assert told("cost_usd", expert="one") == 0
    assert 0 < idle < capacity <= time.monotonic() - began
    # What requests are estimated at is the part that was not idle; so are energy and emissions.
    assert told("key_cost_usd", key="anonymous") - two == pytest.approx(capacity - idle, abs=1e-6)
    assert told("energy_wh", expert="one") == pytest.approx(capacity - idle, abs=1e-6)
    assert told("emissions_gco2e", expert="one") == pytest.approx(told("energy_wh") / 1000 * 500)
    assert told("unpriced_requests") == 0

    entries["experts"]["one"]["price"] = {"gpu_hour": 0.0}
    reload(gateway, config, json.dumps(entries))
    at_the_swap = metric(scraped(gateway), "moe_capacity_cost_usd_total", expert="one")
    assert capacity < at_the_swap <= time.monotonic() - began
    assert metric(scraped(gateway), "moe_capacity_cost_usd_total", expert="one") == at_the_swap


@pytest.mark.parametrize(("share", "counts"), [((0, 2), True), ((1, 2), False)])
async def test_of_several_processes_one_counts_the_hours(
    servers: list[FakeServer], tmp_path: Path, share: tuple[int, int], counts: bool
) -> None:
    upstream = {"vllm": [servers[0].url]}
    file = experts_file({"one": {"upstream": upstream, "price": {"gpu_hour": 3.6}}})
    metrics = Metrics()
    settings = Settings(config=tmp_path / "experts.yaml", state=tmp_path, health_interval=3600.0)
    generation = Generation(settings, router_of(file), metrics, {}, Link(tmp_path), share)
    try:
        await generation.start()
        metrics.refresh()
        text = metrics.exposition()[0].decode()
    finally:
        await generation.close()
    assert (metric(text, "moe_capacity_cost_usd_total", expert="one") > 0) == counts


def test_what_a_decision_weighs_of_an_hourly_expert_is_told_as_an_estimate(
    start: Start, servers: list[FakeServer]
) -> None:
    text = experts(servers[0], one={"gpu_hour": 3.6}, two={"input": 5.0, "output": 5.0})
    gateway = start(text)
    decided = httpx.post(f"{gateway.url}/v1/route", json={"input": "Why is the sky blue?"}, timeout=PATIENCE).json()
    assert decided["expert"] == "one"
    told = {e["id"]: (e["price"], e["price_estimated"]) for e in decided["experts"]}
    assert told == {"one": (pytest.approx(1.0), True), "two": (5.0, False)}
    dear = ask(gateway, "one", headers={"x-moe-max-cost-usd": "100"})
    assert dear.status_code == 400
    assert "by the token" in dear.json()["error"]["message"]
