"""Whether a router that was trained anew does the old domains as well as the one that serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.artifact import Artifact
from router.cascade import Probabilities
from router.dataset import Row
from router.experts import BUILT_IN_DOMAINS
from router.measuring.measures import score_probabilities
from router.vectors import Vectors


@dataclass(frozen=True)
class Regression:
    """Macro-F1 over the domains that both routers know, before and after, on `rows` prompts; and the same figure of the domain
    that lost most."""

    before: float
    after: float
    rows: int
    worst: str = ""
    worst_before: float = 0.0
    worst_after: float = 0.0

    @property
    def lost(self) -> float:
        return self.before - self.after

    def __str__(self) -> str:
        most = f"; most in {self.worst}: {self.worst_before:.3f} → {self.worst_after:.3f}" if self.worst else ""
        return f"macro-F1 on {self.rows} prompts of the old domains {self.before:.3f} → {self.after:.3f}{most}"


def regression(old: Artifact, new: Artifact, rows: Sequence[Row]) -> Regression | None:
    """Of the rows that neither was trained on, and the examples of added domains, which both were: a new domain may take
    those of an old one for itself. None where there are none that both have vectors of."""
    shared = [domain for domain in old.manifest.domains if domain in new.manifest.domains]
    vectors = [(artifact, artifact.vectors()) for artifact in (old, new)]
    measured = [row for row in rows if _measurable(row, shared)]
    known = [_places(artifact, vectors, measured) for artifact, vectors in vectors]
    kept = [i for i in range(len(measured)) if all(None not in places[i] for places in known)]
    if not kept:
        return None
    measured = [measured[i] for i in kept]
    before, after = (_figures(artifact, kept_vectors, measured, shared) for artifact, kept_vectors in vectors)
    present = [domain for domain in shared if any(row.domain == domain for row in measured)]
    worst = max(present, key=lambda domain: before[domain] - after[domain])
    means = [float(np.mean([figures[domain] for domain in present])) for figures in (before, after)]
    return Regression(means[0], means[1], len(measured), worst, before[worst], after[worst])


def _measurable(row: Row, domains: Sequence[str]) -> bool:
    return row.domain in domains and len(row.turns) < 2 and (row.held_out or row.domain not in BUILT_IN_DOMAINS)


def _places(artifact: Artifact, vectors: Vectors, rows: Sequence[Row]) -> list[tuple[int | None, ...]]:
    """Of each row, its place among the vectors of every stage."""
    texts = [row.text for row in rows]
    return list(zip(*(vectors.find(stage.encoder.name, texts) for stage in artifact.stages), strict=True))


def _figures(artifact: Artifact, vectors: Vectors, rows: Sequence[Row], domains: Sequence[str]) -> dict[str, float]:
    """F1 of each of `domains`, by the last stage, as it follows the ones before it."""
    texts, found = [row.text for row in rows], None
    for stage in artifact.stages:
        places = [place for place in vectors.find(stage.encoder.name, texts) if place is not None]
        found = stage.of_vectors(vectors.table(stage.encoder.name)[places], found)
    said: Probabilities = np.zeros((0, 0)) if found is None else found
    report = score_probabilities(rows, artifact.manifest.domains, said)
    return {domain: report.per_domain[domain]["f1"] for domain in domains}
