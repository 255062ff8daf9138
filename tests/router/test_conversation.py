from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.conversation import (
    ENOUGH_CHARACTERS,
    FIRST_TURNS,
    FULL_PREFIX_TOKENS,
    HEAD_CHARACTERS,
    MAX_EARLIER,
    MAX_TURNS,
    PREFIX_COST,
    SWITCH_COST,
    TAIL_CHARACTERS,
    asked,
    believed,
    clip,
    is_retry,
    looked_at,
    routed_text,
    switch_cost,
)
from router.decision import Asked, Query, Scores
from tests.fakes.fleets import chances, probabilities

LONG_ENOUGH = "x" * ENOUGH_CHARACTERS
ROOM = HEAD_CHARACTERS + TAIL_CHARACTERS
TEXTS = st.text(max_size=40) | st.builds(lambda word, n: word * n, st.text(min_size=1, max_size=9), st.integers(0, 900))


def test_a_short_text_stays_as_it_is() -> None:
    assert clip("Why is the sky blue?") == "Why is the sky blue?"


def test_white_space_around_and_between_words_is_evened_out() -> None:
    assert clip("  Why\n\n is\tthe   sky blue? \n") == "Why is the sky blue?"


def test_a_text_that_just_fits_is_kept_whole() -> None:
    assert clip("x" * ROOM) == "x" * ROOM


def test_a_long_text_keeps_its_start_and_its_end() -> None:
    text = "a" * HEAD_CHARACTERS + "lost" + "z" * TAIL_CHARACTERS
    assert clip(text) == "a" * HEAD_CHARACTERS + " … " + "z" * TAIL_CHARACTERS


def test_a_very_long_text_keeps_its_start_and_its_end() -> None:
    text = "a" * HEAD_CHARACTERS + " middle" * 100_000 + " " + "z" * TAIL_CHARACTERS
    assert clip(text) == "a" * HEAD_CHARACTERS + " … " + "z" * TAIL_CHARACTERS


def test_the_question_at_the_end_of_a_very_long_and_airy_text_is_kept() -> None:
    text = "Read this.\n" + "  data  \n" * 10_000 + "\n\nWhat does it mean?\n\n\n"
    assert clip(text).startswith("Read this. data")
    assert clip(text).endswith("What does it mean?")


@given(TEXTS)
@settings(deadline=None)
def test_a_clipped_text_is_never_longer_than_its_room(text: str) -> None:
    assert len(clip(text)) <= ROOM + len(" … ")


@given(TEXTS)
@settings(deadline=None)
def test_clipping_again_changes_nothing(text: str) -> None:
    assert clip(clip(text)) == clip(text)


@given(st.text(max_size=ROOM))
@settings(deadline=None)
def test_no_word_of_a_short_text_is_lost(text: str) -> None:
    assert clip(text).split() == text.split()


def test_the_last_turn_is_routed() -> None:
    assert routed_text(["What is a monad?", LONG_ENOUGH]) == LONG_ENOUGH


def test_a_short_last_turn_is_followed_by_the_turn_before_it() -> None:
    assert routed_text(["What is a monad?", "and in Rust?"]) == "and in Rust?\nWhat is a monad?"


def test_no_more_turns_are_taken_than_are_needed() -> None:
    assert routed_text(["first", LONG_ENOUGH, "why?"]) == f"why?\n{LONG_ENOUGH}"


def test_turns_count_together_towards_enough() -> None:
    half = "y" * (ENOUGH_CHARACTERS // 2)
    assert routed_text(["first", half, half]) == f"{half}\n{half}"


def test_no_more_than_so_many_turns_are_looked_at() -> None:
    turns = [str(i) for i in range(MAX_TURNS + 3)]
    assert routed_text(turns) == "\n".join(reversed(turns[-MAX_TURNS:]))


def test_empty_turns_are_passed_over() -> None:
    assert routed_text(["What is a monad?", "   ", "\n", ""]) == "What is a monad?"


def test_where_the_user_said_nothing_there_is_no_text() -> None:
    assert routed_text([]) == ""
    assert routed_text([" ", "\t"]) == ""


@given(st.lists(TEXTS, max_size=7))
@settings(deadline=None)
def test_the_routed_text_begins_with_the_last_turn_that_says_something(turns: list[str]) -> None:
    spoken = [turn for turn in turns if turn.strip()]
    assert routed_text(turns).startswith(clip(spoken[-1]) if spoken else "")
    assert bool(routed_text(turns)) == bool(spoken)


@given(st.lists(TEXTS, max_size=7))
@settings(deadline=None)
def test_the_routed_text_stays_small_however_long_the_conversation(turns: list[str]) -> None:
    assert len(routed_text(turns)) <= ENOUGH_CHARACTERS + ROOM + len(" … ") + MAX_TURNS


# Turns


@given(st.integers(0, 1 + MAX_EARLIER))
def test_every_turn_of_a_conversation_is_looked_at(count: int) -> None:
    assert list(looked_at(range(count))) == list(range(count))


@given(st.integers(2 + MAX_EARLIER, 9 * MAX_EARLIER))
def test_of_a_long_one_its_first_turns_and_its_last_ones(count: int) -> None:
    looked = list(looked_at(range(count)))
    assert len(looked) == 1 + MAX_EARLIER
    assert looked[:FIRST_TURNS] == list(range(FIRST_TURNS))
    assert looked[FIRST_TURNS:] == list(range(count + FIRST_TURNS - 1 - MAX_EARLIER, count))


@pytest.mark.parametrize(
    "text",
    [
        "Correct your JSON ONLY RESPONSE, based on the following errors:\n1 validation error for User",
        "Recall the function correctly, fix the errors, exceptions found\nage: must be positive",
        "Validation Error found:\n1 validation error for User\nRecall the function correctly, fix the errors",
        "Validation Errors found:\nx\nRecall the function correctly, fix the errors found in the following attempt:\n{}",
        '1 validation error:\n```json\n[{"type": "missing"}]\n```\n\nFix the errors and try again.',
        "Validation feedback:\nNo such city.\n\nFix the errors and try again.",
    ],
)
def test_a_library_that_asks_again_is_known_by_its_words(text: str) -> None:
    assert is_retry(text)
    assert is_retry(f"\n {text}\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Validation Error found:\n1 validation error for User\nHow do I get rid of this in Django?",
        "1 validation error:\nage must be positive. What does it mean?",
        "My code says: Correct your JSON ONLY RESPONSE, based on the following errors. Why?",
        "Please fix the errors and try again.",
    ],
)
def test_a_user_who_asks_about_errors_is_no_library(text: str) -> None:
    assert not is_retry(text)


# What a conversation is about

CODE, MATH = chances(code=0.98, math=0.01, general=0.01), chances(code=0.01, math=0.98, general=0.01)
FLAT = chances(code=1 / 3, math=1 / 3, general=1 / 3)
SCORES = st.builds(lambda by_domain: Scores(by_domain, "static"), probabilities())


def domains(*turns: Scores) -> list[str]:
    return [belief.domain for belief in believed(turns)]


def test_the_first_turn_is_believed_as_it_is() -> None:
    assert believed([CODE])[0] is CODE
    assert believed([MATH, CODE, CODE])[0] is MATH


def test_a_turn_that_says_little_is_about_what_the_turn_before_was() -> None:
    assert domains(CODE, FLAT) == ["code", "code"]
    assert domains(MATH, FLAT, FLAT) == ["math", "math", "math"]
    assert domains(CODE, chances(code=0.3, math=0.4, general=0.3)) == ["code", "code"]


HARDLY = chances(code=0.25, math=0.3, general=0.45)  # such as "go on"


@given(st.integers(0, 500))
@settings(deadline=None)
def test_nothing_said_again_and_again_changes_nothing(count: int) -> None:
    assert believed([CODE, *[FLAT] * count])[-1].by_domain == pytest.approx(CODE.by_domain)


def test_a_turn_that_hardly_says_anything_is_hardly_evidence_even_when_it_comes_again() -> None:
    assert domains(CODE, *[HARDLY] * 12) == ["code"] * 13


def test_a_turn_that_clearly_says_something_else_is_believed_at_once() -> None:
    assert domains(CODE, MATH) == ["code", "math"]
    assert domains(*[CODE] * 12, MATH) == ["code"] * 12 + ["math"]


def test_what_is_said_again_is_believed_more() -> None:
    mild = chances(code=0.6, math=0.3, general=0.1)
    once, twice, thrice = believed([mild, mild, mild])
    assert once.confidence < twice.confidence < thrice.confidence


def test_recent_turns_weigh_most() -> None:
    mild_code, mild_math = chances(code=0.7, math=0.2, general=0.1), chances(code=0.2, math=0.7, general=0.1)
    assert domains(mild_code, mild_code, mild_math, mild_math, mild_math)[-1] == "math"
    assert domains(mild_math, mild_math, mild_code, mild_code, mild_code)[-1] == "code"


@given(st.lists(SCORES, min_size=1, max_size=14))
@settings(deadline=None)
def test_beliefs_are_probabilities_in_the_order_of_the_domains(turns: list[Scores]) -> None:
    beliefs = believed(turns)
    assert len(beliefs) == len(turns)
    for turn, belief in zip(turns, beliefs, strict=True):
        assert list(belief.by_domain) == list(turn.by_domain)
        assert sum(belief.by_domain.values()) == pytest.approx(1)
        assert min(belief.by_domain.values()) >= 0


@given(st.lists(SCORES, min_size=1, max_size=9), st.integers(1, 9))
@settings(deadline=None)
def test_what_was_believed_does_not_change_with_what_is_said_later(turns: list[Scores], count: int) -> None:
    assert believed(turns)[:count] == believed(turns[:count])


def test_certainty_does_not_divide_by_nothing() -> None:
    sure, other = chances(code=1.0, math=0.0), chances(code=0.0, math=1.0)
    assert domains(sure, other) == ["code", "math"]


DOUBTED = Scores({"code": 0.1, "math": 0.1, "general": 0.8}, "static", "out_of_distribution")


def test_a_turn_in_doubt_says_nothing_after_one_that_is_not() -> None:
    first, second, third = believed([CODE, DOUBTED, FLAT])
    assert second.by_domain == first.by_domain
    assert second.doubt is None
    assert third.domain == "code"


def test_where_every_turn_is_in_doubt_so_is_the_conversation() -> None:
    assert [belief.doubt for belief in believed([DOUBTED, DOUBTED])] == ["out_of_distribution"] * 2


def test_a_turn_in_doubt_is_forgotten_after_it() -> None:
    assert believed([DOUBTED, MATH])[1] == MATH


def test_a_turn_whose_language_is_not_known_is_in_that_of_the_turn_before() -> None:
    said = [Scores(CODE.by_domain, "static", language=language) for language in ("", "ja", "", "en", "")]
    assert [belief.language for belief in believed(said)] == ["", "ja", "ja", "en", "en"]


def test_the_stage_is_that_of_the_turn() -> None:
    turns = [Scores(CODE.by_domain, "static"), Scores(FLAT.by_domain, "transformer"), Scores(CODE.by_domain, "static")]
    assert [belief.stage for belief in believed(turns)] == ["static", "transformer", "static"]


# What a switch costs


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_the_longer_the_conversation_the_more_a_switch_has_to_gain(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert SWITCH_COST <= switch_cost(low) <= switch_cost(high) <= SWITCH_COST + PREFIX_COST


def test_a_switch_costs_most_from_a_full_prefix_on() -> None:
    assert switch_cost(0) == SWITCH_COST
    assert switch_cost(FULL_PREFIX_TOKENS // 2) == pytest.approx(SWITCH_COST + PREFIX_COST / 2)
    assert switch_cost(FULL_PREFIX_TOKENS) == switch_cost(10**9) == pytest.approx(SWITCH_COST + PREFIX_COST)


def test_what_the_query_says_of_its_turns_is_taken() -> None:
    said = (Asked(0, 10), Asked(50, 60, frozenset({"vision"})))
    assert asked(Query("b", earlier=("a",), asked=said)) == said


def test_where_the_query_says_nothing_of_its_turns_their_texts_do() -> None:
    needs = frozenset({"tools"})
    moments = asked(Query("c" * 40, needs=needs, earlier=("a" * 400, "b" * 80)))
    assert list(moments) == [Asked(0, 100, needs), Asked(100, 120, needs), Asked(120, 130, needs)]
