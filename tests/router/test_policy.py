from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.decision import Query, Scores
from router.errors import NoExpertError
from router.experts import FALLBACK_OTHER_QUALITY, OTHER_QUALITY, VIRTUAL_MODELS, ExpertsFile
from router.policy import (
    CHEAP_TOLERANCE,
    POLICIES,
    TIE,
    Choice,
    State,
    able_or_raise,
    best,
    best_or_tie,
    candidates,
    cheapest_within,
    first_of,
    only_capable,
    rank,
    refusals,
    unsure,
)
from tests.fakes.fleets import able, chances, fleet, fleets, price, probabilities, queries

SURE = chances(code=1.0, general=0.0)


def state(file: ExpertsFile, scores: Scores = SURE, among: list[str] | None = None) -> State:
    return State(file, scores, rank(file, scores, among or list(file.experts)))


def good_at_code(**prices: tuple[float, float | None]) -> ExpertsFile:
    """Experts given as (quality at code, price)."""
    return fleet(
        {
            name: {"domains": {"code": quality, "general": 0.1}, **({} if usd is None else {"price": price(usd)})}
            for name, (quality, usd) in prices.items()
        }
    )


def choose(name: str, asked: State) -> Choice:
    choice = POLICIES[name](asked)
    assert choice is not None
    return choice


# Expected quality


def test_expected_quality_is_weighed_by_the_chance_of_each_domain() -> None:
    file = fleet({"a": {"domains": {"code": 0.9, "general": 0.5}}, "b": {"domains": {"code": 0.2, "general": 1.0}}})
    assert rank(file, chances(code=0.25, general=0.75), ["a", "b"]) == pytest.approx({"a": 0.6, "b": 0.8})


def test_a_domain_that_an_expert_does_not_name_counts_with_the_usual_figure() -> None:
    file = fleet({"a": {"domains": {"code": 1.0}}, "b": {"domains": {"general": 1.0}}})
    assert rank(file, chances(code=0.0, general=1.0), ["a"]) == {"a": OTHER_QUALITY}
    assert rank(file, chances(code=1.0, general=0.0), ["b"]) == {"b": FALLBACK_OTHER_QUALITY}


def test_the_best_stands_first_and_equal_ones_in_the_order_of_the_file() -> None:
    file = good_at_code(low=(0.1, None), one=(0.8, None), two=(0.8, None), top=(0.9, None))
    assert list(rank(file, SURE, list(file.experts))) == ["top", "one", "two", "low"]


@given(fleets(), probabilities())
@settings(deadline=None, max_examples=50)
def test_expected_quality_lies_between_the_least_and_the_most_of_an_expert(
    file: ExpertsFile, by_domain: dict[str, float]
) -> None:
    for name, expected in rank(file, Scores(by_domain, "transformer"), list(file.experts)).items():
        qualities = [file.quality(name, domain) for domain in by_domain]
        assert min(qualities) - 1e-9 <= expected <= max(qualities) + 1e-9


# Single policies


def test_the_first_policy_that_chooses_has_its_way() -> None:
    asked = state(good_at_code(a=(0.5, None)))
    passes = first_of(lambda _: None, lambda _: ("one", "best"), lambda _: ("two", "best"))
    assert passes(asked) == ("one", "best")
    assert first_of(lambda _: None)(asked) is None


def test_where_one_expert_is_able_there_is_nothing_to_choose() -> None:
    file = good_at_code(a=(0.5, None), b=(0.9, None))
    assert only_capable(state(file, among=["a"])) == ("a", "only_capable")
    assert only_capable(state(file)) is None


def test_the_only_expert_of_a_file_is_simply_the_best() -> None:
    asked = state(good_at_code(a=(0.5, None)))
    assert only_capable(asked) is None
    assert choose("auto", asked) == ("a", "best")


@pytest.mark.parametrize(("confidence", "choice"), [(0.54, ("b", "low_confidence")), (0.55, None), (0.99, None)])
def test_below_the_floor_the_fallback_answers(confidence: float, choice: Choice | None) -> None:
    file = fleet({"a": {"domains": ["code"]}, "b": {"domains": ["general"]}}, floor=0.55)
    assert unsure(state(file, chances(code=confidence, general=1 - confidence))) == choice


def test_a_fallback_that_is_not_able_is_not_chosen_however_unsure_the_router_is() -> None:
    file = fleet({"a": {"domains": ["code"]}, "b": {"domains": ["general"]}, "c": {"domains": ["math"]}}, floor=0.55)
    assert unsure(state(file, chances(code=0.5, general=0.5), among=["a", "c"])) is None


def test_the_best_is_the_best_whatever_it_costs() -> None:
    assert best(state(good_at_code(dear=(0.81, 99.0), cheap=(0.8, 0.1)))) == ("dear", "best")


def test_of_experts_as_good_the_cheaper_answers() -> None:
    assert best_or_tie(state(good_at_code(dear=(0.81, 9.0), cheap=(0.8, 0.1)))) == ("cheap", "tie")


def test_a_difference_of_just_the_tie_is_still_a_tie() -> None:
    assert best_or_tie(state(good_at_code(dear=(0.80, 9.0), cheap=(0.80 - TIE, 0.1)))) == ("cheap", "tie")


def test_a_larger_difference_is_not_a_tie() -> None:
    assert best_or_tie(state(good_at_code(dear=(0.80, 9.0), cheap=(0.80 - TIE - 0.001, 0.1)))) == ("dear", "best")


def test_a_tie_at_the_same_price_goes_to_the_better() -> None:
    assert best_or_tie(state(good_at_code(worse=(0.80, 1.0), better=(0.81, 1.0)))) == ("better", "best")


def test_an_expert_of_unknown_price_counts_as_the_dearest() -> None:
    assert best_or_tie(state(good_at_code(unknown=(0.81, None), dear=(0.80, 999.0)))) == ("dear", "tie")
    assert best_or_tie(state(good_at_code(dear=(0.81, 999.0), unknown=(0.80, None)))) == ("dear", "best")
    assert best_or_tie(state(good_at_code(one=(0.81, None), two=(0.80, None)))) == ("one", "best")


def test_what_costs_nothing_is_cheaper_than_what_costs_little() -> None:
    assert best_or_tie(state(good_at_code(cheap=(0.81, 0.01), free=(0.80, 0.0)))) == ("free", "tie")


def test_the_cheapest_within_a_tolerance_answers() -> None:
    file = good_at_code(top=(0.9, 3.0), near=(0.81, 2.0), edge=(0.80, 1.0), beyond=(0.79, 0.1))
    assert cheapest_within(0.1)(state(file)) == ("edge", "cheapest")
    assert cheapest_within(0.095)(state(file)) == ("near", "cheapest")
    assert cheapest_within(0.0)(state(file)) == ("top", "cheapest")
    assert cheapest_within(1.0)(state(file)) == ("beyond", "cheapest")


def test_of_the_cheapest_the_better_answers() -> None:
    assert cheapest_within(0.1)(state(good_at_code(worse=(0.8, 1.0), better=(0.85, 1.0)))) == ("better", "cheapest")


# The virtual models


def test_every_virtual_model_has_a_policy() -> None:
    assert set(POLICIES) == set(VIRTUAL_MODELS)


def test_each_virtual_model_weighs_price_in_its_own_way() -> None:
    asked = state(good_at_code(top=(0.9, 3.0), tied=(0.89, 2.0), cheap=(0.82, 1.0)))
    assert {name: choose(name, asked) for name in POLICIES} == {
        "auto": ("tied", "tie"),
        "auto:cheap": ("cheap", "cheapest"),
        "auto:best": ("top", "best"),
    }


@pytest.mark.parametrize("name", VIRTUAL_MODELS)
def test_an_unsure_router_asks_the_fallback_under_every_virtual_model(name: str) -> None:
    file = fleet({"a": {"domains": {"code": 1.0}, "price": price(0)}, "b": {"domains": {"general": 0.1}}}, floor=0.9)
    assert choose(name, state(file, chances(code=0.8, general=0.2))) == ("b", "low_confidence")


@pytest.mark.parametrize("name", VIRTUAL_MODELS)
@pytest.mark.parametrize("capable", ["a", "b"], ids=["specialist", "fallback"])
def test_the_only_capable_expert_answers_as_such_even_if_the_router_is_unsure(name: str, capable: str) -> None:
    file = fleet({"a": {"domains": {"code": 1.0}}, "b": {"domains": {"general": 0.1}}}, floor=0.9)
    assert choose(name, state(file, chances(code=0.8, general=0.2), among=[capable])) == (capable, "only_capable")


@given(fleets(), probabilities(), queries())
@settings(deadline=None, max_examples=60)
def test_the_chosen_expert_is_always_able(file: ExpertsFile, by_domain: dict[str, float], query: Query) -> None:
    allowed = able(file, query)
    if not allowed:
        with pytest.raises(NoExpertError):
            able_or_raise(file, query)
        return
    names, refused = able_or_raise(file, query)
    assert set(names) == allowed
    assert set(refused) == set(file.experts) - allowed
    expert, _ = choose(query.requested_model, state(file, Scores(by_domain, "transformer"), names))
    assert expert in allowed


@given(fleets(), probabilities())
@settings(deadline=None, max_examples=50)
def test_no_policy_gives_away_more_quality_than_it_may(file: ExpertsFile, by_domain: dict[str, float]) -> None:
    asked = state(file, Scores(by_domain, "transformer"))
    top = max(asked.expected.values())
    for name, tolerance in (("auto", TIE), ("auto:cheap", CHEAP_TOLERANCE), ("auto:best", 0.0)):
        expert, reason = choose(name, asked)
        if reason == "low_confidence":
            assert expert == file.fallback
            assert asked.scores.confidence < file.router.confidence_floor
        else:
            assert asked.expected[expert] >= top - tolerance - 1e-9


@given(fleets(), probabilities())
@settings(deadline=None, max_examples=50)
def test_nobody_as_good_is_cheaper_than_the_chosen(file: ExpertsFile, by_domain: dict[str, float]) -> None:
    asked = state(file, Scores(by_domain, "transformer"))
    top = max(asked.expected.values())
    for name, tolerance in (("auto", TIE), ("auto:cheap", CHEAP_TOLERANCE)):
        expert, reason = choose(name, asked)
        rivals = [e for e, quality in asked.expected.items() if quality >= top - tolerance]
        if reason != "low_confidence":
            assert asked.price(expert) == min(asked.price(e) for e in [*rivals, expert])


@given(fleets(), probabilities(), st.permutations([0.0, 0.5, 1.0, 2.0, 3.0]))
@settings(deadline=None, max_examples=50)
def test_prices_do_not_move_the_choice_by_quality_alone(
    file: ExpertsFile, by_domain: dict[str, float], prices: list[float]
) -> None:
    data = file.model_dump()
    for expert, usd in zip(data["experts"].values(), prices, strict=False):
        expert["price"] = price(usd)
        expert["upstream"] = {"embedded": "smollm2"}
    repriced = ExpertsFile.model_validate(data)
    scores = Scores(by_domain, "transformer")
    assert choose("auto:best", state(repriced, scores)) == choose("auto:best", state(file, scores))


# Who is able

ABLE = fleet(
    {
        "tools": {"domains": ["code"], "capabilities": ["tools", "json_schema"], "context_window": 4000},
        "eyes": {"domains": ["general"], "capabilities": ["vision", "tools"], "context_window": 1000},
        "plain": {"domains": ["math"], "context_window": 8000},
    }
)


@pytest.mark.parametrize(
    ("needs", "refused"),
    [
        (set(), {}),
        ({"tools"}, {"plain": "cannot do tools"}),
        ({"vision"}, {"tools": "cannot do vision", "plain": "cannot do vision"}),
        ({"vision", "tools"}, {"tools": "cannot do vision", "plain": "cannot do tools, vision"}),
    ],
)
def test_an_expert_that_lacks_a_capability_is_refused_with_what_it_lacks(
    needs: set[str], refused: dict[str, str]
) -> None:
    assert refusals(ABLE, Query("t", needs=frozenset(needs))) == refused


@pytest.mark.parametrize(
    ("tokens", "refused"),
    [
        (1000, {}),
        (1001, {"eyes": "context window of 1000 tokens"}),
        (5000, {"eyes": "context window of 1000 tokens", "tools": "context window of 4000 tokens"}),
    ],
)
def test_an_expert_whose_window_is_too_small_is_refused(tokens: int, refused: dict[str, str]) -> None:
    assert refusals(ABLE, Query("t", tokens=tokens)) == refused


def test_an_expert_that_does_not_say_its_window_is_never_too_small() -> None:
    file = fleet({"a": {"domains": ["code"]}, "b": {"domains": ["general"], "context_window": 10}})
    assert refusals(file, Query("t", tokens=10**9, least_tokens=10**9)) == {"b": "context window of 10 tokens"}


def test_where_the_estimate_leaves_nobody_the_largest_window_may_try() -> None:
    assert able_or_raise(ABLE, Query("t", tokens=9000, least_tokens=8000))[0] == ["plain"]


def test_the_largest_window_is_that_of_the_capable() -> None:
    query = Query("t", needs=frozenset({"tools"}), tokens=9000, least_tokens=2000)
    assert able_or_raise(ABLE, query)[0] == ["tools"]


def test_a_prompt_that_surely_fits_nowhere_is_refused_with_the_largest_window() -> None:
    with pytest.raises(
        NoExpertError, match="at least 8001 tokens long; the largest context window here is 8000"
    ) as caught:
        able_or_raise(ABLE, Query("t", tokens=9000, least_tokens=8001))
    assert caught.value.lacking == "context_window"


def test_a_capability_that_nobody_has_is_refused_with_its_name() -> None:
    with pytest.raises(NoExpertError, match=r"it needs audio\. .*capabilities: \[audio\]") as caught:
        able_or_raise(ABLE, Query("t", needs=frozenset({"audio", "tools"})))
    assert caught.value.lacking == "audio"


def test_capabilities_that_no_one_expert_has_together_are_refused() -> None:
    with pytest.raises(NoExpertError, match="it needs json_schema, vision") as caught:
        able_or_raise(ABLE, Query("t", needs=frozenset({"json_schema", "vision"})))
    assert caught.value.lacking == "json_schema"


def test_where_an_expert_has_the_capability_but_not_the_room_it_is_the_room_that_lacks() -> None:
    with pytest.raises(NoExpertError) as caught:
        able_or_raise(ABLE, Query("t", needs=frozenset({"tools"}), tokens=5000, least_tokens=5000))
    assert caught.value.lacking == "context_window"


def test_the_arithmetic_shows_every_expert_in_the_order_of_the_file() -> None:
    file = fleet({"a": {"domains": ["code"], "price": {"input": 1, "output": 5}}, "b": {"domains": ["math"]}})
    lines = candidates(file, {"b": 0.7}, {"a": "cannot do tools"})
    assert [(c.expert, c.expected_quality, c.price, c.refused) for c in lines] == [
        ("a", None, 2.0, "cannot do tools"),
        ("b", 0.7, None, None),
    ]
