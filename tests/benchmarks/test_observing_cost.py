from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from tests.benchmarks.observing_cost import DOCUMENT, STEPS, inserted, markdown, opened, ratios, rows
from tests.benchmarks.serving.measuring import Run, Sample


def sample(way: str, cpu: float, rate: float = 100.0) -> Sample:
    return Sample(way, "json", 1, rate, 0.001, 0.01, cpu, 100.0, 0, 0.1)


def test_a_step_is_compared_with_the_one_before_it_in_the_same_round() -> None:
    """The second round is twice as slow for all, the third has one odd sample: the median of ratios is not moved."""
    figures = {"nothing": (1.0, 2.0, 1.0), "metrics": (1.1, 2.2, 5.0), "logs": (2.2, 4.4, 10.0)}
    made = Run([sample(way, figures[way][i]) for i in range(3) for way in figures])
    found = ratios(made, "json", 1, "cpu")
    assert list(found) == ["metrics", "logs"]
    assert found["metrics"] == pytest.approx(1.1)
    assert found["logs"] == pytest.approx(2.0)


def test_every_step_has_a_row() -> None:
    made = Run([sample(step.name, 0.001 * (i + 1)) for i, step in enumerate(STEPS)])
    told = list(rows(made))
    assert [row[1] for row in told] == [step.title for step in STEPS]
    assert [row[6] for row in told] == ["", "2.00", "1.50", "1.33", "1.25"]


def test_figures_replace_those_that_were_there() -> None:
    made = Run([sample(step.name, 0.001) for step in STEPS])
    once = inserted(DOCUMENT.read_text("utf-8"), markdown(made))
    assert inserted(once, markdown(made)) == once
    assert once.count(STEPS[-1].title) == 1
    with pytest.raises(ValueError, match="no place"):
        inserted("nothing", "figures")


def test_each_step_serves_and_the_first_counts_nothing(tmp_path: Path) -> None:
    with opened([STEPS[0], STEPS[-1]], tmp_path) as ways:
        counted = []
        for way in ways:
            way.check("json")
            way.check("stream")
            with urllib.request.urlopen(f"{way.server.url}/metrics", timeout=30) as answer:
                counted.append(b"\nmoe_requests_total{" in answer.read())
    assert counted == [False, True]
