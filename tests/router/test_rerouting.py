from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.decision import Query
from router.experts import ExpertsFile
from router.prices import ASSUMED_TOKENS_PER_SECOND
from router.rerouting import NOBODY, Landing, Prompt, Rerouting, Route, compare, estimated_cost
from router.roster import ASSUMED_ANSWER_TOKENS
from tests.fakes.encoders import told_router
from tests.fakes.fleets import fleet

ON_CODE, ON_LAW, UNCLEAR = "code=0.9 general=0.1", "legal=0.8 general=0.2", "code=0.5 general=0.5"
PAIR: dict[str, dict[str, Any]] = {
    "coder": {"model": "c", "domains": {"code": 0.9}, "price": {"input": 1, "output": 2}},
    "general": {"model": "g", "domains": {"general": 0.8}, "price": {"input": 1, "output": 1}},
}
LAWYER: dict[str, Any] = {"model": "l", "domains": {"legal": 0.9}, "price": {"input": 10, "output": 10}}
TRIO = {**PAIR, "lawyer": LAWYER}


def asked(*texts: str, tokens: int = 100) -> list[Prompt]:
    return [Prompt(Query(text, tokens=tokens), id=str(i)) for i, text in enumerate(texts, 1)]


def rerouted(old: ExpertsFile, new: ExpertsFile, *texts: str) -> Rerouting:
    return compare(told_router(old), told_router(new), asked(*texts))


# What moves


def test_nothing_moves_between_a_file_and_itself() -> None:
    found = rerouted(fleet(TRIO), fleet(TRIO), ON_CODE, ON_LAW, UNCLEAR)
    assert (found.moved, found.share, found.flows(), found.unanswered) == ([], 0.0, [], [])
    assert found.quality.difference == pytest.approx(0)
    assert found.cost.difference == pytest.approx(0)
    assert len(found.routes) == 3


def test_prompts_of_an_added_domain_move_to_its_expert() -> None:
    found = rerouted(fleet(PAIR), fleet(TRIO), ON_CODE, ON_LAW, "legal=0.9 code=0.1")
    assert [(flow.old, flow.new, [r.prompt.id for r in flow.routes]) for flow in found.flows()] == [
        ("coder", "lawyer", ["3"]),
        ("general", "lawyer", ["2"]),
    ]
    assert found.share == pytest.approx(2 / 3)
    assert found.counts() == {"coder": (2, 1), "general": (1, 0), "lawyer": (0, 2)}


def test_another_model_under_the_same_id_is_another_place() -> None:
    other = {**PAIR, "coder": {**PAIR["coder"], "model": "c2"}}
    (flow,) = rerouted(fleet(PAIR), fleet(other), ON_CODE, "general=1").flows()
    assert (flow.old, flow.new, len(flow.routes)) == ("coder (c)", "coder (c2)", 1)


def test_what_nobody_can_answer_any_more_is_told_first_with_its_reason() -> None:
    wide = {**PAIR, "general": {**PAIR["general"], "context_window": 1000}}
    narrow = {name: {**expert, "context_window": 50} for name, expert in PAIR.items()}
    prompts = [Prompt(Query("general=1", tokens=900, least_tokens=400), "long"), *asked(ON_CODE, tokens=10)]
    found = compare(told_router(fleet(wide)), told_router(fleet(narrow)), prompts)
    (lost,) = found.unanswered
    assert (lost.prompt.id, found.moved[0], found.flows()[0].new) == ("long", lost, NOBODY)
    assert "at least 400 tokens long" in lost.new.reason
    assert found.quality.prompts == found.cost.prompts == 1  # what nobody answers has neither


def test_the_most_surprising_move_stands_first() -> None:
    def route(name: str, before: float, after: float, quality: float = 0.9) -> Route:
        old, new = Landing("a", "best", "m", "code", before, 0.9), Landing("b", "best", "n", "code", after, quality)
        return Route(Prompt(Query(name), name), old, new)

    routes = (route("as sure", 0.9, 0.9), route("less sure", 0.9, 0.6), route("worse", 0.9, 0.9, quality=0.5))
    assert [r.prompt.id for r in Rerouting(routes).moved] == ["worse", "less sure", "as sure"]


def test_conversations_are_routed_as_a_whole_by_both_files() -> None:
    talk = Prompt(Query("go on", earlier=("legal=1",)), "talk")
    (route,) = compare(told_router(fleet(PAIR)), told_router(fleet(TRIO)), [talk]).moved
    assert route.new.expert == "lawyer"


# Quality


def test_both_choices_are_judged_by_the_new_file_and_the_new_probabilities() -> None:
    dearer = {**TRIO, "general": {**PAIR["general"], "domains": {"general": 0.8, "legal": 0.7}}}
    (route,) = rerouted(fleet(PAIR), fleet(dearer), ON_LAW).routes
    assert route.old.quality == pytest.approx(0.8 * 0.7 + 0.2 * 0.8)
    assert route.new.quality == pytest.approx(0.8 * 0.9 + 0.2 * 0.4)


def test_a_figure_that_was_edited_makes_nobody_better() -> None:
    better = {**PAIR, "coder": {**PAIR["coder"], "domains": {"code": 1.0}}}
    found = rerouted(fleet(PAIR), fleet(better), ON_CODE)
    assert found.moved == []
    assert found.quality.before == found.quality.after == pytest.approx(0.9 * 1.0 + 0.1 * 0.4)


def test_an_expert_that_is_gone_or_has_another_model_keeps_the_figures_that_it_had() -> None:
    other = {**PAIR, "coder": {"model": "c2", "domains": {"code": 0.5}}}
    (changed,) = rerouted(fleet(PAIR), fleet(other), ON_CODE).routes
    assert changed.old.quality == pytest.approx(0.9 * 0.9 + 0.1 * 0.4)
    (gone,) = rerouted(fleet(TRIO), fleet({"general": PAIR["general"]}), "code=1").routes
    assert (gone.old.expert, gone.new.expert) == ("coder", "general")
    assert (gone.old.quality, gone.new.quality) == pytest.approx((0.9, 0.6))


@given(st.lists(st.floats(0.01, 1), min_size=5, max_size=5))
@settings(max_examples=30)
def test_every_quality_lies_between_what_experts_are_said_to_have(weights: list[float]) -> None:
    domains = ("code", "math", "bio", "general", "legal")
    text = " ".join(f"{d}={w / sum(weights)}" for d, w in zip(domains, weights, strict=True))
    (route,) = rerouted(fleet(PAIR), fleet(TRIO), text).routes
    for landing in (route.old, route.new):
        assert landing.quality is not None
        assert 0.4 - 1e-9 <= landing.quality <= 0.9 + 1e-9


# Cost


def test_a_cost_is_that_of_the_prompt_and_of_an_answer_as_long_as_assumed() -> None:
    coder = fleet(PAIR).experts["coder"]
    (prompt,) = asked(ON_CODE, tokens=100)
    assert estimated_cost(coder, prompt) == pytest.approx((100 * 1 + ASSUMED_ANSWER_TOKENS * 2) / 1e6)


def test_a_recorded_answer_and_bounds_of_answers_count_in_place_of_what_is_assumed() -> None:
    file = fleet(
        {**PAIR, "brief": {"domains": ["code"], "price": {"input": 0, "output": 1}, "defaults": {"max_tokens": 9}}}
    )
    general, brief = file.experts["general"], file.experts["brief"]
    assert estimated_cost(general, Prompt(Query("x"), answered=2000)) == pytest.approx(2000 / 1e6)
    assert estimated_cost(general, Prompt(Query("x", answer_tokens=7, answers=3))) == pytest.approx(21 / 1e6)
    assert estimated_cost(general, Prompt(Query("x", answer_tokens=10_000))) == pytest.approx(512 / 1e6)
    assert estimated_cost(brief, Prompt(Query("x"))) == pytest.approx(9 / 1e6)


def test_hours_are_shared_at_the_assumed_pace_and_an_unknown_price_is_no_cost() -> None:
    file = fleet({"hired": {"domains": ["code"], "price": {"gpu_hour": 3.6}}, "free": {"domains": ["general"]}})
    (prompt,) = asked(ON_CODE, tokens=488)
    seconds = (488 + ASSUMED_ANSWER_TOKENS) / ASSUMED_TOKENS_PER_SECOND
    assert estimated_cost(file.experts["hired"], prompt) == pytest.approx(3.6 / 3600 * seconds)
    assert estimated_cost(file.experts["free"], prompt) is None


def test_costs_are_compared_where_both_are_known_each_by_its_own_prices() -> None:
    cheaper = {
        **TRIO,
        "general": {**PAIR["general"], "price": {"input": 0.5, "output": 0.5}},
        "lawyer": {**LAWYER, "price": None},
    }
    found = rerouted(fleet(PAIR), fleet(cheaper), "general=1", ON_LAW)
    assert (found.cost.prompts, len(found.routes)) == (1, 2)
    assert found.cost.before == pytest.approx(612 / 1e6)
    assert found.cost.after == pytest.approx(306 / 1e6)


# JSON


def test_the_document_has_every_move_and_no_prompt_that_stays() -> None:
    document = rerouted(fleet(PAIR), fleet(TRIO), ON_CODE, ON_LAW).described()
    assert (document["prompts"], document["moved"], document["share"]) == (2, 1, 0.5)
    (moved,) = document["routes"]
    assert (moved["id"], moved["prompt"], moved["new"]["expert"]) == ("2", ON_LAW, "lawyer")
    assert document["flows"][0]["quality"]["change"] == pytest.approx(0.8 * 0.9 + 0.2 * 0.4 - (0.8 * 0.6 + 0.2 * 0.8))


def test_progress_comes_to_its_end_and_no_prompt_is_no_change() -> None:
    seen: list[tuple[str, int, int]] = []
    router = told_router(fleet(PAIR))
    compare(router, router, asked(*[ON_CODE] * 65), lambda *step: seen.append(step))
    assert [(done, total) for _, done, total in seen] == [(64, 65), (65, 65)]
    nothing = compare(router, router, [])
    assert (nothing.share, nothing.quality.difference, nothing.cost.before) == (0.0, None, None)
