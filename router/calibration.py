"""Makes a classifier's confidence mean what it says, and measures how far it does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def softmax(logits: Floats) -> NDArray[np.float64]:
    """Probabilities along the last axis, shape kept."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def fit_temperature(logits: Floats, labels: NDArray[np.integer]) -> float:
    """The T > 0 that minimises the negative log likelihood of softmax(logits / T).

    `logits` has shape (rows, domains), `labels` the index of the right domain, shape (rows,). Temperature scaling as in
    Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        probabilities = softmax(logits / np.exp(log_temperature))
        return float(-np.log(np.maximum(probabilities[rows, labels], 1e-12)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded").x))


def expected_calibration_error(confidence: Floats, correct: NDArray[np.bool_], bins: int = 15) -> float:
    """ECE over equal-width bins: the mean gap between confidence and accuracy, weighted by the bins' sizes.

    Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning". Both arrays have shape (rows,).
    """
    if len(confidence) == 0:
        return 0.0
    index = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    gap = 0.0
    for b in range(bins):
        inside = index == b
        if inside.any():
            gap += inside.mean() * abs(float(np.mean(confidence[inside])) - float(np.mean(correct[inside])))
    return float(gap)
