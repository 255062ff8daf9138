"""What costs and savings are made of, for panels of several dashboards. Everything in USD."""

from __future__ import annotations

from gateway.dashboards.promql import EXPERT, WHOLE, or_zero, series, total

SPENT = ("moe_cost_usd_total", "moe_capacity_cost_usd_total")  # by tokens, by GPU hours


def spent(where: str = EXPERT, by: str = "", over: str = WHOLE, of: str = "increase") -> str:
    """What experts cost, those paid by the token and those paid by the hour; `of` may be rate: USD by the second."""
    tokens, capacity = (f"{of}({series(metric, where, over)})" for metric in SPENT)
    return total(f"{tokens} or {capacity}", by)


def saved(over: str = WHOLE, of: str = "increase") -> str:
    """By baseline, what the requests compared with it would have cost there, less all that was paid to answer them here."""

    def grown(metric: str, by: str = "") -> str:
        return total(f"{of}({series(metric, '', over)})", by)

    there, here = (grown(f"moe_{word}_cost_usd_total", "baseline") for word in ("baseline", "compared"))
    besides = " + ".join(or_zero(grown(f"moe_{word}_cost_usd_total")) for word in ("capacity", "routing"))
    return f"{there} - {here} - on () group_left () ({besides})"
