from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression

from router import classifier
from router.calibration import softmax
from router.classifier import ALPHA, GAMMA, HEADS, C, Head, KernelHead, LinearHead

Floats = NDArray[np.float32]
Make = Callable[[int, int, int], Head]


def figures(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def unit_rows(seed: int, rows: int, dimensions: int) -> Floats:
    vectors = figures(seed, rows, dimensions)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def linear(seed: int, domains: int, dimensions: int) -> LinearHead:
    return LinearHead(figures(seed, domains, dimensions), figures(seed + 1, domains))


def kernel(seed: int, domains: int, dimensions: int, landmarks: int = 9) -> KernelHead:
    stored = unit_rows(seed, landmarks, dimensions).astype(np.float16)
    return KernelHead(stored, figures(seed + 1, landmarks, domains), gamma=0.7)


@given(st.integers(0, 99), st.integers(2, 5), st.integers(1, 6), st.integers(0, 7), st.sampled_from([linear, kernel]))
@settings(deadline=None)
def test_there_is_one_logit_for_each_row_and_domain(
    seed: int, domains: int, dimensions: int, rows: int, make: Make
) -> None:
    head = make(seed, domains, dimensions)
    assert head.logits(figures(seed, rows, dimensions)).shape == (rows, domains)


@given(st.integers(0, 99), st.sampled_from([linear, kernel]))
@settings(deadline=None)
def test_a_head_is_built_again_from_its_arrays(seed: int, make: Make) -> None:
    head = make(seed, 3, 5)
    again = HEADS[head.name].from_arrays(head.arrays())
    vectors = unit_rows(seed, 8, 5)
    assert again.name == head.name
    assert (again.logits(vectors) == head.logits(vectors)).all()


@given(st.integers(0, 99), st.sampled_from([linear, kernel]))
@settings(deadline=None)
def test_a_row_is_judged_alike_alone_and_among_others(seed: int, make: Make) -> None:
    head = make(seed, 4, 6)
    vectors = unit_rows(seed + 7, 5, 6)
    alone = np.vstack([head.logits(row[None]) for row in vectors])
    assert head.logits(vectors) == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("head", [linear(1, 3, 4), kernel(1, 3, 4)], ids=["linear", "kernel"])
def test_the_arrays_of_a_head_are_plain_numbers(head: Head) -> None:
    assert head.arrays()
    assert all(array.dtype.kind == "f" for array in head.arrays().values())


@pytest.mark.parametrize("head", [linear(1, 3, 4), kernel(1, 3, 4)], ids=["linear", "kernel"])
def test_a_head_of_single_precision_answers_in_single_precision(head: Head) -> None:
    assert head.logits(unit_rows(1, 2, 4)).dtype == np.float32


def test_linear_logits_are_weights_times_vector_plus_bias() -> None:
    head = LinearHead(np.array([[1, 2], [3, 4]], dtype=np.float32), np.array([10, 20], dtype=np.float32))
    assert head.logits(np.array([[1, 1], [0, 2]], dtype=np.float32)).tolist() == [[13, 27], [14, 28]]


@pytest.mark.parametrize(("weights", "bias"), [((2, 3), (3,)), ((2, 3), (2, 1)), ((2,), (2,)), ((2, 3), ())])
def test_linear_weights_and_bias_that_do_not_fit_are_refused(weights: tuple[int, ...], bias: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        LinearHead(np.zeros(weights, dtype=np.float32), np.zeros(bias, dtype=np.float32))


def test_kernel_logits_are_the_sum_of_the_landmarks_weights_by_nearness() -> None:
    landmarks = np.array([[0, 0], [1, 0]], dtype=np.float16)
    weights = np.array([[1, 2], [10, 20]], dtype=np.float32)
    head = KernelHead(landmarks, weights, gamma=0.5)
    at_first, between = 1.0, np.exp(-0.5)
    far, from_second = np.exp(-0.5 * 5), np.exp(-0.5 * 4)
    assert head.logits(np.array([[0, 0], [1, 2]], dtype=np.float32)) == pytest.approx(
        np.array(
            [
                [at_first + 10 * between, 2 * at_first + 20 * between],
                [far + 10 * from_second, 2 * far + 20 * from_second],
            ]
        ),
        rel=1e-5,
    )


def test_a_kernel_head_knows_nothing_far_from_its_landmarks() -> None:
    head = KernelHead(np.zeros((1, 2), dtype=np.float16), np.array([[5, -5]], dtype=np.float32), gamma=1.0)
    assert head.logits(np.array([[50, 50]], dtype=np.float32)).tolist() == [[0, 0]]


@pytest.mark.parametrize(("landmarks", "weights"), [((3, 2), (2, 4)), ((3,), (3, 4)), ((3, 2), (3,)), ((3, 2), (4, 3))])
def test_landmarks_and_weights_that_do_not_fit_are_refused(
    landmarks: tuple[int, ...], weights: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        KernelHead(np.zeros(landmarks, dtype=np.float16), np.zeros(weights, dtype=np.float32), gamma=1.0)


def test_landmarks_are_kept_in_half_precision() -> None:
    assert kernel(1, 2, 3).arrays()["landmarks"].dtype == np.float16


def test_every_head_is_registered_under_its_own_name() -> None:
    heads: list[Head] = [linear(1, 2, 3), kernel(1, 2, 3)]
    assert sorted(head.name for head in heads) == sorted(HEADS)


# Fitting


def clouds(classes: int, rows: int = 40, dimensions: int = 12, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Overlapping clouds of vectors of length 1, the first class three times as large as the others."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.full(rows * (3 if c == 0 else 1), c) for c in range(classes)])
    vectors = random.normal(size=(classes, dimensions))[labels] + random.normal(size=(len(labels), dimensions)) * 1.5
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def one_hot(labels: NDArray[np.int64], classes: int) -> Floats:
    return np.eye(classes, dtype=np.float32)[labels]


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_the_linear_head_gives_the_probabilities_that_scikit_learn_gives(classes: int) -> None:
    vectors, labels = clouds(classes)
    model = LogisticRegression(C=C, class_weight="balanced", max_iter=2000).fit(vectors, labels)
    fresh, _ = clouds(classes, seed=1)
    probabilities = softmax(LinearHead.fit(vectors, one_hot(labels, classes)).logits(fresh))
    assert probabilities.shape == (len(fresh), classes)
    assert probabilities == pytest.approx(model.predict_proba(fresh), abs=1e-4)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_a_label_in_shares_is_a_row_of_each_domain_in_scikit_learn(classes: int) -> None:
    vectors, labels = clouds(classes, rows=20)
    quarters = np.full(len(labels), 4)
    quarters[::3] = 3  # every third row is one of the next domain by a quarter
    targets = one_hot(labels, classes) * (quarters / 4)[:, None].astype(np.float32)
    targets += one_hot((labels + 1) % classes, classes) * (1 - quarters / 4)[:, None].astype(np.float32)
    rows = np.concatenate([vectors.repeat(quarters, axis=0), vectors.repeat(4 - quarters, axis=0)])
    told = np.concatenate([labels.repeat(quarters), ((labels + 1) % classes).repeat(4 - quarters)])
    # Four rows in place of each: a quarter of the weight, as scikit-learn's C belongs to one row.
    model = LogisticRegression(C=C / 4, class_weight="balanced", max_iter=2000).fit(rows, told)
    fresh, _ = clouds(classes, seed=1)
    assert softmax(LinearHead.fit(vectors, targets).logits(fresh)) == pytest.approx(
        model.predict_proba(fresh), abs=1e-4
    )


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_the_kernel_head_gives_the_scores_that_scikit_learn_gives(classes: int) -> None:
    vectors, labels = clouds(classes)
    weights = (len(labels) / (classes * np.bincount(labels)))[labels]
    model = KernelRidge(kernel="rbf", gamma=GAMMA, alpha=ALPHA)
    model.fit(vectors.astype(np.float16).astype(np.float64), one_hot(labels, classes), sample_weight=weights)
    fresh, _ = clouds(classes, seed=1)
    fitted = KernelHead.fit(vectors, one_hot(labels, classes))
    assert fitted.logits(fresh) == pytest.approx(model.predict(fresh.astype(np.float64)), abs=1e-3)
    assert len(fitted.arrays()["landmarks"]) == len(vectors)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_small_class_is_not_swamped_by_a_large_one(name: str) -> None:
    vectors, labels = clouds(2, rows=60)
    fresh, truth = clouds(2, rows=200, seed=0)
    predicted = HEADS[name].fit(vectors, one_hot(labels, 2)).logits(fresh).argmax(axis=1)
    assert (predicted[truth == 1] == 1).mean() > 0.7
    assert (predicted[truth == 0] == 0).mean() > 0.7


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_row_of_two_domains_lies_between_them(name: str) -> None:
    vectors, labels = clouds(3, rows=30)
    targets = one_hot(labels, 3)
    shared = np.flatnonzero(labels == 1)[0]
    before = HEADS[name].fit(vectors, targets).logits(vectors[shared][None])[0]
    targets[shared] = [0, 0.5, 0.5]
    after = HEADS[name].fit(vectors, targets).logits(vectors[shared][None])[0]
    assert after[2] - after[1] > before[2] - before[1]


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_fitted_head_has_the_name_under_which_it_is_loaded(name: str) -> None:
    vectors, labels = clouds(2, rows=5)
    fitted = HEADS[name].fit(vectors, one_hot(labels, 2))
    assert fitted.name == name
    assert fitted.logits(vectors).dtype == np.float32


def test_of_many_rows_a_kernel_head_keeps_some_the_same_ones_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "MOST_LANDMARKS", 40)
    labels = np.arange(200) % 2
    vectors = figures(1, 200, 6) * 0.1 + np.where(labels[:, None] == 0, 1, -1).astype(np.float32)
    one, other = (KernelHead.fit(vectors, one_hot(labels, 2)) for _ in range(2))
    assert len(one.arrays()["landmarks"]) == 40
    assert np.array_equal(one.arrays()["weights"], other.arrays()["weights"])
    assert (one.logits(vectors).argmax(axis=1) == labels).all()
