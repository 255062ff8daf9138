from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks.domain_tables import END, START, methods_table, page_with, picture, tables


def figures_of(recall: float, moved: float = 20, rightly: float = 15, inside: float = 30) -> dict[str, Any]:
    new = {"recall": recall, "recall_least": recall - 0.1, "recall_most": recall + 0.1}
    lost = {"f1": 0.958, "f1_any_move_wrong": 0.95, "moved": moved, "moved_rightly": rightly, "inside": inside}
    return {
        "new": new | {"taken": 0.012, "precision": 0.93, "ece": 0.04},
        "sets": {"mine": lost | {"passed_on": 0.41}},
    }


FIGURES: dict[str, Any] = {
    "draws": 3,
    "tests": 60,
    "before": {"mine": {"rows": 3560, "f1": 0.96, "passed_on": 0.3}},
    "sizes": {
        "legal": {"5": figures_of(0.5), "10": figures_of(0.7)},
        "sql": {"5": figures_of(0.3), "10": figures_of(0.6, inside=0)},
    },
    "narrow": {"legal": figures_of(0.4), "sql": figures_of(0.2)},
    "together": {"legal": figures_of(0.61), "sql": figures_of(0.41)},
    "cost": {
        "legal": {"seconds": 3.04, "cpu_s": 2.5, "peak_mb": 398.2, "torch": False},
        "sql": {"seconds": 4.4, "cpu_s": 6.04, "peak_mb": 300, "torch": False},
    },
    "methods": {"nearest": {"5": {"recall": 0.5}}},
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def rows_of(first: str) -> list[list[str]]:
    return [row for row in map(cells, tables(FIGURES)) if row[0] == first]


def test_a_row_for_each_number_of_examples_has_every_domain_and_the_mean() -> None:
    assert rows_of("10") == [["10", "70% (60–80)", "60% (50–70)", "**65%**", "12", "93%", "0.040"]]
    assert rows_of("10, all alike")[0][1:4] == ["40% (30–50)", "20% (10–30)", "**30%**"]
    assert rows_of("10, all 2 domains at once")[0][1:4] == ["61% (51–71)", "41% (31–51)", "**51%**"]


def test_what_is_lost_is_the_change_in_hundredths_both_ways_of_counting() -> None:
    assert rows_of("legal") == [
        ["legal", size, "0.9580", "−0.20", "−1.00", "20", "15", "50% of 30", "41%"] for size in ("5", "10")
    ]
    assert rows_of("sql")[1][-2] == "–"
    assert rows_of("nothing")[0][2:] == ["0.9600", "", "", "", "", "", "30%"]
    assert [row[1] for row in rows_of("all at once: sql")] == ["10"]


def test_every_table_is_a_table() -> None:
    lines = list(tables(FIGURES))
    for i, line in enumerate(lines):
        if line.startswith("|---"):
            assert lines[i - 2] == ""
            assert {n.count("|") for n in lines[i - 1 :] if n.startswith("|")} >= {line.count("|")}
            assert lines[i - 1].count("|") == lines[i + 1].count("|") == line.count("|")


def test_what_an_operator_waits_for_is_the_range_of_seconds_and_the_most_memory() -> None:
    assert list(tables(FIGURES))[-1] == (
        "Adding one with 10 examples took 3.0 to 4.4 s (6.0 s of CPU at most) and 398 MB at most; no torch, no GPU."
    )
    heavy = FIGURES | {"cost": {"sql": {"seconds": 1, "cpu_s": 1, "peak_mb": 900, "torch": True}}}
    assert list(tables(heavy))[-1].endswith("torch was imported.")


def test_methods_are_shown_where_they_were_compared() -> None:
    assert list(methods_table(FIGURES)) == ["| nearest | 5 | recall 0.500 |"]
    assert list(methods_table(FIGURES | {"methods": {}})) == []


def test_figures_take_the_place_of_those_before_and_nothing_else_changes() -> None:
    page = page_with(f"# Title\n\n{START}\n{END}\nThe end.\n", "first")
    assert page == f"# Title\n\n{START}\n\nfirst\n\n{END}\nThe end.\n"
    assert page_with(page, "second") == page.replace("first", "second")
    assert page_with(page, "first") == page


@pytest.mark.parametrize(
    "page", ["", START, END, f"{END}{START}", f"{START}{END}{START}{END}", f"{START}{END}{END}", f"{START}{END}{START}"]
)
def test_a_page_without_its_marks_is_left_alone(page: str) -> None:
    with pytest.raises(ValueError, match="the page needs"):
        page_with(page, "x")


def test_the_plot_has_a_line_a_domain_and_says_the_figures() -> None:
    svg = picture(FIGURES)
    assert svg.count("<polyline") == 2
    assert "legal, 10: 70% (60% to 80%)" in svg
    assert "3 draws" in svg
