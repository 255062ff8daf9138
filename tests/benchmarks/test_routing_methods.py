from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from router.dataset import Row
from router.measuring.measures import pairs_of
from tests.benchmarks.routing_methods import NAMES, Ledger, Measured, copies, figures, parsed, timed_prompts

ROWS = [
    Row("sort a list", "code", part="plain", id="1"),
    Row("what is a cell", "bio", part="plain", id="2"),
    Row("the odds of a mutation", "math", frozenset({"bio"}), part="hard", id="3"),
    Row("¡Ordena una lista!", "code", part="multilingual", id="4"),
]


def said(*domains: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.eye(4)[list(domains)]


def test_each_part_has_its_own_measure() -> None:
    found = figures(ROWS, said(0, 0, 2, 1))  # code, code for bio, an alternate, math for code
    assert found["plain"] == pytest.approx(1 / 3)  # macro-F1 of code (2/3) and bio (0)
    assert (found["hard"], found["multilingual"], found["conversation"]) == (1.0, 0.0, None)
    assert found["mean"] == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert found["ece"] == pytest.approx(0.5)
    assert found["flips"] is None


def test_a_file_that_names_no_parts_is_plain() -> None:
    rows = [Row("sort a list", "code"), Row("what is a cell", "bio")]
    assert figures(rows, said(0, 2))["plain"] == figures(rows, said(0, 2))["mean"] == 1.0


def test_copies_say_what_flips_and_count_for_nothing_else() -> None:
    made = copies(ROWS)
    both = [*ROWS, *made]
    assert len(pairs_of(both)) == len(made) == 2 * len(ROWS) + 1  # three are careless already
    assert all(copy.text == copy.turns[0] != next(r for r in ROWS if r.id == copy.origin).text for copy in made)
    right = [0, 2, 1, 0]
    wrong_copies = figures(both, said(*right, *[3] * len(made)))
    assert wrong_copies["flips"] == 1.0
    assert wrong_copies["mean"] == figures(ROWS, said(*right))["mean"] == 1.0


def test_copies_are_made_only_where_a_file_has_none(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    lines: list[dict[str, object]] = [
        {"id": "a", "prompt": "Sort a list!", "domain": "code"},
        {"id": "b", "prompt": "?", "domain": "poetry"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    made = Measured.of(f"ours={path}")
    assert (made.name, len(made.rows), len(pairs_of(made.rows))) == ("ours", 4, 3)
    lines[1] = {"id": "c", "prompt": "sort a list", "domain": "code", "of": "a", "tags": ["careless"]}
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    given = Measured.of(str(path))
    assert (given.name, len(given.rows), len(pairs_of(given.rows))) == ("some.jsonl", 2, 1)


def test_timed_are_typical_prompts_that_nothing_was_trained_on() -> None:
    rows = [Row(f"{i} " + "word " * 50, "code") for i in range(100)] + [Row("short", "code"), Row("long " * 99, "code")]
    prompts = timed_prompts(rows)
    assert sorted(prompts) == sorted(row.text for row in rows[:100] if row.held_out)
    assert timed_prompts(rows[::-1]) == prompts


def test_without_files_the_project_measures_on_its_own_set() -> None:
    assert [Path(file).name for file in parsed([]).files] == ["own.jsonl"]


def test_a_method_is_in_the_table_once_it_is_scored_and_timed(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "cache" / "figures.json")
    first.note(NAMES[1], {"sets": {}, "fit_s": 1})
    first.note(NAMES[0], {"sets": {}, "cost": {}})
    assert list(first.whole()) == [NAMES[0]]
    again = Ledger(tmp_path / "cache" / "figures.json")
    again.note(NAMES[1], {"cost": {"mean_us": 2}})
    assert list(again.whole()) == [NAMES[0], NAMES[1]]
    assert again.whole()[NAMES[1]] == {"sets": {}, "fit_s": 1, "cost": {"mean_us": 2}}
