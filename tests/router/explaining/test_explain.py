from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.artifact import Artifact
from router.conversation import believed, switch_cost
from router.dataset import Row
from router.decision import Asked, Decision, Overrides, Query
from router.decision import Stage as StageName
from router.encoder import TransformerEncoder
from router.errors import ArtifactError
from router.experts import ExpertsFile
from router.explaining.explain import Explainer
from router.explaining.explanation import Explanation
from router.explaining.occlusion import FEW_PIECES, MOST_PIECES
from router.fleet import Fleet
from router.policy import POLICIES
from router.routing import Router
from router.vectors import Vectors
from tests.fakes.corpora import trained_on
from tests.fakes.encoders import (
    Told,
    artifact_of,
    identity,
    router_with,
    saying,
    spoken_artifact,
    spoken_router,
    stage_of,
    tiny_encoder,
    told_router,
)
from tests.fakes.fleets import VIRTUAL, fleet, fleets, price, probabilities

TRIO: dict[str, dict[str, Any]] = {
    "coder": {"domains": {"code": 0.9, "math": 0.5}, "price": price(1), "capabilities": ["tools"]},
    "counter": {"domains": {"math": 0.9}, "price": {"input": 1, "output": 5}},
    "general": {"domains": {"general": 0.8}},
}
FILE = fleet(TRIO, floor=0.55, aliases={"gpt-4": "coder", "gpt-4o-mini": "auto:cheap"})
ON_CODE = "code=0.9 general=0.1"
ON_MATH = "math=0.9 general=0.1"
WEIGHTS = {"def": ("code", 3.0), "sum": ("math", 1.0), "tea": ("general", 2.0), "hmm": ("code", 0.2)}


class Words:
    """An encoder whose vector is the sum of WEIGHTS of a text's words, a figure a domain; remembers the threads."""

    def __init__(self, name: str, domains: Sequence[str]) -> None:
        self.name, self.domains, self.dimensions = name, domains, len(domains)
        self.threads: set[str] = set()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.threads.add(threading.current_thread().name)
        out = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(out, texts, strict=True):
            for word in text.split():
                domain, weight = WEIGHTS.get(word, ("", 0.0))
                if domain:
                    row[self.domains.index(domain)] += weight
        return out


class Counting(Words):
    """Counts the texts that it reads."""

    read = 0

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.read += len(texts)
        return super().encode(texts)


class Keeping(Artifact):
    """An artifact that has the vectors of some texts with it."""

    def vectors(self) -> Vectors:
        texts = [row.text for row in trained_on("code", 4)]
        made = np.eye(4, self.manifest.stages[0].dimensions, dtype=np.float32)
        return Vectors.of(texts, {stage.encoder: made for stage in self.manifest.stages})


def worded(file: ExpertsFile = FILE, sure: float = 0.85, kind: type[Artifact] = Artifact) -> Router:
    """A router of two stages: `cheap`, and `dear`, which is twice as certain."""
    domains = file.domain_names
    cheap = stage_of(Words("cheap", domains), identity(len(domains)), "static", sure=sure)
    dear = stage_of(Words("dear", domains), identity(len(domains), 2))
    made = artifact_of(domains, cheap, dear)
    return router_with(file, kind(made.folder, made.manifest, made.stages))


def explained(router: Router, query: Query, fleet: Fleet = Fleet()) -> tuple[Decision, Explanation]:  # noqa: B008
    decision = router.decide(query, fleet)
    return decision, Explainer(router, few_rows).explain(query, decision, fleet)


def few_rows() -> list[Row]:
    """The corpus itself is large."""
    return trained_on("code", 4)


@given(fleets(), probabilities(), VIRTUAL, st.sampled_from(["", "ja", "de"]), st.sampled_from(["a", "b"]))
@settings(max_examples=30, deadline=None)
def test_every_experts_terms_add_up_to_what_the_policy_weighed(
    file: ExpertsFile, chances: Mapping[str, float], model: str, language: str, specialist: str
) -> None:
    if specialist in file.experts:
        own = file.experts[specialist].model_copy(update={"languages": frozenset({"ja"})})
        file = file.model_copy(update={"experts": {**file.experts, specialist: own}})
    text = saying(chances) + (f" language={language}" if language else "")
    decision, explanation = explained(told_router(file), Query(text, model))
    for candidate, facts in zip(decision.candidates, explanation.experts, strict=True):
        assert (facts.id, facts.refused) == (candidate.expert, candidate.refused)
        assert facts.expected_quality == pytest.approx(sum(t.probability * t.quality for t in facts.terms))
        if candidate.expected_quality is not None:
            assert facts.expected_quality == pytest.approx(candidate.expected_quality)
    assert [facts.id for facts in explanation.experts if facts.chosen] == [decision.expert]
    assert explanation.described()


def test_an_experts_line_has_its_prices_its_latency_and_why_it_is_refused() -> None:
    query = Query(ON_CODE, needs=frozenset({"tools"}))
    _, explanation = explained(spoken_router(FILE), query, Fleet(latency={"coder": 0.25}))
    coder, counter, general = explanation.experts
    assert (coder.price, coder.price_input, coder.price_output, coder.latency_seconds) == (1, 1, 1, 0.25)
    assert (counter.price, counter.price_input, counter.price_output, counter.latency_seconds) == (2, 1, 5, None)
    assert general.price is None
    assert [e.refused for e in explanation.experts] == [None, "cannot do tools", "cannot do tools"]
    assert coder.arithmetic == "0.90×0.90 code + 0.40×0.10 general + … = 0.850"
    assert counter.expected_quality == pytest.approx(0.4)
    assert explanation.why.startswith("coder is the only expert")


def test_a_specialists_qualities_are_told_with_its_bonus() -> None:
    file = fleet({**TRIO, "sensei": {"domains": {"code": 0.95}, "languages": ["ja"]}})
    _, explanation = explained(told_router(file), Query("code=1 language=ja"))
    sensei = explanation.experts[-1]
    assert (sensei.language_bonus, sensei.terms[0].quality) == (0.1, 1.0)
    assert [e.language_bonus for e in explanation.experts[:-1]] == [0, 0, 0]
    _, explanation = explained(told_router(file), Query("code=1 language=de"))
    assert (explanation.experts[-1].language_bonus, explanation.experts[-1].terms[0].quality) == (0.0, 0.95)


@pytest.mark.parametrize(
    ("model", "name", "tolerance"), [("auto", "auto", 0.02), ("auto:best", "auto:best", 0.0), ("gpt-4o-mini", "auto:cheap", 0.1)]
)  # fmt: skip
def test_the_policy_is_named_with_its_tolerance_and_the_floor(model: str, name: str, tolerance: float) -> None:
    query = Query(ON_CODE)
    router = spoken_router(FILE)
    decision = router.decide(replace(query, requested_model=name))
    policy = Explainer(router, few_rows).explain(replace(query, requested_model=model), decision).policy
    assert policy is not None
    assert (policy.name, policy.tolerance, policy.floor, policy.fallback) == (name, tolerance, 0.55, "general")


def test_a_request_may_name_its_policy_and_a_package_may_add_one() -> None:
    with POLICIES.lending("auto:last", lambda state: (list(state.expected)[-1], "best")):
        decision, explanation = explained(spoken_router(FILE), Query(ON_CODE, overrides=Overrides(policy="auto:last")))
    assert explanation.policy is not None
    assert (explanation.policy.name, explanation.policy.tolerance) == ("auto:last", None)
    assert explanation.why.startswith(f"The policy auto:last, which another package adds, chose {decision.expert}")


def test_each_stage_says_its_own_and_which_of_them_answered() -> None:
    _, explanation = explained(worded(), Query("hmm tea"))
    cheap, dear = explanation.stages
    assert (cheap.name, cheap.encoder, cheap.sure, cheap.asked, cheap.answered) == (
        "static",
        "cheap",
        0.85,
        True,
        False,
    )
    assert (dear.name, dear.encoder, dear.asked, dear.answered) == ("transformer", "dear", True, True)
    assert cheap.probabilities["general"] < 0.85 < dear.probabilities["general"]
    assert min(cheap.milliseconds, dear.milliseconds) >= 0


def test_a_stage_behind_one_that_was_sure_is_told_as_not_asked() -> None:
    _, explanation = explained(worded(), Query("def"))
    assert [(s.asked, s.answered) for s in explanation.stages] == [(True, True), (False, False)]


def test_features_are_those_of_the_stage_that_answered() -> None:
    for text, stage, effect in (
        ("def", "static", 3.0),
        ("hmm tea tea", "static", 2.0),
        ("hmm tea", "transformer", 4.0),
    ):
        _, explanation = explained(worded(), Query(text))
        assert explanation.features is not None
        assert (explanation.features.stage, len(explanation.features.pieces)) == (stage, len(text.split()))
        assert explanation.features.supporting[0].effect == pytest.approx(effect, abs=0.3)
        assert explanation.features.domain in explanation.features.method


def test_features_are_of_the_whole_answer_what_the_stage_before_said_among_it() -> None:
    """The dear stage knows nothing here: half of the answer is the cheap one's, and all of what speaks for it."""
    domains = FILE.domain_names
    cheap = stage_of(Words("cheap", domains), identity(len(domains)), "static", sure=1.0)
    dear = replace(stage_of(Words("dear", domains), identity(len(domains), 0)), blend=0.5)
    _, explanation = explained(router_with(FILE, artifact_of(domains, cheap, dear)), Query("sum tea tea tea"))
    features = explanation.features
    assert features is not None
    assert (features.stage, features.domain) == ("transformer", "general")
    assert [p.text.strip() for p in features.supporting] == ["tea"] * 3
    assert [p.text.strip() for p in features.opposing] == ["sum"]
    without = dear.probabilities(["tea tea tea"], cheap.probabilities(["tea tea tea"]))[0, domains.index("general")]
    lost = log_odds(explanation.stages[1].probabilities["general"]) - log_odds(float(without))
    assert features.pieces[0].effect == pytest.approx(lost)


def log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


@pytest.mark.parametrize(
    ("first", "sure", "pieces"), [("static", 0.5, MOST_PIECES), ("static", 1.0, FEW_PIECES), ("transformer", 0.5, FEW_PIECES)]
)  # fmt: skip
def test_a_slow_stage_reads_few_texts_however_long_the_prompt(first: StageName, sure: float, pieces: int) -> None:
    domains = FILE.domain_names
    cheap, dear = Counting("cheap", domains), Counting("dear", domains)
    stages = stage_of(cheap, identity(len(domains)), first, sure=sure), stage_of(dear, identity(len(domains), 2))
    router = router_with(FILE, artifact_of(domains, *stages))
    query = Query("tea " + "word " * 200)
    decision = router.decide(query)
    dear.read = 0
    explanation = Explainer(router, few_rows).explain(query, decision)
    assert explanation.features is not None
    assert len(explanation.features.pieces) == pieces
    assert dear.read <= FEW_PIECES + 8  # the whole text as well, the stage by itself, and what is nearest


def test_turns_that_the_decision_read_are_not_read_again() -> None:
    router = told_router(FILE)
    query = Query(ON_CODE, earlier=(ON_MATH, "general=1"))
    decision = router.decide(query)
    told = router.classifier
    assert isinstance(told, Told)
    told.asked.clear()
    Explainer(router, few_rows).explain(query, decision)
    assert [texts for texts in told.asked if texts] == []


def test_a_transformer_in_the_place_of_the_cheap_stage_is_slow(tmp_path: Path) -> None:
    domains = FILE.domain_names
    encoder = TransformerEncoder(tiny_encoder(tmp_path, ["tea"], dimensions=len(domains)))
    router = router_with(FILE, artifact_of(domains, stage_of(encoder, identity(len(domains)), "static")))
    _, explanation = explained(router, Query("tea " * 200))
    assert explanation.features is not None
    assert len(explanation.features.pieces) == FEW_PIECES


def test_the_strongest_features_come_first_and_what_does_nothing_is_none() -> None:
    _, explanation = explained(worded(sure=0.5), Query("a sum def tea tea a"))
    features = explanation.features
    assert features is not None
    assert features.domain == "general"
    assert [p.text for p in features.pieces] == ["a ", "sum ", "def ", "tea ", "tea ", "a"]
    assert [p.text for p in features.supporting] == ["tea ", "tea "]
    assert [p.text for p in features.opposing] == ["def ", "sum "]


def test_what_an_earlier_turn_decided_is_what_features_are_for() -> None:
    """Of a follow-up that says little, the words for and against the conversation's domain are shown, not its own."""
    _, explanation = explained(worded(), Query("sum", earlier=("def def",)))
    assert explanation.features is not None
    assert explanation.features.domain == "code"
    assert [p.text for p in explanation.features.opposing] == ["sum"]


def test_the_nearest_training_prompts_are_told_by_the_stage_that_answered() -> None:
    _, explanation = explained(worded(kind=Keeping), Query("sum sum sum"))
    assert explanation.nearest is not None
    first, *others = explanation.nearest.examples
    taught = [row.text for row in trained_on("code", 4)]
    assert (first.text, first.domain, first.language) == (taught[1], "code", "en")
    assert first.similarity == pytest.approx(1.0)
    assert {n.text for n in others} == {taught[0], taught[2], taught[3]}
    assert (explanation.nearest.stage, explanation.nearest.missing) == ("static", None)


def test_without_the_vectors_everything_else_is_told() -> None:
    _, explanation = explained(worded(), Query("def"))
    assert explanation.nearest is not None
    assert explanation.nearest.examples == ()
    assert explanation.nearest.missing == (
        "the training texts cannot be shown: the file of their vectors is missing or damaged; run: moe-gateway train"
    )
    assert explanation.features is not None


def test_hostile_text_is_made_visible_everywhere() -> None:
    _, explanation = explained(worded(), Query("\x1b[2J \ud800 def", earlier=("\x1b]0;x\x07 def",)))
    said = repr(explanation.described())
    assert "\\\\x1b[2J" in said
    assert "\\x1b[2J" not in said.replace("\\\\", "")
    assert "\\\\ud800" in said
    assert explanation.features is not None
    assert "".join(p.text for p in explanation.features.pieces) == explanation.text
    explanation_of_turn = explanation.conversation
    assert explanation_of_turn is not None
    assert explanation_of_turn.turns[0].text == "\\x1b]0;x\\x07 def"


def test_of_an_expert_asked_for_by_name_there_is_little_to_tell() -> None:
    router = spoken_router(FILE)
    query = Query("not a word that the classifier could read", "gpt-4")
    decision = router.decide(replace(query, requested_model="coder"))
    explanation = Explainer(router, few_rows).explain(query, decision)
    assert explanation.why == "The request asks for coder by name, so nothing was chosen."
    assert (explanation.policy, explanation.features, explanation.nearest, explanation.conversation) == (None,) * 4
    assert explanation.stages == ()
    assert [(e.chosen, e.expected_quality, e.arithmetic) for e in explanation.experts] == [
        (True, None, ""), (False, None, ""), (False, None, ""),
    ]  # fmt: skip


def test_where_the_domain_is_given_nothing_is_classified_but_the_arithmetic_is_told() -> None:
    router = spoken_router(FILE)
    query = Query(
        "not a word that the classifier could read", overrides=Overrides(domain="math"), earlier=("nor this",)
    )
    _, explanation = explained(router, query)
    assert (explanation.stages, explanation.features, explanation.conversation) == ((), None, None)
    assert explanation.experts[1].arithmetic == "0.90×1.00 math + … = 0.900"
    assert explanation.policy is not None
    assert "domain is math" in explanation.why


def test_one_turn_is_no_conversation() -> None:
    assert explained(spoken_router(FILE), Query(ON_CODE))[1].conversation is None


def test_each_turn_has_its_belief_its_expert_and_what_a_switch_was_worth() -> None:
    router = spoken_router(FILE)
    texts = (ON_CODE, "code=0.4 math=0.3 general=0.3", ON_MATH)
    asked = (Asked(0, 100), Asked(100, 120), Asked(120, 9000))
    query = Query(texts[-1], earlier=texts[:-1], asked=asked, tokens=9000)
    decision, explanation = explained(router, query)
    talk = explanation.conversation
    assert talk is not None
    beliefs = believed(router.score_many(texts))
    assert [dict(t.belief) for t in talk.turns] == [dict(b.by_domain) for b in beliefs]
    assert [t.alone["code"] for t in talk.turns] == pytest.approx([0.9, 0.4, 0.0], abs=1e-5)
    assert [(t.expert, t.reason) for t in talk.turns] == [("coder", "best")] * 2 + [(decision.expert, decision.reason)]
    assert talk.turns[0].weighing is None
    assert talk.turns[1].weighing is None
    weighing = talk.turns[2].weighing
    assert weighing == talk.weighing
    assert weighing is not None
    by_expert = {c.expert: c.expected_quality for c in decision.candidates}
    assert (weighing.kept, weighing.wanted, weighing.switched) == ("coder", decision.expert, True)
    assert weighing.gain == pytest.approx((by_expert[decision.expert] or 0) - (by_expert["coder"] or 0))
    assert weighing.cost == switch_cost(120)


HARDLY = Query(
    "code=0.38 general=0.62", earlier=("code=0.6 general=0.4",), asked=(Asked(0, 10), Asked(8000, 8010))
)  # the second turn would be a little better off with general, which is the fallback
PAIR = fleet(
    {"coder": {"domains": {"code": 0.8, "general": 0.6}}, "general": {"domains": {"general": 0.8}}},
    router={"fallback": "general"},
)


def test_a_switch_that_is_not_worth_it_is_weighed_and_the_sentence_has_its_figures() -> None:
    decision, explanation = explained(spoken_router(PAIR), HARDLY)
    assert (decision.expert, decision.reason) == ("coder", "sticky")
    assert explanation.conversation is not None
    weighing = explanation.conversation.weighing
    assert weighing is not None
    assert (weighing.kept, weighing.wanted, weighing.switched) == ("coder", "general", False)
    assert weighing.cost == pytest.approx(0.1)
    assert 0 < weighing.gain < 0.1
    assert f"general would be better by {weighing.gain:.3f}" in explanation.why


def test_a_switch_for_the_price_is_told_as_one() -> None:
    big = {"domains": {"code": 0.95, "general": 0.92}, "price": price(9)}
    small = {"domains": {"general": 0.9}, "price": price(0.1)}
    query = Query("general=1", "auto:cheap", earlier=("code=1",))
    decision, explanation = explained(spoken_router(fleet({"big": big, "small": small})), query)
    assert explanation.conversation is not None
    weighing = explanation.conversation.weighing
    assert weighing is not None
    assert (weighing.kept, weighing.wanted, weighing.switched, weighing.saves) == ("big", "small", True, True)
    assert weighing.gain == pytest.approx(-0.02, abs=1e-6)
    assert (decision.expert, decision.switched) == ("small", "topic")
    assert "small takes the conversation over from big: it is so much cheaper" in explanation.why


def test_a_turn_in_doubt_is_told_as_one_though_what_was_said_before_counts() -> None:
    query = Query("math=1 doubt=out_of_distribution", earlier=("code=1",))
    decision, explanation = explained(told_router(FILE), query)
    assert explanation.conversation is not None
    assert [turn.doubt for turn in explanation.conversation.turns] == [None, "out_of_distribution"]
    assert (decision.expert, explanation.conversation.turns[1].belief["code"]) == ("coder", 1.0)
    assert "The last turn by itself is nothing that the router can judge" in explanation.why


def test_an_answer_under_way_is_never_worth_a_switch() -> None:
    decision, explanation = explained(spoken_router(PAIR), replace(HARDLY, continues=True))
    talk = explanation.conversation
    assert talk is not None
    assert [t.expert for t in talk.turns] == ["coder", "coder"]
    assert talk.continues
    assert talk.weighing is not None
    assert (talk.weighing.kept, talk.weighing.wanted, talk.weighing.cost) == ("coder", "general", None)
    assert talk.turns[1].weighing == replace(talk.weighing, cost=switch_cost(8000))
    assert (decision.reason, explanation.why) == (
        "sticky", "The request goes on with an answer under way (a tool's result or a retry), and coder began it.",
    )  # fmt: skip


def test_a_tool_loop_of_one_turn_is_told_as_a_conversation() -> None:
    _, explanation = explained(spoken_router(FILE), Query(ON_CODE, continues=True))
    assert explanation.conversation is not None
    assert len(explanation.conversation.turns) == 1


def test_a_turn_that_nobody_could_answer_then_has_no_expert() -> None:
    file = fleet(
        {"coder": {"domains": {"code": 0.9}, "capabilities": ["tools"]}, "general": {"domains": {"general": 0.9}}}
    )
    asked = (Asked(0, 10, frozenset({"audio"})), Asked(10, 20))
    _, explanation = explained(spoken_router(file), Query(ON_CODE, earlier=(ON_CODE,), asked=asked))
    assert explanation.conversation is not None
    assert [t.expert for t in explanation.conversation.turns] == [None, "coder"]
    assert explanation.conversation.weighing is None


def test_over_a_turn_that_nobody_could_answer_the_expert_before_it_is_kept() -> None:
    deaf = Asked(10, 20, frozenset({"audio"}))
    query = Query("general=1", earlier=("code=1", "code=0.5 general=0.5"), asked=(Asked(0, 10), deaf, Asked(20, 30)))
    _, explanation = explained(spoken_router(PAIR), query)
    assert explanation.conversation is not None
    assert [t.expert for t in explanation.conversation.turns] == ["coder", None, "general"]
    assert explanation.conversation.weighing is not None
    assert explanation.conversation.weighing.kept == "coder"


@given(fleets(), st.lists(probabilities(), min_size=2, max_size=4), VIRTUAL, st.booleans())
@settings(max_examples=20, deadline=None)
def test_the_turns_told_are_those_that_the_router_replays(
    file: ExpertsFile, turns: list[Mapping[str, float]], model: str, continues: bool
) -> None:
    router = told_router(file)
    *earlier, text = map(saying, turns)
    decision, explanation = explained(router, Query(text, model, earlier=tuple(earlier), continues=continues))
    talk = explanation.conversation
    assert talk is not None
    if talk.weighing:
        assert talk.weighing.switched == (decision.expert == talk.weighing.wanted)
        assert (decision.expert == talk.weighing.kept) == (decision.reason == "sticky")
    if not continues:
        assert talk.turns[-1].expert == decision.expert
        if decision.reason == "sticky":
            assert talk.turns[-2].expert == decision.expert
        assert (decision.switched is None) == (talk.turns[-2].expert == decision.expert)
    else:
        assert talk.turns[-1].expert == decision.expert


def test_a_decision_loads_nothing_of_what_explains_it(tmp_path: Path) -> None:
    """Vectors and training texts are read when the first explanation is asked for, once."""
    loaded: list[str] = []

    class Counting(Artifact):
        def vectors(self) -> Vectors:
            loaded.append("vectors")
            raise ArtifactError("none")

    made = spoken_artifact(FILE.domain_names)
    router = router_with(FILE, Counting(tmp_path, made.manifest, made.stages))
    explainer = Explainer(router, few_rows)
    decision = router.decide(Query(ON_CODE))
    assert loaded == []
    for _ in range(2):
        explainer.explain(Query(ON_CODE), decision)
    assert loaded == ["vectors"]
