from __future__ import annotations

import json
from typing import Any

import pytest

from router.cataloguing.catalog import Catalog, load_catalog
from router.cataloguing.listing import FILTERS, SORTS, Wanted, listed
from router.errors import CatalogError
from tests.fakes.catalogs import PAGE, catalog, model


def scored(value: float) -> list[dict[str, Any]]:
    return [{"benchmark": "HumanEval", "score": value, "source": PAGE, "date": "2024-08"}]


OPEN = {name: {"open": "yes", "source": PAGE} for name in ("training_data", "weights", "evaluation_code")}
OPEN |= {name: {"open": "yes", "source": PAGE} for name in ("finetuning_code", "training_metrics")}
MODELS = catalog(
    large=model(name="A/L", parameters={"total": 70.0, "active": 70.0}, released="2023-01", scores=scored(90), family="Qwen"),
    small=model(name="A/S", parameters={"total": 1.0, "active": 1.0}, released="2024-01", scores=scored(50), languages=["en"]),
    open=model(name="A/O", openness=OPEN, price={"input": 9.0}, released="2025-12", scores=scored(70), tasks=["bio", "code"]),
    bound=model(
        name="A/B", licence={"id": "Own", "kind": "research", "limits": "No money."}, context=4096, scores=scored(60), released=None
    ),
    bare=model(
        name="A/N", parameters=None, architecture=None, context=None, licence=None, openness={"weights": None}, scores=[],
        price=None, languages=[], released="2024-02",
    ),
)  # fmt: skip
ALL = ["bare", "bound", "large", "open", "small"]


def keys(**said: Any) -> list[str]:
    return [one.key for one in listed(MODELS, Wanted.read(said, MODELS))]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, ALL),
        ({"task": "bio"}, ["open"]),
        ({"task": ["code", "bio"]}, ["open"]),
        ({"task": ["code", "math"]}, []),
        ({"task": []}, ALL),
        ({"license": "permissive"}, ["large", "open", "small"]),
        ({"license": "RESEARCH"}, ["bound"]),
        ({"license": "apache-2.0"}, ["large", "open", "small"]),
        ({"max_gb": "24"}, ["bound", "open", "small"]),
        ({"max_gb": "50", "precision": "4bit"}, ["bound", "large", "open", "small"]),
        ({"max_gb": "0.1"}, []),
        ({"open": "full"}, ["open"]),
        ({"open": "partial"}, ["bound", "large", "open", "small"]),
        ({"open": "weights"}, ["bound", "large", "open", "small"]),
        ({"family": "qwen"}, ["large"]),
        ({"language": "ja"}, ["bound", "large", "open"]),
        ({"language": "Japanese"}, ["bound", "large", "open"]),
        ({"language": "fr"}, []),
        ({"min_context": "8192"}, ["large", "open", "small"]),
        ({"sort": "quality"}, ["large", "open", "bound", "small", "bare"]),
        ({"sort": "size"}, ["small", "bound", "open", "large", "bare"]),
        ({"sort": "price"}, ["bound", "large", "small", "open", "bare"]),
        ({"sort": "released"}, ["open", "bare", "small", "large", "bound"]),
        ({"sort": ["released"], "task": ("code",), "license": ["permissive"]}, ["open", "small", "large"]),
    ],
)
def test_what_is_asked_is_what_is_listed_and_unknown_never_counts_as_met(
    said: dict[str, Any], found: list[str]
) -> None:
    assert keys(**said) == found


@pytest.mark.parametrize(
    ("name", "said", "told"),
    [
        ("task", "bi", "task is not 'bi'; did you mean bio?"),
        ("task", ["bio", "zzz"], "it is one of code, math, bio"),
        ("license", "permisive", "did you mean permissive?"),
        ("open", "closed", "open is not 'closed'"),
        ("family", "Lama", "did you mean Llama?"),
        ("language", "klingon", "write its two letters"),
        ("precision", "int8", "precision is not 'int8'"),
        ("sort", "best", "it is one of name, quality"),
        ("sort", ["name", "size"], "sort is asked for twice"),
        ("min_context", "32k", "write a number of tokens such as 32768"),
        ("min_context", "0.5", "is a whole number of tokens"),
        ("min_context", "1e400", "write a number of tokens"),
        *(
            ("max_gb", value, "write a number of GB such as 24")
            for value in ("", "x", "-1", "0", "nan", "inf", "24GB", "1e999")
        ),
        ("task", "x" * 100_000, "task is not 'xxxx"),
        ("task", "\x1b[31m", "task is not '\\x1b[31m'"),
    ],
)
def test_a_wrong_value_is_told_with_what_was_meant(name: str, said: Any, told: str) -> None:
    with pytest.raises(CatalogError) as error:
        Wanted.read({name: said}, MODELS)
    assert error.value.param == name
    assert told in str(error.value)
    assert len(str(error.value)) < 300


def test_all_that_is_told_of_a_model_is_json() -> None:
    by_key = {one.key: one.described() for one in listed(MODELS, Wanted())}
    assert json.loads(json.dumps(by_key)) == by_key
    small, bare = by_key["small"], by_key["bare"]
    assert (small["id"], small["name"], small["object"]) == ("small", "A/S", "catalog.model")
    assert small["architecture"]["class"] == "LlamaForCausalLM"
    assert small["openness"] == {
        "level": "partial",
        "training_data": {"open": "no", "source": PAGE},
        "weights": {"open": "yes", "source": PAGE},
        "evaluation_code": {"open": "partly", "source": PAGE},
    }
    assert small["memory_gb"]["bf16"] > small["memory_gb"]["fp8"] > small["memory_gb"]["4bit"]
    assert small["memory_gb_full_context"]["bf16"] == pytest.approx(2.4 + 17.2, abs=0.1)
    assert small["command"][:3] == ["vllm", "serve", "A/S"]
    assert small["quality"] == 25.0
    assert small["quality_benchmarks"] == {"HumanEval": 0.0}
    assert bare["memory_gb"] == bare["memory_gb_full_context"] == {"bf16": None, "fp8": None, "4bit": None}
    assert bare["quality"] is None
    assert "price" not in bare


def test_every_filter_and_order_goes_with_the_packaged_catalogue() -> None:
    models: Catalog = load_catalog()
    first = next(iter(models.models.values()))
    some = {"task": first.tasks[0], "family": first.family, "max_gb": "100000", "sort": "quality"}
    assert first in [one.model for one in listed(models, Wanted.read(some, models))]
    for sort in SORTS:
        assert len(listed(models, Wanted(sort=sort))) == len(models.models)
    assert set(FILTERS) == {
        "task", "license", "max_gb", "precision", "open", "family", "language", "min_context", "sort",
    }  # fmt: skip
