"""docs/metrics.md has each metric that /metrics tells. `python -m tests.gateway.test_metrics_table` writes its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.metrics import Metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
BEGIN, END = "<!-- the table: written from code -->\n", "<!-- the end of the table -->\n"
UNITS = {
    "timestamp_seconds": "Unix time",
    "seconds": "seconds",
    "bytes": "bytes",
    "usd": "US dollars",
    "wh": "watt-hours",
    "gco2e": "grams of CO2e",
    "tokens": "tokens",
    "confidence": "0 to 1",
}
FLAGS = ("_info", "_up", "_state", "_mismatch", "_successful")  # gauges that are 1 or 0


def rows() -> list[str]:
    """One of each family, in the order of their names."""
    families: list[Any] = sorted(Metrics().registry._collector_to_names, key=lambda family: family._name)
    return [_row(family) for family in families]


def _row(family: Any) -> str:
    kind, labels = type(family).__name__.lower(), ", ".join(f"`{label}`" for label in family._labelnames)
    name = family._name + ("_total" if kind == "counter" else "")
    unit = next((unit for end, unit in UNITS.items() if family._name.endswith(end)), "")
    if not unit:
        unit = "1 or 0" if kind == "gauge" and family._name.endswith(FLAGS) else "count"
    return f"| `{name}` | {kind} | {labels} | {family._documentation} | {unit} |\n"


def table() -> str:
    head = "| name | type | labels | what it says | unit |\n|---|---|---|---|---|\n"
    return BEGIN + head + "".join(rows()) + END


def written() -> tuple[str, str, str]:
    """The page before its table, the table, and what comes behind it."""
    before, begin, rest = PAGE.read_text("utf-8").partition(BEGIN)
    inner, end, after = rest.partition(END)
    return before, begin + inner + end, after


def test_the_table_is_what_is_counted() -> None:
    assert written()[1] == table()


def test_what_a_metric_says_is_a_sentence_on_one_line() -> None:
    for row in rows():
        assert row.count("|") == 6
        assert row.split("|")[4].strip().endswith(".")


if __name__ == "__main__":
    before, _, after = written()
    PAGE.write_text(before + table() + after, "utf-8")
