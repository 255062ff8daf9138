"""Choosing an expert. A policy is a small callable over one state that chooses or passes; policies are composed.

Another package adds one of its own under an entry point group; what it calls NAME is the virtual model `auto:NAME`, and
NAME in the header x-moe-policy:

    [project.entry-points."moe_gateway.policies"]
    NAME = "its_package.its_module:its_policy"
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import get_args

from router.decision import Reason, Scores
from router.errors import ExtensionError
from router.experts import ADDED_PREFIX, POLICY_GROUP, ExpertsFile
from router.extensions import Registry
from router.roster import ASSUMED_ANSWER_TOKENS

TIE = 0.02  # expected qualities closer than this are equal; price and latency decide
CHEAP_TOLERANCE = 0.1  # how much expected quality auto:cheap gives away
REASONS = frozenset(get_args(Reason))
FOR_ITS_PRICE = ("tie", "cheapest")  # reasons of a choice that another expert would have been as good for
LEAST_SAVING = 2.0  # times cheaper that an expert has to be to take over even the shortest conversation for its price


@dataclass(frozen=True, slots=True)
class State:
    """What a policy may look at.

    `expected` is Σ_d P(d)·quality[e][d] of every expert able to answer, best first. `previous` is the expert of the turn
    before, None where there was none, `switch_cost` the expected quality that leaving it has to gain (infinite where it must
    not be left), and `prefix` the tokens of the conversation that its worker may hold in its cache.

    `latency` is the seconds to an expert's first token where that may count, which is at the start of a conversation alone: it
    differs from process to process and from moment to moment, and later requests have to come to the same expert (decision 9).
    So it is with `prices`, which has what experts that are paid by the hour were measured to cost, in USD per million tokens.
    """

    file: ExpertsFile
    scores: Scores
    expected: Mapping[str, float]
    previous: str | None = None
    switch_cost: float = 0.0
    prefix: int = 0
    latency: Mapping[str, float] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)

    def cost(self, expert: str) -> tuple[float, float]:
        """What decides between experts as good: the price, then the latency; one that is not known yet is tried first."""
        return self.price(expert), self.latency.get(expert, 0.0)

    def price(self, expert: str) -> float:
        """USD per million tokens, three in for one out; an expert of unknown price counts as the dearest."""
        price = self.prices.get(expert, self.file.experts[expert].blended)
        return float("inf") if price is None else price

    def speaks(self, expert: str) -> bool:
        """Whether it is a specialist of the text's language."""
        return self.scores.language in self.file.experts[expert].languages

    def within(self, tolerance: float) -> list[str]:
        """The experts whose expected quality is at most `tolerance` below the best, best first."""
        floor = max(self.expected.values()) - tolerance - 1e-12
        return [expert for expert, quality in self.expected.items() if quality >= floor]


Choice = tuple[str, Reason]
Policy = Callable[[State], Choice | None]


def first_of(*policies: Policy) -> Policy:
    """The choice of the first policy that makes one."""

    def choose(state: State) -> Choice | None:
        return next((choice for policy in policies if (choice := policy(state))), None)

    return choose


def only_capable(state: State) -> Choice | None:
    """Where the request's needs leave one expert, nothing is to be chosen."""
    if len(state.expected) == 1 and len(state.file.experts) > 1:
        return next(iter(state.expected)), "only_capable"
    return None


def doubtful(state: State) -> Choice | None:
    """What the router cannot judge at all goes to the fallback expert; a language that it cannot read to its specialist."""
    doubt = state.scores.doubt
    if doubt is None:
        return None
    specialist = _specialist(state) if doubt == "unreadable_language" else None
    expert = specialist or state.file.fallback
    return (expert, doubt) if expert in state.expected else None


def unsure(state: State) -> Choice | None:
    """Below the confidence floor the fallback expert answers, or a specialist of the language that is expected to be as good."""
    if not _is_unsure(state) or state.file.fallback not in state.expected:
        return None
    fallback, specialist = state.file.fallback, _specialist(state)
    if specialist and state.expected[specialist] >= state.expected[fallback]:
        return specialist, "low_confidence"
    return fallback, "low_confidence"


def doubted(policy: Policy) -> Policy:
    """What `policy` chooses; where the router cannot judge the text, or is not sure of it, the reason says that instead."""

    def choose(state: State) -> Choice | None:
        choice = policy(state)
        doubt: Reason | None = state.scores.doubt or ("low_confidence" if _is_unsure(state) else None)
        return (choice[0], doubt) if choice and doubt else choice

    return choose


def _is_unsure(state: State) -> bool:
    return state.scores.confidence < state.file.router.confidence_floor


def _specialist(state: State) -> str | None:
    """The best of those able that are specialists of the text's language."""
    return next(filter(state.speaks, state.expected), None)


def best(state: State) -> Choice:
    """The highest expected quality, price aside."""
    return next(iter(state.expected)), "best"


def best_or_tie(state: State) -> Choice:
    """The highest expected quality; of those as good the cheapest, of those as cheap the fastest, else the better."""
    leader = next(iter(state.expected))
    winner = min(state.within(TIE), key=state.cost)
    return (leader, "best") if winner == leader else (winner, "tie")


def cheapest_within(tolerance: float) -> Policy:
    """The cheapest whose expected quality is at most `tolerance` below the best."""

    def choose(state: State) -> Choice | None:
        return min(state.within(tolerance), key=state.cost), "cheapest"

    return choose


def sticky(policy: Policy) -> Policy:
    """What `policy` chooses, unless the expert of the turn before is able and leaving it would gain less than it costs.

    The router puts this around every policy: the worker of that expert holds the conversation in its prefix cache.
    """

    def choose(state: State) -> Choice | None:
        choice, kept = policy(state), state.previous
        if choice is None or kept is None or choice[0] == kept or kept not in state.expected:
            return choice
        gain = state.expected[choice[0]] - state.expected[kept]
        return choice if gain > state.switch_cost or saves(state, choice, kept) else (kept, "sticky")

    return choose


def saves(state: State, choice: Choice, kept: str) -> bool:
    """Whether `choice`, made for its price, is so much cheaper than `kept` that leaving that one pays.

    The next answer at the old price against the answer and the reading of the whole conversation at the new one.
    """
    expert, reason = choice
    price = state.price(kept)
    if reason not in FOR_ITS_PRICE or math.isinf(state.switch_cost) or math.isinf(price):
        return False  # a price that is not known is no reason to leave
    return price > state.price(expert) * (LEAST_SAVING + state.prefix / ASSUMED_ANSWER_TOKENS)


def policy_name(name: str) -> str:
    """The virtual model whose policy is meant: `cheap` and `auto:cheap` are the same."""
    return name if name.partition(":")[0] == "auto" else f"auto:{name}"


def _watched(name: str, policy: Policy) -> Policy:
    """A stranger's policy, held to what a policy may do. Raises ExtensionError where it fails."""

    def choose(state: State) -> Choice | None:
        try:
            choice = policy(state)
        except Exception as error:  # a stranger's code: it must not take anything else with it
            raise ExtensionError(f"the policy {name} failed: {type(error).__name__}: {error}", name) from error
        if choice is None:
            return None
        if not _is_choice(choice, state):
            wanted = "None, or one of state.expected and one of the reasons in router.decision"
            raise ExtensionError(f"the policy {name} failed: it chose {choice!r:.80}; a policy chooses {wanted}", name)
        return choice

    return choose


def _is_choice(choice: object, state: State) -> bool:
    """Whether a stranger's policy chose what it may."""
    match choice:
        case (str(expert), str(reason)):
            return expert in state.expected and reason in REASONS
    return False


POLICIES: Registry[Policy] = Registry(
    POLICY_GROUP,
    {
        "auto": first_of(only_capable, doubtful, unsure, doubted(best_or_tie)),
        "auto:cheap": first_of(only_capable, doubtful, unsure, doubted(cheapest_within(CHEAP_TOLERANCE))),
        "auto:best": first_of(only_capable, doubtful, unsure, doubted(best)),
    },
    prefix=ADDED_PREFIX,
    adapt=_watched,
)
