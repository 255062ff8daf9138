"""What becomes of real vLLM workers, and of those they answer, when something of them is killed. The last of these that use the
specialists: they end with hardly any worker up."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
import pytest

from tests.vllm.launching import PATIENCE, Launched, Worker, all_gone, engine_titles, wait_for

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
CODE = "Implement quicksort in C++ and explain how to call it from a test."
BODY = {"model": "auto", "messages": [{"role": "user", "content": CODE}]}


@contextmanager
def streaming(gateway: Launched) -> Iterator[tuple[Worker, Worker, Iterator[str]]]:
    """An answer on its way from one of coder's workers: that one, the other, and the lines that are still to come."""
    workers = [gateway.worker(f"coder-{i}") for i in range(2)]
    gateway.up_in_gateway("coder")
    body = {**BODY, "stream": True, "max_tokens": 1500, "ignore_eos": True}
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body, timeout=60) as response:
        assert response.headers["x-moe-expert"] == "coder"
        lines = response.iter_lines()
        next(line for line in lines if '"content":"' in line and '"content":""' not in line)
        (runs,) = [worker for worker in workers if worker.metric("vllm:num_requests_running")]
        (other,) = [worker for worker in workers if worker is not runs]
        yield runs, other, lines


def ends_in_one_error(lines: Iterator[str]) -> None:
    """The rest of a stream that broke: what was on its way, one error event in OpenAI's shape, and nothing that went well."""
    rest = [line for line in lines if line]
    errors = [line for line in rest if line.startswith("data: ") and '"error"' in line]
    assert len(errors) == 1
    assert rest.index(errors[0]) >= len(rest) - 2  # [DONE] may follow
    assert not any('"finish_reason":"' in line for line in rest)


def answered_by(gateway: Launched, worker: Worker) -> None:
    """The gateway answers, and that worker is who did."""
    served = worker.metric("vllm:generation_tokens_total")
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json={**BODY, "max_tokens": 4}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-moe-expert"] == "coder"
    assert worker.metric("vllm:generation_tokens_total") - served == 4


def test_one_whose_engine_is_killed_ends_its_streams_another_answers_and_it_is_started_again(
    specialists: Launched,
) -> None:
    with streaming(specialists) as (dies, other, lines):
        processes = dies.processes()
        dies.part("VLLM::EngineCore").send_signal(signal.SIGKILL)
        ends_in_one_error(lines)
    answered_by(specialists, other)
    all_gone(processes)
    again = specialists.worker(dies.name)
    assert again.restarts == dies.restarts + 1
    assert again.keeper != dies.keeper
    listed = httpx.get(f"{again.url}/models", headers=again.headers, timeout=PATIENCE).json()["data"]
    assert [model["id"] for model in listed] == ["smollm2", "mathematician", "chats"]
    prompts = itertools.count()

    def answers() -> bool:
        messages = [{"role": "user", "content": f"{next(prompts)} {CODE}"}]
        body = {"model": "coder", "messages": messages, "max_tokens": 2}
        assert httpx.post(f"{specialists.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
        return again.metric("vllm:generation_tokens_total") > 0

    wait_for("it to answer again", answers, specialists.log)


def test_one_whose_server_is_killed_leaves_no_engine(specialists: Launched) -> None:
    with streaming(specialists) as (dies, other, lines):
        processes = dies.processes()
        assert engine_titles() <= titles(processes)
        dies.server.send_signal(signal.SIGKILL)
        ends_in_one_error(lines)
    answered_by(specialists, other)
    all_gone(processes)


def test_one_whose_keeper_is_killed_leaves_nothing_and_the_fallback_answers(specialists: Launched) -> None:
    worker = next(
        specialists.worker(name) for name, facts in specialists.crew().items() if facts.state.value == "ready"
    )
    processes = worker.processes()
    assert engine_titles() <= titles(processes)
    worker.keeper.send_signal(signal.SIGKILL)
    all_gone(processes)
    answer = httpx.post(f"{specialists.url}/v1/chat/completions", json={**BODY, "max_tokens": 4}, timeout=60)
    assert answer.headers["x-moe-expert"] in ("coder", "general")

    def launched_again() -> bool:
        return specialists.crew()[worker.name].pid not in (None, worker.keeper.pid)

    wait_for(f"{worker.name} to be started again", launched_again, specialists.log)


def titles(processes: list[psutil.Process]) -> set[str]:
    return {process.cmdline()[0].partition(" ")[0].rstrip("\0") for process in processes if process.cmdline()}
