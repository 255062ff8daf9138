from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from router.calibration import expected_calibration_error, softmax
from router.dataset import Row
from router.measuring.measures import FLIP_TAGS, Report, interval, reliability, score, score_probabilities, sliced

DOMAINS = ("code", "math", "bio")


def sure_of(domains: Sequence[str], confidence: float = 0.9) -> NDArray[np.float64]:
    """Logits by which each row is given its domain with this confidence."""
    rest = (1 - confidence) / (len(DOMAINS) - 1)
    return np.log([[confidence if d == domain else rest for d in DOMAINS] for domain in domains]).reshape(
        -1, len(DOMAINS)
    )


def scored(rows: Sequence[Row], given_domains: Sequence[str], confidence: float = 0.9) -> Report:
    return score(rows, DOMAINS, sure_of(given_domains, confidence))


def row(domain: str, *alternates: str) -> Row:
    return Row("t", domain, frozenset(alternates))


def test_everything_right_is_full_marks() -> None:
    report = scored([row("code"), row("math"), row("bio")], DOMAINS, confidence=0.999999)
    assert (report.rows, report.accuracy, report.macro_f1) == (3, 1.0, 1.0)
    assert report.ece == pytest.approx(0, abs=1e-5)
    assert report.confusion.tolist() == np.eye(3).tolist()


def test_the_figures_of_a_small_set_are_those_worked_out_by_hand() -> None:
    rows = [row("code"), row("code"), row("code"), row("math"), row("math"), row("bio")]
    report = scored(rows, ["code", "code", "math", "math", "bio", "bio"])
    assert report.confusion.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert report.accuracy == pytest.approx(4 / 6)
    assert report.per_domain["code"] == pytest.approx({"precision": 1.0, "recall": 2 / 3, "f1": 0.8, "rows": 3})
    assert report.per_domain["math"] == pytest.approx({"precision": 0.5, "recall": 0.5, "f1": 0.5, "rows": 2})
    assert report.per_domain["bio"] == pytest.approx({"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "rows": 1})
    assert report.macro_f1 == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)
    assert report.ece == pytest.approx(0.9 - 4 / 6)


def test_an_alternate_counts_as_right_for_accuracy_and_not_for_f1() -> None:
    report = scored([row("code", "math"), row("math")], ["math", "math"])
    assert report.accuracy == 1.0
    assert report.per_domain["code"]["recall"] == 0.0
    assert report.per_domain["math"]["precision"] == 0.5
    assert report.ece == pytest.approx(0.1)


def test_a_domain_that_no_row_has_does_not_weigh_on_macro_f1() -> None:
    report = scored([row("code"), row("math")], ["code", "math"])
    assert report.macro_f1 == 1.0
    assert report.per_domain["bio"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 0}


def test_a_row_of_a_domain_that_the_router_does_not_know_is_wrong() -> None:
    report = scored([row("law"), row("code")], ["code", "code"])
    assert report.accuracy == 0.5
    assert report.confusion.sum() == 1
    assert report.rows == 2


def test_a_row_of_an_unknown_domain_is_right_by_its_alternate() -> None:
    assert scored([row("law", "code")], ["code"]).accuracy == 1.0


def test_each_part_is_scored_by_itself() -> None:
    rows = [
        Row("a", "code", part="plain"),
        Row("b", "code", part="hard"),
        Row("c", "math", part="hard"),
        Row("d", "bio"),
    ]
    report = scored(rows, ["code", "math", "math", "code"])
    assert report.accuracy == 0.5
    assert {name: (part.rows, part.accuracy) for name, part in report.parts.items()} == {
        "hard": (2, 0.5),
        "plain": (1, 1.0),
    }
    assert report.parts["hard"].confusion.sum() == 2


def test_rows_without_parts_have_no_parts() -> None:
    assert scored([row("code")], ["code"]).parts == {}


@pytest.mark.parametrize("tag", sorted(FLIP_TAGS))
def test_a_disturbed_row_that_is_given_another_domain_is_a_flip(tag: str) -> None:
    rows = [
        Row("a", "code", id="1"),
        Row("A", "code", id="2", origin="1", tags=frozenset({tag})),
        Row("b", "math", id="3"),
        Row("B", "math", id="4", origin="3", tags=frozenset({tag, "short"})),
    ]
    assert scored(rows, ["code", "math", "math", "math"]).flips == 0.5
    assert scored(rows, ["math", "math", "bio", "bio"]).flips == 0.0


def test_a_copy_that_was_cut_short_or_translated_is_no_flip() -> None:
    rows = [Row("a", "code", id="1"), Row("A", "code", id="2", origin="1", tags=frozenset({"trunc6"}))]
    assert scored(rows, ["code", "math"]).flips is None


def test_only_disturbed_rows_whose_origin_is_there_can_flip() -> None:
    rows = [
        Row("a", "code", id="1"),
        Row("b", "code", id="2", origin="1", tags=frozenset({"translated"})),
        Row("c", "code", id="3", origin="absent", tags=frozenset({"typos"})),
        Row("d", "code", tags=frozenset({"typos"})),
        Row("e", "code"),
    ]
    report = scored(rows, ["code", "math", "math", "math", "math"])
    assert report.flips is None
    assert "flips" not in report.summary()


def test_flips_stand_with_the_part_of_the_disturbed_rows_as_well() -> None:
    rows = [
        Row("a", "code", id="1", part="plain"),
        Row("A", "code", id="2", origin="1", tags=frozenset({"all_caps"}), part="hard"),
    ]
    report = scored(rows, ["code", "math"])
    assert (report.flips, report.parts["hard"].flips, report.parts["plain"].flips) == (1.0, 1.0, None)
    more = [
        *rows,
        Row("b", "bio", id="3", part="odd"),
        Row("B", "bio", origin="3", tags=frozenset({"lower"}), part="odd"),
    ]
    report = scored(more, ["code", "math", "bio", "bio"])
    assert (report.flips, report.parts["hard"].flips, report.parts["odd"].flips) == (0.5, 1.0, 0.0)


def test_the_summary_has_the_headline_figures_rounded() -> None:
    rows = [Row("a", "code", id="1"), Row("b", "code", id="2", origin="1", tags=frozenset({"typos"})), row("math")]
    summary = scored(rows, ["code", "math", "math"]).summary()
    assert summary == {"rows": 3, "accuracy": 0.6667, "macro_f1": 0.6667, "ece": 0.2333, "flips": 1.0}


def test_no_rows_score_nothing_and_raise_nothing() -> None:
    report = score([], DOMAINS, np.zeros((0, 3)))
    assert (report.rows, report.accuracy, report.macro_f1, report.ece, report.flips) == (0, 0.0, 0.0, 0.0, None)


@given(
    st.lists(
        st.tuples(st.sampled_from(DOMAINS), st.lists(st.floats(-5, 5), min_size=3, max_size=3)), min_size=1, max_size=30
    )
)
@settings(deadline=None, max_examples=60)
def test_the_figures_are_those_of_scikit_learn(cases: list[tuple[str, list[float]]]) -> None:
    logits = np.array([figures for _, figures in cases])
    true = [domain for domain, _ in cases]
    predicted = [DOMAINS[i] for i in softmax(logits).argmax(axis=1)]
    report = score([row(domain) for domain in true], DOMAINS, logits)
    assert report.accuracy == pytest.approx(accuracy_score(true, predicted))
    assert report.macro_f1 == pytest.approx(
        f1_score(true, predicted, labels=sorted(set(true)), average="macro", zero_division=0)
    )
    assert report.confusion.tolist() == confusion_matrix(true, predicted, labels=DOMAINS).tolist()
    precision, recall, f1, support = precision_recall_fscore_support(true, predicted, labels=DOMAINS, zero_division=0)
    for i, domain in enumerate(DOMAINS):
        expected = {"precision": precision[i], "recall": recall[i], "f1": f1[i], "rows": support[i]}
        assert report.per_domain[domain] == pytest.approx(expected)
    right = np.array([t == p for t, p in zip(true, predicted, strict=True)])
    assert report.ece == pytest.approx(expected_calibration_error(softmax(logits).max(axis=1), right))


def test_a_large_source_weighs_no_more_than_a_small_one() -> None:
    rows = [*(Row(str(i), "code", source="large") for i in range(8)), Row("x", "math", source="small"), row("bio")]
    report = scored(rows, ["code"] * 8 + ["code", "code"])
    assert report.source_accuracy == 0.5
    assert scored([row("code")], ["code"]).source_accuracy is None


def test_a_row_that_nobody_answered_is_wrong_and_stands_in_no_column() -> None:
    report = score_probabilities([row("code"), row("code")], DOMAINS, np.array([[1.0, 0, 0], [0, 0, 0]]))
    assert (report.accuracy, report.confusion.sum()) == (0.5, 1)
    assert report.ece == 0.0  # nobody claimed to be sure of it


CONFIDENT = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


@given(CONFIDENT)
def test_the_bars_of_the_diagram_are_those_of_the_calibration_error(cases: list[tuple[float, bool]]) -> None:
    confidence, right = np.array([c for c, _ in cases]), np.array([r for _, r in cases])
    bins = reliability(confidence, right)
    assert sum(b.rows for b in bins) == len(cases)
    assert all(b.low - 1e-9 <= b.confidence <= b.high + 1e-9 and 0 <= b.accuracy <= 1 for b in bins)
    gap = sum(b.rows * abs(b.confidence - b.accuracy) for b in bins) / len(cases)
    ece = expected_calibration_error(confidence, right)
    assert ece == pytest.approx(gap)
    assert 0 <= ece <= 1


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_interval_holds_the_share_and_narrows_with_more_rows(right: int, wrong: int) -> None:
    rows = right + wrong
    low, high = interval(right, rows)
    assert 0 <= low <= (right / rows if rows else 0.5) <= high <= 1
    if rows:
        closer_low, closer_high = interval(100 * right, 100 * rows)
        assert closer_high - closer_low < high - low


def test_the_interval_is_wilsons() -> None:
    assert interval(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)  # as in Newcombe 1998
    assert interval(0, 0) == (0.0, 1.0)


def test_slices_stand_largest_first_and_a_row_may_be_in_several() -> None:
    names = [["ja"], ["en", "typos"], ["en"], []]
    found = sliced(names, np.array([True, True, False, False]), np.array([0.5, 0.9, 0.7, 0.1]))
    assert list(found) == ["en", "ja", "typos"]
    assert (found["en"]["rows"], found["en"]["accuracy"]) == (2, 0.5)
    assert found["en"]["confidence"] == pytest.approx(0.8)
    assert found["en"]["low"] < 0.5 < found["en"]["high"]


def test_the_report_is_described_in_full() -> None:
    described = scored([row("code"), row("math")], ["code", "code"]).described()
    assert (described["accuracy"], described["f1"]) == (0.5, pytest.approx(1 / 3))
    assert described["confusion"] == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert described["reliability"] == [
        {"low": 13 / 15, "high": 14 / 15, "rows": 2, "confidence": pytest.approx(0.9), "accuracy": 0.5}
    ]
