from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.calibration import (
    CALIBRATORS,
    Calibrator,
    Isotonic,
    Temperature,
    expected_calibration_error,
    softmax,
)

Floats = NDArray[np.float64]

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


# Calibrators


def one_hot(labels: NDArray[np.int64], domains: int) -> Floats:
    return np.eye(domains)[labels]


def soft_targets(seed: int, rows: int, domains: int) -> Floats:
    """Labels, some of them in shares."""
    return np.random.default_rng(seed).dirichlet(np.full(domains, 0.3), size=rows)


def cross_entropy(probabilities: Floats, targets: Floats) -> float:
    return float(-(targets * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1).mean())


@pytest.fixture(scope="module", params=sorted(CALIBRATORS))
def fitted(request: pytest.FixtureRequest) -> Calibrator:
    """Each calibrator, fitted on scores that are louder than right."""
    honest = np.random.default_rng(4).normal(size=(600, 3))
    return CALIBRATORS[request.param].fit(honest * 3, one_hot(drawn_labels(softmax(honest)), 3))


@given(logits=LOGITS)
@settings(deadline=None, max_examples=60)
def test_calibrated_probabilities_are_positive_or_nothing_and_sum_to_one(
    fitted: Calibrator, logits: NDArray[np.float64]
) -> None:
    probabilities = fitted.probabilities(logits)
    assert probabilities.shape == logits.shape
    assert (probabilities >= 0).all()
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(logits)))


@given(logits=LOGITS)
@settings(deadline=None, max_examples=30)
def test_a_row_is_calibrated_alike_alone_and_among_others(fitted: Calibrator, logits: NDArray[np.float64]) -> None:
    alone = np.vstack([fitted.probabilities(row[None]) for row in logits])
    assert fitted.probabilities(logits) == pytest.approx(alone, abs=1e-12)


def test_no_rows_are_calibrated_to_no_rows(fitted: Calibrator) -> None:
    assert fitted.probabilities(np.zeros((0, 3))).shape == (0, 3)


def test_a_calibrator_is_built_again_from_its_arrays(fitted: Calibrator) -> None:
    again = CALIBRATORS[fitted.name].from_arrays(fitted.arrays())
    logits = np.random.default_rng(5).normal(size=(50, 3)) * 4
    assert again.name == fitted.name
    assert np.array_equal(again.probabilities(logits), fitted.probabilities(logits))


def test_the_arrays_of_a_calibrator_are_plain_numbers(fitted: Calibrator) -> None:
    assert fitted.arrays()
    assert all(array.dtype.kind == "f" for array in fitted.arrays().values())


@pytest.mark.parametrize("name", sorted(CALIBRATORS))
def test_a_fitted_calibrator_has_the_name_under_which_it_is_loaded(name: str) -> None:
    assert CALIBRATORS[name].fit(np.zeros((4, 2)), one_hot(np.arange(4) % 2, 2)).name == name


@pytest.mark.parametrize("name", sorted(CALIBRATORS))
def test_a_fit_lowers_the_calibration_error_of_an_overconfident_classifier(name: str) -> None:
    honest = np.random.default_rng(3).normal(size=(4000, 4))
    labels = drawn_labels(softmax(honest))
    loud, fresh = honest * 5, slice(2000, None)
    calibrator = CALIBRATORS[name].fit(loud[:2000], one_hot(labels[:2000], 4))

    def error(probabilities: NDArray[np.float64]) -> float:
        correct = probabilities.argmax(axis=1) == labels[fresh]
        return expected_calibration_error(probabilities.max(axis=1), correct)

    assert error(softmax(loud[fresh])) > 0.2
    assert error(calibrator.probabilities(loud[fresh])) < 0.05


# Temperature


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_the_temperature_undoes_an_exaggeration(factor: float) -> None:
    honest = np.random.default_rng(1).normal(size=(6000, 4)) * 1.5
    labels = drawn_labels(softmax(honest))
    assert Temperature.fit(honest * factor, one_hot(labels, 4)).temperature == pytest.approx(factor, rel=0.1)


@given(st.integers(0, 999), st.floats(0.3, 5), st.sampled_from(["drawn", "shares"]))
@settings(deadline=None, max_examples=20)
def test_the_fitted_temperature_has_the_least_loss(seed: int, warmth: float, kind: str) -> None:
    logits = np.random.default_rng(seed).normal(size=(300, 3)) * 4
    labels = one_hot(drawn_labels(softmax(logits / warmth), seed), 3)
    targets = labels if kind == "drawn" else 0.5 * labels + 0.5 * soft_targets(seed, 300, 3)
    fitted = Temperature.fit(logits, targets).temperature
    losses = [
        cross_entropy(Temperature(fitted * step).probabilities(logits), targets) for step in (1, 0.9, 0.99, 1.01, 1.1)
    ]
    assert losses[0] == min(losses)


def test_labels_in_shares_count_as_so_many_rows_of_each() -> None:
    logits = np.random.default_rng(6).normal(size=(60, 3)) * 2
    shares = np.array([[0.75, 0.25, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])[np.arange(60) % 3]
    rows, labels = logits.repeat(4, axis=0), np.concatenate([np.repeat(range(3), (4 * s).astype(int)) for s in shares])
    assert len(rows) == len(labels)
    assert Temperature.fit(logits, shares).temperature == pytest.approx(
        Temperature.fit(rows, one_hot(labels, 3)).temperature, rel=1e-3
    )


def test_the_temperature_of_a_classifier_that_is_never_wrong_is_small_and_positive() -> None:
    labels = np.arange(40) % 4
    assert 0 < Temperature.fit(one_hot(labels, 4), one_hot(labels, 4)).temperature < 0.1


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_what_is_no_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="a temperature of"):
        Temperature(temperature)


@given(logits=LOGITS, temperature=st.floats(0.1, 10))
@settings(deadline=None)
def test_a_temperature_changes_no_order(logits: NDArray[np.float64], temperature: float) -> None:
    probabilities = Temperature(temperature).probabilities(logits)
    for row, chances in zip(logits, probabilities, strict=True):
        order = np.argsort(row)
        assert (np.diff(chances[order]) >= 0).all()


# Isotonic


@given(st.integers(0, 999))
@settings(deadline=None, max_examples=20)
def test_isotonic_curves_never_fall_and_stay_between_nothing_and_one(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(120, 3)) * 3
    arrays = Isotonic.fit(logits, soft_targets(seed + 1, 120, 3)).arrays()
    knots, values = arrays["knots"], arrays["values"]
    assert knots.shape == values.shape
    assert len(values) == 3
    assert (np.diff(knots, axis=1) > 0).all()
    assert (np.diff(values, axis=1) >= 0).all()
    assert (values >= 0).all()
    assert (values <= 1).all()


def test_isotonic_probabilities_are_the_curves_brought_to_a_sum_of_one() -> None:
    knots = np.array([[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]])
    values = np.array([[0.0, 0.2, 1.0], [0.0, 0.6, 0.6]])
    logits = np.log([[0.75, 0.25], [0.5, 0.5]])
    expected = np.array([[0.6, 0.3], [0.2, 0.6]])
    assert Isotonic(Temperature(1), knots, values).probabilities(logits) == pytest.approx(
        expected / expected.sum(axis=1, keepdims=True)
    )


def test_a_temperature_comes_before_the_isotonic_curves() -> None:
    knots = np.array([[0.0, 1.0], [0.0, 1.0]])
    straight = Isotonic(Temperature(2), knots, knots)
    logits = np.random.default_rng(7).normal(size=(20, 2))
    assert straight.probabilities(logits) == pytest.approx(Temperature(2).probabilities(logits), abs=1e-6)


def test_where_every_curve_is_nothing_no_domain_is_preferred() -> None:
    knots = np.tile([0.0, 1.0], (4, 1))
    nothing = Isotonic(Temperature(1), knots, np.zeros((4, 2))).probabilities(np.array([[9.0, 0, 0, 0]]))
    assert nothing == pytest.approx(np.full((1, 4), 0.25))


def test_curves_that_a_temperature_cannot_bend_are_bent() -> None:
    """One domain is always twice as likely as the classifier says: no single temperature makes that good."""
    random = np.random.default_rng(8)
    told = random.dirichlet([1.0, 1.0], size=4000)
    truth = np.stack([told[:, 0] ** 2, 1 - told[:, 0] ** 2], axis=1)
    targets = one_hot(drawn_labels(truth), 2)
    logits = np.log(told)
    losses = [
        cross_entropy(kind.fit(logits, targets).probabilities(logits), targets) for kind in (Isotonic, Temperature)
    ]
    assert losses[0] < losses[1] - 0.02


@pytest.mark.parametrize(("knots", "values"), [((3, 4), (3, 5)), ((3, 4), (4, 3)), ((4,), (4,)), ((3, 4), (3,))])
def test_knots_and_values_that_do_not_fit_are_refused(knots: tuple[int, ...], values: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Isotonic(Temperature(1), np.zeros(knots), np.zeros(values))


# Calibration error


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
