"""Calibrators make a classifier's confidence mean what it says. Fitted with SciPy and scikit-learn, served with NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from router.extensions import Registry

Floats = NDArray[np.floating]
TINY = 1e-6  # the least probability that is ever told


class Calibrator(Protocol):
    """`name` is its key in CALIBRATORS; `arrays` is everything needed to build it again."""

    @property
    def name(self) -> str: ...

    def probabilities(self, logits: Floats) -> NDArray[np.float64]:
        """(rows, domains) to probabilities of the same shape; each row sums to 1."""

    def arrays(self) -> dict[str, NDArray[Any]]: ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self: ...

    @classmethod
    def fit(cls, logits: Floats, targets: Floats) -> Self:
        """Fitted on rows that the head was not fitted on; both (rows, domains), `targets` the share of each domain."""


class Temperature:
    """softmax(logits / temperature): Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2."""

    name = "temperature"

    def __init__(self, temperature: float) -> None:
        if not (np.isfinite(temperature) and temperature > 0):
            raise ValueError(f"a temperature of {temperature} is none")
        self.temperature = float(temperature)

    def probabilities(self, logits: Floats) -> NDArray[np.float64]:
        return softmax(np.asarray(logits, dtype=np.float64) / self.temperature)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"temperature": np.array(self.temperature)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Temperature:
        return cls(float(arrays["temperature"]))

    @classmethod
    def fit(cls, logits: Floats, targets: Floats) -> Temperature:
        """The temperature that minimises the cross entropy of the probabilities against `targets`."""
        from scipy.optimize import minimize_scalar

        def loss(log_temperature: float) -> float:
            probabilities = softmax(logits / np.exp(log_temperature))
            return float(-(targets * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1).mean())

        return cls(float(np.exp(minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded").x)))


class Isotonic:
    """A temperature, then one monotone curve for every domain's probability, then brought back to a sum of 1.

    One curve a class as in Zadrozny and Elkan 2002, "Transforming Classifier Scores into Accurate Multiclass Probability
    Estimates". `knots` and `values` have shape (domains, points); between its points a curve is straight.
    """

    name = "isotonic"

    def __init__(self, temperature: Temperature, knots: Floats, values: Floats) -> None:
        if knots.ndim != 2 or knots.shape != values.shape:
            raise ValueError(f"knots {knots.shape} and values {values.shape} do not fit")
        self._temperature, self._knots, self._values = temperature, knots, values

    def probabilities(self, logits: Floats) -> NDArray[np.float64]:
        plain = self._temperature.probabilities(logits)
        curves = [np.interp(plain[:, d], self._knots[d], self._values[d]) for d in range(len(self._knots))]
        curved = np.maximum(np.stack(curves, axis=1), TINY)
        return np.asarray(curved / curved.sum(axis=1, keepdims=True))

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {**self._temperature.arrays(), "knots": self._knots, "values": self._values}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Isotonic:
        return cls(Temperature.from_arrays(arrays), arrays["knots"], arrays["values"])

    @classmethod
    def fit(cls, logits: Floats, targets: Floats) -> Isotonic:
        """One isotonic regression a domain, on the probabilities that a fitted temperature gives."""
        from sklearn.isotonic import IsotonicRegression

        temperature = Temperature.fit(logits, targets)
        plain = temperature.probabilities(logits)
        knots = np.linspace(0.0, 1.0, 101)
        curves = [
            IsotonicRegression(out_of_bounds="clip").fit(plain[:, d], targets[:, d]) for d in range(plain.shape[1])
        ]
        return cls(temperature, np.tile(knots, (len(curves), 1)), np.stack([curve.predict(knots) for curve in curves]))


def softmax(logits: Floats) -> NDArray[np.float64]:
    """Probabilities along the last axis, shape kept."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


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


CALIBRATORS: Registry[type[Calibrator]] = Registry(
    "moe_gateway.calibrators", {"temperature": Temperature, "isotonic": Isotonic}
)
