from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cataloguing.entry import Model
from router.cataloguing.quality import LEAST_MODELS, benchmarks_of, qualities
from router.cataloguing.words import BENCHMARKS
from tests.fakes.catalogs import PAGE, model


def scored(**scores: float) -> Model:
    found: list[dict[str, Any]] = [
        {"benchmark": name.replace("_", "-"), "score": value, "source": PAGE, "date": "2024-08"}
        for name, value in scores.items()
    ]
    return model(scores=found)


def test_a_percentile_is_the_share_of_the_others_that_score_less() -> None:
    found = qualities({"a": scored(GSM8K=90), "b": scored(GSM8K=80), "c": scored(GSM8K=80), "d": scored(GSM8K=10)})
    assert {key: quality.benchmarks["GSM8K"] for key, quality in found.items()} == {
        "a": 100,
        "b": 50,
        "c": 50,
        "d": 0,
    }


def test_quality_is_the_mean_with_one_benchmark_more_in_which_all_are_in_the_middle() -> None:
    models = {"a": scored(GSM8K=90, MATH=9), "b": scored(GSM8K=8, MATH=8), "c": scored(GSM8K=7), "d": scored(GSM8K=6)}
    models |= {"e": scored(MATH=7), "f": scored(MATH=6)}
    found = qualities(models, "math")
    assert found["a"].value == pytest.approx((50 + 100 + 100) / 3)
    assert found["c"].value == pytest.approx((50 + 100 / 3) / 2)
    assert found["a"].value > found["b"].value > found["c"].value > found["d"].value


def test_few_scores_are_no_company_and_other_tasks_do_not_count() -> None:
    models = {"a": scored(GSM8K=90), "b": scored(GSM8K=80), "c": scored(GSM8K=70)}
    assert LEAST_MODELS == 4
    assert qualities(models) == {}
    models["d"] = scored(GSM8K=60, MMLU=50)
    assert set(qualities(models, "math")) == {"a", "b", "c", "d"}
    assert qualities(models, "code") == {}
    assert set(qualities(models, "tools")) == {"a", "b", "c", "d"}  # it has no benchmark of its own: all are asked


def test_every_benchmark_tells_of_one_task() -> None:
    own = [name for task in ("code", "math", "bio", "general") for name in benchmarks_of(task)]
    assert sorted(own) == sorted(BENCHMARKS)
    assert benchmarks_of(None) == benchmarks_of("japanese") == tuple(BENCHMARKS)


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.floats(0, 100), min_size=4, max_size=12))
def test_better_scores_never_make_worse_quality(scores: dict[str, float]) -> None:
    found = qualities({key: scored(MMLU=score) for key, score in scores.items()})
    assert all(0 <= quality.value <= 100 for quality in found.values())
    ordered = sorted(scores, key=lambda key: scores[key])
    values = [found[key].value for key in ordered]
    assert values == sorted(values)
    assert sum(values) / len(values) == pytest.approx(50)
