from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.decision import Query, Scores
from router.errors import NoExpertError
from router.experts import FALLBACK_OTHER_QUALITY, OTHER_QUALITY, ExpertsFile, parse_experts
from router.roster import ASSUMED_ANSWER_TOKENS, LANGUAGE_BONUS, Need, Refusal, Roster
from tests.fakes.fleets import DOMAINS, able, chances, fleet, fleets, probabilities, queries


def expected(file: ExpertsFile, scores: Scores, language: str | None = None) -> dict[str, float]:
    """The expected quality of every expert."""
    roster = Roster(file, list(scores.by_domain))
    return roster.expected(scores.by_domain, roster.seats, language)


def able_ids(file: ExpertsFile, need: Need, down: frozenset[str] = frozenset()) -> list[str]:
    return [seat.id for seat in Roster(file, file.domain_names).standing(need, down).able]


def refusals(file: ExpertsFile, need: Need, down: frozenset[str] = frozenset()) -> dict[str, str]:
    """Why each expert that may not be chosen may not."""
    refused = Roster(file, file.domain_names).standing(need, down).refused
    return {expert: refusal.text for expert, refusal in refused.items()}


# Expected quality


def test_expected_quality_is_weighed_by_the_chance_of_each_domain() -> None:
    file = fleet({"a": {"domains": {"code": 0.9, "general": 0.5}}, "b": {"domains": {"code": 0.2, "general": 1.0}}})
    assert expected(file, chances(code=0.25, general=0.75)) == pytest.approx({"a": 0.6, "b": 0.8})


def test_a_domain_that_an_expert_does_not_name_counts_with_the_usual_figure() -> None:
    file = fleet({"a": {"domains": {"code": 1.0}}, "b": {"domains": {"general": 1.0}}})
    assert expected(file, chances(code=0.0, general=1.0))["a"] == OTHER_QUALITY
    assert expected(file, chances(code=1.0, general=0.0))["b"] == FALLBACK_OTHER_QUALITY


def test_the_best_stands_first_and_equal_ones_in_the_order_of_the_file() -> None:
    file = fleet(
        {name: {"domains": {"code": q}} for name, q in (("low", 0.1), ("one", 0.8), ("two", 0.8), ("top", 0.9))}
    )
    assert list(expected(file, chances(code=1.0))) == ["top", "one", "two", "low"]


@given(fleets(), probabilities())
@settings(deadline=None, max_examples=50)
def test_expected_quality_lies_between_the_least_and_the_most_of_an_expert(
    file: ExpertsFile, by_domain: dict[str, float]
) -> None:
    for name, quality in expected(file, Scores(by_domain, "transformer")).items():
        qualities = [file.quality(name, domain) for domain in by_domain]
        assert min(qualities) - 1e-9 <= quality <= max(qualities) + 1e-9


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
    assert refusals(ABLE, Need(frozenset(needs))) == refused


@pytest.mark.parametrize(
    ("tokens", "refused"),
    [
        (1000, {}),
        (1001, {"eyes": "context window of 1000 tokens"}),
        (5000, {"eyes": "context window of 1000 tokens", "tools": "context window of 4000 tokens"}),
    ],
)
def test_an_expert_whose_window_is_too_small_is_refused(tokens: int, refused: dict[str, str]) -> None:
    assert refusals(ABLE, Need(tokens=tokens)) == refused


def test_an_expert_that_does_not_say_its_window_is_never_too_small() -> None:
    file = fleet({"a": {"domains": ["code"]}, "b": {"domains": ["general"], "context_window": 10}})
    assert refusals(file, Need(tokens=10**9, least_tokens=10**9)) == {"b": "context window of 10 tokens"}


def test_where_the_estimate_leaves_nobody_the_largest_window_may_try() -> None:
    assert able_ids(ABLE, Need(tokens=9000, least_tokens=8000)) == ["plain"]


def test_the_largest_window_is_that_of_the_capable() -> None:
    assert able_ids(ABLE, Need(frozenset({"tools"}), tokens=9000, least_tokens=2000)) == ["tools"]


def test_a_prompt_that_surely_fits_nowhere_is_refused_with_the_largest_window() -> None:
    with pytest.raises(
        NoExpertError, match="at least 8001 tokens long; the largest context window here is 8000"
    ) as caught:
        able_ids(ABLE, Need(tokens=9000, least_tokens=8001))
    assert caught.value.lacking == "context_window"


def test_a_capability_that_nobody_has_is_refused_with_its_name() -> None:
    with pytest.raises(NoExpertError, match=r"it needs audio\. .*capabilities: \[audio\]") as caught:
        able_ids(ABLE, Need(frozenset({"audio", "tools"})))
    assert caught.value.lacking == "audio"


def test_capabilities_that_no_one_expert_has_together_are_refused() -> None:
    with pytest.raises(NoExpertError, match="it needs json_schema, vision") as caught:
        able_ids(ABLE, Need(frozenset({"json_schema", "vision"})))
    assert caught.value.lacking == "json_schema"


def test_where_an_expert_has_the_capability_but_not_the_room_it_is_the_room_that_lacks() -> None:
    with pytest.raises(NoExpertError) as caught:
        able_ids(ABLE, Need(frozenset({"tools"}), tokens=5000, least_tokens=5000))
    assert caught.value.lacking == "context_window"


# Languages

SPEAKERS = fleet(
    {
        "kei": {"domains": {"code": 0.5, "general": 0.95}, "languages": ["ja"]},
        "lin": {"domains": {"code": 0.5}, "languages": ["zh", "ja"]},
        "anybody": {"domains": {"code": 0.5, "general": 0.5}},
    }
)


@pytest.mark.parametrize(
    ("language", "who", "refused"),
    [
        ("ja", ["kei", "lin", "anybody"], {}),
        ("zh", ["lin", "anybody"], {"kei": "answers only in ja"}),
        ("en", ["anybody"], {"kei": "answers only in ja", "lin": "answers only in ja, zh"}),
        ("", ["anybody"], {"kei": "answers only in ja", "lin": "answers only in ja, zh"}),
        (None, ["kei", "lin", "anybody"], {}),
    ],
)
def test_a_specialist_takes_text_in_its_languages_only(
    language: str | None, who: list[str], refused: dict[str, str]
) -> None:
    assert able_ids(SPEAKERS, Need(language=language)) == who
    assert refusals(SPEAKERS, Need(language=language)) == refused


@pytest.mark.parametrize("language", ["en", ""])
def test_specialists_take_text_in_any_language_where_nobody_else_is_left(language: str) -> None:
    alone = fleet({"kei": {"domains": ["general"], "languages": ["ja"]}})
    assert able_ids(alone, Need(language=language)) == ["kei"]
    assert refusals(alone, Need(language=language)) == {}
    seeing = fleet(
        {"kei": {"domains": ["general"], "languages": ["ja"], "capabilities": ["vision"]}, "b": {"domains": ["code"]}}
    )
    assert able_ids(seeing, Need(frozenset({"vision"}), language=language)) == ["kei"]


def test_a_specialist_counts_as_better_in_its_languages_but_never_as_better_than_perfect() -> None:
    scores = chances(code=0.5, general=0.5)
    assert expected(SPEAKERS, scores, "ja") == pytest.approx(
        {"kei": 0.5 * (0.5 + LANGUAGE_BONUS) + 0.5 * 1.0, "lin": 0.5 * (0.5 + LANGUAGE_BONUS) + 0.25, "anybody": 0.5},
        abs=1e-9,
    )
    for language in ("en", "", None):
        assert expected(SPEAKERS, scores, language)["kei"] == pytest.approx(0.5 * 0.5 + 0.5 * 0.95)


def test_an_expert_without_languages_gains_nothing_in_any() -> None:
    assert {expected(SPEAKERS, chances(code=1.0), said)["anybody"] for said in ("ja", "en", "", None)} == {0.5}


# Cost

PRICED = fleet(
    {
        "dear": {"domains": ["code"], "price": {"input": 10.0, "output": 20.0}},
        "cheap": {"domains": ["code"], "price": {"input": 1.0, "output": 2.0}},
        "brief": {"domains": ["code"], "price": {"input": 1.0, "output": 200.0}, "defaults": {"max_tokens": 10}},
        "unpriced": {"domains": ["general"]},
        "hourly": {"domains": ["general"], "price": {"gpu_hour": 2.5}},
    }
)


def test_an_expert_whose_estimate_is_above_the_limit_is_refused_with_it() -> None:
    need = Need(tokens=1000, answer_tokens=100, max_cost_usd=0.0012)
    assert able_ids(PRICED, need) == ["cheap"]
    assert refusals(PRICED, need) == {
        "dear": "estimated at 0.012 USD, above the 0.0012 USD allowed",
        "brief": "estimated at 0.021 USD, above the 0.0012 USD allowed",
        "unpriced": "its price is not known, so that no cost can be promised",
        "hourly": "it is paid by the hour, so that no cost can be promised",
    }


@pytest.mark.parametrize(
    ("answer_tokens", "who", "tokens"), [(None, "cheap", ASSUMED_ANSWER_TOKENS), (None, "brief", 10), (7, "brief", 7)]
)
def test_the_answer_is_as_long_as_the_request_or_the_expert_says_or_512_tokens(
    answer_tokens: int | None, who: str, tokens: int
) -> None:
    paid = PRICED.experts[who].token_price
    assert paid is not None
    cost = (1000 * paid.input + tokens * paid.output) / 1e6
    assert who in able_ids(PRICED, Need(tokens=1000, answer_tokens=answer_tokens, max_cost_usd=cost * 1.0001))
    with pytest.raises(NoExpertError):
        able_ids(fleet({who: PRICED.experts[who].model_dump() | {"upstream": {"embedded": "smollm2"}}}),
                 Need(tokens=1000, answer_tokens=answer_tokens, max_cost_usd=cost * 0.9999))  # fmt: skip


def test_every_answer_that_is_asked_for_costs_and_the_prompt_once() -> None:
    need = Need(tokens=1000, answer_tokens=100, answers=50, max_cost_usd=0.0111)
    assert able_ids(PRICED, need) == ["cheap"]
    assert refusals(PRICED, need)["dear"] == "estimated at 0.11 USD, above the 0.0111 USD allowed"
    with pytest.raises(NoExpertError, match=r"the least estimate is 0\.0112 USD, for cheap"):
        able_ids(PRICED, need._replace(answers=51))


def test_a_limit_that_nobody_keeps_is_refused_with_the_least_estimate() -> None:
    with pytest.raises(
        NoExpertError, match=r"at most 0\.0001 USD: the least estimate is 0\.0012 USD, for cheap"
    ) as caught:
        able_ids(PRICED, Need(tokens=1000, answer_tokens=100, max_cost_usd=0.0001))
    assert caught.value.lacking == "max_cost_usd"
    with pytest.raises(NoExpertError, match="no expert able has a price"):
        able_ids(fleet({"a": {"domains": ["code"]}}), Need(max_cost_usd=1.0))


# Health


def test_an_expert_that_is_down_is_left_out_while_another_is_up() -> None:
    roster = Roster(ABLE, ABLE.domain_names)
    standing = roster.standing(Need(), frozenset({"eyes"}))
    assert [seat.id for seat in standing.able] == ["tools", "plain"]
    assert standing.refused == {"eyes": Refusal("health", "no replica of it can be asked now")}
    assert standing.resting == ("eyes",)


def test_where_all_that_are_able_are_down_they_are_asked_all_the_same() -> None:
    need = Need(frozenset({"tools"}))
    standing = Roster(ABLE, ABLE.domain_names).standing(need, frozenset({"tools", "eyes"}))
    assert [seat.id for seat in standing.able] == ["tools", "eyes"]
    assert standing.resting == ()


def test_an_expert_that_is_down_and_not_able_does_not_rest() -> None:
    standing = Roster(ABLE, ABLE.domain_names).standing(Need(frozenset({"tools"})), frozenset({"plain"}))
    assert standing.resting == ()
    assert standing.refused["plain"].cause == "capability"


@pytest.mark.parametrize(
    ("file", "need", "causes"),
    [
        (ABLE, Need(frozenset({"tools"}), 2000), {"plain": "capability", "eyes": "window"}),
        (PRICED, Need(tokens=1000, max_cost_usd=0.003), {"dear": "cost", "unpriced": "cost", "hourly": "cost"}),
        (SPEAKERS, Need(language="zh"), {"kei": "language"}),
    ],
)
def test_the_cause_of_a_refusal_is_told_apart(file: ExpertsFile, need: Need, causes: dict[str, str]) -> None:
    refused = Roster(file, file.domain_names).standing(need, frozenset()).refused
    assert {expert: refusal.cause for expert, refusal in refused.items()} == causes


@given(fleets(), queries(), st.frozensets(st.sampled_from("abcde")))
@settings(deadline=None, max_examples=100)
def test_only_the_able_may_be_chosen_and_the_down_only_where_nobody_is_up(
    file: ExpertsFile, query: Query, down: frozenset[str]
) -> None:
    need = Need(query.needs, query.tokens, query.least_tokens)
    allowed = able(file, query)
    roster = Roster(file, DOMAINS)
    if not allowed:
        with pytest.raises(NoExpertError):
            roster.standing(need, down)
        return
    standing = roster.standing(need, down)
    assert {seat.id for seat in standing.able} == (allowed - down or allowed)
    assert set(standing.refused) == set(file.experts) - {seat.id for seat in standing.able}
    assert set(standing.resting) == allowed - {seat.id for seat in standing.able}
    assert roster.able_of(["c", "a", "b"], need, down) == tuple(
        sorted(allowed & set("abc"), key=lambda e: (e not in {s.id for s in standing.able}, "cab".index(e)))
    )


# The arithmetic


def test_the_arithmetic_shows_every_expert_in_the_order_of_the_file() -> None:
    file = fleet({"a": {"domains": ["code"], "price": {"input": 1, "output": 5}}, "b": {"domains": ["math"]}})
    lines = Roster(file, file.domain_names).candidates({"b": 0.7}, {"a": Refusal("capability", "cannot do tools")}, {})
    assert [(c.expert, c.expected_quality, c.price, c.refused, c.cause) for c in lines] == [
        ("a", None, 2.0, "cannot do tools", "capability"),
        ("b", 0.7, None, None, None),
    ]


def test_who_does_not_serve_the_endpoint_is_not_chosen_and_not_to_be_pinned() -> None:
    file = parse_experts(
        "version: 1\nexperts:\n"
        "  one: {model: m, domains: [code], upstream: {embedded: smollm2}, capabilities: [state]}\n"
        "  two: {model: m, domains: [code], upstream: {embedded: smollm2}}\n"
    )
    roster = Roster(file, file.domain_names)
    need = Need(endpoint="responses", unable=frozenset({"one"}))
    standing = roster.standing(need)
    assert [seat.id for seat in standing.able] == ["two"]
    assert standing.refused["one"].text == "does not serve responses"
    with pytest.raises(NoExpertError, match="one does not serve responses; two would") as caught:
        roster.check_serves("one", need)
    assert caught.value.lacking == "endpoint"
    roster.check_serves("two", need)
    with pytest.raises(NoExpertError, match="No expert here serves responses"):
        roster.standing(need._replace(unable=frozenset({"one", "two"})))
    kept = Need(needs=frozenset({"state"}))
    roster.check_serves("one", kept)
    with pytest.raises(NoExpertError) as caught:
        roster.check_serves("two", kept)
    assert caught.value.lacking == "state"
