from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.dataset import Row
from router.experts import BUILT_IN_DOMAINS
from router.measuring.baselines import KEYWORDS, Baseline, always, baselines, keywords, majority, tf_idf
from tests.fakes.corpora import small_corpus

DOMAINS = ("code", "math", "bio", "general")


@pytest.fixture(scope="module")
def every() -> dict[str, Baseline]:
    return baselines(small_corpus(), small_corpus("bio"), DOMAINS)


def given_by(baseline: Baseline, *texts: str) -> list[str]:
    return [DOMAINS[i] for i in baseline(texts).argmax(axis=1)]


def test_every_domain_that_is_built_in_has_keywords() -> None:
    assert set(KEYWORDS) == set(BUILT_IN_DOMAINS)


def test_there_are_four(every: dict[str, Baseline]) -> None:
    assert set(every) == {"majority", "keywords", "always_general", "tf_idf"}
    assert given_by(every["majority"], "x", "y") == ["bio", "bio"]  # of the measured rows, not of those learned from
    assert given_by(every["always_general"], "x") == ["general"]


def test_without_a_general_domain_none_is_always_given_and_one_domain_is_not_learned() -> None:
    assert set(baselines(small_corpus("code"), small_corpus("code"), ("code", "math"))) == {"majority", "keywords"}


@given(st.lists(st.text(max_size=30), max_size=4))
@settings(deadline=None, max_examples=30)
def test_each_gives_probabilities_of_whatever_text(every: dict[str, Baseline], texts: list[str]) -> None:
    for baseline in every.values():
        chances = baseline(texts)
        assert chances.shape == (len(texts), len(DOMAINS))
        assert (chances >= 0).all()
        assert np.allclose(chances.sum(axis=1), 1)


def test_keywords_are_counted_and_none_means_general() -> None:
    found = given_by(
        keywords(DOMAINS), "Debug this PYTHON loop", "Which gene makes this protein?", "Hm.", "the integral"
    )
    assert found == ["code", "bio", "general", "math"]


def test_a_domain_without_keywords_is_never_chosen() -> None:
    assert keywords(("legal", "code"))(["legal code"]).argmax() == 1


def test_the_majority_is_counted() -> None:
    rows = [Row("a", "math"), Row("b", "math"), Row("c", "code")]
    assert given_by(majority(rows, DOMAINS), "anything") == ["math"]
    assert always("bio", DOMAINS)(["x"]).tolist() == [[0, 0, 1, 0]]


def test_tf_idf_learns_the_words_and_keeps_the_order_of_the_domains() -> None:
    found = given_by(tf_idf(small_corpus(), DOMAINS), "Fix the parser in my Python function", "A theorem about spheres")
    assert found == ["code", "math"]


def test_tf_idf_does_not_learn_from_what_is_held_out() -> None:
    rows = [Row(f"{word} {i}", domain) for i in range(60) for word, domain in (("aaaa", "code"), ("bbbb", "math"))]
    swapped = [Row(r.text, {"code": "math", "math": "code"}[r.domain]) if r.held_out else r for r in rows]
    assert any(r.held_out for r in rows)
    fitted, expected = baselines(swapped, rows, DOMAINS)["tf_idf"], baselines(rows, rows, DOMAINS)["tf_idf"]
    assert fitted(["aaaa 1"]) == pytest.approx(expected(["aaaa 1"]))
