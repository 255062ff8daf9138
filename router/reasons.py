"""A decision's reason in one plain sentence, with the figures that it was made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from router.decision import Decision, Doubt, Query, Scores
from router.experts import ExpertsFile
from router.policy import CHEAP_TOLERANCE, TIE, State

RULES = {
    "auto": f"the highest expected quality; the cheapest, then the fastest, within {TIE:g} of it",
    "auto:cheap": f"the cheapest within {CHEAP_TOLERANCE:g} of the highest expected quality",
    "auto:best": "the highest expected quality, whatever it costs",
}
TOLERANCES = {"auto": TIE, "auto:cheap": CHEAP_TOLERANCE, "auto:best": 0.0}
OF_A_PACKAGE = "what another package's policy decides"


@dataclass(frozen=True, slots=True)
class Weighing:
    """Whether to leave the expert of the turn before: `gain` in expected quality if `wanted`, whom the policy would take
    for this turn alone, took over from `kept`; it has to be more than `cost`, which is None where nothing would do, unless
    `saves`: `wanted` is so much cheaper that leaving pays."""

    kept: str
    wanted: str
    gain: float
    cost: float | None
    switched: bool
    saves: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """What a sentence is made from. `state` is what the policy looked at, None where none was asked."""

    file: ExpertsFile
    query: Query
    decision: Decision
    policy: str
    state: State | None
    weighing: Weighing | None = None


def why(case: Case) -> str:
    """The reason of `case.decision` as a sentence, and more where the last turn is in doubt or the expert another one now."""
    return " ".join(sentence for sentence in (_reason(case), _inherited(case), _switch(case)) if sentence)


def _reason(case: Case) -> str:
    if case.policy not in RULES and case.decision.reason not in ("sticky", "pinned"):
        return (
            f"The policy {case.policy}, which another package adds, chose {case.decision.expert} "
            f"and gives as its reason: {case.decision.reason}."
        )
    return _SENTENCES[case.decision.reason](case)


def _inherited(case: Case) -> str:
    """What is wrong with the last turn by itself, where the reason does not say it."""
    doubt = case.decision.doubt
    if doubt is None or doubt == case.decision.reason:
        return ""
    before = "; what was said before it counts" if _scores(case).doubt is None else ""
    return f"The last turn by itself {_DOUBTS[doubt]}{before}."


def _switch(case: Case) -> str:
    """That the conversation changes its expert, and why."""
    decision, weighing = case.decision, case.weighing
    if decision.switched is None:
        return ""
    refused = next((c.refused for c in decision.candidates if c.expert == decision.previous), None)
    took = f"{decision.expert} takes the conversation over from {decision.previous}"
    if refused:
        return f"{took}, which is refused: {refused}."
    if weighing is None or weighing.cost is None:
        return f"{took}."
    if weighing.saves:
        return f"{took}: it is so much cheaper that this pays for the loss of the cache."
    return f"{took}: it gains {weighing.gain:.3f} in expected quality, more than the {weighing.cost:.3f} that the cache is worth."


def _best(case: Case) -> str:
    expert, expected = case.decision.expert, _expected(case)
    sentence = f"{expert} has the highest expected quality, {expected[expert]:.3f}"
    near = [e for e in _within(case, TIE) if e != expert]
    if case.policy == "auto" and near:
        return f"{sentence}; of those within {TIE:g} of it ({', '.join(near)}) none is cheaper."
    second = next((other for other in expected if other != expert), None)
    return f"{sentence}; next is {second} with {expected[second]:.3f}." if second else f"{sentence}."


def _cheapest(case: Case) -> str:
    expert, expected = case.decision.expert, _expected(case)
    leader = next(iter(expected))
    sentence = (
        f"{expert}, at {_price(case, expert)}, is the cheapest of those whose expected quality is within "
        f"{CHEAP_TOLERANCE:g} of the highest"
    )
    if expert == leader:
        return f"{sentence}, which is its own, {expected[leader]:.3f}."
    return f"{sentence}: {expected[expert]:.3f}, where {leader} has {expected[leader]:.3f} at {_price(case, leader)}."


def _tie(case: Case) -> str:
    expert, expected = case.decision.expert, _expected(case)
    leader = next(iter(expected))
    close = (
        f"The expected quality of {expert}, {expected[expert]:.3f}, is within {TIE:g} of the highest ({leader}, "
        f"{expected[leader]:.3f})"
    )
    state = case.state
    if state is None or state.price(expert) < state.price(leader):
        return f"{close} and it is cheaper: {_price(case, expert)}, not {_price(case, leader)}."
    return f"{close}; it costs as much and is faster."


def _pinned(case: Case) -> str:
    expert, domain = case.decision.expert, case.query.overrides.domain
    if domain is None or case.state is None:
        return f"The request asks for {expert} by name, so nothing was chosen."
    quality = _expected(case).get(expert)
    known = "" if quality is None else f", with an expected quality of {quality:.3f}"
    return f"The request says that its domain is {domain}, so nothing was classified; {expert} is chosen for it{known}."


def _only_capable(case: Case) -> str:
    refused = [f"{c.expert} {_verb(c.refused)}" for c in case.decision.candidates if c.refused]
    others = f": {'; '.join(refused)}" if refused else ""
    return f"{case.decision.expert} is the only expert that is able to answer this{others}."


def _verb(refusal: str) -> str:
    """The words of a refusal as they follow the expert's name."""
    return refusal if refusal.startswith(("cannot", "answers")) else f"({refusal})"


def _low_confidence(case: Case) -> str:
    scores = _scores(case)
    return (
        f"The most probable domain, {scores.domain}, has {scores.confidence:.3f}, below the confidence floor of "
        f"{case.file.router.confidence_floor:g}{_so(case)}."
    )


def _out_of_distribution(case: Case) -> str:
    return f"The text {_DOUBTS['out_of_distribution']}{_so(case)}."


def _unreadable_language(case: Case) -> str:
    language = _scores(case).language
    return f"The text {_DOUBTS['unreadable_language']}{f' ({language})' if language else ''}{_so(case)}."


def _so(case: Case) -> str:
    """Who answers what the router is not sure of, as the end of a sentence."""
    expert, fallback, language = case.decision.expert, case.file.fallback, _scores(case).language
    if expert == fallback:
        return ", so the fallback expert answers"
    if language in case.file.experts[expert].languages:
        return f", so {expert}, a specialist of its language, answers"
    return f", and the fallback expert {fallback} is not able; {expert} is the one that the policy takes then"


def _sticky(case: Case) -> str:
    weighing, expert = case.weighing, case.decision.expert
    if case.query.continues:
        return f"The request goes on with an answer under way (a tool's result or a retry), and {expert} began it."
    if weighing is None or weighing.cost is None:
        return f"{expert} had the turn before and keeps the conversation."
    if weighing.gain <= 0:
        return f"{expert} had the turn before; {weighing.wanted} is cheaper, but not enough to pay for the loss of the cache."
    return (
        f"{expert} had the turn before; {weighing.wanted} would be better by {weighing.gain:.3f} in expected quality, which "
        f"is not more than the {weighing.cost:.3f} that it has to gain to be worth the loss of the cache."
    )


def _expected(case: Case) -> Mapping[str, float]:
    """The expected qualities of those able, best first."""
    return case.state.expected if case.state else {}


def _within(case: Case, tolerance: float) -> list[str]:
    return case.state.within(tolerance) if case.state else []


def _price(case: Case, expert: str) -> str:
    price = case.state.price(expert) if case.state else math.inf
    about = "an estimated " if case.file.experts[expert].gpu_price else ""
    return "an unknown price" if math.isinf(price) else f"{about}{price:.3g} USD per million tokens"


def _scores(case: Case) -> Scores:
    scores = case.decision.scores
    if scores is None:
        raise ValueError("the decision was made without scores")
    return scores


_DOUBTS: Mapping[Doubt, str] = {
    "out_of_distribution": "is nothing that the router can judge (empty, gibberish or encoded data)",
    "unreadable_language": "seems to be in a language that the encoder was not taught",
}

_SENTENCES: Mapping[str, Callable[[Case], str]] = {
    "best": _best,
    "cheapest": _cheapest,
    "tie": _tie,
    "pinned": _pinned,
    "only_capable": _only_capable,
    "low_confidence": _low_confidence,
    "out_of_distribution": _out_of_distribution,
    "unreadable_language": _unreadable_language,
    "sticky": _sticky,
}
