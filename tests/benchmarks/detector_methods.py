"""Ways to find an added domain from a few examples, beside the one of router/detectors.py; all give chances on one scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.detectors import FOLDS, PRIOR, Detectors

Floats = NDArray[np.floating]
Score = Callable[[Floats], Floats]  # (rows, dimensions) to (rows,)
Fit = Callable[[Floats, Floats], Score]  # of the corpus and the examples, both (rows, dimensions)

LEFT_OUT = 100  # rows of the corpus nearest to an example, which may be of its domain
SELF_TRAINED = 50  # rows of the corpus that become examples, at half weight
STRICTNESS = 10.0  # of logistic regression
SHARPNESS = 10.0  # of the mean over neighbours


def ours(corpus: Floats, own: Floats) -> Score:
    detectors = Detectors.fit(corpus.astype(np.float32), [own.astype(np.float32)])
    return lambda vectors: detectors.found(vectors.astype(np.float32))[:, 0]


def plain_regression(corpus: Floats, own: Floats) -> Score:
    """Logistic regression, the examples weighing as much as the corpus; its own chances."""
    model = _regression(corpus, own, np.zeros(len(corpus)))
    return lambda vectors: np.asarray(model.predict_proba(vectors)[:, 1])


def regression(corpus: Floats, own: Floats) -> Score:
    return _margin(_regression(corpus, own, np.zeros(len(corpus))))


def regression_without_near_rows(corpus: Floats, own: Floats) -> Score:
    near = np.argsort(-(corpus @ own.T).max(axis=1))[:LEFT_OUT]
    rest = np.delete(corpus, near, axis=0)
    return _margin(_regression(rest, own, np.zeros(len(rest))))


def self_training(corpus: Floats, own: Floats) -> Score:
    """Logistic regression, twice more with the rows of the corpus that it finds as examples."""
    found = np.zeros(len(corpus))
    score = regression(corpus, own)
    for _ in range(2):
        found[:] = 0
        found[np.argsort(-score(corpus))[:SELF_TRAINED]] = 1
        score = _margin(_regression(corpus, own, found))
    return score


def centroid(corpus: Floats, own: Floats) -> Score:
    direction = own.mean(axis=0) - corpus.mean(axis=0)
    return lambda vectors: np.asarray(vectors @ direction)


def neighbours(corpus: Floats, own: Floats) -> Score:
    return lambda vectors: np.asarray(np.log(np.exp(SHARPNESS * (vectors @ own.T)).mean(axis=1)))


def on_one_scale(fit: Fit) -> Fit:
    """The chances that logistic regression on scores gives: examples that were left out weigh PRIOR, the corpus the rest."""

    def fitted(corpus: Floats, own: Floats) -> Score:
        from sklearn.linear_model import LogisticRegression

        score = fit(corpus, own)
        folds = np.arange(len(own)) % min(FOLDS, len(own))
        left_out = np.empty(len(own))
        for fold in range(folds.max() + 1):
            left_out[folds == fold] = fit(corpus, own[folds != fold])(own[folds == fold])
        scores = np.concatenate([left_out, score(corpus)])
        middle, width = scores.mean(), scores.std()
        labels = np.arange(len(scores)) < len(own)
        weights = np.where(labels, PRIOR / len(own), (1 - PRIOR) / len(corpus))
        model = LogisticRegression(C=1e6).fit(((scores - middle) / width)[:, None], labels, sample_weight=weights)
        return lambda vectors: np.asarray(model.predict_proba(((score(vectors) - middle) / width)[:, None])[:, 1])

    return fitted


def _regression(corpus: Floats, own: Floats, found: Floats) -> Any:
    from sklearn.linear_model import LogisticRegression

    others, more = corpus[found == 0], corpus[found == 1]
    positive = np.concatenate([np.ones(len(own)), np.full(len(more), 0.5)])
    total = positive.sum()
    weights = np.concatenate([np.full(len(others), total / len(others)), positive])
    labels = np.arange(len(weights)) >= len(others)
    return LogisticRegression(C=STRICTNESS, max_iter=500).fit(
        np.concatenate([others, own, more]), labels, sample_weight=weights
    )


def _margin(model: Any) -> Score:
    return lambda vectors: np.asarray(model.decision_function(vectors))


METHODS: Mapping[str, Fit] = {
    "logistic regression, as it is": plain_regression,
    "logistic regression": on_one_scale(regression),
    "the same, rows near the examples left out": on_one_scale(regression_without_near_rows),
    "the same, self-training": on_one_scale(self_training),
    "distance to the centroid": on_one_scale(centroid),
    "nearest examples": on_one_scale(neighbours),
    "Fisher's discriminant with found rows (chosen)": ours,
}
