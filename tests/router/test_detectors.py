from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.detectors import FOUND_SHARE, FOUND_WEIGHT, ROUNDS, SHRINKAGE, Detectors

Floats = NDArray[np.float32]


def figures(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def unit(vectors: NDArray[np.floating]) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)


def cloud(seed: int, centre: int, rows: int, dimensions: int = 16, spread: float = 0.15) -> Floats:
    """Vectors of length 1 about the direction numbered `centre`."""
    return unit(np.eye(dimensions)[centre] + figures(seed, rows, dimensions) * spread)


def found_by(weights: Floats, bias: Floats, vectors: Floats) -> NDArray[np.float64]:
    """The chance that each detector gives each vector, by the textbook."""
    return np.asarray(1 / (1 + np.exp(-(vectors.astype(np.float64) @ weights.T.astype(np.float64) + bias))))


SEEDS, ADDED, KNOWN = st.integers(0, 999), st.integers(0, 4), st.integers(2, 5)


@given(SEEDS, KNOWN, ADDED, st.floats(0.1, 40))
@settings(deadline=None, max_examples=40)
def test_probabilities_go_on_to_sum_to_one(seed: int, known: int, added: int, loud: float) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(known), size=7)
    detectors = Detectors(figures(seed, added, 6) * np.float32(loud), figures(seed + 1, added) * np.float32(loud))
    extended = detectors.extended(probabilities, unit(figures(seed + 2, 7, 6)))
    assert extended.shape == (7, known + added)
    assert (extended >= 0).all()
    assert extended.sum(axis=1) == pytest.approx(np.ones(7))


@given(SEEDS, KNOWN, st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_probabilities_are_what_the_formula_says(seed: int, known: int, added: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(known), size=5)
    weights, bias, vectors = figures(seed, added, 6), figures(seed + 1, added), unit(figures(seed + 2, 5, 6))
    found = found_by(weights, bias, vectors)
    rest = np.prod(1 - found, axis=1, keepdims=True)
    expected = np.concatenate([probabilities * rest, (1 - rest) * found / found.sum(axis=1, keepdims=True)], axis=1)
    assert Detectors(weights, bias).extended(probabilities, vectors) == pytest.approx(expected, abs=1e-6)


@given(SEEDS, ADDED)
@settings(deadline=None, max_examples=40)
def test_what_is_found_is_a_chance_by_detector(seed: int, added: int) -> None:
    weights, bias, vectors = figures(seed, added, 6), figures(seed + 1, added), unit(figures(seed + 2, 5, 6))
    found = Detectors(weights, bias).found(vectors)
    assert found.shape == (5, added)
    assert found == pytest.approx(found_by(weights, bias, vectors), abs=1e-6)


@given(SEEDS, KNOWN, st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_where_nothing_is_found_every_decision_stays_what_it_was(seed: int, known: int, added: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(known), size=5)
    deaf = Detectors(figures(seed, added, 6), np.full(added, -40, dtype=np.float32))
    extended = deaf.extended(probabilities, unit(figures(seed + 2, 5, 6)))
    assert extended[:, :known] == pytest.approx(probabilities, abs=1e-9)
    assert extended[:, known:] == pytest.approx(np.zeros((5, added)), abs=1e-9)


@given(SEEDS, KNOWN, st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_the_domains_that_were_there_keep_their_order_and_their_proportions(seed: int, known: int, added: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(known), size=5)
    detectors = Detectors(figures(seed, added, 6) * 3, figures(seed + 1, added))
    kept = detectors.extended(probabilities, unit(figures(seed + 2, 5, 6)))[:, :known]
    assert kept / kept.sum(axis=1, keepdims=True) == pytest.approx(probabilities)


def test_without_added_domains_probabilities_are_left_alone() -> None:
    none = Detectors.none(6)
    probabilities = np.array([[0.3, 0.7]])
    assert len(none) == 0
    assert none.extended(probabilities, figures(0, 1, 6)).tolist() == [[0.3, 0.7]]


@pytest.mark.parametrize("bias", [-1e9, 1e9])
def test_a_detector_that_is_beyond_doubt_overflows_nothing(bias: float) -> None:
    sure = Detectors(np.zeros((1, 6), dtype=np.float32), np.array([bias], dtype=np.float32))
    extended = sure.extended(np.array([[0.4, 0.6]]), figures(0, 1, 6))
    assert extended.sum() == pytest.approx(1)
    assert extended[0, 2] == pytest.approx(float(bias > 0), abs=1e-9)


def test_two_detectors_that_are_both_sure_share_the_text() -> None:
    both = Detectors(np.zeros((2, 3), dtype=np.float32), np.array([9, 9], dtype=np.float32))
    assert both.extended(np.array([[0.5, 0.5]]), figures(0, 1, 3))[0, 2:] == pytest.approx([0.5, 0.5], abs=1e-3)


@given(SEEDS, ADDED)
@settings(deadline=None, max_examples=40)
def test_detectors_are_built_again_from_their_arrays(seed: int, added: int) -> None:
    detectors = Detectors(figures(seed, added, 6), figures(seed + 1, added))
    again = Detectors.from_arrays(detectors.arrays())
    vectors, probabilities = unit(figures(seed, 4, 6)), np.full((4, 2), 0.5)
    assert len(again) == added
    assert np.array_equal(again.extended(probabilities, vectors), detectors.extended(probabilities, vectors))


@pytest.mark.parametrize(("weights", "bias"), [((2, 3), (3,)), ((2, 3), (2, 1)), ((2,), (2,)), ((2, 3), ())])
def test_weights_and_bias_that_do_not_fit_are_refused(weights: tuple[int, ...], bias: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Detectors(np.zeros(weights, dtype=np.float32), np.zeros(bias, dtype=np.float32))


# Fitting

CORPUS = np.concatenate([cloud(seed, seed, 150) for seed in range(4)])  # four domains, in four directions


def chance_of(detectors: Detectors, vectors: Floats) -> NDArray[np.float64]:
    """What share of each vector goes to the added domains."""
    return np.asarray(detectors.extended(np.full((len(vectors), 4), 0.25), vectors)[:, 4:])


def test_a_handful_of_examples_finds_more_of_their_kind_and_nothing_else() -> None:
    detectors = Detectors.fit(CORPUS, [cloud(10, 7, 8)])
    assert chance_of(detectors, cloud(11, 7, 40)).min() > 0.5
    assert chance_of(detectors, CORPUS).max() < 0.5


def test_each_added_domain_has_a_detector_of_its_own_in_the_order_given() -> None:
    detectors = Detectors.fit(CORPUS, [cloud(10, 7, 8), cloud(12, 9, 8)])
    assert len(detectors) == 2
    assert (chance_of(detectors, cloud(11, 7, 20)).argmax(axis=1) == 0).all()
    assert (chance_of(detectors, cloud(13, 9, 20)).argmax(axis=1) == 1).all()


def test_another_added_domain_changes_no_detector() -> None:
    one, two = cloud(10, 7, 8), cloud(12, 9, 8)
    alone, both = Detectors.fit(CORPUS, [one]).arrays(), Detectors.fit(CORPUS, [one, two]).arrays()
    assert np.array_equal(alone["weights"][0], both["weights"][0])
    assert alone["bias"][0] == both["bias"][0]


def test_prompts_of_the_added_domain_that_stand_in_the_corpus_do_not_talk_it_down() -> None:
    """Ten examples of what a part of the corpus is about, under other labels."""
    inside = np.concatenate([CORPUS, cloud(20, 7, 60)])
    detectors = Detectors.fit(inside, [cloud(10, 7, 10)])
    assert chance_of(detectors, cloud(11, 7, 40)).min() > 5 * chance_of(detectors, CORPUS).max()


def test_the_direction_of_a_detector_is_fishers_with_the_nearest_of_the_corpus_among_the_examples() -> None:
    own, size = cloud(10, 7, 6), CORPUS.shape[1]
    mean = CORPUS.mean(axis=0)
    spread = np.cov(CORPUS.T, bias=True)
    shrunk = (1 - SHRINKAGE) * spread + SHRINKAGE * np.eye(size) * np.trace(spread) / size
    direction = np.linalg.solve(shrunk, own.mean(axis=0) - mean)
    for _ in range(ROUNDS):
        nearest = CORPUS[np.argsort(CORPUS @ direction)[-round(FOUND_SHARE * len(CORPUS)) :]]
        centre = (own.sum(axis=0) + FOUND_WEIGHT * nearest.mean(axis=0)) / (len(own) + FOUND_WEIGHT)
        direction = np.linalg.solve(shrunk, centre - mean)
    (weights,) = Detectors.fit(CORPUS, [own]).weights
    assert weights / np.linalg.norm(weights) == pytest.approx(direction / np.linalg.norm(direction), abs=1e-3)


def test_chances_are_fitted_on_examples_that_were_left_out() -> None:
    """In many dimensions three examples lie further along their own direction than others of their kind do."""
    corpus = unit(figures(40, 400, 128))
    own = unit(np.eye(128)[0] + figures(41, 3, 128) * 0.15)
    others = unit(np.eye(128)[0] + figures(42, 50, 128) * 0.15)
    assert Detectors.fit(corpus, [own]).found(others).mean() > 0.75


def test_few_examples_make_nothing_certain() -> None:
    surest = [chance_of(Detectors.fit(CORPUS, [cloud(10, 7, n)]), cloud(11, 7, 40)).max() for n in (2, 40)]
    assert surest[0] < surest[1] < 1


def test_what_a_better_encoder_found_teaches_a_cheap_one() -> None:
    """The cheap one keeps six dimensions of sixteen."""
    inside = np.concatenate([CORPUS, cloud(20, 7, 60)])
    better = Detectors.fit(inside, [cloud(10, 7, 10)])
    mixing = figures(5, 16, 6)

    def cheap(vectors: Floats) -> Floats:
        return unit(vectors @ mixing)

    alone = Detectors.fit(cheap(inside), [cheap(cloud(10, 7, 10))])
    taught = Detectors.fit(cheap(inside), [cheap(cloud(10, 7, 10))], better.found(inside))
    fresh = np.concatenate([cloud(30, 7, 60), *(cloud(31 + centre, centre, 60) for centre in range(4))])
    wanted = better.found(fresh)
    errors = [float(np.abs(made.found(cheap(fresh)) - wanted).mean()) for made in (taught, alone)]
    assert errors[0] < errors[1]
    assert errors[0] < 0.1


def test_each_detector_learns_from_its_own_column_of_what_was_found() -> None:
    found = np.zeros((len(CORPUS), 2))
    found[:150, 0], found[150:300, 1] = 1, 1
    taught = Detectors.fit(CORPUS, [cloud(10, 7, 8), cloud(12, 9, 8)], found)
    told = taught.found(CORPUS)
    assert told[:150, 0].min() > 0.5 > told[150:, 0].max()
    assert told[150:300, 1].min() > 0.5 > np.delete(told[:, 1], np.s_[150:300]).max()


@pytest.mark.parametrize("count", [1, 2, 50])
def test_any_number_of_examples_makes_a_detector(count: int) -> None:
    detectors = Detectors.fit(CORPUS, [cloud(10, 7, count)])
    assert np.isfinite(detectors.weights).all()
    assert chance_of(detectors, cloud(10, 7, count)).min() > 0.5


def test_no_added_domain_makes_no_detector() -> None:
    assert len(Detectors.fit(CORPUS, [])) == 0
    assert Detectors.fit(CORPUS, []).weights.shape == (0, 16)


def test_a_little_doubt_everywhere_teaches_a_cheap_encoder_no_doubt() -> None:
    inside = np.concatenate([CORPUS, cloud(20, 7, 60)])
    found = np.full((len(inside), 1), 0.1)
    found[len(CORPUS) :] = 0.9
    taught = Detectors.fit(inside, [cloud(10, 7, 10)], found)
    assert taught.found(CORPUS).mean() < 0.03
    assert taught.found(cloud(11, 7, 40)).mean() > 0.7


def test_a_cheap_encoder_does_not_ask_where_the_better_one_would_not_move_a_prompt_either() -> None:
    """A quarter of a chance is doubt that is not acted upon; most of a chance is."""
    near, inside = cloud(20, 7, 60), cloud(21, 9, 60)
    corpus = np.concatenate([CORPUS, near, inside])
    found = np.concatenate([np.zeros(len(CORPUS)), np.full(60, 0.25), np.full(60, 0.75)])[:, None]
    told = Detectors.fit(corpus, [cloud(10, 9, 10)], found).found(corpus)[:, 0]
    assert told[len(CORPUS) : -60].mean() < 0.15
    assert told[-60:].mean() > 0.85


def test_what_is_certainly_found_or_not_stays_certain() -> None:
    found = np.zeros((len(CORPUS), 1))
    found[:150] = 1
    told = Detectors.fit(CORPUS, [cloud(10, 0, 10)], found).found(CORPUS)[:, 0]
    assert np.isfinite(told).all()
    assert told[:150].min() > 0.5 > told[150:].max()
