"""Choosing an expert. A policy is a small callable over one state that chooses or passes; policies are composed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from router.decision import Candidate, Query, Reason, Scores
from router.errors import NoExpertError
from router.experts import ExpertsFile

TIE = 0.02  # expected qualities closer than this are equal; the price decides
CHEAP_TOLERANCE = 0.1  # how much expected quality auto:cheap gives away


@dataclass(frozen=True)
class State:
    """What a policy may look at. `expected` is Σ_d P(d)·quality[e][d] of every expert able to answer, best first."""

    file: ExpertsFile
    scores: Scores
    expected: dict[str, float]

    def price(self, expert: str) -> float:
        """USD per million tokens, three in for one out; an expert of unknown price counts as the dearest."""
        price = self.file.experts[expert].price
        return price.blended if price else float("inf")

    def within(self, tolerance: float) -> list[str]:
        """The experts whose expected quality is at most `tolerance` below the best."""
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


def unsure(state: State) -> Choice | None:
    """Below the confidence floor the fallback expert answers."""
    if state.scores.confidence < state.file.router.confidence_floor and state.file.fallback in state.expected:
        return state.file.fallback, "low_confidence"
    return None


def best(state: State) -> Choice:
    """The highest expected quality, price aside."""
    return next(iter(state.expected)), "best"


def best_or_tie(state: State) -> Choice:
    """The highest expected quality; of those as good, the cheapest."""
    leader, _ = best(state)
    cheapest = min(state.within(TIE), key=state.price)
    return (cheapest, "tie") if state.price(cheapest) < state.price(leader) else (leader, "best")


def cheapest_within(tolerance: float) -> Policy:
    """The cheapest whose expected quality is at most `tolerance` below the best."""

    def choose(state: State) -> Choice | None:
        return min(state.within(tolerance), key=state.price), "cheapest"

    return choose


POLICIES: dict[str, Policy] = {
    "auto": first_of(only_capable, unsure, best_or_tie),
    "auto:cheap": first_of(only_capable, unsure, cheapest_within(CHEAP_TOLERANCE)),
    "auto:best": first_of(only_capable, unsure, best),
}


def refusals(file: ExpertsFile, query: Query) -> dict[str, str]:
    """Why each expert that cannot answer the query cannot. Experts that can are not in it.

    The prompt's size is an estimate. Where it leaves no expert, those with the largest window may try, unless even the
    least size that the prompt surely has is beyond it.
    """
    refused = {e: why for e, expert in file.experts.items() if (why := _lacks(query.needs, expert.capabilities))}
    windows = {e: expert.context_window or 2**62 for e, expert in file.experts.items() if e not in refused}
    if not windows:
        return refused
    limit = min(query.tokens, max(windows.values()))
    return refused | {
        e: f"context window of {w} tokens" for e, w in windows.items() if w < max(limit, query.least_tokens)
    }


def _lacks(needs: frozenset[str], capabilities: frozenset[str]) -> str | None:
    missing = sorted(needs - capabilities)
    return f"cannot do {', '.join(missing)}" if missing else None


def rank(file: ExpertsFile, scores: Scores, able: Sequence[str]) -> dict[str, float]:
    """Expected quality of the experts in `able`, best first; equal ones in the file's order."""
    expected = {e: sum(p * file.quality(e, d) for d, p in scores.by_domain.items()) for e in able}
    return dict(sorted(expected.items(), key=lambda item: -item[1]))


def able_or_raise(file: ExpertsFile, query: Query) -> tuple[list[str], dict[str, str]]:
    """The experts able to answer and the refusals of the others. Raises NoExpertError where there is none."""
    refused = refusals(file, query)
    able = [expert for expert in file.experts if expert not in refused]
    if able:
        return able, refused
    small = [expert for e, expert in file.experts.items() if not _lacks(query.needs, expert.capabilities)]
    if small:
        largest = max(expert.context_window or 0 for expert in small)
        message = f"The prompt is at least {query.least_tokens} tokens long; the largest context window here is {largest} tokens."
        raise NoExpertError(message, "context_window")
    nobody = query.needs - frozenset().union(*(e.capabilities for e in file.experts.values()))
    missing = sorted(nobody or query.needs)
    names = ", ".join(missing)
    message = f"No expert here can do this request: it needs {names}. The operator declares what an expert can do"
    raise NoExpertError(f"{message} with capabilities: [{names}] in experts.yaml.", missing[0])


def candidates(file: ExpertsFile, expected: dict[str, float], refused: dict[str, str]) -> tuple[Candidate, ...]:
    """Every expert's line of the arithmetic, in the file's order."""
    return tuple(
        Candidate(e, expected.get(e), expert.price.blended if expert.price else None, refused.get(e))
        for e, expert in file.experts.items()
    )
