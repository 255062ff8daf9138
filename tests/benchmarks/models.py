"""What a method is once it is fitted: texts to probabilities. What is served with NumPy here would be in the product as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from router.calibration import softmax

Floats = NDArray[np.floating]
Vectors = NDArray[np.float32]
Read = Callable[
    [str, Sequence[str]], Vectors
]  # the vectors of texts by the encoder so named, shape (texts, dimensions)

NEIGHBOURS = 20
DOUBT = 0.2  # neighbours that every domain has beforehand: none is impossible
CHUNK = 1024  # rows whose distances to every training text are held at once
TINY = 1e-9


class Scorer(Protocol):
    def logits(self, texts: Sequence[str], read: Read) -> Floats:
        """Shape (texts, domains), not calibrated."""


class Classifier(Protocol):
    """`sources` are the encoders that it reads with."""

    @property
    def sources(self) -> tuple[str, ...]: ...

    def probabilities(self, texts: Sequence[str], read: Read) -> Floats:
        """Shape (texts, domains), each row summing to 1."""


class VectorHead(Protocol):
    def logits(self, embeddings: Vectors) -> Floats: ...


@dataclass(frozen=True)
class Lexical:
    """scikit-learn's features of the text itself and its classifier over them, served by scikit-learn."""

    features: Any
    model: Any

    def logits(self, texts: Sequence[str], read: Read) -> Floats:
        matrix = self.features.transform(texts)
        if hasattr(self.model, "decision_function"):
            return np.asarray(self.model.decision_function(matrix))
        return np.asarray(self.model.predict_joint_log_proba(matrix))


@dataclass(frozen=True)
class Dense:
    """A head over one encoder's vectors."""

    source: str
    head: VectorHead

    def logits(self, texts: Sequence[str], read: Read) -> Floats:
        vectors = read(self.source, texts)
        parts = [self.head.logits(vectors[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
        return np.concatenate(parts)


@dataclass(frozen=True)
class Neighbours:
    """The mean label of the nearest training texts: `vectors` (rows, dimensions), `targets` (rows, domains)."""

    vectors: Vectors
    targets: Vectors

    def logits(self, embeddings: Vectors) -> Floats:
        near = min(NEIGHBOURS, len(self.vectors))
        nearest = np.argpartition(-(embeddings @ self.vectors.T), near - 1, axis=1)[:, :near]
        return np.asarray(np.log(self.targets[nearest].sum(axis=1) + DOUBT))


@dataclass(frozen=True)
class Layers:
    """A multi-layer perceptron with ReLU between its layers: `weights` (in, out) and `biases` (out,) of each."""

    weights: tuple[Vectors, ...]
    biases: tuple[Vectors, ...]

    def logits(self, embeddings: Vectors) -> Floats:
        hidden = embeddings
        for weights, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.maximum(hidden @ weights + bias, 0)
        return np.asarray(hidden @ self.weights[-1] + self.biases[-1])


@dataclass(frozen=True)
class Boosted:
    """Gradient-boosted trees, served by scikit-learn."""

    model: Any

    def logits(self, embeddings: Vectors) -> Floats:
        return np.asarray(self.model.decision_function(embeddings))


@dataclass(frozen=True)
class Calibrated:
    """A scorer at its temperature."""

    scorer: Scorer
    temperature: float
    sources: tuple[str, ...] = ()

    def probabilities(self, texts: Sequence[str], read: Read) -> Floats:
        return softmax(self.scorer.logits(texts, read) / self.temperature)


@dataclass(frozen=True)
class Mean:
    """The mean of what several classifiers say, as logits: it is less sure than they are, and is calibrated again."""

    members: tuple[Classifier, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(source for member in self.members for source in member.sources))

    def logits(self, texts: Sequence[str], read: Read) -> Floats:
        total = np.sum([member.probabilities(texts, read) for member in self.members], axis=0)
        return np.asarray(np.log(total / len(self.members) + TINY))


@dataclass(frozen=True)
class InTurn:
    """A cascade: `second` is asked only where `first` is less confident than `sure`."""

    first: Classifier
    second: Classifier
    sure: float

    @property
    def sources(self) -> tuple[str, ...]:
        return (*self.first.sources, *self.second.sources)

    def probabilities(self, texts: Sequence[str], read: Read) -> Floats:
        said = np.array(self.first.probabilities(texts, read))
        left = np.flatnonzero(said.max(axis=1) < self.sure).tolist()
        if left:
            said[left] = self.second.probabilities([texts[i] for i in left], read)
        return said

    def passed_on(self, texts: Sequence[str], read: Read) -> float:
        """The share of `texts` that the second is asked about."""
        return float(np.mean(self.first.probabilities(texts, read).max(axis=1) < self.sure))
