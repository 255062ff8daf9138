"""Rerouting: which prompts go elsewhere under another experts.yaml, and what becomes of expected quality and cost.

Both sides of a change are judged by the same figures. The expected quality of an expert is Σ_d P(d)·quality[e][d] with the
new router's P, which knows every domain of the new file, and the new file's qualities; an expert that the new file lacks, or
has with another model, keeps the old file's. So a figure that was edited makes nobody better: only another choice does.

A cost is that of the prompt's tokens and of an answer: as long as the one that was recorded, where there was one, else
ASSUMED_ANSWER_TOKENS, or less where the request or the expert bounds it. Each side pays its own file's prices; an expert that is
paid by the hour is taken to answer ASSUMED_TOKENS_PER_SECOND. Nothing is taken to come from a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from router.decision import Decision, Query, Scores
from router.errors import RouterError
from router.experts import Expert, ExpertsFile
from router.messages import Message, Survey
from router.prices import PER_MILLION
from router.roster import ASSUMED_ANSWER_TOKENS, Roster, Seat
from router.routing import Router

CHUNK = 64  # prompts between two reports of progress
NOBODY = "nobody"  # where no expert is able to answer, in the place of an expert

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What was asked: `id` is what its source calls it, `answered` the tokens of the answer it got, None where nobody knows."""

    query: Query
    id: str = ""
    answered: int | None = None

    @staticmethod
    def of(text: str, id: str = "") -> Prompt:
        """A bare prompt."""
        return Prompt(Survey.of([Message("user", text)]).query(), id)


@dataclass(frozen=True, slots=True)
class Landing:
    """Where a prompt goes under one file. `expert` is None where none is able to answer, and `reason` says why not then.

    `confidence` is that of `domain`, 0 to 1; `quality` is the expected one, 0 to 1, and `cost` in USD, None where they are not
    known. `hourly` says that the cost rests on ASSUMED_TOKENS_PER_SECOND.
    """

    expert: str | None
    reason: str
    model: str = ""
    domain: str | None = None
    confidence: float | None = None
    quality: float | None = None
    cost: float | None = None
    hourly: bool = False

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "expert": self.expert,
            "model": self.model or None,
            "domain": self.domain,
            "confidence": _rounded(self.confidence, 4),
            "reason": self.reason,
            "quality": _rounded(self.quality, 4),
            "cost_usd": _rounded(self.cost, 9),
        }


@dataclass(frozen=True, slots=True)
class Route:
    """One prompt under both files."""

    prompt: Prompt
    old: Landing
    new: Landing

    @property
    def moved(self) -> bool:
        """Whether another model answers: another expert, or the same with another model."""
        return (self.old.expert, self.old.model) != (self.new.expert, self.new.model)

    @property
    def surprise(self) -> float:
        """What the move loses in expected quality and in confidence together; infinite where nobody answers any more."""
        if self.new.expert is None:
            return float("inf")
        return _loss(self.old.quality, self.new.quality) + _loss(self.old.confidence, self.new.confidence)

    def described(self) -> dict[str, Any]:
        """As JSON has it; the prompt is the last turn of its conversation, as far as the router reads it."""
        return {
            "id": self.prompt.id,
            "prompt": self.prompt.query.text,
            "moved": self.moved,
            "old": self.old.described(),
            "new": self.new.described(),
        }


@dataclass(frozen=True, slots=True)
class Change:
    """A figure under both files, over the `prompts` of which both are known; None where there are none."""

    before: float | None
    after: float | None
    prompts: int

    @property
    def difference(self) -> float | None:
        return None if self.before is None or self.after is None else self.after - self.before

    def described(self, digits: int) -> dict[str, Any]:
        """As JSON has it."""
        figures = {"before": self.before, "after": self.after, "change": self.difference}
        return {name: _rounded(value, digits) for name, value in figures.items()} | {"prompts": self.prompts}


@dataclass(frozen=True, slots=True)
class Flow:
    """Prompts that go from one expert to another; as `Rerouting` has them, quality and cost are means."""

    old: str
    new: str
    routes: tuple[Route, ...]

    @property
    def quality(self) -> Change:
        return _change(self.routes, lambda landing: landing.quality)

    @property
    def cost(self) -> Change:
        return _change(self.routes, lambda landing: landing.cost)

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "old": self.old,
            "new": self.new,
            "prompts": len(self.routes),
            "quality": self.quality.described(4),
            "cost_usd_per_prompt": self.cost.described(9),
        }


@dataclass(frozen=True, slots=True)
class Rerouting:
    """What a change of the file does to prompts, in their order."""

    routes: tuple[Route, ...]

    @property
    def moved(self) -> list[Route]:
        """Those that go elsewhere, the most surprising first."""
        return sorted((route for route in self.routes if route.moved), key=lambda route: -route.surprise)

    @property
    def share(self) -> float:
        """The part of the prompts that goes elsewhere, 0 to 1."""
        return len(self.moved) / len(self.routes) if self.routes else 0.0

    @property
    def quality(self) -> Change:
        """The mean expected quality of an answer, 0 to 1."""
        return _change(self.routes, lambda landing: landing.quality)

    @property
    def cost(self) -> Change:
        """The mean cost of a prompt, in USD."""
        return _change(self.routes, lambda landing: landing.cost)

    @property
    def hourly(self) -> int:
        """The prompts whose cost rests on an assumed pace of an expert that is paid by the hour."""
        return sum(route.old.hourly or route.new.hourly for route in self.routes)

    @property
    def unanswered(self) -> list[Route]:
        """Those that somebody answers under the old file, and nobody under the new one."""
        return [route for route in self.routes if route.new.expert is None and route.old.expert is not None]

    def flows(self) -> list[Flow]:
        """The moves by where they come from and where they go, the largest first."""
        found: dict[tuple[str, str], list[Route]] = {}
        for route in self.moved:
            found.setdefault(_ends(route), []).append(route)
        flows = [Flow(old, new, tuple(routes)) for (old, new), routes in found.items()]
        return sorted(flows, key=lambda flow: (-len(flow.routes), flow.old, flow.new))

    def counts(self) -> dict[str, tuple[int, int]]:
        """By expert, how many prompts it answers under the old file and under the new one."""
        found: dict[str, tuple[int, int]] = {}
        for route in self.routes:
            for name, side in ((route.old.expert or NOBODY, (1, 0)), (route.new.expert or NOBODY, (0, 1))):
                old, new = found.get(name, (0, 0))
                found[name] = (old + side[0], new + side[1])
        return found

    def described(self) -> dict[str, Any]:
        """As JSON has it: the totals, the flows, and every prompt that moves."""
        return {
            "prompts": len(self.routes),
            "moved": len(self.moved),
            "share": round(self.share, 4),
            "unanswered": len(self.unanswered),
            "quality": self.quality.described(4),
            "cost_usd_per_prompt": self.cost.described(9),
            "hourly": self.hourly,
            "experts": {name: {"before": old, "after": new} for name, (old, new) in self.counts().items()},
            "flows": [flow.described() for flow in self.flows()],
            "routes": [route.described() for route in self.moved],
        }


def silent(step: str, done: int, total: int) -> None:
    """A Progress that shows nothing."""


def compare(old: Router, new: Router, prompts: Sequence[Prompt], progress: Progress = silent) -> Rerouting:
    """Route every prompt with both routers; nothing is asked of an expert, and what neither can answer is told of both."""
    judge = _Judge(old, new)
    routes: list[Route] = []
    for start in range(0, len(prompts), CHUNK):
        chunk = prompts[start : start + CHUNK]
        queries = [prompt.query for prompt in chunk]
        outcomes = zip(chunk, old.decide_many(queries), new.decide_many(queries), strict=True)
        routes += [judge.route(prompt, before, after) for prompt, before, after in outcomes]
        progress("routing with both files", len(routes), len(prompts))
    return Rerouting(tuple(routes))


class _Judge:
    """What is expected of the experts of both files, by the new router's domains."""

    def __init__(self, old: Router, new: Router) -> None:
        domains = new.artifact.manifest.domains
        self._files = old.file, new.file
        self._roster = Roster(new.file, domains)
        fresh = {seat.id: seat for seat in self._roster.seats}
        before = {seat.id: _judged(seat, fresh.get(seat.id)) for seat in Roster(old.file, domains).seats}
        self._seats: tuple[Mapping[str, Seat], Mapping[str, Seat]] = before, fresh

    def route(self, prompt: Prompt, before: Decision | RouterError, after: Decision | RouterError) -> Route:
        scores = None if isinstance(after, RouterError) else after.scores
        return Route(prompt, self._landing(0, prompt, before, scores), self._landing(1, prompt, after, scores))

    def _landing(self, side: int, prompt: Prompt, outcome: Decision | RouterError, scores: Scores | None) -> Landing:
        if isinstance(outcome, RouterError):
            return Landing(None, str(outcome))
        file: ExpertsFile = self._files[side]
        expert, said = file.experts[outcome.expert], outcome.scores
        return Landing(
            outcome.expert,
            outcome.reason,
            expert.upstream_model,
            said.domain if said else None,
            said.confidence if said else None,
            self._quality(self._seats[side][outcome.expert], scores),
            estimated_cost(expert, prompt),
            expert.gpu_price is not None,
        )

    def _quality(self, seat: Seat, scores: Scores | None) -> float | None:
        return None if scores is None else self._roster.expected(scores.by_domain, [seat], scores.language)[seat.id]


def _judged(old: Seat, new: Seat | None) -> Seat:
    """The figures that an expert of the old file is judged by."""
    same = new is not None and new.expert.upstream_model == old.expert.upstream_model
    return new if new is not None and same else old


def estimated_cost(expert: Expert, prompt: Prompt) -> float | None:
    """USD for the prompt and its answer, None where no price is known."""
    asked = prompt.query
    bounds = [asked.answer_tokens, expert.defaults.max_tokens, ASSUMED_ANSWER_TOKENS]
    answer = min(b for b in bounds if b) if prompt.answered is None else prompt.answered
    price, hourly = expert.token_price, expert.blended
    if price is not None:
        return (asked.tokens * price.input + asked.answers * answer * price.output) / PER_MILLION
    return None if hourly is None else (asked.tokens + asked.answers * answer) * hourly / PER_MILLION


def _ends(route: Route) -> tuple[str, str]:
    """The names of a flow's ends; of an expert that stays, with another model, both models as well."""
    old, new = route.old, route.new
    if old.expert == new.expert:
        return f"{old.expert} ({old.model})", f"{new.expert} ({new.model})"
    return old.expert or NOBODY, new.expert or NOBODY


def _change(routes: Sequence[Route], figure: Callable[[Landing], float | None]) -> Change:
    both = list(_both(routes, figure))
    if not both:
        return Change(None, None, 0)
    return Change(fmean(before for before, _ in both), fmean(after for _, after in both), len(both))


def _both(routes: Sequence[Route], figure: Callable[[Landing], float | None]) -> Iterator[tuple[float, float]]:
    for route in routes:
        before, after = figure(route.old), figure(route.new)
        if before is not None and after is not None:
            yield before, after


def _loss(before: float | None, after: float | None) -> float:
    return 0.0 if before is None or after is None else before - after


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
