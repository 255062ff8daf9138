from __future__ import annotations

import numpy as np

from router.dataset import Row
from tests.benchmarks.suggesting_domains import END, HEAD, PAGE, START, _judged, _label, complete, hdbscan, row_of


def test_rows_of_the_hidden_domains_topics_are_of_them_and_those_on_the_border_of_neither() -> None:
    assert [_label(Row("x", "general", topic=topic)) for topic in ("law", "economics", "business", "travel", "")] == [
        "legal", "finance", "border", "ordinary", "ordinary",
    ]  # fmt: skip
    assert _label(Row("x", "legal")) == "legal"


def test_what_was_found_and_what_was_wrong_is_counted() -> None:
    labels = np.array(["legal"] * 10 + ["finance"] * 10 + ["ordinary"] * 10)
    clusters = [np.array([0, 1, 2, 3, 20]), np.array([21, 22, 23]), np.array([10, 11, 4])]
    vectors = np.eye(30, dtype=np.float32)
    found = _judged(clusters, labels, [f"text {i}" for i in range(30)], vectors)
    assert found.recall == {"legal": 0.4, "finance": 0.2}
    assert (found.proposals, found.proposed, found.pure, found.wrong, found.strange) == (3, 11, 9, 4, 1)
    assert (found.examples, found.wrong_examples) == (11, 4)
    assert row_of("60", [found]) == "| 60 | 2 of 2 | 30% | 3.0 | 82% | 36% | 4 of 11 | 1 |"


def test_where_nothing_is_proposed_nothing_is_said_of_it() -> None:
    nothing = _judged([], np.array(["legal", "ordinary"]), ["a", "b"], np.eye(2, dtype=np.float32))
    assert row_of("0", [nothing]) == "| 0 | 0 of 2 | – | 0.0 | – | – | – | 0 |"


def test_the_other_ways_label_every_text() -> None:
    noise = np.random.default_rng(0).normal(size=(36, 3)).astype(np.float32)
    vectors = np.repeat(np.eye(3, dtype=np.float32), 12, axis=0) + 0.01 * noise
    for way in (complete, hdbscan):
        assert [len(set(way(vectors, 0.5)[i : i + 12])) for i in (0, 12, 24)] == [1, 1, 1]


def test_the_page_has_a_place_for_the_figures_and_its_tables_are_of_today_s_columns() -> None:
    page = PAGE.read_text("utf-8")
    assert page.count(START) == page.count(END) == 1
    assert page.count(" | ".join(HEAD)) == 3
