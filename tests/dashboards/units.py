"""Figures as Grafana writes them, by its names of units."""

from __future__ import annotations

import math
from collections.abc import Sequence

Step = tuple[float, str]
SECONDS: Sequence[Step] = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))
BYTES: Sequence[Step] = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
LARGE: Sequence[Step] = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
SMALL: Sequence[Step] = (*LARGE[:-1], (1, ""), (1e-3, "m"), (1e-6, "µ"))
SUFFIXES = {"watt": "W", "watth": "Wh", "massg": "g", "reqps": "req/s", "h": "h"}
DIGITS = 3


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """`value` in `unit`; a dash for what is no number."""
    if not math.isfinite(value):
        return "–"
    if unit == "currencyUSD":
        return _usd(value, decimals)
    if unit == "percentunit":
        return f"{_digits(value * 100)} %"
    if unit == "locale":
        return f"{value:,.0f}"
    if unit == "s":
        return "0 s" if abs(value) < 1e-9 else _scaled(value, SECONDS)
    if unit == "bytes":
        return _scaled(value, BYTES)
    if unit == "bool_yes_no":
        return "Yes" if value else "No"
    if unit.startswith("suffix:"):
        return f"{_digits(value)} {unit.removeprefix('suffix:').strip()}"
    if unit in ("watt", "watth", "massg"):
        return _scaled(value, [(factor, prefix + SUFFIXES[unit]) for factor, prefix in SMALL])
    if unit in SUFFIXES:
        return f"{_digits(value)} {SUFFIXES[unit]}"
    return _scaled(value, LARGE) if unit == "short" else _digits(value)


def _usd(value: float, decimals: int | None) -> str:
    sign, size = "-" if value < 0 else "", abs(value)
    if decimals is None:
        decimals = 2 if size >= 1 or size == 0 else min(6, 1 - math.floor(math.log10(size)) + 1)
    return f"{sign}${size:,.{decimals}f}"


def _scaled(value: float, steps: Sequence[Step]) -> str:
    size = abs(value)
    factor, name = next((step for step in steps if size >= step[0]), steps[-1])
    return f"{_digits(value / factor)} {name}".rstrip()


def _digits(value: float) -> str:
    """Three of them, without zeros behind a point."""
    if value == 0 or abs(value) < 1e-9:
        return "0"
    whole = max(0, math.floor(math.log10(abs(value))) + 1)
    text = f"{value:.{max(0, DIGITS - max(whole, 1)) if whole else min(6, DIGITS - 1 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
