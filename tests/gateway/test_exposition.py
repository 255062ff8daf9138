"""What is told of what was counted: of whom, and in which format."""

from __future__ import annotations

import re

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_plain

from gateway.exposition import OPENMETRICS_TYPE, PLAIN_TYPE, Exposition, Roll

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5"
)


class House:
    def __init__(self) -> None:
        self.registry, self.roll = CollectorRegistry(), Roll()
        self.exposition = Exposition(self.registry, self.roll)
        self.tries = Counter("tries", "Tries.", ("expert", "replica"), registry=self.registry)
        self.moves = Counter("moves", "Moves.", ("from_expert", "to_expert"), registry=self.registry)
        self.wait = Histogram("wait_seconds", "Waits.", ("expert",), buckets=(1.0,), registry=self.registry)
        self.held = Gauge("held", "Held.", ("expert", "state"), registry=self.registry)

    def told(self) -> list[str]:
        """The series, without their values."""
        lines = self.exposition.text()[0].decode().splitlines()
        return sorted(
            {re.sub(r'le="[^"]*"|_(bucket|count|sum)', "", line.rpartition(" ")[0]) for line in lines if line[0] != "#"}
        )

    def value(self, name: str, **labels: str) -> float | None:
        found = (
            s for family in self.exposition.collect() for s in family.samples if s.name == name and s.labels == labels
        )
        return next((sample.value for sample in found), None)


def names(*experts: str, replicas: tuple[str, ...] = (), domains: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    return {"expert": experts, "replica": replicas, "domain": domains}


def test_what_nobody_speaks_of_any_more_is_not_told_in_any_family_nor_under_any_label() -> None:
    house, old, new = House(), object(), object()
    house.roll.enter(old, names("coder", "other", replicas=("coder-0", "coder-1")))
    house.tries.labels("coder", "coder-0").inc()
    house.tries.labels("coder", "coder-1").inc()
    house.tries.labels("other", "none").inc()
    house.moves.labels("coder", "other").inc()
    house.moves.labels("other", "coder").inc()
    house.wait.labels("coder").observe(2.0)
    house.held.labels("coder", "up").set(1)
    house.held.labels("none", "up").set(1)
    everything = house.told()
    house.roll.enter(new, names("other"))
    assert house.told() == everything  # something may still move
    house.roll.leave(old)
    assert house.told() == ['held{expert="none",state="up"}', 'tries_total{expert="other",replica="none"}']


def test_a_replica_and_a_domain_go_though_their_expert_stays() -> None:
    house, old, new = House(), object(), object()
    domains = Counter("answers", "Answers.", ("expert", "domain"), registry=house.registry)
    house.roll.enter(old, names("coder", replicas=("coder-0", "coder-1"), domains=("code", "law")))
    for replica, domain in (("coder-0", "code"), ("coder-1", "law")):
        house.tries.labels("coder", replica).inc()
        domains.labels("coder", domain).inc()
    house.roll.enter(new, names("coder", replicas=("coder-0",), domains=("code",)))
    house.roll.leave(old)
    assert house.told() == [
        'answers_total{domain="code",expert="coder"}',
        'tries_total{expert="coder",replica="coder-0"}',
    ]


def test_one_that_comes_back_goes_on_where_it_was() -> None:
    house, first, second, third = House(), object(), object(), object()
    house.roll.enter(first, names("coder", replicas=("coder-0",)))
    house.tries.labels("coder", "coder-0").inc(5)
    house.roll.enter(second, names("other"))
    house.roll.leave(first)
    assert house.value("tries_total", expert="coder", replica="coder-0") is None
    house.roll.enter(third, names("coder", replicas=("coder-0",)))
    house.roll.leave(second)
    house.tries.labels("coder", "coder-0").inc(2)
    assert house.value("tries_total", expert="coder", replica="coder-0") == 7


def test_before_anybody_spoke_everything_is_told() -> None:
    house = House()
    house.tries.labels("coder", "coder-0").inc()
    assert house.told() == ['tries_total{expert="coder",replica="coder-0"}']
    house.roll.leave(object())
    assert len(house.told()) == 1


def test_when_series_began_is_not_told() -> None:
    house = House()
    house.tries.labels("coder", "coder-0").inc()
    house.wait.labels("coder").observe(1.0)
    for accept in ("", PROMETHEUS):
        assert b"_created" not in house.exposition.text(accept)[0]


def test_openmetrics_has_the_same_series_and_the_traces_that_lead_to_them() -> None:
    house = House()
    house.tries.labels("coder", "coder-0").inc(3)
    house.wait.labels("coder").observe(0.5, {"trace_id": "a" * 32})
    plain, kind = house.exposition.text("text/plain")
    assert kind == PLAIN_TYPE
    assert b"trace_id" not in plain
    rich, kind = house.exposition.text(PROMETHEUS)
    assert kind == OPENMETRICS_TYPE

    def samples(families: object) -> set[object]:
        return {(s.name, tuple(sorted(s.labels.items())), s.value) for f in families for s in f.samples}  # type: ignore[attr-defined]

    families = list(read_openmetrics(rich.decode()))  # type: ignore[no-untyped-call]
    assert samples(families) == samples(read_plain(plain.decode()))
    exemplars = [s.exemplar for family in families for s in family.samples if s.exemplar]
    assert [(e.labels, e.value) for e in exemplars] == [({"trace_id": "a" * 32}, 0.5)]


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "text/plain", "text/html, */*;q=0.1", "openmetrics", ",,;", "application/openmetrics-textual", "\xff"],
)
def test_who_does_not_ask_for_openmetrics_gets_plain_text(accept: str) -> None:
    assert House().exposition.text(accept)[1] == PLAIN_TYPE


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text", " Application/OpenMetrics-Text ; version=9\r\nx: y"]
)
def test_what_is_asked_for_is_not_echoed(accept: str) -> None:
    assert House().exposition.text(accept)[1] == OPENMETRICS_TYPE
