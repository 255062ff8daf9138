"""What one request is charged."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.costs import NO_CHARGE, Charge, Occupied, Tariff, baseline_of, cost_warnings
from gateway.pricemap import ListPrice
from gateway.usage import Usage
from router.decision import Candidate, Decision
from router.experts import ExpertsFile
from router.prices import Price
from tests.fakes.memory import decision, experts_file

ADAPTER = {"upstream": {"worker": "launched", "adapter": {"name": "a", "path": "/a"}}, "price": {"gpu_hour": 2.0}}
FILE = experts_file(
    {
        "cheap": {"price": {"input": 0.15, "output": 0.6, "cached_input": 0.07}},
        "dear": {"price": {"input": 2.5, "output": 10.0, "cached_input": 0.5, "reasoning": 12.0}},
        "hourly": {"price": {"gpu_hour": 2.5, "gpus": 2}, "energy": {"watts": 700, "gco2e_per_kwh": 380}},
        "launched": {"upstream": {"launch": {"replicas": 4, "gpus": [0, 1]}}, "price": {"gpu_hour": 2.0}},
        "adapted": ADAPTER,
        "unpriced": {"energy": {"watts": 100}},
        "stand-in": {"upstream": {"embedded": "smollm2"}, "price": {"input": 0.02, "output": 0.1}},
    }
)
COUNTS = st.integers(0, 10_000_000)
USAGES = st.builds(lambda i, c, o, r: Usage(i, c, o + r, r), COUNTS, COUNTS, COUNTS, COUNTS)
MICRO = Fraction(1, 1_000_000)
USAGE = Usage(input=1000, cached_input=500, output=200, reasoning=50)


def tariff() -> Tariff:
    made = Tariff(FILE.experts, cpu_hour=0.04)
    made.baseline = "big", ListPrice(Price(input=5.0, output=15.0, cached_input=2.5))
    return made


def charged(expert: str, usage: Usage | None = USAGE, decided: Decision | None = None, **more: Any) -> Charge:
    return tariff().charge((expert, FILE.experts[expert]), usage, decided, **more)


def exact(usage: Usage, price: Price) -> Fraction:
    """USD, in other words than the code's."""
    of_cached = price.input if price.cached_input is None else price.cached_input
    of_reasoning = price.output if price.reasoning is None else price.reasoning
    parts = (
        (usage.input, price.input), (usage.cached_input, of_cached),
        (usage.output - usage.reasoning, price.output), (usage.reasoning, of_reasoning),
    )  # fmt: skip
    return sum((count * Fraction(usd) for count, usd in parts), Fraction()) / 1_000_000


def priced(expert: str) -> Price:
    price = FILE.experts[expert].token_price
    assert price is not None
    return price


@settings(deadline=None)
@given(USAGES, st.sampled_from(["cheap", "dear"]))
def test_tokens_times_price_there_elsewhere_and_at_the_dearest(usage: Usage, expert: str) -> None:
    charge = charged(expert, usage)
    assert charge.cost is not None
    assert abs(Fraction(charge.cost) - exact(usage, priced(expert))) < MICRO
    if not usage.total:
        assert (charge.baseline, charge.dearest) == (None, None)
        return
    assert charge.baseline is not None
    assert charge.dearest is not None
    assert abs(Fraction(charge.baseline) - exact(usage, Price(input=5.0, output=15.0, cached_input=2.5))) < MICRO
    assert abs(Fraction(charge.dearest) - max(exact(usage, priced(e)) for e in ("cheap", "dear"))) < MICRO
    assert charge.dearest >= charge.cost


def test_a_known_bill() -> None:
    charge = charged("cheap")
    assert charge.cost == pytest.approx(0.000305, abs=1e-15)
    assert charge.baseline == pytest.approx(0.00925, abs=1e-15)
    assert charge.dearest == pytest.approx(0.00485, abs=1e-15)
    assert charge._replace(cost=None, baseline=None, dearest=None) == NO_CHARGE


def test_a_stand_in_that_is_dear_is_nobodys_rival() -> None:
    dear = FILE.experts["stand-in"].model_copy(update={"price": Price(input=1000.0, output=1000.0)})
    tariff = Tariff({**FILE.experts, "stand-in": dear})
    assert tariff.charge(("cheap", FILE.experts["cheap"]), USAGE, None).dearest == charged("cheap").dearest


def test_a_stand_in_saves_nothing_and_is_nobodys_rival() -> None:
    charge = charged("stand-in")
    assert charge.cost == pytest.approx(0.00005)
    assert (charge.baseline, charge.dearest) == (None, None)


@pytest.mark.parametrize(("expert", "usage"), [("unpriced", USAGE), ("cheap", None), ("dear", Usage())])
def test_what_is_not_known_or_used_nothing_is_not_compared(expert: str, usage: Usage | None) -> None:
    charge = charged(expert, usage)
    assert (charge.baseline, charge.dearest) == (None, None)
    assert charge.cost == (0.0 if expert == "dear" else None)


def test_nobody_answered_and_nothing_was_decided() -> None:
    assert tariff().charge(None, None, None) == NO_CHARGE
    assert NO_CHARGE.spent is None


def test_who_was_refused_is_no_rival_unless_it_answered() -> None:
    weighed = (Candidate("cheap", 0.9, 0.2), Candidate("dear", None, 4.0, refused="cannot do tools"))
    decided = replace(decision("cheap"), candidates=weighed)
    assert charged("cheap", decided=decided).dearest == charged("cheap").cost
    assert charged("dear", decided=decided).dearest == charged("dear").cost


def test_the_classifier_is_paid_by_the_hour_of_a_core() -> None:
    assert charged("cheap", decided=replace(decision("cheap"), seconds=36.0)).classifier == pytest.approx(0.0004)


@pytest.mark.parametrize(
    ("changes", "expert", "usage", "tokens"),
    [
        ({}, "dear", Usage(input=5000, output=9), 3000),
        ({}, "dear", Usage(input=4000, cached_input=1000), 2000),  # it had a part of them
        ({}, "dear", Usage(input=200), 200),  # an estimate that is too long
        ({}, "dear", Usage(input=10, cached_input=9000), 0),
        ({"switched": None}, "dear", Usage(input=5000), 0),
        ({}, "cheap", Usage(input=5000), 0),  # which had the turn before, and answered after all
        ({}, "hourly", Usage(input=5000), 0),
        ({}, "unpriced", Usage(input=5000), 0),
    ],
)
def test_a_switch_costs_what_the_new_expert_is_paid_more_for_reading_what_another_has_in_its_cache(
    changes: dict[str, Any], expert: str, usage: Usage, tokens: int
) -> None:
    switched = replace(decision("dear"), **{"previous": "cheap", "switched": "topic", "prefix": 3000, **changes})
    assert charged(expert, usage, switched).lost_cache == pytest.approx(tokens * (2.5 - 0.5) / 1e6, abs=1e-15)


def occupied(expert: str, seconds: float) -> Occupied:
    return Occupied(expert, FILE.experts[expert], seconds)


def test_an_hourly_expert_costs_its_share_of_the_hour_which_is_an_estimate() -> None:
    charge = charged("hourly", occupied=[occupied("hourly", 36.0)])
    assert (charge.cost, charge.estimated, charge.spent) == (None, 0.05, 0.05)
    assert charge.energy_wh == pytest.approx(7.0)
    assert charge.gco2e == pytest.approx(2.66)
    assert charge.baseline == pytest.approx(0.00925)


def test_an_attempt_that_failed_took_its_time_too() -> None:
    charge = charged("cheap", occupied=[occupied("hourly", 36.0), occupied("unpriced", 36.0)])
    assert charge.estimated == 0.05
    assert charge.cost is not None
    assert charge.spent == charge.cost + 0.05
    assert charge.energy_wh == pytest.approx(8.0)
    assert charge.gco2e == pytest.approx(2.66)  # of the other nobody knows how its power is made


@pytest.mark.parametrize(("expert", "usd"), [("hourly", 5.0), ("launched", 1.0), ("adapted", 2.0), ("cheap", 0.0)])
def test_the_hour_of_a_replica_has_as_many_gpus_as_are_declared_or_launched(expert: str, usd: float) -> None:
    assert FILE.experts[expert].replica_hour == usd


def of(**changes: Any) -> ExpertsFile:
    return ExpertsFile.model_validate(FILE.model_dump() | changes)


def test_a_baseline_is_a_public_model_or_figures_of_ones_own() -> None:
    assert baseline_of(of()) is None
    assert baseline_of(of(baseline="no-such-model")) is None
    name, price = baseline_of(of(baseline="gpt-4o")) or ("", None)
    assert (name, price) == ("gpt-4o", ListPrice(Price(input=2.5, output=10.0, cached_input=1.25)))
    name, price = baseline_of(of(baseline={"name": "ours", "input": 1, "output": 2})) or ("", None)
    assert name == "ours"
    assert price is not None
    assert price.cost(Usage(input=1_000_000, cached_input=1_000_000, output=1_000_000)) == 4.0


def test_what_keeps_costs_from_being_counted_is_said() -> None:
    warnings = [warning.words for warning in cost_warnings(of(baseline="no-such-model"))]
    assert len(warnings) == 3
    assert "unpriced has no price" in warnings[1]
    assert "adapted are those of launched" in warnings[0]
    assert "no-such-model" in warnings[2]
    assert list(cost_warnings(of(experts={"cheap": FILE.experts["cheap"]}, baseline="gpt-4o"))) == []


def test_a_long_sum_is_right_to_the_micro_dollar() -> None:
    """Of 100,000 requests that come to about 1,000 USD; the sums of /metrics are made in the same way."""
    draw = random.Random(7)  # noqa: S311 - made-up traffic
    price = Price(input=0.15, output=0.6, cached_input=0.03, reasoning=0.45)
    spent, exact_sum = 0.0, 0
    for _ in range(100_000):
        thought = draw.randrange(3000)
        usage = Usage(draw.randrange(100_000), draw.randrange(50_000), thought + draw.randrange(4000), thought)
        spent += usage.cost(price)
        said = usage.output - thought
        exact_sum += usage.input * 150 + usage.cached_input * 30 + said * 600 + thought * 450
    assert abs(Fraction(spent) - Fraction(exact_sum, 10**9)) < MICRO / 1000
