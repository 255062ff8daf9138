from __future__ import annotations

import math
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.watching.scrape import Scrape
from gateway.watching.window import Window, quantile

CODER = frozenset({("expert", "coder")})
GENERAL = frozenset({("expert", "general")})


def window(*counts: float, every: float = 1.0, seconds: float = 1000.0) -> Window:
    made = Window(seconds)
    for i, count in enumerate(counts):
        made.add(Scrape(i * every, {"moe_requests_total": {CODER: count}}))
    return made


@given(st.lists(st.integers(0, 1000), min_size=2), st.floats(0.1, 60))
def test_what_is_counted_is_what_grew(grown: list[int], every: float) -> None:
    counts = list(accumulate(grown))
    made = window(*counts, every=every, seconds=math.inf)
    assert made.increase("moe_requests_total") == counts[-1] - counts[0]
    assert made.rate("moe_requests_total") == pytest.approx((counts[-1] - counts[0]) / (every * (len(counts) - 1)))
    assert [step.grown["moe_requests_total"][CODER] for step in made.steps] == [b - a for a, b in pairwise(counts)]


def test_a_gateway_that_began_anew_counts_from_0() -> None:
    assert window(100, 110, 3, 5).increase("moe_requests_total") == 10 + 3 + 2


def test_a_series_that_is_new_counts_from_0() -> None:
    made = Window(10)
    made.add(Scrape(0.0, {}))
    made.add(Scrape(1.0, {"moe_requests_total": {GENERAL: 4.0}}))
    assert made.increase("moe_requests_total", expert="general") == 4


def test_only_the_last_seconds_are_looked_at() -> None:
    made = window(*range(0, 1000, 10), every=2.0, seconds=30.0)
    assert (made.seconds, len(made.steps)) == (30.0, 15)
    assert made.rate("moe_requests_total") == 5


def test_one_scrape_is_no_rate() -> None:
    assert window(5).rate("moe_requests_total") == 0
    assert window(5).seconds == 0


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=12, unique=True), st.data())
def test_a_quantile_is_where_a_line_through_the_buckets_has_it(bounds: list[float], data: st.DataObject) -> None:
    """numpy's interpolation of the inverse is another way to the same figure where no bucket is empty."""
    bounds = sorted(bounds)
    inside = data.draw(st.lists(st.integers(1, 50), min_size=len(bounds), max_size=len(bounds)))
    below = list(accumulate(inside))
    q = data.draw(st.floats(0.01, 1))
    found = quantile(q, {**dict(zip(bounds, map(float, below), strict=True)), math.inf: float(below[-1])})
    assert found == pytest.approx(np.interp(q * below[-1], [0, *below], [0, *bounds]))


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert quantile(0.95, {1.0: 2.0, 2.0: 3.0, math.inf: 100.0}) == 2.0


def test_an_empty_bucket_is_passed_over() -> None:
    assert quantile(0.5, {1.0: 0.0, 2.0: 0.0, 4.0: 10.0, math.inf: 10.0}) == 3.0


@pytest.mark.parametrize("buckets", [{}, {math.inf: 3.0}, {1.0: 0.0, math.inf: 0.0}, {1.0: 1.0, 2.0: 1.0}])
def test_nothing_observed_has_no_quantile(buckets: dict[float, float]) -> None:
    assert quantile(0.5, buckets) is None


def test_a_quantile_is_of_what_the_window_saw_alone() -> None:
    made = Window(10)
    for at, (low, high) in enumerate([(1000.0, 1000.0), (1000.0, 1010.0)]):
        le = {"1.0": low, "2.0": high, "+Inf": high}
        series = {frozenset({("expert", "coder"), ("le", bound)}): value for bound, value in le.items()}
        made.add(Scrape(float(at), {"moe_request_duration_seconds_bucket": series}))
    assert made.quantile(0.5, "moe_request_duration_seconds") == 1.5
    assert made.quantile(0.5, "moe_request_duration_seconds", expert="general") is None
