from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.calibration import expected_calibration_error, fit_temperature, softmax

LOGITS = st.lists(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), min_size=1, max_size=6).map(np.array)


def drawn_labels(probabilities: NDArray[np.float64], seed: int = 0) -> NDArray[np.int64]:
    """One label a row, drawn with the row's probabilities."""
    chances = np.random.default_rng(seed).random((len(probabilities), 1))
    passed = (probabilities.cumsum(axis=1) < chances).sum(axis=1)
    return np.asarray(np.minimum(passed, probabilities.shape[1] - 1))


@given(LOGITS)
@settings(deadline=None)
def test_probabilities_are_not_negative_and_sum_to_one(logits: NDArray[np.float64]) -> None:
    probabilities = softmax(logits)
    assert probabilities.shape == logits.shape
    assert (probabilities >= 0).all()
    assert probabilities.sum(axis=-1) == pytest.approx(np.ones(len(logits)))


@given(LOGITS, st.floats(-1e3, 1e3))
@settings(deadline=None)
def test_adding_the_same_to_all_logits_changes_nothing(logits: NDArray[np.float64], shift: float) -> None:
    assert softmax(logits + shift) == pytest.approx(softmax(logits), abs=1e-6)


def test_probabilities_are_what_the_formula_says() -> None:
    assert softmax(np.log([[1.0, 2.0, 5.0]])) == pytest.approx(np.array([[0.125, 0.25, 0.625]]))


def test_huge_logits_do_not_overflow() -> None:
    assert softmax(np.array([1e30, -1e30], dtype=np.float32)) == pytest.approx([1.0, 0.0])


def test_no_rows_give_no_probabilities() -> None:
    assert softmax(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_the_temperature_undoes_an_exaggeration(factor: float) -> None:
    honest = np.random.default_rng(1).normal(size=(6000, 4)) * 1.5
    labels = drawn_labels(softmax(honest))
    assert fit_temperature(honest * factor, labels) == pytest.approx(factor, rel=0.1)


def test_the_fitted_temperature_is_likelier_than_its_neighbours() -> None:
    logits = np.random.default_rng(2).normal(size=(300, 3)) * 4
    labels = drawn_labels(softmax(logits / 2.5))

    def loss(temperature: float) -> float:
        return float(-np.log(softmax(logits / temperature)[np.arange(300), labels]).mean())

    fitted = fit_temperature(logits, labels)
    assert loss(fitted) <= min(loss(fitted * 0.9), loss(fitted * 1.1))


def test_a_fitted_temperature_lowers_the_calibration_error_of_an_overconfident_classifier() -> None:
    honest = np.random.default_rng(3).normal(size=(4000, 4))
    labels = drawn_labels(softmax(honest))
    loud = honest * 5

    def error(probabilities: NDArray[np.float64]) -> float:
        return expected_calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)

    assert error(softmax(loud)) > 0.2
    assert error(softmax(loud / fit_temperature(loud, labels))) < 0.05


def test_the_temperature_of_a_classifier_that_is_never_wrong_is_small_and_positive() -> None:
    labels = np.arange(40) % 4
    assert 0 < fit_temperature(np.eye(4)[labels], labels) < 0.1


def test_confidence_that_says_what_it_means_has_no_error() -> None:
    confidence = np.full(10, 0.7)
    assert expected_calibration_error(confidence, np.arange(10) < 7) == pytest.approx(0)


def test_the_error_is_the_gap_between_confidence_and_accuracy() -> None:
    assert expected_calibration_error(np.full(10, 0.9), np.arange(10) < 5) == pytest.approx(0.4)
    assert expected_calibration_error(np.full(10, 0.1), np.arange(10) < 5) == pytest.approx(0.4)


def test_bins_count_by_their_size() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.15])
    correct = np.array([True, True, False, True])
    expected = 3 / 4 * abs(0.95 - 2 / 3) + 1 / 4 * (1 - 0.15)
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_too_high_and_too_low_in_two_bins_do_not_cancel() -> None:
    confidence, correct = np.array([0.95, 0.35]), np.array([False, True])
    assert expected_calibration_error(confidence, correct) == pytest.approx((0.95 + 0.65) / 2)
    assert expected_calibration_error(confidence, correct, bins=1) == pytest.approx(0.15)


def test_full_confidence_falls_into_the_last_bin() -> None:
    assert expected_calibration_error(np.array([1.0, 0.99]), np.array([False, True])) == pytest.approx(0.495)


def test_nothing_measured_is_no_error() -> None:
    assert expected_calibration_error(np.zeros(0), np.zeros(0, dtype=bool)) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30), st.integers(1, 20))
@settings(deadline=None)
def test_the_error_lies_between_nothing_and_one_and_order_does_not_matter(
    rows: list[tuple[float, bool]], bins: int
) -> None:
    def error(pairs: list[tuple[float, bool]]) -> float:
        confidence, correct = np.array([c for c, _ in pairs]), np.array([r for _, r in pairs])
        return expected_calibration_error(confidence, correct, bins)

    assert 0 <= error(rows) <= 1 + 1e-9
    assert error(rows) == pytest.approx(error(rows[::-1]))
