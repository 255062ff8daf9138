"""Weighed: what a decision was made from, as the ledger keeps it: small, and JSON as text. Nothing of the prompt is in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from router.decision import Candidate, Decision

# Experts of one decision that are kept, the best of those that could be chosen first: a row stays small, whatever the file is.
MOST_OPTIONS = 16

Reasons = tuple[Decision, str | None]  # a decision, and why the expert that it chose was passed over


class Option(NamedTuple):
    """One expert in the policy's arithmetic, as router.decision.Candidate says it."""

    expert: str
    quality: float | None
    price: float | None


class Weighed(msgspec.Struct, frozen=True, array_like=True):
    """Fields are told apart by their places: new ones come last, with a default. `passed_over` is why the chosen expert was not
    asked, None where it was. `estimated` are the experts whose price is; `refused` has the cause and the words for each that could
    not be chosen. Of experts beyond MOST_OPTIONS it has `left_out`, their number."""

    chosen: str
    probabilities: dict[str, float] | None
    policy: str | None
    tolerance: float | None
    floor: float | None
    fallback: str | None
    sure: dict[str, float]
    doubt: str | None
    language: str
    previous: str | None
    switched: str | None
    passed_over: str | None
    options: list[Option]
    estimated: list[str]
    refused: dict[str, tuple[str | None, str]]
    left_out: int = 0

    @classmethod
    def of(cls, reasons: Reasons) -> Weighed:
        """Takes some microseconds: not for the event loop."""
        decision, passed_over = reasons
        scores, rules = decision.scores, decision.rules
        kept = _kept(decision)
        return cls(
            decision.expert,
            {domain: round(p, 4) for domain, p in scores.by_domain.items()} if scores else None,
            rules.policy if rules else None,
            rules.tolerance if rules else None,
            rules.floor if rules else None,
            rules.fallback if rules else None,
            dict(rules.sure) if rules else {},
            decision.doubt,
            scores.language if scores else "",
            decision.previous,
            decision.switched,
            passed_over,
            [Option(c.expert, _rounded(c.expected_quality, 4), _rounded(c.price, 6)) for c in kept],
            [c.expert for c in kept if c.estimated],
            {c.expert: (c.cause, c.refused) for c in kept if c.refused is not None},
            len(decision.candidates) - len(kept),
        )

    def encoded(self) -> str:
        return _encode(self).decode()

    @staticmethod
    def decoded(text: str) -> Weighed | None:
        """None where the text is not what `encoded` made: somebody else has put it there."""
        try:
            return _decoder.decode(text)
        except (msgspec.MsgspecError, UnicodeError):
            return None


def _kept(decision: Decision) -> Sequence[Candidate]:
    """In the file's order, the chosen one among them."""
    if len(decision.candidates) <= MOST_OPTIONS:
        return decision.candidates

    def rank(candidate: Candidate) -> tuple[bool, float]:
        return candidate.expert != decision.expert, -(candidate.expected_quality or 0.0)

    best = {candidate.expert for candidate in sorted(decision.candidates, key=rank)[:MOST_OPTIONS]}
    return [candidate for candidate in decision.candidates if candidate.expert in best]


def _rounded(figure: float | None, digits: int) -> float | None:
    return None if figure is None else round(figure, digits)


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Weighed)
