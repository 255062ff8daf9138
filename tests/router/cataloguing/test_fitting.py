from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cataloguing.catalog import load_catalog
from router.cataloguing.fitting import LEAST_CONTEXT, fit
from router.cataloguing.words import PRECISIONS
from router.errors import CatalogError
from tests.fakes.catalogs import model

LARGE = model(
    parameters={"total": 70.6, "active": 70.6},
    architecture={"layers": 80, "hidden": 8192, "heads": 64, "kv_heads": 8, "head_dim": 128},
)
FLAGS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")


@pytest.mark.parametrize(
    ("changes", "gpu", "gpus", "precision", "split", "context"),
    [
        ({}, 80, 1, "bf16", 1, 131072),
        ({}, 24, 1, "bf16", 1, 32768),  # the whole context would be 17 GB more
        ({}, 16, 1, "fp8", 1, 32768),
        ({}, 10, 1, "4bit", 1, 16384),
        ({}, 7.5, 1, "4bit", 1, 4096),  # better a short context than none
        ({}, 12, 2, "bf16", 2, 32768),
        ({}, 12, 4, "bf16", 2, 32768),
        ({"context": 4096}, 24, 1, "bf16", 1, 4096),
        ({"precision": "fp8"}, 24, 1, "fp8", 1, 65536),
        ({"architecture": {"heads": 25, "kv_heads": 25}}, 16, 4, "fp8", 1, 8192),  # heads that cannot be dealt out
    ],
)
def test_the_widest_precision_on_as_few_gpus_and_with_as_long_a_context_as_do(
    changes: dict[str, Any], gpu: float, gpus: int, precision: str, split: int, context: int
) -> None:
    found = fit(model(**changes), gpu, gpus)
    assert (found.precision, found.gpus, found.context) == (precision, split, context)
    assert found.each_gb <= gpu


@pytest.mark.parametrize(
    ("gpu", "gpus", "words"),
    [
        (200, 1, ("--max-model-len", "65536")),
        (240, 1, ()),
        (80, 4, ("--tensor-parallel-size", "4")),
        (64, 2, ("--quantization", "fp8_per_tensor", "--tensor-parallel-size", "2", "--max-model-len", "65536")),
        (60, 1, ("--quantization", "mxfp4", "--max-model-len", "32768")),
    ],
)
def test_the_arguments_say_what_was_chosen_and_nothing_else(gpu: float, gpus: int, words: tuple[str, ...]) -> None:
    assert fit(LARGE, gpu, gpus).arguments == (*FLAGS, *words)


def test_what_was_published_narrow_is_neither_widened_nor_narrowed() -> None:
    narrow = model(precision="4bit")
    assert fit(narrow, 80).arguments == FLAGS
    assert fit(narrow, 80).quantised is False
    with pytest.raises(CatalogError, match=r"at fp8 it takes \d+\.\d GB"):
        fit(model(precision="fp8"), 10)


def test_a_precision_that_is_given_is_kept() -> None:
    assert fit(model(), 80, precision="4bit").precision == "4bit"
    assert fit(model(precision="4bit"), 80, precision="fp8").precision == "fp8"
    with pytest.raises(CatalogError, match="at bf16 it takes"):
        fit(LARGE, 80, precision="bf16")


@pytest.mark.parametrize(
    ("gpu", "gpus", "told"),
    [
        (40, 1, "it does not fit on a GPU of 40 GB: at 4bit it takes 48.4 GB, with a context of 2048 tokens"),
        (10, 4, "it does not fit on 4 GPUs of 10 GB: at 4bit it takes 12.1 GB of each"),
    ],
)
def test_what_does_not_fit_is_told_with_what_it_takes(gpu: float, gpus: int, told: str) -> None:
    with pytest.raises(CatalogError) as error:
        fit(LARGE, gpu, gpus)
    assert str(error.value).startswith(told)


@pytest.mark.parametrize("unknown", [{"parameters": None}, {"architecture": None}, {"context": None}])
def test_too_little_known_is_told(unknown: dict[str, Any]) -> None:
    with pytest.raises(CatalogError, match="too little is known"):
        fit(model(**unknown), 80)


@given(st.sampled_from(sorted(load_catalog().models)), st.floats(4, 200), st.integers(1, 16))
def test_whatever_is_chosen_goes_in_and_a_larger_gpu_never_chooses_worse(key: str, gpu: float, gpus: int) -> None:
    one = load_catalog().models[key]
    try:
        found = fit(one, gpu, gpus)
    except CatalogError:
        return
    assert found.each_gb <= gpu
    assert found.gpus <= gpus
    assert one.context is not None
    assert min(LEAST_CONTEXT, one.context) <= found.context <= one.context
    larger = fit(one, gpu * 1.5, gpus)
    assert PRECISIONS.index(larger.precision) <= PRECISIONS.index(found.precision)
