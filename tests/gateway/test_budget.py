from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.budget import PER_SECOND, RESERVE, SHARE, RetryBudget
from tests.fakes.clock import Clock


def test_what_is_in_reserve_can_be_spent_at_once_and_no_more() -> None:
    budget = RetryBudget(Clock(0.0))
    assert [budget.spend("one") for _ in range(int(RESERVE) + 1)] == [True] * int(RESERVE) + [False]
    assert budget.spend("two")  # another expert's is its own


def test_requests_earn_a_share_of_a_further_attempt() -> None:
    budget = RetryBudget(Clock(0.0))
    while budget.spend("one"):
        pass
    for _ in range(round(10 / SHARE)):
        budget.request("one")
    assert sum(budget.spend("one") for _ in range(20)) in (9, 10)  # what decimals add up to


def test_the_reserve_comes_back_with_time_and_not_beyond_itself() -> None:
    clock = Clock(0.0)
    budget = RetryBudget(clock)
    while budget.spend("one"):
        pass
    clock.now += 2.0
    assert sum(budget.spend("one") for _ in range(20)) == int(2 * PER_SECOND)
    clock.now += 1e6
    assert sum(budget.spend("one") for _ in range(1000)) == int(RESERVE)


@given(st.lists(st.sampled_from(["request", "spend", "wait"]), max_size=300))
def test_further_attempts_never_exceed_the_share_of_the_requests_the_reserve_and_what_time_gave(
    steps: list[str],
) -> None:
    clock = Clock(0.0)
    budget = RetryBudget(clock)
    spent = 0
    for step in steps:
        if step == "request":
            budget.request("one")
        elif step == "wait":
            clock.now += 0.5
        else:
            spent += budget.spend("one")
    assert spent <= RESERVE + SHARE * steps.count("request") + PER_SECOND * clock.now + 1e-6


def test_the_figures_are_those_that_the_documentation_tells() -> None:
    text = (Path(__file__).parents[2] / "docs" / "carrying.md").read_text("utf-8")
    assert "a fifth of its requests, with 30 in reserve, of which three come back a second" in text
    assert (SHARE, RESERVE, PER_SECOND) == (0.2, 30, 3)
