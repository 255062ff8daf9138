"""Real vLLM workers that share a GPU by experts.yaml take turns: stopped and started, as requests want them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from gateway.workers.protocol import WorkerState
from tests.integration.conftest import metric
from tests.vllm.launching import (
    ONE_PROCESS_LESS,
    PATIENCE,
    Launched,
    all_gone,
    ask,
    launch,
    launched,
    need_vllm,
    sees_gpu,
    wait_for,
)
from tests.vllm.tiny_models import TinyModel

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
ASLEEP = (WorkerState.ASLEEP, WorkerState.STOPPING)


@pytest.fixture(scope="module")
def sharing(models: Mapping[str, TinyModel], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """`first` and `second` share a GPU; `warm` has none, and answers for `first` where that is not awake within a second."""

    def expert(name: str, model: str, rest: str, **others: object) -> str:
        place = launch(models[model].folder, env=ONE_PROCESS_LESS, **others)
        return f"  {name}:\n    model: {model}\n    domains: [general]\n    upstream: {{launch: {place}}}\n{rest}"

    text = (
        "version: 1\nexperts:\n"
        + expert("first", "qwen2", "    sleep_after: 10m\n    wake_within: 1s\n    fallbacks: [warm]\n", gpus=[0])
        + expert("second", "gemma3", "    sleep_after: 10m\n    wake_within: 10m\n    queue: {wait: 10m}\n", gpus=[0])
        + expert("warm", "qwen3", "")
    )
    with launched(text, tmp_path_factory.mktemp("sharing")) as gateway:
        yield gateway


def states(gateway: Launched) -> dict[str, WorkerState]:
    return {name.removesuffix("-0"): facts.state for name, facts in gateway.crew().items()}


def test_experts_that_share_a_gpu_take_turns_and_who_waits_is_answered_together(
    sharing: Launched, models: Mapping[str, TinyModel]
) -> None:
    assert states(sharing) == {
        "first": WorkerState.READY,
        "second": WorkerState.ASLEEP,
        "warm": WorkerState.READY,
    }
    for expert, model in (("first", "qwen2"), ("warm", "qwen3")):
        answer = ask(sharing, expert, models[model].answers[0])
        assert answer.json()["choices"][0]["token_ids"] == models[model].answers[0].tokens
    processes = sharing.worker("first-0").processes()
    expected = [*models["gemma3"].answers, *models["gemma3"].answers]
    with ThreadPoolExecutor(len(expected)) as threads:
        answers = list(threads.map(lambda one: ask(sharing, "second", one), expected))
    assert [answer.status_code for answer in answers] == [200] * len(expected)
    assert [answer.headers["x-moe-expert"] for answer in answers] == ["second"] * len(expected)
    assert [answer.json()["choices"][0]["token_ids"] for answer in answers] == [one.tokens for one in expected]
    all_gone(processes)
    assert states(sharing) == {
        "first": WorkerState.ASLEEP,
        "second": WorkerState.READY,
        "warm": WorkerState.READY,
    }
    assert sharing.crew()["second-0"].wakes == 1


def test_a_fallback_that_is_awake_answers_at_once_while_the_expert_wakes(
    sharing: Launched, models: Mapping[str, TinyModel]
) -> None:
    if states(sharing)["second"] is not WorkerState.READY:
        ask(sharing, "second", models["gemma3"].answers[0])
    answer = ask(sharing, "first", models["qwen2"].answers[0])
    assert answer.headers["x-moe-expert"] == "warm"
    assert answer.json()["choices"][0]["token_ids"]
    told = httpx.get(f"{sharing.url}/metrics", timeout=PATIENCE).text
    assert metric(told, "moe_fallbacks_total", from_expert="first", to_expert="warm", reason="asleep") == 1
    wait_for("the other to give way", lambda: states(sharing)["second"] in ASLEEP, sharing.log)
    wait_for("it to be woken", lambda: states(sharing)["first"] is WorkerState.WAKING, sharing.log)
    told = httpx.get(f"{sharing.url}/metrics", timeout=PATIENCE).text
    assert metric(told, "moe_worker_wake_seconds_count", expert="second") == 1
    assert metric(told, "moe_worker_asleep_seconds_total", expert="first") > 0


@pytest.mark.parametrize("level", [1, 2])
def test_a_worker_with_sleep_mode_keeps_its_process_and_gives_its_memory_back(
    models: Mapping[str, TinyModel], tmp_path_factory: pytest.TempPathFactory, level: int
) -> None:
    """vLLM's own sleep levels: never run without a GPU, where vLLM has none."""
    need_vllm()
    if not sees_gpu():
        pytest.skip("NOT TRIED: vLLM's sleep levels need a GPU, and a build for it named by MOE_GATEWAY_VLLM")
    experts = [
        f"  {name}:\n    model: {name}\n    domains: [general]\n    sleep_after: 10m\n    wake_within: 10m\n    upstream: "
        f"{{launch: {launch(models[name].folder, '--enable-sleep-mode', gpus=[0], sleep_level=level)}}}\n"
        for name in ("qwen2", "qwen3")
    ]
    with launched("version: 1\nexperts:\n" + "".join(experts), tmp_path_factory.mktemp("levels")) as gateway:
        processes = gateway.worker("qwen2-0").processes()
        for name in ("qwen2", "qwen3", "qwen2"):
            answer = ask(gateway, name, models[name].answers[0])
            assert answer.json()["choices"][0]["token_ids"] == models[name].answers[0].tokens
        assert gateway.worker("qwen2-0").processes() == processes
        assert gateway.crew()["qwen2-0"].wakes == 1
        assert states(gateway)["qwen3"] is WorkerState.ASLEEP
