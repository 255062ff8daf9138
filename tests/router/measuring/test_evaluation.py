from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.artifact import Artifact
from router.dataset import Row, read_rows
from router.decision import Decision, Query
from router.errors import ExtensionError, NoExpertError, RouterError
from router.fleet import EMPTY_FLEET, Fleet
from router.measuring.evaluation import (
    CHUNK,
    EXCERPT,
    Measurement,
    chosen,
    decided,
    evaluate,
    excerpt,
    length_of,
    silent,
)
from router.measuring.requirements import GROUPS, HEADLINES, SLOW_GROUPS, Requirement, figures_of, foresee
from router.routing import Router
from tests.fakes.classifiers import Worded, worded_router
from tests.fakes.encoders import Spoken, saying, spoken_artifact
from tests.fakes.fleets import fleet

DOMAINS = ("code", "math")


def said(code: float, domain: str = "code", part: str = "") -> Row:
    return Row(saying({"code": code, "math": 1 - code}), domain, part=part)


def test_a_router_is_scored_by_what_it_says_of_each_row() -> None:
    rows = [said(0.9), said(0.8), said(0.7, "math"), said(0.2, "math")]
    report = evaluate(spoken_artifact(DOMAINS), rows)
    assert report.domains == DOMAINS
    assert report.accuracy == 0.75
    assert report.confusion.tolist() == [[2, 0], [1, 1]]


def test_each_part_is_scored_by_itself() -> None:
    rows = [said(0.9, part="plain"), said(0.2, part="hard"), said(0.9, part="hard")]
    report = evaluate(spoken_artifact(DOMAINS), rows)
    assert {name: part.accuracy for name, part in report.parts.items()} == {"plain": 1.0, "hard": 0.5}


def test_confidence_is_measured_after_the_temperature() -> None:
    rows = [said(0.9)] * 4
    assert evaluate(spoken_artifact(DOMAINS), rows).ece == pytest.approx(0.1, abs=1e-5)
    flat = 0.9**0.5 / (0.9**0.5 + 0.1**0.5)
    assert evaluate(spoken_artifact(DOMAINS, temperature=2.0), rows).ece == pytest.approx(1 - flat, abs=1e-5)


def test_a_large_set_is_scored_whole_and_in_order_a_piece_at_a_time() -> None:
    rows = [said(0.9 if i % 3 else 0.1) for i in range(2 * CHUNK + 5)]
    artifact = spoken_artifact(DOMAINS)
    seen: list[tuple[int, int]] = []
    report = evaluate(artifact, rows, lambda done, total: seen.append((done, total)))
    assert report.rows == len(rows)
    assert report.accuracy == pytest.approx(sum(1 for i in range(len(rows)) if i % 3) / len(rows))
    assert seen == [(CHUNK, len(rows)), (2 * CHUNK, len(rows)), (len(rows), len(rows))]
    (stage,) = artifact.stages
    assert isinstance(stage.encoder, Spoken)
    assert [text for piece in stage.encoder.seen for text in piece] == [row.text for row in rows]


def test_no_rows_score_nothing() -> None:
    assert evaluate(spoken_artifact(DOMAINS), []).rows == 0


def test_the_packaged_router_is_right_about_plain_prompts(packaged: Artifact) -> None:
    rows = [
        Row("Why does this Rust code not borrow check?", "code"),
        Row("What is the derivative of x squared times sin x?", "math"),
        Row("Which enzyme unwinds DNA before replication?", "bio"),
        Row("Plan a weekend in Lisbon for two.", "general"),
    ]
    assert evaluate(packaged, rows).accuracy == 1.0


# A whole router

FILE = fleet({"coder": {"domains": ["code"]}, "counter": {"domains": ["math"]}})


def measured(*rows: Row) -> Measurement:
    router = worded_router(FILE)
    return Measurement(router, rows)


def test_decisions_are_those_of_the_router_with_the_turns_of_the_row() -> None:
    # By itself the last turn says nothing: what came before decides.
    found = measured(Row("and now?", "math", turns=("math please", "and now?")), Row("code", "code"))
    assert found.right.tolist() == [True, True]
    assert found.answers.experts == ("counter", "coder")
    assert measured(Row("and now?", "math")).right.tolist() == [False]


def test_the_document_has_what_was_asked_for() -> None:
    rows = [Row(f"code {i}", "code", part="plain") for i in range(3)]
    full = measured(*rows).document(rows)
    quick = measured(*rows).document(rows, quick=True)
    assert set(full) - set(quick) == {"latency", "baselines"}
    assert {"all", "parts", "slices", "robustness", "conversation", "decisions", "errors"} <= set(quick)
    assert full["parts"]["plain"]["f1"] == 1.0
    assert (full["rows"], full["domains"]) == (3, list(FILE.domain_names))
    assert quick["robustness"]["made"] == {}
    assert measured(*rows).document(quick=True, copies=2)["robustness"]["made"]["capitals"]["rows"] == 2
    names = figures_of(full)
    foresee(
        [Requirement(name, True, 0) for name in names], ["plain"], full["domains"], GROUPS | SLOW_GROUPS | {"parts"}
    )
    assert {f"all.{name}" for name in HEADLINES if name not in ("flips", "source_accuracy")} <= set(names)


def test_the_document_is_json_without_what_json_has_not() -> None:
    rows = [Row("code", "code"), Row("neither", "other"), Row("x", "math", turns=("math", "x"))]
    json.dumps(measured(*rows).document(rows), allow_nan=False)


def test_slices_are_those_that_the_rows_name() -> None:
    rows = [
        *(Row(f"code {i}", "code", language="de", style="fix", tags=frozenset({"often"})) for i in range(10)),
        Row("math?", "code", language="ja", source="s", tags=frozenset({"rare"})),
        Row("math" + " x" * 400, "math"),
    ]
    slices = measured(*rows).slices()
    assert {name: f["accuracy"] for name, f in slices["language"].items()} == {"de": 1.0, "en": 1.0, "ja": 0.0}
    assert set(slices["tag"]) == {"often"}  # of one row an accuracy says nothing
    assert list(slices["length"]) == ["up to 40", "over 640"]
    assert {name: f["rows"] for name, f in slices["stage"].items()} == {"static": 11, "transformer": 1}
    assert slices["source"]["s"]["rows"] == 1
    assert set(slices["reason"]) == {"best"}


def test_shares_of_reasons_stages_and_experts_are_counted() -> None:
    counts = measured(Row("code", "code"), Row("math?", "math"), Row("math", "math"), Row("math 2", "math")).counts()
    assert counts["experts"] == {"counter": 0.75, "coder": 0.25}
    assert counts["stages"] == {"static": 0.75, "transformer": 0.25}
    assert counts["unanswered"] == 0


def test_copies_are_made_of_single_prompts_and_compared_with_what_those_were_given() -> None:
    rows = [
        Row("code is fun, really", "code"),  # its capitals are no word that the classifier knows
        Row("math", "math", id="1"),
        Row("math", "math", origin="1", tags=frozenset({"typos"})),
        Row("math", "math", turns=("code", "math")),
    ]
    found = measured(*rows).robustness(10)
    assert found["own"] == {"typos": {"rows": 1, "flips": 0.0}}
    assert (found["pairs"], found["flips"]) == (1, 0.0)
    capitals = found["made"]["capitals"]
    # Both become nobody's: the first domain of equals is code, so that math flips and code does not.
    assert capitals == {"rows": 2, "accuracy": 0.5, "accuracy_before": 1.0, "flips": 0.5}
    assert found["made"]["lower"]["rows"] == 0  # they were lower already
    assert measured(*rows).robustness(1)["made"]["capitals"]["rows"] == 1
    copies = sum(f["rows"] for name, f in found["made"].items() if name != "together")
    flipped = sum(f["rows"] * f["flips"] for name, f in found["made"].items() if name != "together" and f["rows"])
    assert found["made"]["together"]["rows"] == copies
    assert found["made"]["together"]["flips"] == pytest.approx(flipped / copies)
    assert measured(Row("1", "code")).robustness(1)["made"]["together"]["flips"] is None


def test_conversations_are_replayed_turn_by_turn() -> None:
    talk = Row("code", "code", turns=("math", "math", "code"), turn_domains=("math", "math", "code"))
    still = Row("math", "math", turns=("math", "math 2"), turn_domains=("math", "math"))
    found = measured(talk, still, Row("code", "code")).conversations()
    assert (found["conversations"], found["steps"], found["bounce"]) == (2, 3, pytest.approx(1 / 3))
    assert (found["one_domain"]["bounce"], found["changing"]["followed"]) == (0.0, 1.0)
    assert found["switches"] == {"topic": 1}


def test_errors_stand_surest_first_and_are_cut_short() -> None:
    rows = [Row("neither", "math", id="unsure"), Row("code " + "x" * 500, "math", id="sure"), Row("code", "code")]
    errors = measured(*rows).errors()
    assert [(e["id"], e["given"], e["domain"]) for e in errors] == [
        ("sure", "code", "math"),
        ("unsure", "code", "math"),
    ]
    assert errors[0]["confidence"] > errors[1]["confidence"]
    assert len(errors[0]["text"]) == EXCERPT
    assert measured(*rows).errors(1)[0]["id"] == "sure"


def test_texts_are_timed_as_if_they_had_never_been_seen_and_once() -> None:
    classifier = Worded(FILE.domain_names)
    rows = [Row("code?", "code", id="1"), Row("code?", "code"), Row("math?", "math"), Row("code??", "code", origin="1")]
    found = Measurement(Router(FILE, spoken_artifact(FILE.domain_names), classifier), rows)
    classifier.seen.clear()
    assert found.latency(10)["transformer"]["rows"] == found.latency(10)["all"]["rows"] == 2
    assert set(classifier.seen) == {"code?", "math?"}


def test_baselines_have_the_same_measures_part_by_part() -> None:
    rows = [
        Row("python", "code", part="plain"),
        Row("python 2", "code"),
        Row("theorem", "math", turns=("python", "theorem")),
    ]
    found = measured(*rows).baselines([])
    assert set(found) == {"majority", "keywords", "always_general"}  # there is nothing to learn from
    assert found["majority"]["all"]["accuracy"] == pytest.approx(2 / 3)
    assert found["majority"]["all"]["quality_lost"] == pytest.approx(0.3 / 3)
    assert found["majority"]["bounce"] == 0
    assert found["keywords"]["all"]["accuracy"] == 1
    assert found["keywords"]["parts"]["plain"]["rows"] == 1
    assert found["keywords"]["bounce"] == 1


def test_what_nobody_can_answer_counts_as_wrong() -> None:
    router = Undecided(NoExpertError("nobody", "tools"))
    found = Measurement(router, [Row("code", "code"), Row("math", "math")])
    document = found.document(quick=True)
    assert document["all"]["accuracy"] == 0
    assert document["decisions"]["unanswered"] == 1
    assert document["slices"]["reason"]["unanswered"]["rows"] == 2


def test_any_other_error_of_the_router_ends_the_evaluation() -> None:
    with pytest.raises(ExtensionError):
        decided(Undecided(ExtensionError("broken")), [Query("x")], silent, "deciding")


class Undecided(Router):
    """A router that has one error for everybody."""

    def __init__(self, error: RouterError) -> None:
        super().__init__(FILE, spoken_artifact(FILE.domain_names))
        self.error = error

    def decide_many(self, queries: Sequence[Query], fleet: Fleet = EMPTY_FLEET) -> list[Decision | RouterError]:
        return [self.error for _ in queries]


def test_a_retry_keeps_its_expert_and_is_no_step(tmp_path: Path) -> None:
    said = [("user", "code"), ("assistant", "{"), ("user", "Recall the function correctly, fix the errors: math")]
    messages = [{"role": role, "content": content} for role, content in said]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": messages, "domain": "code", "turn_domains": ["code", "code"]}), "utf-8")
    found = measured(*read_rows(path))
    assert found.answers.experts == ("coder",)
    assert found.conversations()["steps"] == 0


@given(st.lists(st.text(max_size=9), min_size=1, max_size=20, unique=True), st.integers(0, 25), st.randoms())
def test_a_sample_is_settled_by_the_texts_alone(texts: list[str], count: int, shuffled: random.Random) -> None:
    rows = [Row(text, "code") for text in texts]
    first = [rows[i].text for i in chosen(range(len(rows)), rows, count)]
    shuffled.shuffle(rows)
    assert [rows[i].text for i in chosen(range(len(rows)), rows, count)] == first
    assert len(first) == min(count, len(texts))


def test_lengths_and_excerpts() -> None:
    assert [length_of("x" * n) for n in (0, 40, 41, 640, 641)] == [
        "up to 40", "up to 40", "41 to 160", "161 to 640", "over 640",
    ]  # fmt: skip
    assert excerpt("a\n  b") == "a b"
    assert excerpt("x" * EXCERPT) == "x" * EXCERPT
    assert excerpt("x" * 999) == "x" * (EXCERPT - 1) + "…"
