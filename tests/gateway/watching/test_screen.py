from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from gateway.watching.board import Board, Row, board
from gateway.watching.scrape import Scrape, parse
from gateway.watching.screen import SORTS, duration, screen, seconds, sparkline, usd
from gateway.watching.window import Window

BEFORE = """\
# TYPE moe_build_info gauge
moe_build_info{version="0.1.0"} 1
# TYPE moe_config_info gauge
moe_config_info{hash="abc"} 1
# TYPE moe_config_last_success_timestamp_seconds gauge
moe_config_last_success_timestamp_seconds 1000
# TYPE moe_requests_in_flight gauge
moe_requests_in_flight{expert="coder"} 3
moe_requests_in_flight{expert="sleeper"} 0
# TYPE moe_requests_queued gauge
moe_requests_queued{expert="coder"} 2
# TYPE moe_replica_up gauge
moe_replica_up{expert="coder",replica="coder-0"} 1
moe_replica_up{expert="coder",replica="coder-1"} 0
moe_replica_up{expert="sleeper",replica="sleeper-0"} 0
# TYPE moe_worker_state gauge
moe_worker_state{expert="sleeper",replica="sleeper-0",state="asleep"} 1
moe_worker_state{expert="sleeper",replica="sleeper-0",state="starting"} 0
# TYPE moe_expert_mismatch gauge
moe_expert_mismatch{expert="coder"} 1
"""
AFTER = (
    BEFORE
    + """\
# TYPE moe_requests_total counter
moe_requests_total{expert="coder",code="200"} 15
moe_requests_total{expert="none",code="503"} 5
# TYPE moe_upstream_attempts_total counter
moe_upstream_attempts_total{expert="coder",replica="coder-0",outcome="ok"} 15
moe_upstream_attempts_total{expert="coder",replica="coder-1",outcome="timeout"} 4
moe_upstream_attempts_total{expert="coder",replica="coder-1",outcome="cancelled"} 1
# TYPE moe_tokens_total counter
moe_tokens_total{expert="coder",kind="output"} 1000
moe_tokens_total{expert="coder",kind="input"} 5000
# TYPE moe_cost_usd_total counter
moe_cost_usd_total{expert="coder",domain="code"} 0.02
# TYPE moe_capacity_cost_usd_total counter
moe_capacity_cost_usd_total{expert="sleeper"} 0.01
# TYPE moe_routing_cost_usd_total counter
moe_routing_cost_usd_total{part="classifier"} 0.001
# TYPE moe_baseline_cost_usd_total counter
moe_baseline_cost_usd_total{baseline="dearest"} 9
moe_baseline_cost_usd_total{baseline="big"} 0.019
# TYPE moe_compared_cost_usd_total counter
moe_compared_cost_usd_total{baseline="dearest"} 0.02
moe_compared_cost_usd_total{baseline="big"} 0.018
# TYPE moe_request_duration_seconds histogram
moe_request_duration_seconds_bucket{expert="coder",endpoint="chat",le="1.0"} 10
moe_request_duration_seconds_bucket{expert="coder",endpoint="chat",le="2.0"} 20
moe_request_duration_seconds_bucket{expert="coder",endpoint="chat",le="+Inf"} 20
"""
)


def seen(before: str = BEFORE, after: str = AFTER, step: float = 10.0) -> Board:
    window = Window(30)
    window.add(parse(before, at=100.0))
    window.add(parse(after, at=100.0 + step))
    return board(window, now=1090.0)


def drawn(told: Board, width: int, sort: str = "file", first: int = 0, rows: int | None = None) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(screen(told, width, sort, first, rows), highlight=False)
    return captured.get()


def test_the_figures_of_a_gateway() -> None:
    told = seen()
    assert (told.version, told.config, told.loaded_ago) == ("0.1.0", "abc", 90)
    assert (told.rate, told.in_flight, told.errors) == (2.0, 3, 0.25)
    assert told.p95 == 1.9
    assert told.overhead_p95 is None
    assert told.tokens == 100
    assert told.usd_per_hour == pytest.approx(0.03 * 360)
    assert told.spent == pytest.approx(0.03)


def test_savings_are_net_and_may_be_less_than_nothing() -> None:
    told = seen()
    assert told.baseline == "big"
    assert told.saved == pytest.approx(0.019 - 0.018 - 0.01 - 0.001)


def test_without_a_baseline_nothing_is_said_of_savings() -> None:
    told = seen(after=BEFORE)
    assert (told.baseline, told.saved) == (None, None)
    assert "saved" not in drawn(told, 120)


def test_the_figures_of_an_expert() -> None:
    coder, sleeper = seen().rows
    assert (coder.expert, coder.health, coder.up, coder.replicas, coder.mismatch) == ("coder", "partly", 1, 2, True)
    assert (coder.rate, coder.in_flight, coder.queued, coder.tokens) == (1.5, 3, 2, 100)
    assert coder.failing == 0.2
    assert coder.history == (1.5,)
    assert (sleeper.health, sleeper.failing, sleeper.p95, sleeper.rate) == ("asleep", None, None, 0)
    assert sleeper.usd_per_hour == pytest.approx(3.6)


@pytest.mark.parametrize(
    ("up", "replicas", "starting", "asleep", "health"),
    [
        (2, 2, 0, 0, "up"),
        (1, 2, 1, 0, "partly"),
        (0, 1, 1, 0, "starting"),
        (0, 2, 1, 1, "starting"),
        (0, 1, 0, 1, "asleep"),
        (0, 1, 0, 0, "down"),
    ],
)
def test_health_is_one_word(up: int, replicas: int, starting: int, asleep: int, health: str) -> None:
    row = replace(seen().rows[0], up=up, replicas=replicas, starting=starting, asleep=asleep)
    assert row.health == health


@pytest.mark.parametrize("width", [80, 119, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_figure_is_cut(width: int) -> None:
    shown = drawn(seen(), width)
    assert all(len(line) <= width for line in shown.splitlines())
    assert "…" not in shown
    assert "$7.20" in shown
    assert ("tokens/s" in shown.splitlines()[5]) == (width >= 120)


def many(count: int) -> Board:
    row = seen().rows[0]
    rows = tuple(replace(row, expert=f"expert-{i}", rate=float(i), usd_per_hour=float(-i)) for i in range(count))
    return replace(seen(), rows=rows)


def experts(shown: str) -> list[str]:
    return [line.split()[0] for line in shown.splitlines() if line.startswith("expert-")]


def test_many_experts_are_shown_in_parts() -> None:
    shown = drawn(many(30), 100, first=5, rows=10)
    assert experts(shown) == [f"expert-{i}" for i in range(5, 15)]
    assert "20 more" in shown


def test_they_are_sorted_as_asked() -> None:
    assert experts(drawn(many(3), 100, sort="rate")) == ["expert-2", "expert-1", "expert-0"]
    assert experts(drawn(many(3), 100, sort="cost")) == ["expert-0", "expert-1", "expert-2"]
    assert [title for title in SORTS if f"{title}↓" in drawn(many(3), 132, sort="p95")] == ["p95"]


def test_a_name_is_no_markup() -> None:
    told = seen()
    hostile = replace(told.rows[0], expert="[red]x[/]")
    assert "[red]x[/]" in drawn(replace(told, rows=(hostile,), version="[b]", baseline="[/b]"), 120)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0000005, "0 µs"), (0.00042, "420 µs"), (0.0042, "4.2 ms"), (0.42, "420 ms"), (4.2, "4.2 s"), (420, "420 s")],
)
def test_times_have_the_unit_that_leaves_few_digits(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "$0.00"), (1234.5, "$1,234.50"), (-0.5, "-$0.50"), (0.0123, "$0.012"), (0.00042, "$0.00042"), (1e-9, "$0.00")],
)
def test_small_sums_keep_their_digits(value: float, text: str) -> None:
    assert usd(value) == text


def test_durations_are_rounded_to_one_unit() -> None:
    assert [duration(value) for value in (5, 90, 7200, 3 * 86400)] == ["5 s", "2 min", "2 h", "3 d"]


def test_the_largest_rate_is_the_highest_bar() -> None:
    assert sparkline([0, 1, 2], columns=4) == " ▁▅█"
    assert sparkline([0.0, 0.0]).strip() == "▁▁"
    assert sparkline([]).strip() == ""


def test_everything_is_in_the_json() -> None:
    told = seen().described()
    assert set(told["gateway"]) == {name for name in Board.__annotations__ if name != "rows"}
    assert set(told["experts"][0]) == {*Row.__annotations__, "health"}


def test_before_the_first_scrape_there_is_nothing_to_show() -> None:
    with pytest.raises(ValueError, match="nothing"):
        board(Window(10))
    window = Window(10)
    window.add(Scrape(0.0))
    assert board(window).rows == ()
