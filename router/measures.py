"""Figures for how right a router is: accuracy, F1, calibration error, flips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.calibration import expected_calibration_error, softmax
from router.dataset import Row

FLIP_TAGS = frozenset({"typos", "lower_nopunct", "all_caps"})


@dataclass(frozen=True)
class Report:
    """`confusion[i, j]` counts rows of domain i that were given domain j; `parts` scores each part of the set by itself.

    Accuracy counts a row's alternates as right; precision, recall and F1 go by its one label.
    """

    rows: int
    domains: tuple[str, ...]
    accuracy: float
    macro_f1: float
    ece: float
    confusion: NDArray[np.int64]
    per_domain: dict[str, dict[str, float]]
    flips: float | None
    parts: dict[str, Report]

    def summary(self) -> dict[str, float]:
        """The headline figures, rounded to four places."""
        figures = {"rows": self.rows, "accuracy": self.accuracy, "macro_f1": self.macro_f1, "ece": self.ece}
        if self.flips is not None:
            figures["flips"] = self.flips
        return {name: round(float(value), 4) for name, value in figures.items()}


def score(rows: Sequence[Row], domains: Sequence[str], logits: NDArray[np.floating]) -> Report:
    """Score calibrated `logits`, shape (rows, domains). A row whose domain the router does not know counts as wrong."""
    probabilities = softmax(logits)
    report = _score(rows, tuple(domains), probabilities)
    parts = {}
    for part in sorted({row.part for row in rows} - {""}):
        index = [i for i, row in enumerate(rows) if row.part == part]
        parts[part] = _score([rows[i] for i in index], tuple(domains), probabilities[index])
    flips = _flips(rows, probabilities.argmax(axis=1))
    if "hard" in parts:
        parts["hard"] = Report(**{**parts["hard"].__dict__, "flips": flips})
    return Report(**{**report.__dict__, "flips": flips, "parts": parts})


def _score(rows: Sequence[Row], domains: tuple[str, ...], probabilities: NDArray[np.float64]) -> Report:
    predicted = probabilities.argmax(axis=1)
    right = np.array([row.accepts(domains[p]) for row, p in zip(rows, predicted, strict=True)], dtype=bool)
    confusion = np.zeros((len(domains), len(domains)), dtype=np.int64)
    for row, p in zip(rows, predicted, strict=True):
        if row.domain in domains:
            confusion[domains.index(row.domain), p] += 1
    per_domain = {d: _domain_figures(confusion, i) for i, d in enumerate(domains)}
    f1 = [figures["f1"] for figures in per_domain.values() if figures["rows"]]
    return Report(
        rows=len(rows),
        domains=domains,
        accuracy=float(right.mean()) if len(right) else 0.0,
        macro_f1=float(np.mean(f1)) if f1 else 0.0,
        ece=expected_calibration_error(probabilities.max(axis=1), right) if len(right) else 0.0,
        confusion=confusion,
        per_domain=per_domain,
        flips=None,
        parts={},
    )


def _domain_figures(confusion: NDArray[np.int64], i: int) -> dict[str, float]:
    hit, given, present = int(confusion[i, i]), int(confusion[:, i].sum()), int(confusion[i].sum())
    precision, recall = hit / given if given else 0.0, hit / present if present else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hit else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "rows": present}


def _flips(rows: Sequence[Row], predicted: NDArray[np.integer]) -> float | None:
    """The share of perturbed rows whose domain differs from that of the row they were made from."""
    at = {row.id: i for i, row in enumerate(rows) if row.id}
    pairs = [(i, at[row.origin]) for i, row in enumerate(rows) if row.origin in at and row.tags & FLIP_TAGS]
    return float(np.mean([predicted[a] != predicted[b] for a, b in pairs])) if pairs else None
