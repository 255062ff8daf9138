"""A real vLLM that is told to end, though nobody wanted it to, by its own server's process."""

from __future__ import annotations

import signal
import time

import httpx
import pytest
from openai import OpenAI

from tests.vllm.launching import PATIENCE, Launched, all_gone, wait_for

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


def test_a_worker_that_drains_ends_what_it_runs_takes_nothing_new_and_is_started_again(specialists: Launched) -> None:
    workers = [specialists.worker(f"coder-{i}") for i in range(2)]
    specialists.up_in_gateway("coder")
    with OpenAI(base_url=f"{specialists.url}/v1", api_key="any", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="coder",
            messages=[{"role": "user", "content": "Count."}],
            stream=True,
            max_tokens=60,
            extra_body={"ignore_eos": True},
        )
        chunks = iter(stream)
        next(chunks)
        (drains,) = [worker for worker in workers if worker.metric("vllm:num_requests_running")]
        (other,) = [worker for worker in workers if worker is not drains]
        processes = drains.processes()
        served = other.metric("vllm:generation_tokens_total")
        drains.server.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        for _ in range(3):  # while /health says that all is well
            raw = client.chat.completions.with_raw_response.create(
                model="coder", messages=[{"role": "user", "content": "Name a colour."}], max_tokens=4
            )
            assert raw.headers["x-moe-expert"] == "coder"
            assert raw.parse().choices[0].message.content
        assert other.metric("vllm:generation_tokens_total") - served == 12
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    all_gone(processes)

    def started() -> bool:
        facts = specialists.crew()[drains.name]
        return facts.pid not in (None, drains.keeper.pid)

    wait_for(f"{drains.name} to be started again", started, specialists.log)
    assert httpx.get(f"{specialists.url}/ready", timeout=PATIENCE).status_code == 200
