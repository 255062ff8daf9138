"""Example prompts that are too few, stand twice, or are of two domains at once. Encoded by the encoder that the package ships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.checking import examples
from gateway.checking.examples import (
    Likeness,
    are_alike,
    confusable_examples,
    example_twice,
    few_examples,
    likeness_of,
)
from gateway.checking.rule import Rule, Warned
from tests.benchmarks.domain_prompts import prompts_of
from tests.gateway.checking.files import places, said

LEGAL, FINANCE = prompts_of("legal", "example"), prompts_of("finance", "example")


def asked(rule: Rule, domains: Mapping[str, Sequence[str]]) -> list[Warned]:
    served = {"one": {"domains": ["general", *domains]}}
    return said(rule, served, domains={name: {"examples": list(prompts)} for name, prompts in domains.items()})


@pytest.mark.parametrize(("count", "told"), [(5, 1), (9, 1), (10, 0)])
def test_few_examples_are_told(count: int, told: int) -> None:
    assert places(asked(few_examples, {"legal": LEGAL[:count]})) == ["few-examples domains.legal.examples"] * told
    assert asked(few_examples, {"code": LEGAL[:1]}) == []  # they join those of the corpus


def test_a_prompt_that_stands_twice_is_told_at_the_second() -> None:
    again = f"  {LEGAL[2].upper()} "
    warned = asked(example_twice, {"legal": [*LEGAL[:10], LEGAL[0]], "finance": [*FINANCE[:10], again]})
    assert places(warned) == ["example-twice domains.legal.examples.10", "example-twice domains.finance.examples.10"]
    assert "in the domain legal as well" in warned[1].words
    assert asked(example_twice, {"legal": LEGAL, "finance": FINANCE}) == []


@pytest.mark.parametrize(("nearer", "closeness", "alike"), [
    (0.25, 0.85, True), (0.24, 1.0, False), (1.0, 0.84, False), (0.5, 0.9, True)
])  # fmt: skip
def test_both_figures_have_to_say_so(nearer: float, closeness: float, alike: bool) -> None:
    assert are_alike(Likeness(nearer, closeness, [])) is alike


@pytest.mark.parametrize("size", [10, 30])
def test_domains_that_differ_are_not_taken_for_each_other(size: int) -> None:
    domains = {name: prompts_of(name, "example")[:size] for name in ("legal", "finance", "sql")}
    assert asked(confusable_examples, domains) == []


@pytest.mark.parametrize("domain", ["legal", "finance", "sql"])
def test_one_domain_under_two_names_is_told_with_what_is_most_alike(domain: str) -> None:
    prompts = prompts_of(domain, "example")
    warned = asked(confusable_examples, {"one": prompts[:40:2], "other": prompts[1:40:2], "third": LEGAL[40:50]})
    told = [w for w in warned if w.path == ("domains", "other", "examples")]
    assert len(told) == 1
    assert "% of both are nearer" in told[0].words
    assert told[0].words.count(" of one") == 4  # the domain's name, and that of each pair
    assert "0." in told[0].words


def test_one_example_that_says_the_same_as_another_domains_is_told() -> None:
    finance = [*FINANCE[:19], f"{LEGAL[0]}!"]
    warned = asked(confusable_examples, {"legal": LEGAL[:20], "finance": finance})
    assert [w.words.partition(".")[0] for w in warned] == ["say the same as some of legal"]


def test_built_in_domains_and_a_domain_alone_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "_encoder", None)  # would be called
    assert asked(confusable_examples, {"legal": LEGAL[:20], "general": LEGAL[20:40]}) == []


def test_of_large_files_so_many_examples_are_read_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    class Counting:
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            read.append(len(texts))
            return np.eye(len(texts), 40, dtype=np.float32)

    monkeypatch.setattr(examples, "_encoder", lambda file: Counting())
    asked(confusable_examples, {f"d{k}": [f"{k} {i}" for i in range(50)] for k in range(20)})
    assert read == [examples.MOST_TOGETHER // 20] * 20
    read.clear()
    asked(confusable_examples, {f"d{k}": [f"{k} {i}" for i in range(5)] for k in range(170)})
    assert read == [2] * 160
    read.clear()
    asked(confusable_examples, {f"d{k}": [f"{k} {i}" for i in range(50)] for k in range(2)})
    assert read == [examples.MOST] * 2


@settings(max_examples=50)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_likeness_is_the_same_from_both_sides(rows: int, others: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(rows + others, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    one, other = vectors[:rows], vectors[rows:]
    there, back = likeness_of(one, other), likeness_of(other, one)
    assert there.nearer == pytest.approx(back.nearer)
    assert there.closeness == pytest.approx(back.closeness, rel=1e-3, abs=1e-3)
    for cosine, i, j in there.pairs:
        assert cosine == pytest.approx(float(one[i] @ other[j]), abs=1e-5)
    assert there.pairs[0][0] == pytest.approx(float((one @ other.T).max()), abs=1e-5)
