"""Several LoRA specialists on one vLLM worker, over real sockets: adapters come and go with experts.yaml."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import generation
from tests.fakes.adapters import Worker, worker_server
from tests.integration.conftest import Start

PATIENCE = 30.0


@pytest.fixture
def worker() -> Worker:
    return Worker(folders={"/lora/sql": 8, "/lora/math": 8, "/lora/big": 16})


@pytest.fixture
def url(worker: Worker) -> Iterator[str]:
    with worker_server(worker) as url:
        yield url


@pytest.fixture(autouse=True)
def _settles_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "SETTLE_SECONDS", 0.05)


def experts(url: str, **adapters: Any) -> str:
    """A general expert, and one for each adapter, with the general one behind it."""
    entries: dict[str, Any] = {"general": {"model": "base", "domains": ["general"], "upstream": {"vllm": [url]}}}
    for name, adapter in adapters.items():
        upstream = {"vllm": [url], "adapter": adapter}
        entries[name] = {"model": "base", "domains": ["code"], "upstream": upstream, "fallbacks": ["general"]}
    return json.dumps({"version": 1, "experts": entries})


def at(name: str, path: str = "") -> dict[str, str]:
    return {"name": name, "path": path or f"/lora/{name}"}


def ask(gateway_url: str, model: str) -> tuple[str, str]:
    """Who answered, and what its model is called at the worker."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    response = httpx.post(f"{gateway_url}/v1/chat/completions", json=body, timeout=PATIENCE)
    assert response.status_code == 200, response.text
    return response.headers["x-moe-expert"], response.json()["choices"][0]["message"]["content"]


def reload(gateway_url: str) -> None:
    assert httpx.post(f"{gateway_url}/admin/reload", timeout=PATIENCE).status_code == 200


def served(gateway_url: str) -> dict[str, str]:
    told = httpx.get(f"{gateway_url}/admin/experts", timeout=PATIENCE).json()
    return {replica["name"]: replica["served"] for expert in told.values() for replica in expert["replicas"]}


def until(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


def test_adapters_come_and_go_with_the_file(start: Start, worker: Worker, url: str, tmp_path: Path) -> None:
    config = tmp_path / "experts.yaml"
    config.write_text(experts(url, sql=at("sql")), "utf-8")
    gateway = start(config.read_text("utf-8"), config=config)
    assert ask(gateway.url, "sql") == ("sql", "sql")
    assert ask(gateway.url, "general") == ("general", "base")
    config.write_text(experts(url, math=at("math")), "utf-8")
    reload(gateway.url)
    assert ask(gateway.url, "math") == ("math", "math")
    assert served(gateway.url) == {"general-0": "ok", "math-0": "ok"}
    assert until(lambda: worker.adapters == {"math": "/lora/math"})
    assert worker.told == ["load sql /lora/sql", "load math /lora/math", "unload sql"]


def test_an_adapter_that_the_worker_refuses_is_told_everywhere_and_its_fallback_answers(
    start: Start, worker: Worker, url: str
) -> None:
    gateway = start(experts(url, big=at("big")))
    assert ask(gateway.url, "big") == ("general", "base")
    why = "adapter missing: big; LoRA rank 16 is greater than max_lora_rank 8."
    assert served(gateway.url)["big-0"] == why
    assert gateway.metric("moe_expert_mismatch", expert="big") == 1
    assert gateway.metric("moe_expert_mismatch", expert="general") == 0
    assert gateway.metric("moe_replica_state", expert="big", state="lacking") == 1
    assert gateway.metric("moe_replica_up", expert="big") == 0
    assert worker.generated == ["base"]  # it was not even asked for the other


def test_a_worker_that_comes_back_has_its_adapters_loaded_again(start: Start, worker: Worker, url: str) -> None:
    gateway = start(experts(url, sql=at("sql")), health_interval=0.05)
    worker.up = False
    assert until(lambda: gateway.metric("moe_replica_up", expert="sql") == 0)
    worker.adapters.clear()
    worker.up = True
    assert until(lambda: gateway.metric("moe_replica_up", expert="sql") == 1)
    assert until(lambda: worker.adapters == {"sql": "/lora/sql"})
    assert until(lambda: ask(gateway.url, "sql") == ("sql", "sql"))
    assert worker.told == ["load sql /lora/sql"] * 2


def test_one_that_somebody_unloads_is_refused_once_and_loaded_again(start: Start, worker: Worker, url: str) -> None:
    gateway = start(experts(url, sql=at("sql")), health_interval=0.05)
    worker.adapters.clear()
    assert ask(gateway.url, "sql")[1] in ("base", "sql")  # the fallback's, unless it was loaded again meanwhile
    assert until(lambda: ask(gateway.url, "sql") == ("sql", "sql"))
