"""Launched workers as gateways see them: from a fake owner, and from the real one with a vLLM that only pretends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.workers.protocol import HungWorker, Reread, WorkerState
from tests.fakes.owner import FakeOwner, facts, fake_owner, until
from tests.fakes.upstream import PATIENCE, FakeServer, fake_server
from tests.fakes.vllm_environment import launches, make_environment, none_alive
from tests.integration.conftest import ROOT, Start, metric, serve

LAUNCHED = {"domains": {"general": 0.9}, "upstream": {"launch": {"engine": "vllm"}}, "sleep_after": "10m"}


def experts(**named: dict[str, Any]) -> str:
    return json.dumps({"version": 1, "experts": {name: {"model": f"m-{name}", **spec} for name, spec in named.items()}})


def ask(url: str, model: str = "one") -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server() as made:
        yield made


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[FakeOwner]:
    with fake_owner(tmp_path) as made:
        yield made


def test_a_worker_answers_as_soon_as_its_owner_says_that_it_is_ready(
    start: Start, server: FakeServer, owner: FakeOwner
) -> None:
    server.metrics = "vllm:num_requests_running 3\nvllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.5\n"
    gateway = start(experts(one=LAUNCHED), health_interval=0.05)
    assert ask(gateway.url).status_code == 503
    assert httpx.get(f"{gateway.url}/ready", timeout=PATIENCE).status_code == 503
    owner.tell(facts("one-0", "asleep", since=time.time(), wake_seconds=7.0))
    assert until(lambda: httpx.get(f"{gateway.url}/ready", timeout=PATIENCE).json()["experts"] == {"one": "asleep"})
    assert httpx.get(f"{gateway.url}/ready", timeout=PATIENCE).status_code == 200
    told = httpx.get(f"{gateway.url}/admin/experts", timeout=PATIENCE).json()["one"]
    assert (told["asleep"], told["awake_in"], told["replicas"][0]["worker"]) == (True, 7.0, "asleep")
    owner.tell(facts("one-0", "ready", server.url, api_key="worker-key"))
    assert until(lambda: httpx.get(f"{gateway.url}/ready", timeout=PATIENCE).json()["experts"] == {"one": "ready"})
    assert ask(gateway.url).headers["x-moe-expert"] == "one"
    assert server.headers[-1]["authorization"] == "Bearer worker-key"
    assert until(
        lambda: httpx.get(f"{gateway.url}/admin/experts", timeout=PATIENCE).json()["one"]["replicas"][0]["load"]
    )
    load = httpx.get(f"{gateway.url}/admin/experts", timeout=PATIENCE).json()["one"]["replicas"][0]["load"]
    assert (load["running"], load["waiting"]) == (3, 1)


def test_a_worker_that_hangs_is_its_owner_s_to_end(start: Start, server: FakeServer, owner: FakeOwner) -> None:
    owner.tell(facts("one-0", "ready", server.url))
    server.healthy = False
    start(experts(one=LAUNCHED), health_interval=0.05)
    assert until(lambda: HungWorker("one-0", server.url) in owner.asked)


def test_a_reload_with_new_workers_is_served_at_once_and_they_come_up_later(
    start: Start, server: FakeServer, owner: FakeOwner, tmp_path: Path
) -> None:
    config = tmp_path / "experts.yaml"
    other = {"domains": {"general": 0.5}, "upstream": {"vllm": [server.url]}}
    config.write_text(experts(other=other))
    gateway = start(config.read_text(), config=config)
    assert owner.connections == 0
    config.write_text(experts(other=other, one={**LAUNCHED, "fallbacks": ["other"]}))
    assert httpx.post(f"{gateway.url}/admin/reload", timeout=30).status_code == 200
    assert ask(gateway.url).headers["x-moe-expert"] == "other"
    assert until(lambda: Reread() in owner.asked)
    owner.tell(facts("one-0", "ready", server.url))
    assert until(lambda: ask(gateway.url).headers["x-moe-expert"] == "one")
    config.write_text(experts(other=other))
    assert httpx.post(f"{gateway.url}/admin/reload", timeout=30).status_code == 200
    assert until(lambda: owner.asked.count(Reread()) == 2)


def test_those_who_wait_when_the_file_changes_are_answered_when_the_worker_is_awake(
    start: Start, server: FakeServer, owner: FakeOwner, tmp_path: Path
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    owner.tell(facts("one-0", "asleep", since=time.time(), wake_seconds=5.0))
    config = tmp_path / "experts.yaml"
    config.write_text(experts(one=LAUNCHED))
    gateway = start(config.read_text(), config=config)
    with ThreadPoolExecutor() as threads:
        before = threads.submit(ask, gateway.url)
        assert until(lambda: owner.wants("one") == [1])
        config.write_text(experts(one={**LAUNCHED, "max_in_flight": 9}))
        assert httpx.post(f"{gateway.url}/admin/reload", timeout=30).status_code == 200
        after = threads.submit(ask, gateway.url)
        assert until(lambda: owner.wants("one")[-1] == 2)
        owner.tell(facts("one-0", "ready", server.url))
        assert [before.result().status_code, after.result().status_code] == [200, 200]
    assert until(lambda: owner.wants("one")[-1] == 0)


def test_several_processes_count_what_the_owner_says_once(server: FakeServer, tmp_path: Path) -> None:
    state, config = tmp_path / "state", tmp_path / "experts.yaml"
    config.write_text(experts(one=LAUNCHED))
    with (
        fake_owner(state, facts("one-0", "asleep", since=time.time())) as owner,
        serve("--config", str(config), "--state", str(state), "--processes", "2") as command,
    ):
        assert until(lambda: owner.connections == 2)

        def counted(name: str, **labels: str) -> float:
            return metric(httpx.get(f"{command.url}/metrics", timeout=PATIENCE).text, f"moe_worker_{name}", **labels)

        assert until(lambda: counted("asleep_seconds_total", expert="one") > 0)
        began = time.time()
        owner.tell(facts("one-0", "waking", since=began, asleep_seconds=500.0))
        assert until(lambda: counted("state", state="waking") == 1)
        for wakes in (1, 2, 3):
            owner.tell(
                facts("one-0", "ready", server.url, wakes=wakes, wake_seconds=4.0, restarts=wakes, asleep_seconds=500.0)
            )
            assert until(lambda wakes=wakes: counted("wake_seconds_count") == wakes)  # type: ignore[misc]
        assert counted("wake_seconds_sum", expert="one") == 12
        assert until(lambda: counted("restarts_total", expert="one") == 3)  # the other process may look in between
        assert 300 < counted("asleep_seconds_total") <= 500  # less what it had slept when it was first heard of
        assert counted("state") == counted("state", replica="one-0", state="ready") == 1
        assert ask(command.url).status_code == 200


@contextmanager
def crew(config: Path, state: Path, environment: Path) -> Iterator[None]:
    """`moe-gateway workers up` over an environment with a fake vLLM."""
    command = [sys.executable, "-m", "gateway.cli", "workers", "up", "--config", str(config), "--state", str(state)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "MOE_GATEWAY_VLLM": str(environment)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_two_real_processes_take_turns_on_one_gpu(start: Start, tmp_path: Path) -> None:
    """Stopped and started by the real owner: a request to the one that sleeps has it woken and the other put to sleep."""
    config, environment = tmp_path / "experts.yaml", make_environment(tmp_path / "environment")
    named = {
        name: {
            "domains": {"general": 0.5},
            "upstream": launches({"load": 0.2}, gpus=[0]),
            "sleep_after": "1h",
            "wake_within": "50s",
        }
        for name in ("one", "two")
    }
    config.write_text(experts(**named))
    with crew(config, tmp_path, environment):
        gateway = start(config.read_text(), config=config, health_interval=0.2)
        pool = gateway.state.pool
        assert until(lambda: pool.ready("one") and pool.sleepers.asleep("two"), 30)
        assert ask(gateway.url, "one").headers["x-moe-expert"] == "one"
        answer = ask(gateway.url, "two")
        assert (answer.status_code, answer.headers["x-moe-expert"], answer.headers["x-moe-reason"]) == (
            200,
            "two",
            "pinned",
        )
        assert until(lambda: pool.sleepers.asleep("one"))
        assert ask(gateway.url, "one").headers["x-moe-expert"] == "one"
        assert gateway.settled("moe_worker_wake_seconds_count", 2)
        assert gateway.metric("moe_worker_state", state=str(WorkerState.READY)) == 1
        assert gateway.metric("moe_worker_asleep_seconds_total", expert="two") > 0
    assert none_alive(tmp_path)
