"""Router: from a query to a decision."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from router import conversation
from router.artifact import Artifact, load_artifact
from router.cascade import Cascade
from router.decision import Asked, Decision, Query, Reason, Rules, Scores, Switch
from router.errors import ArtifactError, NoExpertError, RouterError
from router.experts import ExpertsFile
from router.fleet import EMPTY_FLEET, Fleet
from router.language import doubt_of, language_of
from router.policy import POLICIES, Policy, State, policy_name, sticky
from router.reasons import TOLERANCES
from router.roster import Need, Roster, Seat, Standing
from router.turncache import TurnCache

WARMING = (
    "¿Cuántas formas hay de repartir diez caramelos entre tres niños?"  # needs every stage and the model of languages
)
TURNS_KEPT = 32768  # of 500 long conversations; about 24 MB


class Classifier(Protocol):
    """Scores texts; from any thread."""

    def quick(self, text: str) -> Scores | None:
        """The scores where the cheap stage is sure, else None."""

    def score_many(self, texts: Sequence[str]) -> list[Scores]: ...


class _Chosen(NamedTuple):
    """What the policy said of one turn, and what it was said from."""

    expert: str
    reason: Reason
    expected: dict[str, float]
    standing: Standing


class _Held(NamedTuple):
    """What holds a conversation: the expert of the turn before, so many tokens that its worker may have in its cache, and
    whether an answer under way forbids to leave it."""

    expert: str | None = None
    prefix: int = 0
    bound: bool = False


NOTHING_HELD = _Held()


class Router:
    """Immutable but for what it remembers of texts: experts and artifact of one moment. Calls are safe from any thread."""

    def __init__(self, file: ExpertsFile, artifact: Artifact, classifier: Classifier | None = None) -> None:
        """`classifier` is the artifact's own where none is given. Raises ArtifactError where the artifact was trained for
        other domains than the file names."""
        domains = artifact.manifest.domains
        if set(domains) != set(file.domain_names):
            trained, wanted = ", ".join(domains), ", ".join(file.domain_names)
            raise ArtifactError(
                f"the router was trained for {trained}, experts.yaml names {wanted}; run: moe-gateway train"
            )
        self.file = file
        self.artifact = artifact
        self.classifier: Classifier = classifier or Cascade(domains, artifact.stages, language_of, doubt_of)
        self._name = artifact.name
        self._roster = Roster(file, domains)
        self._unweighed = self._roster.candidates({}, {}, {})
        self._certain = {d: Scores({other: float(other == d) for other in domains}, "none") for d in domains}
        self._seen = TurnCache(TURNS_KEPT)
        self._rules: dict[str, Rules] = {}  # by policy

    @staticmethod
    def load(file: ExpertsFile, folder: Path) -> Router:
        """Raises ArtifactError."""
        return Router(file, load_artifact(folder))

    def warm(self) -> None:
        """Read a text, so that no request waits for what is loaded when it is first needed (some 30 ms)."""
        self.score_many([WARMING])

    def resolve(self, requested_model: str) -> str | None:
        """The virtual model or expert id that `requested_model` means, None where it means nothing here."""
        name = self.file.aliases.get(requested_model, requested_model)
        return name if name in self.file.experts or name in POLICIES else None

    def quick(self, query: Query, fleet: Fleet = EMPTY_FLEET) -> Decision | None:
        """The decision where no text has to go through the transformer, else None. Takes well under a millisecond.

        Raises NoExpertError where no expert is able to answer, ExtensionError where another package's policy fails.
        """
        if query.requested_model in self.file.experts:
            return self._pinned(query, fleet)
        started = time.perf_counter()
        turns = _turns(query)
        scored: list[Scores] = []
        for text in reversed(turns):  # the last is the one most likely to be new
            scores = self._seen.get(text)
            if scores is None:
                scores = self.classifier.quick(text)
                if scores is None:
                    return None
                self._seen.put(text, scores)
            scored.append(scores)
        return self._decided(query, scored[::-1], fleet, time.perf_counter() - started)

    def decide(self, query: Query, fleet: Fleet = EMPTY_FLEET) -> Decision:
        """One decision. Raises as `quick` does."""
        (outcome,) = self.decide_many([query], fleet)
        if isinstance(outcome, RouterError):
            raise outcome
        return outcome

    def decide_many(self, queries: Sequence[Query], fleet: Fleet = EMPTY_FLEET) -> list[Decision | RouterError]:
        """Decisions in the order of the queries, each with its share of the time, and in place of one the error that
        `quick` would raise: what is wrong with one query is nothing to the others."""
        started = time.perf_counter()
        routed = [q for q in queries if q.requested_model not in self.file.experts]
        known = self.scored([text for query in routed for text in _turns(query)])
        share = (time.perf_counter() - started) / max(1, len(routed))
        return [self._outcome(query, known, fleet, share) for query in queries]

    def score_many(self, texts: Sequence[str]) -> list[Scores]:
        """The calibrated probability of every domain, for each text by itself."""
        return self.classifier.score_many(texts) if texts else []

    def scored(self, texts: Sequence[str]) -> dict[str, Scores]:
        """The scores of each text by itself; those not seen lately are classified together."""
        known: dict[str, Scores | None] = {text: self._seen.get(text) for text in texts}
        new = [text for text, scores in known.items() if scores is None]
        fresh = dict(zip(new, self.score_many(new), strict=True))
        for text, scores in fresh.items():
            self._seen.put(text, scores)
        return {text: scores or fresh[text] for text, scores in known.items()}

    def _outcome(
        self, query: Query, known: Mapping[str, Scores], fleet: Fleet, seconds: float
    ) -> Decision | RouterError:
        try:
            if query.requested_model in self.file.experts:
                return self._pinned(query, fleet)
            return self._decided(query, [known[text] for text in _turns(query)], fleet, seconds)
        except RouterError as error:
            return error

    def _pinned(self, query: Query, fleet: Fleet) -> Decision:
        """An expert that is asked for by name answers, whatever it is said to be able to; only that it serves the endpoint
        and a limit of cost are kept."""
        started = time.perf_counter()
        expert = query.requested_model
        self._roster.check_serves(expert, _need(query, None))
        self._roster.check_cost(expert, _need(query, None))
        declared = self.file.experts[expert].fallbacks
        return Decision(
            expert=expert,
            reason="pinned",
            fallbacks=self._roster.able_of(declared, _need(query, None), fleet.down) if declared else (),
            scores=None,
            candidates=self._unweighed,
            artifact=self._name,
            seconds=time.perf_counter() - started,
        )

    def _decided(self, query: Query, turns: Sequence[Scores], fleet: Fleet, scoring_seconds: float) -> Decision:
        """The decision, given the scores of each turn by itself; none where the domain is given."""
        started = time.perf_counter()
        name = policy_name(query.overrides.policy or query.requested_model)
        policy = sticky(POLICIES[name])
        held = NOTHING_HELD
        if query.overrides.domain is not None:
            scores = self._given(query, query.overrides.domain)
        else:
            beliefs, asked = conversation.believed(turns), conversation.asked(query)
            scores = beliefs[-1]
            steps = len(turns) if query.continues else len(turns) - 1
            previous = self._replayed(query, policy, beliefs[:steps], asked)
            held = _Held(previous, asked[-1].prefix, query.continues)
        # Where a conversation begins, what is measured may decide: no other request has an answer of its expert yet. A tool's
        # result or a validation retry would have.
        begins = not (query.earlier or query.continues) and query.needs.isdisjoint(("tools", "json_schema"))
        seen = fleet if begins else Fleet(down=fleet.down)
        chosen = self._choice(policy, scores, _need(query, scores.language), held, seen)
        return Decision(
            expert=chosen.expert,
            reason=chosen.reason if query.overrides.domain is None else "pinned",
            fallbacks=self._fallbacks(chosen, fleet),
            scores=scores,
            candidates=self._roster.candidates(chosen.expected, chosen.standing.refused, seen.prices),
            artifact=self._name,
            seconds=scoring_seconds + time.perf_counter() - started,
            switched=_switch(held.expert, chosen),
            previous=held.expert,
            doubt=turns[-1].doubt if turns else None,
            prefix=held.prefix,
            rules=self._rules.get(name) or self._rules_of(name),
        )

    def _rules_of(self, policy: str) -> Rules:
        sure: dict[str, float] = {stage.name: stage.sure for stage in self.artifact.stages if stage.sure}
        floor, fallback = self.file.router.confidence_floor, self.file.fallback
        return self._rules.setdefault(policy, Rules(policy, TOLERANCES.get(policy), floor, fallback, sure))

    def _given(self, query: Query, domain: str) -> Scores:
        """The scores where the request says its domain: certain, and in the language of the last turn that has one."""
        languages = map(language_of, (query.text, *reversed(query.earlier)))
        return replace(self._certain[domain], language=next(filter(None, languages), ""))

    def _fallbacks(self, chosen: _Chosen, fleet: Fleet) -> tuple[str, ...]:
        """Those declared first, then the other able ones, best first, of equal ones the cheapest, of those the fastest."""
        declared = [e for e in self.file.experts[chosen.expert].fallbacks if e in chosen.expected]
        others = [seat for seat in chosen.standing.able if seat.id != chosen.expert and seat.id not in declared]

        def order(seat: Seat) -> tuple[float, float, float]:
            price = fleet.prices.get(seat.id, seat.price)
            price = math.inf if price is None else price
            return -chosen.expected[seat.id], price, fleet.latency.get(seat.id, 0.0)

        return (*declared, *(seat.id for seat in sorted(others, key=order)), *chosen.standing.resting)

    def _replayed(self, query: Query, policy: Policy, beliefs: Sequence[Scores], asked: Sequence[Asked]) -> str | None:
        """The expert of the last of `beliefs`, found by deciding every turn again; None where there are none.

        Every process and replica comes to the same with no shared state, for nothing is looked at that changes: no
        latency, no health, and of each turn's request only what the conversation itself tells.
        """
        previous: str | None = None
        for scores, then in zip(beliefs, asked, strict=False):
            need = _need(query, scores.language)._replace(needs=then.needs, tokens=then.tokens, least_tokens=0)
            try:
                previous = self._choice(policy, scores, need, _Held(previous, then.prefix)).expert
            except NoExpertError:
                continue  # nobody could answer that turn: who answered before it is still the one with the cache
        return previous

    def _choice(self, policy: Policy, scores: Scores, need: Need, held: _Held, fleet: Fleet = EMPTY_FLEET) -> _Chosen:
        standing = self._roster.standing(need, fleet.down)
        expected = self._roster.expected(scores.by_domain, standing.able, need.language)
        cost = math.inf if held.bound else conversation.switch_cost(held.prefix)
        choice = policy(State(self.file, scores, expected, held.expert, cost, held.prefix, fleet.latency, fleet.prices))
        expert, reason = choice or (next(iter(expected)), "best")
        return _Chosen(expert, reason, expected, standing)


def _turns(query: Query) -> tuple[str, ...]:
    """The texts that have to be scored: none where the domain is given."""
    return () if query.overrides.domain is not None else (*query.earlier, query.text)


def _need(query: Query, language: str | None) -> Need:
    return Need(
        query.needs,
        query.tokens,
        query.least_tokens,
        language,
        query.answer_tokens,
        query.overrides.max_cost_usd,
        query.answers,
        query.endpoint,
        query.unable,
    )


def _switch(previous: str | None, chosen: _Chosen) -> Switch | None:
    """Why another expert than `previous` is chosen, None where it is not."""
    if previous is None or previous == chosen.expert:
        return None
    refusal = chosen.standing.refused.get(previous)
    return refusal.cause if refusal else "topic"
