"""Whether an expert that sleeps is expected to be asked: what rises counts, what was always there does not."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.exchange import Exchange
from gateway.foresight import Foresight
from gateway.pool import Pool
from gateway.workers.link import LinkedAddress
from gateway.workers.protocol import WorkerState
from router.decision import Decision
from router.experts import ExpertsFile
from tests.fakes.memory import decision, experts_file
from tests.fakes.owner import facts


class Told:
    """What is expected now, by expert."""

    def __init__(self) -> None:
        self.likely: dict[str, float] = {}

    def waiting(self, expert: str, count: int) -> None: ...

    def wish(self, expert: str) -> None: ...

    def expect(self, expert: str, likely: float) -> None:
        self.likely[expert] = likely


def sleeping(domains: dict[str, float], **upstream: Any) -> dict[str, Any]:
    return {"domains": domains, "upstream": {"launch": {}}, "sleep_after": "10m", **upstream}


FILE = experts_file(
    {"general": {"domains": {"general": 0.9, "code": 0.4}}, "coder": sleeping({"code": 0.9, "math": 0.7})}
)


class House:
    """Looks at decisions that come at `now`."""

    def __init__(self, file: ExpertsFile = FILE) -> None:
        self.now, self.told = 0.0, Told()
        self.address = LinkedAddress("coder-0")
        self.pool = Pool(file, {"coder-0": self.address}, wants=self.told)
        self.foresight = Foresight(file, self.pool.sleepers, clock=lambda: self.now)
        self.become("asleep")

    @property
    def likely(self) -> float:
        return self.told.likely["coder"]

    def become(self, state: str) -> None:
        self.address.tell(facts("coder-0", WorkerState(state), "http://127.0.0.1:9/v1"))
        self.foresight.refresh()

    def decide(self, chance: float, times: int = 1, every: float = 1.0, **domains: float) -> float:
        for _ in range(times):
            self.now += every
            self.show(decision("general", domains={"code": chance, "general": 1 - chance, **domains}))
        return self.likely

    def show(self, decided: Decision | None) -> None:
        exchange = Exchange("r", "chat.completions")
        exchange.decision = decided
        self.foresight.observe(exchange)


def test_a_topic_that_comes_up_is_expected_before_anybody_was_sent_there() -> None:
    house = House()
    house.decide(0.02, 500)
    assert house.likely == 0
    assert house.decide(0.4, 3, every=2.0) < 1  # each of them was answered by another
    assert house.decide(0.4, 2, every=2.0) >= 1


@pytest.mark.parametrize(
    ("chance", "every"), [(0.03, 0.1), (0.1, 0.5), (0.3, 10.0), (0.45, 2.0), (0.01, 0.02), (0.45, 0.1)]
)
def test_what_is_always_there_is_expected_by_nobody(chance: float, every: float) -> None:
    house, chances = House(), random.Random(7)  # noqa: S311 - no secret
    for morning in range(3):
        house.now += 3600 * 10 * morning
        for _ in range(1500):
            gap = chances.expovariate(1 / every)
            likely = house.decide(min(1.0, chances.expovariate(1 / chance)), every=gap)
            assert likely < 1


def test_a_small_part_of_much_more_traffic_is_expected_by_nobody() -> None:
    house = House()
    house.decide(0.15, 600, every=1.0)
    assert {house.decide(0.19, every=0.01) for _ in range(2000)} == {0.0}


def test_what_was_likely_is_so_no_longer_when_nobody_comes() -> None:
    house = House()
    house.decide(0.0, 500)
    assert house.decide(0.45, 10) > 1
    house.now += 300
    house.foresight.refresh()
    assert house.likely == 0


def test_one_that_is_awake_is_not_expected_and_what_kept_it_awake_does_not_wake_it() -> None:
    house = House()
    house.decide(0.0, 500)
    house.become("ready")
    assert house.decide(0.95, 5) == 0
    house.become("asleep")
    assert house.likely == 0
    house.foresight.refresh()
    assert house.likely == 0
    assert house.decide(0.95, 4) > 1


def test_only_domains_that_nobody_serves_better_count() -> None:
    house = House()
    house.decide(0.0, 500, general=0.95)
    assert house.likely == 0
    assert house.decide(0.0, 30, math=0.45) > 1  # 0.7 there, and nobody better
    better = experts_file({"sage": {"domains": {"math": 0.8}}, **{n: e.model_dump() for n, e in FILE.experts.items()}})
    other = House(better)
    other.decide(0.0, 500)
    assert other.decide(0.0, 30, math=0.45) == 0


def test_experts_on_the_same_workers_are_expected_together() -> None:
    poet = {"domains": {"bio": 0.9}, "upstream": {"worker": "coder", "adapter": {"name": "verse"}}}
    house = House(experts_file({"general": {}, "coder": sleeping({"code": 0.9}), "poet": poet}))
    house.decide(0.0, 500)
    assert house.decide(0.0, 30, bio=0.45) > 1
    assert set(house.told.likely) == {"coder"}


def test_what_was_not_classified_says_nothing() -> None:
    house = House()
    for decided in (None, decision("coder", domains={})):
        house.show(decided)
    assert house.told.likely == {"coder": 0.0}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e9)), max_size=50))
def test_it_is_a_small_number_whatever_comes(
    seen: list[tuple[float, float]],
) -> None:
    house = House()
    for chance, gap in seen:
        assert 0 <= house.decide(chance, every=gap) <= len(seen)


def test_it_keeps_no_more_for_more_traffic() -> None:
    house = House()
    house.decide(0.3, 10)
    before = _size(house.foresight)
    house.decide(0.3, 3000)
    assert _size(house.foresight) == before


def _size(foresight: Foresight) -> int:
    return sum(sys.getsizeof(value) for value in vars(foresight).values()) + len(repr(list(foresight._sums)))
