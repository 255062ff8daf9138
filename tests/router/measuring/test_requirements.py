from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.measuring.requirements import (
    GROUPS,
    SLOW_GROUPS,
    Requirement,
    RequirementError,
    figures_of,
    foresee,
    misses,
)

DOCUMENT = {
    "rows": 4,
    "artifact": "beef",
    "all": {"accuracy": 0.9, "flips": 0.05, "source_accuracy": None, "confusion": [[1]]},
    "parts": {"plain": {"f1": 0.94, "per_domain": {"code": {"f1": 0.8}}}},
    "slices": {"language": {"ja": {"accuracy": 0.5}}},
    "latency": {"all": {"p99_ms": 8.0}},
}


def test_figures_are_called_by_their_dotted_names() -> None:
    assert figures_of(DOCUMENT) == {
        "rows": 4,
        "all.accuracy": 0.9,
        "accuracy": 0.9,
        "all.flips": 0.05,
        "flips": 0.05,
        "parts.plain.f1": 0.94,
        "parts.plain.per_domain.code.f1": 0.8,
        "plain.f1": 0.94,
        "plain.per_domain.code.f1": 0.8,
        "slices.language.ja.accuracy": 0.5,
        "latency.all.p99_ms": 8.0,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain.f1=0.95", Requirement("plain.f1", True, 0.95)),
        (" plain.f1 >= 0.95 ", Requirement("plain.f1", True, 0.95)),
        ("flips<=4e-2", Requirement("flips", False, 0.04)),
        ("latency.typical.p99_ms<=10", Requirement("latency.typical.p99_ms", False, 10)),
        ("slices.tag.a b:c.accuracy>=1", Requirement("slices.tag.a b:c.accuracy", True, 1)),
        ("decisions.stages.transformer<=0.3", Requirement("decisions.stages.transformer", False, 0.3)),
        ("conversation.switches.topic<=3", Requirement("conversation.switches.topic", False, 3)),
        ("conversation.changing.bounce>=0.5", Requirement("conversation.changing.bounce", True, 0.5)),
        ("baselines.tf_idf.all.accuracy<=0.9", Requirement("baselines.tf_idf.all.accuracy", False, 0.9)),
        ("baselines.tf_idf.all.ece>=0.1", Requirement("baselines.tf_idf.all.ece", True, 0.1)),
        ("rows<=10", Requirement("rows", False, 10)),
    ],
)
def test_a_requirement_is_read(text: str, expected: Requirement) -> None:
    assert Requirement.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "plain.f1", "plain.f1>0.9", "plain.f1=", "=0.9", "a=b", "a=nan", "a<=inf", "a=<1", "a==1"]
)
def test_what_cannot_be_read_is_told_with_what_can_be_written(text: str) -> None:
    with pytest.raises(RequirementError, match=r"plain.f1>=0.95 or flips<=0.04"):
        Requirement.parse(text)


@pytest.mark.parametrize(
    ("text", "instead"),
    [("flips=0.04", "flips<=0.04"), ("plain.ece>=0.1", "plain.ece<=0.1"), ("plain.f1<=1", "plain.f1>=1")],
)
def test_a_bound_on_the_wrong_side_is_told_with_the_right_one(text: str, instead: str) -> None:
    with pytest.raises(RequirementError, match=instead):
        Requirement.parse(text)


def test_each_miss_is_told_with_figure_and_bound() -> None:
    wanted = [Requirement.parse(t) for t in ("plain.f1=0.95", "flips<=0.04", "accuracy=0.9", "latency.all.p99_ms<=8")]
    assert misses(wanted, figures_of(DOCUMENT)) == [
        "plain.f1 is 0.94; 0.95 or more is required",
        "flips is 0.05; 0.04 or less is required",
    ]


def test_an_unknown_figure_is_told_with_the_known_ones() -> None:
    with pytest.raises(RequirementError) as caught:
        misses([Requirement("plain.f2", True, 0.9)], figures_of(DOCUMENT))
    message = str(caught.value)
    assert "'plain.f2'" in message
    assert "did you mean plain.f1?" in message
    assert "accuracy, all.accuracy, all.flips, flips, latency.all.p99_ms, plain.f1" in message
    assert "language.ja" not in message


def test_a_part_that_is_called_like_the_whole_file_has_a_long_name() -> None:
    document = {"all": {"f1": 0.5}, "parts": {"all": {"f1": 0.9}, "rows": {"f1": 0.8}}, "rows": 4}
    figures = figures_of(document)
    assert (figures["all.f1"], figures["f1"], figures["parts.all.f1"]) == (0.5, 0.5, 0.9)
    assert (figures["rows"], figures["rows.f1"]) == (4, 0.8)


@pytest.mark.parametrize(
    "name",
    [
        "plain.f1", "parts.plain.quality_lost", "f1", "all.flips", "plain.per_domain.code.recall", "slices.language.ja.accuracy",
        "conversation.one_domain.bounce", "robustness.made.together.flips", "latency.request.p50_ms",
    ],
)  # fmt: skip
def test_a_name_that_may_be_measured_is_let_pass(name: str) -> None:
    foresee([Requirement(name, True, 0.5)], ["plain", ""], ["code"], GROUPS | SLOW_GROUPS)


@pytest.mark.parametrize(
    "name",
    ["plain.f2", "hard.f1", "plain", "slice.language.ja.accuracy", "plain.per_domain.bio.f1", "latency.request.p50_ms"],
)
def test_a_name_that_cannot_be_measured_is_refused_beforehand(name: str) -> None:
    with pytest.raises(RequirementError, match=f"'{name}'.*plain.f1"):
        foresee([Requirement(name, True, 0.5)], ["plain", ""], ["code"], GROUPS)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_bound_is_met_on_it_and_on_its_good_side(figure: float, bound: float) -> None:
    assert Requirement("a", True, bound).met(figure) == (figure >= bound)
    assert Requirement("ece", False, bound).met(figure) == (figure <= bound)
