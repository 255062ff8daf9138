"""Runs a router over labelled prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from router.artifact import Artifact
from router.dataset import Row
from router.measures import Report, score

CHUNK = 64


def evaluate(artifact: Artifact, rows: Sequence[Row], progress: Callable[[int, int], None] | None = None) -> Report:
    """Score the artifact's classifier on `rows`, part by part where they name parts."""
    parts: list[NDArray[np.floating]] = [np.zeros((0, len(artifact.manifest.domains)))]
    for start in range(0, len(rows), CHUNK):
        vectors = artifact.encoder.encode([row.text for row in rows[start : start + CHUNK]])
        parts.append(artifact.head.logits(vectors) / artifact.manifest.temperature)
        if progress:
            progress(min(start + CHUNK, len(rows)), len(rows))
    return score(rows, artifact.manifest.domains, np.concatenate(parts))
