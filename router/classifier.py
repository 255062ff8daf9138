"""Heads: from an embedding to one logit a domain. Trained with scikit-learn, served with NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Head(Protocol):
    """`name` is its key in HEADS; `arrays` is everything needed to build it again."""

    @property
    def name(self) -> str: ...

    def logits(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows, dimensions) to (rows, domains)."""

    def arrays(self) -> dict[str, NDArray[Any]]: ...


@dataclass(frozen=True)
class LinearHead:
    """Multinomial logistic regression: `weights` (domains, dimensions), `bias` (domains,)."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    name: str = "linear"

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or self.bias.shape != (self.weights.shape[0],):
            raise ValueError(f"weights {self.weights.shape} and bias {self.bias.shape} do not fit")

    def logits(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(embeddings @ self.weights.T + self.bias)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"weights": self.weights, "bias": self.bias}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> LinearHead:
        return LinearHead(arrays["weights"].astype(np.float32), arrays["bias"].astype(np.float32))


class KernelHead:
    """Kernel ridge regression with a Gaussian kernel: logit_d(x) = Σ_i weights[i, d] · exp(-gamma · |x - landmarks[i]|²).

    `landmarks` (rows, dimensions), `weights` (rows, domains). The landmarks are kept in half precision, which is also
    what the weights have to be fitted on.
    """

    name = "kernel"

    def __init__(self, landmarks: NDArray[np.float16], weights: NDArray[np.float32], gamma: float) -> None:
        if landmarks.ndim != 2 or weights.ndim != 2 or len(landmarks) != len(weights):
            raise ValueError(f"landmarks {landmarks.shape} and weights {weights.shape} do not fit")
        self._stored, self._weights, self._gamma = landmarks.astype(np.float16), weights, gamma
        self._landmarks = self._stored.astype(np.float32)
        self._squares = (self._landmarks**2).sum(axis=1)

    def logits(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        squares = (embeddings**2).sum(axis=1, keepdims=True)
        distances = squares + self._squares - 2 * (embeddings @ self._landmarks.T)
        return np.asarray(np.exp(-self._gamma * distances) @ self._weights, dtype=np.float32)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"landmarks": self._stored, "weights": self._weights, "gamma": np.array(self._gamma)}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> KernelHead:
        return KernelHead(arrays["landmarks"], arrays["weights"].astype(np.float32), float(arrays["gamma"]))


HEADS: dict[str, Callable[[Mapping[str, NDArray[Any]]], Head]] = {
    "kernel": KernelHead.from_arrays,
    "linear": LinearHead.from_arrays,
}
