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


HEADS: dict[str, Callable[[Mapping[str, NDArray[Any]]], Head]] = {"linear": LinearHead.from_arrays}
