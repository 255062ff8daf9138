"""What a conversation is about, turn by turn, from what the user said. Only the user's own words count: system prompts,
assistants' answers and tool results cannot choose the expert.

Each turn is scored alone; a filter over the turns carries what the earlier ones were about. With b the belief, e the
probabilities of a turn by itself, D the number of domains and H the entropy:

    b_t ∝ e_t^w · (s · b_{t-1} + (1 - s) / D),   w = min(1, TELLING · (1 - H(e_t) / log D)),   s = 1 - w · (1 - STAY)

which with w = 1 is the forward algorithm of a hidden Markov model whose topic stays with probability STAY (Rabiner 1989, "A
Tutorial on Hidden Markov Models", section III.A). Turns such as "go on" are hardly evidence of anything: the weight w lets a
turn that says little inherit, and one that clearly says something else switches.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

from router.decision import Asked, Query, Scores

# The encoder reads about 128 tokens. What is cut away before it costs nothing, and a long prompt says what it wants
# at its start or at its end, so those are what stays.
HEAD_CHARACTERS = 500
TAIL_CHARACTERS = 300
ENOUGH_CHARACTERS = 60
MAX_TURNS = 4
MAX_EARLIER = 63  # user turns before the last that are looked at
FIRST_TURNS = 16  # of them from its start, in a conversation that has more

STAY = 0.95  # how probably the next turn is about the same domain
TELLING = 2.0  # a turn that says half of what it could say at most, or more, counts in full
# Expected quality that another expert has to gain before it takes over: a little always, more as the worker's cache of
# the conversation grows, whose loss makes the user wait.
SWITCH_COST = 0.03
PREFIX_COST = 0.07
FULL_PREFIX_TOKENS = 8000
CHARACTERS_PER_TOKEN = 4

# How libraries that validate answers ask for a better one in the user's name: instructor, pydantic-ai.
_RETRY = re.compile(
    r"Correct your JSON ONLY RESPONSE"
    r"|Recall the function correctly, fix the errors"
    r"|Your previous response failed the application's validation \(this is automated feedback"
    r"|Validation Errors? found:.*Recall the function correctly, fix the errors"
    r"|(?:\d+ validation errors?:|Validation feedback:).*Fix the errors and try again\.\s*\Z",
    re.DOTALL,
)


Turn = TypeVar("Turn")


def clip(text: str) -> str:
    """The start and the end of a long text, joined by an ellipsis; a short one as it is, less outer white space."""
    if len(text) > 4 * (HEAD_CHARACTERS + TAIL_CHARACTERS):
        text = text[: 2 * HEAD_CHARACTERS].strip() + " … " + text[-2 * TAIL_CHARACTERS :].strip()
    text = " ".join(text.split())
    if len(text) <= HEAD_CHARACTERS + TAIL_CHARACTERS:
        return text
    return f"{text[:HEAD_CHARACTERS]} … {text[-TAIL_CHARACTERS:]}"


def routed_text(user_turns: Sequence[str]) -> str:
    """The text to classify: the last user turn, and after it earlier ones while there is too little to go by.

    `user_turns` are the texts of the user's messages, oldest first. System prompts, assistants' answers and tool results
    are not among them: they cannot choose the expert.
    """
    return "\n".join(_recent(user_turns))


def _recent(user_turns: Sequence[str]) -> Iterator[str]:
    gathered = 0
    for turn in [t for t in reversed(user_turns) if t.strip()][:MAX_TURNS]:
        if gathered >= ENOUGH_CHARACTERS:
            return
        text = clip(turn)
        gathered += len(text)
        yield text


def looked_at(turns: Sequence[Turn]) -> Sequence[Turn]:
    """All the turns of a conversation, oldest first; of one with more than 1 + MAX_EARLIER its first and its last ones.

    What it began with is what "go on" may still mean, so that it is never left out.
    """
    if len(turns) <= 1 + MAX_EARLIER:
        return turns
    return (*turns[:FIRST_TURNS], *turns[FIRST_TURNS - 1 - MAX_EARLIER :])


def is_retry(text: str) -> bool:
    """Whether a user message is a library's, asking for the same answer without its mistakes."""
    return _RETRY.match(text.lstrip()) is not None


def believed(turns: Sequence[Scores]) -> list[Scores]:
    """What the conversation was about after each of its turns, given each turn's scores by itself; at least one turn.

    The first turn's scores are left as they are. A turn that is in doubt says nothing: what was believed before stands, and
    where nothing was, the doubt. A turn whose language is not known is in that of the turn before.
    """
    beliefs: list[Scores] = []
    known: Scores | None = None
    language = ""
    for turn in turns:
        language = turn.language or language
        if turn.doubt is None:
            known = _filtered(known, turn, language)
            beliefs.append(known)
        elif known is None:
            beliefs.append(turn)
        else:
            beliefs.append(Scores(known.by_domain, turn.stage, None, language))
    return beliefs


def _filtered(known: Scores | None, turn: Scores, language: str) -> Scores:
    if known is None:
        return turn if turn.language == language else Scores(turn.by_domain, turn.stage, None, language)
    domains = turn.by_domain
    weight = _weight(domains.values())
    stay = 1 - weight * (1 - STAY)
    other = (1 - stay) / len(domains)
    weights = [p**weight * (stay * known.by_domain[d] + other) for d, p in domains.items()]
    total = sum(weights)
    return Scores({d: w / total for d, w in zip(domains, weights, strict=True)}, turn.stage, None, language)


def _weight(probabilities: Collection[float]) -> float:
    """How much a turn counts beside what was believed before it: 0 where it says nothing, 1 where it is clear."""
    most = math.log(len(probabilities))
    entropy = -sum(p * math.log(p) for p in probabilities if p > 0)
    return min(1.0, TELLING * max(0.0, 1 - entropy / most)) if most else 0.0


def switch_cost(prefix_tokens: int) -> float:
    """The expected quality that another expert has to gain, where the worker may hold so many tokens in its cache."""
    return SWITCH_COST + PREFIX_COST * min(1.0, prefix_tokens / FULL_PREFIX_TOKENS)


def asked(query: Query) -> Sequence[Asked]:
    """What the request of each user turn was like; worked out from the texts where the query does not say."""
    turns = (*query.earlier, query.text)
    if len(query.asked) == len(turns):
        return query.asked
    moments: list[Asked] = []
    prefix = 0
    for text in turns:
        tokens = prefix + len(text) // CHARACTERS_PER_TOKEN
        moments.append(Asked(prefix, tokens, query.needs))
        prefix = tokens
    return moments
