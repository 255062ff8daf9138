from __future__ import annotations

from typing import Any

from tests.benchmarks.results import front, markdown, picture, sets_of


def method(right: float, microseconds: float, **more: Any) -> dict[str, Any]:
    of_set = {"plain": right, "hard": None, "multilingual": right, "conversation": right, "mean": right, "flips": None}
    spent = {"mean_us": microseconds, "p50_us": microseconds, "p99_us": 2 * microseconds, "resident_mb": 12.4}
    sets = {"mine": {**of_set, "ece": 0.02, **more}, "yours": {**of_set, "ece": 0.03}}
    return {"family": "lexical", "label": "some", "fit_s": 1.25, "sets": sets, "cost": spent}


FOUND = {
    "quick": method(0.7, 100),
    "slow": method(0.9, 9000),
    "beaten": method(0.8, 9500),
    "slower and no better": method(0.9, 9001),
    "equal": method(0.9, 9000),
    "between": method(0.85, 300, passed_on=0.25),
}


def test_on_the_front_is_what_nothing_beats() -> None:
    assert front(FOUND, "mine") == {"quick", "slow", "equal", "between"}


def test_a_table_for_each_file_with_the_front_in_bold() -> None:
    lines = markdown(FOUND).splitlines()
    assert [line for line in lines if line.startswith("#")] == ["### mine", "### yours"]
    tables = [line for line in lines if line.startswith("|")]
    assert len(tables) == 2 * (2 + len(FOUND))
    assert len({line.count("|") for line in tables}) == 1
    bold = [line.split("|")[1].strip() for line in tables if "**" in line]
    assert bold == ["**quick**", "**slow**", "**equal**", "**between**"] * 2
    (between,) = [line for line in tables[: len(tables) // 2] if "between" in line]
    cells = [cell.strip() for cell in between.split("|")[2:-1]]
    assert cells == [
        *("0.850", "–", "0.850", "0.850", "0.850", "–", "0.020", "25%"),
        *("300", "300", "600", "1.2", "12"),
    ]


def test_a_file_that_some_method_was_not_measured_on_is_left_out() -> None:
    late = method(0.5, 50)
    del late["sets"]["mine"]
    assert sets_of({**FOUND, "late": late}) == ["yours"]


def test_the_picture_is_of_the_first_file() -> None:
    assert "Right against quick: mine" in picture(FOUND)
