"""acme_head: a head that knows the middle of each domain, and a calibrator of one figure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


class CentroidHead:
    """The logit of a domain is how near the text is to the mean of its prompts."""

    name = "acme-centroid"

    def __init__(self, means: NDArray[np.float32]) -> None:
        self._means = means

    def logits(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        return embeddings @ self._means.T

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        return {"means": self._means}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> CentroidHead:
        return cls(arrays["means"])

    @classmethod
    def fit(cls, vectors: NDArray[np.float32], targets: NDArray[np.float32]) -> CentroidHead:
        means = targets.T @ vectors
        return cls((means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32))


class Scale:
    """softmax(scale · logits), with the power of two that fits best."""

    name = "acme-scale"

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        shares = np.exp(self._scale * (logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
        probabilities: NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
        return probabilities

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        return {"scale": np.array(self._scale)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Scale:
        return cls(float(arrays["scale"]))

    @classmethod
    def fit(cls, logits: NDArray[np.float32], targets: NDArray[np.float32]) -> Scale:
        def loss(scale: float) -> float:
            return -float((targets * np.log(np.maximum(cls(scale).probabilities(logits), 1e-12))).sum())

        return cls(min((2.0**i for i in range(-4, 8)), key=loss))
