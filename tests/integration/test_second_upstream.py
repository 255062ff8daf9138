"""A real OpenAI-compatible server that the gateway did not launch, behind a key of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.fakes.upstream import PATIENCE, FakeServer, status
from tests.integration.conftest import Start, experts_yaml

KEY = "key-of-the-second-server"


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """llama.cpp's own server as a program of its own; the address that ends in /v1."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.workers.embedded"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "MOE_GATEWAY_WORKER_KEY": KEY},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        yield json.loads(process.stdout.readline())["url"]
        process.stdin.close()
        process.wait(PATIENCE)


def test_it_answers_streamed_and_whole_as_an_expert_and_as_a_fallback(
    start: Start, servers: list[FakeServer], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECOND_KEY", KEY)
    servers[0].behaviour = status(500)
    text = experts_yaml(*servers[:2]).replace(f"[{servers[1].url}]", f"[{engine}], api_key: ${{SECOND_KEY}}")
    gateway = start(text)
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client:
        pinned = client.chat.completions.create(
            model="two", messages=[{"role": "user", "content": "Name a colour."}], max_tokens=8
        )
        assert pinned.choices[0].message.content
        stream = client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "Name a colour."}], max_tokens=8, stream=True
        )
        words = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert len("".join(words)) > 0
    assert gateway.settled("moe_upstream_attempts_total", 2, expert="two", outcome="ok")
    assert gateway.metric("moe_fallbacks_total", from_expert="one", to_expert="two") == 1
    assert gateway.metric("moe_tokens_total", expert="two", kind="output") > 0
