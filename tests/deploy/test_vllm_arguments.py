"""What the workers of deploy/ are started with is what the real vLLM takes."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from router.experts import load_experts
from tests.deploy.files import EXPERTS, OVERLAYS, Worker, composed_workers
from tests.deploy.vllms import parsed, variables
from tests.docs.blocks import commands
from tests.docs.pages import pages

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]
WRONG = (("model", "--max-model-length", "5"), ("model", "--max-num-seqs", "many"))


def workers() -> list[Worker]:
    """Those of Compose; Kubernetes starts them alike (test_kubernetes.py)."""
    return [worker for name in OVERLAYS for worker in composed_workers(name)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    asked = [*(worker.arguments for worker in workers()), *WRONG, *documented()]
    made = parsed(asked, tmp_path_factory.mktemp("vllm") / "answer.json")
    answers = iter(made["answers"])
    names = {"answers": len(workers()), "wrong": len(WRONG), "documented": len(documented())}
    return made | {name: list(islice(answers, count)) for name, count in names.items()}


def documented() -> list[tuple[str, ...]]:
    """Those of the pages' `vllm serve`."""
    return [tuple(words[2:]) for page in pages() for words in commands(page.read_text("utf-8"), "vllm")]


def test_its_parser_takes_what_the_pages_say(told: Any) -> None:
    assert len(told["documented"]) > 1
    for arguments, answer in zip(documented(), told["documented"], strict=True):
        assert "error" not in answer, f"{arguments}: {answer['error']}"


def test_its_parser_takes_every_argument(told: Any) -> None:
    assert len(told["answers"]) == len(workers()) == 6
    for worker, answer in zip(workers(), told["answers"], strict=True):
        assert "error" not in answer, f"{worker.place}: {answer['error']}"


def test_what_it_makes_of_them_is_what_was_meant(told: Any) -> None:
    experts = {name: load_experts(EXPERTS[name]).experts for name in OVERLAYS}
    for worker, answer in zip(workers(), told["answers"], strict=True):
        overlay = "cpu" if "-cpu" in worker.image else "gpu"
        expert = experts[overlay][worker.address]
        assert answer["model_tag"] == expert.model, worker.place
        assert answer["max_model_len"] == expert.context_window, worker.place
        assert answer["max_num_seqs"] == expert.max_in_flight, worker.place
        assert answer["enable_prompt_tokens_details"], "or prompts from its cache cannot be priced"
        # A worker that is told to end has as long for its running answers.
        assert 0 < answer["shutdown_timeout"] < worker.grace, worker.place


def test_it_knows_the_parsers_of_tools_and_thoughts(told: Any) -> None:
    for answer in told["answers"]:
        assert answer["tool_call_parser"] in {None, *told["tools"]}
        assert answer["reasoning_parser"] in {None, "", *told["reasoning"]}
    assert {answer["tool_call_parser"] for answer in told["answers"]} == {None, "qwen3_coder", "qwen3_xml", "openai"}


def test_it_reads_every_variable() -> None:
    for worker in workers():
        assert worker.environment <= variables(), worker.place


def test_a_wrong_argument_is_told(told: Any) -> None:
    """The parser is the real one: it refuses what it does not know."""
    unknown, wrong = (answer["error"] for answer in told["wrong"])
    assert "--max-model-length" in unknown
    assert "many" in wrong
