"""What the router is asked and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Reason = Literal[
    "best",
    "cheapest",
    "tie",
    "pinned",
    "only_capable",
    "low_confidence",
    "out_of_distribution",
    "unreadable_language",
    "sticky",
]
Stage = Literal["static", "transformer", "none"]
Doubt = Literal["out_of_distribution", "unreadable_language"]
Cause = Literal["capability", "cost", "window", "language", "health"]  # why an expert may not be chosen
Switch = Literal["topic", Cause]


@dataclass(frozen=True, slots=True)
class Overrides:
    """What one request wants otherwise than the file says; None where it says nothing.

    `policy` is used in place of the virtual model's, `domain` in place of the classification, and an expert whose
    estimated cost is above `max_cost_usd` is not asked.
    """

    policy: str | None = None
    domain: str | None = None
    max_cost_usd: float | None = None


NO_OVERRIDES = Overrides()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the request of one user turn was like. `prefix` is the estimated size in tokens of all that came before the turn,
    which the worker of the turn before may hold in its cache; `tokens` that of the whole prompt then."""

    prefix: int
    tokens: int
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Query:
    """One request as the router sees it.

    `text` is the last user turn and `earlier` the ones before it, oldest first, all of them clipped (see conversation.py);
    `continues` says that the request goes on with an answer under way: a tool loop, or a validation retry.
    `tokens` is the estimated size of the prompt; `least_tokens` a size that the prompt surely reaches;
    `answer_tokens` the most that an answer may have, None where nothing is said; `answers` how many are asked for.
    `asked` has one entry for each of `earlier` and `text`; empty where only the texts are known.
    `unable` are the experts that do not serve the `endpoint` that the request came to.
    """

    text: str
    requested_model: str = "auto"
    needs: frozenset[str] = frozenset()
    tokens: int = 0
    least_tokens: int = 0
    earlier: tuple[str, ...] = ()
    continues: bool = False
    overrides: Overrides = NO_OVERRIDES
    answer_tokens: int | None = None
    answers: int = 1
    asked: tuple[Asked, ...] = ()
    endpoint: str = ""
    unable: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Scores:
    """The calibrated probability of every domain, in the order of the domains; they sum to 1.

    `doubt` says why they are not to be trusted at all; `language` is an ISO 639-1 code, empty where it is not known.
    """

    by_domain: Mapping[str, float]
    stage: Stage
    doubt: Doubt | None = None
    language: str = ""

    @property
    def domain(self) -> str:
        """The most probable domain."""
        return max(self.by_domain, key=self.by_domain.__getitem__)

    @property
    def confidence(self) -> float:
        """The probability of the most probable domain."""
        return max(self.by_domain.values())

    @property
    def runner_up(self) -> str | None:
        """The second most probable domain, None where there is but one."""
        first = self.domain
        others = {domain: p for domain, p in self.by_domain.items() if domain != first}
        return max(others, key=others.__getitem__) if others else None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One expert in the policy's arithmetic. `refused` says why it could not be chosen, and `cause` of which kind that is; None
    when it could. The price, in USD per million tokens, is `estimated` where the expert is paid by the hour."""

    expert: str
    expected_quality: float | None
    price: float | None
    refused: str | None = None
    estimated: bool = False
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What was kept to when a text was judged and an expert chosen.

    `policy` is a virtual model, `tolerance` the expected quality that it gives away for a lower price, None where only another
    package knows. Below `floor`, a confidence, the expert `fallback` answers. `sure` has by stage the confidence from which on
    no later stage is asked.
    """

    policy: str
    tolerance: float | None
    floor: float
    fallback: str
    sure: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Decision:
    """The chosen expert, why, and who is asked next when it fails. `scores` is None where no domain was to be known.

    `previous` is the expert of the turn before, None where there was none or it does not matter; `switched` says why the
    expert is another, None where it is not. `prefix` is the estimated size, in tokens, of what the worker of the turn before may
    have in its cache. `doubt` is that of the last turn by itself; one that comes after others
    that could be judged says nothing, and its `scores` are theirs. `rules` is None where an expert was asked for by name.
    """

    expert: str
    reason: Reason
    fallbacks: tuple[str, ...]
    scores: Scores | None
    candidates: tuple[Candidate, ...]
    artifact: str
    seconds: float
    switched: Switch | None = None
    previous: str | None = None
    doubt: Doubt | None = None
    prefix: int = 0
    rules: Rules | None = None

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
        scores = self.scores
        return self.summary() | {
            "runner_up": scores.runner_up if scores else None,
            "doubt": self.doubt,
            "language": scores.language if scores else "",
            "previous": self.previous,
            "switched": self.switched,
            "fallbacks": list(self.fallbacks),
            "artifact": self.artifact,
            "experts": [
                {
                    "id": c.expert,
                    "expected_quality": c.expected_quality,
                    "price": c.price,
                    "price_estimated": c.estimated,
                    "refused": c.refused,
                    "cause": c.cause,
                }
                for c in self.candidates
            ],
        }
