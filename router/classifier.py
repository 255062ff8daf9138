"""Heads: from an embedding to one logit a domain. Trained with scikit-learn, served with NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from router.extensions import Registry

Floats = NDArray[np.float32]
# Regularisation of the linear head: the encoder was fitted to the same rows, so that a looser fit learns their noise.
C = 1.0
# Of the kernel head: where cross-validation on the corpus is at its best (docs/routing.md).
GAMMA = 1.0
ALPHA = 0.1
MOST_LANDMARKS = (
    8000  # the kernel matrix of twice as many is more than LAPACK's 32-bit sizes hold: it crashes the process
)


class Head(Protocol):
    """`name` is its key in HEADS; `arrays` is everything that `from_arrays` needs to build it again."""

    @property
    def name(self) -> str: ...

    def logits(self, embeddings: Floats) -> Floats:
        """(rows, dimensions) to (rows, domains)."""

    def arrays(self) -> dict[str, NDArray[Any]]: ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self: ...

    @classmethod
    def fit(cls, vectors: Floats, targets: Floats) -> Self:
        """Fitted on `vectors` (rows, dimensions) and `targets` (rows, domains), the share of each domain in a row's label.

        May import scikit-learn, which serving does not."""


@dataclass(frozen=True)
class LinearHead:
    """Multinomial logistic regression: `weights` (domains, dimensions), `bias` (domains,)."""

    weights: Floats
    bias: Floats
    name: str = "linear"

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or self.bias.shape != (self.weights.shape[0],):
            raise ValueError(f"weights {self.weights.shape} and bias {self.bias.shape} do not fit")

    def logits(self, embeddings: Floats) -> Floats:
        return np.asarray(embeddings @ self.weights.T + self.bias)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"weights": self.weights, "bias": self.bias}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> LinearHead:
        return cls(arrays["weights"].astype(np.float32), arrays["bias"].astype(np.float32))

    @classmethod
    def fit(cls, vectors: Floats, targets: Floats) -> LinearHead:
        """The domains weigh alike, however many rows each has; a row with alternates is a row of each, in shares."""
        from sklearn.linear_model import LogisticRegression

        rows, labels = np.nonzero(targets)
        shares = targets[rows, labels] / targets.sum(axis=0)[labels] * len(targets) / targets.shape[1]
        model = LogisticRegression(C=C, max_iter=2000).fit(vectors[rows], labels, sample_weight=shares)
        weights, bias = model.coef_, model.intercept_
        if len(weights) == 1:  # two classes: scikit-learn keeps one row, the logit of the second against the first
            weights, bias = np.vstack([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
        return cls(weights.astype(np.float32), bias.astype(np.float32))


class KernelHead:
    """Kernel ridge regression with a Gaussian kernel: logit_d(x) = Σ_i weights[i, d] · exp(-gamma · |x - landmarks[i]|²).

    `landmarks` (rows, dimensions), `weights` (rows, domains). The landmarks are kept in half precision, which is also
    what the weights have to be fitted on.
    """

    name = "kernel"

    def __init__(self, landmarks: NDArray[np.float16], weights: Floats, gamma: float) -> None:
        if landmarks.ndim != 2 or weights.ndim != 2 or len(landmarks) != len(weights):
            raise ValueError(f"landmarks {landmarks.shape} and weights {weights.shape} do not fit")
        self._stored, self._weights, self._gamma = landmarks.astype(np.float16), weights, gamma
        self._landmarks = self._stored.astype(np.float32)
        self._squares = (self._landmarks**2).sum(axis=1)

    def logits(self, embeddings: Floats) -> Floats:
        squares = (embeddings**2).sum(axis=1, keepdims=True)
        distances = squares + self._squares - 2 * (embeddings @ self._landmarks.T)
        return np.asarray(np.exp(-self._gamma * distances) @ self._weights, dtype=np.float32)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"landmarks": self._stored, "weights": self._weights, "gamma": np.array(self._gamma)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> KernelHead:
        return cls(arrays["landmarks"], arrays["weights"].astype(np.float32), float(arrays["gamma"]))

    @classmethod
    def fit(cls, vectors: Floats, targets: Floats) -> KernelHead:
        """Every row is a landmark, or MOST_LANDMARKS drawn by chance; the domains weigh alike."""
        from sklearn.kernel_ridge import KernelRidge

        if len(vectors) > MOST_LANDMARKS:
            kept = np.random.default_rng(0).permutation(len(vectors))[:MOST_LANDMARKS]
            vectors, targets = vectors[kept], targets[kept]
        landmarks = vectors.astype(np.float16)
        sizes = targets.sum(axis=0)
        balanced = (len(targets) / (targets.shape[1] * sizes))[targets.argmax(axis=1)]
        model = KernelRidge(kernel="rbf", gamma=GAMMA, alpha=ALPHA)
        model.fit(landmarks.astype(np.float64), targets, sample_weight=balanced)
        return cls(landmarks, model.dual_coef_.astype(np.float32), GAMMA)


HEADS: Registry[type[Head]] = Registry("moe_gateway.heads", {"kernel": KernelHead, "linear": LinearHead})
