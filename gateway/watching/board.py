"""What one screen says of a gateway, as figures."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from gateway.watching.scrape import Scrape, total
from gateway.watching.window import Step, Window

NOBODY = "none"  # the label of requests that no expert answered
DEAREST = "dearest"  # the label of the comparison with the dearest expert
HOUR = 3600.0
FAILED = ("connect_error", "timeout", "rejected", "server_error", "stream_error", "truncated")  # outcomes of attempts


@dataclass(frozen=True)
class Row:
    """One expert in the window. Rates are by the second, times in seconds. `failing` is the share of the attempts at it that
    failed, though a fallback may have answered. None is what nothing was observed of."""

    expert: str
    up: int
    replicas: int
    asleep: int
    starting: int
    mismatch: bool
    rate: float
    in_flight: int
    queued: int
    failing: float | None
    p95: float | None
    ttft: float | None
    ttft_p95: float | None
    tokens: float
    usd_per_hour: float
    history: tuple[float, ...]

    @property
    def health(self) -> str:
        """down, partly, starting, asleep or up."""
        if self.up == self.replicas:
            return "up"
        if self.up:
            return "partly"
        if self.starting:
            return "starting"
        return "asleep" if self.asleep else "down"


@dataclass(frozen=True)
class Board:
    """The whole gateway. `errors` is the share of requests that ended with 5xx. `spent` and `saved` are USD since it started;
    `saved` is None without a baseline."""

    version: str
    config: str
    loaded_ago: float | None
    seconds: float
    rate: float
    in_flight: int
    errors: float | None
    p95: float | None
    overhead_p95: float | None
    tokens: float
    usd_per_hour: float
    spent: float
    baseline: str | None
    saved: float | None
    rows: tuple[Row, ...]

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        told = {key: value for key, value in vars(self).items() if key != "rows"}
        experts = [{**vars(row), "health": row.health, "history": list(row.history)} for row in self.rows]
        return {"gateway": told, "experts": experts}


def board(window: Window, now: float | None = None) -> Board:
    """`now` is in seconds of time.time. Raises ValueError before the first scrape."""
    scrape = window.newest
    if scrape is None:
        raise ValueError("nothing was scraped")
    loaded = scrape.gauge("moe_config_last_success_timestamp_seconds")
    baseline = next((b for b in scrape.values("moe_baseline_cost_usd_total", "baseline") if b != DEAREST), None)
    experts = [e for e in scrape.values("moe_requests_in_flight", "expert") if e != NOBODY]
    return Board(
        version=scrape.labels("moe_build_info").get("version", ""),
        config=scrape.labels("moe_config_info").get("hash", ""),
        loaded_ago=max(0.0, (time.time() if now is None else now) - loaded) if loaded else None,
        seconds=window.seconds,
        rate=window.rate("moe_requests_total"),
        in_flight=int(scrape.gauge("moe_requests_in_flight")),
        errors=_errors(window),
        p95=window.quantile(0.95, "moe_request_duration_seconds"),
        overhead_p95=window.quantile(0.95, "moe_gateway_overhead_seconds"),
        tokens=window.rate("moe_tokens_total", kind="output"),
        usd_per_hour=_usd_per_hour(window),
        spent=scrape.total("moe_cost_usd_total") + scrape.total("moe_capacity_cost_usd_total"),
        baseline=baseline,
        saved=_saved(scrape, baseline) if baseline is not None else None,
        rows=tuple(_row(window, scrape, expert) for expert in experts),
    )


def _row(window: Window, scrape: Scrape, expert: str) -> Row:
    of = {"expert": expert}
    return Row(
        expert=expert,
        up=int(scrape.gauge("moe_replica_up", **of)),
        replicas=sum(1 for labels in scrape.gauges.get("moe_replica_up", {}) if of.items() <= labels),
        asleep=int(scrape.gauge("moe_worker_state", state="asleep", **of)),
        starting=sum(int(scrape.gauge("moe_worker_state", state=state, **of)) for state in ("starting", "waking")),
        mismatch=scrape.gauge("moe_expert_mismatch", **of) > 0,
        rate=window.rate("moe_requests_total", **of),
        in_flight=int(scrape.gauge("moe_requests_in_flight", **of)),
        queued=int(scrape.gauge("moe_requests_queued", **of)),
        failing=_failing(window, expert),
        p95=window.quantile(0.95, "moe_request_duration_seconds", **of),
        ttft=window.quantile(0.5, "moe_time_to_first_token_seconds", **of),
        ttft_p95=window.quantile(0.95, "moe_time_to_first_token_seconds", **of),
        tokens=window.rate("moe_tokens_total", kind="output", **of),
        usd_per_hour=_usd_per_hour(window, **of),
        history=tuple(_step_rate(step, expert) for step in window.steps),
    )


def _step_rate(step: Step, expert: str) -> float:
    return total(step.grown, "moe_requests_total", expert=expert) / step.seconds


def _errors(window: Window) -> float | None:
    codes = window.newest.values("moe_requests_total", "code") if window.newest else []
    asked = window.increase("moe_requests_total")
    failed = sum(window.increase("moe_requests_total", code=code) for code in codes if code.startswith("5"))
    return failed / asked if asked else None


def _failing(window: Window, expert: str) -> float | None:
    tried = window.increase("moe_upstream_attempts_total", expert=expert)
    failed = sum(window.increase("moe_upstream_attempts_total", expert=expert, outcome=how) for how in FAILED)
    return failed / tried if tried else None


def _usd_per_hour(window: Window, **labels: str) -> float:
    names = ("moe_cost_usd_total", "moe_capacity_cost_usd_total")
    return HOUR * sum(window.rate(name, **labels) for name in names)


def _saved(scrape: Scrape, baseline: str) -> float:
    """Net of what capacity and routing cost; less than nothing where it is."""
    paid = scrape.total("moe_compared_cost_usd_total", baseline=baseline)
    beside = scrape.total("moe_capacity_cost_usd_total") + scrape.total("moe_routing_cost_usd_total")
    return scrape.total("moe_baseline_cost_usd_total", baseline=baseline) - paid - beside
