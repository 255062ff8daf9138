"""What the figures come to that take more than a rate, by Prometheus itself: promtool plays series whose answer is known."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.dashboards.collection import all_dashboards, filled, queries
from gateway.dashboards.promql import events, fraction, quantile, share, share_by
from tests.deploy.files import tool

QUERIES = {(q.dashboard, q.panel, q.ref): q.expr for n, d in all_dashboards().items() for q in queries(d, n)}
TOKENS, HOURLY = 'moe_cost_usd_total{expert="a", domain="x"}', 'moe_capacity_cost_usd_total{expert="b", instance="x"}'
DAY = 24 * 60  # minutes
UP = {"up": "1+0x100"}

Series = Mapping[str, str]
Values = Mapping[str, float]  # by the labels of a series, as {a="b"}


def check(
    folder: Path,
    series: Series,
    expected: Mapping[str, Values],
    after: int = 60,
    over: str = "30m",
    step: int = 1,
    finest: str = "",
) -> None:
    """That each expression says this `after` minutes; samples come every `step` minutes, and so do points unless `finest` says
    else. Compared in whole thousandths: promtool compares to the last bit."""
    variables = dict.fromkeys(("expert", "domain", "instance"), ".*")
    variables |= {"__range": over, "__rate_interval": over, "__interval": finest or f"{step}m"}
    asked = [
        {
            "expr": f"round(1000 * ({filled(expression, variables)}))",
            "eval_time": f"{after}m",
            "exp_samples": [{"labels": labels, "value": round(1000 * value)} for labels, value in values.items()],
        }
        for expression, values in expected.items()
    ]
    played = [{"series": name, "values": values} for name, values in series.items()]
    told = folder / "told.json"
    test = {"interval": f"{step}m", "input_series": played, "promql_expr_test": asked}
    told.write_text(json.dumps({"evaluation_interval": f"{step}m", "tests": [test]}), "utf-8")
    command = [tool("promtool"), "test", "rules", str(told)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ({"m": "_x40 3+0x40", **UP}, {"{}": 3}),  # its first event is one
        ({'m{e="a"}': "_x40 3+1x40", 'm{e="b"}': "5+0x100", **UP}, {"{}": 23}),
        ({"m": "7+1x100", **UP}, {"{}": 30}),  # what was before does not count
        ({"m": "7+0x20 _x15 7+0x60", **UP}, {"{}": 0}),  # a pause in between is no beginning
        ({"m": "_x40 3+0x40", "up": "_x40 1+0x40"}, {"{}": 0}),  # of what Prometheus did not see nothing can be said
        ({"m": "3+0x10 _x90", **UP}, {}),
    ],
)  # fmt: skip
def test_rare_events_count_from_the_first(tmp_path: Path, series: Series, expected: Values) -> None:
    check(tmp_path, series, {events("m"): expected})


def test_events_are_told_apart_by_labels(tmp_path: Path) -> None:
    series = {'m{k="a", i="1"}': "_x40 3+0x40", 'm{k="a", i="2"}': "_x50 1+0x40", 'm{k="b", i="1"}': "0+1x100", **UP}
    check(tmp_path, series, {events("m", by="k"): {'{k="a"}': 4, '{k="b"}': 30}})


def test_a_share_is_zero_of_something_and_none_of_nothing(tmp_path: Path) -> None:
    part, whole = 'sum(m{k="a"})', "sum(m)"
    of = share(part, whole)
    check(tmp_path, {'m{k="a"}': "1+0x100", 'm{k="b"}': "3+0x100"}, {of: {"{}": 0.25}})
    check(tmp_path, {'m{k="b"}': "3+0x100"}, {of: {"{}": 0}})
    check(tmp_path, {'m{k="b"}': "0+0x100"}, {of: {}})


def test_shares_by_a_label_are_zero_where_there_is_no_part(tmp_path: Path) -> None:
    series = {'p{e="a"}': "1+0x100", 'w{e="a"}': "4+0x100", 'w{e="b"}': "4+0x100", 'w{e="c"}': "0+0x100"}
    expected = {'{e="a"}': 0.25, '{e="b"}': 0}
    by_label = {share_by("e", "sum by (e) (p)", "sum by (e) (w)"): expected}
    check(tmp_path, series, by_label | {fraction("sum by (e) (p)", "sum(w)"): {'{e="a"}': 0.125}})


def test_a_quantile_of_nothing_is_nothing(tmp_path: Path) -> None:
    quiet = {'h_bucket{le="1"}': "5+0x100", 'h_bucket{le="+Inf"}': "5+0x100"}
    check(tmp_path, quiet, {quantile(0.5, "h"): {}})
    busy = {'h_bucket{le="1"}': "0+1x100", 'h_bucket{le="+Inf"}': "0+1x100"}
    check(tmp_path, busy, {quantile(0.5, "h"): {"{}": 0.5}})


def test_savings_are_net_of_gpus_and_routing_and_may_be_negative(tmp_path: Path) -> None:
    saved = QUERIES["cost", "Saved, net", "A"]
    answers = {
        'moe_baseline_cost_usd_total{baseline="dear"}': "0+2x100", 'moe_compared_cost_usd_total{baseline="dear"}': "0+0.5x100",
        'moe_baseline_cost_usd_total{baseline="cheap"}': "0+1x100", 'moe_compared_cost_usd_total{baseline="cheap"}': "0+0.5x100",
    }  # fmt: skip
    besides = {
        HOURLY: "0+0.75x100",
        'moe_routing_cost_usd_total{part="classifier"}': "0+0.125x100",
        'moe_routing_cost_usd_total{part="lost_cache"}': "0+0.125x100",
    }
    check(tmp_path, answers, {saved: {'{baseline="dear"}': 45, '{baseline="cheap"}': 15}})
    check(tmp_path, answers | besides, {saved: {'{baseline="dear"}': 15, '{baseline="cheap"}': -15}})
    assert QUERIES["overview", "Saved today, net", "A"] == saved


def test_spending_is_that_of_tokens_and_of_gpus(tmp_path: Path) -> None:
    both = QUERIES["cost", "Spent in this time", "A"]
    split = {QUERIES["cost", "By expert", "A"]: {'{expert="a"}': 30, '{expert="b"}': 60}}
    check(tmp_path, {TOKENS: "0+1x100", HOURLY: "0+2x100"}, {both: {"{}": 90}} | split)
    check(tmp_path, {HOURLY: "0+2x100"}, {both: {"{}": 60}})
    check(tmp_path, {}, {both: {"{}": 0}})


def test_hours_of_a_server_count_once_however_many_gateways_ask_it(tmp_path: Path) -> None:
    """All of the time two of them; then one that another takes the place of in the middle; then one that began just now."""
    counted, pace = QUERIES["cost", "Spent in this time", "A"], QUERIES["cost", "Pace by expert", "A"]
    other = HOURLY.replace('"x"', '"y"')
    expected: dict[str, Values] = {counted: {"{}": 60}, pace: {'{expert="b"}': 120}}
    check(tmp_path, {HOURLY: "0+2x100", other: "0+2x100", "moe_build_info": "1+0x100"}, expected)
    # Between the scrapes of the two half a minute is lost.
    check(tmp_path, {HOURLY: "0+2x44 stale", other: "_x45 0+2x60"}, {counted: {"{}": 59}})
    check(tmp_path, {HOURLY: "_x50 0+2x20"}, {counted: {"{}": 18}}, after=59, over="40m", finest="30m")


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        # Time begins on the first of January. 3 USD by the hour: 10 days are spent, 21 are left.
        ({TOKENS: "0+0.5x2000"}, 31 * 72),
        ({TOKENS: "0+0.25x2000", HOURLY: "0+0.25x2000"}, 31 * 72),
        # A day ago the gateway did not exist: a seventh of the pace would be said without that.
        ({TOKENS: "_x1296 0+0.5x200"}, 22 * 72),
        # Dearer since five days: the pace is that of the last seven.
        ({TOKENS: "0+0.5x720 361+1x1000"}, 5 * 72 + 5 * 144 + 21 * (2 * 72 + 5 * 144) / 7),
    ],
)
def test_the_forecast_is_what_is_spent_and_the_weeks_pace_for_the_rest(
    tmp_path: Path, series: Series, expected: float
) -> None:
    forecast = QUERIES["cost", "Forecast for this month", "A"]
    check(tmp_path, series, {forecast: {"{}": expected}}, after=10 * DAY, over="864000s", step=10)


@pytest.mark.parametrize(
    ("before", "since", "expected"),
    [
        ({"code": 2, "math": 2}, {"code": 3, "math": 3}, 0),  # more of the same
        ({"code": 2, "math": 2}, {"code": 3, "math": 1}, 0.25),
        ({"code": 2}, {"math": 2}, 1),  # nothing in common
        ({"code": 3, "none": 9}, {"code": 3, "none": 1}, 0),  # a pinned model says nothing of the prompt
    ],
)
def test_drift_is_the_distance_of_two_mixes(
    tmp_path: Path, before: dict[str, int], since: dict[str, int], expected: float
) -> None:
    series = {}
    for domain in before | since:
        first, then = before.get(domain, 0), since.get(domain, 0)
        before_it = f"0+{first}x900" if first else "_x901"
        week = (
            f"{before_it} {first * 900 + then}+{then}x300"  # a step each ten minutes, faster or slower after 6.25 days
        )
        series[f'moe_routing_decisions_total{{domain="{domain}"}}'] = week
    moved = {
        f'{{domain="{domain}"}}': since.get(domain, 0) / total(since) - before.get(domain, 0) / total(before)
        for domain in (before | since).keys() - {"none"}
    }
    said: dict[str, Values] = {
        QUERIES["routing", panel, "A"]: {"{}": expected} for panel in ("Drift", "Drift over time")
    }
    check(tmp_path, series, said | {QUERIES["routing", "Mix of domains", "C"]: moved}, after=8 * DAY, step=10)


def total(mix: Mapping[str, int]) -> int:
    return sum(count for domain, count in mix.items() if domain != "none")


def test_of_two_gateways_what_both_count_is_added_and_what_both_see_is_not(tmp_path: Path) -> None:
    series = {
        f'moe_replica_up{{expert="a", replica="a-{replica}", instance="{instance}"}}': "1+0x100"
        for replica in range(3)
        for instance in "xy"
    }
    held = {f'moe_requests_in_flight{{expert="a", instance="{instance}"}}': "4+0x100" for instance in "xy"}
    up, load = (QUERIES["experts", "Experts", ref] for ref in "AC")
    check(tmp_path, series | held, {up: {'{expert="a"}': 3}, load: {'{expert="a"}': 8}})


def test_an_expert_is_down_when_nobody_may_ask_any_of_its_replicas(tmp_path: Path) -> None:
    down = QUERIES["overview", "Experts down", "A"]
    series = {
        'moe_replica_up{expert="a", replica="a-0"}': "0+0x100", 'moe_replica_up{expert="a", replica="a-1"}': "1+0x100",
        'moe_replica_up{expert="b", replica="b-0"}': "0+0x100", 'moe_replica_up{expert="c", replica="c-0"}': "0+0x100",
        'moe_worker_state{expert="b", replica="b-0", state="asleep"}': "0+0x100",
        'moe_worker_state{expert="c", replica="c-0", state="asleep"}': "1+0x100",  # a request wakes it
    }  # fmt: skip
    check(tmp_path, series, {down: {"{}": 1}})
    check(tmp_path, UP, {down: {"{}": 0}})
