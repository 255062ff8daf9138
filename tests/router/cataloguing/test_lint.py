from __future__ import annotations

from typing import Any

import pytest

from router.cataloguing.lint import lint_text
from router.errors import ConfigError
from tests.fakes.catalogs import PAGE, entry, model, text_of


def findings(**entries: dict[str, Any]) -> list[str]:
    """What is told of each problem, after its place."""
    try:
        lint_text(text_of(**entries))
    except ConfigError as error:
        return [f"{problem.key}: {problem.message}" for problem in error.problems]
    return []


def test_an_entry_without_fault_is_fine() -> None:
    assert lint_text(text_of(a=entry())).models == {"a": model()}
    least = {"name": "A/B", "maker": "M", "family": "Yi", "tasks": ["math"], "sources": {"maker": PAGE, "tasks": PAGE}}
    assert findings(a=least) == []


def score(benchmark: str, value: float, date: str = "2024-07") -> dict[str, Any]:
    return {"benchmark": benchmark, "score": value, "source": PAGE, "date": date}


@pytest.mark.parametrize(
    ("changes", "key", "told"),
    [
        *(
            ({"sources": {fact: None}}, f"sources.{fact}", f"{fact} has no source")
            for fact in (
                "maker", "parameters", "architecture", "context", "licence", "tuned_from", "released", "tasks", "languages",
                "serve",
            )
        ),
        ({"precision": "fp8"}, "sources.precision", "precision has no source"),
        ({"sources": {"precision": PAGE}}, "sources.precision", "is the source of precision, which is not there"),
        ({"family": "Lama"}, "family", "no family 'Lama' is known; did you mean 'Llama'?"),
        ({"languages": ["en", "xx"]}, "languages.1", "'xx' is no language's two letters"),
        ({"languages": ["en", "en"]}, "languages", "en stands twice"),
        ({"tasks": ["code", "code"]}, "tasks", "code stands twice"),
        ({"architecture": {"class": "LlamaForCausalLm"}}, "architecture.class", "did you mean 'LlamaForCausalLM'?"),
        ({"architecture": {"kv_heads": 5}}, "architecture.kv_heads", "32 heads are no multiple of 5"),
        ({"architecture": {"head_dim": 1280}}, "architecture.head_dim", "heads · head_dim is 10 times hidden"),
        ({"architecture": {"head_dim": 32}}, "architecture.head_dim", "heads · head_dim is 0.25 times hidden"),
        ({"architecture": {"full_layers": 33}}, "architecture.full_layers", "there are 32 layers in all"),
        ({"architecture": {"window": 131073}}, "architecture.window", "is longer than the context"),
        ({"parameters": {"active": 9}}, "parameters.active", "more than the 8.03 billion that there are"),
        ({"parameters": {"total": 80.3, "active": 80.3}}, "parameters.total", "32 layers of 4096 make a dense model"),
        ({"parameters": {"total": 0.8, "active": 0.8}}, "parameters.total", "32 layers of 4096 make a dense model"),
        ({"licence": {"id": "Llama 3"}}, "licence.id", "permissive licences are Apache-2.0"),
        ({"licence": {"limits": "Not on Mondays."}}, "licence.limits", "a permissive licence has none"),
        ({"licence": {"kind": "conditional", "limits": "Some."}}, "licence.kind", "Apache-2.0 is permissive"),
        ({"licence": {"id": "Own", "kind": "research"}}, "licence.limits", "say in a sentence"),
        (
            {"licence": {"id": "CC-BY-NC-4.0", "kind": "conditional", "limits": "x"}},
            "licence.kind",
            "allows no commercial use",
        ),
        ({"scores": [score("HumanEvil", 50)]}, "scores.0.benchmark", "did you mean 'HumanEval'?"),
        ({"scores": [score("MMLU", 101)]}, "scores.0.score", "MMLU goes from 0 to 100"),
        ({"scores": [score("MT-Bench", 85)]}, "scores.0.score", "MT-Bench goes from 1 to 10"),
        ({"scores": [score("MMLU", 50), score("MMLU", 51)]}, "scores.1.benchmark", "MMLU stands twice"),
        ({"scores": [score("MMLU", 50, "2024-06")]}, "scores.0.date", "is before the model's release in 2024-07"),
        ({"serve": ["-x"]}, "serve.0", "'-x' is no flag and the value of none"),
        ({"serve": ["--a=b", "c"]}, "serve.1", "'c' is no flag and the value of none"),
        ({"serve": ["--a", "b", "c"]}, "serve.2", "'c' is no flag and the value of none"),
        ({"serve": ["--port", "80"]}, "serve.0", "--port is set by whoever starts the worker"),
        ({"serve": ["--served_model_name=x"]}, "serve.0", "--served_model_name is set by whoever starts the worker"),
    ],
)  # fmt: skip
def test_each_problem_is_told_where_it_is(changes: dict[str, Any], key: str, told: str) -> None:
    [found] = findings(a=entry(**changes))
    assert found.startswith(f"models.a.{key}: ")
    assert told in found


@pytest.mark.parametrize("fact", ["parameters", "context", "licence", "released", "languages"])
def test_a_source_without_its_fact_is_told(fact: str) -> None:
    changed = entry()
    del changed[fact]
    assert f"models.a.sources.{fact}: is the source of {fact}, which is not there" in findings(a=changed)


def test_an_empty_list_of_flags_may_have_a_source() -> None:
    assert findings(a=entry(serve=[])) == []


def test_one_model_is_in_one_entry() -> None:
    told = findings(a=entry(), b=entry(name="maker/MODEL-7b"), c=entry(name="Maker/Else"))
    assert told == [
        "models.a.name: Maker/Model-7B stands in more than one entry",
        "models.b.name: maker/MODEL-7b stands in more than one entry",
    ]


def test_all_is_told_at_once() -> None:
    changed = entry(family="Lama", serve=["x"], parameters={"active": 9}, sources={"maker": None})
    assert len(findings(a=changed, b=entry(name="A/B", family="Lama"))) == 5


@pytest.mark.parametrize(
    ("total", "layers", "hidden"),
    [(6.74, 32, 4096), (8.54, 28, 3072), (1.54, 28, 1536), (6.92, 32, 4544), (70.55, 80, 8192), (27.4, 62, 5376)],
)
def test_dense_models_that_there_are_pass(total: float, layers: int, hidden: int) -> None:
    """Llama 2 7B, Gemma 7B, Qwen2.5 1.5B, Falcon 7B, Llama 3 70B, Gemma 3 27B."""
    heads = hidden // 64
    shape = {"layers": layers, "hidden": hidden, "heads": heads, "kv_heads": heads, "head_dim": 64}
    assert findings(a=entry(parameters={"total": total, "active": total}, architecture=shape)) == []
