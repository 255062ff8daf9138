"""Roster: who is able to answer a request, and how well. What depends on experts.yaml alone is worked out once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import NamedTuple, NoReturn

from router.decision import Candidate, Cause
from router.errors import NoExpertError
from router.experts import Expert, ExpertsFile

LANGUAGE_BONUS = 0.1  # what a specialist's quality gains for text in one of its languages; the sum is at most 1
ASSUMED_ANSWER_TOKENS = 512  # of an answer whose length neither the request nor the expert's defaults bound
UNBOUNDED = 2**62


class Refusal(NamedTuple):
    """Why an expert is not to be chosen: the cause that metrics count, and the words for a person."""

    cause: Cause
    text: str


class Need(NamedTuple):
    """What a request asks of an expert. Sizes in tokens as in Query; `language` is None where it does not matter."""

    needs: frozenset[str] = frozenset()
    tokens: int = 0
    least_tokens: int = 0
    language: str | None = None
    answer_tokens: int | None = None
    max_cost_usd: float | None = None
    answers: int = 1
    endpoint: str = ""
    unable: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Seat:
    """One expert. `qualities` has one figure for each domain, `at_home` the same for text in a language of its own."""

    id: str
    expert: Expert
    window: int
    price: float | None
    able: frozenset[str]
    qualities: tuple[float, ...]
    at_home: tuple[float, ...]

    def estimated_cost(self, need: Need) -> float | None:
        """USD for the prompt and the longest answers, None where the price is not known."""
        price = self.expert.token_price
        if price is None:
            return None
        answer = need.answer_tokens or self.expert.defaults.max_tokens or ASSUMED_ANSWER_TOKENS
        return (need.tokens * price.input + need.answers * answer * price.output) / 1e6


class Standing(NamedTuple):
    """Who may be chosen, in the file's order, and why the others may not. `resting` are able but down: to be asked last."""

    able: tuple[Seat, ...]
    refused: Mapping[str, Refusal]
    resting: tuple[str, ...] = ()


class Roster:
    """The experts of one file, their qualities in the order of `domains`."""

    def __init__(self, file: ExpertsFile, domains: Sequence[str]) -> None:
        self.seats = tuple(_seat(file, name, domains) for name in file.experts)
        self._by_id = {seat.id: seat for seat in self.seats}
        self._everybody = Standing(self.seats, {})
        self._all_can = frozenset.intersection(*(seat.able for seat in self.seats))
        self._least_window = min(seat.window for seat in self.seats)
        self._specialists = any(seat.expert.languages for seat in self.seats)

    def standing(self, need: Need, down: frozenset[str] = frozenset()) -> Standing:
        """Who is able. Raises NoExpertError where there is none.

        The prompt's size is an estimate. Where it leaves no expert, those with the largest window may try, unless even
        the least size that the prompt surely has is beyond it. Language and health are wishes as well: a specialist of
        other languages, or an expert that is down, is able where nobody else is left.
        """
        easy = need.tokens <= self._least_window and need.needs <= self._all_can and need.max_cost_usd is None
        if easy and not down and not need.unable and (not self._specialists or need.language is None):
            return self._everybody
        refused: dict[str, Refusal] = {}
        serving = _sift(self.seats, refused, lambda seat: _serves_not(seat, need)) or _nobody_serves(need)
        capable = _sift(serving, refused, lambda seat: _lacks(seat, need)) or _nobody_can(serving, need)
        affordable = _sift(capable, refused, lambda seat: _too_dear(seat, need)) or _nobody_so_cheap(capable, need)
        room = max(min(need.tokens, max(seat.window for seat in affordable)), need.least_tokens)
        fitting = _sift(affordable, refused, lambda seat: _too_small(seat, room)) or _nobody_so_large(affordable, need)
        spoken = _sift_or_all(fitting, refused, lambda seat: _foreign(seat, need.language))
        up = _sift_or_all(spoken, refused, lambda seat: DOWN if seat.id in down else None)
        return Standing(up, refused, tuple(seat.id for seat in spoken if seat not in up))

    def expected(self, by_domain: Mapping[str, float], able: Sequence[Seat], language: str | None) -> dict[str, float]:
        """Σ_d P(d)·quality[e][d] of the experts in `able`, best first; equal ones in the file's order.

        `by_domain` has the domains in the roster's order. For a specialist and a text in one of its languages every
        quality counts LANGUAGE_BONUS more, but no more than 1.
        """
        chances = tuple(by_domain.values())
        expected = {
            seat.id: sum(map(mul, chances, seat.at_home if language in seat.expert.languages else seat.qualities))
            for seat in able
        }
        return dict(sorted(expected.items(), key=_less_is_later))

    def able_of(self, names: Sequence[str], need: Need, down: frozenset[str]) -> tuple[str, ...]:
        """Those of `names` that are able, in their order, but the ones that are down last; none where nobody is able."""
        try:
            able, _, resting = self.standing(need, down)
        except NoExpertError:
            return ()
        up = {seat.id for seat in able}
        return (*(n for n in names if n in up), *(n for n in names if n in resting))

    def check_cost(self, name: str, need: Need) -> None:
        """Raises NoExpertError where an answer of the expert may cost more than is allowed."""
        seat = self._by_id[name]
        if _too_dear(seat, need):
            _nobody_so_cheap([seat], need)

    def candidates(
        self, expected: Mapping[str, float], refused: Mapping[str, Refusal], prices: Mapping[str, float]
    ) -> tuple[Candidate, ...]:
        """Every expert's line of the arithmetic, in the file's order; `prices` as in Fleet."""
        made = []
        for seat in self.seats:
            cause, why = refused.get(seat.id) or (None, None)
            price, estimated = prices.get(seat.id, seat.price), seat.expert.gpu_price is not None
            made.append(Candidate(seat.id, expected.get(seat.id), price, why, estimated, cause))
        return tuple(made)

    def check_serves(self, name: str, need: Need) -> None:
        """Raises NoExpertError where the expert does not serve the endpoint, or keeps no responses for a request that goes on
        with one."""
        if "state" in need.needs and "state" not in self._by_id[name].able:
            raise NoExpertError(f"The expert {name} keeps no responses.", "state")
        if name not in need.unable:
            return
        others = ", ".join(seat.id for seat in self.seats if seat.id not in need.unable)
        message = f"The expert {name} does not serve {need.endpoint}"
        raise NoExpertError(f"{message}; {others} would." if others else f"{message}, nor does another.", "endpoint")


DOWN = Refusal("health", "no replica of it can be asked now")


def _seat(file: ExpertsFile, name: str, domains: Sequence[str]) -> Seat:
    expert = file.experts[name]
    qualities = tuple(file.quality(name, domain) for domain in domains)
    return Seat(
        id=name,
        expert=expert,
        window=expert.context_window or UNBOUNDED,
        price=expert.blended,
        able=expert.able,
        qualities=qualities,
        at_home=tuple(min(1.0, quality + LANGUAGE_BONUS) for quality in qualities),
    )


def _less_is_later(item: tuple[str, float]) -> float:
    return -item[1]


Why = Callable[[Seat], Refusal | None]


def _sift(seats: Sequence[Seat], refused: dict[str, Refusal], why: Why) -> tuple[Seat, ...]:
    """The seats without a reason against them; the others go into `refused` with theirs."""
    against = {seat.id: reason for seat in seats if (reason := why(seat))}
    refused.update(against)
    return tuple(seat for seat in seats if seat.id not in against)


def _sift_or_all(seats: tuple[Seat, ...], refused: dict[str, Refusal], why: Why) -> tuple[Seat, ...]:
    """The same, but where nobody would be left all of them are."""
    aside: dict[str, Refusal] = {}
    left = _sift(seats, aside, why)
    if not left:
        return seats
    refused.update(aside)
    return left


def _serves_not(seat: Seat, need: Need) -> Refusal | None:
    return Refusal("capability", f"does not serve {need.endpoint}") if seat.id in need.unable else None


def _lacks(seat: Seat, need: Need) -> Refusal | None:
    missing = sorted(need.needs - seat.able)
    return Refusal("capability", f"cannot do {', '.join(missing)}") if missing else None


def _too_dear(seat: Seat, need: Need) -> Refusal | None:
    if need.max_cost_usd is None:
        return None
    cost = seat.estimated_cost(need)
    if cost is None:
        why = "it is paid by the hour" if seat.expert.gpu_price else "its price is not known"
        return Refusal("cost", f"{why}, so that no cost can be promised")
    if cost > need.max_cost_usd:
        return Refusal("cost", f"estimated at {cost:.3g} USD, above the {need.max_cost_usd:.3g} USD allowed")
    return None


def _too_small(seat: Seat, tokens: int) -> Refusal | None:
    return Refusal("window", f"context window of {seat.window} tokens") if seat.window < tokens else None


def _foreign(seat: Seat, language: str | None) -> Refusal | None:
    own = seat.expert.languages
    if not own or language is None or language in own:
        return None
    return Refusal("language", f"answers only in {', '.join(sorted(own))}")


def _nobody_serves(need: Need) -> NoReturn:
    message = f"No expert here serves {need.endpoint}. The operator declares what an expert's server has"
    raise NoExpertError(f"{message} with endpoints: [...] in experts.yaml, or its server says so itself.", "endpoint")


def _nobody_can(seats: Sequence[Seat], need: Need) -> NoReturn:
    nobody = need.needs - frozenset().union(*(seat.able for seat in seats))
    missing = sorted(nobody or need.needs)
    names = ", ".join(missing)
    message = f"No expert here can do this request: it needs {names}. The operator declares what an expert can do"
    raise NoExpertError(f"{message} with capabilities: [{names}] in experts.yaml.", missing[0])


def _nobody_so_large(seats: Sequence[Seat], need: Need) -> NoReturn:
    largest = max(seat.window for seat in seats)
    message = (
        f"The prompt is at least {need.least_tokens} tokens long; the largest context window here is {largest} tokens."
    )
    raise NoExpertError(message, "context_window")


def _nobody_so_cheap(seats: Sequence[Seat], need: Need) -> NoReturn:
    costs = {seat.id: cost for seat in seats if (cost := seat.estimated_cost(need)) is not None}
    least = min(costs, key=costs.__getitem__, default=None)
    known = (
        f"the least estimate is {costs[least]:.3g} USD, for {least}"
        if least
        else "no expert able has a price by the token"
    )
    message = f"No expert answers this for at most {need.max_cost_usd:.3g} USD: {known}. Raise x-moe-max-cost-usd"
    raise NoExpertError(f"{message}, shorten the prompt or set max_tokens lower.", "max_cost_usd")
