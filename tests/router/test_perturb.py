from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.perturb import PERTURBATIONS, perturbed, typos

NAMES = sorted(PERTURBATIONS)
SENTENCE = "Why does my Python code, which compiles, print 3.14 twice?"


@given(st.text(max_size=80), st.sampled_from(NAMES))
def test_a_copy_is_the_same_whenever_it_is_made(text: str, name: str) -> None:
    first = perturbed(text, name)
    random.seed(7)
    assert perturbed(text, name) == first


@given(st.text(max_size=80))
def test_a_copy_by_typos_has_the_words_of_the_text(text: str) -> None:
    copy = perturbed(text, "typos")
    assert len(copy.split(" ")) == len(text.split(" "))
    changed = sum(a != b for a, b in zip(copy.split(" "), text.split(" "), strict=True))
    assert changed <= sum(len(word) >= 4 for word in text.split(" "))


def test_what_each_does() -> None:
    assert perturbed(SENTENCE, "lower") == SENTENCE.lower()
    assert perturbed(SENTENCE, "capitals") == SENTENCE.upper()
    assert perturbed("It's 2+2=4, right?", "no_punctuation") == "Its 2+2=4 right"
    assert perturbed("It's 2+2=4, RIGHT?", "careless") == "its 2+2=4 right"


def test_typos_reach_every_text_with_a_longer_word_and_different_texts_differently() -> None:
    copies = {typos("mitochondria", random.Random(seed)) for seed in range(40)}  # noqa: S311
    assert len(copies) > 10
    assert perturbed("a to is", "typos") == "a to is"


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_text_stays_empty(name: str) -> None:
    assert perturbed("", name) == ""
