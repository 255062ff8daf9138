"""Detectors: the domains that an operator adds, a linear one each, beside a classifier that is left as it is.

With P the classifier's probabilities of its own domains and f_k the chance that a text is of the added domain k,

    P'(d) = P(d) · Π_k (1 - f_k)            for the domains that the classifier knows
    P'(k) = (1 - Π_j (1 - f_j)) · f_k / Σ f   for those that were added

so where no detector finds anything, every decision stays what it was.

The corpus holds prompts of the added domain under other labels, so none of it is taken for what the domain is not: it lends
its mean μ and its covariance S alone, which a hundred prompts of thousands hardly move. With m the mean of the examples

    score(x) = x · S⁻¹ (m - μ)      Fisher's linear discriminant, S shrunk towards a sphere
    f(x) = 1 / (1 + exp(-a · score(x) - b))

The prompts of the corpus with the highest scores then join the examples, lightly. a and b are fitted to the scores of examples
that were left out, against the corpus less what scores as high as half of them (Platt 1999, "Probabilistic Outputs for Support
Vector Machines", section 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

SHRINKAGE = 0.5  # how far the covariance is brought towards a sphere
FOUND_SHARE = 0.01  # of the corpus, the prompts most like the examples, which join them …
FOUND_WEIGHT = 10.0  # … and count as so many examples together
ROUNDS = 2
FOLDS = 10
LIKE = 0.5  # a prompt of the corpus that scores higher than this share of the examples is no counterexample
PRIOR = 0.15  # the share of prompts that are thought to be of an added domain
C = 10.0  # regularisation of a detector that learns from another
LEAST = 1e-4  # of a chance, from which a row is learnt from as an example too
SHARPNESS = 2.0  # of what it learns: its odds are the other's to this power


class Detectors:
    """`weights` (added domains, dimensions), `bias` (added domains,)."""

    def __init__(self, weights: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        if weights.ndim != 2 or bias.shape != (len(weights),):
            raise ValueError(f"weights {weights.shape} and bias {bias.shape} do not fit")
        self.weights, self.bias = weights, bias

    def __len__(self) -> int:
        return len(self.bias)

    def found(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """The chance that each of `vectors` (rows, dimensions) is of each added domain, shape (rows, added domains)."""
        return _logistic((vectors @ self.weights.T + self.bias).astype(np.float64))

    def extended(self, probabilities: Floats, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """(rows, domains) and the vectors (rows, dimensions) to (rows, domains + added domains)."""
        known = np.asarray(probabilities, dtype=np.float64)
        if len(self) == 0:
            return known
        found = self.found(vectors)
        rest = np.prod(1 - found, axis=1, keepdims=True)
        added = found / np.maximum(found.sum(axis=1, keepdims=True), 1e-300) * (1 - rest)
        return np.concatenate([known * rest, added], axis=1)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"weights": self.weights, "bias": self.bias}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Detectors:
        return Detectors(arrays["weights"].astype(np.float32), arrays["bias"].astype(np.float32))

    @staticmethod
    def fit(
        corpus: NDArray[np.float32],
        examples: Sequence[NDArray[np.float32]],
        found: NDArray[np.float64] | None = None,
    ) -> Detectors:
        """One detector for each array of `examples` (count, dimensions), against `corpus` (rows, dimensions).

        `found` (rows, added domains) is what the detectors of a better encoder say of the same corpus. A cheap encoder knows
        too little of meaning to find a domain from ten examples; from what another found in the whole corpus it learns
        where it cannot be sure.
        """
        if not examples:
            return Detectors.none(corpus.shape[1])
        if found is None:
            finder = _Finder(corpus)
            fitted = [finder.detector(own) for own in examples]
        else:
            fitted = [_taught(corpus, own, found[:, k]) for k, own in enumerate(examples)]
        weights, bias = zip(*fitted, strict=True)
        return Detectors(np.stack(weights).astype(np.float32), np.array(bias, dtype=np.float32))

    @staticmethod
    def none(dimensions: int) -> Detectors:
        """Those of a router to which no domain was added."""
        return Detectors(np.zeros((0, dimensions), dtype=np.float32), np.zeros(0, dtype=np.float32))


class _Finder:
    """What the corpus lends to every detector: its vectors, its mean and the inverse of its shrunk covariance."""

    def __init__(self, corpus: NDArray[np.float32]) -> None:
        self._corpus = corpus.astype(np.float64)
        self._mean = self._corpus.mean(axis=0)
        centred = self._corpus - self._mean
        covariance = centred.T @ centred / len(corpus)
        size = len(covariance)
        sphere = np.eye(size) * max(float(np.trace(covariance)) / size, 1e-9)
        self._inverse = np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * sphere)

    def detector(self, own: NDArray[np.float32]) -> tuple[Floats, float]:
        """Weights (dimensions,) and bias for the examples `own` (count, dimensions)."""
        direction = self._direction(own)
        folds = np.arange(len(own)) % min(FOLDS, len(own))
        left_out = np.zeros(len(own))
        for fold in range(folds.max() + 1):
            out = folds == fold
            left_out[out] = own[out] @ (self._direction(own[~out]) if not out.all() else direction)
        scores = self._corpus @ direction
        others = scores[scores < np.quantile(left_out, LIKE)]
        slope, bias = _platt(left_out, others if len(others) else scores)
        return slope * direction, bias

    def _direction(self, own: NDArray[np.float32]) -> Floats:
        direction = self._inverse @ (own.mean(axis=0) - self._mean)
        count = max(1, round(FOUND_SHARE * len(self._corpus)))
        for _ in range(ROUNDS):
            nearest = np.argpartition(-(self._corpus @ direction), count - 1)[:count]
            found = FOUND_WEIGHT * self._corpus[nearest].mean(axis=0)
            direction = self._inverse @ ((own.sum(axis=0) + found) / (len(own) + FOUND_WEIGHT) - self._mean)
        return np.asarray(direction)


def _platt(own: Floats, others: Floats) -> tuple[float, float]:
    """Slope and bias that turn scores into chances: those of `own` weigh PRIOR together, those of `others` the rest.

    Of n examples each is taken for one with the chance (n + 1) / (n + 2): few examples make nothing certain.
    """
    from sklearn.linear_model import LogisticRegression

    sure = (len(own) + 1) / (len(own) + 2)
    scores = np.concatenate([own, own, others])
    middle, width = scores.mean(), max(float(scores.std()), 1e-9)
    labels = np.repeat([1, 0], [len(own), len(own) + len(others)])
    counts = np.repeat(
        [sure * PRIOR / len(own), (1 - sure) * PRIOR / len(own), (1 - PRIOR) / len(others)],
        [len(own), len(own), len(others)],
    )
    model = LogisticRegression(C=1e6).fit(((scores - middle) / width)[:, None], labels, sample_weight=counts)
    slope = float(model.coef_[0, 0]) / width
    return slope, float(model.intercept_[0]) - slope * float(middle)


def _taught(corpus: NDArray[np.float32], own: NDArray[np.float32], found: Floats) -> tuple[Floats, float]:
    """Logistic regression on `found` (rows,), the chance that each row of the corpus is of the domain, and on its examples.

    The chance that half of the corpus has is taken off, and the rest is sharpened: a little doubt that the other stage would
    not act upon either would leave a cheap one sure of nothing.
    """
    from sklearn.linear_model import LogisticRegression

    usual = float(np.median(found))
    chance = _sharpened(np.maximum(found - usual, 0) / max(1 - usual, 1e-9))
    likely = chance > LEAST
    vectors = np.concatenate([corpus, corpus[likely], own])
    labels = np.repeat([0, 1], [len(corpus), int(likely.sum()) + len(own)])
    weights = np.concatenate([1 - chance, chance[likely], np.ones(len(own))])
    model = LogisticRegression(C=C, max_iter=500).fit(vectors, labels, sample_weight=weights)
    return model.coef_[0], float(model.intercept_[0])


def _sharpened(chance: Floats) -> Floats:
    ayes, noes = chance**SHARPNESS, (1 - chance) ** SHARPNESS
    return np.asarray(ayes / (ayes + noes))


def _logistic(logits: Floats) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))))
