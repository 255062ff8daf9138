"""What each panel has to show: worked out here from what was counted before and after the traffic, not by Prometheus.

What was counted is itself compared with what was sent (test_queries.py). `Truth.by` are the labels of a panel's series. Where a
panel has `zero`, 0 is what this traffic makes of it, and `zero` says why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tests.dashboards.history import WEEK, month_left, month_start
from tests.dashboards.rig import Rig

Values = dict[tuple[str, ...], float]


@dataclass(frozen=True)
class View:
    """What is looked at: all of the traffic, or what of it is chosen."""

    rig: Rig
    chosen: Mapping[str, str] = field(default_factory=dict)  # labels, and the expressions that match what is chosen
    over: float | None = None  # seconds that are looked back on; without it, the traffic

    def only(self, labels: Mapping[str, str]) -> dict[str, str]:
        both = {
            label: f"(?=(?:{self.chosen[label]})$)(?:{value})"
            for label, value in labels.items()
            if label in self.chosen
        }
        return {**self.chosen, **labels, **both}

    def grown(self, name: str, *by: str, **only: str) -> Values:
        return self.rig.grown(name, *by, over=self.over, **self.only(only))

    def most(self, name: str, *by: str, **only: str) -> Values:
        return self.rig.most(name, *by, **self.only(only))

    def now(self, name: str, *by: str, **only: str) -> Values:
        return self.rig.now(name, *by, **self.only(only))


Figure = Callable[[View], Values]


@dataclass(frozen=True)
class Truth:
    """`close` is by which part of it the panel's value may differ."""

    figure: Figure
    by: tuple[str, ...] = ()
    close: float = 1e-6
    zero: str = ""


def growth(name: str, *by: str, **only: str) -> Truth:
    """How much a counter grew."""
    return Truth(lambda view: view.grown(name, *by, **only), by)


def pace(name: str, *by: str, **only: str) -> Truth:
    """The same by the second."""
    return each(growth(name, *by, **only), lambda value, view: value / view.rig.seconds)


def gauge(name: str, *by: str, **only: str) -> Truth:
    """The sum of what is so now."""
    return Truth(lambda view: view.now(name, *by, **only), by)


def least(name: str, **only: str) -> Truth:
    """The lowest of all gateways."""
    return Truth(lambda view: view.rig.least(name, **view.only(only)))


def each(truth: Truth, change: Callable[[float, View], float]) -> Truth:
    return replace(truth, figure=lambda view: {key: change(value, view) for key, value in truth.figure(view).items()})


def plus(*truths: Truth, minus: tuple[Truth, ...] = ()) -> Truth:
    """The sum of some less others, each 0 where it has nothing; one without labels counts for every series of the first."""

    def figure(view: View) -> Values:
        added, taken = [t.figure(view) for t in truths], [t.figure(view) for t in minus]
        keys = set().union(*added) if all(t.by == truths[0].by for t in truths) else set(added[0])

        def of(values: Values, key: tuple[str, ...]) -> float:
            return values.get(key, values.get((), 0.0))

        return {key: sum(of(v, key) for v in added) - sum(of(v, key) for v in taken) for key in keys}

    return Truth(figure, truths[0].by, max(t.close for t in (*truths, *minus)))


def part(of: Truth, whole: Truth) -> Truth:
    """One figure divided by another, which has the same labels or none; 0 where there is none of it, nothing where there is no
    whole."""

    def figure(view: View) -> Values:
        parts, wholes = of.figure(view), whole.figure(view)
        keys = wholes if of.by == whole.by else parts
        return {key: parts.get(key, 0.0) / all_ for key in keys if (all_ := wholes.get(key, wholes.get((), 0.0))) > 0}

    return Truth(figure, of.by, max(of.close, whole.close))


def quantile(share: float, histogram: str, *by: str, **only: str) -> Truth:
    """By Prometheus' rule: straight through the bucket in which it lies, from 0 in the first, the last bound beyond all."""

    def figure(view: View) -> Values:
        counts = view.grown(f"{histogram}_bucket", *by, "le", **only)
        found: Values = {}
        for key in {key[:-1] for key in counts}:
            steps = sorted((float(k[-1]), count) for k, count in counts.items() if k[:-1] == key)
            if steps[-1][1] > 0:
                found[key] = _quantile(share, steps)
        return found

    return Truth(figure, by, close=1e-4)


def _quantile(share: float, steps: list[tuple[float, float]]) -> float:
    """`steps` are (upper bound, how many are at most that)."""
    rank = share * steps[-1][1]
    below, start = 0.0, 0.0
    for bound, count in steps:
        if count >= rank:
            return start if math.isinf(bound) else start + (bound - start) * (rank - below) / (count - below)
        below, start = count, bound
    raise AssertionError(steps)


def highest(name: str, inner: tuple[str, ...], *by: str, count: bool = False, **only: str) -> Truth:
    """What several gateways say of the same `inner`, the most of it; summed, or how many there are, by the others."""

    def figure(view: View) -> Values:
        found: Values = {}
        for key, value in view.most(name, *inner, **only).items():
            outer = tuple(key[inner.index(label)] for label in by)
            found[outer] = found.get(outer, 0.0) + (1.0 if count else value)
        return found

    return Truth(figure, by)


HOUR = 3600.0
REQUESTS, TOKENS, DECISIONS, ATTEMPTS = (
    "moe_requests_total", "moe_tokens_total", "moe_routing_decisions_total", "moe_upstream_attempts_total",
)  # fmt: skip
ANSWERS = "(?!route|messages.count_tokens).*"  # endpoints: what decides or counts alone is no answer
DURATION, FIRST_TOKEN = "moe_request_duration_seconds", "moe_time_to_first_token_seconds"
OVERHEAD, DECIDING, CONFIDENCE, LAG = (
    "moe_gateway_overhead_seconds", "moe_routing_duration_seconds", "moe_routing_confidence", "moe_event_loop_lag_seconds",
)  # fmt: skip
FAULTS = "(?!ok|client_error|cancelled).*"
UNSURE = "low_confidence|out_of_distribution|unreadable_language"
NO_LEDGER_TROUBLE = (
    "the ledger's database is well here; what it does where it is not is tests/integration/test_ledger.py's"
)


def spent(*by: str, **only: str) -> Truth:
    """What answers cost by tokens, and the hours of GPUs."""
    return joined(growth("moe_cost_usd_total", *by, **only), growth("moe_capacity_cost_usd_total", *by, **only))


def joined(*truths: Truth) -> Truth:
    """The sum of them, over every series that one of them has."""

    def figure(view: View) -> Values:
        found: Values = {}
        for truth in truths:
            for key, value in truth.figure(view).items():
                found[key] = found.get(key, 0.0) + value
        return found

    return Truth(figure, truths[0].by, max(t.close for t in truths))


def saved() -> Truth:
    """By baseline, net of GPUs by the hour and of routing."""
    there, here = (growth(f"moe_{word}_cost_usd_total", "baseline") for word in ("baseline", "compared"))
    return plus(there, minus=(here, growth("moe_capacity_cost_usd_total"), growth("moe_routing_cost_usd_total")))


def hourly(truth: Truth) -> Truth:
    return each(truth, lambda value, view: value * HOUR / view.rig.seconds)


def of(label: str, truth: Truth) -> Truth:
    """Of series that name the expert in another label."""

    def renamed(view: View) -> View:
        return replace(view, chosen={label if name == "expert" else name: value for name, value in view.chosen.items()})

    return replace(truth, figure=lambda view: truth.figure(renamed(view)))


def down() -> Truth:
    """How many experts have no replica that may be asked."""

    def figure(view: View) -> Values:
        asleep = view.most("moe_worker_state", "expert", state="asleep|waking|stopping")
        up = view.most("moe_replica_up", "expert")
        return {(): float(sum(up[expert] == 0 and not asleep.get(expert) for expert in up))}

    return Truth(figure)


def less_sure(bound: str) -> Truth:
    return part(growth(f"{CONFIDENCE}_bucket", le=re.escape(bound)), growth(f"{CONFIDENCE}_count"))


def three(histogram: str, **only: str) -> list[Truth]:
    return [quantile(share, histogram, **only) for share in (0.5, 0.95, 0.99)]


OVERVIEW = {
    "Requests": [pace(REQUESTS)],
    "Failed": [part(growth(REQUESTS, code="5.."), growth(REQUESTS))],
    "Answered within (p95)": [quantile(0.95, DURATION, endpoint=ANSWERS)],
    "First token within (p95)": [quantile(0.95, FIRST_TOKEN)],
    "Experts down": [down()],
    "Alerts firing": [Truth(lambda view: {(): float(view.rig.firing)})],
    "Spent today": [spent()],
    "Saved today, net": [saved()],
    "Traffic by expert": [pace(REQUESTS, "expert", endpoint=ANSWERS)],
    "Errors by status": [growth(REQUESTS, "code", code="[45]..")],
    "Time to answer": three(DURATION, endpoint=ANSWERS),
    "Time to first token": three(FIRST_TOKEN),
    "Streams that broke": [growth("moe_stream_errors_total", "expert", "kind")],
    "Clients that left": [growth("moe_client_disconnects_total", "phase")],
    "Experts in this time": [
        growth(REQUESTS, "expert", endpoint=ANSWERS),
        part(growth(REQUESTS, "expert", code="5..", endpoint=ANSWERS), growth(REQUESTS, "expert", endpoint=ANSWERS)),
        quantile(0.95, DURATION, "expert", endpoint=ANSWERS),
        quantile(0.95, FIRST_TOKEN, "expert"),
        pace(TOKENS, "expert", kind="output"),
        spent("expert"),
        gauge("moe_requests_in_flight", "expert"),
    ],
    "Spending by expert": [hourly(spent("expert"))],
    "Saving by baseline, net": [hourly(saved())],
}

REPLICA = ("expert", "replica")
EXPERTS = {
    "Experts": [
        highest("moe_replica_up", REPLICA, "expert"),
        highest("moe_replica_up", REPLICA, "expert", count=True),
        gauge("moe_requests_in_flight", "expert"),
        gauge("moe_requests_queued", "expert"),
        pace(REQUESTS, "expert", endpoint=ANSWERS),
        quantile(0.95, FIRST_TOKEN, "expert"),
        pace(TOKENS, "expert", kind="output"),
        growth("moe_replica_ejections_total", "expert"),
        replace(of("from_expert", growth("moe_fallbacks_total", "from_expert")), by=("expert",)),
        gauge("vllm:kv_cache_usage_perc", "expert"),
        replace(
            highest("moe_expert_mismatch", ("expert",), "expert"),
            zero="every server has the model that experts.yaml names",
        ),
    ],
    "Replicas": [
        gauge("moe_replica_state", *REPLICA, "state"),
        growth(ATTEMPTS, *REPLICA),
        growth(ATTEMPTS, *REPLICA, outcome=FAULTS),
        growth("moe_replica_ejections_total", *REPLICA),
    ],
    "$expert: replicas up": [highest("moe_replica_up", REPLICA, *REPLICA)],
    "$expert: tries by replica": [pace(ATTEMPTS, "replica", "outcome")],
    "$expert: load": [gauge("moe_requests_in_flight"), gauge("moe_requests_queued")],
    "$expert: wait in the queue": [quantile(share, "moe_queue_seconds") for share in (0.5, 0.95)],
    "$expert: tokens": [pace(TOKENS, "kind")],
    "$expert: pace of streams": [
        quantile(0.5, FIRST_TOKEN),
        quantile(0.95, FIRST_TOKEN),
        quantile(0.95, "moe_time_per_output_token_seconds"),
    ],
    "$expert: key-value cache of its workers": [
        gauge("vllm:kv_cache_usage_perc", "instance"),
        part(growth("vllm:prefix_cache_hits_total"), growth("vllm:prefix_cache_queries_total")),
    ],
    "$expert: inside its workers": [
        gauge("vllm:num_requests_running", "instance"),
        gauge("vllm:num_requests_waiting", "instance"),
    ],
    "$expert: fallbacks": [of("from_expert", growth("moe_fallbacks_total", "to_expert", "reason"))],
    "$expert: taken out and refused": [
        growth("moe_replica_ejections_total", "replica", "cause"),
        growth("moe_queue_refused_total", "reason"),
    ],
    "$expert: asleep": [highest("moe_worker_state", ("replica",), state="asleep")],
    "$expert: worker-hours asleep": [each(growth("moe_worker_asleep_seconds_total"), lambda value, view: value / HOUR)],
    "$expert: waking takes (p95)": [quantile(0.95, "moe_worker_wake_seconds")],
    "$expert: restarts of workers": [growth("moe_worker_restarts_total")],
}


def mix(weeks_ago: bool = False) -> Truth:
    """The share of each domain among what was classified in an hour."""
    then = Truth(lambda view: {(domain,): share for domain, share in view.rig.history.mix.items()}, ("domain",))
    made = growth(DECISIONS, "domain", domain="(?!none).*")
    now = replace(made, figure=lambda view: made.figure(replace(view, over=HOUR)))
    return then if weeks_ago else replace(part(now, total(now)), close=1e-4)


def total(truth: Truth) -> Truth:
    return Truth(lambda view: {(): sum(truth.figure(view).values())}, (), truth.close)


def moved() -> Truth:
    now, then = mix(), mix(weeks_ago=True)

    def figure(view: View) -> Values:
        here, there = now.figure(view), then.figure(view)
        return {key: here.get(key, 0.0) - there.get(key, 0.0) for key in here.keys() | there.keys()}

    return Truth(figure, ("domain",), now.close)


def distance() -> Truth:
    return Truth(lambda view: {(): sum(abs(part) for part in moved().figure(view).values()) / 2}, (), 1e-4)


ROUTING = {
    "Decisions": [growth(DECISIONS)],
    "Out of distribution": [part(growth(DECISIONS, reason="out_of_distribution"), growth(DECISIONS))],
    "Unsure": [part(growth(DECISIONS, reason=UNSURE), growth(DECISIONS))],
    "Bounce rate": [part(growth("moe_conversation_switches_total"), growth("moe_conversation_turns_total"))],
    "Drift": [distance()],
    "Deciding takes (p95)": [quantile(0.95, DECIDING)],
    "Decisions by domain": [pace(DECISIONS, "domain")],
    "Decisions by reason": [pace(DECISIONS, "reason")],
    "Decisions by expert": [pace(DECISIONS, "expert")],
    "Share of each stage": [part(growth(DECISIONS, "stage"), growth(DECISIONS))],
    "Confidence over time": [growth(f"{CONFIDENCE}_bucket", "le")],
    "Confidence by domain": [quantile(0.1, CONFIDENCE, "domain")],
    "Reasons in this time": [growth(DECISIONS, "reason")],
    "Less sure than": [less_sure(bound) for bound in ("0.5", "0.7", "0.9")],
    "Unsure over time": [part(growth(DECISIONS, "reason", reason=UNSURE), growth(DECISIONS))],
    "Drift over time": [distance()],
    "Mix of domains": [mix(), mix(weeks_ago=True), moved()],
    "Switches of expert": [growth("moe_conversation_switches_total", "cause")],
    "Time to decide, by stage": [quantile(0.95, DECIDING, "stage"), quantile(0.5, DECIDING, "stage")],
}


def forecast() -> Truth:
    """Spent since the month began, and the pace of seven days for the rest of it: of the history, and of the traffic itself."""

    def figure(view: View) -> Values:
        at, history = view.rig.after, view.rig.history
        [here] = spent().figure(view).values()
        week = here + history.spent(at - WEEK)
        return {(): here + history.spent(month_start(at)) + week / WEEK * month_left(at)}

    return Truth(figure, (), 0.02)


ANSWERED = growth(REQUESTS, expert="(?!none).*", code="2..", endpoint=ANSWERS)
COUNTED = "input|cached_input|output"
IDLE, CAPACITY, ENERGY = "moe_capacity_idle_cost_usd_total", "moe_capacity_cost_usd_total", "moe_energy_wh_total"
COST = {
    "Spent in this time": [spent()],
    "Spent today": [spent()],
    "Forecast for this month": [forecast()],
    "Per answered request": [part(spent(), ANSWERED)],
    "Saved, net": [saved()],
    "Without a price": [growth("moe_unpriced_requests_total")],
    "Pace by expert": [hourly(spent("expert"))],
    "Pace by domain": [hourly(growth("moe_cost_usd_total", "domain"))],
    "By expert": [spent("expert")],
    "By domain": [growth("moe_cost_usd_total", "domain")],
    "By key": [growth("moe_key_cost_usd_total", "key")],
    "Pace by key": [hourly(growth("moe_key_cost_usd_total", "key"))],
    "Cost of a million tokens": [
        each(part(spent("expert"), growth(TOKENS, "expert", kind=COUNTED)), lambda value, view: value * 1e6)
    ],
    "What it would have cost there": [growth("moe_baseline_cost_usd_total", "baseline")],
    "What it cost here": [
        growth("moe_compared_cost_usd_total", "baseline"),
        growth(CAPACITY),
        growth("moe_routing_cost_usd_total", "part"),
    ],
    "Share compared": [
        part(growth("moe_compared_requests_total", "baseline"), growth("moe_comparable_requests_total"))
    ],
    "Saving over time, net": [hourly(saved())],
    "Baseline and here": [
        hourly(growth("moe_baseline_cost_usd_total", "baseline")),
        hourly(plus(spent(), growth("moe_routing_cost_usd_total"))),
    ],
    "GPUs by the hour, busy and idle": [
        hourly(plus(growth(CAPACITY, "expert"), minus=(growth(IDLE, "expert"),))),
        hourly(growth(IDLE, "expert")),
    ],
    "Idle GPUs cost": [growth(IDLE)],
    "Idle share": [part(growth(IDLE), growth(CAPACITY))],
    "Energy": [growth(ENERGY)],
    "Emissions": [growth("moe_emissions_gco2e_total")],
    "Power": [hourly(growth(ENERGY, "expert"))],
    "Energy of a thousand output tokens": [
        each(part(growth(ENERGY, "expert"), growth(TOKENS, "expert", kind="output")), lambda value, view: value * 1000)
    ],
}

DROPS = (
    "moe_ledger_dropped_total",
    "moe_queue_refused_total",
    "moe_rate_limited_total",
    "moe_connections_refused_total",
)
GATEWAY = {
    "Gateways up": [gauge("moe_build_info")],
    "Overhead (p95)": [quantile(0.95, OVERHEAD)],
    "Event loop late (p99)": [quantile(0.99, LAG)],
    "Memory": [gauge("moe_process_resident_memory_bytes")],
    "Open connections": [gauge("moe_open_connections")],
    "Dropped or refused": [joined(*(growth(name) for name in DROPS))],
    "Overhead": three(OVERHEAD),
    "Overhead by endpoint (p95)": [quantile(0.95, OVERHEAD, "endpoint")],
    "Event loop": [quantile(share, LAG) for share in (0.5, 0.99)],
    "Requests by endpoint": [pace(REQUESTS, "endpoint")],
    "Processor": [pace("moe_process_cpu_seconds_total", "instance")],
    "Resident memory": [gauge("moe_process_resident_memory_bytes", "instance")],
    "Connections and requests": [gauge("moe_open_connections"), gauge("moe_requests_in_flight")],
    "Requests refused": [
        growth("moe_queue_refused_total", "expert", "reason"),
        growth("moe_rate_limited_total", "kind"),
    ],
    "Connections refused": [growth("moe_connections_refused_total", "reason")],
    "Ledger behind": [replace(gauge("moe_ledger_lag_seconds", "instance"), zero=NO_LEDGER_TROUBLE)],
    "Ledger queue": [replace(gauge("moe_ledger_queued", "instance"), zero=NO_LEDGER_TROUBLE)],
    "Ledger rows": [
        pace("moe_ledger_written_total"),
        replace(pace("moe_ledger_dropped_total"), zero=NO_LEDGER_TROUBLE),
    ],
    "Version": [gauge("moe_build_info", "version")],
    "experts.yaml": [gauge("moe_config_info", "hash")],
    "Router": [gauge("moe_router_info", "artifact", "encoder")],
    "Loaded": [each(least("moe_config_last_success_timestamp_seconds"), lambda value, view: value * 1000)],
    "Last reload": [replace(least("moe_config_last_reload_successful"), zero="the last file had an error in it")],
    "Reloads": [growth("moe_config_reloads_total", "outcome")],
}

TRUTHS: dict[str, dict[str, list[Truth]]] = {
    "overview": OVERVIEW, "experts": EXPERTS, "routing": ROUTING, "cost": COST, "gateway": GATEWAY,
}  # fmt: skip
