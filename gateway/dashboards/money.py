"""What costs and savings are made of, for panels of several dashboards. Everything in USD."""

from __future__ import annotations

from typing import Literal

from gateway.dashboards.promql import EXPERT, WHOLE, or_zero, series, total

Of = Literal["increase", "rate"]
PAID, IDLE = "moe_capacity_cost_usd_total", "moe_capacity_idle_cost_usd_total"


def hours(metric: str, where: str = EXPERT, over: str = WHOLE, of: Of = "increase") -> str:
    """By expert, what GPUs paid by the hour cost. Every gateway counts all the hours of the servers that it asks, so that several
    say the same: the mean of as many as there were. Gateways come and go within a range, but not at one moment."""
    counted = f"{of}({series(metric, where, over)})"
    if of == "rate":
        return total(counted, "expert", of="max")
    now = f"count by (expert) ({series(metric, where)})"  # where the steps of that mean are longer than any gateway has lived
    gateways = f"(avg_over_time({now}[{over}:$__interval]) or {now})"
    return f"{total(counted, 'expert')} / on (expert) {gateways}"


def spent(where: str = EXPERT, by: str = "", over: str = WHOLE, of: Of = "increase") -> str:
    """What experts cost, those paid by the token and those paid by the hour; by the second where it is a rate."""
    tokens = f"{of}({series('moe_cost_usd_total', where, over)})"
    return total(f"{tokens} or {hours(PAID, where, over, of)}", by)


def saved(over: str = WHOLE, of: Of = "increase") -> str:
    """By baseline, what the requests compared with it would have cost there, less all that was paid to answer them here."""
    there, here = (_grown(f"moe_{word}_cost_usd_total", "baseline", over, of) for word in ("baseline", "compared"))
    gpus, routing = total(hours(PAID, "", over, of)), _grown("moe_routing_cost_usd_total", "", over, of)
    return f"{there} - {here} - on () group_left () ({or_zero(gpus)} + {or_zero(routing)})"


def _grown(metric: str, by: str, over: str, of: Of) -> str:
    return total(f"{of}({series(metric, '', over)})", by)
