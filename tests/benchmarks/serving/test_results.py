from __future__ import annotations

from collections import Counter

import pytest

from tests.benchmarks.serving.measuring import Run, Sample
from tests.benchmarks.serving.results import results


def sample(way: str, rate: float, p50: float = 0.001, cpu: float = 0.0001, failed: int = 0) -> Sample:
    return Sample(way, "json", 32, rate, p50, 2 * p50, cpu, 100.0, failed, 0.25)


def three_rounds() -> Run:
    """Three rounds of which the second had half of the machine."""
    run = Run(stages=Counter({"static": 30, "transformer": 10}))
    for share in (1.0, 0.5, 1.0):
        run.samples += [
            sample("straight", 1000 * share, 0.001 / share, 0.00001),
            sample("vllm-router", 400 * share, 0.003 / share),
            sample("pass-through", 200 * share, 0.005 / share, 0.0005, failed=1),
            sample("auto", 150 * share, 0.007 / share),
        ]
    return run


@pytest.fixture
def noisy() -> Run:
    return three_rounds()


def test_ratios_are_within_a_round_and_rates_are_medians(noisy: Run) -> None:
    cell = results(noisy).cell("pass-through", "json", 32)
    assert cell is not None
    assert (cell.rate.median, cell.rate.least, cell.rate.most) == (200, 100, 200)
    for ratio, value in ((cell.to_straight, 0.2), (cell.to_router, 0.5), (cell.cpu_to_router, 5.0)):
        assert ratio is not None
        assert ratio.least == ratio.most == pytest.approx(value)
    assert cell.added50 is not None
    assert cell.added50.median == pytest.approx(0.004)
    assert cell.added50.most == pytest.approx(0.008)
    assert cell.failed == 3


def test_auto_is_held_against_an_expert_by_name(noisy: Run) -> None:
    found = results(noisy)
    assert found.auto_to_pass["json, 32"].median == pytest.approx(0.75)
    assert found.stages == {"static": 30, "transformer": 10}


def test_a_way_that_was_not_measured_is_left_out(noisy: Run) -> None:
    noisy.samples = [s for s in noisy.samples if s.way == "pass-through"]
    cell = results(noisy).cell("pass-through", "json", 32)
    assert cell is not None
    assert cell.to_straight is cell.to_router is cell.added50 is None
