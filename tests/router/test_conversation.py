from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from router.conversation import (
    ENOUGH_CHARACTERS,
    HEAD_CHARACTERS,
    MAX_TURNS,
    TAIL_CHARACTERS,
    clip,
    routed_text,
)

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
