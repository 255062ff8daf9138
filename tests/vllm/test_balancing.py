"""A real vLLM worker's own figures, as the balancer reads them."""

from __future__ import annotations

import httpx
import pytest

from gateway.health import HealthLoop
from gateway.pool import Pool
from gateway.upstreams.openai import OpenAIUpstream
from tests.fakes.memory import experts_file
from tests.vllm.conftest import VllmWorker

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]
STORY = {
    "model": "smollm2",
    "messages": [{"role": "user", "content": "Write a very long story."}],
    "stream": True,
    "max_tokens": 1500,
    "ignore_eos": True,
}


async def test_what_others_ask_of_a_worker_is_read_from_its_metrics(vllm_worker: VllmWorker) -> None:
    pool, upstream = Pool(experts_file({"coder": {"upstream": {"vllm": [vllm_worker.url]}}}), {}), OpenAIUpstream()
    (replica,) = pool.all()
    health = HealthLoop(upstream, [replica], interval=60)
    await upstream.start()
    try:
        await health.probe()
        assert replica.load is not None
        assert (replica.load.running, replica.load.waiting, replica.load_others) == (0, 0, 0)
        assert replica.load.process is not None
        async with (
            httpx.AsyncClient(timeout=60) as client,
            client.stream("POST", f"{vllm_worker.url}/chat/completions", json=STORY) as response,
        ):
            await anext(response.aiter_bytes())
            await health.probe()
            assert (replica.load.running, replica.load_others) == (1, 1)
            assert 0 < replica.load.cache < 1
        assert vllm_worker.settles_at("vllm:num_requests_running", 0)
    finally:
        await upstream.close()
