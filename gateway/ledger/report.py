"""Figures of the ledger, group by group: as JSON, and as CSV that a spreadsheet takes as it is."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.ledger.asked import TIMES, Asked

# What adds up, as both tables of the ledger have it.
COUNTED = (
    "requests",
    "errors",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "priced",
    "cost_usd",
    "estimated_usd",
    "compared",
    "compared_usd",
    "baseline_usd",
    "energy_wh",
    "seconds",
)
FRACTIONS = frozenset(name for name in COUNTED if name.endswith(("_usd", "_wh", "seconds")))
# A spreadsheet would take what begins with one of these for a formula; the quote before it is itself quoted so.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


@dataclass(frozen=True)
class Figures:
    """Of one group: its names in the order that was asked, None where a request had none; `sums` by COUNTED; the seconds within
    which half, and 95 of 100, of its requests ended, None where their rows are gone."""

    names: tuple[str | None, ...]
    sums: Mapping[str, float]
    p50: float | None = None
    p95: float | None = None

    @property
    def tokens(self) -> float:
        return self.sums["input_tokens"] + self.sums["cached_input_tokens"] + self.sums["output_tokens"]

    @property
    def paid_usd(self) -> float:
        """By token prices, and estimated where an expert is paid by the hour."""
        return self.sums["cost_usd"] + self.sums["estimated_usd"]

    @property
    def savings_usd(self) -> float | None:
        """Of the requests that were compared; None where none was. May be negative."""
        return self.sums["baseline_usd"] - self.sums["compared_usd"] if self.sums["compared"] else None

    def described(self) -> dict[str, Any]:
        each = max(1, self.sums["requests"])
        saved = self.savings_usd
        return {
            **{name: _rounded(self.sums[name]) for name in COUNTED if name != "seconds"},
            "savings_usd": None if saved is None else _rounded(saved),
            "tokens_per_request": round(self.tokens / each, 1),
            "seconds_mean": round(self.sums["seconds"] / each, 6),
            "seconds_p50": self.p50,
            "seconds_p95": self.p95,
        }


@dataclass(frozen=True)
class Report:
    """`rows` in the order to show them, and all of them together."""

    asked: Asked
    rows: Sequence[Figures]
    total: Figures

    def described(self) -> dict[str, Any]:
        by = self.asked.by
        return {
            "object": "usage",
            "by": list(by),
            "since": self.asked.since.astimezone(self.asked.zone).isoformat(),
            "until": self.asked.until.astimezone(self.asked.zone).isoformat() if self.asked.until else None,
            "tz": str(self.asked.zone),
            "rows": [{"group": dict(zip(by, row.names, strict=True)), **row.described()} for row in self.rows],
            "total": self.total.described(),
        }

    def csv(self) -> str:
        """A line of names, and one for each group; none for the total, which would be counted twice where they are added up."""
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")  # a name may hold a return
        writer.writerow([*self.asked.by, *self.total.described()])
        for row in self.rows:
            figures = ("" if value is None else value for value in row.described().values())
            writer.writerow([*map(_cell, row.names), *figures])
        return text.getvalue()


def reported(asked: Asked, rows: Sequence[Figures], p50: float | None, p95: float | None) -> Report:
    """In order: of time where it is asked for, else what costs most first. The last two are those of all requests together."""
    sums = {name: math.fsum(row.sums[name] for row in rows) for name in COUNTED}
    whole = {name: value if name in FRACTIONS else int(value) for name, value in sums.items()}
    timed = any(name in TIMES for name in asked.by)
    key = _by_name if timed else lambda row: (-row.paid_usd, -row.sums["requests"], _by_name(row))
    return Report(asked, sorted(rows, key=key), Figures((), whole, p50, p95))


def _rounded(value: float) -> float:
    """Without what floating point adds to a sum; far finer than a micro-dollar."""
    return round(value, 10)


def _by_name(row: Figures) -> Any:
    return [(name is None, name or "") for name in row.names]


def _cell(name: str | None) -> str:
    if name is None:
        return ""
    return f"'{name}" if name.startswith(FORMULA) else name
