from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.decision import Reason, Scores
from router.errors import ExtensionError
from router.experts import POLICY_GROUP, VIRTUAL_MODELS, ExpertsFile
from router.extensions import Registry
from router.policy import (
    CHEAP_TOLERANCE,
    POLICIES,
    TIE,
    Choice,
    Policy,
    State,
    _watched,
    best,
    best_or_tie,
    cheapest_within,
    doubted,
    doubtful,
    first_of,
    only_capable,
    policy_name,
    sticky,
    unsure,
)
from router.roster import ASSUMED_ANSWER_TOKENS, Roster
from tests.fakes.fleets import chances, fleet, fleets, price, probabilities
from tests.fakes.packages import Install

SURE = chances(code=1.0, general=0.0)


def state(
    file: ExpertsFile,
    scores: Scores = SURE,
    among: list[str] | None = None,
    previous: str | None = None,
    switch_cost: float = 0.0,
    prefix: int = 0,
) -> State:
    roster = Roster(file, list(scores.by_domain))
    seats = [seat for seat in roster.seats if among is None or seat.id in among]
    expected = roster.expected(scores.by_domain, seats, scores.language)
    return State(file, scores, expected, previous, switch_cost, prefix)


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


@pytest.mark.parametrize("doubt", ["out_of_distribution", "unreadable_language"])
@pytest.mark.parametrize("name", VIRTUAL_MODELS)
def test_what_cannot_be_judged_goes_to_the_fallback_however_sure_it_looks(name: str, doubt: Any) -> None:
    file = fleet({"a": {"domains": {"code": 1.0}, "price": price(0)}, "b": {"domains": {"general": 0.1}}})
    said = Scores({"code": 1.0, "general": 0.0}, "static", doubt)
    assert choose(name, state(file, said)) == ("b", doubt)


def test_what_cannot_be_judged_goes_to_no_fallback_that_is_not_able() -> None:
    file = fleet({"a": {"domains": ["code"]}, "b": {"domains": ["general"]}, "c": {"domains": ["code"]}})
    said = Scores({"code": 1.0, "general": 0.0}, "static", "out_of_distribution")
    assert doubtful(state(file, said, among=["a", "c"])) is None
    assert doubtful(state(file)) is None


@pytest.mark.parametrize("name", VIRTUAL_MODELS)
@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (Scores({"code": 1.0, "general": 0.0}, "static", "out_of_distribution"), "out_of_distribution"),
        (Scores({"code": 1.0, "general": 0.0}, "static", "unreadable_language"), "unreadable_language"),
        (Scores({"code": 0.5, "general": 0.5}, "static"), "low_confidence"),
    ],
)
def test_where_the_fallback_is_not_able_the_reason_still_says_the_doubt(
    name: str, scores: Scores, reason: Reason
) -> None:
    file = fleet(
        {"a": {"domains": {"code": 0.9}}, "b": {"domains": ["general"]}, "c": {"domains": ["math"]}}, floor=0.6
    )
    assert choose(name, state(file, scores, among=["a", "c"])) == ("a", reason)


def test_a_policy_that_passes_leaves_even_a_doubt_unsaid() -> None:
    said = Scores({"code": 1.0, "general": 0.0}, "static", "out_of_distribution")
    assert doubted(lambda _: None)(state(good_at_code(a=(0.5, None)), said)) is None


SPEAKING = fleet(
    {
        "coder": {"domains": {"code": 1.0}, "price": price(0)},
        "weak": {"domains": {"general": 0.1}, "languages": ["ka", "ja"]},
        "keti": {"domains": {"general": 0.9}, "languages": ["ka"]},
        "general": {"domains": {"general": 0.8}},
    },
    floor=0.55,
    router={"fallback": "general"},
)


@pytest.mark.parametrize("name", VIRTUAL_MODELS)
@pytest.mark.parametrize(
    ("language", "doubt", "expert"),
    [
        ("ka", "unreadable_language", "keti"),
        ("sw", "unreadable_language", "general"),
        ("", "unreadable_language", "general"),
        ("ka", "out_of_distribution", "general"),
    ],
)
def test_a_language_that_the_router_cannot_read_goes_to_its_best_specialist(
    name: str, language: str, doubt: Any, expert: str
) -> None:
    said = Scores({"code": 0.1, "general": 0.9}, "static", doubt, language)
    assert choose(name, state(SPEAKING, said)) == (expert, doubt)


@pytest.mark.parametrize("name", VIRTUAL_MODELS)
@pytest.mark.parametrize(
    ("language", "expert"), [("ka", "keti"), ("ja", "general"), ("en", "general"), ("", "general")]
)
def test_below_the_floor_a_specialist_of_the_language_answers_where_it_is_expected_to_be_as_good(
    name: str, language: str, expert: str
) -> None:
    said = Scores({"code": 0.46, "general": 0.54}, "static", None, language)
    assert choose(name, state(SPEAKING, said)) == (expert, "low_confidence")


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


def test_of_experts_as_good_and_as_cheap_the_first_of_the_file_answers() -> None:
    assert best_or_tie(state(good_at_code(one=(0.8, 1.0), two=(0.8, 1.0)))) == ("one", "best")


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


# Keeping the expert of the turn before


@pytest.mark.parametrize(
    ("cost", "choice"), [(0.05, ("other", "best")), (0.2, ("kept", "sticky")), (float("inf"), ("kept", "sticky"))]
)
def test_the_expert_of_the_turn_before_is_left_only_where_that_gains_more_than_it_costs(
    cost: float, choice: Choice
) -> None:
    file = good_at_code(other=(0.9, None), kept=(0.8, None))
    assert sticky(best)(state(file, previous="kept", switch_cost=cost)) == choice


def test_a_gain_of_just_the_cost_is_not_worth_a_switch() -> None:
    file = fleet({"other": {"domains": {"code": 0.75}}, "kept": {"domains": {"code": 0.5}}})
    assert sticky(best)(state(file, chances(code=1.0), previous="kept", switch_cost=0.25)) == ("kept", "sticky")


def test_the_expert_that_would_be_chosen_anyway_is_not_called_sticky() -> None:
    file = good_at_code(a=(0.9, None), b=(0.8, None))
    assert sticky(best)(state(file, previous="a", switch_cost=1.0)) == ("a", "best")
    assert sticky(best)(state(file, switch_cost=1.0)) == ("a", "best")


def test_an_expert_that_is_not_able_any_more_is_not_kept() -> None:
    file = good_at_code(a=(0.9, None), b=(0.8, None), c=(0.1, None))
    assert sticky(best)(state(file, among=["b", "c"], previous="a", switch_cost=float("inf"))) == ("b", "best")


CHEAP, TIED = cheapest_within(CHEAP_TOLERANCE), best_or_tie


@pytest.mark.parametrize("policy", [CHEAP, TIED])
@pytest.mark.parametrize(
    ("prices", "prefix", "switches"),
    [
        ((9.0, 0.1), 0, True),
        ((9.0, 0.1), 20_000, True),  # 90 times
        ((9.0, 0.1), 60_000, False),
        ((2.0, 1.0), 0, False),  # as much as a short conversation asks for
        ((2.1, 1.0), 0, True),
        ((2.1, 1.0), ASSUMED_ANSWER_TOKENS, False),
        ((1.0, 0.0), 10**6, True),
        ((None, 1.0), 0, False),  # what is not known is no reason to leave
    ],
)
def test_a_conversation_changes_for_the_price_where_that_pays_for_reading_it_anew(
    policy: Policy, prices: tuple[float | None, float], prefix: int, switches: bool
) -> None:
    file = good_at_code(kept=(0.91, prices[0]), cheap=(0.9, prices[1]))
    expert, reason = policy(state(file)) or ("", "")
    assert expert == "cheap"
    asked = state(file, previous="kept", switch_cost=0.1, prefix=prefix)
    assert sticky(policy)(asked) == (("cheap", reason) if switches else ("kept", "sticky"))


def test_no_price_takes_an_expert_from_an_answer_under_way() -> None:
    asked = state(good_at_code(kept=(0.91, 9.0), cheap=(0.9, 0.0)), previous="kept", switch_cost=math.inf)
    assert sticky(CHEAP)(asked) == ("kept", "sticky")


def test_a_policy_that_looks_at_quality_alone_changes_nothing_for_the_price() -> None:
    asked = state(good_at_code(kept=(0.8, 9.0), better=(0.81, 0.0)), previous="kept", switch_cost=0.1)
    assert sticky(best)(asked) == ("kept", "sticky")


def test_a_policy_that_passes_keeps_nobody() -> None:
    assert sticky(lambda _: None)(state(good_at_code(a=(0.9, None)), previous="a")) is None


# Policies of other packages


@pytest.mark.parametrize(
    ("said", "meant"), [("cheap", "auto:cheap"), ("auto:cheap", "auto:cheap"), ("auto", "auto"), ("mine", "auto:mine")]
)
def test_a_policy_has_its_name_with_or_without_auto(said: str, meant: str) -> None:
    assert policy_name(said) == meant


DEAREST = """
def dearest(state):
    return max(state.expected, key=state.price), "best"
"""


def test_another_package_adds_a_policy(install: Install) -> None:
    install("dear-policy", POLICY_GROUP, {"dearest": "dear_policy:dearest"}, {"dear_policy.py": DEAREST})
    policies: Registry[Policy] = Registry(POLICY_GROUP, {}, prefix="auto:", adapt=_watched)
    assert list(policies) == ["auto:dearest"]
    asked = state(good_at_code(cheap=(0.9, 1.0), dear=(0.1, 9.0)))
    assert policies["auto:dearest"](asked) == ("dear", "best")


@pytest.mark.parametrize(
    "chosen",
    ["nobody", ("nobody", "best"), ("a", "because"), ("a",), ("a", "best", 1), (["a"], "best"), 7, ("a", None)],
    ids=repr,
)
def test_a_policy_that_chooses_what_there_is_not_is_told_by_name(chosen: Any) -> None:
    with pytest.raises(ExtensionError, match="the policy auto:odd failed: it chose"):
        _watched("auto:odd", lambda _: chosen)(state(good_at_code(a=(0.5, None))))


def test_a_policy_that_breaks_is_told_by_name_and_reason() -> None:
    def broken(state: State) -> Choice:
        raise ZeroDivisionError("by zero")

    with pytest.raises(ExtensionError, match="the policy auto:odd failed: ZeroDivisionError: by zero"):
        _watched("auto:odd", broken)(state(good_at_code(a=(0.5, None))))


def test_a_policy_of_another_package_may_pass() -> None:
    assert _watched("auto:odd", lambda _: None)(state(good_at_code(a=(0.5, None)))) is None
    assert _watched("auto:odd", lambda _: ("a", "tie"))(state(good_at_code(a=(0.5, None)))) == ("a", "tie")
