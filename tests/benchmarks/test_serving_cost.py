from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.models import Floats, Read
from tests.benchmarks.serving_cost import PASSES, WARM_UP, Ask, ServedClassifier, cost, keep, timed
from tests.fakes.encoders import tiny_static


def test_every_prompt_is_asked_in_every_pass_of_one_that_remembers_nothing() -> None:
    asked: list[list[str]] = []

    def fresh() -> Ask:
        asked.append([])
        return asked[-1].append

    prompts = [f"prompt {i}" for i in range(WARM_UP + 3)]
    found = timed(fresh, prompts)
    whole = [some for some in asked if len(some) > 1]
    assert whole == [prompts] * PASSES
    assert 0 < found["p50_us"] <= found["p99_us"]


@dataclass(frozen=True)
class Read1:
    sources: tuple[str, ...] = ("tiny",)

    def probabilities(self, texts: Sequence[str], read: Read) -> Floats:
        assert read("tiny", texts).shape == (1, 48)
        return np.ones((1, 4)) / 4


def test_a_method_is_timed_in_a_process_of_its_own(tmp_path: Path) -> None:
    folder = tiny_static(tmp_path)
    keep(ServedClassifier(Read1(), {"tiny": folder}), tmp_path / "served.pickle")
    found = cost(tmp_path / "served.pickle", ["red fox"] * 8)
    assert set(found) == {"mean_us", "p50_us", "p99_us", "resident_mb"}
    assert found["resident_mb"] > 0


def test_what_goes_wrong_there_is_told(tmp_path: Path) -> None:
    keep(ServedClassifier(Read1(), {"tiny": _empty(tmp_path)}), tmp_path / "served.pickle")
    with pytest.raises(RuntimeError, match="cannot be loaded"):
        cost(tmp_path / "served.pickle", ["red fox"])


def _empty(parent: Path) -> Path:
    folder = parent / "nothing"
    folder.mkdir()
    (folder / "encoder.json").write_text('{"kind": "static"}', "utf-8")
    return folder
