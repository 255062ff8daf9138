"""What rows were given by a router or by a baseline, and what the errors cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.dataset import Row
from router.decision import Decision
from router.errors import RouterError
from router.experts import ExpertsFile
from router.measuring.measures import Floats, score_probabilities


@dataclass(frozen=True)
class Answers:
    """`probabilities`, shape (rows, domains), are zeros where nobody could answer; `experts` are those chosen, then None."""

    probabilities: Floats
    experts: tuple[str | None, ...]

    @property
    def given(self) -> NDArray[np.intp]:
        """The position of each row's most probable domain, shape (rows,)."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def confidence(self) -> Floats:
        """The probability of each row's most probable domain, shape (rows,)."""
        return np.asarray(self.probabilities.max(axis=1, initial=0.0))


def answers_of(decisions: Sequence[Decision | RouterError], domains: Sequence[str]) -> Answers:
    """The answers that decisions are; an error stands for a query that nobody could answer."""
    scores = [d.scores.by_domain if isinstance(d, Decision) and d.scores else {} for d in decisions]
    chances = np.array([[by_domain.get(domain, 0.0) for domain in domains] for by_domain in scores], dtype=float)
    experts = tuple(d.expert if isinstance(d, Decision) else None for d in decisions)
    return Answers(chances.reshape(len(decisions), len(domains)), experts)


def scored(file: ExpertsFile, rows: Sequence[Row], domains: Sequence[str], answers: Answers) -> dict[str, Any]:
    """`all` and `parts`: the report's figures, and `quality_lost`, the mean of what the choices cost."""
    report = score_probabilities(rows, domains, answers.probabilities)
    lost = [quality_lost(file, row, expert) for row, expert in zip(rows, answers.experts, strict=True)]
    by_part: dict[str, list[float]] = {name: [] for name in report.parts}
    for row, cost in zip(rows, lost, strict=True):
        by_part.get(row.part, []).append(cost)
    parts = {name: part.described() | {"quality_lost": mean(by_part[name])} for name, part in report.parts.items()}
    return {"all": report.described() | {"quality_lost": mean(lost)}, "parts": parts}


def best_expert(file: ExpertsFile, domain: str) -> str:
    """The expert of the highest quality in the domain, the first of equals."""
    return max(file.experts, key=lambda expert: file.quality(expert, domain))


def quality_lost(file: ExpertsFile, row: Row, expert: str | None) -> float:
    """What the choice costs, 0 to 1: quality[best expert][d] - quality[expert][d], d being the row's domain.

    Where other labels count as right as well, the one that is kindest to the choice counts, as it does for accuracy.
    Nobody's answer has quality 0.
    """
    return min(
        file.quality(best_expert(file, label), label) - (file.quality(expert, label) if expert else 0.0)
        for label in (row.domain, *row.alternates)
    )


def mean(values: Iterable[float]) -> float:
    """0 where there are no values."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0
