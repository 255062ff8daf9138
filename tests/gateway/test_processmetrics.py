"""What is counted of the process itself."""

from __future__ import annotations

import asyncio
import resource
import time
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry

from gateway import processmetrics
from gateway.processmetrics import LOOK_SECONDS, REFUSALS, ProcessMetrics
from tests.fakes.upstream import PATIENCE


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> ProcessMetrics:
    return ProcessMetrics(registry)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, labels)
    assert found is not None
    return found


async def test_a_loop_that_hangs_is_late_for_all_that_was_due_meanwhile(
    registry: CollectorRegistry, metrics: ProcessMetrics
) -> None:
    looks = 10

    async def until_looked(times: float) -> None:
        async with asyncio.timeout(PATIENCE):
            while value(registry, "moe_event_loop_lag_seconds_count") < times:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(LOOK_SECONDS / 10)

    async with metrics.looking():
        await until_looked(1)
        before = value(registry, "moe_event_loop_lag_seconds_count")
        time.sleep(looks * LOOK_SECONDS)  # noqa: ASYNC251 - what is not to be done
        await until_looked(before + looks - 1)
    # Of ten looks that were due in a second some nine were 0.1 s late or more, and some five 0.5 s.
    late = {bound: value(registry, "moe_event_loop_lag_seconds_bucket", le=bound) for bound in ("0.05", "0.5", "+Inf")}
    assert late["+Inf"] - late["0.05"] >= looks - 2
    assert late["+Inf"] - late["0.5"] >= looks // 2 - 2
    assert value(registry, "moe_event_loop_lag_seconds_sum") >= sum(range(looks - 1)) * LOOK_SECONDS


async def test_looking_ends_with_what_it_is_for(metrics: ProcessMetrics) -> None:
    before = asyncio.all_tasks()
    async with metrics.looking():
        assert len(asyncio.all_tasks()) == len(before) + 1
    assert asyncio.all_tasks() == before


def test_processor_time_is_what_was_used_and_only_grows(registry: CollectorRegistry, metrics: ProcessMetrics) -> None:
    seen = []
    for _ in range(3):
        used = time.process_time()
        metrics.refresh()
        seen.append(value(registry, "moe_process_cpu_seconds_total"))
        assert used <= seen[-1] <= time.process_time()
        sum(i * i for i in range(10_000))
    assert all(before < after for before, after in pairwise(seen))


def test_memory_is_what_is_held_now(registry: CollectorRegistry, metrics: ProcessMetrics) -> None:
    metrics.refresh()
    before = value(registry, "moe_process_resident_memory_bytes")
    held = bytearray(b"x" * 50_000_000)
    metrics.refresh()
    assert value(registry, "moe_process_resident_memory_bytes") - before > len(held) / 2
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert value(registry, "moe_process_resident_memory_bytes") <= most + 2**20


def test_without_proc_memory_is_the_most_that_was_held(
    registry: CollectorRegistry, metrics: ProcessMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processmetrics, "STATM", processmetrics.STATM / "not here")
    metrics.refresh()
    assert value(registry, "moe_process_resident_memory_bytes") > 0


def test_connections_are_those_that_are_open_when_looked_at(
    registry: CollectorRegistry, metrics: ProcessMetrics
) -> None:
    connections = {1, 2, 3}
    metrics.watch(lambda: len(connections))
    metrics.refresh()
    assert value(registry, "moe_open_connections") == 3
    connections.pop()
    metrics.refresh()
    assert value(registry, "moe_open_connections") == 2


def test_refusals_are_there_from_the_beginning(registry: CollectorRegistry, metrics: ProcessMetrics) -> None:
    metrics.refuse("malformed_http")
    counted = {reason: value(registry, "moe_connections_refused_total", reason=reason) for reason in REFUSALS}
    assert counted == {reason: float(reason == "malformed_http") for reason in REFUSALS}
