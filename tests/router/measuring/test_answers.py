from __future__ import annotations

import numpy as np
import pytest

from router.dataset import Row
from router.decision import Decision, Scores
from router.errors import NoExpertError
from router.measuring.answers import Answers, answers_of, best_expert, quality_lost, scored
from tests.fakes.fleets import fleet

FILE = fleet(
    {
        "coder": {"domains": {"code": 0.9, "math": 0.5}},
        "sage": {"domains": {"general": 0.8, "code": 0.7}},
        "counter": {"domains": {"math": 0.95}},
    }
)


def decision(expert: str, **chances: float) -> Decision:
    return Decision(expert, "best", (), Scores(chances, "static"), (), "a", 0.0)


def test_answers_stand_in_the_order_of_the_domains_and_nobodys_is_nothing() -> None:
    found = answers_of([decision("a", math=0.3, code=0.7), NoExpertError("no", "tools")], ("code", "math"))
    assert found.probabilities.tolist() == [[0.7, 0.3], [0.0, 0.0]]
    assert found.experts == ("a", None)
    assert (found.given[0], found.confidence.tolist()) == (0, [0.7, 0.0])


def test_the_best_expert_is_that_of_the_highest_quality() -> None:
    assert [best_expert(FILE, d) for d in ("code", "math", "general")] == ["coder", "counter", "sage"]


@pytest.mark.parametrize(
    ("row", "expert", "lost"),
    [
        (Row("t", "code"), "coder", 0.0),
        (Row("t", "code"), "sage", 0.2),
        (Row("t", "math"), "coder", 0.45),
        (Row("t", "math", frozenset({"code"})), "coder", 0.0),  # code is right as well, and the coder is its best
        (Row("t", "code"), None, 0.9),
    ],
)
def test_an_error_costs_what_the_best_expert_is_better(row: Row, expert: str | None, lost: float) -> None:
    assert quality_lost(FILE, row, expert) == pytest.approx(lost)


def test_what_was_lost_is_told_of_all_and_of_each_part() -> None:
    rows = [Row("a", "code", part="plain"), Row("b", "code", part="hard"), Row("c", "math")]
    answers = Answers(np.array([[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]]), ("coder", "sage", "coder"))
    found = scored(FILE, rows, ("code", "math", "general"), answers)
    assert found["all"]["quality_lost"] == pytest.approx((0 + 0.2 + 0.45) / 3)
    assert {name: part["quality_lost"] for name, part in found["parts"].items()} == pytest.approx(
        {"plain": 0, "hard": 0.2}
    )
    assert found["all"]["accuracy"] == 1.0
