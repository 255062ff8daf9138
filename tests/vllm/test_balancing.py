"""Real vLLM workers' own figures, as the balancer reads them, and what it makes of them."""

from __future__ import annotations

from contextlib import ExitStack

import httpx
import pytest

from gateway.health import HealthLoop
from gateway.pool import Pool
from gateway.upstreams.openai import OpenAIUpstream
from tests.fakes.memory import experts_file
from tests.vllm.launching import Launched, Worker, wait_for

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
STORY = {
    "model": "smollm2",
    "messages": [{"role": "user", "content": "Write a very long story."}],
    "stream": True,
    "max_tokens": 1500,
    "ignore_eos": True,
}
BUSY = 4  # requests of others at one worker
ASKED = 8  # of the gateway
TRIES = 10


async def test_what_others_ask_of_a_worker_is_read_from_its_metrics(
    specialists: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = specialists.worker("coder-0")
    monkeypatch.setenv("WORKERS_KEY", worker.api_key)
    file = experts_file({"coder": {"upstream": {"vllm": [worker.url], "api_key": "${WORKERS_KEY}"}}})
    pool, upstream = Pool(file, {}), OpenAIUpstream()
    (replica,) = pool.all()
    health = HealthLoop(upstream, [replica], interval=60)
    await upstream.start()
    try:
        for _ in range(TRIES):  # a probe that a busy machine is late with tells nothing
            await health.probe()
            if replica.load is not None:
                break
        assert replica.load is not None
        assert (replica.load.running, replica.load.waiting, replica.load_others) == (0, 0, 0)
        assert replica.load.process is not None
        async with (
            httpx.AsyncClient(timeout=60, headers=worker.headers) as client,
            client.stream("POST", f"{worker.url}/chat/completions", json=STORY) as response,
        ):
            await anext(response.aiter_bytes())
            await health.probe()
            assert (replica.load.running, replica.load_others) == (1, 1)
            assert 0 < replica.load.cache < 1
        assert worker.settles_at("vllm:num_requests_running", 0)
    finally:
        await upstream.close()


def test_a_worker_that_others_keep_busy_gets_fewer(specialists: Launched) -> None:
    busy, free = (specialists.worker(f"coder-{i}") for i in range(2))
    specialists.up_in_gateway("coder")
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=60, headers=busy.headers))
        streams = []  # held: a response is closed with its stream
        for _ in range(BUSY):
            response = stack.enter_context(client.stream("POST", f"{busy.url}/chat/completions", json=STORY))
            streams.append(response.iter_bytes())
            next(streams[-1])

        def known() -> bool:
            loads = [replica["load"] for replica in specialists.seen_by_gateway("coder")]
            return BUSY in [load and load["running"] for load in loads]

        wait_for("the gateway to know what others ask", known, specialists.log)
        before = {worker.name: ended(worker) for worker in (busy, free)}
        for i in range(ASKED):
            messages = [{"role": "user", "content": f"{i} times {i + 1} is what?"}]
            body = {"model": "coder", "messages": messages, "max_tokens": 2}
            assert httpx.post(f"{specialists.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
        got = {worker.name: ended(worker) - before[worker.name] for worker in (busy, free)}
    assert sum(got.values()) == ASKED
    assert got[busy.name] < got[free.name]
    assert busy.settles_at("vllm:num_requests_running", 0)


def ended(worker: Worker) -> float:
    return worker.metric("vllm:request_success_total", finished_reason="length")
