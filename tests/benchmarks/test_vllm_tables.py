from __future__ import annotations

import pytest

from tests.benchmarks.vllm_speed import DOCUMENT, PARTS
from tests.benchmarks.vllm_tables import Architecture, Round, Sample, Start, inserted, markdown


def test_ratios_are_taken_within_a_round_and_told_with_their_spread() -> None:
    slow, fast = Sample(10, 0.2), Sample(40, 0.05)
    told = markdown([Round(1, slow, Sample(5, 0.3)), Round(1, fast, Sample(40, 0.1)), Round(8, fast, slow)])
    assert "| 1 | tokens a second | 25.0 [10.0–40.0] | 22.5 [5.0–40.0] | 0.75 [0.50–1.00] |" in told
    assert "| 1 | TTFT, ms | 125 [50–200] | 200 [100–300] | 1.75 [1.50–2.00] |" in told
    assert "| 8 | tokens a second | 40.0 | 10.0 | 0.25 |" in told


def test_starts_and_architectures_have_a_row_each() -> None:
    assert "| 2 | 31.0 [30.0–40.0] |" in markdown([Start(1, [20.0]), Start(2, [40.0, 30.0, 31.0])])
    told = markdown([Architecture("a", "A", True, 24.6), Architecture("b", "B", False, 9)])
    assert "| a | `A` | yes | 25 |" in told
    assert "| b | `B` | **no** | 9 |" in told
    with pytest.raises(ValueError, match="nothing"):
        markdown([])


def test_the_page_has_a_place_for_each_part_and_keeps_what_is_around_it() -> None:
    page = DOCUMENT.read_text("utf-8")
    for part in PARTS:
        once = inserted(page, part, "| new |")
        assert inserted(once, part, "| new |") == once
        assert len(once.split("<!--")) == len(page.split("<!--"))
    with pytest.raises(ValueError, match="no place for speed"):
        inserted("nothing", "speed", "x")
