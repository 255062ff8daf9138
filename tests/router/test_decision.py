from __future__ import annotations

import dataclasses
import json

import pytest

from router.decision import Candidate, Decision, Query, Scores

SCORES = Scores({"code": 0.61237, "math": 0.38763}, "transformer")
ROUTED = Decision(
    expert="coder",
    reason="tie",
    fallbacks=("general", "counter"),
    scores=SCORES,
    candidates=(Candidate("coder", 0.8, 1.5), Candidate("general", None, None, "cannot do tools", cause="capability")),
    artifact="abc",
    seconds=0.0012345,
)
PINNED = dataclasses.replace(ROUTED, reason="pinned", scores=None)


def test_the_domain_is_the_most_probable_and_the_confidence_its_probability() -> None:
    assert (SCORES.domain, SCORES.confidence) == ("code", 0.61237)
    assert Scores({"a": 0.2, "b": 0.5, "c": 0.3}, "transformer").domain == "b"


def test_of_equally_probable_domains_the_first_is_meant() -> None:
    assert Scores({"b": 0.5, "a": 0.5}, "transformer").domain == "b"


def test_the_runner_up_is_the_second_most_probable() -> None:
    assert Scores({"a": 0.2, "b": 0.5, "c": 0.3}, "static").runner_up == "c"
    assert Scores({"b": 0.5, "a": 0.5}, "static").runner_up == "a"
    assert Scores({"a": 1.0}, "static").runner_up is None


def test_a_query_for_no_model_in_particular_is_routed() -> None:
    query = Query("text")
    assert (query.requested_model, query.needs, query.tokens, query.least_tokens) == ("auto", frozenset(), 0, 0)


def test_the_summary_of_a_decision_is_a_line_of_batch_routing() -> None:
    assert list(ROUTED.summary().items()) == [
        ("expert", "coder"),
        ("domain", "code"),
        ("confidence", 0.6124),
        ("probabilities", {"code": 0.6124, "math": 0.3876}),
        ("stage", "transformer"),
        ("reason", "tie"),
        ("latency_ms", 1.234),
    ]


def test_the_summary_of_a_decision_without_classifying_has_no_domain() -> None:
    summary = PINNED.summary()
    assert (summary["domain"], summary["confidence"], summary["probabilities"]) == (None, None, {})
    assert (summary["stage"], summary["reason"]) == ("none", "pinned")


def test_a_described_decision_adds_the_arithmetic_of_every_expert() -> None:
    described = ROUTED.described()
    assert ROUTED.summary().items() <= described.items()
    assert (described["runner_up"], described["doubt"], described["language"]) == ("math", None, "")
    assert (described["previous"], described["switched"]) == (None, None)
    assert described["fallbacks"] == ["general", "counter"]
    assert described["artifact"] == "abc"
    assert described["experts"] == [
        {
            "id": "coder",
            "expected_quality": 0.8,
            "price": 1.5,
            "price_estimated": False,
            "refused": None,
            "cause": None,
        },
        {
            "id": "general",
            "expected_quality": None,
            "price": None,
            "price_estimated": False,
            "refused": "cannot do tools",
            "cause": "capability",
        },
    ]


def test_a_described_decision_says_doubt_language_and_switch() -> None:
    said = Scores({"code": 0.9, "math": 0.1}, "static", language="my")
    decision = dataclasses.replace(
        ROUTED, scores=said, doubt="unreadable_language", previous="general", switched="window"
    )
    described = decision.described()
    assert (described["doubt"], described["language"]) == ("unreadable_language", "my")
    assert (described["previous"], described["switched"]) == ("general", "window")


@pytest.mark.parametrize("decision", [ROUTED, PINNED], ids=["routed", "pinned"])
def test_a_described_decision_goes_into_json_and_back(decision: Decision) -> None:
    assert json.loads(json.dumps(decision.described(), allow_nan=False)) == decision.described()


def test_a_decision_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ROUTED.expert = "another"  # type: ignore[misc]
