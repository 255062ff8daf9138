from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger.asked import Asked
from gateway.ledger.report import COUNTED, Figures, Report, reported

ASKED = Asked(("key", "expert"), datetime(2026, 11, 1, tzinfo=UTC))
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
HOSTILE = [
    '=HYPERLINK("http://x","y")',
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "'",
    "'=1",
    '","',
    'a"b',
    "a,b",
    "a\nb",
    " x ",
]
NAMES = st.none() | st.sampled_from(HOSTILE) | TEXT.filter(bool)


def figures(*names: str | None, **sums: float) -> Figures:
    return Figures(names or ("team-a", "coder"), {**dict.fromkeys(COUNTED, 0), "requests": 1, **sums}, 0.5, 2.0)


def report(*rows: Figures) -> Report:
    return reported(ASKED, rows, 0.5, 2.0)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def undone(cell: str) -> str | None:
    """A cell's name, as docs/ledger.md says that it is got back."""
    return (cell[1:] if cell.startswith("'") else cell) or None


@settings(max_examples=40)
@given(st.lists(st.tuples(NAMES, NAMES), unique=True, max_size=8))
def test_names_come_back_from_csv_and_none_of_them_is_a_formula(names: list[tuple[str | None, str | None]]) -> None:
    lines = read(report(*(figures(*name) for name in names)).csv())
    assert {(undone(line["key"]), undone(line["expert"])) for line in lines} == set(names)
    assert len(lines) == len(names)
    for line in lines:
        assert not line["key"].startswith(("=", "+", "-", "@", "\t", "\r"))


@settings(max_examples=40)
@given(st.lists(st.floats(-1e6, 1e6).map(lambda usd: round(usd, 6)), min_size=1, max_size=6))
def test_money_comes_back_from_csv_to_the_micro_dollar_and_adds_up(costs: list[float]) -> None:
    rows = [figures(f"k{i}", None, cost_usd=usd, compared=1, compared_usd=usd) for i, usd in enumerate(costs)]
    made = report(*rows)
    lines = read(made.csv())
    assert sorted(float(line["cost_usd"]) for line in lines) == sorted(costs)
    assert sum(float(line["cost_usd"]) for line in lines) == pytest.approx(
        made.described()["total"]["cost_usd"], abs=1e-7
    )
    assert all(float(line["savings_usd"]) == -float(line["cost_usd"]) for line in lines)


def test_csv_has_a_line_for_each_group_and_none_for_all_of_them() -> None:
    text = report(figures(), figures("b", None, seconds=3.0)).csv()
    header, *lines = text.splitlines()
    assert header.startswith('"key","expert","requests","errors","input_tokens",')
    assert len(lines) == 2
    assert report().csv().splitlines() == [header]


def test_json_names_what_was_asked_each_group_and_the_total() -> None:
    sums: dict[str, float] = {
        "requests": 2,
        "errors": 1,
        "input_tokens": 3,
        "output_tokens": 4,
        "seconds": 5.0,
        "cost_usd": 0.1 + 0.2,
    }
    told: Any = json.loads(json.dumps(report(figures(**sums)).described()))
    assert (told["object"], told["by"], told["tz"], told["until"]) == ("usage", ["key", "expert"], "UTC", None)
    assert told["since"] == "2026-11-01T00:00:00+00:00"
    [line] = told["rows"]
    assert line.pop("group") == {"key": "team-a", "expert": "coder"}
    assert line == told["total"]
    assert (line["tokens_per_request"], line["seconds_mean"], line["seconds_p95"]) == (3.5, 2.5, 2.0)
    assert line["cost_usd"] == 0.3
    assert line["savings_usd"] is None


def test_savings_are_of_what_was_compared_and_may_be_negative() -> None:
    row = figures(cost_usd=5.0, estimated_usd=1.0, compared=1, compared_usd=2.0, baseline_usd=1.5)
    assert (row.savings_usd, row.paid_usd) == (-0.5, 6.0)


def test_the_end_is_told_in_the_zone_that_was_asked_for() -> None:
    asked = Asked((), ASKED.since, ASKED.since + timedelta(days=1))
    assert reported(asked, (), None, None).described()["until"] == "2026-11-02T00:00:00+00:00"
