"""Figures for how right a router is: accuracy, F1, calibration error, flips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.calibration import expected_calibration_error, softmax
from router.dataset import Row

# Copies of a row that mean the same: whatever else a tag says of a copy, such as that it was cut short, is no flip.
FLIP_TAGS = frozenset({"typos", "lower", "capitals", "no_punctuation", "careless", "lower_nopunct", "all_caps"})
BINS = 15
Z = 1.96  # standard deviations about the mean of a normal distribution that hold 95 % of it

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Bin:
    """One bar of a reliability diagram: the rows whose confidence is in [low, high), and how sure and how right they are."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Report:
    """`confusion[i, j]` counts rows of domain i that were given domain j; `parts` scores each part of the set by itself.

    Accuracy counts a row's alternates as right; precision, recall and F1 go by its one label. `source_accuracy` is the mean
    of the accuracies over the sources that rows name, so that a large source weighs no more than a small one.
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
    source_accuracy: float | None = None
    reliability: tuple[Bin, ...] = ()

    def summary(self) -> dict[str, float]:
        """The headline figures, rounded to four places."""
        figures = {"rows": self.rows, "accuracy": self.accuracy, "macro_f1": self.macro_f1, "ece": self.ece}
        if self.flips is not None:
            figures["flips"] = self.flips
        return {name: round(float(value), 4) for name, value in figures.items()}

    def described(self) -> dict[str, Any]:
        """Everything but the parts, as JSON has it."""
        return {
            "rows": self.rows,
            "accuracy": self.accuracy,
            "f1": self.macro_f1,
            "ece": self.ece,
            "source_accuracy": self.source_accuracy,
            "flips": self.flips,
            "per_domain": self.per_domain,
            "confusion": self.confusion.tolist(),
            "reliability": [vars(bar) for bar in self.reliability],
        }


def score(rows: Sequence[Row], domains: Sequence[str], logits: Floats) -> Report:
    """Score calibrated `logits`, shape (rows, domains). A row whose domain the router does not know counts as wrong."""
    return score_probabilities(rows, domains, softmax(logits))


def score_probabilities(rows: Sequence[Row], domains: Sequence[str], probabilities: Floats) -> Report:
    """Score `probabilities`, shape (rows, domains), of which each row sums to 1; a row of zeros was not answered: it is wrong."""
    report = _score(rows, tuple(domains), probabilities)
    given, pairs = probabilities.argmax(axis=1), pairs_of(rows)
    parts = {}
    for name in sorted({row.part for row in rows} - {""}):
        index = [i for i, row in enumerate(rows) if row.part == name]
        part = _score([rows[i] for i in index], tuple(domains), probabilities[index])
        parts[name] = replace(part, flips=flips([pair for pair in pairs if rows[pair[0]].part == name], given))
    return replace(report, flips=flips(pairs, given), parts=parts)


def accepted(rows: Sequence[Row], domains: Sequence[str], probabilities: Floats) -> Bools:
    """Whether each row's most probable domain counts as right, shape (rows,)."""
    right = [bool(p.any()) and row.accepts(domains[p.argmax()]) for row, p in zip(rows, probabilities, strict=True)]
    return np.array(right, dtype=bool)


def reliability(confidence: Floats, right: Bools, bins: int = BINS) -> tuple[Bin, ...]:
    """The bars of a reliability diagram over equal bins, those of expected_calibration_error; empty ones are left out."""
    index = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    return tuple(
        Bin(b / bins, (b + 1) / bins, int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean()))
        for b in range(bins)
        if (inside := index == b).any()
    )


def interval(right: int, rows: int) -> tuple[float, float]:
    """Between which accuracies the true one lies with 95 % probability when `right` of `rows` were right.

    Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference". (0, 1) where there are no rows.
    """
    if not rows:
        return 0.0, 1.0
    share, n = right / rows, float(rows)
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * float(np.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def sliced(names: Iterable[Iterable[str]], right: Bools, confidence: Floats) -> dict[str, dict[str, Any]]:
    """Accuracy and mean confidence of each slice, the largest first; `names` are the slices that each row belongs to."""
    members: dict[str, list[int]] = {}
    for i, of_row in enumerate(names):
        for name in of_row:
            members.setdefault(name, []).append(i)
    figures: dict[str, dict[str, Any]] = {}
    for name, index in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        low, high = interval(int(right[index].sum()), len(index))
        mean = {"accuracy": float(right[index].mean()), "confidence": float(confidence[index].mean())}
        figures[name] = {"rows": len(index), **mean, "low": low, "high": high}
    return figures


def flips(pairs: Sequence[tuple[int, int]], given: NDArray[Any]) -> float | None:
    """The share of `pairs` whose two rows were not given the same; None where there are none. `given` has shape (rows,)."""
    return float(np.mean([given[a] != given[b] for a, b in pairs])) if pairs else None


def pairs_of(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """The perturbed rows that have one of FLIP_TAGS, each with the row that it was made from, as positions in `rows`."""
    at = {row.id: i for i, row in enumerate(rows) if row.id}
    return [(i, at[row.origin]) for i, row in enumerate(rows) if row.origin in at and row.tags & FLIP_TAGS]


def _score(rows: Sequence[Row], domains: tuple[str, ...], probabilities: Floats) -> Report:
    right, confidence = accepted(rows, domains, probabilities), probabilities.max(axis=1, initial=0.0)
    confusion = np.zeros((len(domains), len(domains)), dtype=np.int64)
    for row, chances in zip(rows, probabilities, strict=True):
        if row.domain in domains and chances.any():
            confusion[domains.index(row.domain), chances.argmax()] += 1
    per_domain = {d: _domain_figures(confusion, i) for i, d in enumerate(domains)}
    f1 = [figures["f1"] for figures in per_domain.values() if figures["rows"]]
    return Report(
        rows=len(rows),
        domains=domains,
        accuracy=float(right.mean()) if len(right) else 0.0,
        macro_f1=float(np.mean(f1)) if f1 else 0.0,
        ece=expected_calibration_error(confidence, right) if len(right) else 0.0,
        confusion=confusion,
        per_domain=per_domain,
        flips=None,
        parts={},
        source_accuracy=_over_sources(rows, right),
        reliability=reliability(confidence, right),
    )


def _over_sources(rows: Sequence[Row], right: Bools) -> float | None:
    by_source: dict[str, list[bool]] = {}
    for row, fine in zip(rows, right.tolist(), strict=True):
        if row.source:
            by_source.setdefault(row.source, []).append(fine)
    return float(np.mean([np.mean(fine) for fine in by_source.values()])) if by_source else None


def _domain_figures(confusion: NDArray[np.int64], i: int) -> dict[str, float]:
    hit, given, present = int(confusion[i, i]), int(confusion[:, i].sum()), int(confusion[i].sum())
    precision, recall = hit / given if given else 0.0, hit / present if present else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hit else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "rows": present}
