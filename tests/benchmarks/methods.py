"""The ways of routing that are compared: each one small function from a bench to a fitted classifier, by name in METHODS."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.calibration import Temperature
from router.classifier import KernelHead, LinearHead
from router.dataset import Example, Row, examples_of
from router.experts import BUILT_IN_DOMAINS
from router.training.encoders import STATIC, TRANSFORMER
from tests.benchmarks.models import (
    Boosted,
    Calibrated,
    Classifier,
    Dense,
    InTurn,
    Layers,
    Lexical,
    Mean,
    Neighbours,
    Read,
    Scorer,
    VectorHead,
)
from tests.benchmarks.readers import CONTRASTIVE, ORIGINAL, ORIGINAL_STATIC, SMALLER

Vectors = NDArray[np.float32]

FEATURES = 40_000  # of each lexical kind, the most frequent
HIDDEN = 64
TREES = 150  # of each domain, at most
SEED = 0


@dataclass(frozen=True)
class Lessons:
    """What methods learn from: `targets` (texts, domains) are shares. Calibrators are fitted on the `held` ones alone."""

    texts: list[str]
    targets: Vectors
    held_texts: list[str]
    held_targets: Vectors

    @staticmethod
    def of(rows: Sequence[Row]) -> Lessons:
        """As router/training/train.py does: every text once, conversations turn by turn."""
        unique: dict[str, Example] = {}
        for row in rows:
            for example in examples_of(row):
                unique.setdefault(example.text, example)
        taught = [example for example in unique.values() if not example.held_out]
        held = [example for example in unique.values() if example.held_out]
        return Lessons([e.text for e in taught], _targets(taught), [e.text for e in held], _targets(held))


def _targets(examples: Sequence[Example]) -> Vectors:
    return np.array([example.target(BUILT_IN_DOMAINS) for example in examples], dtype=np.float32)


@dataclass
class Bench:
    """What a method is fitted on and with. `seconds` of the processor says how long each took, reading the texts left out."""

    lessons: Lessons
    read: Read
    seconds: dict[str, float] = field(default_factory=dict)
    _fitted: dict[str, Classifier] = field(default_factory=dict)

    def fitted(self, name: str) -> Classifier:
        """The method so named, fitted once. Raises NotHereError where an encoder that it reads with is not to be had."""
        if name not in self._fitted:
            method = METHODS[name]
            parts = [self.fitted(part) for part in method.parts]
            for source in method.sources:
                self.read(source, [*self.lessons.texts, *self.lessons.held_texts])
            started = time.process_time()
            self._fitted[name] = method.fit(self, parts)
            own = time.process_time() - started
            self.seconds[name] = own + sum(self.seconds[part] for part in method.parts)
        return self._fitted[name]

    def calibrated(self, scorer: Scorer, sources: tuple[str, ...] = ()) -> Calibrated:
        """At the temperature that suits the held-out texts."""
        held = scorer.logits(self.lessons.held_texts, self.read)
        return Calibrated(scorer, Temperature.fit(held, self.lessons.held_targets).temperature, sources)


@dataclass(frozen=True)
class Method:
    """`family` is what it reads with, `label` what it does with that; `parts` are methods that it is made of."""

    family: str
    label: str
    fit: Callable[[Bench, list[Classifier]], Classifier]
    sources: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


def weighed(targets: Vectors) -> tuple[NDArray[np.intp], NDArray[np.intp], Vectors]:
    """Rows, labels and weights for heads that know one label a row: the domains weigh alike, alternates by their shares."""
    rows, labels = np.nonzero(targets)
    return rows, labels, targets[rows, labels] / targets.sum(axis=0)[labels] * len(targets) / targets.shape[1]


def words() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), max_features=FEATURES, sublinear_tf=True, dtype=np.float32)


def characters() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), max_features=FEATURES, sublinear_tf=True, dtype=np.float32
    )


def both() -> Any:
    from sklearn.pipeline import make_union

    return make_union(words(), characters())


def counts() -> Any:
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(ngram_range=(1, 2), max_features=FEATURES, dtype=np.float32)


def logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10.0, max_iter=300)


def vector_machine() -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC(C=0.5)


def naive_bayes() -> Any:
    from sklearn.naive_bayes import MultinomialNB

    return MultinomialNB(alpha=0.1)


def lexical(features: Callable[[], Any], model: Callable[[], Any]) -> Callable[[Bench, list[Classifier]], Classifier]:
    def fit(bench: Bench, parts: list[Classifier]) -> Classifier:
        kind, head = features(), model()
        matrix = kind.fit_transform(bench.lessons.texts)
        rows, labels, shares = weighed(bench.lessons.targets)
        head.fit(matrix[rows], labels, sample_weight=shares)
        return bench.calibrated(Lexical(kind, head))

    return fit


def linear(vectors: Vectors, targets: Vectors) -> VectorHead:
    return LinearHead.fit(vectors, targets)


def kernel(vectors: Vectors, targets: Vectors) -> VectorHead:
    return KernelHead.fit(vectors, targets)


def neighbours(vectors: Vectors, targets: Vectors) -> VectorHead:
    return Neighbours(vectors, targets)


def boosting(vectors: Vectors, targets: Vectors) -> VectorHead:
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows, labels, shares = weighed(targets)
    model = HistGradientBoostingClassifier(max_iter=TREES, early_stopping=True, random_state=SEED)
    return Boosted(model.fit(vectors[rows], labels, sample_weight=shares))


def perceptron(vectors: Vectors, targets: Vectors) -> VectorHead:
    from sklearn.neural_network import MLPClassifier

    rows, labels, shares = weighed(targets)
    model = MLPClassifier(
        (HIDDEN,), alpha=1e-3, learning_rate_init=3e-3, early_stopping=True, max_iter=200, random_state=SEED
    )
    model.fit(vectors[rows], labels, sample_weight=shares)
    return Layers(
        tuple(weights.astype(np.float32) for weights in model.coefs_),
        tuple(bias.astype(np.float32) for bias in model.intercepts_),
    )


def dense(
    source: str, head: Callable[[Vectors, Vectors], VectorHead]
) -> Callable[[Bench, list[Classifier]], Classifier]:
    def fit(bench: Bench, parts: list[Classifier]) -> Classifier:
        vectors = bench.read(source, bench.lessons.texts)
        return bench.calibrated(Dense(source, head(vectors, bench.lessons.targets)), (source,))

    return fit


def mean(bench: Bench, parts: list[Classifier]) -> Classifier:
    together = Mean(tuple(parts))
    return bench.calibrated(together, together.sources)


def in_turn(sure: float) -> Callable[[Bench, list[Classifier]], Classifier]:
    def fit(bench: Bench, parts: list[Classifier]) -> Classifier:
        first, second = parts
        return InTurn(first, second, sure)

    return fit


HEADS: dict[str, Callable[[Vectors, Vectors], VectorHead]] = {
    "linear": linear,
    "kernel ridge": kernel,
    "20 neighbours": neighbours,
    "boosting": boosting,
    "perceptron": perceptron,
}
SHORT = {"kernel ridge": "kernel", "20 neighbours": "20-NN", "boosting": "boosted", "perceptron": "MLP"}
# Family -> its encoder and the heads that are tried on it.
ENCODED = {
    "MiniLM token table": (ORIGINAL_STATIC, ("linear", "20 neighbours", "boosting")),
    "MiniLM": (ORIGINAL, tuple(HEADS)),
    "MiniLM, contrastive": (CONTRASTIVE, ("linear", "kernel ridge", "20 neighbours")),
    "distilled n-grams": (STATIC, ("linear", "kernel ridge", "20 neighbours", "boosting")),
    "fine-tuned": (TRANSFORMER, tuple(HEADS)),
    "fine-tuned, 3 layers": (SMALLER, ("linear", "kernel ridge", "20 neighbours")),
}
LEXICAL, MEANS, CASCADE = "lexical", "mean of three", "cascade, MiniLM as it is"
SURENESSES = (0.7, 0.8, 0.85, 0.9, 0.95)

METHODS: dict[str, Method] = {
    "words, naive Bayes": Method(LEXICAL, "words, Bayes", lexical(counts, naive_bayes)),
    "words, linear": Method(LEXICAL, "words, linear", lexical(words, logistic)),
    "characters, linear": Method(LEXICAL, "characters, linear", lexical(characters, logistic)),
    "words + characters, linear": Method(LEXICAL, "both, linear", lexical(both, logistic)),
    "words + characters, SVM": Method(LEXICAL, "both, SVM", lexical(both, vector_machine)),
    **{
        f"{family}, {head}": Method(family, SHORT.get(head, head), dense(source, HEADS[head]), (source,))
        for family, (source, heads) in ENCODED.items()
        for head in heads
    },
    "mean of three, MiniLM as it is": Method(
        MEANS,
        "MiniLM as it is",
        mean,
        parts=("words + characters, linear", "MiniLM token table, linear", "MiniLM, kernel ridge"),
    ),
    "mean of three, fine-tuned": Method(
        MEANS,
        "fine-tuned",
        mean,
        parts=("words + characters, linear", "distilled n-grams, linear", "fine-tuned, linear"),
    ),
    **{
        f"{CASCADE}, {sure:g}": Method(
            CASCADE, f"{sure:g}", in_turn(sure), parts=("words + characters, linear", "MiniLM, kernel ridge")
        )
        for sure in SURENESSES
    },
}
