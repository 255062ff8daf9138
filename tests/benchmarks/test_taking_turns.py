"""The figures of docs/workers.md about experts that share a GPU are what the simulation says."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.taking_turns import table, timeline

DOCS = Path(__file__).parents[2] / "docs"


def test_the_document_has_the_table_and_the_picture_of_today() -> None:
    assert table() in (DOCS / "workers.md").read_text("utf-8")
    assert timeline() == (DOCS / "taking-turns.svg").read_text("utf-8")
