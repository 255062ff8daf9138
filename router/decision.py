"""What the router is asked and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Reason = Literal["best", "cheapest", "tie", "pinned", "only_capable", "low_confidence"]
Stage = Literal["transformer", "none"]


@dataclass(frozen=True, slots=True)
class Query:
    """One request as the router sees it.

    `tokens` is the estimated size of prompt and answer together; `least_tokens` a size that the prompt alone surely reaches.
    """

    text: str
    requested_model: str = "auto"
    needs: frozenset[str] = frozenset()
    tokens: int = 0
    least_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Scores:
    """The calibrated probability of every domain, in the order of the domains; they sum to 1."""

    by_domain: Mapping[str, float]
    stage: Stage

    @property
    def domain(self) -> str:
        """The most probable domain."""
        return max(self.by_domain, key=lambda d: self.by_domain[d])

    @property
    def confidence(self) -> float:
        """The probability of the most probable domain."""
        return max(self.by_domain.values())


@dataclass(frozen=True, slots=True)
class Candidate:
    """One expert in the policy's arithmetic. `refused` says why it could not be chosen, None when it could."""

    expert: str
    expected_quality: float | None
    price: float | None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The chosen expert, why, and who is asked next when it fails. `scores` is None where nothing had to be classified."""

    expert: str
    reason: Reason
    fallbacks: tuple[str, ...]
    scores: Scores | None
    candidates: tuple[Candidate, ...]
    artifact: str
    seconds: float

    @property
    def stage(self) -> Stage:
        return self.scores.stage if self.scores else "none"

    def summary(self) -> dict[str, Any]:
        """The keys of one line of batch routing, less its id."""
        scores = self.scores
        return {
            "expert": self.expert,
            "domain": scores.domain if scores else None,
            "confidence": round(scores.confidence, 4) if scores else None,
            "probabilities": {d: round(p, 4) for d, p in scores.by_domain.items()} if scores else {},
            "stage": self.stage,
            "reason": self.reason,
            "latency_ms": round(self.seconds * 1000, 3),
        }

    def described(self) -> dict[str, Any]:
        """The summary, and every expert's line of the policy's arithmetic."""
        return self.summary() | {
            "fallbacks": list(self.fallbacks),
            "artifact": self.artifact,
            "experts": [
                {"id": c.expert, "expected_quality": c.expected_quality, "price": c.price, "refused": c.refused}
                for c in self.candidates
            ],
        }
