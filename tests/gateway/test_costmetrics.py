"""What is counted of money and energy: sums of charges, and hours as they pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from gateway.children import Children
from gateway.costmetrics import MAX_KEYS, CostMetrics
from gateway.costs import Tariff
from gateway.exchange import Attempt, Exchange, Outcome
from gateway.load import Load
from gateway.pool import Pool
from gateway.pricemap import ListPrice
from gateway.usage import Usage
from gateway.workers.link import LinkedAddress
from router.experts import ExpertsFile
from router.prices import DEAREST, Price
from tests.fakes.clock import Clock
from tests.fakes.memory import decision, experts_file
from tests.fakes.owner import facts

BIG = Price(input=5.0, output=15.0, cached_input=2.5)
ENERGY = {"watts": 700, "idle_watts": 100, "gco2e_per_kwh": 380}
FILE = experts_file(
    {
        "cheap": {"price": {"input": 0.15, "output": 0.6, "cached_input": 0.07}},
        "dear": {"price": {"input": 2.5, "output": 10.0, "reasoning": 12.0}},
        "hourly": {"price": {"gpu_hour": 3.6, "gpus": 2}, "energy": ENERGY},
        "unpriced": {},
        "stand-in": {"upstream": {"embedded": "smollm2"}, "price": {"input": 0.02, "output": 0.1}},
    }
)
TARIFF = Tariff(FILE.experts, cpu_hour=0.04)
TARIFF.baseline = "big", ListPrice(BIG)
MICRO = Fraction(1, 1_000_000)
COUNTS = st.integers(0, 1_000_000)
USAGES = st.builds(lambda i, c, o, r: Usage(i, c, o + r, r), COUNTS, COUNTS, COUNTS, COUNTS)


class House:
    """A pool of experts and what is counted of their costs, at one clock."""

    def __init__(
        self, file: ExpertsFile = FILE, workers: Mapping[str, Any] | None = None, keys: Sequence[str] = ()
    ) -> None:
        self.clock, self.registry, self.keys = Clock(), CollectorRegistry(), keys
        self.metrics = CostMetrics(self.registry, Children(), self.clock)
        self.pool = Pool(file, {"smollm2": LinkedAddress("smollm2"), **(workers or {})}, clock=self.clock)
        self.metrics.watch(file.experts, self.pool.all(), keys)

    def reload(self, file: ExpertsFile) -> None:
        self.pool = Pool(file, {"smollm2": LinkedAddress("smollm2")}, clock=self.clock, before=self.pool)
        self.metrics.watch(file.experts, self.pool.all(), self.keys)

    def passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.metrics.refresh()

    def value(self, name: str, **labels: str) -> float:
        """The sum of the series that have these labels."""
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"moe_{name}_total" and labels.items() <= sample.labels.items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        found: Iterator[Mapping[str, str]] = (
            s.labels for f in self.registry.collect() for s in f.samples if s.name == name
        )
        return {labels[label] for labels in found}


def finished(expert: str, usage: Usage | None, outcome: Outcome = Outcome.OK, **more: Any) -> Exchange:
    exchange = Exchange(
        "r", "chat.completions", tariff=TARIFF, decision=more.pop("decision", decision(expert)), expert_id=expert,
        expert=FILE.experts[expert], usage=usage, attempts=[Attempt(expert, f"{expert}-0", 1.0, outcome, 0.1)], **more,
    )  # fmt: skip
    exchange.finish(outcome, 200)
    return exchange


HISTORIES = st.lists(
    st.tuples(
        st.sampled_from(list(FILE.experts)), st.none() | USAGES, st.sampled_from(list(Outcome)),
        st.sampled_from(["a", "b", "anonymous", "nobody"]), st.floats(0, 100),
    ),
    max_size=12,
)  # fmt: skip


def exact(usage: Usage, price: Price) -> Fraction:
    of_cached = price.input if price.cached_input is None else price.cached_input
    of_reasoning = price.output if price.reasoning is None else price.reasoning
    read = usage.input * Fraction(price.input) + usage.cached_input * Fraction(of_cached)
    said = (usage.output - usage.reasoning) * Fraction(price.output) + usage.reasoning * Fraction(of_reasoning)
    return (read + said) / 1_000_000


@settings(max_examples=60, deadline=None)
@given(HISTORIES)
def test_what_is_counted_is_what_was_charged(history: list[tuple[str, Usage | None, Outcome, str, float]]) -> None:
    house = House(keys=("a", "b"))
    paid: dict[str, Fraction] = {}
    compared, elsewhere, there = 0, Fraction(), Fraction()
    for expert, usage, outcome, caller, seconds in history:
        exchange = Exchange(
            "r", "chat.completions", tariff=TARIFF, caller=caller, decision=decision(expert), expert_id=expert,
            expert=FILE.experts[expert], usage=usage, attempts=[Attempt(expert, f"{expert}-0", 1.0, outcome, 0.1)],
        )  # fmt: skip
        exchange.took(expert, FILE.experts[expert], seconds)
        exchange.finish(outcome, 200)
        house.metrics.observe(exchange)
        price, spec = FILE.experts[expert].token_price, FILE.experts[expert]
        cost = exact(usage, price) if usage and price else Fraction()
        share = Fraction(seconds) * Fraction(7.2) / 3600 if spec.gpu_price else Fraction()
        paid[expert] = paid.get(expert, Fraction()) + cost
        key = caller if caller != "nobody" else "other"
        paid[f"key {key}"] = paid.get(f"key {key}", Fraction()) + cost + share
        if usage and usage.total and expert not in ("unpriced", "stand-in"):
            compared, elsewhere, there = compared + 1, elsewhere + exact(usage, BIG), there + cost
    for expert in FILE.experts:
        assert abs(Fraction(house.value("cost_usd", expert=expert)) - paid.get(expert, 0)) < MICRO
    for key in ("a", "b", "anonymous", "other"):
        assert abs(Fraction(house.value("key_cost_usd", key=key)) - paid.get(f"key {key}", 0)) < MICRO
    assert house.value("compared_requests", baseline="big") == compared
    assert house.value("compared_requests", baseline="big") <= house.value("comparable_requests") <= len(history)
    assert abs(Fraction(house.value("baseline_cost_usd", baseline="big")) - elsewhere) < MICRO
    assert abs(Fraction(house.value("compared_cost_usd", baseline="big")) - there) < MICRO
    assert house.value("compared_cost_usd", baseline="big") <= house.value("cost_usd") + 1e-9
    assert (
        house.value("baseline_cost_usd", baseline=DEAREST) >= house.value("compared_cost_usd", baseline=DEAREST) - 1e-9
    )
    hours = sum(seconds for expert, _, _, _, seconds in history if expert == "hourly") / 3600
    assert house.value("energy_wh", expert="hourly") == pytest.approx(700 * hours)
    assert house.value("emissions_gco2e", expert="hourly") == pytest.approx(0.7 * 380 * hours)


def test_savings_are_negative_where_the_expert_is_dearer_than_the_baseline() -> None:
    house = House()
    usage = Usage(input=1_000_000, output=1_000_000, reasoning=1_000_000)
    house.metrics.observe(finished("dear", usage))
    small = Tariff(FILE.experts)
    small.baseline = "small", ListPrice(Price(input=0.1, output=0.2))
    exchange = finished("dear", usage)
    exchange.tariff, exchange.charge = small, small.charge(("dear", FILE.experts["dear"]), usage, None)
    house.metrics.observe(exchange)
    saved = {
        name: house.value("baseline_cost_usd", baseline=name) - house.value("compared_cost_usd", baseline=name)
        for name in ("big", "small")
    }
    assert saved == pytest.approx({"big": 20.0 - 14.5, "small": 0.3 - 14.5})


def test_the_share_that_is_compared_leaves_out_what_has_no_price_or_was_no_answer() -> None:
    house = House()
    for exchange in (
        finished("cheap", Usage(1, 0, 1)), finished("stand-in", Usage(1, 0, 1)), finished("unpriced", Usage(1, 0, 1)),
        finished("cheap", None), finished("cheap", None, Outcome.TIMEOUT), finished("cheap", Usage()),
        finished("dear", None, Outcome.CANCELLED, first_token=1.05), finished("dear", None, Outcome.CANCELLED),
    ):  # fmt: skip
        house.metrics.observe(exchange)
    assert house.value("comparable_requests") == 5
    assert house.value("compared_requests", baseline="big") == 1
    assert house.value("unpriced_requests", expert="unpriced") == 1
    assert house.value("unpriced_requests", expert="cheap") == 1
    assert house.value("unpriced_requests", expert="dear") == 1  # who left had read something
    assert house.value("unpriced_requests", expert="hourly") == 0


def test_what_routing_costs_is_counted_by_its_parts() -> None:
    house = House()
    switched = replace(decision("cheap"), previous="dear", switched="topic", prefix=1000, seconds=90.0)
    house.metrics.observe(finished("cheap", Usage(input=4000), decision=switched))
    assert house.value("routing_cost_usd", part="classifier") == pytest.approx(0.001)
    assert house.value("routing_cost_usd", part="lost_cache") == pytest.approx(0.00008)


def test_an_hourly_expert_is_never_unpriced() -> None:
    house = House()
    house.metrics.observe(finished("hourly", None))
    assert house.value("unpriced_requests") == 0


def test_thousands_of_keys_have_a_bounded_number_of_series() -> None:
    names = [f"team-{i}" for i in range(5000)]
    house = House(keys=names)
    for name in (*names, "anonymous", "intruder"):
        house.metrics.observe(finished("cheap", Usage(input=1_000_000), caller=name))
    told = house.labels("moe_key_cost_usd_total", "key")
    assert told == {*names[:MAX_KEYS], "anonymous", "other"}
    assert house.value("key_cost_usd") == pytest.approx(5002 * 0.15)
    assert house.value("key_cost_usd", key="other") == pytest.approx((5001 - MAX_KEYS) * 0.15)


# Hours


def hold(house: House, expert: str, seconds: float) -> float:
    """One request in flight for so long; the seconds that it is given."""
    with house.pool.holding(expert, house.pool.replicas[expert][0]) as place:
        house.passes(seconds)
    return place.seconds


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5000), st.booleans()), max_size=20), st.floats(0, 10))
def test_capacity_is_hours_times_price_and_idle_the_part_without_a_request(
    times: list[tuple[float, bool]], usd: float
) -> None:
    house = House(experts_file({"hourly": {"price": {"gpu_hour": usd, "gpus": 3}}}, replicas=2))
    both, busy = Fraction(), Fraction()
    for seconds, occupied in times:
        before = house.clock.now
        if occupied:
            hold(house, "hourly", seconds)
        else:
            house.passes(seconds)
        gone = Fraction(house.clock.now) - Fraction(before)
        both, busy = both + 2 * gone, busy + (gone if occupied else 0)
    hour = Fraction(usd) * 3 / 3600
    assert abs(Fraction(house.value("capacity_cost_usd", expert="hourly")) - both * hour) < MICRO
    assert abs(Fraction(house.value("capacity_idle_cost_usd", expert="hourly")) - (both - busy) * hour) < MICRO
    assert house.value("cost_usd") == 0


def test_what_requests_are_estimated_at_is_the_busy_part_of_capacity() -> None:
    house = House()
    (replica,) = house.pool.replicas["hourly"]
    with house.pool.holding("hourly", replica) as first:
        house.passes(10)
        with house.pool.holding("hourly", replica) as second:
            house.passes(20)
        house.passes(30)
    house.passes(40)
    assert (first.seconds, second.seconds) == (50, 10)
    assert house.value("capacity_cost_usd", expert="hourly") == pytest.approx(100 * 7.2 / 3600)
    assert house.value("capacity_idle_cost_usd", expert="hourly") == pytest.approx(40 * 7.2 / 3600)
    assert house.value("energy_wh", expert="hourly") == pytest.approx(
        40 * 100 / 3600
    )  # what is idle; the rest is the requests'


def test_another_price_is_paid_from_the_reload_on() -> None:
    house = House()
    house.passes(100)
    house.clock.now += 500  # nobody looked
    dearer = {name: spec.model_dump() for name, spec in FILE.experts.items()}
    dearer["hourly"]["price"] = {"gpu_hour": 36.0}
    house.reload(ExpertsFile.model_validate({"version": 1, "experts": dearer}))
    assert house.value("capacity_cost_usd") == pytest.approx(600 * 7.2 / 3600)
    house.passes(100)
    assert house.value("capacity_cost_usd") == pytest.approx(600 * 7.2 / 3600 + 100 * 36 / 3600)
    del dearer["hourly"]
    house.reload(ExpertsFile.model_validate({"version": 1, "experts": dearer}))
    house.passes(1000)
    assert house.value("capacity_cost_usd") == pytest.approx(600 * 7.2 / 3600 + 100 * 36 / 3600)


def test_a_request_in_flight_over_a_reload_is_busy_time_before_and_after() -> None:
    house = House()
    with house.pool.holding("hourly", house.pool.replicas["hourly"][0]) as place:
        house.passes(10)
        house.reload(FILE)
        house.passes(10)
    assert place.seconds == 20
    assert house.value("capacity_idle_cost_usd", expert="hourly") == 0


def test_another_expert_at_a_server_joins_what_is_known_of_it() -> None:
    house = House()
    alone = {name: spec.model_dump() for name, spec in FILE.experts.items()}
    beside = {"beside": {**alone["hourly"], "model": "another", "price": None}, **alone}
    with house.pool.holding("hourly", house.pool.replicas["hourly"][0]) as place:
        house.passes(10)
        house.reload(ExpertsFile.model_validate({"version": 1, "experts": beside}))
        with house.pool.holding("beside", house.pool.replicas["beside"][0]) as other:
            house.passes(10)
    assert (place.seconds, other.seconds) == (15, 5)
    assert house.value("capacity_idle_cost_usd", expert="hourly") == 0
    house.passes(10)
    assert house.value("capacity_cost_usd", expert="hourly") == pytest.approx(30 * 7.2 / 3600)
    assert house.value("capacity_idle_cost_usd", expert="hourly") == pytest.approx(10 * 7.2 / 3600)


LAUNCHED = {"upstream": {"launch": {"replicas": 2, "gpus": [0, 1, 2, 3]}}, "price": {"gpu_hour": 3.6}}


@pytest.mark.parametrize(
    ("state", "costs"),
    [("starting", 0), ("ready", 1), ("stopping", 1), ("asleep", 0), ("waking", 0), ("failed", 0), (None, 0)],
)
def test_a_launched_worker_costs_while_it_runs(state: str | None, costs: int) -> None:
    workers = {name: LinkedAddress(name) for name in ("big-0", "big-1")}
    house = House(experts_file({"big": LAUNCHED}), workers)
    house.passes(1000)
    assert house.value("capacity_cost_usd", expert="big") == 0
    workers["big-0"].tell(None if state is None else facts("big-0", state, "http://127.0.0.1:1/v1"))
    house.metrics.refresh()
    house.clock.now += 100  # of which nobody hears before the next change
    workers["big-0"].tell(facts("big-0", "asleep"))
    house.metrics.refresh()
    assert house.value("capacity_cost_usd", expert="big") == pytest.approx(100 * 7.2 / 3600 * costs)
    house.passes(1000)
    assert house.value("capacity_cost_usd", expert="big") == pytest.approx(100 * 7.2 / 3600 * costs)


def test_the_server_of_several_experts_costs_once_and_is_paid_for_by_who_launches_it() -> None:
    adapted = {
        "upstream": {"worker": "big", "adapter": {"name": "a", "path": "/a"}},
        "price": {"gpu_hour": 3.6, "gpus": 2},
    }
    workers = {name: LinkedAddress(name) for name in ("big-0", "big-1")}
    for name, address in workers.items():
        address.tell(facts(name, "ready", "http://127.0.0.1:1/v1"))
    house = House(experts_file({"adapted": adapted, "big": LAUNCHED}), workers)
    first, second = (house.pool.replicas[expert][0] for expert in ("adapted", "big"))
    with house.pool.holding("adapted", first) as mine, house.pool.holding("big", second) as its:
        house.passes(100)
    assert (mine.seconds, its.seconds) == (50, 50)
    assert house.value("capacity_cost_usd", expert="big") == pytest.approx(2 * 100 * 7.2 / 3600)
    assert house.value("capacity_idle_cost_usd", expert="big") == pytest.approx(100 * 7.2 / 3600)
    assert house.value("capacity_cost_usd", expert="adapted") == 0


def test_requests_of_others_at_a_server_keep_it_from_being_idle() -> None:
    house = House()
    (replica,) = house.pool.replicas["hourly"]
    replica.weigh(Load(running=3, waiting=0), good_for=10)
    house.passes(25)
    assert house.value("capacity_idle_cost_usd", expert="hourly") == pytest.approx(15 * 7.2 / 3600)


def test_without_servers_to_watch_no_hour_is_counted() -> None:
    house = House()
    house.metrics.watch(FILE.experts, (), ())
    house.passes(1000)
    assert house.value("capacity_cost_usd") == 0
    house.metrics.observe(finished("cheap", Usage(input=1_000_000)))
    assert house.value("cost_usd") == pytest.approx(0.15)


def test_each_replica_is_a_server() -> None:
    house = House(experts_file({"hourly": {"price": {"gpu_hour": 1.0}}}, replicas=3))
    house.passes(3600)
    assert house.value("capacity_cost_usd", expert="hourly") == pytest.approx(3.0)
