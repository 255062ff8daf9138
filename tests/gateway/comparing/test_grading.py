from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.comparing.answers import Answer
from gateway.comparing.grading import NOT_RUN, grade, has
from gateway.comparing.prompts import Prompt


def graded(text: str, *, error: str = "", tests: bool = False, **by: object) -> Answer:
    answer = Answer(key="k", prompt="1", target="t", text=text, error=error)
    grade(Prompt("1", ({"role": "user", "content": "?"},), **by), answer, tests, 5)  # type: ignore[arg-type]
    return answer


@pytest.mark.parametrize(
    ("text", "expected", "right"),
    [
        ("The capital is Paris.", "paris", True),
        ("Comparison", "paris", False),
        ("It is 42.", "42", True),
        ("It is 42.0", "42", True),
        ("It is 42.5", "42", False),
        ("It is 142", "42", False),
        ("It is 1.42", "42", False),
        ("It is -42", "42", False),
        ("It is -42", "-42", True),
        ("**42**", "42", True),
        ("= 1,234,567 apples", "1234567", True),
        ("3, 4", "34", False),
        (r"First \boxed{41}, no: \boxed{42}", "42", True),
        (r"First 42, no: \boxed{\frac{1}{2}}", "42", False),
        ("New   York\nCity", "new york city", True),
        ("ＡＢＣ", "abc", True),
        ("C++ is fast", "C++", True),
        ("x = a+b", "a+b", True),
    ],
)
def test_an_expected_answer_is_found_as_whole_words(text: str, expected: str, right: bool) -> None:
    assert has(text, expected) is right


@given(st.text(), st.text(min_size=1))
def test_no_text_upsets_the_grader(text: str, expected: str) -> None:
    has(text, expected)


def test_all_that_is_known_of_the_right_answer_has_to_hold() -> None:
    assert graded("it is 42, sure", expected="42", regex="sure$").grade == 1
    wrong = graded("it is 42", expected="42", regex="sure$")
    assert (wrong.grade, wrong.why) == (0, "no match of sure$")
    assert graded("it is 41", expected="42").why == "expected 42"


def test_who_was_not_graded_or_gave_no_answer_has_no_grade() -> None:
    assert graded("anything").grade is None
    assert graded("42", expected="42", error="the answer broke off").grade is None


def test_a_test_is_run_only_where_it_is_asked_for() -> None:
    aside = graded("yes", test=("/bin/sh", "-c", "grep -q yes"))
    assert (aside.grade, aside.why) == (None, NOT_RUN)
    assert graded("yes", tests=True, test=("/bin/sh", "-c", "grep -q yes")).grade == 1
    assert graded("no", tests=True, test=("/bin/sh", "-c", "grep -q yes")).grade == 0
    assert graded("no", tests=True, expected="yes", test=("/bin/false",)).why == "expected yes"  # and it is not run
