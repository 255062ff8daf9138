"""What the ledger keeps of a decision: all that it was made from, small, and readable again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.weighed import MOST_OPTIONS, Option, Weighed
from router.decision import Candidate, Decision, Rules, Scores

RULES = Rules("auto:cheap", 0.1, 0.55, "general", {"static": 0.9})
DECISION = Decision(
    expert="cheap",
    reason="cheapest",
    fallbacks=("coder",),
    scores=Scores({"code": 0.987654, "math": 0.012346}, "static", None, "en"),
    candidates=(
        Candidate("coder", 0.9123456, 1.23456789),
        Candidate("cheap", 0.85, 0.5, None, True),
        Candidate("seer", None, None, "cannot do vision", False, "capability"),
    ),
    artifact="a1",
    seconds=0.001,
    switched="topic",
    previous="coder",
    rules=RULES,
)


def test_everything_that_the_decision_was_made_from_is_in_it() -> None:
    assert Weighed.of((DECISION, "asleep")) == Weighed(
        chosen="cheap",
        probabilities={"code": 0.9877, "math": 0.0123},
        policy="auto:cheap",
        tolerance=0.1,
        floor=0.55,
        fallback="general",
        sure={"static": 0.9},
        doubt=None,
        language="en",
        previous="coder",
        switched="topic",
        passed_over="asleep",
        options=[Option("coder", 0.9123, 1.234568), Option("cheap", 0.85, 0.5), Option("seer", None, None)],
        estimated=["cheap"],
        refused={"seer": ("capability", "cannot do vision")},
        left_out=0,
    )


def test_what_nothing_was_known_of_is_not_made_up() -> None:
    pinned = replace(DECISION, scores=None, rules=None, previous=None, switched=None)
    weighed = Weighed.of((pinned, None))
    assert (weighed.probabilities, weighed.policy, weighed.tolerance, weighed.floor, weighed.fallback) == (None,) * 5
    assert (weighed.sure, weighed.language, weighed.passed_over) == ({}, "", None)
    assert Weighed.of((replace(DECISION, doubt="out_of_distribution"), None)).doubt == "out_of_distribution"


def test_it_is_small() -> None:
    assert len(Weighed.of((DECISION, None)).encoded()) < 300


@pytest.mark.parametrize("count", [MOST_OPTIONS, MOST_OPTIONS + 1, 200])
def test_of_many_experts_the_best_are_kept_in_the_files_order_and_the_chosen_one_is(count: int) -> None:
    many = tuple(Candidate(f"e{i}", i / 1000, 1.0) for i in range(count))
    weighed = Weighed.of((replace(DECISION, expert="e0", candidates=many), None))
    best = [0, *range(count - MOST_OPTIONS + 1, count)] if count > MOST_OPTIONS else list(range(count))
    assert [option.expert for option in weighed.options] == [f"e{i}" for i in best]
    assert weighed.left_out == count - MOST_OPTIONS


FLOATS = st.none() | st.floats(0, 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
NAMES = st.dictionaries(TEXTS, st.floats(0, 1), max_size=4)
WEIGHED = st.builds(
    Weighed, TEXTS, st.none() | NAMES, *[st.none() | TEXTS, FLOATS, FLOATS, st.none() | TEXTS], NAMES,
    *[st.none() | TEXTS, TEXTS, *[st.none() | TEXTS] * 3],
    st.lists(st.builds(Option, TEXTS, FLOATS, FLOATS), max_size=4), st.lists(TEXTS, max_size=2),
    st.dictionaries(TEXTS, st.tuples(st.none() | TEXTS, TEXTS), max_size=2), st.integers(0, 9),
)  # fmt: skip


@settings(max_examples=50)
@given(WEIGHED)
def test_what_is_written_is_read_again(weighed: Weighed) -> None:
    assert Weighed.decoded(weighed.encoded()) == weighed


def test_what_a_newer_gateway_adds_at_the_end_is_passed_over() -> None:
    weighed = Weighed.of((DECISION, None))
    assert Weighed.decoded(f'{weighed.encoded()[:-1]},"more"]') == weighed
    assert Weighed.decoded(f"{weighed.encoded().removesuffix(',0]')}]") == weighed


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '["a"', "[1,2,3]", "\ud800"])
def test_what_nobody_here_wrote_tells_nothing(text: str) -> None:
    assert Weighed.decoded(text) is None
