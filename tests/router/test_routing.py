from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import language, ngrams
from router.artifact import PACKAGED, Artifact
from router.conversation import looked_at
from router.decision import Asked, Decision, Overrides, Query, Rules
from router.errors import ArtifactError, NoExpertError, RouterError
from router.experts import BUILT_IN_DOMAINS, ExpertsFile, load_experts
from router.fleet import Fleet
from router.routing import WARMING, Router
from tests.fakes.encoders import Spoken, Told, saying, spoken_artifact, spoken_router, told_router
from tests.fakes.fleets import VIRTUAL, able, fleet, fleets, price, probabilities, queries

ROOT = Path(__file__).parents[2]
TRIO: dict[str, dict[str, Any]] = {
    "coder": {"domains": {"code": 0.9}, "fallbacks": ["general"], "capabilities": ["tools"], "price": price(1)},
    "counter": {"domains": {"math": 0.9}, "price": price(2)},
    "general": {"domains": {"general": 0.8}, "price": price(0.5)},
}
ON_CODE = "code=0.9 general=0.1"
ON_MATH = "math=0.9 general=0.1"
UNCLEAR = "code=0.4 math=0.3 general=0.3"


@pytest.fixture(scope="module")
def router() -> Router:
    return spoken_router(fleet(TRIO, floor=0.55, aliases={"gpt-4o-mini": "auto", "gpt-4": "coder"}))


@pytest.fixture
def told() -> Router:
    """The same experts, and a classifier that believes what texts say; of no text it has heard yet."""
    return told_router(fleet(TRIO, floor=0.55))


def asked_of(router: Router) -> list[list[str]]:
    """What went through the second stage, call by call."""
    assert isinstance(router.classifier, Told)
    return router.classifier.asked


def seen_by(router: Router) -> list[list[str]]:
    """What the encoder of a spoken router was given, call by call."""
    (stage,) = router.artifact.stages
    assert isinstance(stage.encoder, Spoken)
    return stage.encoder.seen


def experts(outcomes: Sequence[Decision | RouterError]) -> list[str | None]:
    return [outcome.expert if isinstance(outcome, Decision) else None for outcome in outcomes]


@pytest.fixture(scope="module")
def shipped(packaged: Artifact) -> Router:
    return Router(load_experts(ROOT / "experts.yaml"), packaged)


def test_a_prompt_goes_to_the_expert_of_its_domain(router: Router) -> None:
    assert [router.decide(Query(text)).expert for text in (ON_CODE, ON_MATH, "general=1")] == [
        "coder",
        "counter",
        "general",
    ]


def test_a_decision_carries_probabilities_that_sum_to_one_in_the_order_of_the_domains(router: Router) -> None:
    scores = router.decide(Query(ON_CODE)).scores
    assert scores is not None
    assert list(scores.by_domain) == ["code", "math", "bio", "general"]
    assert scores.by_domain == pytest.approx({"code": 0.9, "math": 0.0, "bio": 0.0, "general": 0.1}, abs=1e-5)
    assert sum(scores.by_domain.values()) == pytest.approx(1)
    assert (scores.domain, scores.stage) == ("code", "transformer")
    assert scores.confidence == pytest.approx(0.9)


def test_the_temperature_of_the_artifact_flattens_probabilities() -> None:
    (scores,) = spoken_router(fleet(TRIO), temperature=2.0).score_many(
        [saying({"code": 0.64, "math": 0.3, "bio": 0.02, "general": 0.04})]
    )
    roots = {"code": 0.8, "math": 0.3**0.5, "bio": 0.02**0.5, "general": 0.2}
    assert scores.by_domain == pytest.approx({d: r / sum(roots.values()) for d, r in roots.items()}, abs=1e-5)


def test_an_unclear_prompt_goes_to_the_fallback_and_says_why(router: Router) -> None:
    decision = router.decide(Query(UNCLEAR))
    assert (decision.expert, decision.reason) == ("general", "low_confidence")
    assert decision.scores is not None
    assert decision.scores.domain == "code"


def test_declared_fallbacks_come_first_then_the_others_best_first(router: Router) -> None:
    assert router.decide(Query(ON_CODE)).fallbacks == ("general", "counter")
    assert router.decide(Query("math=0.6 code=0.4")).fallbacks == ("general", "coder")
    assert router.decide(Query("general=0.9 math=0.1")).fallbacks == ("counter", "coder")


def test_a_declared_fallback_that_is_not_able_is_left_out(router: Router) -> None:
    decision = router.decide(Query(ON_CODE, needs=frozenset({"tools"})))
    assert (decision.expert, decision.reason, decision.fallbacks) == ("coder", "only_capable", ())


def test_every_expert_stands_in_the_arithmetic_refused_or_not(router: Router) -> None:
    decision = router.decide(Query(ON_CODE, needs=frozenset({"tools"})))
    assert [(c.expert, c.refused) for c in decision.candidates] == [
        ("coder", None),
        ("counter", "cannot do tools"),
        ("general", "cannot do tools"),
    ]
    assert decision.candidates[0].expected_quality == pytest.approx(0.9 * 0.9 + 0.1 * 0.4, abs=1e-5)


def test_a_request_that_nobody_can_answer_is_refused(router: Router) -> None:
    with pytest.raises(NoExpertError):
        router.decide(Query(ON_CODE, needs=frozenset({"audio"})))


def test_a_decision_names_the_artifact_and_takes_some_time(router: Router) -> None:
    decision = router.decide(Query(ON_CODE))
    assert decision.artifact == router.artifact.name == "beef"
    assert decision.seconds > 0


# Experts by name


def test_an_expert_that_is_asked_for_by_name_is_pinned_without_classifying(router: Router) -> None:
    seen = len(seen_by(router))
    decision = router.decide(Query("not even words", requested_model="coder"))
    assert (decision.expert, decision.reason, decision.stage) == ("coder", "pinned", "none")
    assert decision.scores is None
    assert decision.fallbacks == ("general",)
    assert len(seen_by(router)) == seen


def test_the_quick_way_decides_experts_by_name() -> None:
    router = spoken_router(fleet(TRIO))
    pinned = router.quick(Query("t", requested_model="coder"))
    assert pinned is not None
    assert pinned.expert == "coder"
    assert router.quick(Query(ON_CODE)) is None
    assert router.quick(Query(ON_CODE, requested_model="auto:best")) is None


def test_a_decision_says_what_was_kept_to(router: Router) -> None:
    decision = router.decide(Query(ON_CODE))
    assert decision.rules == Rules("auto", 0.02, 0.55, "general", {})
    assert router.decide(Query(ON_MATH)).rules is decision.rules
    assert router.decide(Query(ON_CODE, requested_model="auto:cheap")).rules == Rules(
        "auto:cheap", 0.1, 0.55, "general", {}
    )
    overridden = router.decide(Query(ON_CODE, overrides=Overrides(policy="auto:best", domain="math"))).rules
    assert overridden is not None
    assert (overridden.policy, overridden.tolerance) == ("auto:best", 0.0)
    assert router.decide(Query(ON_CODE, requested_model="coder")).rules is None


def test_from_which_confidence_on_a_stage_is_sure_is_said(packaged: Artifact) -> None:
    file = load_experts(ROOT / "experts.yaml")
    rules = Router(file, packaged).decide(Query("Prove that the square root of 2 is irrational.")).rules
    assert rules is not None
    assert rules.sure == {"static": 0.9}


def test_a_pinned_expert_answers_even_what_it_is_not_said_to_be_able_to(router: Router) -> None:
    assert router.decide(Query("t", requested_model="counter", needs=frozenset({"tools"}))).expert == "counter"


def test_the_fallbacks_of_a_pinned_expert_are_able_as_well(router: Router) -> None:
    assert router.decide(Query("t", requested_model="coder", needs=frozenset({"tools"}))).fallbacks == ()


@pytest.mark.parametrize(
    ("requested", "meant"),
    [
        ("auto", "auto"),
        ("auto:cheap", "auto:cheap"),
        ("coder", "coder"),
        ("gpt-4o-mini", "auto"),
        ("gpt-4", "coder"),
        ("Coder", None),
        ("auto:", None),
        ("", None),
        ("m", None),
    ],
)
def test_a_model_means_a_virtual_model_an_expert_or_what_its_alias_means(
    router: Router, requested: str, meant: str | None
) -> None:
    assert router.resolve(requested) == meant


# Many at once


def test_many_decisions_come_in_the_order_of_the_queries_from_one_batch() -> None:
    router = spoken_router(fleet(TRIO))
    asked = [Query(ON_MATH), Query("t", requested_model="coder"), Query(ON_CODE), Query("general=1")]
    assert experts(router.decide_many(asked)) == ["counter", "coder", "coder", "general"]
    assert seen_by(router) == [[ON_MATH, ON_CODE, "general=1"]]


def test_no_queries_get_no_decisions(router: Router) -> None:
    assert router.decide_many([]) == []
    assert router.score_many([]) == []


def test_threads_may_ask_the_same_router(router: Router) -> None:
    texts = [ON_CODE, ON_MATH, UNCLEAR, "general=1"] * 25
    barrier = threading.Barrier(4)

    def ask(part: int) -> list[str]:
        barrier.wait()
        return [router.decide(Query(text)).expert for text in texts[part::4]]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))
    assert answers == [["coder"] * 25, ["counter"] * 25, ["general"] * 25, ["general"] * 25]


@given(fleets(), probabilities(), st.data())
@settings(deadline=None, max_examples=80)
def test_the_chosen_expert_and_its_fallbacks_are_able_and_each_is_asked_once(
    file: ExpertsFile, by_domain: dict[str, float], pick: st.DataObject
) -> None:
    query = pick.draw(queries(text=saying(by_domain)))
    router = spoken_router(file)
    allowed = able(file, query)
    if not allowed:
        with pytest.raises(NoExpertError):
            router.decide(query)
        return
    decision = router.decide(query)
    assert decision.expert in allowed
    assert decision.expert not in decision.fallbacks
    assert sorted({decision.expert, *decision.fallbacks}) == sorted(allowed)
    assert len(decision.fallbacks) == len(allowed) - 1


@given(fleets(), st.data())
@settings(deadline=None, max_examples=40)
def test_a_pinned_expert_falls_back_to_able_ones_only(file: ExpertsFile, pick: st.DataObject) -> None:
    query = pick.draw(queries(model=st.sampled_from(sorted(file.experts))))
    decision = spoken_router(file).decide(query)
    assert decision.expert == query.requested_model
    assert decision.expert not in decision.fallbacks
    assert set(decision.fallbacks) <= able(file, query)


# What was scored before, and what the cheap stage is sure of


def test_the_quick_way_decides_what_the_cheap_stage_is_sure_of(told: Router) -> None:
    decision = told.quick(Query(ON_CODE))
    assert decision is not None
    assert (decision.expert, decision.stage) == ("coder", "static")
    assert asked_of(told) == []


def test_a_text_that_the_cheap_stage_is_not_sure_of_is_left_to_the_other(told: Router) -> None:
    unsure = Query(f"{ON_CODE} unsure")
    assert told.quick(unsure) is None
    assert asked_of(told) == []
    assert told.decide(unsure).stage == "transformer"


def test_a_text_is_scored_once(told: Router) -> None:
    query = Query(f"{ON_CODE} unsure")
    decided = told.decide(query)
    again = told.quick(query)
    assert again is not None
    assert (again.expert, again.scores, again.stage) == (decided.expert, decided.scores, "transformer")
    assert told.decide(query).scores == decided.scores
    assert asked_of(told) == [[query.text]]


def test_a_text_that_the_cheap_stage_was_sure_of_is_not_read_again(told: Router) -> None:
    conversation = [ON_CODE, ON_MATH, "general=1"]
    for i, text in enumerate(conversation):
        assert told.quick(Query(text, earlier=tuple(conversation[:i]))) is not None
    assert isinstance(told.classifier, Told)
    assert told.classifier.heard == conversation


@given(fleets(), st.lists(probabilities().map(saying), min_size=1, max_size=6))
@settings(deadline=None, max_examples=50)
def test_the_quick_way_and_the_other_decide_alike(file: ExpertsFile, turns: list[str]) -> None:
    query = Query(turns[-1], earlier=tuple(turns[:-1]))
    quick, other = told_router(file).quick(query), told_router(file).decide(query)
    assert quick is not None
    assert quick.scores is not None
    assert replace(quick.scores, stage="transformer") == other.scores
    assert (quick.expert, quick.reason, quick.fallbacks) == (other.expert, other.reason, other.fallbacks)


def test_a_conversation_is_quick_when_all_its_turns_are(told: Router) -> None:
    conversation = Query(ON_CODE, earlier=(f"{ON_MATH} unsure",))
    assert told.quick(conversation) is None
    told.decide(Query(f"{ON_MATH} unsure"))
    assert told.quick(conversation) is not None
    assert asked_of(told) == [[f"{ON_MATH} unsure"]]


def test_texts_that_several_queries_share_are_scored_together_and_once(told: Router) -> None:
    first, second, third = (f"{text} unsure" for text in (ON_CODE, ON_MATH, "general=1"))
    told.decide_many([Query(second, earlier=(first,)), Query(third, earlier=(first, second)), Query(first)])
    assert sorted(*asked_of(told)) == sorted([first, second, third])


def test_what_one_query_cannot_have_is_nothing_to_the_others(told: Router) -> None:
    queries = [
        Query(ON_CODE),
        Query(ON_CODE, needs=frozenset({"audio"})),
        Query(ON_MATH),
        Query("t", requested_model="counter", tokens=10**6, overrides=Overrides(max_cost_usd=0.001)),
        Query("t", requested_model="counter"),
    ]
    outcomes = told.decide_many(queries)
    assert experts(outcomes) == ["coder", None, "counter", None, "counter"]
    assert [type(outcome) for outcome in (outcomes[1], outcomes[3])] == [NoExpertError, NoExpertError]
    with pytest.raises(NoExpertError):
        told.quick(queries[1])


# Conversations

PAIR: dict[str, dict[str, Any]] = {
    "coder": {"domains": {"code": 0.9, "math": 0.5}},
    "other": {"domains": {"code": 0.5, "math": 0.56}},
}
SEEING: dict[str, dict[str, Any]] = {
    "coder": {"domains": {"code": 0.9}, "context_window": 1000},
    "seer": {"domains": {"code": 0.7}, "capabilities": ["vision"], "context_window": 1000},
    "reader": {"domains": {"general": 0.7}},
}
FOLLOW_UP = "and now make it faster"


def test_a_follow_up_goes_where_the_conversation_is(told: Router) -> None:
    for earlier, expert in ((ON_CODE, "coder"), (ON_MATH, "counter"), ("general=1", "general")):
        decision = told.decide(Query(FOLLOW_UP, earlier=(earlier,)))
        assert (decision.expert, decision.switched) == (expert, None)


def test_a_real_change_of_topic_switches_at_once_and_says_so(told: Router) -> None:
    decision = told.decide(Query("math=1", earlier=("code=1", FOLLOW_UP, "code=1")))
    assert (decision.expert, decision.reason, decision.previous, decision.switched) == (
        "counter", "best", "coder", "topic",
    )  # fmt: skip
    assert told.decide(Query("math=1")).switched is None


@pytest.mark.parametrize("count", [1, 12, 13, 40, 300])
def test_a_topic_is_never_forgotten_over_turns_that_say_nothing(told: Router, count: int) -> None:
    *earlier, text = looked_at(["code=1", *[FOLLOW_UP] * count])
    decision = told.decide(Query(text, earlier=tuple(earlier)))
    assert (decision.expert, decision.reason, decision.previous) == ("coder", "best", "coder")


def test_a_real_change_of_topic_switches_for_the_price_as_well() -> None:
    big = {"domains": {"code": 0.95, "general": 0.92}, "price": price(9)}
    small = {"domains": {"general": 0.9}, "price": price(0.1)}
    router = told_router(fleet({"big": big, "small": small}))
    changed = Query("general=1", "auto:cheap", earlier=("code=1",))
    decision = router.decide(changed)
    assert (decision.expert, decision.reason, decision.switched) == ("small", "cheapest", "topic")
    assert router.decide(replace(changed, continues=True, earlier=(), text="code=1")).expert == "big"
    assert router.decide(replace(changed, requested_model="auto:best")).reason == "best"


def test_an_expert_is_not_left_for_less_than_its_cache_is_worth() -> None:
    router = told_router(fleet(PAIR))
    text, earlier = "math=1", ("code=1",)
    short = router.decide(Query(text, earlier=earlier, asked=(Asked(0, 10), Asked(20, 30))))
    long = router.decide(Query(text, earlier=earlier, asked=(Asked(0, 10), Asked(8000, 8010))))
    assert (short.expert, short.reason, short.switched) == ("other", "best", "topic")
    assert (long.expert, long.reason, long.switched) == ("coder", "sticky", None)


def test_what_is_new_was_never_in_a_cache() -> None:
    pasted = Query("math=1", earlier=("code=1",), tokens=9000, asked=(Asked(0, 10), Asked(20, 9000)))
    assert told_router(fleet(PAIR)).decide(pasted).expert == "other"


def test_inside_a_tool_loop_the_expert_of_the_last_turn_stays() -> None:
    router = told_router(fleet(PAIR))
    turn = Query("math=1", earlier=("code=1",), asked=(Asked(0, 10), Asked(20, 30)))
    loop = replace(turn, continues=True, tokens=9000)
    assert router.decide(turn).expert == "other"
    assert (router.decide(loop).expert, router.decide(loop).switched) == ("other", None)
    kept = replace(loop, asked=(Asked(0, 10), Asked(8000, 8010)))
    assert (router.decide(kept).expert, router.decide(kept).reason) == ("coder", "sticky")


def test_the_reason_inside_a_tool_loop_is_sticky_only_where_another_would_be_chosen_now(told: Router) -> None:
    assert told.decide(Query("code=1", continues=True)).reason == "best"
    chosen = told_router(fleet(SEEING)).decide(
        Query("code=1", needs=frozenset(), continues=True, asked=(Asked(0, 10, frozenset({"vision"})),))
    )
    assert (chosen.expert, chosen.reason) == ("seer", "sticky")


@pytest.mark.parametrize(
    ("query", "expert", "cause"),
    [
        (Query("code=1", needs=frozenset({"vision"})), "seer", "capability"),
        (Query("code=1", tokens=5000), "reader", "window"),
    ],
)
def test_a_switch_that_the_request_forces_says_what_forced_it(query: Query, expert: str, cause: str) -> None:
    router = told_router(fleet(SEEING))
    asked = (Asked(0, 10), Asked(20, query.tokens, query.needs))
    for continues in (False, True):
        then = (asked[0], Asked(20, 30)) if continues else asked
        decision = router.decide(replace(query, earlier=("code=1",), asked=then, continues=continues))
        assert (decision.expert, decision.switched) == (expert, cause)


def test_a_turn_with_an_image_stays_with_who_saw_it() -> None:
    router = told_router(fleet({"blind": {"domains": {"code": 0.71}}, **SEEING}))
    vision = frozenset({"vision"})
    asked = (Asked(0, 10, vision), Asked(20, 30, vision))
    decision = router.decide(Query("code=1", needs=vision, earlier=("code=1",), asked=asked))
    assert (decision.expert, decision.switched) == ("seer", None)


def test_an_expert_that_went_down_is_left_and_come_back_to() -> None:
    router = told_router(fleet(TRIO))
    query = Query(FOLLOW_UP, earlier=("code=1",), continues=True)
    gone = router.decide(query, Fleet(down=frozenset({"coder"})))
    assert (gone.expert, gone.switched) == ("general", "health")
    assert gone.fallbacks == ("counter", "coder")
    assert {c.expert: c.refused for c in gone.candidates}["coder"] == "no replica of it can be asked now"
    assert (router.decide(query).expert, router.decide(query).switched) == ("coder", None)


TWINS: dict[str, dict[str, Any]] = {name: {"domains": ["code"], "price": price(1)} for name in ("one", "two", "three")}
FIGURES = st.dictionaries(st.sampled_from([*TWINS, *"abcde"]), st.floats(0, 9))
MEASURED = st.builds(Fleet, latency=FIGURES, prices=FIGURES)


@given(
    st.just(fleet(TWINS)) | fleets(),
    st.lists(probabilities().map(saying), min_size=1, max_size=4),
    VIRTUAL,
    MEASURED,
    MEASURED,
)
@settings(deadline=None, max_examples=60)
def test_what_is_measured_moves_nobody_whom_an_answer_holds(
    file: ExpertsFile, turns: list[str], model: str, then: Fleet, now: Fleet
) -> None:
    """Where tools or a schema are asked for, a result or a retry has to come back; and a later turn knows no latency."""
    router = told_router(file)
    turn = Query(turns[-1], model, earlier=tuple(turns[:-1]))
    able = {e for e in file.experts if "tools" in file.experts[e].capabilities}
    if able:
        loop = replace(turn, needs=frozenset({"tools"}))
        for query in (loop, replace(loop, overrides=Overrides(domain="code"))):
            began = router.decide(query, then)
            assert router.decide(replace(query, continues=True), now).expert == began.expert
            assert router.decide(query, now).expert == began.expert
    later = Query("code=1", model, earlier=tuple(turns))
    for query in (later, replace(later, overrides=Overrides(domain="code"))):
        assert router.decide(query, then).expert == router.decide(query, now).expert


def test_at_the_start_of_a_conversation_the_faster_of_equals_answers() -> None:
    router, quick = told_router(fleet(TWINS)), Fleet(latency={"one": 0.9, "two": 0.1, "three": 0.5})
    decision = router.decide(Query("code=1"), quick)
    assert (decision.expert, decision.reason, decision.fallbacks) == ("two", "tie", ("three", "one"))
    assert router.decide(Query("code=1", "auto:cheap"), quick).expert == "two"
    assert router.decide(Query("code=1", "auto:best"), quick).expert == "one"
    assert router.decide(Query("code=1", earlier=("code=1",)), quick).expert == "one"
    assert router.decide(Query("code=1", continues=True), quick).expert == "one"


HOURLY: dict[str, dict[str, Any]] = {
    "token": {"domains": ["code"], "price": price(1)},
    "hour": {"domains": ["code"], "price": {"gpu_hour": 7.2}},
}


def test_one_that_is_paid_by_the_hour_is_weighed_by_what_it_was_measured_to_cost_where_nothing_holds() -> None:
    router = told_router(fleet(HOURLY))

    def decided(measured: float | None, **more: Any) -> Decision:
        return router.decide(
            Query("code=1", "auto:cheap", **more), Fleet(prices={} if measured is None else {"hour": measured})
        )

    unmeasured, dear, cheap = decided(None), decided(1.5), decided(0.5)
    assert [d.expert for d in (unmeasured, dear, cheap)] == ["token", "token", "hour"]
    prices = [{c.expert: (c.price, c.estimated) for c in d.candidates}["hour"] for d in (unmeasured, dear, cheap)]
    assert prices == [
        (pytest.approx(2.0), True),
        (1.5, True),
        (0.5, True),
    ]  # 7.2 USD over 3.6 million tokens, until it is known
    later = decided(0.5, earlier=("code=1",))
    assert later.expert == "token"
    assert {c.expert: c.price for c in later.candidates}["hour"] == pytest.approx(2.0)
    assert cheap.described()["experts"][1]["price_estimated"] is True


def test_a_decision_knows_how_much_another_worker_may_have_in_its_cache() -> None:
    router = told_router(fleet(TWINS))
    assert router.decide(Query("code=1")).prefix == 0
    asked = (Asked(0, 10), Asked(700, 710))
    assert router.decide(Query("code=1", earlier=("code=1",), asked=asked)).prefix == 700


def test_when_the_chosen_expert_fails_the_faster_of_those_as_good_and_as_cheap_is_asked_next() -> None:
    router = told_router(fleet(TWINS))
    assert router.decide(Query("code=1")).fallbacks == ("two", "three")
    decision = router.decide(Query("code=1", "auto:best"), Fleet(latency={"one": 0.9, "two": 0.5, "three": 0.1}))
    assert (decision.expert, decision.reason, decision.fallbacks) == ("one", "best", ("three", "two"))
    dearer = {**TWINS, "three": {"domains": ["code"], "price": price(2)}}
    assert told_router(fleet(dearer)).decide(Query("code=1"), Fleet(latency={"two": 0.5})).fallbacks == ("two", "three")


@given(fleets(), st.lists(st.tuples(probabilities(), st.integers(0, 4000)), min_size=1, max_size=8), VIRTUAL)
@settings(deadline=None, max_examples=80)
def test_every_process_decides_alike_and_a_switch_is_told_exactly_where_the_expert_is_another(
    file: ExpertsFile, turns: list[tuple[dict[str, float], int]], model: str
) -> None:
    router, size = told_router(file), 0
    asked: list[Asked] = []
    texts: list[str] = []
    before: str | None = None
    for by_domain, tokens in turns:
        asked.append(Asked(size, size + tokens))
        texts.append(saying(by_domain))
        size += 2 * tokens
        query = Query(
            texts[-1], model, tokens=asked[-1].tokens, least_tokens=0, earlier=tuple(texts[:-1]), asked=tuple(asked)
        )
        decision = router.decide(query)
        assert told_router(file).decide(query).expert == decision.expert
        assert (decision.switched is None) == (before in (None, decision.expert))
        assert router.decide(replace(query, continues=True)).expert == decision.expert
        before = decision.expert


# What a request wants otherwise


def test_a_given_domain_takes_the_place_of_the_classification(told: Router) -> None:
    query = Query("math=1 unsure", earlier=("general=1 unsure",), overrides=Overrides(domain="code"))
    for decision in (told.quick(query), told.decide(query)):
        assert decision is not None
        assert (decision.expert, decision.reason, decision.stage) == ("coder", "pinned", "none")
        assert decision.scores is not None
        assert decision.scores.by_domain == {"code": 1.0, "math": 0.0, "bio": 0.0, "general": 0.0}
        assert decision.switched is None
    assert asked_of(told) == []


@pytest.mark.parametrize("policy", ["cheap", "auto:cheap"])
def test_a_given_policy_takes_the_place_of_the_virtual_models(policy: str) -> None:
    router = told_router(
        fleet(
            {
                "top": {"domains": {"code": 0.9}, "price": price(9)},
                "low": {"domains": {"code": 0.85}, "price": price(1)},
            }
        )
    )
    assert router.decide(Query("code=1")).expert == "top"
    decision = router.decide(Query("code=1", overrides=Overrides(policy=policy)))
    assert (decision.expert, decision.reason) == ("low", "cheapest")
    assert router.decide(Query("code=1", "auto:cheap", overrides=Overrides(policy="best"))).expert == "top"


def test_a_limit_of_cost_leaves_out_who_may_cost_more(told: Router) -> None:
    decision = told.decide(Query(ON_MATH, tokens=1000, answer_tokens=1000, overrides=Overrides(max_cost_usd=0.003)))
    assert (decision.expert, decision.fallbacks) == ("general", ("coder",))
    refused = {c.expert: c.refused for c in decision.candidates}["counter"]
    assert refused == "estimated at 0.004 USD, above the 0.003 USD allowed"


def test_a_limit_of_cost_is_one_for_all_answers_that_are_asked_for(told: Router) -> None:
    query = Query(ON_MATH, tokens=1000, answer_tokens=100, answers=10, overrides=Overrides(max_cost_usd=0.003))
    assert told.decide(query).expert == told.decide(replace(query, answer_tokens=1000, answers=1)).expert == "general"
    assert told.decide(replace(query, answers=1)).expert == "counter"


def test_a_limit_of_cost_binds_an_expert_by_name_and_its_fallbacks_as_well(told: Router) -> None:
    pinned = Query("t", "coder", tokens=1000, answer_tokens=1000, overrides=Overrides(max_cost_usd=0.0019))
    with pytest.raises(NoExpertError, match=r"the least estimate is 0\.002 USD, for coder"):
        told.decide(pinned)
    assert told.decide(replace(pinned, overrides=Overrides(max_cost_usd=0.0021))).fallbacks == ("general",)


# Doubt and languages


@pytest.mark.parametrize("doubt", ["out_of_distribution", "unreadable_language"])
def test_what_cannot_be_judged_goes_to_the_fallback_and_says_why(told: Router, doubt: str) -> None:
    decision = told.decide(Query(f"code=1 doubt={doubt}"))
    assert (decision.expert, decision.reason) == ("general", doubt)
    decision = told.decide(Query(f"code=1 doubt={doubt}", needs=frozenset({"tools"})))
    assert (decision.expert, decision.reason) == ("coder", "only_capable")


def test_a_specialist_of_a_language_is_preferred_for_it() -> None:
    router = told_router(
        fleet(
            {
                "kei": {"domains": {"code": 0.6, "general": 0.6}, "languages": ["ja"]},
                "coder": {"domains": {"code": 0.65}},
            }
        )
    )
    experts = {said: router.decide(Query(f"code=1 {said}")).expert for said in ("language=ja", "language=en", "")}
    assert experts == {"language=ja": "kei", "language=en": "coder", "": "coder"}
    follow_up = router.decide(Query("code=1", earlier=("code=1 language=ja",)))
    assert (follow_up.expert, follow_up.switched) == ("kei", None)
    english = router.decide(Query("code=1 language=en", earlier=("code=1 language=ja",)))
    assert (english.expert, english.switched) == ("coder", "language")
    assert router.decide(Query("t", requested_model="kei")).expert == "kei"


SPEAKING: dict[str, dict[str, Any]] = {
    "kei": {"domains": {"general": 0.95, "code": 0.9}, "languages": ["ja", "ka"]},
    "coder": {"domains": {"code": 0.9}},
    "general": {"domains": {"general": 0.8}},
}


@pytest.mark.parametrize(
    ("text", "expert", "reason"),
    [
        ("general=1 language=ka doubt=unreadable_language", "kei", "unreadable_language"),
        ("general=1 language=sw doubt=unreadable_language", "general", "unreadable_language"),
        ("code=0.5 general=0.5 language=ja", "kei", "low_confidence"),
        ("code=0.5 general=0.5 language=en", "general", "low_confidence"),
    ],
)
def test_what_the_router_is_not_sure_of_goes_to_a_specialist_of_its_language(
    text: str, expert: str, reason: str
) -> None:
    decision = told_router(fleet(SPEAKING, floor=0.55, router={"fallback": "general"})).decide(Query(text))
    assert (decision.expert, decision.reason) == (expert, reason)


@pytest.mark.parametrize(
    ("turns", "expert", "language"),
    [
        (("この文章をもっと丁寧な日本語に直してください。",), "kei", "ja"),
        (("この文章をもっと丁寧な日本語に直してください。", "ok"), "kei", "ja"),
        (("この文章をもっと丁寧な日本語に直してください。", "Please tell me in English what they would say."), "general", "en"),
    ],
)  # fmt: skip
def test_where_the_domain_is_given_the_language_still_counts(
    turns: tuple[str, ...], expert: str, language: str
) -> None:
    query = Query(turns[-1], earlier=turns[:-1], overrides=Overrides(domain="general"))
    decision = told_router(fleet(SPEAKING, router={"fallback": "general"})).decide(query)
    assert decision.scores is not None
    assert (decision.expert, decision.reason, decision.scores.language) == (expert, "pinned", language)


@pytest.mark.parametrize(
    ("earlier", "expert", "reason"), [((), "general", "out_of_distribution"), (("code=1",), "coder", "best")]
)
def test_the_doubt_of_the_last_turn_is_told_even_where_what_was_said_before_counts(
    told: Router, earlier: tuple[str, ...], expert: str, reason: str
) -> None:
    decision = told.decide(Query("math=1 doubt=out_of_distribution", earlier=earlier))
    assert (decision.expert, decision.reason, decision.doubt) == (expert, reason, "out_of_distribution")
    assert decision.described()["doubt"] == "out_of_distribution"
    assert told.decide(Query("code=1", earlier=("math=1 doubt=out_of_distribution",))).doubt is None


def test_gibberish_is_called_so_even_while_the_fallback_is_down(told: Router) -> None:
    decision = told.decide(Query("code=1 doubt=out_of_distribution"), Fleet(down=frozenset({"general"})))
    assert (decision.expert, decision.reason) == ("coder", "out_of_distribution")


# Artifacts


@pytest.mark.parametrize(
    ("domains", "named"),
    [
        (BUILT_IN_DOMAINS, (*BUILT_IN_DOMAINS, "legal")),
        ((*BUILT_IN_DOMAINS, "legal"), BUILT_IN_DOMAINS),
        ((*BUILT_IN_DOMAINS, "law"), (*BUILT_IN_DOMAINS, "legal")),
        (("code", "math", "general"), BUILT_IN_DOMAINS),  # which nobody needs to serve to have them known
    ],
)
def test_an_artifact_for_other_domains_is_refused_with_both(domains: tuple[str, ...], named: tuple[str, ...]) -> None:
    lawyer = {"lawyer": {"domains": {"legal": 0.9}}} if "legal" in named else {}
    said = f"trained for {', '.join(domains)}, experts.yaml names {', '.join(named)}; run: moe-gateway train"
    with pytest.raises(ArtifactError, match=f"{said}$"):
        Router(fleet({**TRIO, **lawyer}), spoken_artifact(domains))


def test_an_artifact_with_the_domains_in_another_order_is_as_good() -> None:
    router = Router(fleet(TRIO), spoken_artifact(("general", "bio", "math", "code")))
    assert [router.decide(Query(text)).expert for text in (ON_CODE, ON_MATH)] == ["coder", "counter"]


def test_loading_a_folder_without_a_router_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no trained router"):
        Router.load(fleet(TRIO), tmp_path)


@pytest.mark.parametrize(
    ("prompt", "expert"),
    [
        ("Write a Python function that reverses a linked list.", "coder"),
        ("TypeError: cannot read properties of undefined (reading 'map')", "coder"),
        ("Solve x^2 - 5x + 6 = 0.", "mathematician"),
        ("What does the mitochondrion do in a cell?", "biologist"),
        ("Recommend a good novel about the sea.", "general"),
        ("Tell me a joke about librarians.", "general"),
    ],
)
def test_the_shipped_router_sends_plain_prompts_to_the_right_experts(shipped: Router, prompt: str, expert: str) -> None:
    assert shipped.decide(Query(prompt)).expert == expert


@given(st.text(max_size=80))
@settings(deadline=None, max_examples=25)
def test_the_shipped_router_decides_any_text(shipped: Router, text: str) -> None:
    decision = shipped.decide(Query(text))
    assert decision.expert in shipped.file.experts
    assert decision.scores is not None
    assert sum(decision.scores.by_domain.values()) == pytest.approx(1)


# What serving imports

SERVE = """
import sys
from pathlib import Path
from router.routing import Router
before = set(sys.modules)
from router.experts import load_experts
from router.decision import Query
from router.artifact import PACKAGED
router = Router.load(load_experts(Path("experts.yaml")), PACKAGED)
assert router.decide(Query("Sort a list in Python.")).expert == "coder"
print("\\n".join(sorted({name.partition(".")[0] for name in set(sys.modules) | before})))
"""


def test_serving_a_decision_imports_nothing_of_training_nor_of_the_gateway() -> None:
    done = subprocess.run([sys.executable, "-c", SERVE], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"router", "onnxruntime", "tokenizers", "numpy"} <= imported
    training = {"torch", "sentence_transformers", "transformers", "sklearn", "scipy", "onnx", "onnxscript", "litellm"}
    serving = {"gateway", "fastapi", "starlette", "aiohttp", "httpx", "uvicorn", "prometheus_client"}
    assert imported & (training | serving) == set()


def test_a_warmed_router_has_loaded_what_no_request_is_to_wait_for(shipped: Router) -> None:
    language._loaded_model.cache_clear()
    ngrams._letters.cache_clear()
    shipped.warm()
    assert (language._loaded_model.cache_info().currsize, ngrams._letters.cache_info().currsize) == (1, 1)
    assert shipped.score_many([WARMING])[0].stage == "transformer"


def test_the_packaged_router_lies_inside_the_package() -> None:
    assert PACKAGED == ROOT / "router" / "trained"
