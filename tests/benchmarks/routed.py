"""The packaged router measured whole, at other thresholds than its own: conversations, languages and policy included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from router.artifact import PACKAGED, Artifact, load_artifact
from router.cascade import Cascade, Stage
from router.dataset import Row
from router.errors import RouterError
from router.experts import BUILT_IN_DOMAINS, ExpertsFile, load_experts
from router.language import doubt_of, language_of
from router.measuring.answers import answers_of
from router.measuring.asking import asking_of
from router.measuring.evaluation import decided, silent
from router.routing import Router
from tests.benchmarks.models import Floats
from tests.benchmarks.readers import Library, NotHereError, Remembering

FAMILY = "the router"
# The first never asks the transformer, the last always does.
SURENESSES = (0.0, 0.7, 0.8, 0.85, 0.9, 0.95, 1.01)


def name_of(sure: float) -> str:
    label = label_of(sure)
    return f"{FAMILY}, {f'sure from {label}' if label[0].isdigit() else label}"


def label_of(sure: float) -> str:
    return {SURENESSES[0]: "n-grams only", SURENESSES[-1]: "always both"}.get(sure, f"{sure:g}")


def packaged() -> Artifact:
    """Raises NotHereError where there is no router of this version."""
    try:
        return load_artifact(PACKAGED)
    except RouterError as error:
        raise NotHereError(f"no packaged router: {error}") from None


def router_at(sure: float, artifact: Artifact, file: ExpertsFile, library: Library | None = None) -> Router:
    """The router whose cheap stage answers from the confidence `sure` on; with a `library` no text is read twice."""
    stages = [_remembering(stage, library) if library else stage for stage in artifact.stages]
    stages[0] = replace(stages[0], sure=sure)
    return Router(file, artifact, Cascade(artifact.manifest.domains, stages, language_of, doubt_of))


def _remembering(stage: Stage, library: Library) -> Stage:
    return replace(stage, encoder=Remembering(stage.encoder.name, stage.encoder.dimensions, library))


def answered(router: Router, rows: Sequence[Row]) -> tuple[Floats, float]:
    """Probabilities, shape (rows, domains), and the share of rows of which the last turn went to the transformer."""
    queries = [asking_of(row).query for row in rows]
    decisions = decided(router, queries, silent, "")
    last = router.score_many([query.text for query in queries])
    return answers_of(decisions, BUILT_IN_DOMAINS).probabilities, float(
        np.mean([s.stage == "transformer" for s in last])
    )


def experts(config: Path) -> ExpertsFile:
    return load_experts(config)
