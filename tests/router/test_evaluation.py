from __future__ import annotations

import pytest

from router.artifact import Artifact
from router.dataset import Row
from router.evaluation import CHUNK, evaluate
from tests.fakes.encoders import Spoken, saying, spoken_artifact

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
    assert isinstance(artifact.encoder, Spoken)
    assert [text for piece in artifact.encoder.seen for text in piece] == [row.text for row in rows]


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
