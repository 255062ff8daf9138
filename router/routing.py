"""Router: from a query to a decision."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from router import policy
from router.artifact import Artifact, load_artifact
from router.calibration import softmax
from router.decision import Decision, Query, Scores
from router.errors import ArtifactError
from router.experts import ExpertsFile


class Router:
    """Immutable: experts and artifact of one moment. Calls are safe from any thread."""

    def __init__(self, file: ExpertsFile, artifact: Artifact) -> None:
        """Raises ArtifactError where the artifact was trained for other domains than the file names."""
        if set(artifact.manifest.domains) != set(file.domain_names):
            trained, wanted = ", ".join(artifact.manifest.domains), ", ".join(file.domain_names)
            raise ArtifactError(
                f"the router was trained for {trained}, experts.yaml names {wanted}; run: moe-gateway train"
            )
        self.file = file
        self.artifact = artifact

    @staticmethod
    def load(file: ExpertsFile, folder: Path) -> Router:
        """Raises ArtifactError."""
        return Router(file, load_artifact(folder))

    def resolve(self, requested_model: str) -> str | None:
        """The virtual model or expert id that `requested_model` means, None where it means nothing here."""
        name = self.file.aliases.get(requested_model, requested_model)
        return name if name in policy.POLICIES or name in self.file.experts else None

    def quick(self, query: Query) -> Decision | None:
        """The decision where nothing has to be classified, else None. Takes microseconds."""
        started = time.perf_counter()
        if query.requested_model not in self.file.experts:
            return None
        expert = query.requested_model
        refused = policy.refusals(self.file, query)
        return Decision(
            expert=expert,
            reason="pinned",
            fallbacks=tuple(e for e in self._declared(expert) if e not in refused),
            scores=None,
            candidates=policy.candidates(self.file, {}, {}),
            artifact=self.artifact.name,
            seconds=time.perf_counter() - started,
        )

    def decide(self, query: Query) -> Decision:
        """One decision. Raises NoExpertError where no expert is able to answer."""
        (decision,) = self.decide_many([query])
        return decision

    def decide_many(self, queries: Sequence[Query]) -> list[Decision]:
        """Decisions in the order of the queries, each with its share of the time. Raises NoExpertError."""
        quick = [self.quick(query) for query in queries]
        unsure = [q.text for q, decided in zip(queries, quick, strict=True) if decided is None]
        started = time.perf_counter()
        scores = iter(self.score_many(unsure))
        share = (time.perf_counter() - started) / max(1, len(unsure))
        return [
            decided or self._choose(query, next(scores), share) for query, decided in zip(queries, quick, strict=True)
        ]

    def score_many(self, texts: Sequence[str]) -> list[Scores]:
        """The calibrated probability of every domain, for each text."""
        if not texts:
            return []
        manifest = self.artifact.manifest
        logits = self.artifact.head.logits(self.artifact.encoder.encode(texts)) / manifest.temperature
        return [
            Scores(dict(zip(manifest.domains, row, strict=True)), "transformer") for row in softmax(logits).tolist()
        ]

    def _choose(self, query: Query, scores: Scores, scoring_seconds: float) -> Decision:
        started = time.perf_counter()
        able, refused = policy.able_or_raise(self.file, query)
        expected = policy.rank(self.file, scores, able)
        choice = policy.POLICIES[query.requested_model](policy.State(self.file, scores, expected))
        expert, reason = choice or (next(iter(expected)), "best")
        declared = [e for e in self._declared(expert) if e in expected]
        others = [e for e in expected if e != expert and e not in declared]
        return Decision(
            expert=expert,
            reason=reason,
            fallbacks=(*declared, *others),
            scores=scores,
            candidates=policy.candidates(self.file, expected, refused),
            artifact=self.artifact.name,
            seconds=scoring_seconds + time.perf_counter() - started,
        )

    def _declared(self, expert: str) -> tuple[str, ...]:
        return self.file.experts[expert].fallbacks
