from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from router.cataloguing.entry import CRITERIA, Model
from tests.fakes.catalogs import PAGE, entry, model


def answered(**answers: str) -> Model:
    return model(openness=dict.fromkeys(CRITERIA) | {n: {"open": a, "source": PAGE} for n, a in answers.items()})


@pytest.mark.parametrize(
    ("answers", "level"),
    [
        (dict.fromkeys(CRITERIA, "yes"), "full"),
        (dict.fromkeys(CRITERIA, "yes") | {"training_metrics": "partly"}, "partial"),
        ({"weights": "yes", "training_data": "yes", "evaluation_code": "yes", "finetuning_code": "yes"}, "partial"),
        ({"weights": "yes", "evaluation_code": "partly"}, "partial"),
        ({"weights": "yes", "training_data": "no", "evaluation_code": "no"}, "weights"),
        ({"weights": "yes"}, "weights"),
        ({"weights": "partly", "training_data": "yes"}, None),
        ({"training_data": "yes"}, None),
        ({}, None),
    ],
)
def test_how_open_a_model_is_follows_from_its_five_answers(answers: dict[str, str], level: str | None) -> None:
    assert answered(**answers).open == level


def test_memory_is_told_at_the_published_precision_and_never_beyond_the_context() -> None:
    short = model(context=4096)
    assert short.memory("bf16", 4096) == short.memory()
    assert short.memory("bf16", 1_000_000) == short.memory("bf16", 4096)
    assert model(precision="fp8").memory() == model().memory("fp8")
    assert model().memory_gb("bf16", 8192) == pytest.approx(20.3, abs=0.1)
    assert model().memory_gb("bf16", 8192, 10) == pytest.approx(20.3 + 9 * 1.07, abs=0.1)


def test_memory_is_not_known_without_parameters_or_architecture() -> None:
    assert model(parameters=None).memory() is None
    assert model(architecture=None).memory() is None
    assert model(architecture={"kv_heads": None}).memory_gb("bf16", 8192) is None


def test_the_launch_line_has_the_hub_id_and_the_flags() -> None:
    words = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    assert model().command == ("vllm", "serve", "Maker/Model-7B", *words)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "no-owner"},
        {"name": "a/b; rm -rf /"},
        {"name": "--flag/x"},
        {"released": "July 2024"},
        {"released": "2024-13"},
        {"parameters": {"total": 0}},
        {"parameters": {"total": float("inf")}},
        {"architecture": {"layers": 1.5}},
        {"architecture": {"layers": True}},
        {"context": 0},
        {"context": "32k"},
        {"licence": {"kind": "free"}},
        {"openness": {"weights": {"open": True, "source": PAGE}}},
        {"openness": {"weights": {"open": "yes"}}},
        {"openness": {"licence": {"open": "yes", "source": PAGE}}},
        {"tasks": []},
        {"tasks": ["cooking"]},
        {"scores": [{"benchmark": "MMLU", "score": float("nan"), "source": PAGE, "date": "2024-01"}]},
        {"scores": [{"benchmark": "MMLU", "score": 50, "source": PAGE}]},
        {"price": {"input": -1}},
        {"precision": "int3"},
        {"note": "two\nlines"},
        {"serve": ["--a\x1b[31m"]},
        {"surprise": 1},
    ],
)
def test_what_has_another_form_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Model.model_validate(entry(**changes))


@pytest.mark.parametrize(
    "source",
    [
        "http://maker.example/model",
        "https://localhost/model",
        "https://user:key@maker.example/",
        "https://maker.example:8443/x",
        "https://maker.example./x",
        "https://maker.example/a b",
        "https://mäker.example/",
        "ftp://maker.example/",
        "maker.example/model",
        "javascript:alert(1)//https://maker.example",
    ],
)
def test_a_source_is_the_address_of_a_public_page(source: str) -> None:
    with pytest.raises(ValidationError, match="address"):
        Model.model_validate(entry(sources={"maker": source}))


def test_a_source_may_have_a_query_and_a_fragment() -> None:
    page = "https://maker.example/a/b.md?plain=1#L10"
    assert model(sources={"maker": page}).sources.maker == page
