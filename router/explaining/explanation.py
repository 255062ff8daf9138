"""Explanation: what there is to tell of one decision. The fields' names are the keys of its JSON, and stay."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from router.explaining.neighbours import Neighbour
from router.explaining.occlusion import Piece
from router.reasons import Weighing

LINE = 160  # characters of a text of which only a line is shown
LEAST_SHOWN = 0.01  # of a product, to be written out
JOINERS = "\u200c\u200d"  # parts of words and emoji, though they cannot be seen
# Python takes these for printable, and yet there is nothing to see: fillers, an empty pattern of braille, selectors of variants
# (that of emoji, U+FE0F, and that of plain text are left as they are).
UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]")


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """`tolerance` is the expected quality given away for a lower price, None where only a package knows; `floor` the
    confidence below which the fallback expert answers."""

    name: str
    rule: str
    tolerance: float | None
    floor: float
    fallback: str


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What one stage says of the text. It is sure from the confidence `sure` on; `asked` is False where a cheaper one
    answered, so that the decision came about without it; `answered` says whose probabilities were taken. One that is sure and
    did not answer may not in the language of the text (cascade.FLUENT)."""

    name: str
    encoder: str
    probabilities: Mapping[str, float]
    sure: float
    asked: bool
    answered: bool
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Term:
    domain: str
    probability: float
    quality: float
    product: float


@dataclass(frozen=True, slots=True)
class ExpertFacts:
    """One expert's line: `expected_quality` is the sum of the terms' products, told of the refused as well. The qualities
    have `language_bonus` in them. Prices in USD per million tokens, `price` being three of input and one of output; it is estimated
    for an expert that is paid by the hour."""

    id: str
    chosen: bool
    expected_quality: float | None
    arithmetic: str
    terms: tuple[Term, ...]
    language_bonus: float
    price: float | None
    price_estimated: bool
    price_input: float | None
    price_output: float | None
    latency_seconds: float | None
    refused: str | None


@dataclass(frozen=True, slots=True)
class Features:
    """The pieces of the text, joined the text itself, each with its effect on the log-odds of `domain`; `supporting` and
    `opposing` are the strongest of them."""

    method: str
    stage: str
    domain: str
    pieces: tuple[Piece, ...]
    supporting: tuple[Piece, ...]
    opposing: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Nearest:
    """The nearest training prompts by the stage's encoder; `missing` says why there are none."""

    stage: str
    examples: tuple[Neighbour, ...]
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the user: what it says `alone`, what was believed after it, who answered then (None: nobody could)."""

    text: str
    language: str
    stage: str
    doubt: str | None
    alone: Mapping[str, float]
    belief: Mapping[str, float]
    expert: str | None
    reason: str | None
    weighing: Weighing | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """`weighing` is the decision's own; `continues` says that the request goes on with an answer under way."""

    turns: tuple[Turn, ...]
    continues: bool
    weighing: Weighing | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """None where there is nothing to tell: `policy`, `features` and `nearest` where an expert or a domain was asked for by
    name, `conversation` where there is one turn alone."""

    why: str
    text: str
    policy: PolicyFacts | None
    stages: tuple[StageFacts, ...]
    experts: tuple[ExpertFacts, ...]
    features: Features | None
    nearest: Nearest | None
    conversation: Conversation | None

    def described(self) -> dict[str, Any]:
        """Plain values under the names of the fields; fractions rounded to six places."""
        rounded: dict[str, Any] = _rounded(asdict(self))
        return rounded


def arithmetic(terms: Sequence[Term]) -> str:
    """The sum written out, quality by probability of each domain, the largest products first; "" without terms."""
    if not terms:
        return ""
    shown = [t for t in sorted(terms, key=lambda t: -t.product) if t.product >= LEAST_SHOWN]
    parts = [f"{t.quality:.2f}×{t.probability:.2f} {t.domain}" for t in shown]
    left_out = ["…"] if len(shown) < len(terms) else []
    return f"{' + '.join(parts + left_out)} = {sum(t.product for t in terms):.3f}"


def visible(text: str) -> str:
    """`text` without what a terminal obeys, a reader cannot see or UTF-8 cannot carry: such characters are written out."""
    if text.isprintable() and not UNSEEN.search(text):
        return text
    return "".join(c if _is_seen(c) else _written_out(c) for c in text)


def _is_seen(character: str) -> bool:
    return character in JOINERS or (character.isprintable() and not UNSEEN.match(character))


def _written_out(character: str) -> str:
    return " " if character.isspace() else character.encode("unicode_escape").decode("ascii")


def line_of(text: str) -> str:
    """The beginning of `text` on one line, made visible."""
    line = visible(" ".join(text[: 4 * LINE].split()))
    return line if len(line) <= LINE else f"{line[: LINE - 1]}…"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
