"""Explainer: why a decision is what it is, in figures and in one sentence. Slow beside a decision, and never part of one.

What is said of stages, features and neighbours is about the last user turn by itself, as the classifier reads it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from router import conversation
from router.cascade import Probabilities, Stage
from router.dataset import Row, training_rows
from router.decision import Asked, Candidate, Decision, Query, Scores
from router.encoder import TransformerEncoder
from router.errors import NoExpertError, RouterError
from router.experts import ExpertsFile
from router.explaining.explanation import (
    Conversation,
    ExpertFacts,
    Explanation,
    Features,
    Nearest,
    PolicyFacts,
    StageFacts,
    Term,
    Turn,
    arithmetic,
    line_of,
    visible,
)
from router.explaining.neighbours import Neighbours
from router.explaining.occlusion import FEW_PIECES, MOST_PIECES, occluded
from router.fleet import EMPTY_FLEET, Fleet
from router.policy import POLICIES, State, policy_name, saves
from router.reasons import OF_A_PACKAGE, RULES, TOLERANCES, Case, Weighing, why
from router.roster import LANGUAGE_BONUS
from router.routing import Router

LEAST_EFFECT = 0.05  # on the log-odds, from which a piece is called a feature
MOST_FEATURES = 8
TIMES = 3  # a stage is timed so often; the quickest counts


class Explainer:
    """Explains what one router decides. Any thread; loads the training texts when they are first needed."""

    def __init__(self, router: Router, rows: Callable[[], Sequence[Row]] | None = None) -> None:
        """`rows` gives what the router was trained on: the corpus and the file's own examples where nothing is said."""
        self._router = router
        self._neighbours = Neighbours(router.artifact.vectors, rows or partial(training_rows, router.file))

    def explain(self, query: Query, decision: Decision, fleet: Fleet = EMPTY_FLEET) -> Explanation:
        """Why `query` was given `decision`. Takes some tens of milliseconds where the static stage answered, some
        tenths of a second where the transformer did, and a second more the first time.

        Raises what Router.decide raises where another package's policy fails.
        """
        router = self._router
        query = replace(query, requested_model=router.resolve(query.requested_model) or query.requested_model)
        by_name = decision.scores is None
        name = policy_name(query.overrides.policy or query.requested_model)
        classified = not by_name and query.overrides.domain is None
        texts = (*query.earlier, query.text) if classified else ()
        known = router.scored(texts)  # the decision has just read them
        alone = [known[text] for text in texts]
        turns, weighing = self._turns(query, decision, name, alone) if classified else ((), None)
        state = None if decision.scores is None else _state(router.file, decision, decision.scores)
        answered = next((s for s in router.artifact.stages if alone and s.name == alone[-1].stage), None)
        domain = decision.scores.domain if decision.scores else ""
        return Explanation(
            why=why(Case(router.file, query, decision, name, state, weighing)),
            text=visible(query.text),
            policy=None if by_name else _policy(router.file, name),
            stages=self._stages(query.text, answered) if classified else (),
            experts=tuple(_expert(router.file, c, decision, fleet) for c in decision.candidates),
            features=self._features(query.text, domain, answered) if answered else None,
            nearest=self._nearest(query.text, answered) if answered else None,
            conversation=Conversation(turns, query.continues, weighing) if len(turns) > 1 or query.continues else None,
        )

    def _stages(self, text: str, answered: Stage | None) -> tuple[StageFacts, ...]:
        stages = self._router.artifact.stages
        last = stages.index(answered) if answered else -1
        facts = []
        before: Probabilities | None = None
        for i, stage in enumerate(stages):
            seconds = math.inf
            for _ in range(TIMES):
                started = time.perf_counter()
                said = stage.probabilities([text], before)
                seconds = min(seconds, time.perf_counter() - started)
            before = said
            (row,) = said.tolist()
            by_domain = dict(zip(self._domains, row, strict=True))
            facts.append(
                StageFacts(stage.name, stage.encoder.name, by_domain, stage.sure, i <= last, i == last, 1000 * seconds)
            )
        return tuple(facts)

    def _features(self, text: str, domain: str, answered: Stage) -> Features:
        stages = self._router.artifact.stages
        asked = stages[: stages.index(answered) + 1]
        most = FEW_PIECES if any(map(_is_slow, asked)) else MOST_PIECES
        pieces = [
            replace(piece, text=visible(piece.text))
            for piece in occluded(text, self._domains.index(domain), partial(_answer, asked), most)
        ]
        strongest = sorted((p for p in pieces if abs(p.effect) >= LEAST_EFFECT), key=lambda p: -abs(p.effect))
        return Features(
            method=f"occlusion: log-odds of {domain} lost without the piece",
            stage=answered.name,
            domain=domain,
            pieces=tuple(pieces),
            supporting=tuple(p for p in strongest if p.effect > 0)[:MOST_FEATURES],
            opposing=tuple(p for p in strongest if p.effect < 0)[:MOST_FEATURES],
        )

    def _nearest(self, text: str, stage: Stage) -> Nearest:
        (vector,) = stage.encoder.encode([text])
        try:
            found = self._neighbours.nearest(stage.encoder.name, vector)
        except RouterError as error:
            return Nearest(stage.name, (), f"the training texts cannot be shown: {error}")
        return Nearest(stage.name, tuple(replace(n, text=line_of(n.text)) for n in found))

    def _turns(
        self, query: Query, decision: Decision, name: str, alone: Sequence[Scores]
    ) -> tuple[tuple[Turn, ...], Weighing | None]:
        """Every turn, decided again as the router does it, and the weighing of the decision itself."""
        texts, asked = (*query.earlier, query.text), conversation.asked(query)
        turns: list[Turn] = []
        previous: str | None = None
        for i, (scores, belief) in enumerate(zip(alone, conversation.believed(alone), strict=True)):
            last = i == len(texts) - 1 and not query.continues
            decided = decision if last else self._then(query, texts[: i + 1], asked[: i + 1])
            weighing = self._weighing(decided, name, previous, asked[i].prefix) if decided else None
            previous = decided.expert if decided else previous
            turns.append(_turn(texts[i], scores, belief, decided, weighing))
        if query.continues:
            return tuple(turns), self._weighing(decision, name, previous, None)
        return tuple(turns), turns[-1].weighing

    def _then(self, query: Query, texts: Sequence[str], asked: Sequence[Asked]) -> Decision | None:
        """The decision when the conversation ended with the last of `texts`, None where nobody was able."""
        *earlier, text = texts
        then = replace(
            query, text=text, earlier=tuple(earlier), asked=tuple(asked), continues=False,
            needs=asked[-1].needs, tokens=asked[-1].tokens, least_tokens=0,
        )  # fmt: skip
        try:
            return self._router.decide(then)
        except NoExpertError:
            return None

    def _weighing(self, decision: Decision, name: str, previous: str | None, prefix: int | None) -> Weighing | None:
        """`prefix` is None where nothing would do. None where there is nothing to weigh: no turn before, or the policy would
        keep its expert, or that one cannot."""
        if previous is None or decision.scores is None:
            return None
        cost = None if prefix is None else conversation.switch_cost(prefix)
        state = replace(
            _state(self._router.file, decision, decision.scores),
            previous=previous, switch_cost=math.inf if cost is None else cost, prefix=prefix or 0,
        )  # fmt: skip
        choice = POLICIES[name](state) or (next(iter(state.expected)), "best")
        wanted = choice[0]
        if wanted == previous or previous not in state.expected:
            return None
        gain = state.expected[wanted] - state.expected[previous]
        cheaper = gain <= state.switch_cost and saves(state, choice, previous)
        return Weighing(previous, wanted, gain, cost, decision.expert == wanted, cheaper)

    @property
    def _domains(self) -> tuple[str, ...]:
        return self._router.artifact.manifest.domains


def _answer(stages: Sequence[Stage], texts: Sequence[str]) -> Probabilities:
    """What the last of `stages` says of each text, given what those before it say."""
    first, *others = stages
    said = first.probabilities(texts)
    for stage in others:
        said = stage.probabilities(texts, said)
    return said


def _is_slow(stage: Stage) -> bool:
    """Whether a text takes it milliseconds. The cheap stage may be a transformer as well, where the file names one for it."""
    return stage.name == "transformer" or isinstance(stage.encoder, TransformerEncoder)


def _state(file: ExpertsFile, decision: Decision, scores: Scores) -> State:
    """What the policy looked at, but for the turn before."""
    able = {c.expert: c.expected_quality for c in decision.candidates if c.expected_quality is not None}
    prices = {c.expert: c.price for c in decision.candidates if c.price is not None}
    return State(file, scores, dict(sorted(able.items(), key=lambda item: -item[1])), prices=prices)


def _policy(file: ExpertsFile, name: str) -> PolicyFacts:
    rule = RULES.get(name, OF_A_PACKAGE)
    return PolicyFacts(name, rule, TOLERANCES.get(name), file.router.confidence_floor, file.fallback)


def _expert(file: ExpertsFile, candidate: Candidate, decision: Decision, fleet: Fleet) -> ExpertFacts:
    expert, scores = file.experts[candidate.expert], decision.scores
    bonus = LANGUAGE_BONUS if scores and scores.language in expert.languages else 0.0
    terms = []
    for domain, probability in scores.by_domain.items() if scores else ():
        quality = file.quality(candidate.expert, domain)
        quality = min(1.0, quality + bonus) if bonus else quality
        terms.append(Term(domain, probability, quality, probability * quality))
    price = expert.token_price
    return ExpertFacts(
        id=candidate.expert,
        chosen=candidate.expert == decision.expert,
        expected_quality=sum(term.product for term in terms) if terms else None,
        arithmetic=arithmetic(terms),
        terms=tuple(terms),
        language_bonus=bonus,
        price=candidate.price,
        price_estimated=candidate.estimated,
        price_input=price.input if price else None,
        price_output=price.output if price else None,
        latency_seconds=fleet.latency.get(candidate.expert),
        refused=candidate.refused,
    )


def _turn(text: str, alone: Scores, belief: Scores, decided: Decision | None, weighing: Weighing | None) -> Turn:
    return Turn(
        text=line_of(text),
        language=belief.language,
        stage=alone.stage,
        doubt=alone.doubt,
        alone=dict(alone.by_domain),
        belief=dict(belief.by_domain),
        expert=decided.expert if decided else None,
        reason=decided.reason if decided else None,
        weighing=weighing,
    )
