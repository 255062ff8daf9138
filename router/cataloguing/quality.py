"""Quality: one figure to compare models by where their makers report the same benchmarks: a percentile, not a truth.

Makers report different benchmarks, each in a way of its own, so that scores are compared only within one benchmark. A model's
percentile in it is the share of the other models with a score there that score less, those that score the same counting half.
Quality for a task is the mean of its percentiles in the task's benchmarks (words.py says which those are), without a task in
all; benchmarks for which fewer than LEAST_MODELS models have a score are left out. Since one score says less than four, the mean
counts one benchmark more, in which everybody is in the middle. A model with no score that can be compared has no quality.

It says how a model stands among those of this catalogue, no more: old benchmarks were reported by old models and new ones by
new models, so that a model which is alone with weak company looks better than it is. `benchmarks` says what it rests on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from router.cataloguing.entry import Model
from router.cataloguing.words import BENCHMARKS

LEAST_MODELS = 4
MIDDLE = 50.0


@dataclass(frozen=True)
class Quality:
    """`value` is 0 to 100; `benchmarks` are those that it rests on, with the percentile in each."""

    value: float
    benchmarks: Mapping[str, float]


def benchmarks_of(task: str | None) -> tuple[str, ...]:
    """Those that tell of a task. Tasks that have none of their own, such as tools, are told of by all, as is no task."""
    own = tuple(name for name, benchmark in BENCHMARKS.items() if benchmark.task == task)
    return own or tuple(BENCHMARKS)


def qualities(models: Mapping[str, Model], task: str | None = None) -> dict[str, Quality]:
    """By the models' keys, those that have one."""
    percentiles: dict[str, dict[str, float]] = {key: {} for key in models}
    for benchmark in benchmarks_of(task):
        scores = {k: s.score for k, model in models.items() for s in model.scores if s.benchmark == benchmark}
        if len(scores) < LEAST_MODELS:
            continue
        for key, score in scores.items():
            percentiles[key][benchmark] = _percentile(score, list(scores.values()))
    return {
        key: Quality((MIDDLE + sum(found.values())) / (1 + len(found)), found)
        for key, found in percentiles.items()
        if found
    }


def _percentile(score: float, among: list[float]) -> float:
    """Of one of them; 50 where all score the same."""
    below = sum(other < score for other in among)
    same = sum(other == score for other in among) - 1
    return 100 * (below + same / 2) / (len(among) - 1)
